//! A key in the TPM, as rustls and rcgen want a key.

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::{Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use tokio::runtime::{Handle, RuntimeFlavor};

use super::{Key, Tpm, TpmError, keys};
use crate::oid;
use crate::tcg::public::SigningPublic;

/// Signs with a key in the TPM; each signature blocks until the chip is done.
#[derive(Clone, Debug)]
pub struct TpmSigner {
    tpm: Tpm,
    key: Key,
    point: [u8; 65],
}

impl TpmSigner {
    pub(super) fn new(tpm: Tpm, key: Key, public: &[u8]) -> Result<Self, TpmError> {
        let public =
            SigningPublic::parse(public).map_err(|_| TpmError::Nonsense("show a signing key"))?;
        Ok(Self {
            tpm,
            key,
            point: *public.point(),
        })
    }

    /// The key as SubjectPublicKeyInfo (DER).
    pub fn spki(&self) -> Vec<u8> {
        oid::p256_spki(&self.point)
    }

    /// Signs `message` with ECDSA and SHA-256; the signature is DER.
    pub fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, TpmError> {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, message).as_ref());
        let key = self.key;
        let sign = || {
            self.tpm
                .call(move |context| keys::sign(context, key, &hash))
        };
        // rustls signs in the middle of a handshake: a chip's 600 ms must not stop the worker's
        // other tasks.
        let (r, s) = match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(sign)?,
            _ => sign()?,
        };
        Ok(oid::ecdsa_signature(&r, &s))
    }
}

impl rcgen::PublicKeyData for TpmSigner {
    /// The point, not a SubjectPublicKeyInfo: that is what rcgen means by it.
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for TpmSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.sign_message(message)
            .map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

impl SigningKey for TpmSigner {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&SignatureScheme::ECDSA_NISTP256_SHA256)
            .then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.spki()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for TpmSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.sign_message(message)
            .map_err(|error| rustls::Error::General(error.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}
