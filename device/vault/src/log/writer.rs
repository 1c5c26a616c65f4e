//! Appending to the log: one write and one sync for a whole batch.

use std::{collections::BTreeMap, io, sync::Arc};

use super::{
    files::LogFiles,
    record::{self, FILE_HEADER, FileHeader, Kind},
};
use crate::{
    codec::wide,
    crypto::SealKey,
    disk::{DiskFile, write_full},
    index::Position,
    keyring::{JobNo, Keyring},
};

/// One record to be written: what it says, and the inline bytes behind it.
pub(crate) struct Entry<'a> {
    pub(crate) job: JobNo,
    pub(crate) op: &'a [u8],
    pub(crate) inline: &'a [u8],
}

/// The open end of the log.
pub(crate) struct LogWriter {
    files: Arc<LogFiles>,
    vault: [u8; 16],
    log_bytes: u64,
    header: Arc<FileHeader>,
    file: Arc<dyn DiskFile>,
    keys: BTreeMap<JobNo, SealKey>,
    /// Behind the last record that is durable.
    tail: u64,
    batch: u32,
    next_lsn: u64,
    /// A write failed: what lies behind `tail` is unknown, and this file takes no more.
    spoiled: bool,
    buffer: Vec<u8>,
    written: u64,
}

impl LogWriter {
    /// Begins a new file behind `previous` (its number and the bytes that count).
    ///
    /// A file is never continued after a restart: its counters may have been used for records
    /// that were never acknowledged.
    pub(crate) fn begin(
        files: Arc<LogFiles>,
        vault: [u8; 16],
        log_bytes: u64,
        previous: Option<(u32, u64)>,
        next_lsn: u64,
    ) -> io::Result<Self> {
        let (number, previous_len) = match previous {
            None => (1, 0),
            Some((number, len)) => (number + 1, len),
        };
        let header = FileHeader::new(Kind::Log, vault, number, next_lsn, previous_len);
        let file = files.create(&header, log_bytes)?;
        files.publish(&header, &*file)?;
        let header = Arc::new(header);
        files.know(Arc::clone(&header), log_bytes);
        Ok(Self {
            files,
            vault,
            log_bytes,
            header,
            file,
            keys: BTreeMap::new(),
            tail: FILE_HEADER,
            batch: 0,
            next_lsn,
            spoiled: false,
            buffer: Vec::new(),
            written: 0,
        })
    }

    /// The number of the file that is being written.
    pub(crate) fn number(&self) -> u32 {
        self.header.number
    }

    /// Bytes and batches of that file that are durable.
    pub(crate) fn durable(&self) -> (u64, u32) {
        (self.tail, self.batch)
    }

    pub(crate) fn next_lsn(&self) -> u64 {
        self.next_lsn
    }

    /// True if the file holds records, and a small one more needs no other file.
    pub(crate) fn has_room_behind_records(&self) -> bool {
        !self.spoiled && self.tail > FILE_HEADER && self.tail + 256 <= self.log_bytes
    }

    /// Bytes of records since the last call.
    pub(crate) fn take_written(&mut self) -> u64 {
        std::mem::take(&mut self.written)
    }

    /// Forgets derived keys of jobs that are no more.
    pub(crate) fn forget_keys(&mut self, keyring: &Keyring) {
        self.keys.retain(|job, _| keyring.secret(*job).is_some());
    }

    /// Writes the records and waits until they are durable. Jobs must have a key.
    ///
    /// # Errors
    ///
    /// What the disk said; none of the records counts then.
    pub(crate) fn append(
        &mut self,
        keyring: &Keyring,
        entries: &[Entry<'_>],
    ) -> io::Result<Vec<Position>> {
        let size: usize = entries
            .iter()
            .map(|e| e.op.len() + e.inline.len() + 64)
            .sum();
        if self.spoiled || (self.tail > FILE_HEADER && self.tail + wide(size) > self.log_bytes) {
            self.rotate(wide(size))?;
        }
        self.buffer.clear();
        let (number, mark) = (self.header.number, self.header.mark());
        let mut positions = Vec::with_capacity(entries.len());
        for (at, entry) in entries.iter().enumerate() {
            let lsn = self.next_lsn + wide(at);
            let offset = u32::try_from(self.tail + wide(self.buffer.len()))
                .map_err(|_| io::ErrorKind::FileTooLarge)?;
            positions.push(Position {
                lsn,
                file: number,
                offset,
            });
            if !self.keys.contains_key(&entry.job) {
                let secret = keyring.secret(entry.job).ok_or(io::ErrorKind::NotFound)?;
                self.keys.insert(entry.job, self.header.key(secret));
            }
            let key = &self.keys[&entry.job];
            let last = at + 1 == entries.len();
            let framing = (self.batch + 1, last);
            let parts = [entry.op, entry.inline];
            record::append(
                &mut self.buffer,
                key,
                mark,
                (entry.job, lsn),
                framing,
                &parts,
            );
        }
        // Spoiled until proven otherwise: an error must never leave the counters reusable.
        self.spoiled = true;
        write_full(&*self.file, &self.buffer, self.tail)?;
        self.file.sync()?;
        self.spoiled = false;
        self.tail += wide(self.buffer.len());
        self.written += wide(self.buffer.len());
        self.batch += 1;
        self.next_lsn += wide(entries.len());
        // One large batch must not hold its memory for ever.
        self.buffer.shrink_to(4 << 20);
        Ok(positions)
    }

    /// Closes the file where its last durable record ends and begins the next one, with room for
    /// a batch of `size` bytes.
    ///
    /// # Errors
    ///
    /// What the disk said; the next append tries again.
    pub(crate) fn rotate(&mut self, size: u64) -> io::Result<()> {
        // Numbers that were spent on a batch that failed are not given again.
        let next_lsn = if self.spoiled {
            self.next_lsn + (1 << 16)
        } else {
            self.next_lsn
        };
        let number = self.header.number + 1;
        let header = FileHeader::new(Kind::Log, self.vault, number, next_lsn, self.tail);
        let bytes = self.log_bytes.max(FILE_HEADER + size);
        let file = self.files.create(&header, bytes)?;
        // From here on the next file may be found by recovery, also if this fails: it says where
        // the old one ends, so nothing may be added there.
        self.spoiled = true;
        self.files.publish(&header, &*file)?;
        self.files.close(self.header.number, self.tail);
        self.header = Arc::new(header);
        self.files.know(Arc::clone(&self.header), bytes);
        self.file = file;
        self.keys.clear();
        self.tail = FILE_HEADER;
        self.batch = 0;
        self.next_lsn = next_lsn;
        self.spoiled = false;
        Ok(())
    }
}
