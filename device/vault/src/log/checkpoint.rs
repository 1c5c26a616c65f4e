//! Writing the whole index down, so that the log before it can go.

use std::io;

use super::{
    files::LogFiles,
    record::{self, FILE_HEADER, FileHeader, Kind},
};
use crate::{
    codec::wide,
    crypto::SealKey,
    disk::{DiskFile, write_full},
    index::Index,
    keyring::{JobNo, Keyring, VAULT},
};

/// Facts are gathered into records of about this size.
const RECORD: usize = 32 << 10;
/// Records are gathered into writes of about this size.
const WRITE: usize = 1 << 20;

/// Writes what `index` holds: the state before log file `number`, whose first record is
/// `next_lsn`. Durable, and used by recovery, when this returns.
pub(crate) fn write(
    files: &LogFiles,
    keyring: &Keyring,
    index: &Index,
    number: u32,
    next_lsn: u64,
) -> io::Result<u64> {
    let header = FileHeader::new(Kind::Checkpoint, keyring.vault, number, next_lsn, 0);
    let file = files.create(&header, 0)?;
    let mut out = Output {
        header: &header,
        keyring,
        file: &*file,
        key: (VAULT, header.key(&keyring.log_key)),
        facts: Vec::new(),
        buffer: Vec::new(),
        records: 0,
        at: FILE_HEADER,
    };
    index.facts(|job, fact| out.fact(job, fact))?;
    out.finish()?;
    let len = out.at;
    files.publish(&header, &*file)?;
    files.note_checkpoint(len);
    Ok(len)
}

struct Output<'a> {
    header: &'a FileHeader,
    keyring: &'a Keyring,
    file: &'a dyn DiskFile,
    key: (JobNo, SealKey),
    facts: Vec<u8>,
    buffer: Vec<u8>,
    records: u64,
    at: u64,
}

impl Output<'_> {
    fn fact(&mut self, job: JobNo, fact: &[u8]) -> io::Result<()> {
        if job != self.key.0 {
            // A job is erased on the thread that writes checkpoints: the key is there.
            let secret = self.keyring.secret(job).ok_or(io::ErrorKind::NotFound)?;
            self.record(false);
            self.key = (job, self.header.key(secret));
        }
        self.facts.extend_from_slice(fact);
        if self.facts.len() >= RECORD {
            self.record(false);
        }
        if self.buffer.len() >= WRITE {
            self.flush()?;
        }
        Ok(())
    }

    fn record(&mut self, last: bool) {
        if self.facts.is_empty() && !last {
            return;
        }
        let framing = (1, last);
        let (job, key) = &self.key;
        let name = (*job, self.records);
        record::append(
            &mut self.buffer,
            key,
            self.header.mark(),
            name,
            framing,
            &[&self.facts],
        );
        self.records += 1;
        self.facts.clear();
    }

    fn flush(&mut self) -> io::Result<()> {
        write_full(self.file, &self.buffer, self.at)?;
        self.at += wide(self.buffer.len());
        self.buffer.clear();
        Ok(())
    }

    /// Ends with a record of the vault itself, which is always readable.
    fn finish(&mut self) -> io::Result<()> {
        self.record(false);
        self.key = (VAULT, self.header.key(&self.keyring.log_key));
        self.record(true);
        self.flush()
    }
}
