//! Files that hold keys and certificates: written whole or not at all, readable by their owner only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// More than any key, certificate chain or record we read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Reading failed.
    #[error("failed to read {path}")]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Writing failed.
    #[error("failed to write {path}")]
    Write {
        /// What was written.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Larger than anything that belongs here.
    #[error("{path} is larger than 1 MiB")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else may read a private key.
    #[error("private key {path} can be read by others (mode {mode:o}): chmod 600 it")]
    LooseKey {
        /// The key.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// Makes `path` and its missing parents with mode 0700.
pub fn make_dir(path: &Path) -> Result<(), FileError> {
    let wrote = |source| FileError::Write {
        path: path.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(wrote)
}

/// Writes `bytes` to `path` with mode 0600: a reader sees the old file or the new one, also after
/// a power cut.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let wrote = |source| FileError::Write {
        path: path.to_owned(),
        source,
    };
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(wrote)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| sync_dir(dir))
        .map_err(|error| {
            // The half-written file holds nothing anybody needs; the first error is the news.
            let _ = fs::remove_file(&temporary);
            wrote(error)
        })
}

/// Makes the entries of `dir` durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    File::open(dir)?.sync_all()
}

/// Reads a file of at most 1 MiB; `None` if there is none.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let failed = |source| FileError::Read {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(FileError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(Some(bytes))
}

/// Reads a private key; `None` if there is none. A key that others may read is refused.
pub fn read_key(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let mode = match fs::metadata(path) {
        Ok(metadata) => metadata.permissions().mode() & 0o777,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(FileError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    if mode & 0o077 != 0 {
        return Err(FileError::LooseKey {
            path: path.to_owned(),
            mode,
        });
    }
    read(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_belong_to_their_owner_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("deep/key.pem");

        make_dir(path.parent().expect("a parent")).expect("made");
        write(&path, b"secret").expect("written");

        let mode = |p: &Path| fs::metadata(p).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().expect("a parent")), 0o700);
        assert_eq!(
            read_key(&path).expect("read").as_deref(),
            Some(&b"secret"[..])
        );
        assert_eq!(
            fs::read_dir(dir.path().join("deep"))
                .expect("listed")
                .count(),
            1
        );
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key.pem");
        write(&path, b"secret").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("changed");

        assert!(matches!(
            read_key(&path),
            Err(FileError::LooseKey { mode: 0o640, .. })
        ));
    }
}
