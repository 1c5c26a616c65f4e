//! The index as facts: what a checkpoint holds.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Content, Entry, Index, Job, Part, PartsContent, Sums, Upload,
    settle::deletion_weight,
    space::{Incarnation, Share},
};
use crate::{
    UploadId,
    codec::{Malformed, Put, Take},
    keyring::{JobNo, VAULT},
    op::wire::{
        MAX_SIZE, put_delivery, put_digests, put_extents, take_delivery, take_digests, take_extents,
    },
    runs::Claim,
    tree::PartTree,
};

/// The sets of a job, as facts name them.
const SETS: [u8; 4] = [0, 1, 2, 3];

impl Index {
    /// Hands every fact to `emit`, each with the job that may know it, in an order that
    /// [`Index::learn`] accepts. Of the jobs in `flushed` what was in memory is in that run now.
    pub(crate) fn facts<E>(
        &self,
        flushed: &BTreeMap<JobNo, Claim>,
        mut emit: impl FnMut(JobNo, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut out = Vec::new();
        for (id, incarnation) in self.space.incarnations() {
            out.clear();
            out.put_u8(1);
            out.put_u64(id);
            out.put_u32(incarnation.segment);
            out.put_u32(incarnation.base);
            out.put_raw(&incarnation.salt);
            emit(VAULT, &out)?;
        }
        for (no, job) in &self.jobs {
            self.facts_of_job(*no, job, flushed.get(no), |fact| emit(*no, fact))?;
            if flushed.contains_key(no) {
                continue;
            }
            // In the order in which they lie in memory: several times faster than by name.
            for (version, entry) in &job.versions {
                out.clear();
                out.put_u8(2);
                out.put_u64(*version);
                entry.encode(&mut out);
                emit(*no, &out)?;
            }
            for (version, key) in &job.told {
                out.clear();
                out.put_u8(6);
                out.put_u64(*version);
                out.put_text(key);
                emit(*no, &out)?;
            }
        }
        for (id, upload) in &self.uploads {
            out.clear();
            out.put_u8(3);
            out.put_raw(&id.0);
            out.put_text(&upload.key);
            out.put_i64(upload.created_ms);
            out.put_bytes(&upload.detail);
            emit(upload.job, &out)?;
            for (number, part) in &upload.parts {
                out.clear();
                out.put_u8(4);
                out.put_raw(&id.0);
                out.put_u16(*number);
                part.encode(&mut out);
                emit(upload.job, &out)?;
            }
        }
        for ((version, upload), (job, key)) in &self.abandoned {
            out.clear();
            out.put_u8(5);
            out.put_u64(*version);
            out.put_text(upload);
            out.put_text(key);
            emit(*job, &out)?;
        }
        Ok(())
    }

    /// What a job comes to, and which runs say the rest.
    fn facts_of_job<E>(
        &self,
        no: JobNo,
        job: &Job,
        flushed: Option<&Claim>,
        mut emit: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let share = self.share_without_parts(no);
        let runs = flushed.copied().into_iter();
        let runs = runs.chain(job.runs.iter().map(|run| run.claim()));
        let mut runs = runs.chain(job.claims.iter().copied()).peekable();
        let sets = [&job.live, &job.deleted, &job.pending, &job.releasable];
        let nothing = runs.peek().is_none()
            && sets.iter().all(|set| set.len() == 0)
            && (share.frames.is_empty() && share.logs.is_empty())
            && job.sums == Sums::default();
        if nothing {
            return Ok(());
        }
        let mut out = Vec::new();
        out.put_u8(7);
        out.put_u64(job.sums.object_bytes);
        out.put_u64(job.sums.pending_bytes);
        out.put_u64(job.sums.failed);
        emit(&out)?;
        for (incarnation, len) in share.frames {
            out.clear();
            out.put_u8(8);
            out.put_u64(incarnation);
            out.put_u64(len);
            out.put_u64(self.space.end_of(incarnation));
            emit(&out)?;
        }
        for (file, len) in share.logs {
            out.clear();
            out.put_u8(9);
            out.put_u32(file);
            out.put_u64(len);
            emit(&out)?;
        }
        for (name, set) in SETS.iter().zip(sets) {
            for page in set.encode() {
                out.clear();
                out.put_u8(10);
                out.put_u8(*name);
                out.put_raw(&page);
                emit(&out)?;
            }
        }
        for run in runs {
            out.clear();
            out.put_u8(11);
            out.put_u32(run.number);
            out.put_raw(&run.salt);
            out.put_u64(run.at);
            out.put_u32(run.len);
            emit(&out)?;
        }
        Ok(())
    }

    /// Parts bring what they need themselves.
    fn share_without_parts(&self, no: JobNo) -> Share {
        let mut share = self.space.share(no).cloned().unwrap_or_default();
        let uploads = self.uploads.values().filter(|upload| upload.job == no);
        for part in uploads.flat_map(|upload| upload.parts.values()) {
            self.space.take_from(&mut share, &part.body);
        }
        share
    }

    /// Takes in the facts of one record.
    pub(crate) fn learn(&mut self, job: JobNo, payload: &[u8]) -> Result<(), Malformed> {
        let mut take = Take(payload);
        while take.end().is_err() {
            self.learn_one(job, &mut take)?;
        }
        Ok(())
    }

    #[expect(clippy::too_many_lines, reason = "one arm per fact")]
    fn learn_one(&mut self, no: JobNo, take: &mut Take<'_>) -> Result<(), Malformed> {
        match take.u8()? {
            1 => {
                let id = take.u64()?;
                let (segment, base, salt) = (take.u32()?, take.u32()?, take.array()?);
                self.space.restore(
                    id,
                    Incarnation {
                        segment,
                        base,
                        salt,
                    },
                );
            }
            2 => self.learn_entry(no, take)?,
            3 => {
                let id = UploadId(take.array()?);
                let key: Arc<str> = take.text()?.into();
                let (created_ms, detail) = (take.i64()?, take.bytes()?.into());
                let job = self.jobs.get_mut(&no);
                let job = job.ok_or(Malformed("job of an upload"))?;
                job.uploads.insert((Arc::clone(&key), id));
                let parts = BTreeMap::new();
                self.uploads.insert(
                    id,
                    Upload {
                        job: no,
                        key,
                        created_ms,
                        detail,
                        parts,
                    },
                );
            }
            4 => {
                let id = UploadId(take.array()?);
                let number = take.u16()?;
                let part = Part::decode(take)?;
                let upload = self
                    .uploads
                    .get_mut(&id)
                    .ok_or(Malformed("upload of a part"))?;
                if !self.space.knows(&part.body) {
                    return Err(Malformed("the incarnation of a part is unknown"));
                }
                self.space.occupy(upload.job, &part.body);
                if let Some(old) = upload.parts.insert(number, part) {
                    self.space.retire(upload.job, old.body);
                }
            }
            5 => {
                let (version, upload, key) = (take.u64()?, take.string()?, take.text()?.into());
                self.abandoned.insert((version, upload), (no, key));
            }
            6 => {
                let (version, key): (_, Arc<str>) = (take.u64()?, take.text()?.into());
                let job = self.jobs.get_mut(&no);
                let job = job.ok_or(Malformed("job of a deletion"))?;
                if job.summed && !job.deleted.contains(version) {
                    return Err(Malformed("a deletion that is not counted"));
                }
                job.deleted.insert(version);
                job.weight += deletion_weight(&key);
                job.told.insert(version, key);
            }
            7 => {
                let job = self.jobs.get_mut(&no).ok_or(Malformed("job of sums"))?;
                if job.summed || !job.versions.is_empty() || !job.told.is_empty() {
                    return Err(Malformed("sums of a job come first"));
                }
                job.summed = true;
                job.sums = Sums {
                    object_bytes: take.u64()?,
                    pending_bytes: take.u64()?,
                    failed: take.u64()?,
                };
            }
            8 => {
                self.summed(no)?;
                let share = (take.u64()?, take.u64()?, take.u64()?);
                self.space.restore_frames(no, share)?;
            }
            9 => {
                self.summed(no)?;
                self.space.restore_log(no, take.u32()?, take.u64()?)?;
            }
            10 => {
                let job = self.summed(no)?;
                let set = match take.u8()? {
                    0 => &mut job.live,
                    1 => &mut job.deleted,
                    2 => &mut job.pending,
                    3 => &mut job.releasable,
                    _ => return Err(Malformed("set of versions")),
                };
                set.learn(take)?;
            }
            11 => {
                let job = self.summed(no)?;
                job.claims.push(Claim {
                    number: take.u32()?,
                    salt: take.array()?,
                    at: take.u64()?,
                    len: take.u32()?,
                });
            }
            _ => return Err(Malformed("fact")),
        }
        Ok(())
    }

    /// A job whose sums are known.
    fn summed(&mut self, no: JobNo) -> Result<&mut Job, Malformed> {
        let job = self.jobs.get_mut(&no).filter(|job| job.summed);
        job.ok_or(Malformed("sums of a job come first"))
    }

    fn learn_entry(&mut self, no: JobNo, take: &mut Take<'_>) -> Result<(), Malformed> {
        let version = take.u64()?;
        let entry = Box::new(Entry::decode(no, take)?);
        let job = self.jobs.get_mut(&no);
        let job = job.ok_or(Malformed("job of an object"))?;
        let body = entry.body.as_ref();
        if !body.is_none_or(|body| self.space.knows(body)) {
            return Err(Malformed("the incarnation of an object is unknown"));
        }
        if job.summed {
            if !job.live.contains(version) {
                return Err(Malformed("an object that is not counted"));
            }
        } else {
            // Of the first format: nothing else says what it comes to.
            job.count(version, &entry);
            if let Some(body) = body {
                self.space.occupy(no, body);
            }
        }
        job.weight += entry.weight();
        job.names.insert(Arc::clone(&entry.key), version);
        job.versions.insert(version, entry);
        Ok(())
    }
}

impl Entry {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_text(&self.key);
        out.put_u64(self.size);
        out.put_i64(self.modified_ms);
        match &self.content {
            Content::Whole(hash) => {
                out.put_u32(0);
                out.put_raw(hash);
            }
            Content::Parts(parts) => {
                out.put_u32(parts.count);
                out.put_raw(&parts.hash);
                out.put_u8(parts.whole.is_some().into());
                out.put_raw(&parts.whole.unwrap_or_default());
            }
        }
        out.put_u64(self.crc64nvme);
        out.put_bytes(&self.detail);
        put_delivery(out, self.progress.as_delivery());
        match &self.body {
            None => out.put_u8(0),
            Some(body) => {
                out.put_u8(1);
                put_extents(out, body);
            }
        }
    }

    pub(super) fn decode(job: JobNo, take: &mut Take<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            job,
            key: take.text()?.into(),
            size: bounded(take.u64()?)?,
            modified_ms: take.i64()?,
            content: match take.u32()? {
                0 => Content::Whole(take.array()?),
                count => Content::Parts(Box::new(PartsContent {
                    hash: take.array()?,
                    count,
                    whole: (take.u8()? != 0).then_some(take.array()?),
                })),
            },
            crc64nvme: take.u64()?,
            detail: take.bytes()?.into(),
            progress: take_delivery(take)?.into(),
            body: match take.u8()? {
                0 => None,
                1 => Some(take_extents(take)?.into()),
                _ => return Err(Malformed("body")),
            },
        })
    }
}

impl Part {
    fn encode(&self, out: &mut Vec<u8>) {
        put_digests(out, &self.content);
        self.tree.encode(out);
        out.put_i64(self.modified_ms);
        out.put_bytes(&self.detail);
        put_extents(out, &self.body);
    }

    fn decode(take: &mut Take<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            content: take_digests(take)?,
            tree: PartTree::decode(take)?,
            modified_ms: take.i64()?,
            detail: take.bytes()?.into(),
            body: take_extents(take)?.into(),
        })
    }
}

/// What is larger was never written, and sums of it would not fit a number.
fn bounded(size: u64) -> Result<u64, Malformed> {
    if size > MAX_SIZE {
        return Err(Malformed("size of an object"));
    }
    Ok(size)
}
