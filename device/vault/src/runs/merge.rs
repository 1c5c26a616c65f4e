//! Merging runs, so that there are few: each record is written again a number of times that grows
//! with the logarithm of how many there are.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    Claim, Run, RunError, RunFiles, RunOutput, Runs,
    file::{NameCursor, RecordCursor},
};
use crate::{crypto::Secret, index::Living, keyring::JobNo};

/// Runs that are merged at a time, at least.
const FAN_IN: usize = 4;

/// Which of the newest runs should become one, if any: how many.
///
/// A run takes part if those that are newer are together at least two thirds of it. So a run is
/// only written again when that makes it considerably larger, and those that are left grow
/// geometrically with age.
pub(crate) fn due(runs: &[Arc<Run>]) -> Option<usize> {
    due_of(runs.iter().map(|run| run.records()))
}

fn due_of(sizes: impl Iterator<Item = u64>) -> Option<usize> {
    let (mut sum, mut count) = (0_u64, 0);
    for size in sizes {
        if count > 0 && size.saturating_mul(2) > sum.saturating_mul(3) {
            break;
        }
        sum = sum.saturating_add(size);
        count += 1;
    }
    (count >= FAN_IN).then_some(count)
}

/// A merge that was begun.
pub(crate) struct Merge {
    pub(crate) job: JobNo,
    pub(crate) vault: [u8; 16],
    pub(crate) secret: Secret,
    /// Newest first, and nothing between them.
    pub(crate) inputs: Runs,
    /// What lived when it began. What is gone is left out.
    pub(crate) living: Living,
}

/// What came of it.
pub(crate) struct Merged {
    pub(crate) inputs: Vec<Claim>,
    /// `None` if nothing in them lives.
    pub(crate) output: Option<Run>,
}

/// Why there is no merged run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MergeError {
    #[error("failed to write the merged run")]
    Write(#[from] io::Error),
    #[error("a run does not read: {}", .0.place())]
    Read(RunError),
    #[error("the vault is being closed")]
    Stopped,
}

impl From<RunError> for MergeError {
    fn from(error: RunError) -> Self {
        Self::Read(error)
    }
}

impl Merge {
    /// Reads the runs and writes the merged one, unless `stop` says to stop.
    pub(crate) fn run(&self, files: &RunFiles, stop: &AtomicBool) -> Result<Merged, MergeError> {
        let mut failed = None;
        let records: u64 = self.inputs.iter().map(|run| run.records()).sum();
        let name = (self.vault, self.job);
        let written = files.write(name, &self.secret, records, |output| {
            self.fill(output, stop).map_err(|error| match error {
                MergeError::Write(source) => source,
                other => {
                    failed = Some(other);
                    io::ErrorKind::Interrupted.into()
                }
            })
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let run = written?;
        let mut output = Some(run);
        if let Some(empty) = output.take_if(|run| run.records() == 0) {
            files.remove([empty.claim()]);
        }
        Ok(Merged {
            inputs: self.inputs.iter().map(|run| run.claim()).collect(),
            output,
        })
    }

    fn fill(&self, output: &mut RunOutput, stop: &AtomicBool) -> Result<(), MergeError> {
        let go_on = || {
            if stop.load(Ordering::Relaxed) {
                return Err(MergeError::Stopped);
            }
            Ok(())
        };
        let cursors = self.inputs.iter().map(Run::all_records);
        let mut cursors: Vec<RecordCursor> = cursors.collect::<Result<_, _>>()?;
        while let Some(version) = cursors.iter().filter_map(RecordCursor::version).min() {
            // The newest run comes first; what older ones say about it is over.
            let mut told = false;
            for cursor in cursors.iter_mut().filter(|c| c.version() == Some(version)) {
                if let Some(record) = cursor.record().filter(|_| !told) {
                    told = true;
                    if self.living.needs(&record) {
                        output.record(&record)?;
                    }
                }
                cursor.advance()?;
            }
            go_on()?;
        }
        output.end_records()?;
        let cursors = self.inputs.iter().map(Run::all_names);
        let mut cursors: Vec<NameCursor> = cursors.collect::<Result<_, _>>()?;
        let mut last: Option<(String, u64)> = None;
        while let Some(first) = first_of(&mut cursors) {
            if let Some((name, version)) = first.name() {
                let again = last
                    .as_ref()
                    .is_some_and(|(last, v)| (&**last, *v) == (name, version));
                if !again && self.living.lives(version) {
                    output.name(name, version)?;
                    last = Some((name.to_owned(), version));
                }
            }
            first.advance()?;
            go_on()?;
        }
        Ok(())
    }
}

fn first_of(cursors: &mut [NameCursor]) -> Option<&mut NameCursor> {
    let heads = cursors.iter_mut().filter(|cursor| cursor.name().is_some());
    heads.min_by(|one, other| one.name().cmp(&other.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flushes of one size, merged as soon as a merge is due.
    #[test]
    fn runs_stay_few_and_each_record_is_written_again_a_few_times_only() {
        let (mut runs, mut written) = (Vec::<u64>::new(), 0);
        for _ in 0..1000 {
            runs.insert(0, 1);
            while let Some(count) = due_of(runs.iter().copied()) {
                let merged = runs.drain(..count).sum();
                written += merged;
                runs.insert(0, merged);
            }
            assert!(runs.len() <= 12, "{runs:?}");
        }
        assert!(written <= 8 * 1000, "{written}");
    }
}
