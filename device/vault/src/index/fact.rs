//! The index as facts: what a checkpoint holds.

use std::{collections::BTreeMap, sync::Arc};

use super::{Content, Entry, Index, Part, PartsContent, Upload, space::Incarnation};
use crate::{
    UploadId,
    codec::{Malformed, Put, Take},
    keyring::{JobNo, VAULT},
    op::wire::{put_delivery, put_digests, put_extents, take_delivery, take_digests, take_extents},
    tree::PartTree,
};

impl Index {
    /// Hands every fact to `emit`, each with the job that may know it, in an order that
    /// [`Index::learn`] accepts.
    pub(crate) fn facts<E>(
        &self,
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
        // In the order in which they lie in memory: several times faster than by name.
        for (version, entry) in &self.versions {
            out.clear();
            out.put_u8(2);
            out.put_u64(*version);
            entry.encode(&mut out);
            emit(entry.job, &out)?;
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
        for (version, (job, key)) in &self.deletions {
            out.clear();
            out.put_u8(6);
            out.put_u64(*version);
            out.put_text(key);
            emit(*job, &out)?;
        }
        Ok(())
    }

    /// Takes in the facts of one record.
    pub(crate) fn learn(&mut self, job: JobNo, payload: &[u8]) -> Result<(), Malformed> {
        let mut take = Take(payload);
        while take.end().is_err() {
            self.learn_one(job, &mut take)?;
        }
        Ok(())
    }

    fn learn_one(&mut self, job: JobNo, take: &mut Take<'_>) -> Result<(), Malformed> {
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
            2 => {
                let version = take.u64()?;
                let entry = Entry::decode(job, take)?;
                let names = self
                    .jobs
                    .get_mut(&job)
                    .ok_or(Malformed("job of an object"))?;
                names.objects.insert(Arc::clone(&entry.key), version);
                if !entry
                    .body
                    .as_ref()
                    .is_none_or(|body| self.space.knows(body))
                {
                    return Err(Malformed("the incarnation of an object is unknown"));
                }
                if let Some(body) = &entry.body {
                    self.space.occupy(body);
                }
                self.count(version, &entry);
                self.versions.insert(version, Box::new(entry));
            }
            3 => {
                let id = UploadId(take.array()?);
                let key: Arc<str> = take.text()?.into();
                let (created_ms, detail) = (take.i64()?, take.bytes()?.into());
                let names = self
                    .jobs
                    .get_mut(&job)
                    .ok_or(Malformed("job of an upload"))?;
                names.uploads.insert((Arc::clone(&key), id));
                let parts = BTreeMap::new();
                self.uploads.insert(
                    id,
                    Upload {
                        job,
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
                self.space.occupy(&part.body);
                upload.parts.insert(number, part);
            }
            5 => {
                let (version, upload, key) = (take.u64()?, take.string()?, take.text()?.into());
                self.abandoned.insert((version, upload), (job, key));
            }
            6 => {
                let (version, key) = (take.u64()?, take.text()?.into());
                self.deletions.insert(version, (job, key));
            }
            _ => return Err(Malformed("fact")),
        }
        Ok(())
    }
}

impl Entry {
    fn encode(&self, out: &mut Vec<u8>) {
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

    fn decode(job: JobNo, take: &mut Take<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            job,
            key: take.text()?.into(),
            size: take.u64()?,
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
