//! Reading the log back: from the checkpoint to the last record that counts.

use std::{io, path::PathBuf, sync::Arc};

use super::{
    files::LogFiles,
    record::{ALIGN, FILE_HEADER, FileHeader, Kind, RECORD_HEADER, RecordHeader},
};
use crate::{
    OpenError, RecoveryReport,
    codec::{narrow, wide},
    config::BLOCK,
    crypto::SealKey,
    disk::{DiskFile, read_full},
    index::{Index, Position, settle},
    keyring::{JobNo, Keyring},
    op::Op,
    runs::{RunError, RunFiles},
};

/// Where the log ended.
pub(crate) struct LogEnd {
    /// The last file, and how much of it counts; `None` if there is no log yet.
    pub(crate) last: Option<(u32, u64)>,
    pub(crate) next_lsn: u64,
    /// The first file that a checkpoint does not cover.
    pub(crate) checkpoint: Option<u32>,
}

/// Rebuilds `index` from the files.
///
/// # Errors
///
/// [`OpenError::Damaged`] if something that was durable cannot be read: stopping there would
/// silently undo what was acknowledged. An unfinished batch at the very end is dropped instead.
pub(crate) fn recover(
    files: &LogFiles,
    runs: &RunFiles,
    keyring: &Keyring,
    index: &mut Index,
    report: &mut RecoveryReport,
) -> Result<LogEnd, OpenError> {
    let (logs, checkpoints) = files.list().map_err(|source| OpenError::Io {
        what: format!("list {}", files.dir().display()),
        source,
    })?;
    let checkpoint = checkpoints.last().copied();
    let mut headers = Vec::new();
    for number in &logs {
        headers.push(Opened::open(files, keyring, Kind::Log, *number)?);
    }
    let first = checkpoint.unwrap_or(1);
    let replayed = logs.partition_point(|number| *number < first);
    check_sequence(files, &logs[replayed..], first, checkpoint.is_some())?;

    let mut end = LogEnd {
        last: None,
        next_lsn: 1,
        checkpoint,
    };
    let mut covered = None;
    if let Some(number) = checkpoint {
        let mut opened = Opened::open(files, keyring, Kind::Checkpoint, number)?;
        end.next_lsn = opened.header.first_lsn;
        covered = Some(Arc::clone(&opened.header));
        opened.learn(keyring, index, report)?;
        files.note_checkpoint(opened.size);
        open_runs(runs, keyring, index)?;
    }
    for at in 0..headers.len() {
        let limit = headers.get(at + 1).map(|next| next.header.previous_len);
        let opened = &mut headers[at];
        if at >= replayed {
            let covered = covered.take();
            let start = opened.start(covered.as_deref(), limit, end.next_lsn)?;
            let len = opened.replay(keyring, index, (start, limit), &mut end.next_lsn, report)?;
            end.last = Some((opened.header.number, len));
            files.know(Arc::clone(&opened.header), len);
        } else {
            files.know(Arc::clone(&opened.header), opened.size);
        }
    }
    Ok(end)
}

/// Opens the runs that the checkpoint names.
fn open_runs(runs: &RunFiles, keyring: &Keyring, index: &mut Index) -> Result<(), OpenError> {
    for (job, claims) in index.take_claims() {
        let Some(secret) = keyring.secret(job).filter(|_| !claims.is_empty()) else {
            continue;
        };
        let opened = claims.into_iter().map(|claim| {
            let run = runs.open(claim, (keyring.vault, job), secret);
            run.map(Arc::new).map_err(unread)
        });
        let opened = opened.collect::<Result<_, _>>()?;
        index.set_runs(job, opened);
    }
    Ok(())
}

/// Without what a run says nobody can go on.
fn unread(error: RunError) -> OpenError {
    match error.source {
        Some(source) => OpenError::Io {
            what: format!("read {}", error.path.display()),
            source: io::Error::new(source.kind(), source),
        },
        None => OpenError::Damaged {
            path: error.path,
            offset: error.offset,
            reason: "a run of the index is missing or altered".to_owned(),
        },
    }
}

/// The files behind the checkpoint must follow each other without a gap.
fn check_sequence(
    files: &LogFiles,
    logs: &[u32],
    first: u32,
    checkpointed: bool,
) -> Result<(), OpenError> {
    let missing = |number| OpenError::Damaged {
        path: files.path(Kind::Log, number),
        offset: 0,
        reason: "the file is missing".to_owned(),
    };
    if logs.is_empty() && checkpointed {
        return Err(missing(first));
    }
    for (expected, number) in (first..).zip(logs) {
        if expected != *number {
            return Err(missing(expected));
        }
    }
    Ok(())
}

struct Opened {
    path: PathBuf,
    header: Arc<FileHeader>,
    file: Arc<dyn DiskFile>,
    size: u64,
    window: Vec<u8>,
    window_at: u64,
    /// The job of the key, which most records in a row share.
    key: Option<(JobNo, SealKey)>,
}

/// Read from the disk at once.
const WINDOW: usize = 1 << 20;

impl Opened {
    fn open(
        files: &LogFiles,
        keyring: &Keyring,
        kind: Kind,
        number: u32,
    ) -> Result<Self, OpenError> {
        let path = files.path(kind, number);
        let read = |source| OpenError::Io {
            what: format!("read {}", path.display()),
            source,
        };
        let file = files.open(kind, number).map_err(read)?;
        let size = file.size().map_err(read)?;
        let mut block = vec![0; narrow(FILE_HEADER.min(size))];
        read_full(&*file, &mut block, 0).map_err(read)?;
        let header = FileHeader::decode(&block).filter(|header| {
            header.kind == kind && header.number == number && header.vault == keyring.vault
        });
        let Some(header) = header else {
            let reason = match FileHeader::newer_format(&block) {
                Some(format) => format!("a newer release wrote it, in format {format}"),
                None => "not the header of this file of this vault".to_owned(),
            };
            return Err(OpenError::Damaged {
                path,
                offset: 0,
                reason,
            });
        };
        let (header, window) = (Arc::new(header), Vec::new());
        Ok(Self {
            path,
            header,
            file,
            size,
            window,
            window_at: 0,
            key: None,
        })
    }

    fn damaged(&self, offset: u64, reason: &str) -> OpenError {
        OpenError::Damaged {
            path: self.path.clone(),
            offset,
            reason: reason.to_owned(),
        }
    }

    /// The `len` bytes at `at`, or `None` if the file ends before.
    fn bytes(&mut self, at: u64, len: usize) -> Result<Option<&mut [u8]>, OpenError> {
        if at.saturating_add(wide(len)) > self.size {
            return Ok(None);
        }
        let inside =
            at >= self.window_at && at + wide(len) <= self.window_at + wide(self.window.len());
        if !inside {
            let take = wide(len.max(WINDOW)).min(self.size - at);
            self.window.resize(narrow(take), 0);
            self.window_at = at;
            read_full(&*self.file, &mut self.window, at).map_err(|source: io::Error| {
                OpenError::Io {
                    what: format!("read {}", self.path.display()),
                    source,
                }
            })?;
        }
        let begin = narrow(at - self.window_at);
        Ok(Some(&mut self.window[begin..begin + len]))
    }

    /// The record at `at`, if there is a whole one.
    fn record(&mut self, at: u64) -> Result<Option<RecordHeader>, OpenError> {
        let mark = self.header.mark();
        let Some(head) = self.bytes(at, RECORD_HEADER)? else {
            return Ok(None);
        };
        let Some(record) = RecordHeader::decode(head, mark) else {
            return Ok(None);
        };
        let body = self.bytes(at + wide(RECORD_HEADER), record.sealed_len())?;
        Ok(body
            .filter(|sealed| record.is_whole(sealed))
            .map(|_| record))
    }

    /// The payload of the record at `at`; `None` if its job was erased.
    fn payload(
        &mut self,
        at: u64,
        record: RecordHeader,
        keyring: &Keyring,
    ) -> Result<Option<Vec<u8>>, OpenError> {
        let Some(secret) = keyring.secret(record.job) else {
            return Ok(None);
        };
        if self.key.as_ref().is_none_or(|(job, _)| *job != record.job) {
            self.key = Some((record.job, self.header.key(secret)));
        }
        let Some(sealed) = self.bytes(at + wide(RECORD_HEADER), record.sealed_len())? else {
            return Err(self.damaged(at, "the record is cut off"));
        };
        let mut sealed = sealed.to_vec();
        let opened = self
            .key
            .as_ref()
            .and_then(|(_, key)| record.open(key, &mut sealed).ok());
        let Some(len) = opened.map(|payload| payload.len()) else {
            return Err(self.damaged(at, "the record does not open with its key"));
        };
        sealed.truncate(len);
        Ok(Some(sealed))
    }

    /// Reads a checkpoint, of which every record counts.
    fn learn(
        &mut self,
        keyring: &Keyring,
        index: &mut Index,
        report: &mut RecoveryReport,
    ) -> Result<(), OpenError> {
        let mut at = FILE_HEADER;
        for number in 0.. {
            let found = self.record(at)?.filter(|record| record.lsn == number);
            let Some(record) = found else {
                return Err(self.damaged(at, "the checkpoint is cut off or altered"));
            };
            match self.payload(at, record, keyring)? {
                None => report.erased_records += 1,
                Some(payload) => {
                    index
                        .learn(record.job, &payload)
                        .map_err(|malformed| self.damaged(at, malformed.0))?;
                    report.checkpoint_records += 1;
                }
            }
            at += record.span();
            if record.last_in_batch {
                break;
            }
        }
        Ok(())
    }

    /// Where replay begins, and how many batches lie before: behind what the checkpoint covers, in
    /// the file of its number.
    fn start(
        &self,
        covered: Option<&FileHeader>,
        limit: Option<u64>,
        next_lsn: u64,
    ) -> Result<(u64, u32), OpenError> {
        let begin = (FILE_HEADER, 0);
        let (at, batches) = covered
            .filter(|header| header.previous_len > FILE_HEADER)
            .map_or(begin, |header| (header.previous_len, header.extra));
        let first = self.header.first_lsn;
        if if at == FILE_HEADER {
            first < next_lsn
        } else {
            first > next_lsn
        } {
            return Err(self.damaged(0, "its records were numbered before"));
        }
        if at > limit.unwrap_or(self.size) {
            return Err(self.damaged(at, "the file ends before what the checkpoint covers"));
        }
        Ok((at, batches))
    }

    /// Applies every record that counts and gives the length up to the last one.
    fn replay(
        &mut self,
        keyring: &Keyring,
        index: &mut Index,
        ((start, batches), limit): ((u64, u32), Option<u64>),
        next_lsn: &mut u64,
        report: &mut RecoveryReport,
    ) -> Result<u64, OpenError> {
        if start == FILE_HEADER {
            *next_lsn = self.header.first_lsn;
        }
        let (mut at, mut batch, mut batch_closed) = (start, batches, true);
        while limit.is_none_or(|limit| at < limit) {
            let found = self.record(at)?.filter(|record| record.lsn == *next_lsn);
            let Some(record) = found else {
                if limit.is_some() {
                    return Err(self.damaged(at, "the record is altered"));
                }
                let durable = if batch_closed { batch + 2 } else { batch + 1 };
                self.check_tail(at, durable, report)?;
                break;
            };
            (batch, batch_closed) = (record.batch, record.last_in_batch);
            match self.payload(at, record, keyring)? {
                None => report.erased_records += 1,
                Some(payload) => {
                    let op =
                        Op::decode(&payload).map_err(|malformed| self.damaged(at, malformed.0))?;
                    let offset =
                        u32::try_from(at).map_err(|_| self.damaged(at, "the file is too long"))?;
                    let position = Position {
                        lsn: record.lsn,
                        file: self.header.number,
                        offset,
                    };
                    if let Some(sought) = index.seek(record.job, &op) {
                        let found = settle::find(&sought, |version| index.lives(version));
                        if let Some(promotion) = found.map_err(unread)? {
                            index.promote(promotion);
                        }
                    }
                    // What was refused then is refused now.
                    let _ = index.apply(position, record.job, op);
                    report.replayed_records += 1;
                }
            }
            *next_lsn += 1;
            at += record.span();
        }
        match limit {
            Some(limit) if at != limit => Err(self.damaged(limit, "the file ends elsewhere")),
            _ => Ok(at),
        }
    }

    /// A preallocated file ends in megabytes of nothing.
    fn is_zero(&mut self, at: u64) -> Result<bool, OpenError> {
        let block = self.bytes(at, narrow(BLOCK))?;
        Ok(block.is_some_and(|block| block.iter().all(|byte| *byte == 0)))
    }

    /// Looks behind the last good record. A batch is written only when the one before is durable,
    /// so a record of batch `durable` or later proves that what is missing here was acknowledged.
    fn check_tail(
        &mut self,
        from: u64,
        durable: u32,
        report: &mut RecoveryReport,
    ) -> Result<(), OpenError> {
        let mark = self.header.mark();
        let mut last_written = from;
        let mut at = from;
        while at + ALIGN <= self.size {
            if at.is_multiple_of(BLOCK) && self.is_zero(at)? {
                at += BLOCK;
                continue;
            }
            let Some(head) = self.bytes(at, narrow(ALIGN))? else {
                break;
            };
            if head.iter().any(|byte| *byte != 0) {
                last_written = at + ALIGN;
                let head = self.bytes(at, RECORD_HEADER)?;
                let later = head
                    .and_then(|head| RecordHeader::decode(head, mark))
                    .is_some_and(|record| record.batch >= durable);
                if later && self.record(at)?.is_some() {
                    return Err(self.damaged(from, "an acknowledged record is altered"));
                }
            }
            at += ALIGN;
        }
        report.dropped_bytes += last_written - from;
        Ok(())
    }
}
