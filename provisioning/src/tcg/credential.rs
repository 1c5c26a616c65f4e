//! `MakeCredential` in software: a secret that comes out only inside the TPM with this endorsement
//! key, and only while a key of this name is loaded there (Part 1, section 24).

use aws_lc_rs::agreement::{self, ECDH_P256, ECDH_P384, EphemeralPrivateKey};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::value::Digest32;
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};
use x509_parser::public_key::PublicKey;

use super::kdf::Hash;

/// Why an endorsement key cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// Not a key of a standard endorsement key template.
    #[error("the endorsement key is none of RSA-2048, ECC P-256 and ECC P-384")]
    UnsupportedKey,
    /// The cryptographic library refused; for ECC, the point is not on its curve.
    #[error("failed to encrypt to the endorsement key")]
    Crypto,
}

impl From<aws_lc_rs::error::Unspecified> for CredentialError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self::Crypto
    }
}

enum Kind {
    /// Template L-1: SHA-256, AES-128.
    Rsa2048,
    /// Template L-2: SHA-256, AES-128. Holds the uncompressed point.
    P256(Vec<u8>),
    /// Template H-3: SHA-384, AES-256. Holds the uncompressed point.
    P384(Vec<u8>),
}

/// The public part of an endorsement key.
pub struct EndorsementKey {
    spki: Vec<u8>,
    kind: Kind,
}

/// What goes to the TPM: only the right one gets the secret back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Credential {
    /// `TPMS_ID_OBJECT`.
    pub blob: Vec<u8>,
    /// Contents of `TPM2B_ENCRYPTED_SECRET`.
    pub encrypted_secret: Vec<u8>,
}

impl EndorsementKey {
    /// Reads an endorsement key (SubjectPublicKeyInfo, DER).
    pub fn from_spki(spki: &[u8]) -> Result<Self, CredentialError> {
        let unsupported = CredentialError::UnsupportedKey;
        let (rest, parsed) = SubjectPublicKeyInfo::from_der(spki).map_err(|_| unsupported)?;
        if !rest.is_empty() {
            return Err(unsupported);
        }
        let kind = match parsed.parsed().map_err(|_| unsupported)? {
            PublicKey::RSA(key) if key.key_size() == 2048 => Kind::Rsa2048,
            PublicKey::EC(point) if point.data().first() == Some(&4) => match point.data().len() {
                65 => Kind::P256(point.data().to_vec()),
                97 => Kind::P384(point.data().to_vec()),
                _ => return Err(unsupported),
            },
            _ => return Err(unsupported),
        };
        Ok(Self {
            spki: spki.to_vec(),
            kind,
        })
    }

    /// The key (SubjectPublicKeyInfo, DER).
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of the key (SPKI, DER).
    pub fn sha256(&self) -> Digest32 {
        let mut digest = [0; 32];
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.spki);
        digest.copy_from_slice(hash.as_ref());
        Digest32(digest)
    }

    /// The box that has this endorsement key.
    pub fn box_id(&self) -> BoxId {
        BoxId::from_ek_sha256(&self.sha256().0)
    }

    /// Encrypts `secret` (at most 32 bytes) to the TPM that holds this key and a key called
    /// `name`.
    pub fn make_credential(
        &self,
        name: &[u8; 34],
        secret: &[u8; 32],
    ) -> Result<Credential, CredentialError> {
        let (hash, aes_bytes, seed, encrypted_secret) = match &self.kind {
            Kind::Rsa2048 => {
                let mut seed = vec![0; 32];
                rand::fill(&mut seed)?;
                let encrypted = self.oaep(&seed)?;
                (Hash::Sha256, 16, seed, encrypted)
            }
            Kind::P256(point) => {
                let (seed, point) = agree(&ECDH_P256, Hash::Sha256, point)?;
                (Hash::Sha256, 16, seed, point)
            }
            Kind::P384(point) => {
                let (seed, point) = agree(&ECDH_P384, Hash::Sha384, point)?;
                (Hash::Sha384, 32, seed, point)
            }
        };
        let storage = hash.kdf_a(&seed, "STORAGE", name, aes_bytes);
        let mut encrypted = sized(secret);
        let algorithm = if aes_bytes == 16 { &AES_128 } else { &AES_256 };
        // The key is fresh and used once, so the standard's fixed IV of zeros is sound.
        EncryptingKey::cfb128(UnboundCipherKey::new(algorithm, &storage)?)?.less_safe_encrypt(
            &mut encrypted,
            EncryptionContext::Iv128(FixedLength::from([0; 16])),
        )?;
        let integrity = hash.kdf_a(&seed, "INTEGRITY", &[], hash.bytes());
        let mac = hash.hmac(&integrity, &[&encrypted, name]);
        let mut blob = sized(mac.as_ref());
        blob.extend(encrypted);
        Ok(Credential {
            blob,
            encrypted_secret,
        })
    }

    fn oaep(&self, seed: &[u8]) -> Result<Vec<u8>, CredentialError> {
        let key = PublicEncryptingKey::from_der(&self.spki).map_err(|_| CredentialError::Crypto)?;
        let key = OaepPublicEncryptingKey::new(key)?;
        let mut out = vec![0; key.ciphertext_size()];
        // The label's terminating zero counts (Part 1, appendix B.4).
        let label = Some(&b"IDENTITY\0"[..]);
        let length = key
            .encrypt(&OAEP_SHA256_MGF1SHA256, seed, &mut out, label)?
            .len();
        out.truncate(length);
        Ok(out)
    }
}

/// One-pass Diffie-Hellman (Part 1, appendix C.6.1): the seed, and the ephemeral `TPMS_ECC_POINT`.
fn agree(
    curve: &'static agreement::Algorithm,
    hash: Hash,
    peer: &[u8],
) -> Result<(Vec<u8>, Vec<u8>), CredentialError> {
    let scalar = hash.bytes();
    let key = EphemeralPrivateKey::generate(curve, &SystemRandom::new())?;
    let own = key.compute_public_key()?;
    let own_x = &own.as_ref()[1..=scalar];
    let own_y = &own.as_ref()[1 + scalar..];
    let peer_x = &peer[1..=scalar];
    let peer_key = agreement::UnparsedPublicKey::new(curve, peer);
    let seed = agreement::agree_ephemeral(key, peer_key, CredentialError::Crypto, |z| {
        Ok(hash.kdf_e(z, "IDENTITY", own_x, peer_x))
    })?;
    let mut point = sized(own_x);
    point.extend(sized(own_y));
    Ok((seed, point))
}

/// A `TPM2B`: a 16-bit length and the bytes. Nothing here is longer than a digest.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let mut out = length.to_be_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{KeyPair, PublicKeyData};

    use super::*;

    #[test]
    fn a_credential_has_the_sizes_that_a_tpm_expects() {
        for (algorithm, mac, point) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, 32, 2 * (2 + 32)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, 48, 2 * (2 + 48)),
        ] {
            let spki = KeyPair::generate_for(algorithm)
                .expect("a key")
                .subject_public_key_info();
            let ek = EndorsementKey::from_spki(&spki).expect("an endorsement key");

            let made = ek
                .make_credential(&[1; 34], &[2; 32])
                .expect("a credential");

            assert_eq!(made.blob.len(), 2 + mac + 2 + 32);
            assert_eq!(made.encrypted_secret.len(), point);
        }
    }

    #[test]
    fn a_point_off_its_curve_is_refused() {
        let mut spki = KeyPair::generate()
            .expect("a key")
            .subject_public_key_info();
        let last = spki.len() - 1;
        spki[last] ^= 1;
        let ek = EndorsementKey::from_spki(&spki).expect("looks like one");

        assert_eq!(
            ek.make_credential(&[1; 34], &[2; 32]),
            Err(CredentialError::Crypto)
        );
    }

    #[test]
    fn keys_outside_the_templates_are_refused() {
        let spki = KeyPair::generate_for(&rcgen::PKCS_ED25519)
            .expect("a key")
            .subject_public_key_info();

        assert!(EndorsementKey::from_spki(&spki).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = EndorsementKey::from_spki(&bytes);
        }
    }
}
