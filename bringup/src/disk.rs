//! Files that survive a power cut: written beside, synced, renamed, synced.

use std::io;
use std::path::{Path, PathBuf};

use longhaul_provisioning::files;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Makes everything that was renamed or created in a directory durable.
pub use longhaul_provisioning::files::sync_dir;

/// The longest state file that is read, in bytes.
const MAX_STATE_BYTES: u64 = 4 * 1024 * 1024;

/// What failed on which file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The file could not be read.
    #[error("failed to read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file could not be written durably; the old one is still there.
    #[error("failed to write {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Longer than any file that this program writes.
    #[error("{path} is longer than {MAX_STATE_BYTES} bytes")]
    TooLong {
        /// Which file.
        path: PathBuf,
    },
    /// The file's text is not what this program writes.
    #[error("malformed {path}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// Makes `dir` and what is missing above it, readable by its owner only.
pub fn make_dir(dir: &Path) -> Result<(), DiskError> {
    files::make_private_dir(dir).map_err(|source| DiskError::Write {
        path: dir.to_owned(),
        source,
    })
}

/// Replaces `path` by `bytes`, readable by its owner only. When this returns, the new contents are
/// on the disk; when it fails or the power does, the old ones still are.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    files::replace(path, bytes).map_err(|source| DiskError::Write {
        path: path.to_owned(),
        source,
    })
}

/// The contents of `path`; `None` where there is no such file.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, DiskError> {
    files::read_at_most(path, MAX_STATE_BYTES).map_err(|source| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::FileTooLarge => DiskError::TooLong { path },
            _ => DiskError::Read { path, source },
        }
    })
}

/// [`write_atomic`] of a value as JSON.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), DiskError> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|source| DiskError::Malformed {
        path: path.to_owned(),
        source,
    })?;
    write_atomic(path, &bytes)
}

/// [`read`] of a value as JSON.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, DiskError> {
    read(path)?
        .map(|bytes| {
            serde_json::from_slice(&bytes).map_err(|source| DiskError::Malformed {
                path: path.to_owned(),
                source,
            })
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_is_replaced_whole_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");

        assert_eq!(read_json::<u32>(&path).unwrap(), None);
        write_json(&path, &1_u32).unwrap();
        write_json(&path, &2_u32).unwrap();

        assert_eq!(read_json::<u32>(&path).unwrap(), Some(2));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn garbage_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        fs::write(&path, b"\xff{").unwrap();

        let error = read_json::<u32>(&path).unwrap_err();

        assert!(error.to_string().contains("state.json"), "{error}");
        fs::write(&path, vec![b' '; 1 + (4 << 20)]).unwrap();
        assert!(matches!(read(&path), Err(DiskError::TooLong { .. })));
        let lost = write_json(&dir.path().join("no/such/dir"), &1_u32).unwrap_err();
        assert!(matches!(lost, DiskError::Write { .. }), "{lost:?}");
    }
}
