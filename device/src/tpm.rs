//! The chip is a TPM.

use std::collections::BTreeMap;
use std::sync::Arc;

use longhaul_protocol::value::Digest32;
use longhaul_provisioning::tpm::{Attested, Key, Tpm, TpmError};
use rcgen::CertificateParams;
use rustls::sign::SigningKey;
use zeroize::Zeroizing;

use crate::chip::{self, Chip, ChipError, KeyRole, NvSlot, Sealed, UnsealError};

/// A TPM as the box's chip.
#[derive(Clone, Debug)]
pub struct TpmChip(Tpm);

impl TpmChip {
    /// Opens the TPM that a TCTI configuration names.
    pub fn open(tcti: &str) -> Result<Self, ChipError> {
        Tpm::open(tcti).map(Self).map_err(failed("open"))
    }
}

fn failed<E: std::error::Error + Send + Sync + 'static>(
    what: &'static str,
) -> impl FnOnce(E) -> ChipError {
    move |source| ChipError {
        what,
        source: Box::new(source),
    }
}

fn key(role: KeyRole) -> Key {
    match role {
        KeyRole::Idevid => Key::Idevid,
        KeyRole::Ldevid(slot) => Key::Ldevid { second: slot != 0 },
    }
}

fn attested(from: Attested) -> chip::Attested {
    chip::Attested {
        attest: from.attest,
        signature: from.signature,
    }
}

impl Chip for TpmChip {
    fn ek_certificate(&self) -> Result<Vec<u8>, ChipError> {
        self.0
            .ek_certificate()
            .map_err(failed("show its endorsement certificate"))
    }

    fn iak_public(&self) -> Result<Vec<u8>, ChipError> {
        let public = self.0.public(Key::Iak);
        public.map_err(failed("show its attestation key"))
    }

    fn activate(&self, blob: &[u8], secret: &[u8]) -> Result<Vec<u8>, ChipError> {
        let secret = self.0.activate(blob, secret);
        secret.map_err(failed("activate a credential"))
    }

    fn create_ldevid(&self, slot: u8) -> Result<Vec<u8>, ChipError> {
        let public = self.0.create(key(KeyRole::Ldevid(slot)));
        public.map_err(failed("make a device key"))
    }

    fn certify_ldevid(&self, slot: u8, nonce: &[u8]) -> Result<chip::Attested, ChipError> {
        let certified = self.0.certify(key(KeyRole::Ldevid(slot)), nonce);
        certified.map(attested).map_err(failed("certify a key"))
    }

    fn quote(
        &self,
        nonce: &[u8],
        pcrs: &[u8],
    ) -> Result<(chip::Attested, BTreeMap<u8, Digest32>), ChipError> {
        let quoted = || -> Result<_, TpmError> {
            let quote = self.0.quote(nonce, pcrs)?;
            let values = self.0.pcrs(pcrs)?.into_iter().map(Digest32);
            Ok((attested(quote), pcrs.iter().copied().zip(values).collect()))
        };
        quoted().map_err(failed("quote its PCRs"))
    }

    fn request(&self, role: KeyRole) -> Result<Vec<u8>, ChipError> {
        let what = "sign a certificate request";
        let signer = self.0.signer(key(role)).map_err(failed(what))?;
        // Names in a request do not count: the cloud knows whom it talks to.
        let request = CertificateParams::default().serialize_request(&signer);
        request.map(|r| r.der().to_vec()).map_err(failed(what))
    }

    fn tls_key(&self, role: KeyRole) -> Result<Arc<dyn SigningKey>, ChipError> {
        let signer = self.0.signer(key(role)).map_err(failed("open a key"))?;
        Ok(Arc::new(signer))
    }

    fn seal(&self, secret: &[u8], pcrs: &[u8]) -> Result<Sealed, ChipError> {
        self.0.seal(secret, pcrs).map_err(failed("seal a secret"))
    }

    fn unseal(&self, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, UnsealError> {
        self.0.unseal(sealed).map_err(|error| match error {
            TpmError::StateChanged(pcrs) => UnsealError::StateChanged(pcrs),
            other => failed("unseal a secret")(other).into(),
        })
    }

    fn slot(&self, slot: NvSlot) -> Result<Option<Zeroizing<[u8; 32]>>, ChipError> {
        let held = self.0.slot(slot);
        held.map_err(failed("read a secret from its memory"))
    }

    fn fill_slot(&self, slot: NvSlot, secret: &[u8; 32]) -> Result<(), ChipError> {
        let kept = self.0.fill_slot(slot, secret);
        kept.map_err(failed("keep a secret in its memory"))
    }

    fn empty_slot(&self, slot: NvSlot) -> Result<(), ChipError> {
        let emptied = self.0.empty_slot(slot);
        emptied.map_err(failed("destroy a secret in its memory"))
    }
}
