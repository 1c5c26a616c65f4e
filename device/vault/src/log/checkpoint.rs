//! Writing down what of the index is in memory, and which runs hold the rest, so that the log before
//! it can go.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    sync::Arc,
};

use super::{
    files::LogFiles,
    record::{self, FILE_HEADER, FileHeader, Kind, MAX_PAYLOAD},
};
use crate::{
    codec::wide,
    crypto::SealKey,
    disk::{DiskFile, write_full},
    index::Index,
    keyring::{JobNo, Keyring, VAULT},
    runs::Claim,
};

/// Facts are gathered into records of about this size.
const RECORD: usize = 32 << 10;
/// Records are gathered into writes of about this size.
const WRITE: usize = 1 << 20;

/// The end of the log: what a checkpoint covers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    /// The log file that is being written.
    pub(crate) number: u32,
    /// How many bytes and batches of it are durable.
    pub(crate) durable: (u64, u32),
    pub(crate) next_lsn: u64,
}

/// A checkpoint that is written but that nobody finds yet.
pub(crate) struct Written {
    header: FileHeader,
    file: Arc<dyn DiskFile>,
    pub(crate) len: u64,
}

/// Writes what `index` holds: the state before `end`. Of the jobs in `flushed` what was in memory is
/// in that run.
pub(crate) fn write(
    files: &LogFiles,
    keyring: &Keyring,
    index: &Index,
    end: End,
    flushed: &BTreeMap<JobNo, Claim>,
) -> io::Result<Written> {
    let (bytes, batches) = end.durable;
    let number = end.number;
    let mut header = FileHeader::new(Kind::Checkpoint, keyring.vault, number, end.next_lsn, bytes);
    header.extra = batches;
    let file = files.create(&header, 0)?;
    let mut out = Output {
        header: &header,
        keyring,
        file: &*file,
        jobs: BTreeMap::new(),
        buffer: Vec::new(),
        records: 0,
        at: FILE_HEADER,
    };
    index.facts(flushed, |job, fact| out.fact(job, fact))?;
    out.finish()?;
    let len = out.at;
    Ok(Written { header, file, len })
}

impl Written {
    /// From here on recovery uses it, when this succeeds, and perhaps when it does not. Takes the place
    /// of the one before, if that has the same number.
    pub(crate) fn publish(self, files: &LogFiles) -> io::Result<()> {
        files.publish(&self.header, &*self.file)?;
        files.note_checkpoint(self.len);
        Ok(())
    }
}

struct Output<'a> {
    header: &'a FileHeader,
    keyring: &'a Keyring,
    file: &'a dyn DiskFile,
    /// Key and facts that are not in a record yet, per job.
    jobs: BTreeMap<JobNo, (SealKey, Vec<u8>)>,
    buffer: Vec<u8>,
    records: u64,
    at: u64,
}

impl Output<'_> {
    fn fact(&mut self, job: JobNo, fact: &[u8]) -> io::Result<()> {
        if job != VAULT
            && self
                .jobs
                .get(&VAULT)
                .is_some_and(|(_, facts)| !facts.is_empty())
        {
            // Objects lie in incarnations, which therefore have to be learned before.
            self.record(VAULT, false)?;
        }
        let gathered = match self.jobs.entry(job) {
            Entry::Occupied(entry) => &mut entry.into_mut().1,
            Entry::Vacant(entry) => {
                // A job is erased on the thread that writes checkpoints: the key is there.
                let secret = self.keyring.secret(job).ok_or(io::ErrorKind::NotFound)?;
                &mut entry.insert((self.header.key(secret), Vec::new())).1
            }
        };
        gathered.extend_from_slice(fact);
        if gathered.len() >= RECORD {
            self.record(job, false)?;
        }
        Ok(())
    }

    fn record(&mut self, job: JobNo, last: bool) -> io::Result<()> {
        let Some((key, facts)) = self.jobs.get_mut(&job) else {
            return Ok(());
        };
        if facts.len() > MAX_PAYLOAD {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let name = (job, self.records);
        let mark = self.header.mark();
        record::append(&mut self.buffer, key, mark, name, (1, last), &[facts]);
        facts.clear();
        self.records += 1;
        if self.buffer.len() >= WRITE {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        write_full(self.file, &self.buffer, self.at)?;
        self.at += wide(self.buffer.len());
        self.buffer.clear();
        Ok(())
    }

    /// Ends with a record of the vault itself, which is always readable.
    fn finish(&mut self) -> io::Result<()> {
        self.fact(VAULT, &[])?;
        let jobs: Vec<JobNo> = self
            .jobs
            .keys()
            .copied()
            .filter(|job| *job != VAULT)
            .collect();
        for job in jobs {
            self.record(job, false)?;
        }
        self.record(VAULT, true)?;
        self.flush()
    }
}
