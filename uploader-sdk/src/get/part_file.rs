//! A file that is being fetched: its bytes so far, and a record of the ranges that are complete.
//!
//! Both lie beside the place where the file will be, so that the last step is a rename. The record
//! is a memory, not a proof: each range is read back and compared with its checksum before it is
//! believed, so a power cut costs the ranges that did not reach the disk and nothing else.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use crc_fast::CrcAlgorithm;
use longhaul_protocol::value::Digest32;

use crate::source::Crc64;

/// `O_NOFOLLOW`: a link in our place is not ours.
const NO_FOLLOW: i32 = libc::O_NOFOLLOW;
/// How the two files beside a place are called: this, a number, and one of [`PART_SUFFIXES`].
pub const PART_PREFIX: &str = ".longhaul-";
/// The bytes, and the record of them.
pub const PART_SUFFIXES: [&str; 2] = [".part", ".done"];
/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 * 1024;
/// The longest record that is read, in bytes: a line for each of 10 million ranges.
const MAX_RECORD_BYTES: u64 = 512 * 1024 * 1024;

/// The bytes so far.
#[derive(Debug)]
pub struct PartFile {
    file: File,
    record: Mutex<File>,
    path: PathBuf,
    record_path: PathBuf,
    size: u64,
    range_bytes: u64,
}

impl PartFile {
    /// Opens or begins the file called `id` in `dir`, and returns the ranges that it holds; blocks.
    ///
    /// # Errors
    ///
    /// What the system says; `WouldBlock` where another program is fetching the same.
    pub fn open(
        dir: &Path,
        id: &str,
        size: u64,
        range_bytes: u64,
    ) -> io::Result<(Self, BTreeMap<u64, Crc64>)> {
        let [part, done] = PART_SUFFIXES.map(|suffix| format!("{PART_PREFIX}{id}{suffix}"));
        let (path, record_path) = (dir.join(part), dir.join(done));
        let mut options = File::options();
        options.read(true).write(true).create(true);
        options.truncate(false).custom_flags(NO_FOLLOW);
        let file = options.open(&path)?;
        file.try_lock().map_err(|e| match e {
            std::fs::TryLockError::WouldBlock => io::Error::new(
                io::ErrorKind::WouldBlock,
                "another program is fetching it to the same place",
            ),
            std::fs::TryLockError::Error(e) => e,
        })?;
        let mut options = File::options();
        options.read(true).append(true).create(true);
        let record = options.custom_flags(NO_FOLLOW).open(&record_path)?;
        let part = Self {
            file,
            record: Mutex::new(record),
            path,
            record_path,
            size,
            range_bytes,
        };
        let claimed = if part.file.metadata()?.len() == size {
            part.claimed()?
        } else {
            part.file.set_len(size)?;
            BTreeMap::new()
        };
        let mut held = BTreeMap::new();
        for (index, crc) in claimed {
            if part.checksum(index)? == crc {
                held.insert(index, crc);
            }
        }
        Ok((part, held))
    }

    /// What the record says, whatever is true of it.
    fn claimed(&self) -> io::Result<BTreeMap<u64, Crc64>> {
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let mut claimed = BTreeMap::new();
        for line in BufReader::new((&*record).take(MAX_RECORD_BYTES)).split(b'\n') {
            let line = line?;
            let parsed = std::str::from_utf8(&line).ok().and_then(|line| {
                let (index, crc) = line.split_once(' ')?;
                // A torn line is shorter.
                let crc = u64::from_str_radix(crc, 16)
                    .ok()
                    .filter(|_| crc.len() == 16)?;
                Some((index.parse::<u64>().ok()?, Crc64(crc)))
            });
            if let Some((index, crc)) = parsed
                && index < self.ranges()
            {
                claimed.insert(index, crc);
            }
        }
        Ok(claimed)
    }

    /// Number of ranges.
    pub fn ranges(&self) -> u64 {
        self.size.div_ceil(self.range_bytes)
    }

    /// First byte and length of a range.
    pub fn range(&self, index: u64) -> (u64, u64) {
        let begin = index * self.range_bytes;
        (begin, self.range_bytes.min(self.size - begin))
    }

    fn checksum(&self, index: u64) -> io::Result<Crc64> {
        let (mut at, length) = self.range(index);
        let end = at + length;
        let mut crc = crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme);
        let mut chunk = vec![0; CHUNK_BYTES];
        while at < end {
            let wanted = usize::try_from(end - at)
                .unwrap_or(CHUNK_BYTES)
                .min(CHUNK_BYTES);
            self.file.read_exact_at(&mut chunk[..wanted], at)?;
            crc.update(&chunk[..wanted]);
            at += wanted as u64;
        }
        Ok(Crc64(crc.finalize()))
    }

    /// Writes a whole range and remembers it; blocks.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn write(&self, index: u64, bytes: &[u8]) -> io::Result<Crc64> {
        let (begin, _) = self.range(index);
        self.file.write_all_at(bytes, begin)?;
        let crc = Crc64(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes));
        let line = format!("{index} {:016x}\n", crc.0);
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.write_all(line.as_bytes())?;
        Ok(crc)
    }

    /// BLAKE3 of all bytes; blocks.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn blake3(&self) -> io::Result<Digest32> {
        blake3_of(&self.file, self.size)
    }

    /// Puts the file into its place, with the time of its source; blocks.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn finish(self, target: &Path, mtime_ns: Option<i64>) -> io::Result<()> {
        if let Some(nanos) = mtime_ns.and_then(|nanos| u64::try_from(nanos).ok()) {
            let time = UNIX_EPOCH + Duration::from_nanos(nanos);
            self.file.set_modified(time)?;
        }
        self.file.sync_all()?;
        std::fs::rename(&self.path, target)?;
        std::fs::remove_file(&self.record_path)?;
        File::open(target.parent().unwrap_or(Path::new(".")))?.sync_all()
    }

    /// Gives up what was fetched: it is not what the box says it should be; blocks.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn discard(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)?;
        std::fs::remove_file(&self.record_path)
    }
}

/// BLAKE3 of the first `size` bytes of a file; blocks.
///
/// # Errors
///
/// What the system says.
pub fn blake3_of(file: &File, size: u64) -> io::Result<Digest32> {
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = 0;
    while at < size {
        let wanted = usize::try_from(size - at)
            .unwrap_or(CHUNK_BYTES)
            .min(CHUNK_BYTES);
        file.read_exact_at(&mut chunk[..wanted], at)?;
        hasher.update(&chunk[..wanted]);
        at += wanted as u64;
    }
    Ok(Digest32(*hasher.finalize().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn open(dir: &Path) -> (PartFile, BTreeMap<u64, Crc64>) {
        PartFile::open(dir, "id", 25, 10).expect("opened")
    }

    #[test]
    fn ranges_that_are_whole_are_there_after_a_restart_and_damaged_ones_are_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let (part, held) = open(dir.path());
        assert!(held.is_empty());
        part.write(0, b"0123456789").expect("written");
        part.write(2, b"abcde").expect("written");
        assert!(PartFile::open(dir.path(), "id", 25, 10).is_err(), "locked");
        drop(part);
        let record = dir.path().join(".longhaul-id.done");
        let mut torn = File::options().append(true).open(&record).expect("opened");
        torn.write_all(b"1 00").expect("written");
        drop(torn);

        let (part, held) = open(dir.path());
        assert_eq!(held.keys().copied().collect::<Vec<_>>(), [0, 2]);
        part.file.write_all_at(b"X", 3).expect("written");
        drop(part);

        let (_, held) = open(dir.path());
        assert_eq!(held.keys().copied().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_finished_file_is_in_its_place_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().expect("a directory");
        let (part, _) = open(dir.path());
        for (index, bytes) in [&b"0123456789"[..], b"0123456789", b"01234"]
            .iter()
            .enumerate()
        {
            part.write(index as u64, bytes).expect("written");
        }
        let target = dir.path().join("f");
        let hash = part.blake3().expect("read");

        part.finish(&target, Some(1_000_000_000)).expect("finished");

        let bytes = std::fs::read(&target).expect("read");
        assert_eq!(bytes, b"0123456789012345678901234");
        assert_eq!(hash.0, *blake3::hash(&bytes).as_bytes());
        let modified = std::fs::metadata(&target).expect("there").modified();
        assert_eq!(
            modified.expect("a time"),
            UNIX_EPOCH + Duration::from_secs(1)
        );
        assert_eq!(std::fs::read_dir(dir.path()).expect("read").count(), 1);
    }

    proptest! {
        #[test]
        fn no_record_is_believed_blindly(record in proptest::collection::vec(any::<u8>(), 0..200)) {
            let dir = tempfile::tempdir().expect("a directory");
            drop(open(dir.path()));
            std::fs::write(dir.path().join(".longhaul-id.done"), record).expect("written");

            let (part, held) = open(dir.path());

            for (index, crc) in held {
                prop_assert_eq!(part.checksum(index).expect("read"), crc);
            }
        }
    }
}
