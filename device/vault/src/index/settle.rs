//! Between memory and runs: what an operation needs comes in, what was not touched lately goes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use super::{ENTRY_OVERHEAD, Entry, Index, Reading, VersionSet};
use crate::{
    Delivery, JobId,
    codec::{Malformed, Put, Take},
    keyring::JobNo,
    op::{Body, Extent, Op, Owner},
    runs::{self, Claim, Logs, Record, Run, RunError, RunOutput, Runs},
};

/// What a run says about a version.
#[derive(Debug)]
pub(crate) enum Stored {
    Live(Box<Entry>),
    /// Deleted under this name, and somebody is still to be told.
    Deleted(Arc<str>),
}

const LIVE: u8 = 1;
const DELETED: u8 = 2;

impl Stored {
    pub(crate) fn decode(job: JobNo, bytes: &[u8]) -> Result<Self, Malformed> {
        let mut take = Take(bytes);
        let stored = match take.u8()? {
            LIVE => Self::Live(Box::new(Entry::decode(job, &mut take)?)),
            DELETED => Self::Deleted(take.text()?.into()),
            _ => return Err(Malformed("what is stored")),
        };
        take.end()?;
        Ok(stored)
    }
}

/// Which versions somebody may still ask for.
pub(crate) struct Living {
    live: VersionSet,
    deleted: VersionSet,
}

impl Living {
    pub(crate) fn lives(&self, version: u64) -> bool {
        self.live.contains(version)
    }

    /// False if nobody will ask for this record again.
    pub(crate) fn needs(&self, record: &Record<'_>) -> bool {
        match record.payload.first() {
            Some(&DELETED) => self.deleted.contains(record.version),
            _ => self.live.contains(record.version),
        }
    }
}

/// What has to be read from runs before an operation is applied.
#[derive(Debug)]
pub(crate) enum Sought {
    /// The current version of a name.
    Name(String),
    Version(u64),
}

/// A version as a run holds it, on its way into memory.
pub(crate) struct Promotion {
    job: JobNo,
    version: u64,
    entry: Box<Entry>,
}

/// A live version: in memory, or where it has to be looked for.
pub(crate) enum Held {
    Here(Entry, JobId),
    Runs(JobNo, JobId, Runs),
}

impl Index {
    /// What has to be read before `op` can be applied, and where.
    pub(crate) fn seek(&self, job: JobNo, op: &Op) -> Option<(JobNo, Runs, Sought)> {
        match op {
            Op::Put { key, .. } | Op::Delete { key, .. } => self.seek_name(job, key),
            Op::Complete { upload, .. } => {
                let upload = self.uploads.get(upload)?;
                self.seek_name(upload.job, &upload.key)
            }
            Op::Deliver { version, .. } | Op::Hashed { version, .. } => {
                self.seek_version(version.0)
            }
            Op::Move {
                owner: Owner::Object(version),
                ..
            } => self.seek_version(*version),
            _ => None,
        }
    }

    fn seek_name(&self, no: JobNo, key: &str) -> Option<(JobNo, Runs, Sought)> {
        let job = self.jobs.get(&no)?;
        let absent = !job.runs.is_empty() && !job.names.contains_key(key);
        absent.then(|| (no, Arc::clone(&job.runs), Sought::Name(key.to_owned())))
    }

    fn seek_version(&self, version: u64) -> Option<(JobNo, Runs, Sought)> {
        let (no, job) = self.job_with(version)?;
        let absent = !job.versions.contains_key(&version);
        absent.then(|| (no, Arc::clone(&job.runs), Sought::Version(version)))
    }

    /// Takes in what was read. Changes nothing but what is in memory.
    pub(crate) fn promote(&mut self, promotion: Promotion) {
        let Promotion {
            job: no,
            version,
            mut entry,
        } = promotion;
        let Some(job) = self.jobs.get_mut(&no) else {
            return;
        };
        if !job.live.contains(version) || job.versions.contains_key(&version) {
            return;
        }
        adopt(self.reading.get_mut(), version, &mut entry);
        job.weight += entry.weight();
        job.names.insert(Arc::clone(&entry.key), version);
        job.versions.insert(version, entry);
    }

    pub(crate) fn lives(&self, version: u64) -> bool {
        self.job_with(version).is_some()
    }

    /// Where a live version is.
    pub(crate) fn held(&self, version: u64) -> Option<Held> {
        let (no, job) = self.job_with(version)?;
        Some(match job.versions.get(&version) {
            Some(entry) => Held::Here(Entry::clone(entry), job.id.clone()),
            None => Held::Runs(no, job.id.clone(), Arc::clone(&job.runs)),
        })
    }

    /// Gives an entry that was read from a run the body that others read and that keeps its space.
    /// False if the version is gone meanwhile.
    pub(crate) fn share_body(&self, version: u64, entry: &mut Entry) -> bool {
        let Some((no, job)) = self.job_with(version) else {
            return false;
        };
        if let Some(here) = job.versions.get(&version) {
            entry.clone_from(here);
            return true;
        }
        let mut reading = self.reading.lock();
        adopt(&mut reading, version, entry);
        if let Some(body) = &entry.body {
            note(&mut reading, no, version, body);
        }
        true
    }

    /// The runs of a job; `None` if there is no such job.
    pub(crate) fn runs(&self, no: JobNo) -> Option<Runs> {
        self.jobs.get(&no).map(|job| Arc::clone(&job.runs))
    }

    pub(crate) fn jobs(&self) -> Vec<JobNo> {
        self.jobs.keys().copied().collect()
    }

    pub(crate) fn job_id(&self, no: JobNo) -> Option<JobId> {
        self.jobs.get(&no).map(|job| job.id.clone())
    }

    pub(crate) fn living(&self, no: JobNo) -> Option<Living> {
        let job = self.jobs.get(&no)?;
        Some(Living {
            live: job.live.clone(),
            deleted: job.deleted.clone(),
        })
    }

    /// The runs that a checkpoint named, newest first, until somebody opens them.
    pub(crate) fn take_claims(&mut self) -> BTreeMap<JobNo, Vec<Claim>> {
        let jobs = self.jobs.iter_mut();
        jobs.map(|(no, job)| (*no, std::mem::take(&mut job.claims)))
            .collect()
    }

    /// Every run that is in use.
    pub(crate) fn claims(&self) -> Vec<Claim> {
        let jobs = self.jobs.values();
        jobs.flat_map(|job| job.runs.iter().map(|run| run.claim()))
            .collect()
    }

    pub(crate) fn set_runs(&mut self, no: JobNo, runs: Vec<Arc<Run>>) {
        if let Some(job) = self.jobs.get_mut(&no) {
            job.runs = Arc::new(runs);
        }
    }

    /// About how many bytes of memory can be written to runs.
    pub(crate) fn weight(&self) -> u64 {
        self.jobs.values().map(|job| job.weight).sum()
    }

    /// Jobs that have much to write, or so many that together they do: what the others have is less
    /// than `rest`.
    pub(crate) fn heavy(&self, much: u64, rest: u64) -> Vec<JobNo> {
        let jobs = self.jobs.iter();
        let jobs = jobs.filter(|(_, job)| !(job.versions.is_empty() && job.told.is_empty()));
        let mut jobs: Vec<_> = jobs.map(|(no, job)| (job.weight, *no)).collect();
        jobs.sort_unstable();
        let mut left: u64 = jobs.iter().map(|(weight, _)| weight).sum();
        let heavy = jobs.into_iter().rev().take_while(|(weight, _)| {
            let heavy = *weight >= much || left >= rest;
            left -= weight;
            heavy
        });
        heavy.map(|(_, no)| no).collect()
    }

    /// Weighs anew what is still in memory.
    pub(crate) fn weigh(&mut self) {
        for job in self.jobs.values_mut() {
            let entries = job.versions.values().map(|entry| entry.weight());
            let told = job.told.values().map(|key| deletion_weight(key));
            job.weight = entries.chain(told).sum();
        }
    }

    /// How many records [`Index::flush`] makes.
    pub(crate) fn flushed_records(&self, no: JobNo) -> u64 {
        let job = self.jobs.get(&no);
        job.map_or(0, |job| (job.versions.len() + job.told.len()) as u64)
    }

    /// Writes what is in memory of a job into a run.
    pub(crate) fn flush(&self, no: JobNo, output: &mut RunOutput) -> io::Result<()> {
        let Some(job) = self.jobs.get(&no) else {
            return Ok(());
        };
        let mut told = job.told.iter().peekable();
        let mut payload = Vec::new();
        let mut tell = |version: u64, key: &str, output: &mut RunOutput| {
            payload.clear();
            payload.put_u8(DELETED);
            payload.put_text(key);
            output.record(&Record {
                version,
                logs: None,
                payload: &payload,
            })
        };
        let mut bytes = Vec::new();
        for (version, entry) in &job.versions {
            while let Some((gone, key)) = told.next_if(|(gone, _)| *gone < version) {
                tell(*gone, key, output)?;
            }
            bytes.clear();
            bytes.put_u8(LIVE);
            entry.encode(&mut bytes);
            output.record(&Record {
                version: *version,
                logs: entry.logs(),
                payload: &bytes,
            })?;
        }
        for (gone, key) in told {
            tell(*gone, key, output)?;
        }
        output.end_records()?;
        for (name, version) in &job.names {
            output.name(name, *version)?;
        }
        Ok(())
    }

    /// What was flushed into `run` is no longer in memory.
    pub(crate) fn settle(&mut self, no: JobNo, run: Run) {
        let Some(job) = self.jobs.get_mut(&no) else {
            return;
        };
        let reading = self.reading.get_mut();
        for (version, entry) in std::mem::take(&mut job.versions) {
            if let Some(body) = entry.body.as_ref().filter(|b| Arc::strong_count(b) > 1) {
                note(reading, no, version, body);
            }
        }
        job.names.clear();
        job.told.clear();
        job.weight = 0;
        let older = job.runs.iter().cloned();
        job.runs = Arc::new(std::iter::once(Arc::new(run)).chain(older).collect());
    }

    /// Puts a merged run in the place of those that it was made of; what nobody needs now. The merged
    /// one, if they are not there any more.
    pub(crate) fn replace_runs(
        &mut self,
        no: JobNo,
        inputs: &[Claim],
        output: Option<Run>,
    ) -> Vec<Claim> {
        let unused = output.as_ref().map(Run::claim).into_iter().collect();
        let Some(job) = self.jobs.get_mut(&no) else {
            return unused;
        };
        let claims: Vec<Claim> = job.runs.iter().map(|run| run.claim()).collect();
        let begin = claims
            .windows(inputs.len().max(1))
            .position(|some| some == inputs);
        let Some(begin) = begin else { return unused };
        let mut runs = job.runs.to_vec();
        runs.splice(begin..begin + inputs.len(), output.map(Arc::new));
        job.runs = Arc::new(runs);
        inputs.to_vec()
    }

    /// Versions that are in memory: what runs say about those is over.
    pub(crate) fn touched(&self) -> BTreeSet<u64> {
        let jobs = self.jobs.values();
        jobs.flat_map(|job| job.versions.keys().copied()).collect()
    }

    /// Where the bodies lie that are in memory, read or not, as far as `wanted` wants them.
    pub(crate) fn places_here(&self, wanted: impl Fn(u32) -> bool) -> Vec<(u32, u64, u64)> {
        let jobs = self.jobs.values();
        let bodies = jobs.flat_map(|job| job.versions.values().filter_map(|e| e.body.as_ref()));
        let uploads = self.uploads.values();
        let parts = uploads.flat_map(|upload| upload.parts.values().map(|part| &part.body));
        bodies
            .chain(parts)
            .chain(self.space.retired())
            .flat_map(|body| body.iter())
            .filter_map(|extent| self.space.place(*extent))
            .filter(|(segment, ..)| wanted(*segment))
            .collect()
    }

    /// Log extents of `file` that are in memory: owner, job and extent.
    pub(crate) fn owners_here(&self, file: u32) -> Vec<(Owner, JobNo, Extent)> {
        let inside = |extent: &&Extent| matches!(extent, Extent::Log { file: f, .. } if *f == file);
        let mut found = Vec::new();
        for (no, job) in &self.jobs {
            for (version, entry) in &job.versions {
                let extents = entry.body.iter().flat_map(|body| body.iter());
                found.extend(
                    extents
                        .filter(inside)
                        .map(|e| (Owner::Object(*version), *no, *e)),
                );
            }
        }
        for (id, upload) in &self.uploads {
            for (number, part) in &upload.parts {
                let extents = part.body.iter().filter(inside);
                found.extend(extents.map(|e| (Owner::Part(*id, *number), upload.job, *e)));
            }
        }
        found
    }
}

/// Reads what an operation needs. `lives` is asked when everything is read.
pub(crate) fn find(
    (job, runs, sought): &(JobNo, Runs, Sought),
    lives: impl Fn(u64) -> bool,
) -> Result<Option<Promotion>, RunError> {
    let version = match sought {
        Sought::Version(version) => *version,
        Sought::Name(name) => {
            let had = runs::find_name(runs, name)?;
            let Some(current) = had.into_iter().find(|version| lives(*version)) else {
                return Ok(None);
            };
            current
        }
    };
    let (job, entry) = (*job, entry(runs, *job, version)?);
    Ok(Some(Promotion {
        job,
        version,
        entry,
    }))
}

/// The entry of a version that lives, and is not in memory.
pub(crate) fn entry(runs: &Runs, job: JobNo, version: u64) -> Result<Box<Entry>, RunError> {
    match stored(runs, job, version)? {
        Some(Stored::Live(entry)) => Ok(entry),
        // Contents that were verified deny what was written: no run is right then.
        _ => Err(lost(runs)),
    }
}

pub(crate) fn stored(runs: &Runs, job: JobNo, version: u64) -> Result<Option<Stored>, RunError> {
    runs::find_version(runs, version, |payload| Stored::decode(job, payload))
}

fn lost(runs: &Runs) -> RunError {
    match runs.first() {
        Some(run) => run.damaged(run.claim().at),
        None => RunError {
            path: "run-none".into(),
            offset: 0,
            source: None,
        },
    }
}

/// About how many bytes of memory a deletion takes until it is told.
pub(super) fn deletion_weight(key: &str) -> u64 {
    (ENTRY_OVERHEAD / 4 + key.len()) as u64
}

/// Gives `entry` the body that somebody reads already.
fn adopt(reading: &mut Reading, version: u64, entry: &mut Entry) {
    let read = reading.get(&version).and_then(|(_, body)| body.upgrade());
    // Moved bytes are another body: then nobody reads this one.
    if let (Some(read), Some(body)) = (read, &mut entry.body)
        && read == *body
    {
        *body = read;
    }
}

/// Remembers that somebody reads `body`.
fn note(reading: &mut Reading, no: JobNo, version: u64, body: &Body) {
    if reading.len() >= 64 && reading.len().is_power_of_two() {
        reading.retain(|_, (_, body)| body.strong_count() > 0);
    }
    reading.insert(version, (no, Arc::downgrade(body)));
}

impl Entry {
    /// Log files that hold bytes of it.
    fn logs(&self) -> Logs {
        let extents = self.body.iter().flat_map(|body| body.iter());
        let files = extents.filter_map(|extent| match extent {
            Extent::Log { file, .. } => Some(*file),
            Extent::Frames { .. } => None,
        });
        files.fold(None, |logs, file| match logs {
            None => Some((file, file)),
            Some((low, high)) => Some((low.min(file), high.max(file))),
        })
    }

    pub(crate) fn body(&self) -> Option<&Body> {
        self.body.as_ref()
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn job(&self) -> JobNo {
        self.job
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn delivery(&self) -> &Delivery {
        self.progress.as_delivery()
    }
}
