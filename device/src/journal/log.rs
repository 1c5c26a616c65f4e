//! The journal's file: appended to, synced, and rewritten when most of it is acknowledged.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use longhaul_protocol::ids::EpochId;
use longhaul_protocol::journal::{Fact, JournalBatch, JournalEntry, MAX_BATCH_ENTRIES};
use longhaul_protocol::value::UnixMillis;
use serde::{Deserialize, Serialize};

use super::record::{self, Kind, MAX_PAYLOAD};
use super::results::Results;
use super::{JournalError, Position};
use crate::disk;

/// Rewrite when this much of the file is acknowledged, and more than what is not.
const COMPACT_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of entries in one batch: what the message may hold, less its frame.
const BATCH_BYTES: usize = 59 * 1024;
/// The one version of the file's format.
const FORMAT: u16 = 1;

#[derive(Deserialize, Serialize)]
struct Header {
    format: u16,
    epoch: EpochId,
    /// The number of the first entry in this file.
    first: u64,
}

/// Where an entry that the cloud has not committed lies in the file.
struct Span {
    offset: u64,
    len: usize,
}

/// The open file and what is known of it. Blocks; belongs to one thread.
pub struct Log {
    path: PathBuf,
    file: File,
    epoch: EpochId,
    /// Entries not yet acknowledged, oldest first; the first one's number is `acked + 1`.
    open: VecDeque<Span>,
    results: Results,
    open_bytes: u64,
    acked: u64,
    len: u64,
    max_bytes: u64,
}

impl Log {
    /// Opens the journal in `dir`, or begins one whose epoch is `fresh`.
    ///
    /// A write that a power cut ended early never happened. Other damage begins a new epoch with
    /// every entry that can still be read and a fact that says how much cannot: numbers that the
    /// cloud may know never come to mean something else.
    pub fn open(
        dir: &Path,
        max_bytes: u64,
        fresh: EpochId,
        now: UnixMillis,
    ) -> Result<Self, JournalError> {
        disk::make_dir(dir)?;
        let path = dir.join("journal.log");
        let failed = |source| JournalError::Io {
            path: path.clone(),
            source,
        };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(failed(e)),
        };
        let scan = record::scan(&bytes);
        let read = Contents::read(&scan)?;
        let lost = scan.damaged_bytes + read.unreadable_bytes;
        match read.header {
            // Also where not even the header can be read: an empty file, or damage from its start.
            Some(header) if lost == 0 && read.consecutive => {
                let file = open_file(&path).map_err(failed)?;
                file.set_len(scan.end as u64).map_err(failed)?;
                let mut log = Self {
                    path: path.clone(),
                    file,
                    epoch: header.epoch,
                    open: read.spans.into(),
                    results: Results::default(),
                    open_bytes: 0,
                    acked: header.first.saturating_sub(1),
                    len: scan.end as u64,
                    max_bytes,
                };
                log.open_bytes = log.open.iter().map(|s| s.len as u64).sum();
                for entry in &read.entries {
                    log.results.written(entry.number, &entry.fact);
                }
                log.forget(read.acked);
                Ok(log)
            }
            _ => {
                let mut facts: Vec<(UnixMillis, Fact)> = read
                    .entries
                    .into_iter()
                    .filter(|e| e.number > read.acked)
                    .map(|e| (e.at, e.fact))
                    .collect();
                if !bytes.is_empty() {
                    tracing::error!(lost, kept = facts.len(), "journal is damaged");
                    facts.push((
                        now,
                        Fact::Failure {
                            part: "journal".to_owned(),
                            text: format!(
                                "journal file damaged: {lost} bytes unreadable, {} entries kept",
                                facts.len()
                            ),
                        },
                    ));
                }
                Self::begin(path.clone(), max_bytes, fresh, &facts)
            }
        }
    }

    fn begin(
        path: PathBuf,
        max_bytes: u64,
        epoch: EpochId,
        facts: &[(UnixMillis, Fact)],
    ) -> Result<Self, JournalError> {
        let mut bytes = Vec::new();
        write_header(&mut bytes, &epoch, 1)?;
        let mut open = VecDeque::new();
        let mut results = Results::default();
        for (number, (at, fact)) in (1..).zip(facts) {
            let offset = bytes.len() as u64;
            let payload = payload(number, *at, fact.clone())?;
            let len = record::write(&mut bytes, Kind::Entry, &payload);
            open.push_back(Span { offset, len });
            results.written(number, fact);
        }
        disk::write_atomic(&path, &bytes)?;
        let file = open_file(&path).map_err(|source| JournalError::Io {
            path: path.clone(),
            source,
        })?;
        Ok(Self {
            path,
            file,
            epoch,
            open_bytes: open.iter().map(|s| s.len as u64).sum(),
            open,
            results,
            acked: 0,
            len: bytes.len() as u64,
            max_bytes,
        })
    }

    /// The epoch in which the numbers count.
    pub fn epoch(&self) -> &EpochId {
        &self.epoch
    }

    /// The last entry written and the last one acknowledged.
    pub fn position(&self) -> Position {
        Position {
            last: self.acked + self.open.len() as u64,
            acked: self.acked,
        }
    }

    /// Writes facts and syncs once; each has its own result. The result of a command that waits here
    /// is not written again. An error of the outer kind means that
    /// the file's state is unknown: nothing may be written any more.
    pub fn append(
        &mut self,
        facts: Vec<Fact>,
        now: UnixMillis,
    ) -> Result<Vec<Result<u64, JournalError>>, JournalError> {
        let mut bytes = Vec::new();
        let mut spans = Vec::new();
        let mut results = Vec::with_capacity(facts.len());
        let mut number = self.position().last;
        let mut told = Vec::new();
        for fact in facts {
            if let Some(waiting) = self.results.waiting(&fact) {
                results.push(Ok(waiting));
                continue;
            }
            let result = matches!(fact, Fact::CommandResult { .. }).then(|| fact.clone());
            results.push(self.stage(fact, number + 1, now, &mut bytes).map(|span| {
                spans.push(span);
                number += 1;
                told.extend(result.map(|fact| (number, fact)));
                number
            }));
        }
        self.write(&bytes)?;
        self.file.sync_data().map_err(|e| self.io(e))?;
        for span in spans {
            self.open_bytes += span.len as u64;
            self.open.push_back(span);
        }
        for (number, fact) in told {
            self.results.written(number, &fact);
        }
        Ok(results)
    }

    fn stage(
        &self,
        fact: Fact,
        number: u64,
        now: UnixMillis,
        bytes: &mut Vec<u8>,
    ) -> Result<Span, JournalError> {
        // Old telemetry is worth little: it never takes the room of a fact.
        let limit = match fact {
            Fact::Telemetry(_) => self.max_bytes / 4,
            _ => self.max_bytes,
        };
        let payload = payload(number, now, fact)?;
        if self.open_bytes + (bytes.len() + payload.len()) as u64 > limit {
            return Err(JournalError::Full { limit });
        }
        let offset = self.len + bytes.len() as u64;
        let len = record::write(bytes, Kind::Entry, &payload);
        Ok(Span { offset, len })
    }

    /// Forgets everything up to `through`. Not synced: a forgotten acknowledgement only makes the
    /// box send again what the cloud already has.
    pub fn acknowledge(&mut self, through: u64) -> Result<(), JournalError> {
        if through <= self.acked || through > self.position().last {
            return Ok(());
        }
        let mut bytes = Vec::new();
        record::write(&mut bytes, Kind::Ack, &through.to_le_bytes());
        self.write(&bytes)?;
        self.forget(through);
        if self.len - self.open_bytes > COMPACT_BYTES.max(self.open_bytes) {
            self.compact()?;
        }
        Ok(())
    }

    fn forget(&mut self, through: u64) {
        while self.acked < through {
            let Some(span) = self.open.pop_front() else {
                break;
            };
            self.open_bytes -= span.len as u64;
            self.acked += 1;
        }
        self.results.forget(self.acked);
    }

    /// The oldest entries that the cloud has not committed, as many as one message holds.
    pub fn batch_after(&self, after: Option<u64>) -> Result<Option<JournalBatch>, JournalError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let skip = after.unwrap_or(0).saturating_sub(self.acked);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let behind = (self.acked + 1..).zip(&self.open).skip(skip);
        for (number, span) in behind.take(MAX_BATCH_ENTRIES) {
            bytes += span.len;
            if bytes > BATCH_BYTES && !entries.is_empty() {
                break;
            }
            let raw = self.read(span)?;
            let damaged = || JournalError::Damaged {
                path: self.path.clone(),
                number,
            };
            let payload = record::read(&raw, Kind::Entry).ok_or_else(damaged)?;
            let entry: JournalEntry = serde_json::from_slice(payload).map_err(|_| damaged())?;
            if entry.number != number {
                return Err(damaged());
            }
            entries.push(entry);
        }
        Ok((!entries.is_empty()).then(|| JournalBatch {
            epoch: self.epoch.clone(),
            entries,
        }))
    }

    /// Rewrites the file with only what is not acknowledged.
    fn compact(&mut self) -> Result<(), JournalError> {
        let mut bytes = Vec::new();
        write_header(&mut bytes, &self.epoch, self.acked + 1)?;
        let mut open = VecDeque::with_capacity(self.open.len());
        for span in &self.open {
            open.push_back(Span {
                offset: bytes.len() as u64,
                len: span.len,
            });
            bytes.extend(self.read(span)?);
        }
        disk::write_atomic(&self.path, &bytes)?;
        self.file = open_file(&self.path).map_err(|e| self.io(e))?;
        self.open = open;
        self.len = bytes.len() as u64;
        Ok(())
    }

    fn read(&self, span: &Span) -> Result<Vec<u8>, JournalError> {
        let mut raw = vec![0; span.len];
        self.file
            .read_exact_at(&mut raw, span.offset)
            .map_err(|e| self.io(e))?;
        Ok(raw)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        self.file.write_all(bytes).map_err(|e| self.io(e))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn io(&self, source: io::Error) -> JournalError {
        JournalError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

/// What the records of a file say.
struct Contents {
    header: Option<Header>,
    entries: Vec<JournalEntry>,
    spans: Vec<Span>,
    acked: u64,
    /// Whether the numbers rise by one from the header's first.
    consecutive: bool,
    /// Bytes of records that are whole but say nothing that this program writes.
    unreadable_bytes: usize,
}

impl Contents {
    fn read(scan: &record::Scan<'_>) -> Result<Self, JournalError> {
        let mut read = Self {
            header: None,
            entries: Vec::new(),
            spans: Vec::new(),
            acked: 0,
            consecutive: true,
            unreadable_bytes: 0,
        };
        let mut next = None;
        for record in &scan.records {
            match record.kind {
                Kind::Header => match serde_json::from_slice::<Header>(record.payload) {
                    // Written by a newer agent: an older one must not touch it.
                    Ok(header) if header.format != FORMAT => {
                        return Err(JournalError::UnknownFormat {
                            format: header.format,
                        });
                    }
                    Ok(header) if record.offset == 0 => {
                        next = Some(header.first);
                        read.header = Some(header);
                    }
                    _ => read.unreadable_bytes += record.len,
                },
                Kind::Entry => match serde_json::from_slice::<JournalEntry>(record.payload) {
                    Ok(entry) => {
                        read.consecutive &= next == Some(entry.number);
                        next = entry.number.checked_add(1);
                        read.entries.push(entry);
                        read.spans.push(Span {
                            offset: record.offset as u64,
                            len: record.len,
                        });
                    }
                    Err(_) => read.unreadable_bytes += record.len,
                },
                Kind::Ack => match record.payload.try_into() {
                    Ok(through) => read.acked = read.acked.max(u64::from_le_bytes(through)),
                    Err(_) => read.unreadable_bytes += record.len,
                },
            }
        }
        Ok(read)
    }
}

fn write_header(out: &mut Vec<u8>, epoch: &EpochId, first: u64) -> Result<(), JournalError> {
    let header = Header {
        format: FORMAT,
        epoch: epoch.clone(),
        first,
    };
    let payload = serde_json::to_vec(&header).map_err(JournalError::Encode)?;
    record::write(out, Kind::Header, &payload);
    Ok(())
}

fn payload(number: u64, at: UnixMillis, fact: Fact) -> Result<Vec<u8>, JournalError> {
    let entry = JournalEntry { number, at, fact };
    let payload = serde_json::to_vec(&entry).map_err(JournalError::Encode)?;
    if payload.len() > MAX_PAYLOAD {
        return Err(JournalError::TooLong {
            bytes: payload.len(),
        });
    }
    Ok(payload)
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .mode(0o600)
        .open(path)
}
