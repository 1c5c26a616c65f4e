//! Merges of the index's runs: a thread of their own makes them, the log thread takes them in.

use std::sync::{Arc, atomic::AtomicBool, mpsc};

use crate::{
    core::{Core, Request},
    keyring::JobNo,
    runs::{
        Run, RunFiles,
        merge::{self, Merge, MergeError, Merged},
    },
};

use super::{LogThread, checkpoints::Why};

/// Merges runs, one job's at a time.
pub(super) struct Merger {
    pub files: Arc<RunFiles>,
    pub closing: Arc<AtomicBool>,
}

/// A merge, and who is told of it.
pub(super) type ToMerge = (Merge, mpsc::Sender<Request>);

impl Merger {
    pub fn run(&self, queue: &mpsc::Receiver<ToMerge>) {
        while let Ok((merge, log)) = queue.recv() {
            let merged = merge.run(&self.files, &self.closing);
            // The log thread's end needs the queue to be let go of; a run that nobody takes in is
            // removed when the vault is opened next.
            let _ = log.send(Request::Merged(merge.job, merged));
        }
    }
}

impl LogThread {
    /// Has the runs of one job merged where there are many; one merge at a time.
    pub(super) fn merge_if_due(&mut self, core: &Core) {
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
    pub(super) fn take_in(&mut self, core: &Core, job: JobNo, merged: Result<Merged, MergeError>) {
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
}
