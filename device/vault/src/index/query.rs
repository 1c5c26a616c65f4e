//! Reading the index.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included, Unbounded},
    sync::Arc,
};

use super::{Entry, Index, Upload};
use crate::{
    Abandoned, Deletion, Error, JobId, ObjectInfo, Page, PartInfo, PartNumber, Pending, UploadId,
    UploadInfo, Version,
    codec::decode_detail,
    keyring::JobNo,
    op::{Body, Extent, Owner},
};

impl Index {
    pub(crate) fn current(&self, job: JobNo, key: &str) -> Result<Version, Error> {
        let names = self
            .jobs
            .get(&job)
            .ok_or_else(|| Error::NoSuchJob(job.to_string()))?;
        let version = names
            .objects
            .get(key)
            .ok_or_else(|| Error::NoSuchObject(key.to_owned()))?;
        Ok(Version(*version))
    }

    pub(crate) fn info(&self, version: Version) -> Result<ObjectInfo, Error> {
        let (entry, job) = self.entry(version)?;
        Ok(entry.info(job, version.0))
    }

    /// BLAKE3 of a version, if it is known.
    pub(crate) fn blake3(&self, version: Version) -> Result<Option<[u8; 32]>, Error> {
        Ok(self.entry(version)?.0.blake3())
    }

    /// A version, its job's number and its bytes, if they are still here.
    pub(crate) fn open(
        &self,
        version: Version,
    ) -> Result<(ObjectInfo, JobNo, Option<Body>), Error> {
        let (entry, job) = self.entry(version)?;
        Ok((entry.info(job, version.0), entry.job, entry.body.clone()))
    }

    pub(crate) fn job_of(&self, version: Version) -> Result<JobNo, Error> {
        self.entry(version).map(|(entry, _)| entry.job)
    }

    fn entry(&self, version: Version) -> Result<(&Entry, &JobId), Error> {
        let absent = || Error::NoSuchVersion(version.0);
        let entry = self.versions.get(&version.0).ok_or_else(absent)?;
        let job = self.jobs.get(&entry.job).ok_or_else(absent)?;
        Ok((entry, &job.id))
    }

    pub(crate) fn list(
        &self,
        job: JobNo,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Result<Page<ObjectInfo>, Error> {
        let names = self
            .jobs
            .get(&job)
            .ok_or_else(|| Error::NoSuchJob(job.to_string()))?;
        let from = match start_after {
            Some(after) if after >= prefix => Excluded(after),
            _ => Included(prefix),
        };
        let mut found = names
            .objects
            .range::<str, _>((from, Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter_map(|(_, version)| Some(self.versions.get(version)?.info(&names.id, *version)));
        let items = found.by_ref().take(limit).collect();
        Ok(Page {
            items,
            more: found.next().is_some(),
        })
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

    pub(crate) fn pending(&self, after: Option<Version>, limit: usize) -> Vec<Pending> {
        let from = after.map_or(Unbounded, |version| Excluded(version.0));
        let versions = self.pending.range((from, Unbounded));
        let pending = versions.filter_map(|version| {
            let (entry, job) = self.entry(Version(*version)).ok()?;
            Some(Pending {
                job: job.clone(),
                key: entry.key.to_string(),
                version: Version(*version),
                size: entry.size,
                delivery: entry.progress.as_delivery().clone(),
            })
        });
        pending.take(limit).collect()
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

    pub(crate) fn deletions(&self, limit: usize) -> Vec<Deletion> {
        let deletions = self.deletions.iter().filter_map(|(version, (job, key))| {
            Some(Deletion {
                job: self.jobs.get(job)?.id.clone(),
                key: key.to_string(),
                version: Version(*version),
            })
        });
        deletions.take(limit).collect()
    }

    pub(crate) fn job_of_deletion(&self, version: Version) -> Option<JobNo> {
        self.deletions.get(&version.0).map(|(job, _)| *job)
    }

    pub(crate) fn job_of_abandoned(&self, version: Version, upload: &str) -> Option<JobNo> {
        self.abandoned
            .get(&(version.0, upload.to_owned()))
            .map(|(job, _)| *job)
    }

    /// The first version behind `after`, of any job, for reading everything.
    pub(crate) fn version_after(&self, after: Option<Version>) -> Option<Version> {
        let from = after.map_or(Unbounded, |version| Excluded(version.0));
        self.versions
            .range((from, Unbounded))
            .next()
            .map(|(version, _)| Version(*version))
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

    /// Who still needs bytes of log file `file`: owner, job and extent.
    pub(crate) fn owners_in_log(&self, file: u32) -> Vec<(Owner, JobNo, Extent)> {
        let inside = |extent: &&Extent| matches!(extent, Extent::Log { file: f, .. } if *f == file);
        let mut found = Vec::new();
        for (version, entry) in &self.versions {
            let extents = entry
                .body
                .iter()
                .flat_map(|body| body.iter())
                .filter(inside);
            found.extend(extents.map(|e| (Owner::Object(*version), entry.job, *e)));
        }
        for (id, upload) in &self.uploads {
            for (number, part) in &upload.parts {
                let extents = part.body.iter().filter(inside);
                found.extend(extents.map(|e| (Owner::Part(*id, *number), upload.job, *e)));
            }
        }
        found
    }

    /// The first and last bytes of everything live, per segment, in no order.
    pub(crate) fn live_ranges(&self) -> BTreeMap<u32, Vec<(u64, u64)>> {
        let mut ranges: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
        let bodies = self
            .versions
            .values()
            .filter_map(|entry| entry.body.as_ref());
        let parts = self
            .uploads
            .values()
            .flat_map(|upload| upload.parts.values());
        let all = bodies
            .chain(parts.map(|part| &part.body))
            .chain(self.space.retired());
        for (segment, begin, end) in all
            .flat_map(|body| body.iter())
            .filter_map(|extent| self.space.place(*extent))
        {
            ranges.entry(segment).or_default().push((begin, end));
        }
        ranges
    }
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
