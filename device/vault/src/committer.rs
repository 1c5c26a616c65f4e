//! The two threads between an operation and its durability: one makes frames durable, one writes
//! the log and is the only place where the index changes.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Weak, mpsc},
    thread,
};

use bytes::Bytes;

use crate::{
    Error, Version,
    codec::wide,
    commit::Reply,
    core::{Answer, Core, Queues, Request, SLOW_DOWN_PERCENT, Submission},
    keyring::VAULT,
    log::{
        checkpoint,
        record::{Kind, MAX_PAYLOAD},
        writer::{Entry, LogWriter},
    },
    op::{Extent, Op},
};

/// Records per sync, at most.
const BATCH_RECORDS: usize = 256;
/// Inline bytes per sync, at most.
const BATCH_BYTES: usize = 8 << 20;
/// Inline bytes that one checkpoint moves out of old log files, at most.
const MOVE_BYTES: u64 = 64 << 20;

/// Starts both threads; they end when the queues are dropped.
pub(crate) fn start(
    core: &Arc<Core>,
    writer: LogWriter,
    checkpoint: Option<u32>,
) -> io::Result<Vec<thread::JoinHandle<()>>> {
    let (sync, syncs) = mpsc::channel();
    let (log, requests) = mpsc::channel();
    let forward = log.clone();
    let logger = LogThread {
        core: Arc::downgrade(core),
        writer,
        checkpoint,
        since_checkpoint: 0,
        checkpoint_bytes: 0,
    };
    let threads = vec![
        thread::Builder::new()
            .name("vault-log".to_owned())
            .spawn(move || logger.run(&requests))?,
        thread::Builder::new()
            .name("vault-sync".to_owned())
            .spawn(move || sync_frames(&syncs, &forward))?,
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
}

impl LogThread {
    fn run(mut self, queue: &mpsc::Receiver<Request>) {
        let mut next = None;
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
                        core.index.write().remove_job(number);
                    }
                    reply.send(result.map_err(|e| Error::io("store the keyring", e)));
                }
                Request::Reserve(reply) => {
                    let stocked = core.files.stock_reserve(core.config.log_bytes);
                    reply.send(stocked.map_err(|e| Error::io("set space aside for the log", e)));
                }
                Request::Checkpoint(reply) => self.checkpoint_now(&core, Some(reply)),
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

    fn checkpoint_if_due(&mut self, core: &Core) {
        // A checkpoint costs what the index is large: it is worth writing again only after
        // several times as much log.
        let due = core.config.checkpoint_bytes.max(4 * self.checkpoint_bytes);
        if self.since_checkpoint >= due || self.is_pressed(core) {
            self.checkpoint_now(core, None);
        }
    }

    /// Nearly full, and the log holds what a checkpoint would give back.
    fn is_pressed(&self, core: &Core) -> bool {
        let log_bytes = core.config.log_bytes;
        if self.since_checkpoint < log_bytes.min(core.config.checkpoint_bytes) / 4
            || !core.above(SLOW_DOWN_PERCENT - 5)
        {
            return false;
        }
        let live = core.index.read().space.live_in_logs();
        core.files.total_bytes().saturating_sub(live) > 2 * log_bytes
    }

    fn checkpoint_now(&mut self, core: &Core, reply: Option<Reply<()>>) {
        // Whatever comes of it, the next try is not at the next batch.
        self.since_checkpoint = 0;
        let result = self.write_checkpoint(core);
        if let Err(source) = &result {
            tracing::warn!(%source, "no checkpoint was written; the log grows on");
        }
        core.measure();
        // A checkpoint is a file, too.
        trim(core);
        if let Some(reply) = reply {
            reply.send(result.map_err(|e| Error::io("write a checkpoint", e)));
        }
    }

    fn write_checkpoint(&mut self, core: &Core) -> io::Result<()> {
        self.writer.rotate(0)?;
        let number = self.writer.number();
        {
            let (keyring, index) = (core.keyring.read(), core.index.read());
            let next_lsn = self.writer.next_lsn();
            self.checkpoint_bytes =
                checkpoint::write(&core.files, &keyring, &index, number, next_lsn)?;
        }
        if let Some(old) = self.checkpoint.replace(number) {
            core.files.remove(Kind::Checkpoint, old)?;
        }
        self.clean(core, number)
    }

    /// Removes log files that nobody needs, and empties the one that is needed least.
    fn clean(&mut self, core: &Core, checkpoint: u32) -> io::Result<()> {
        let mut sparse: Option<(u64, u32)> = None;
        for (number, bytes) in core.files.sizes() {
            if number >= checkpoint {
                break;
            }
            let live = {
                let mut index = core.index.write();
                index.space.sweep();
                index.space.live_in_log(number)
            };
            if live == 0 {
                core.files.remove(Kind::Log, number)?;
            } else if live * 2 < bytes && live <= MOVE_BYTES {
                sparse = sparse.min(Some((live, number))).or(Some((live, number)));
            }
        }
        if let Some((_, number)) = sparse {
            self.empty(core, number);
        }
        Ok(())
    }

    /// Copies what is still needed of log file `number` to the log's end; the next checkpoint
    /// removes the file.
    fn empty(&mut self, core: &Core, number: u32) {
        let owners = core.index.read().owners_in_log(number);
        let mut batch = Vec::new();
        let mut bytes = 0;
        for (owner, job, from) in owners {
            let Extent::Log { file, offset, len } = from else {
                continue;
            };
            let Ok(secret) = core.secret(job) else {
                continue;
            };
            // What cannot be read stays where it is, for whoever asks for it to be told.
            let Ok(inline) = core.files.read_inline((file, offset, len), &secret) else {
                continue;
            };
            bytes += wide(inline.len());
            batch.push(moving(job, Op::Move { owner, from }, inline));
            if batch.len() >= BATCH_RECORDS || bytes >= BATCH_BYTES as u64 {
                self.commit(core, std::mem::take(&mut batch));
                bytes = 0;
            }
        }
        if !batch.is_empty() {
            self.commit(core, batch);
        }
    }
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
