//! The two threads between an operation and its durability: one makes frames durable, one writes
//! the log and is the only place where the index changes. A third one merges runs of the index, for
//! which nobody waits.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Weak, atomic::AtomicBool, mpsc},
    thread,
};

use bytes::Bytes;

use crate::{
    Error, Version,
    codec::wide,
    commit::Reply,
    core::{Answer, Core, Queues, Request, SLOW_DOWN_PERCENT, Submission},
    index::{
        Sought,
        settle::{self, Promotion},
    },
    keyring::{JobNo, VAULT},
    log::{
        checkpoint,
        record::{Kind, MAX_PAYLOAD},
        writer::{Entry, LogWriter},
    },
    op::{Extent, Op},
    runs::{
        Claim, Run, RunFiles,
        merge::{self, Merge, MergeError, Merged},
    },
};

/// Records per sync, at most.
const BATCH_RECORDS: usize = 256;
/// Inline bytes per sync, at most.
const BATCH_BYTES: usize = 8 << 20;
/// Inline bytes that one checkpoint moves out of old log files, at most.
const MOVE_BYTES: u64 = 64 << 20;

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

/// Merges runs, one job's at a time.
struct Merger {
    files: Arc<RunFiles>,
    closing: Arc<AtomicBool>,
}

/// A merge, and who is told of it.
type ToMerge = (Merge, mpsc::Sender<Request>);

impl Merger {
    fn run(&self, queue: &mpsc::Receiver<ToMerge>) {
        while let Ok((merge, log)) = queue.recv() {
            let merged = merge.run(&self.files, &self.closing);
            // The log thread's end needs the queue to be let go of; a run that nobody takes in is
            // removed when the vault is opened next.
            let _ = log.send(Request::Merged(merge.job, merged));
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

/// Why a checkpoint is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Why {
    /// Somebody asked for one, and wants the log before it gone.
    Asked,
    /// The log has grown.
    Log,
    /// What memory holds of the index has grown, or runs were merged.
    Memory,
}

/// Of what makes a flush due, a job writes a run if it has this share; less goes into the checkpoint.
const RUN_SHARE: u64 = 8;

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

    fn checkpoint_if_due(&mut self, core: &Core) {
        // A checkpoint costs what memory holds of the index: it is worth writing again only after
        // several times as much log.
        let due = core.config.checkpoint_bytes.max(4 * self.checkpoint_bytes);
        if self.since_checkpoint >= due || self.is_pressed(core) {
            self.checkpoint_now(core, Why::Log, None);
            return;
        }
        let weight = core.index.read().weight();
        if weight >= core.config.index_bytes.max(self.retry_weight) {
            self.checkpoint_now(core, Why::Memory, None);
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

    fn checkpoint_now(&mut self, core: &Core, why: Why, reply: Option<Reply<()>>) {
        if why != Why::Memory {
            // Whatever comes of it, the next try is not at the next batch.
            self.since_checkpoint = 0;
        }
        let result = self.write_checkpoint(core, why);
        self.retry_weight = 0;
        if let Err(source) = &result {
            tracing::warn!(%source, "no checkpoint was written; the log grows on");
            let weight = core.index.read().weight();
            self.retry_weight = weight.saturating_add(core.config.index_bytes);
        }
        core.measure();
        // A checkpoint is a file, too.
        trim(core);
        self.merge_if_due(core);
        if let Some(reply) = reply {
            reply.send(result.map_err(|e| Error::io("write a checkpoint", e)));
        }
    }

    fn write_checkpoint(&mut self, core: &Core, why: Why) -> io::Result<()> {
        // Otherwise the log file goes on: what it has room for was set aside already.
        if why == Why::Asked {
            self.writer.rotate(0)?;
        }
        let number = self.writer.number();
        let end = checkpoint::End {
            number,
            durable: self.writer.durable(),
            next_lsn: self.writer.next_lsn(),
        };
        let mut flushed = BTreeMap::new();
        let written = flush(core, &mut flushed).and_then(|()| {
            let claims = flushed.iter().map(|(job, run)| (*job, run.claim()));
            let (keyring, index) = (core.keyring.read(), core.index.read());
            checkpoint::write(&core.files, &keyring, &index, end, &claims.collect())
        });
        let checkpoint = match written {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                // Nobody can have heard of them.
                core.runs.remove(flushed.values().map(Run::claim));
                return Err(error);
            }
        };
        self.checkpoint_bytes = checkpoint.len;
        if let Err(error) = checkpoint.publish(&core.files) {
            // It may be what recovery finds: its runs stay until another one is in its place.
            self.obsolete.extend(flushed.values().map(Run::claim));
            return Err(error);
        }
        {
            let mut index = core.index.write();
            for (job, run) in flushed {
                index.settle(job, run);
            }
            index.weigh();
        }
        core.runs.remove(std::mem::take(&mut self.obsolete));
        if let Some(old) = self.checkpoint.replace(number).filter(|old| *old != number) {
            core.files.remove(Kind::Checkpoint, old)?;
        }
        if why != Why::Memory {
            self.clean(core, number)?;
        }
        Ok(())
    }

    /// Has the runs of one job merged where there are many; one merge at a time.
    fn merge_if_due(&mut self, core: &Core) {
        if self.merging {
            return;
        }
        let (keyring, index) = (core.keyring.read(), core.index.read());
        for job in index.jobs() {
            let Some(runs) = index.runs(job) else {
                continue;
            };
            let Some(count) = merge::due(&runs) else {
                continue;
            };
            let (Some(secret), Some(living)) = (keyring.secret(job), index.living(job)) else {
                continue;
            };
            let merge = Merge {
                job,
                vault: keyring.vault,
                secret: secret.clone(),
                inputs: Arc::new(runs[..count].to_vec()),
                living,
            };
            let queues = core.queues.read();
            let Some(log) = queues.as_ref().map(|queues| queues.log.clone()) else {
                return;
            };
            self.merging = self.merges.send((merge, log)).is_ok();
            return;
        }
    }

    /// Puts a merged run in its place. A checkpoint that names it must be on the disk before those
    /// that it was made of go.
    fn take_in(&mut self, core: &Core, job: JobNo, merged: Result<Merged, MergeError>) {
        self.merging = false;
        match merged {
            Ok(merged) => {
                let Merged { inputs, output } = merged;
                let made = output.as_ref().map(Run::claim);
                let unused = core.index.write().replace_runs(job, &inputs, output);
                if made.is_some_and(|made| unused.contains(&made)) {
                    // The job is gone.
                    core.runs.remove(unused);
                    self.merge_if_due(core);
                    return;
                }
                self.obsolete.extend(unused);
                self.checkpoint_now(core, Why::Memory, None);
            }
            // Tried again behind the next flush.
            Err(MergeError::Stopped) => {}
            Err(MergeError::Read(error)) => drop(core.tell(&error, Some(job), "", 0)),
            Err(error) => tracing::warn!(%error, "runs of the index were not merged"),
        }
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
        let owners = core.owners_in_log(number);
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

/// Writes what is in memory of the index into runs, for jobs where that is much.
fn flush(core: &Core, flushed: &mut BTreeMap<JobNo, Run>) -> io::Result<()> {
    let (keyring, index) = (core.keyring.read(), core.index.read());
    for job in index.heavy(
        core.config.index_bytes / RUN_SHARE,
        core.config.index_bytes / 2,
    ) {
        // A job is erased on this thread: the key is there.
        let secret = keyring.secret(job).ok_or(io::ErrorKind::NotFound)?;
        let records = index.flushed_records(job);
        let run = core
            .runs
            .write((keyring.vault, job), secret, records, |output| {
                index.flush(job, output)
            })?;
        flushed.insert(job, run);
    }
    Ok(())
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
