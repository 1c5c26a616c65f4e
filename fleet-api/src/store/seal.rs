//! Seals small secrets before they go into the database, so that a copy of it gives none away.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};

/// Length of the key in bytes.
const KEY_LEN: usize = 32;

/// An AES-256-GCM key that lives in a file beside the database.
pub struct SealKey(RandomizedNonceKey);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(..)")
    }
}

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The key's file could not be read or written.
    #[error("failed to access seal key {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key's file does not hold a key.
    #[error("seal key {path} is damaged: 32 bytes expected")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The cryptography failed.
    #[error("failed to seal a secret")]
    Seal,
    /// Sealed by another key, for another owner, or altered.
    #[error("a sealed secret does not open: another key, another owner, or altered bytes")]
    Open,
}

impl SealKey {
    /// Reads the key at `path`; makes one, readable by this user alone, if there is none.
    pub fn load_or_create(path: &Path) -> Result<Self, SealError> {
        let fail = |source| SealError::File {
            path: path.to_owned(),
            source,
        };
        match fs::read(path) {
            Ok(bytes) => return Self::from_bytes(&bytes, path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(fail(e)),
        }
        let mut bytes = zeroize::Zeroizing::new([0; KEY_LEN]);
        aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|_| SealError::Seal)?;
        // Complete under another name first: a power cut must not leave half a key.
        let draft = path.with_extension("draft");
        let _ = fs::remove_file(&draft);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .map_err(fail)?;
        file.write_all(bytes.as_slice()).map_err(fail)?;
        file.sync_all().map_err(fail)?;
        fs::rename(&draft, path).map_err(fail)?;
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::File::open(folder)
                .and_then(|f| f.sync_all())
                .map_err(fail)?;
        }
        Self::from_bytes(bytes.as_slice(), path)
    }

    fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, SealError> {
        let damaged = || SealError::Damaged {
            path: path.to_owned(),
        };
        if bytes.len() != KEY_LEN {
            return Err(damaged());
        }
        RandomizedNonceKey::new(&AES_256_GCM, bytes)
            .map(Self)
            .map_err(|_| damaged())
    }

    /// Seals `secret` so that it opens for `owner` only.
    pub fn seal(&self, owner: &str, secret: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut body = secret.to_vec();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(owner.as_bytes()), &mut body)
            .map_err(|_| SealError::Seal)?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.append(&mut body);
        Ok(sealed)
    }

    /// Opens what was sealed for `owner`.
    pub fn open(&self, owner: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or(SealError::Open)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Open)?;
        let mut body = body.to_vec();
        let length = self
            .0
            .open_in_place(nonce, Aad::from(owner.as_bytes()), &mut body)
            .map_err(|_| SealError::Open)?
            .len();
        body.truncate(length);
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_for_its_owner_only_and_after_a_restart() {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("seal.key");
        let sealed = SealKey::load_or_create(&path)
            .expect("a new key")
            .seal("ticket-1", b"secret")
            .expect("sealed");

        let key = SealKey::load_or_create(&path).expect("the same key");

        assert_eq!(key.open("ticket-1", &sealed).expect("opens"), b"secret");
        assert!(key.open("ticket-2", &sealed).is_err());
        for i in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[i] ^= 1;
            assert!(key.open("ticket-1", &altered).is_err(), "byte {i}");
            assert!(key.open("ticket-1", &sealed[..i]).is_err(), "cut at {i}");
        }
    }

    #[test]
    fn a_damaged_key_is_refused_and_not_replaced() {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("seal.key");
        fs::write(&path, b"short").expect("written");

        assert!(matches!(
            SealKey::load_or_create(&path),
            Err(SealError::Damaged { .. })
        ));
        assert_eq!(fs::read(&path).expect("still there"), b"short");
    }
}
