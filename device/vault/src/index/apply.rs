//! How each operation changes the index, or is refused.

use std::{collections::BTreeMap, sync::Arc};

use crc_fast::{CrcAlgorithm::Crc64Nvme, checksum_combine};

use super::{
    Content, Entry, Index, Outcome, Part, PartsContent, Position, Progress, Upload, etag,
    settle::deletion_weight, space::Incarnation,
};
use crate::{
    Checksums, Condition, Delivery, DeliveryEvent, Error, PartInfo, PartNumber, UploadId,
    codec::{decode_detail, encode_detail},
    keyring::JobNo,
    op::{Body, Extent, Op, Owner, Source, wire::MAX_SIZE},
    tree::combine,
};

impl Index {
    /// Applies one logged operation of job `job`.
    ///
    /// # Errors
    ///
    /// Why it changes nothing; then and at every replay.
    #[expect(clippy::too_many_lines, reason = "one arm per operation")]
    pub(crate) fn apply(&mut self, at: Position, job: JobNo, op: Op) -> Result<Outcome, Error> {
        match op {
            Op::Put {
                key,
                content,
                source,
                detail,
                condition,
                now,
            } => {
                let body = self.body(at, source)?;
                let entry = Entry {
                    job,
                    key: key.into(),
                    size: content.size,
                    modified_ms: now,
                    content: Content::Whole(content.blake3),
                    crc64nvme: content.crc64nvme,
                    detail: detail.into(),
                    body: Some(body),
                    progress: Progress::OnBox,
                };
                self.insert(at.lsn, entry, &condition)
            }
            Op::Delete { key, condition } => self.delete(job, &key, &condition),
            Op::CreateUpload {
                id,
                key,
                detail,
                now,
            } => {
                let (key, created_ms): (Arc<str>, _) = (key.into(), now);
                self.named(job)?.uploads.insert((Arc::clone(&key), id));
                let (detail, parts) = (detail.into(), BTreeMap::new());
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
                Ok(Outcome::Upload(id))
            }
            Op::PutPart {
                upload,
                number,
                content,
                tree,
                source,
                checksums,
                now,
            } => {
                let body = self.body(at, source)?;
                let detail = encode_detail(&crate::Metadata::default(), &checksums).into();
                let part = Part {
                    content,
                    tree,
                    modified_ms: now,
                    detail,
                    body,
                };
                self.put_part(upload, number, part)
            }
            Op::Complete {
                upload,
                parts,
                checksums,
                condition,
                now,
            } => self.complete(at.lsn, upload, &parts, &checksums, &condition, now),
            Op::Abort { upload } => match self.remove_upload(upload) {
                Some(_) => Ok(Outcome::Done),
                None => Err(Error::NoSuchUpload(upload.to_string())),
            },
            Op::Deliver { version, event } => self.deliver(version.0, event),
            Op::Hashed { version, blake3 } => self.hashed(version.0, blake3),
            Op::Forget { version, upload } => {
                self.abandoned.remove(&(version.0, upload));
                Ok(Outcome::Done)
            }
            Op::ForgetDeletion { version } => {
                if let Some(job) = self
                    .jobs
                    .values_mut()
                    .find(|j| j.deleted.contains(version.0))
                {
                    job.deleted.remove(version.0);
                    job.told.remove(&version.0);
                }
                Ok(Outcome::Done)
            }
            Op::Move { owner, from } => {
                self.move_extent(at, owner, from);
                Ok(Outcome::Done)
            }
            Op::Incarnate {
                segment,
                base,
                salt,
            } => {
                self.space.incarnate(
                    at.lsn,
                    Incarnation {
                        segment,
                        base,
                        salt,
                    },
                );
                Ok(Outcome::Done)
            }
        }
    }

    fn named(&mut self, job: JobNo) -> Result<&mut super::Job, Error> {
        self.jobs
            .get_mut(&job)
            .ok_or_else(|| Error::NoSuchJob(job.to_string()))
    }

    fn body(&self, at: Position, source: Source) -> Result<Body, Error> {
        let extents = match source {
            Source::Frames(extents) => extents,
            Source::Inline { len } => {
                vec![Extent::Log {
                    file: at.file,
                    offset: at.offset,
                    len,
                }]
            }
        };
        // A writer keeps its incarnation alive until its record is applied.
        if self.space.knows(&extents) {
            Ok(extents.into())
        } else {
            Err(Error::Closed)
        }
    }

    /// Makes `entry` the current version of its key.
    fn insert(
        &mut self,
        version: u64,
        entry: Entry,
        condition: &Condition,
    ) -> Result<Outcome, Error> {
        self.check(entry.job, &entry.key, condition)?;
        let no = entry.job;
        let job = self.named(no)?;
        let info = entry.info(&job.id, version);
        job.count(version, &entry);
        job.weight += entry.weight();
        let replaced = job.names.insert(Arc::clone(&entry.key), version);
        let body = entry.body.clone();
        job.versions.insert(version, Box::new(entry));
        if let Some(body) = body {
            self.space.occupy(no, &body);
        }
        if let Some(old) = replaced {
            self.remove_version(no, old);
        }
        Ok(Outcome::Object(Box::new(info)))
    }

    fn delete(&mut self, no: JobNo, key: &str, condition: &Condition) -> Result<Outcome, Error> {
        self.check(no, key, condition)?;
        let Some(version) = self.named(no)?.names.remove(key) else {
            return Ok(Outcome::Deleted(false));
        };
        if let Some(key) = self.remove_version(no, version) {
            let job = self.named(no)?;
            job.weight += deletion_weight(&key);
            job.deleted.insert(version);
            job.told.insert(version, key);
        }
        Ok(Outcome::Deleted(true))
    }

    fn check(&self, job: JobNo, key: &str, condition: &Condition) -> Result<(), Error> {
        let job = self
            .jobs
            .get(&job)
            .ok_or_else(|| Error::NoSuchJob(job.to_string()))?;
        let version = job.names.get(key).copied();
        let current = version.and_then(|version| job.versions.get(&version));
        let holds = match condition {
            Condition::Any => true,
            Condition::Absent => current.is_none(),
            Condition::Present => current.is_some(),
            Condition::Etag(etag) => current.is_some_and(|entry| entry.etag() == *etag),
            Condition::Version(wanted) => version == Some(wanted.0),
        };
        if holds {
            Ok(())
        } else {
            Err(Error::PreconditionFailed(key.to_owned()))
        }
    }

    fn put_part(&mut self, id: UploadId, number: u16, part: Part) -> Result<Outcome, Error> {
        let upload = self
            .uploads
            .get_mut(&id)
            .ok_or_else(|| Error::NoSuchUpload(id.to_string()))?;
        let info = part
            .info(number)
            .ok_or_else(|| Error::NoSuchUpload(id.to_string()))?;
        self.space.occupy(upload.job, &part.body);
        if let Some(old) = upload.parts.insert(number, part) {
            self.space.retire(upload.job, old.body);
        }
        Ok(Outcome::Part(Box::new(info)))
    }

    fn complete(
        &mut self,
        version: u64,
        id: UploadId,
        wanted: &[(u16, String)],
        checksums: &Checksums,
        condition: &Condition,
        now: i64,
    ) -> Result<Outcome, Error> {
        let upload = self
            .uploads
            .get(&id)
            .ok_or_else(|| Error::NoSuchUpload(id.to_string()))?;
        let entry = upload.assemble(wanted, checksums, now)?;
        let outcome = self.insert(version, entry, condition)?;
        self.remove_upload(id);
        Ok(outcome)
    }

    /// The job and the entry of a version.
    fn entry_mut(&mut self, version: u64) -> Option<(&mut super::Job, JobNo)> {
        let mut jobs = self.jobs.iter_mut();
        let found = jobs.find(|(_, job)| job.versions.contains_key(&version));
        found.map(|(no, job)| (job, *no))
    }

    fn deliver(&mut self, version: u64, event: DeliveryEvent) -> Result<Outcome, Error> {
        let absent = || Error::NoSuchVersion(version);
        let (job, no) = self.entry_mut(version).ok_or_else(absent)?;
        let mut entry = job.versions.remove(&version).ok_or_else(absent)?;
        job.uncount(version, &entry);
        let released = event == DeliveryEvent::Released;
        let delivered = event == DeliveryEvent::Delivered;
        let mut delivery = std::mem::replace(&mut entry.progress, Progress::OnBox).into_delivery();
        let open = match &delivery {
            Delivery::InFlight { upload, .. } if !delivered => Some(upload.clone()),
            _ => None,
        };
        let stepped = delivery.step(event);
        let ended = !matches!(delivery, Delivery::InFlight { .. });
        entry.progress = delivery.into();
        let (mut abandoned, mut freed) = (None, None);
        if stepped.is_ok() {
            abandoned = open
                .filter(|_| ended)
                .map(|upload| (upload, Arc::clone(&entry.key)));
            freed = entry.body.take_if(|_| released);
        }
        job.count(version, &entry);
        // Each part of an upload makes its entry longer.
        job.weight += 96;
        job.versions.insert(version, entry);
        if let Some((upload, key)) = abandoned {
            self.abandoned.insert((version, upload), (no, key));
        }
        if let Some(body) = freed {
            self.space.retire(no, body);
        }
        stepped?;
        Ok(Outcome::Done)
    }

    fn hashed(&mut self, version: u64, blake3: [u8; 32]) -> Result<Outcome, Error> {
        let found = self.entry_mut(version);
        let entry = found.and_then(|(job, _)| job.versions.get_mut(&version));
        let entry = entry.ok_or(Error::NoSuchVersion(version))?;
        if let Content::Parts(parts) = &mut entry.content {
            parts.whole = Some(blake3);
        }
        Ok(Outcome::Done)
    }

    /// Points the owner at the copy of `from` in this record; nothing to do if it is gone.
    fn move_extent(&mut self, at: Position, owner: Owner, from: Extent) {
        let mut jobs = self.jobs.iter_mut();
        let found = match owner {
            Owner::Object(version) => jobs.find_map(|(no, job)| {
                let entry = job.versions.get_mut(&version)?;
                entry.body.as_mut().map(|body| (*no, body))
            }),
            Owner::Part(id, number) => self.uploads.get_mut(&id).and_then(|upload| {
                let part = upload.parts.get_mut(&number)?;
                Some((upload.job, &mut part.body))
            }),
        };
        let (Some((job, body)), Extent::Log { len, .. }) = (found, from) else {
            return;
        };
        let to = Extent::Log {
            file: at.file,
            offset: at.offset,
            len,
        };
        if !body.contains(&from) {
            return;
        }
        let moved: Body = body
            .iter()
            .map(|e| if *e == from { to } else { *e })
            .collect();
        let old = std::mem::replace(body, Arc::clone(&moved));
        self.space.occupy(job, &moved);
        self.space.retire(job, old);
    }
}

/// Pieces of one object, at most: their list fits a record.
const MAX_EXTENTS: usize = 10 << 20;

impl Upload {
    /// The object that the named parts make.
    fn assemble(
        &self,
        wanted: &[(u16, String)],
        checksums: &Checksums,
        now: i64,
    ) -> Result<Entry, Error> {
        let mut hasher = blake3::Hasher::new();
        let (mut size, mut crc64nvme, mut extents) = (0_u64, 0, Vec::new());
        let mut last = 0;
        for (number, etag) in wanted {
            let invalid = || PartNumber::new(*number).map_or(Error::NoParts, Error::InvalidPart);
            let part = self.parts.get(number).ok_or_else(invalid)?;
            if *number <= last || part.etag() != *etag {
                return Err(invalid());
            }
            last = *number;
            hasher.update(&part.content.blake3);
            crc64nvme = if size == 0 {
                part.content.crc64nvme
            } else {
                let (crc, len) = (part.content.crc64nvme, part.content.size);
                checksum_combine(Crc64Nvme, crc64nvme, crc, len)
            };
            let sum = size.checked_add(part.content.size);
            // No disk holds it, and a checkpoint would not either.
            size = sum.filter(|sum| *sum <= MAX_SIZE).ok_or(Error::DiskFull)?;
            extents.extend_from_slice(&part.body);
        }
        if extents.len() > MAX_EXTENTS {
            // A checkpoint could not hold it.
            let (what, len) = ("the list of an object's pieces", extents.len());
            return Err(Error::TooLong {
                what,
                len,
                max: MAX_EXTENTS,
            });
        }
        let count = u32::try_from(wanted.len()).ok().filter(|count| *count > 0);
        let count = count.ok_or(Error::NoParts)?;
        let chosen = wanted
            .iter()
            .filter_map(|(number, _)| self.parts.get(number));
        let whole = combine(chosen.map(|p| (&p.tree, p.content.size, p.content.blake3)));
        let (metadata, _) = decode_detail(&self.detail).unwrap_or_default();
        Ok(Entry {
            job: self.job,
            key: Arc::clone(&self.key),
            size,
            modified_ms: now,
            content: Content::Parts(Box::new(PartsContent {
                hash: *hasher.finalize().as_bytes(),
                count,
                whole,
            })),
            crc64nvme,
            detail: encode_detail(&metadata, checksums).into(),
            body: Some(extents.into()),
            progress: Progress::OnBox,
        })
    }
}

impl Part {
    fn etag(&self) -> String {
        etag(&self.content.blake3, 1)
    }

    /// `None` if there is no part of that number.
    pub(super) fn info(&self, number: u16) -> Option<PartInfo> {
        let (_, checksums) = decode_detail(&self.detail).unwrap_or_default();
        Some(PartInfo {
            number: PartNumber::new(number)?,
            etag: self.etag(),
            digests: self.content,
            last_modified_ms: self.modified_ms,
            checksums,
        })
    }
}
