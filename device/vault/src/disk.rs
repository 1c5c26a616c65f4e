//! The disk under the vault, behind a trait so that tests can pull the plug.

use std::{
    any::Any,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, fallocate, fcntl};

/// How a file is opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// To read what is there.
    Read,
    /// To read and write what is there.
    Write,
    /// Like [`Access::Write`], past the page cache where the file system allows it: offsets,
    /// lengths and memory are then multiples of 4,096.
    WriteDirect,
    /// Makes an empty file, or empties the one that is there.
    Create,
}

/// Where the vault keeps its files. What is written is durable only after a sync.
pub trait Disk: Send + Sync {
    /// Makes a directory and those above it; fine if it is there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in any order.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Opens a file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file, replacing the one that has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes the lock file at `path` until the guard is dropped; [`io::ErrorKind::WouldBlock`] if
    /// another process has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>>;
}

/// One open file.
pub trait DiskFile: Send + Sync {
    /// Its length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Reads some bytes at `offset`; 0 at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some bytes at `offset`.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize>;
    /// Gives the file `len` bytes of real disk space, zero where nothing was written.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Makes contents and length durable.
    fn sync(&self) -> io::Result<()>;
}

/// Reads exactly `buf.len()` bytes.
pub(crate) fn read_full(file: &dyn DiskFile, mut buf: &mut [u8], mut at: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.read_at(buf, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                buf = &mut buf[n..];
                at += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of `buf`.
pub(crate) fn write_full(file: &dyn DiskFile, mut buf: &[u8], mut at: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.write_at(buf, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                buf = &buf[n..];
                at += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The real disk.
#[derive(Debug, Default)]
pub struct RealDisk {
    /// Whether its file system refuses direct io, as its files have found: it is said once.
    direct_refused: Arc<AtomicBool>,
}

/// Goes through the page cache from now on, and says so the first time.
fn refuse_direct(refused: &AtomicBool, at: &str) {
    if !refused.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            at,
            "the file system refuses direct io: using the page cache"
        );
    }
}

impl RealDisk {
    fn open_direct(&self, path: &Path) -> io::Result<Option<File>> {
        if self.direct_refused.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let mut options = OpenOptions::new();
        match options
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(path)
        {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                refuse_direct(&self.direct_refused, "opening");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            // The vault's own names are ASCII; others are not its files.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        let file = match access {
            Access::Read => options.read(true).open(path)?,
            Access::Write => options.read(true).write(true).open(path)?,
            Access::WriteDirect => match self.open_direct(path)? {
                Some(file) => file,
                None => options.read(true).write(true).open(path)?,
            },
            // Names of customers' files and their bytes are sealed; the mode is a second door.
            Access::Create => options
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(path)?,
        };
        Ok(Arc::new(RealFile {
            file,
            direct_refused: Arc::clone(&self.direct_refused),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        file.try_lock().map_err(io::Error::from)?;
        Ok(Box::new(file))
    }
}

struct RealFile {
    file: File,
    direct_refused: Arc<AtomicBool>,
}

impl RealFile {
    /// Writes through the page cache from now on; false if it did so before.
    fn go_buffered(&self) -> bool {
        let flags = fcntl(&self.file, FcntlArg::F_GETFL).map(OFlag::from_bits_truncate);
        let Some(flags) = flags.ok().filter(|flags| flags.contains(OFlag::O_DIRECT)) else {
            return false;
        };
        refuse_direct(&self.direct_refused, "writing");
        fcntl(&self.file, FcntlArg::F_SETFL(flags - OFlag::O_DIRECT)).is_ok()
    }
}

impl DiskFile for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(&self.file, buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        match FileExt::write_at(&self.file, buf, offset) {
            // Some file systems take the flag and refuse the write.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && self.go_buffered() => {
                FileExt::write_at(&self.file, buf, offset)
            }
            result => result,
        }
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let bytes = i64::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        match fallocate(&self.file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => Ok(()),
            // A file system without preallocation: only the length, space as it is written.
            Err(nix::errno::Errno::EOPNOTSUPP) => self.file.set_len(len),
            Err(errno) => Err(errno.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_write_that_is_refused_goes_through_the_page_cache() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        let disk = RealDisk::default();
        disk.open(&path, Access::Create)
            .expect("created")
            .allocate(8192)
            .expect("allocated");
        let file = disk.open(&path, Access::WriteDirect).expect("opened");

        // Neither length nor place nor memory suit direct io.
        write_full(&*file, b"odd", 4097).expect("written all the same");

        let mut read = [0; 3];
        read_full(&*file, &mut read, 4097).expect("read");
        assert_eq!(&read, b"odd");
    }

    #[test]
    fn one_refused_write_is_enough_for_all_files_and_is_said_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = RealDisk::default();
        let open = |name: &str| {
            let path = dir.path().join(name);
            let made = disk.open(&path, Access::Create).expect("created");
            made.allocate(8192).expect("allocated");
            disk.open(&path, Access::WriteDirect).expect("opened")
        };
        let (first, second) = (open("first"), open("second"));
        write_full(&*first, b"odd", 1).expect("written all the same");
        assert!(disk.direct_refused.load(Ordering::Relaxed), "it is known");

        // Opened before it was known, and after: both write, and find nothing new to say.
        write_full(&*second, b"odd", 1).expect("written all the same");
        let path = dir.path().join("first");
        let direct = disk.open_direct(&path).expect("asked");

        assert!(direct.is_none(), "nobody tries again");
    }

    #[test]
    fn a_lock_is_held_by_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lock");
        let held = RealDisk::default().lock(&path).expect("free");
        let second = RealDisk::default().lock(&path).map(drop);
        assert_eq!(second.map_err(|e| e.kind()), Err(io::ErrorKind::WouldBlock));
        drop(held);
        RealDisk::default().lock(&path).expect("free again");
    }
}
