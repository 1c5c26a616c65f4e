//! The master key of everything stored on this box: made at the first start, sealed to the TPM and
//! to the state of the machine, never on the disk in the clear. A disk without its box is noise, and
//! so it is to another system that is booted on the box.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand;
use longhaul_protocol::value::{Blob, Digest32};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::chip::{Chip, ChipError, Sealed, UnsealError};
use crate::disk::{self, DiskError};

/// What is wrong with the key or with what it opens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The TPM did not do its part.
    #[error(transparent)]
    Chip(#[from] ChipError),
    /// The TPM opens the key in another state of the machine only. What it encrypts is safe, and
    /// closed until that state is back.
    #[error("the vault stays closed: {0}")]
    StateChanged(String),
    /// A file could not be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What the TPM opened is no master key.
    #[error("{path} holds no master key")]
    Length {
        /// Which file.
        path: PathBuf,
    },
    /// The system has no randomness, or the cipher refused.
    #[error("failed to {0}")]
    Crypto(&'static str),
    /// Altered, or another box's.
    #[error("{path} was not written by this box, or is damaged")]
    Forged {
        /// Which file.
        path: PathBuf,
    },
}

/// The key from which every other key on the box is derived.
pub struct MasterKey(Zeroizing<[u8; 32]>);

/// `master.sealed`.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SealedFile {
    v: u16,
    blob: Blob,
    pcrs: BTreeMap<u8, Digest32>,
}

/// The version of [`SealedFile`]. The one before was the blob alone, which begins with a zero.
const SEALED_VERSION: u16 = 2;

fn store(path: &Path, sealed: &Sealed) -> Result<(), DiskError> {
    let pcrs = sealed.pcrs.iter();
    let file = SealedFile {
        v: SEALED_VERSION,
        blob: Blob(sealed.blob.clone()),
        pcrs: pcrs.map(|(pcr, value)| (*pcr, Digest32(*value))).collect(),
    };
    disk::write_json(path, &file)
}

fn parse(path: &Path, bytes: Vec<u8>) -> Result<Sealed, SealError> {
    if bytes.first() == Some(&0) {
        let pcrs = BTreeMap::new();
        return Ok(Sealed { blob: bytes, pcrs });
    }
    let file: Option<SealedFile> = serde_json::from_slice(&bytes).ok();
    // Without PCRs it would be one that the version before this one did not write.
    let file = file.filter(|f| f.v == SEALED_VERSION && !f.pcrs.is_empty());
    let file = file.ok_or_else(|| SealError::Forged {
        path: path.to_owned(),
    })?;
    Ok(Sealed {
        blob: file.blob.0,
        pcrs: file.pcrs.into_iter().map(|(pcr, v)| (pcr, v.0)).collect(),
    })
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl MasterKey {
    /// Opens the key in the state directory, or makes one that is sealed to the values of `pcrs`.
    /// One that an earlier version sealed without them is sealed anew. Blocks for the TPM.
    pub fn open(state: &Path, chip: &dyn Chip, pcrs: &[u8]) -> Result<Self, SealError> {
        let path = state.join("master.sealed");
        let Some(bytes) = disk::read(&path)? else {
            let mut key = Zeroizing::new([0; 32]);
            rand::fill(key.as_mut_slice()).map_err(|_| SealError::Crypto("draw a master key"))?;
            store(&path, &chip.seal(key.as_slice(), pcrs)?)?;
            return Ok(Self(key));
        };
        let sealed = parse(&path, bytes)?;
        let opened = chip.unseal(&sealed).map_err(|error| match error {
            UnsealError::Chip(error) => SealError::Chip(error),
            changed => SealError::StateChanged(changed.to_string()),
        })?;
        let key: [u8; 32] = opened
            .as_slice()
            .try_into()
            .map_err(|_| SealError::Length { path: path.clone() })?;
        let key = Zeroizing::new(key);
        if sealed.pcrs.is_empty() {
            store(&path, &chip.seal(key.as_slice(), pcrs)?)?;
            tracing::info!(
                ?pcrs,
                "the master key is sealed to this machine's state now"
            );
        }
        Ok(Self(key))
    }

    /// The key for one purpose; purposes do not reveal each other's.
    pub fn derive(&self, purpose: &str) -> Result<Zeroizing<[u8; 32]>, SealError> {
        expand(self.0.as_slice(), purpose)
    }

    /// The key for one purpose, from this key and a secret that is kept elsewhere: without either
    /// there is no key.
    pub fn derive_with(
        &self,
        purpose: &str,
        secret: &[u8; 32],
    ) -> Result<Zeroizing<[u8; 32]>, SealError> {
        let mut both = Zeroizing::new([0; 64]);
        both[..32].copy_from_slice(self.0.as_slice());
        both[32..].copy_from_slice(secret);
        expand(both.as_slice(), purpose)
    }

    /// Writes a file that only this box can read; its name is bound to its contents.
    pub fn write(&self, path: &Path, clear: &[u8]) -> Result<(), SealError> {
        let refused = |_| SealError::Crypto("encrypt a file");
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(refused)?;
        let mut sealed = Zeroizing::new(clear.to_vec());
        self.cipher(path)?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::empty(),
                &mut *sealed,
            )
            .map_err(refused)?;
        disk::write_atomic(path, &[&nonce, sealed.as_slice()].concat())?;
        Ok(())
    }

    /// Reads what [`MasterKey::write`] wrote; `None` where there is no such file.
    pub fn read(&self, path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, SealError> {
        let Some(bytes) = disk::read(path)? else {
            return Ok(None);
        };
        let forged = || SealError::Forged {
            path: path.to_owned(),
        };
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN).ok_or_else(forged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| forged())?;
        let mut clear = Zeroizing::new(sealed.to_vec());
        let len = self
            .cipher(path)?
            .open_in_place(nonce, Aad::empty(), &mut clear)
            .map_err(|_| forged())?
            .len();
        clear.truncate(len);
        Ok(Some(clear))
    }

    fn cipher(&self, path: &Path) -> Result<LessSafeKey, SealError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let key = self.derive(&format!("file {name}"))?;
        UnboundKey::new(&AES_256_GCM, key.as_slice())
            .map(LessSafeKey::new)
            .map_err(|_| SealError::Crypto("make a cipher"))
    }
}

fn expand(from: &[u8], purpose: &str) -> Result<Zeroizing<[u8; 32]>, SealError> {
    let mut key = Zeroizing::new([0; 32]);
    Salt::new(HKDF_SHA256, b"longhaul box v1")
        .extract(from)
        .expand(&[purpose.as_bytes()], Length(32))
        .and_then(|okm| okm.fill(key.as_mut_slice()))
        .map_err(|_| SealError::Crypto("derive a key"))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(byte: u8) -> MasterKey {
        MasterKey(Zeroizing::new([byte; 32]))
    }

    #[test]
    fn a_file_opens_only_under_its_name_and_on_its_box() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a"), dir.path().join("b"));
        assert!(key(1).read(&path).unwrap().is_none());
        key(1).write(&path, b"secret").unwrap();
        std::fs::copy(&path, &other).unwrap();

        assert_eq!(key(1).read(&path).unwrap().unwrap().as_slice(), b"secret");
        assert!(matches!(key(2).read(&path), Err(SealError::Forged { .. })));
        assert!(matches!(key(1).read(&other), Err(SealError::Forged { .. })));
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(6).any(|w| w == b"secret"));
    }

    #[test]
    fn purposes_have_keys_of_their_own() {
        let (a, b) = (key(1).derive("a").unwrap(), key(1).derive("b").unwrap());

        assert_ne!(*a, *b);
        assert_eq!(*a, *key(1).derive("a").unwrap());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn an_altered_file_is_refused(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a");
            key(1).write(&path, b"secret").unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            std::fs::write(&path, bytes).unwrap();

            prop_assert!(key(1).read(&path).is_err());
        }
    }
}
