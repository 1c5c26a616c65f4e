//! Files that hold keys and certificates: written whole or not at all, readable by their owner only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

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
    make_private_dir(path).map_err(|source| FileError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Writes `bytes` to `path` as [`replace`] does.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    replace(path, bytes).map_err(|source| FileError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Reads a file of at most 1 MiB; `None` if there is none.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    read_at_most(path, MAX_FILE).map_err(|source| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::FileTooLarge => FileError::TooLarge { path },
            _ => FileError::Read { path, source },
        }
    })
}

/// Makes `path` and its missing parents with mode 0700, for whoever has errors of their own.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Replaces `path` by `bytes`, mode 0600: a reader sees the old file or the new one, also after a
/// power cut. What a cut leaves behind has one name, and the next writer takes its place.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    /// Two threads that replace one file would write into each other's.
    static WRITER: Mutex<()> = Mutex::new(());
    let _alone = WRITER.lock().unwrap_or_else(PoisonError::into_inner);
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let written = write_new(&beside, bytes)
        .and_then(|()| fs::rename(&beside, path))
        .and_then(|()| sync_dir(path.parent().unwrap_or(Path::new("."))));
    if written.is_err() {
        // The half-written file holds nothing anybody needs; the first error is the news.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
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

/// The contents of `path`; `None` where there is no such file. Longer than `max` bytes is
/// [`io::ErrorKind::FileTooLarge`].
pub fn read_at_most(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::ErrorKind::FileTooLarge.into());
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
    fn what_a_power_cut_left_beside_a_file_is_in_nobodys_way() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state");
        write(&path, b"old").expect("written");
        // Half a file of a writer that was killed, longer than what follows, and too open.
        let beside = dir.path().join("state.new");
        fs::write(&beside, b"half of something long").expect("written");
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o666)).expect("changed");

        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| write(&path, b"new").expect("written"));
            }
        });

        assert_eq!(read(&path).expect("read").as_deref(), Some(&b"new"[..]));
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_the_old_one_and_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state");
        fs::create_dir(&path).expect("a directory in the way");

        let error = write(&path, b"new").expect_err("a directory is no file");

        assert!(matches!(&error, FileError::Write { path: at, .. } if *at == path));
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
        let long = dir.path().join("long");
        fs::write(&long, vec![0; (1 << 20) + 1]).expect("written");
        assert!(matches!(read(&long), Err(FileError::TooLarge { .. })));
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
