//! Reading a source file once: its bytes, its hashes, and whether it held still meanwhile.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use longhaul_protocol::value::Digest32;
use serde::{Deserialize, Serialize};

use crate::clock;

/// Bytes hashed at a time, so that all hashes find them in the cache.
const CHUNK_BYTES: usize = 256 * 1024;

/// What is compared to notice that a file changed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Stamp {
    /// Length in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970; 0 where the file system keeps none.
    pub mtime_ns: i64,
}

impl Stamp {
    /// Reads the stamp of a file's metadata.
    pub fn of(metadata: &Metadata) -> Self {
        let mtime = metadata.modified().unwrap_or(UNIX_EPOCH);
        let nanos = match mtime.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |n| -n),
        };
        Self {
            size: metadata.len(),
            mtime_ns: nanos,
        }
    }

    /// Seconds with nine decimals, as rclone keeps it in the user metadata `mtime`.
    pub fn mtime_text(self) -> String {
        let seconds = self.mtime_ns.div_euclid(1_000_000_000);
        let nanos = self.mtime_ns.rem_euclid(1_000_000_000);
        format!("{seconds}.{nanos:09}")
    }

    /// Reads what [`Stamp::mtime_text`] or rclone wrote, in nanoseconds.
    pub fn parse_mtime(text: &str) -> Option<i64> {
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        let seconds: i64 = seconds.parse().ok()?;
        if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
        seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
    }
}

/// Which file it is, whatever its name: another one put in its place has another identity, even
/// with the same size and time. Kept only while a file is read, because network file systems may
/// number their files anew.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// The longest tick of a file system's clock on Linux (`CONFIG_HZ=100`), doubled.
const TICK: Duration = Duration::from_millis(20);

/// How long until a further write must show in the modification time.
fn fresh(metadata: &Metadata) -> Option<Duration> {
    let age = clock::system_now()
        .duration_since(metadata.modified().ok()?)
        .ok()?;
    TICK.checked_sub(age).filter(|wait| !wait.is_zero())
}

/// The CRC-64/NVME of some bytes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Crc64(pub u64);

impl Crc64 {
    /// As S3 writes it: base64 of the eight bytes, most significant first.
    pub fn header(self) -> String {
        STANDARD.encode(self.0.to_be_bytes())
    }

    /// Reads what [`Crc64::header`] wrote.
    pub fn from_header(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text).ok()?;
        Some(Self(u64::from_be_bytes(bytes.try_into().ok()?)))
    }

    /// The checksum of these bytes followed by `length` bytes whose checksum is `next`.
    pub fn then(self, next: Self, length: u64) -> Self {
        Self(crc_fast::checksum_combine(
            CrcAlgorithm::Crc64Nvme,
            self.0,
            next.0,
            length,
        ))
    }
}

/// Memory for pieces, used again: fresh memory costs a page fault for every 4 KiB of it.
#[derive(Clone, Debug, Default)]
pub struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

/// Shorter pieces come from the allocator, which keeps memory for them by itself.
const WORTH_KEEPING: usize = 1024 * 1024;

impl Buffers {
    fn lend(&self, length: usize) -> Lent {
        let used = if length >= WORTH_KEEPING {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
        } else {
            None
        };
        let mut bytes = used.unwrap_or_default();
        if bytes.len() < length {
            // Fresh zeros are cheaper than growing, which copies what nobody reads.
            bytes = vec![0; length];
        }
        Lent {
            bytes,
            length,
            home: self.clone(),
        }
    }
}

/// A buffer that goes back to where it came from.
struct Lent {
    bytes: Vec<u8>,
    length: usize,
    home: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.bytes.len() >= WORTH_KEEPING {
            let bytes = std::mem::take(&mut self.bytes);
            let mut home = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
            home.push(bytes);
        }
    }
}

/// One piece of a file in memory.
#[derive(Debug)]
pub struct Piece {
    /// Its bytes.
    pub bytes: Bytes,
    /// Their checksum.
    pub crc: Crc64,
}

/// A file being read from its beginning to its end.
pub struct Source {
    file: File,
    stamp: Stamp,
    identity: Identity,
    blake3: blake3::Hasher,
}

impl Source {
    /// Opens a file; blocks.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut metadata = file.metadata()?;
        // A write within the same tick of the clock would leave the same time behind.
        if let Some(wait) = fresh(&metadata) {
            std::thread::sleep(wait);
            file = File::open(path)?;
            metadata = file.metadata()?;
        }
        Ok(Self {
            file,
            stamp: Stamp::of(&metadata),
            identity: Identity::of(&metadata),
            blake3: blake3::Hasher::new(),
        })
    }

    /// The file's stamp when it was opened.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The next `length` bytes, fewer only at the end of the file; blocks.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn piece(&mut self, length: usize, buffers: &Buffers) -> io::Result<Piece> {
        let mut lent = buffers.lend(length);
        let bytes = &mut lent.bytes;
        let mut crc = crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme);
        let mut filled = 0;
        while filled < length {
            let end = length.min(filled + CHUNK_BYTES);
            match self.file.read(&mut bytes[filled..end]) {
                Ok(0) => break,
                Ok(read) => {
                    let new = &bytes[filled..filled + read];
                    self.blake3.update(new);
                    crc.update(new);
                    filled += read;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        lent.length = filled;
        Ok(Piece {
            bytes: Bytes::from_owner(lent),
            crc: Crc64(crc.finalize()),
        })
    }

    /// Reads the rest and returns its checksum, keeping nothing of it; blocks.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn checksum(&mut self) -> io::Result<Crc64> {
        let mut crc = crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match self.file.read(&mut chunk) {
                Ok(0) => return Ok(Crc64(crc.finalize())),
                Ok(read) => {
                    self.blake3.update(&chunk[..read]);
                    crc.update(&chunk[..read]);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Whether the file at `path` is no longer what was opened; blocks.
    ///
    /// Looks at the open file and at the path, so that a file put in its place is noticed too.
    pub fn changed(&self, path: &Path) -> bool {
        let same = |metadata: io::Result<Metadata>| {
            metadata.is_ok_and(|metadata| {
                Stamp::of(&metadata) == self.stamp && Identity::of(&metadata) == self.identity
            })
        };
        !(same(self.file.metadata()) && same(std::fs::metadata(path)))
    }

    /// The BLAKE3 of everything read so far.
    pub fn blake3(&self) -> Digest32 {
        Digest32(*self.blake3.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn memory_is_used_again_and_never_shows_an_earlier_piece() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        std::fs::write(&path, vec![7; 3 * WORTH_KEEPING + 5]).expect("written");
        let buffers = Buffers::default();
        let mut source = Source::open(&path).expect("opened");

        let first = source.piece(2 * WORTH_KEEPING, &buffers).expect("read");
        let place = first.bytes.as_ptr();
        drop(first);
        let second = source.piece(2 * WORTH_KEEPING, &buffers).expect("read");

        assert_eq!(second.bytes.as_ptr(), place);
        assert_eq!(second.bytes.len(), WORTH_KEEPING + 5);
        assert!(second.bytes.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn pieces_together_have_the_hashes_of_the_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        let whole: Vec<u8> = (0..700_001_u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &whole).expect("written");

        let mut source = Source::open(&path).expect("opened");
        let mut crc = Crc64::default();
        let mut read = Vec::new();
        loop {
            let piece = source.piece(300_000, &Buffers::default()).expect("read");
            if piece.bytes.is_empty() {
                break;
            }
            crc = crc.then(piece.crc, piece.bytes.len() as u64);
            read.extend_from_slice(&piece.bytes);
        }

        assert_eq!(read, whole);
        assert_eq!(crc.0, crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &whole));
        assert_eq!(source.blake3().0, *blake3::hash(&whole).as_bytes());
        assert!(!source.changed(&path));
    }

    #[test]
    fn a_file_that_grows_or_is_replaced_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        std::fs::write(&path, b"one").expect("written");
        let source = Source::open(&path).expect("opened");

        let mut same = File::options().append(true).open(&path).expect("opened");
        same.write_all(b"two").expect("written");
        assert!(source.changed(&path), "grown");

        let source = Source::open(&path).expect("opened");
        std::fs::rename(&path, dir.path().join("old")).expect("renamed");
        assert!(source.changed(&path), "gone");
    }

    #[test]
    fn a_file_of_the_same_size_and_time_in_its_place_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, other) = (dir.path().join("f"), dir.path().join("g"));
        std::fs::write(&path, b"one").expect("written");
        std::fs::write(&other, b"two").expect("written");
        let source = Source::open(&path).expect("opened");
        let time = std::fs::metadata(&path).expect("there").modified();
        let twin = File::options().write(true).open(&other).expect("opened");
        twin.set_modified(time.expect("a time")).expect("set");
        assert!(!source.changed(&path));

        std::fs::rename(&other, &path).expect("renamed");

        assert!(source.changed(&path));
    }

    #[test]
    fn checksums_survive_their_header() {
        let crc = Crc64(0x0123_4567_89ab_cdef);
        assert_eq!(Crc64::from_header(&crc.header()), Some(crc));
        for bad in ["", "AAAA", "not base64!", "AAAAAAAAAAAAAAAA"] {
            assert_eq!(Crc64::from_header(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn times_before_1970_keep_their_sign() {
        let stamp = Stamp {
            size: 0,
            mtime_ns: -1,
        };
        assert_eq!(stamp.mtime_text(), "-1.999999999");
        assert_eq!(Stamp::parse_mtime("-1.999999999"), Some(-1));
        assert_eq!(Stamp::parse_mtime("7.5"), Some(7_500_000_000));
        assert_eq!(Stamp::parse_mtime("7"), Some(7_000_000_000));
        for bad in ["", "x", "1.x", "9999999999999", "1.0000000001"] {
            assert_eq!(Stamp::parse_mtime(bad), None, "{bad:?}");
        }
    }
}
