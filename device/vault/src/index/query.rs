//! Reading the index.

use std::{
    ops::Bound::{self, Excluded, Included, Unbounded},
    sync::Arc,
};

use super::{Index, Job, Upload, versions::VersionSet};
use crate::{
    Abandoned, Error, JobId, Page, PartInfo, PartNumber, UploadId, UploadInfo, Version,
    codec::decode_detail, keyring::JobNo, op::Body, runs::Runs,
};

impl Index {
    fn job(&self, job: JobNo) -> Result<&Job, Error> {
        let found = self.jobs.get(&job);
        found.ok_or_else(|| Error::NoSuchJob(job.to_string()))
    }

    /// The current version of a name, if it is in memory, and the runs that know it otherwise.
    pub(crate) fn current(&self, job: JobNo, key: &str) -> Result<(Option<u64>, Runs), Error> {
        let job = self.job(job)?;
        Ok((job.names.get(key).copied(), Arc::clone(&job.runs)))
    }

    /// True if `version` lives in `job`.
    pub(crate) fn lives_in(&self, job: JobNo, version: u64) -> bool {
        let job = self.jobs.get(&job);
        job.is_some_and(|job| job.live.contains(version))
    }

    /// At most `limit` names that are in memory, and their versions.
    pub(crate) fn names(
        &self,
        job: JobNo,
        prefix: &str,
        from: Bound<&str>,
        limit: usize,
    ) -> Result<Vec<(String, u64)>, Error> {
        let names = &self.job(job)?.names;
        let found = names
            .range::<str, _>((from, Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit);
        Ok(found
            .map(|(key, version)| (key.to_string(), *version))
            .collect())
    }

    pub(crate) fn job_of(&self, version: Version) -> Result<JobNo, Error> {
        let found = self.job_with(version.0).map(|(no, _)| no);
        found.ok_or(Error::NoSuchVersion(version.0))
    }

    pub(crate) fn upload(&self, id: UploadId) -> Result<(UploadInfo, JobNo), Error> {
        let (upload, job) = self.open_upload(id)?;
        Ok((upload.info(job, id), upload.job))
    }

    fn open_upload(&self, id: UploadId) -> Result<(&Upload, &JobId), Error> {
        let absent = || Error::NoSuchUpload(id.to_string());
        let upload = self.uploads.get(&id).ok_or_else(absent)?;
        let job = self.jobs.get(&upload.job).ok_or_else(absent)?;
        Ok((upload, &job.id))
    }

    pub(crate) fn uploads(
        &self,
        job: JobNo,
        prefix: &str,
        start_after: Option<(&str, Option<UploadId>)>,
        limit: usize,
    ) -> Result<Page<UploadInfo>, Error> {
        let names = self
            .jobs
            .get(&job)
            .ok_or_else(|| Error::NoSuchJob(job.to_string()))?;
        let first = (Arc::from(prefix), UploadId([0; 16]));
        let from = match start_after {
            // Without an identifier: behind all uploads of that key.
            Some((key, id)) if key >= prefix => {
                Excluded((Arc::from(key), id.unwrap_or(UploadId([0xff; 16]))))
            }
            _ => Included(first),
        };
        let mut found = names
            .uploads
            .range((from, Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter_map(|(_, id)| Some(self.uploads.get(id)?.info(&names.id, *id)));
        let items = found.by_ref().take(limit).collect();
        Ok(Page {
            items,
            more: found.next().is_some(),
        })
    }

    /// The longest part of an upload but `number`, and nothing if there is none.
    pub(crate) fn longest_part(&self, id: UploadId, number: PartNumber) -> u64 {
        let parts = self.uploads.get(&id).map(|upload| upload.parts.iter());
        let others = parts
            .into_iter()
            .flatten()
            .filter(|(other, _)| **other != number.get());
        others.map(|(_, part)| part.content.size).max().unwrap_or(0)
    }

    pub(crate) fn parts(
        &self,
        id: UploadId,
        after: Option<PartNumber>,
        limit: usize,
    ) -> Result<Page<PartInfo>, Error> {
        let (upload, _) = self.open_upload(id)?;
        let from = after.map_or(Unbounded, |number| Excluded(number.get()));
        let mut found = upload
            .parts
            .range((from, Unbounded))
            .filter_map(|(number, part)| part.info(*number));
        let items = found.by_ref().take(limit).collect();
        Ok(Page {
            items,
            more: found.next().is_some(),
        })
    }

    /// At most `limit` versions that are still to be delivered, behind `after`.
    pub(crate) fn pending(&self, after: Option<Version>, limit: usize) -> Vec<u64> {
        let after = after.map(|version| version.0);
        lowest(self.jobs.values().map(|job| &job.pending), after, limit)
    }

    /// At most `limit` versions that are verified in the cloud and still here, behind `after`.
    pub(crate) fn releasable(&self, after: Option<Version>, limit: usize) -> Vec<u64> {
        let after = after.map(|version| version.0);
        lowest(self.jobs.values().map(|job| &job.releasable), after, limit)
    }

    /// At most `limit` versions that were deleted, behind `after`.
    pub(crate) fn deleted(&self, after: Option<u64>, limit: usize) -> Vec<u64> {
        lowest(self.jobs.values().map(|job| &job.deleted), after, limit)
    }

    /// The job of a deleted version, its name if it is in memory, and the runs that know it
    /// otherwise.
    pub(crate) fn deletion(&self, version: u64) -> Option<(JobNo, JobId, Option<Arc<str>>, Runs)> {
        let mut jobs = self.jobs.iter();
        let (no, job) = jobs.find(|(_, job)| job.deleted.contains(version))?;
        let (key, runs) = (job.told.get(&version).cloned(), Arc::clone(&job.runs));
        Some((*no, job.id.clone(), key, runs))
    }

    pub(crate) fn abandoned(&self) -> Vec<Abandoned> {
        let abandoned = self
            .abandoned
            .iter()
            .filter_map(|((version, upload), (job, key))| {
                Some(Abandoned {
                    job: self.jobs.get(job)?.id.clone(),
                    key: key.to_string(),
                    version: Version(*version),
                    upload: upload.clone(),
                })
            });
        abandoned.collect()
    }

    pub(crate) fn job_of_deletion(&self, version: Version) -> Option<JobNo> {
        self.deletion(version.0).map(|(no, ..)| no)
    }

    pub(crate) fn job_of_abandoned(&self, version: Version, upload: &str) -> Option<JobNo> {
        self.abandoned
            .get(&(version.0, upload.to_owned()))
            .map(|(job, _)| *job)
    }

    /// The first version behind `after`, of any job, for reading everything.
    pub(crate) fn version_after(&self, after: Option<Version>) -> Option<Version> {
        let after = after.map(|version| version.0);
        let live = self.jobs.values().map(|job| &job.live);
        lowest(live, after, 1).pop().map(Version)
    }

    /// Bytes of a part, for reading everything.
    pub(crate) fn open_part(
        &self,
        id: UploadId,
        number: PartNumber,
    ) -> Option<(UploadInfo, JobNo, Body)> {
        let (info, job) = self.upload(id).ok()?;
        let part = self.uploads.get(&id)?.parts.get(&number.get())?;
        Some((info, job, Arc::clone(&part.body)))
    }

    pub(crate) fn part_after(
        &self,
        after: Option<(UploadId, PartNumber)>,
    ) -> Option<(UploadId, PartNumber)> {
        let from = after.map_or(UploadId([0; 16]), |(id, _)| id);
        let done = |id: &UploadId, number: &u16| {
            after.is_some_and(|(last, part)| *id == last && *number <= part.get())
        };
        self.uploads
            .range(from..)
            .flat_map(|(id, upload)| upload.parts.keys().map(move |number| (id, number)))
            .find(|(id, number)| !done(id, number))
            .and_then(|(id, number)| Some((*id, PartNumber::new(*number)?)))
    }
}

/// At most `limit` members of any of the sets behind `after`, the lowest first.
fn lowest<'a>(
    sets: impl Iterator<Item = &'a VersionSet>,
    after: Option<u64>,
    limit: usize,
) -> Vec<u64> {
    let mut found: Vec<u64> = sets
        .flat_map(|set| set.iter_after(after).take(limit))
        .collect();
    found.sort_unstable();
    found.truncate(limit);
    found
}

impl Upload {
    fn info(&self, job: &JobId, id: UploadId) -> UploadInfo {
        let (metadata, checksums) = decode_detail(&self.detail).unwrap_or_default();
        UploadInfo {
            id,
            job: job.clone(),
            key: self.key.to_string(),
            created_ms: self.created_ms,
            metadata,
            checksums,
        }
    }
}
