//! The log's directory: which files there are, and reading objects that live in them.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::RwLock;

use super::record::{FILE_HEADER, FileHeader, Kind, RECORD_HEADER, RecordHeader};
use crate::{
    codec::{narrow, wide},
    crypto::Secret,
    disk::{Access, Disk, DiskFile, read_full, write_full},
    error::is_full,
};

/// The files of the log, without those that are only being made.
pub(crate) struct LogFiles {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    known: RwLock<BTreeMap<u32, Known>>,
    /// Of the newest checkpoint.
    checkpoint_bytes: AtomicU64,
    reserve_bytes: AtomicU64,
    reserved: AtomicBool,
}

/// The name of the space that is set aside.
const RESERVE: &str = "reserve";

#[derive(Clone)]
struct Known {
    header: Arc<FileHeader>,
    /// Bytes that count, in a file that is closed; what it takes on disk in the open one.
    bytes: u64,
}

/// Why an object in the log cannot be read.
pub(crate) enum LogReadError {
    Io(io::Error),
    Damaged,
}

impl LogFiles {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self {
            dir,
            disk,
            known: RwLock::default(),
            checkpoint_bytes: AtomicU64::new(0),
            reserve_bytes: AtomicU64::new(0),
            reserved: AtomicBool::new(false),
        }
    }

    pub(crate) fn path(&self, kind: Kind, number: u32) -> PathBuf {
        let prefix = match kind {
            Kind::Log => "log",
            Kind::Checkpoint => "checkpoint",
            // They have a directory of their own.
            Kind::Run => "run",
        };
        self.dir.join(format!("{prefix}-{number:08x}"))
    }

    /// Every log file and checkpoint there is. Names that the log did not give are left alone;
    /// files that were being made are removed.
    pub(crate) fn list(&self) -> io::Result<(Vec<u32>, Vec<u32>)> {
        let (mut logs, mut checkpoints) = (Vec::new(), Vec::new());
        for name in self.disk.list(&self.dir)? {
            let path = self.dir.join(&name);
            if path.extension().is_some_and(|end| end == "tmp") {
                self.disk.remove(&path)?;
            } else if let Some(number) = parse(&name, "log-") {
                logs.push(number);
            } else if let Some(number) = parse(&name, "checkpoint-") {
                checkpoints.push(number);
            }
        }
        logs.sort_unstable();
        checkpoints.sort_unstable();
        Ok((logs, checkpoints))
    }

    pub(crate) fn open(&self, kind: Kind, number: u32) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(&self.path(kind, number), Access::Read)
    }

    /// Begins a file with its header, under a name that recovery ignores.
    pub(crate) fn create(&self, header: &FileHeader, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = match self.allocate(&self.temporary(header), size.max(FILE_HEADER)) {
            Err(error) if is_full(&error) && header.kind == Kind::Log => {
                self.take_reserve(header, size)?
            }
            made => made?,
        };
        write_full(&*file, &header.encode(), 0)?;
        Ok(file)
    }

    fn allocate(&self, path: &Path, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, Access::Create)?;
        file.allocate(size)?;
        Ok(file)
    }

    /// A log file's worth of space that was set aside for when there is no other.
    fn take_reserve(&self, header: &FileHeader, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.temporary(header);
        self.reserved.store(false, Ordering::Relaxed);
        self.disk.rename(&self.dir.join(RESERVE), &path)?;
        let file = self.disk.open(&path, Access::Write)?;
        if file.size()? < size {
            file.allocate(size)?;
        }
        Ok(file)
    }

    /// Sets space aside for one more log file, if there is none: with it, deletions and
    /// deliveries can be recorded on a disk that is full.
    pub(crate) fn stock_reserve(&self, size: u64) -> io::Result<()> {
        if self.is_reserved() {
            return Ok(());
        }
        let reserve = self.dir.join(RESERVE);
        let left = self
            .disk
            .open(&reserve, Access::Read)
            .and_then(|file| file.size());
        if !left.is_ok_and(|left| left >= size) {
            self.make_reserve(&reserve, size)?;
        }
        self.reserve_bytes.store(size, Ordering::Relaxed);
        self.reserved.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn make_reserve(&self, reserve: &Path, size: u64) -> io::Result<()> {
        let temporary = reserve.with_extension("tmp");
        let made = self.allocate(&temporary, size).and_then(|file| file.sync());
        if let Err(error) = made {
            // Half a reserve helps nobody.
            let _ = self.disk.remove(&temporary);
            return Err(error);
        }
        self.disk.rename(&temporary, reserve)?;
        self.disk.sync_dir(&self.dir)
    }

    pub(crate) fn is_reserved(&self) -> bool {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Gives a file its name, durably: from now on recovery reads it.
    pub(crate) fn publish(&self, header: &FileHeader, file: &dyn DiskFile) -> io::Result<()> {
        file.sync()?;
        self.disk.rename(
            &self.temporary(header),
            &self.path(header.kind, header.number),
        )?;
        self.disk.sync_dir(&self.dir)
    }

    fn temporary(&self, header: &FileHeader) -> PathBuf {
        self.path(header.kind, header.number).with_extension("tmp")
    }

    /// Lets objects in log file `header.number` be read.
    pub(crate) fn know(&self, header: Arc<FileHeader>, bytes: u64) {
        self.known
            .write()
            .insert(header.number, Known { header, bytes });
    }

    pub(crate) fn close(&self, number: u32, bytes: u64) {
        if let Some(known) = self.known.write().get_mut(&number) {
            known.bytes = bytes;
        }
    }

    /// Log files and their sizes, oldest first.
    pub(crate) fn sizes(&self) -> Vec<(u32, u64)> {
        self.known
            .read()
            .iter()
            .map(|(number, known)| (*number, known.bytes))
            .collect()
    }

    pub(crate) fn note_checkpoint(&self, bytes: u64) {
        self.checkpoint_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Bytes on disk of all log files and the checkpoint.
    pub(crate) fn total_bytes(&self) -> u64 {
        let logs: u64 = self.known.read().values().map(|known| known.bytes).sum();
        logs + self.checkpoint_bytes.load(Ordering::Relaxed)
            + self.reserve_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn remove(&self, kind: Kind, number: u32) -> io::Result<()> {
        if kind == Kind::Log {
            self.known.write().remove(&number);
        }
        self.disk.remove(&self.path(kind, number))
    }

    /// Reads `len` bytes at the end of the record at `offset` in file `number`.
    pub(crate) fn read_inline(
        &self,
        (number, offset, len): (u32, u32, u32),
        secret: &Secret,
    ) -> Result<Bytes, LogReadError> {
        let header = self
            .known
            .read()
            .get(&number)
            .map(|known| Arc::clone(&known.header));
        let header = header.ok_or(LogReadError::Damaged)?;
        let file = self.open(Kind::Log, number).map_err(LogReadError::Io)?;
        let (at, len) = (u64::from(offset), narrow(u64::from(len)));
        // Most of the record comes with its header; the rest needs a second read.
        let mut head = [0; RECORD_HEADER];
        read_full(&*file, &mut head, at).map_err(short)?;
        let record = RecordHeader::decode(&head, header.mark()).ok_or(LogReadError::Damaged)?;
        let mut sealed = vec![0; record.sealed_len()];
        read_full(&*file, &mut sealed, at + wide(RECORD_HEADER)).map_err(short)?;
        let opened = record
            .open(&header.key(secret), &mut sealed)
            .map_err(|_| LogReadError::Damaged)?
            .len();
        let begin = opened.checked_sub(len).ok_or(LogReadError::Damaged)?;
        Ok(Bytes::from(sealed).slice(begin..opened))
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// A file that ends too early is damaged, not unreadable.
fn short(error: io::Error) -> LogReadError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => LogReadError::Damaged,
        _ => LogReadError::Io(error),
    }
}

fn parse(name: &str, prefix: &str) -> Option<u32> {
    let digits = name
        .strip_prefix(prefix)
        .filter(|digits| digits.len() == 8)?;
    u32::from_str_radix(digits, 16).ok()
}
