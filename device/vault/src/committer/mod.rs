//! The two threads between an operation and its durability: one makes frames durable, one writes
//! the log and is the only place where the index changes. A third one merges runs of the index, for
//! which nobody waits.

mod checkpoints;
mod merges;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Weak, mpsc},
    thread,
};

use bytes::Bytes;

use crate::{
    Error, Version,
    core::{Answer, Core, Queues, Request, Submission},
    index::{
        Sought,
        settle::{self, Promotion},
    },
    keyring::{JobNo, VAULT},
    log::{
        record::MAX_PAYLOAD,
        writer::{Entry, LogWriter},
    },
    op::Op,
    runs::Claim,
};

use checkpoints::Why;
use merges::{Merger, ToMerge};

/// Records per sync, at most.
const BATCH_RECORDS: usize = 256;
/// Inline bytes per sync, at most.
const BATCH_BYTES: usize = 8 << 20;

/// Starts the threads; they end when the queues are dropped.
pub(crate) fn start(
    core: &Arc<Core>,
    writer: LogWriter,
    checkpoint: Option<u32>,
) -> io::Result<Vec<thread::JoinHandle<()>>> {
    let (sync, syncs) = mpsc::channel();
    let (log, requests) = mpsc::channel();
    let forward = log.clone();
    let (merges, to_merge) = mpsc::channel();
    let logger = LogThread {
        core: Arc::downgrade(core),
        writer,
        checkpoint,
        since_checkpoint: 0,
        checkpoint_bytes: 0,
        retry_weight: 0,
        obsolete: Vec::new(),
        merging: false,
        merges,
    };
    let background = Merger {
        files: Arc::clone(&core.runs),
        closing: Arc::clone(&core.closing),
    };
    let threads = vec![
        thread::Builder::new()
            .name("vault-log".to_owned())
            .spawn(move || logger.run(&requests))?,
        thread::Builder::new()
            .name("vault-sync".to_owned())
            .spawn(move || sync_frames(&syncs, &forward))?,
        thread::Builder::new()
            .name("vault-merge".to_owned())
            .spawn(move || background.run(&to_merge))?,
    ];
    *core.queues.write() = Some(Queues { sync, log });
    Ok(threads)
}

/// Syncs each segment once for all operations that wait for it, then sends them to the log.
fn sync_frames(queue: &mpsc::Receiver<Box<Submission>>, log: &mpsc::Sender<Request>) {
    while let Ok(first) = queue.recv() {
        let mut waiting = vec![first];
        waiting.extend(queue.try_iter().take(BATCH_RECORDS - 1));
        let mut synced: BTreeMap<u32, Result<(), Error>> = BTreeMap::new();
        for submission in waiting {
            let mut result = Ok(());
            // An incarnation has no frames yet; its segment is only held.
            let touched = match submission.op {
                Op::Incarnate { .. } => &[],
                _ => &submission.touched[..],
            };
            for segment in touched {
                let one = synced.entry(segment.number).or_insert_with(|| {
                    let what = format!("sync segment {}", segment.number);
                    segment.sync().map_err(|source| Error::io(what, source))
                });
                result = result.and(one.clone());
            }
            match result {
                Ok(()) => drop(log.send(Request::Apply(submission))),
                Err(error) => (submission.reply)(Err(error)),
            }
        }
    }
}

struct LogThread {
    core: Weak<Core>,
    writer: LogWriter,
    /// The newest checkpoint.
    checkpoint: Option<u32>,
    since_checkpoint: u64,
    checkpoint_bytes: u64,
    /// No flush before this much is in memory: the last one failed.
    retry_weight: u64,
    /// Runs that the checkpoint on the disk may name, and the next one does not.
    obsolete: Vec<Claim>,
    merging: bool,
    merges: mpsc::Sender<ToMerge>,
}

impl LogThread {
    fn run(mut self, queue: &mpsc::Receiver<Request>) {
        let mut next = None;
        if let Some(core) = self.core.upgrade() {
            // A checkpoint of an older release holds everything, and so does memory then.
            self.checkpoint_if_due(&core);
            self.merge_if_due(&core);
        }
        while let Some(request) = next.take().or_else(|| queue.recv().ok()) {
            let Some(core) = self.core.upgrade() else {
                return;
            };
            match request {
                Request::Apply(first) => {
                    let mut bytes = first.inline.len();
                    let mut batch = vec![*first];
                    while batch.len() < BATCH_RECORDS && bytes < BATCH_BYTES {
                        match queue.try_recv() {
                            Ok(Request::Apply(submission)) => {
                                bytes += submission.inline.len();
                                batch.push(*submission);
                            }
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.commit(&core, batch);
                    self.checkpoint_if_due(&core);
                }
                Request::AddJob(job, reply) => {
                    let mut keyring = core.keyring.write();
                    let result = match keyring.number(&job) {
                        Some(_) => Ok(()),
                        None => keyring.add(&*core.disk, &job).map(drop),
                    };
                    // Also after an error: the job may have come to be.
                    if let Some(no) = keyring.number(&job) {
                        core.index.write().add_job(no, &job);
                    }
                    drop(keyring);
                    reply.send(result.map_err(|e| Error::io("store the keyring", e)));
                }
                Request::EraseJob(job, rekey, reply) => {
                    let mut keyring = core.keyring.write();
                    let number = keyring.number(&job).unwrap_or(u32::MAX);
                    let result = keyring.erase(&*core.disk, number, rekey);
                    if keyring.secret(number).is_none() {
                        self.writer.forget_keys(&keyring);
                        drop(keyring);
                        let runs = core.index.write().remove_job(number);
                        // If the key may still be on the disk, its runs have to be there, too.
                        if result.is_ok() {
                            core.runs.remove(runs);
                        }
                    }
                    reply.send(result.map_err(|e| Error::io("store the keyring", e)));
                }
                Request::Reserve(reply) => {
                    let stocked = core.files.stock_reserve(core.config.log_bytes);
                    reply.send(stocked.map_err(|e| Error::io("set space aside for the log", e)));
                }
                Request::Checkpoint(reply) => self.checkpoint_now(&core, Why::Asked, Some(reply)),
                Request::Merged(job, merged) => self.take_in(&core, job, merged),
            }
        }
        if let Some(core) = self.core.upgrade() {
            self.end(&core);
        }
    }

    /// Ends the log with a batch that says nothing: it proves that the one before was acknowledged,
    /// so that rot there is not taken for a write that a power cut tore.
    fn end(&mut self, core: &Core) {
        let nothing = Op::ForgetDeletion {
            version: Version(0),
        };
        if self.writer.has_room_behind_records() {
            self.commit(core, vec![moving(VAULT, nothing, Bytes::new())]);
        }
    }

    /// Writes a batch, applies it and tells everybody. Readers see nothing before it is durable.
    fn commit(&mut self, core: &Core, batch: Vec<Submission>) {
        let keyring = core.keyring.read();
        let mut accepted = Vec::with_capacity(batch.len());
        let mut promotions = Vec::new();
        for submission in batch {
            if keyring.secret(submission.job).is_none() {
                (submission.reply)(Err(Error::NoSuchJob(submission.job.to_string())));
                continue;
            }
            let op = submission.op.encode();
            let len = op.len() + submission.inline.len();
            if len > MAX_PAYLOAD {
                let what = "the list of an object's pieces";
                (submission.reply)(Err(Error::TooLong {
                    what,
                    len,
                    max: MAX_PAYLOAD,
                }));
                continue;
            }
            // What the operation needs is read before it is logged: one that is in the log is never
            // undone by a disk that does not read.
            match find(core, submission.job, &submission.op) {
                Ok(found) => promotions.extend(found),
                Err(error) => {
                    (submission.reply)(Err(error));
                    continue;
                }
            }
            accepted.push((submission, op));
        }
        if accepted.is_empty() {
            return;
        }
        let entries: Vec<Entry<'_>> = accepted
            .iter()
            .map(|(s, op)| Entry {
                job: s.job,
                op,
                inline: &s.inline,
            })
            .collect();
        let written = self.writer.append(&keyring, &entries);
        drop(keyring);
        match written {
            Ok(positions) => {
                let mut replies = Vec::with_capacity(accepted.len());
                let mut index = core.index.write();
                for found in promotions {
                    index.promote(found);
                }
                for ((submission, _), at) in accepted.into_iter().zip(positions) {
                    let result = index.apply(at, submission.job, submission.op);
                    replies.push((submission.reply, result.map(|outcome| (at.lsn, outcome))));
                    // Only now the index counts the segments' bytes as live.
                    drop(submission.touched);
                }
                drop(index);
                core.measure();
                for (reply, result) in replies {
                    reply(result);
                }
            }
            Err(source) => {
                tracing::warn!(%source, records = accepted.len(), "the log refused a batch");
                let error = Error::io("write the log", source);
                for (submission, _) in accepted {
                    (submission.reply)(Err(error.clone()));
                }
            }
        }
        self.since_checkpoint += self.writer.take_written();
        trim(core);
    }
}

/// Reads what an operation needs of the index, as far as it is not in memory.
fn find(core: &Core, job: JobNo, op: &Op) -> Result<Option<Promotion>, Error> {
    let sought = core.index.read().seek(job, op);
    let Some(sought) = sought else {
        return Ok(None);
    };
    let lives = |version| core.index.read().lives(version);
    settle::find(&sought, lives).map_err(|error| {
        let (key, version) = match &sought.2 {
            Sought::Name(key) => (&**key, 0),
            Sought::Version(version) => ("", *version),
        };
        core.unread(error, Some(sought.0), key, version)
    })
}

fn trim(core: &Core) {
    if let Err(source) = core.trim() {
        tracing::warn!(%source, "a segment file that nobody needs was not removed");
    }
}

fn moving(job: u32, op: Op, inline: Bytes) -> Submission {
    // Nobody waits; a move that fails is tried again with the next checkpoint.
    let reply: Answer = Box::new(drop);
    Submission {
        job,
        op,
        inline,
        touched: Vec::new(),
        reply,
    }
}
