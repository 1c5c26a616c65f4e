//! The fleet's recovery key: boxes encrypt their vault's key to it, and whoever holds its private
//! part opens a disk whose TPM is lost. It is made in the factory and stays there; the cloud passes
//! on what it cannot open.
//!
//! HPKE (RFC 9180) in base mode. Who wrapped a key is not proven by it, and need not be: a key that
//! is not the vault's opens nothing.

use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::recovery::WrappedKey;
use longhaul_protocol::value::{Blob, Digest32, UnixMillis};
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_P256_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey};
use zeroize::Zeroizing;

use crate::files::{self, FileError};

/// Bytes of a private key: a scalar of P-256.
const PRIVATE: usize = 32;
/// Bytes of a public key: an uncompressed point of P-256.
const PUBLIC: usize = 65;
/// What HPKE mixes in, so that what is encrypted here is of no use elsewhere.
const INFO: &[u8] = b"longhaul vault recovery v1";
const PRIVATE_TAG: &str = "LONGHAUL RECOVERY KEY";
const PUBLIC_TAG: &str = "LONGHAUL RECOVERY PUBLIC KEY";
const VAULT_TAG: &str = "LONGHAUL VAULT KEY";

/// Why a key was not made, wrapped or unwrapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// A file failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file holds something else.
    #[error("{path} holds no {what}")]
    NotAKey {
        /// Which file.
        path: String,
        /// What was expected.
        what: &'static str,
    },
    /// Not a point of P-256.
    #[error("not a recovery key")]
    Malformed,
    /// The cipher refused.
    #[error("failed to {what}")]
    Crypto {
        /// What was asked of it.
        what: &'static str,
        /// What it said.
        source: rustls::Error,
    },
    /// Wrapped for somebody else.
    #[error("wrapped for another recovery key ({0:?})")]
    OtherRecipient(Digest32),
    /// Written by a newer program.
    #[error("wrapped keys have version {0}, which this program does not know")]
    Version(u16),
    /// It opens, and holds no key of a vault.
    #[error("what was wrapped is not the key that it is named after")]
    OtherKey,
}

/// The public part: what boxes are told in their papers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RecoveryPublic(Vec<u8>);

impl RecoveryPublic {
    /// Takes an uncompressed point of P-256.
    pub fn parse(point: &[u8]) -> Result<Self, RecoveryError> {
        if point.len() != PUBLIC || point[0] != 4 {
            return Err(RecoveryError::Malformed);
        }
        let public = Self(point.to_vec());
        // Whether it lies on the curve shows when something is encrypted to it.
        public.encrypt(b"", b"")?;
        Ok(public)
    }

    /// Reads a file that [`RecoveryKey::write`] wrote.
    pub fn read(path: &Path) -> Result<Self, RecoveryError> {
        Self::parse(&read_pem(path, PUBLIC_TAG)?).map_err(|_| not_a(path, PUBLIC_TAG))
    }

    /// The point.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its name.
    pub fn id(&self) -> Digest32 {
        sha256(&[&self.0])
    }

    /// Encrypts the key of a box's vault.
    pub fn wrap(
        &self,
        box_id: &BoxId,
        key: &Zeroizing<[u8; 32]>,
        now: UnixMillis,
    ) -> Result<WrappedKey, RecoveryError> {
        let (recipient, key_id) = (self.id(), key_id(key));
        let (encapsulated, sealed) =
            self.encrypt(&associated(box_id, recipient, key_id), key.as_slice())?;
        Ok(WrappedKey {
            v: VERSION,
            box_id: box_id.clone(),
            recipient,
            key_id,
            encapsulated: Blob(encapsulated),
            sealed: Blob(sealed),
            made_at: now,
        })
    }

    fn encrypt(&self, aad: &[u8], key: &[u8]) -> Result<(Vec<u8>, Vec<u8>), RecoveryError> {
        let to = HpkePublicKey(self.0.clone());
        let what = "encrypt to the recovery key";
        let (encapsulated, sealed) = SUITE
            .seal(INFO, aad, key, &to)
            .map_err(|source| RecoveryError::Crypto { what, source })?;
        Ok((encapsulated.0, sealed))
    }
}

/// Both parts; wiped when dropped.
pub struct RecoveryKey {
    private: Zeroizing<Vec<u8>>,
    public: RecoveryPublic,
}

impl RecoveryKey {
    /// Makes one.
    pub fn create() -> Result<Self, RecoveryError> {
        let what = "make a recovery key";
        let (public, private) = SUITE
            .generate_key_pair()
            .map_err(|source| RecoveryError::Crypto { what, source })?;
        Ok(Self {
            private: Zeroizing::new(private.secret_bytes().to_vec()),
            public: RecoveryPublic::parse(&public.0)?,
        })
    }

    /// Reads a file that [`RecoveryKey::write`] wrote.
    pub fn read(path: &Path) -> Result<Self, RecoveryError> {
        let both = Zeroizing::new(read_pem(path, PRIVATE_TAG)?);
        if both.len() != PRIVATE + PUBLIC {
            return Err(not_a(path, PRIVATE_TAG));
        }
        let (private, public) = both.split_at(PRIVATE);
        Ok(Self {
            private: Zeroizing::new(private.to_vec()),
            public: RecoveryPublic::parse(public).map_err(|_| not_a(path, PRIVATE_TAG))?,
        })
    }

    /// Writes both parts, and the public one alone.
    pub fn write(&self, private: &Path, public: &Path) -> Result<(), RecoveryError> {
        let both = Zeroizing::new([&self.private[..], self.public.as_bytes()].concat());
        write_pem(private, PRIVATE_TAG, &both)?;
        write_pem(public, PUBLIC_TAG, self.public.as_bytes())
    }

    /// The public part.
    pub fn public(&self) -> &RecoveryPublic {
        &self.public
    }

    /// Decrypts the key of a vault.
    pub fn unwrap(&self, wrapped: &WrappedKey) -> Result<Zeroizing<[u8; 32]>, RecoveryError> {
        if wrapped.v != VERSION {
            return Err(RecoveryError::Version(wrapped.v));
        }
        if wrapped.recipient != self.public.id() {
            return Err(RecoveryError::OtherRecipient(wrapped.recipient));
        }
        let what = "decrypt a vault's key: it is damaged, or another box's";
        let aad = associated(&wrapped.box_id, wrapped.recipient, wrapped.key_id);
        let opened = SUITE.open(
            &EncapsulatedSecret(wrapped.encapsulated.0.clone()),
            INFO,
            &aad,
            &wrapped.sealed.0,
            &HpkePrivateKey::from(self.private.to_vec()),
        );
        let opened = opened.map_err(|source| RecoveryError::Crypto { what, source })?;
        let opened = Zeroizing::new(opened);
        let key = opened.as_slice().try_into();
        let key = Zeroizing::new(key.map_err(|_| RecoveryError::OtherKey)?);
        if key_id(&key) != wrapped.key_id {
            return Err(RecoveryError::OtherKey);
        }
        Ok(key)
    }
}

/// Writes a vault's key in the clear, readable by its owner only.
pub fn write_vault_key(path: &Path, key: &Zeroizing<[u8; 32]>) -> Result<(), RecoveryError> {
    write_pem(path, VAULT_TAG, key.as_slice())
}

/// Reads what [`write_vault_key`] wrote.
pub fn read_vault_key(path: &Path) -> Result<Zeroizing<[u8; 32]>, RecoveryError> {
    let bytes = Zeroizing::new(read_pem(path, VAULT_TAG)?);
    let key = bytes.as_slice().try_into();
    key.map(Zeroizing::new).map_err(|_| not_a(path, VAULT_TAG))
}

/// Names a vault's key without telling it.
pub fn key_id(key: &Zeroizing<[u8; 32]>) -> Digest32 {
    sha256(&[b"longhaul vault key id v1", key.as_slice()])
}

fn associated(box_id: &BoxId, recipient: Digest32, key_id: Digest32) -> Vec<u8> {
    [box_id.as_str().as_bytes(), &recipient.0, &key_id.0].concat()
}

fn sha256(parts: &[&[u8]]) -> Digest32 {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, &parts.concat()).as_ref());
    Digest32(out)
}

fn not_a(path: &Path, what: &'static str) -> RecoveryError {
    let path = path.display().to_string();
    RecoveryError::NotAKey { path, what }
}

fn read_pem(path: &Path, tag: &'static str) -> Result<Vec<u8>, RecoveryError> {
    let text = Zeroizing::new(files::read(path)?.ok_or_else(|| not_a(path, tag))?);
    let parsed = pem::parse(text.as_slice()).map_err(|_| not_a(path, tag))?;
    if parsed.tag() != tag {
        return Err(not_a(path, tag));
    }
    Ok(parsed.into_contents())
}

fn write_pem(path: &Path, tag: &'static str, bytes: &[u8]) -> Result<(), RecoveryError> {
    let text = Zeroizing::new(pem::encode(&pem::Pem::new(tag, bytes)));
    Ok(files::write(path, text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_795_000_000_000);

    fn box_id(byte: u8) -> BoxId {
        BoxId::from_ek_sha256(&[byte; 32])
    }

    fn vault_key() -> Zeroizing<[u8; 32]> {
        Zeroizing::new([7; 32])
    }

    #[test]
    fn only_the_recovery_key_opens_what_was_wrapped_for_it() {
        let recovery = RecoveryKey::create().expect("a key");
        let other = RecoveryKey::create().expect("a key");

        let wrapped = recovery.public().wrap(&box_id(1), &vault_key(), NOW);
        let wrapped = wrapped.expect("wrapped");

        assert_eq!(recovery.unwrap(&wrapped).expect("its own"), vault_key());
        assert!(matches!(
            other.unwrap(&wrapped),
            Err(RecoveryError::OtherRecipient(_))
        ));
        let claimed = WrappedKey {
            recipient: other.public().id(),
            ..wrapped.clone()
        };
        assert!(matches!(
            other.unwrap(&claimed),
            Err(RecoveryError::Crypto { .. })
        ));
        let json = serde_json::to_string(&wrapped).expect("JSON");
        assert!(!json.contains(&hex::encode(*vault_key())));
    }

    #[test]
    fn nothing_of_a_wrapped_key_may_be_altered() {
        let recovery = RecoveryKey::create().expect("a key");
        let wrapped = recovery.public().wrap(&box_id(1), &vault_key(), NOW);
        let wrapped = wrapped.expect("wrapped");
        let mut altered = vec![
            WrappedKey {
                box_id: box_id(2),
                ..wrapped.clone()
            },
            WrappedKey {
                key_id: Digest32([1; 32]),
                ..wrapped.clone()
            },
            WrappedKey {
                v: VERSION + 1,
                ..wrapped.clone()
            },
        ];
        for at in 0..wrapped.sealed.0.len() {
            let mut other = wrapped.clone();
            other.sealed.0[at] ^= 1;
            altered.push(other);
        }
        for at in 0..wrapped.encapsulated.0.len() {
            let mut other = wrapped.clone();
            other.encapsulated.0[at] ^= 1;
            altered.push(other);
        }
        for wrapped in altered {
            assert!(recovery.unwrap(&wrapped).is_err(), "{wrapped:?}");
        }
    }

    #[test]
    fn keys_survive_their_files_and_others_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        let recovery = RecoveryKey::create().expect("a key");
        recovery
            .write(&path("private"), &path("public"))
            .expect("written");
        write_vault_key(&path("vault"), &vault_key()).expect("written");

        let read = RecoveryKey::read(&path("private")).expect("read");
        let public = RecoveryPublic::read(&path("public")).expect("read");

        let wrapped = public.wrap(&box_id(1), &vault_key(), NOW).expect("wrapped");
        assert_eq!(read.unwrap(&wrapped).expect("opened"), vault_key());
        assert_eq!(read_vault_key(&path("vault")).expect("read"), vault_key());
        assert!(RecoveryKey::read(&path("public")).is_err());
        assert!(RecoveryPublic::read(&path("vault")).is_err());
        assert!(read_vault_key(&path("missing")).is_err());
        let mut point = public.as_bytes().to_vec();
        point[40] ^= 1;
        assert!(RecoveryPublic::parse(&point).is_err(), "not on the curve");
    }
}
