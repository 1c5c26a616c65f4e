//! When the log thread writes a checkpoint, and what it may forget afterwards.

use std::{collections::BTreeMap, io};

use crate::{
    Error,
    codec::wide,
    commit::Reply,
    core::{Core, SLOW_DOWN_PERCENT},
    keyring::JobNo,
    log::{checkpoint, record::Kind},
    op::{Extent, Op},
    runs::Run,
};

use super::{BATCH_BYTES, BATCH_RECORDS, LogThread, moving, trim};

/// Inline bytes that one checkpoint moves out of old log files, at most.
const MOVE_BYTES: u64 = 64 << 20;

/// Why a checkpoint is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Why {
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
    pub(super) fn checkpoint_if_due(&mut self, core: &Core) {
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

    pub(super) fn checkpoint_now(&mut self, core: &Core, why: Why, reply: Option<Reply<()>>) {
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
