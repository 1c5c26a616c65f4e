//! What the log adds up to: every object, upload and delivery, and where their bytes are.
//!
//! Pure: no disk, no clock, no randomness. The same operations in the same order give the same
//! index, whether they are applied as they happen or replayed.

mod apply;
pub(crate) mod fact;
mod query;
pub(crate) mod space;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::tree::PartTree;
use crate::{
    Delivery, Digests, JobId, ObjectInfo, PartInfo, UploadId, Version, config::Geometry,
    keyring::JobNo, op::Body,
};
use space::Space;

/// Where a record lies: the objects and incarnations it makes are called after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) lsn: u64,
    pub(crate) file: u32,
    pub(crate) offset: u32,
}

/// What came of an operation.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Object(Box<ObjectInfo>),
    Deleted(bool),
    Upload(UploadId),
    Part(Box<PartInfo>),
    Done,
}

/// What a version's bytes add up to.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// BLAKE3 of the bytes.
    Whole([u8; 32]),
    Parts(Box<PartsContent>),
}

/// What the parts of a version add up to.
#[derive(Clone, Debug)]
pub(crate) struct PartsContent {
    /// BLAKE3 of the parts' names.
    hash: [u8; 32],
    count: u32,
    /// BLAKE3 of the bytes, where the parts could be joined or somebody has read them.
    whole: Option<[u8; 32]>,
}

/// One current version.
#[derive(Debug)]
pub(crate) struct Entry {
    job: JobNo,
    key: Arc<str>,
    size: u64,
    modified_ms: i64,
    content: Content,
    crc64nvme: u64,
    detail: Box<[u8]>,
    /// `None` once it was released.
    body: Option<Body>,
    progress: Progress,
}

/// A [`Delivery`] in little memory: nearly all versions are in one of the plain states.
#[derive(Debug)]
enum Progress {
    OnBox,
    InCloud,
    Verified,
    Other(Box<Delivery>),
}

#[derive(Debug)]
struct Upload {
    job: JobNo,
    key: Arc<str>,
    created_ms: i64,
    detail: Box<[u8]>,
    parts: BTreeMap<u16, Part>,
}

#[derive(Debug)]
struct Part {
    content: Digests,
    tree: PartTree,
    modified_ms: i64,
    detail: Box<[u8]>,
    body: Body,
}

#[derive(Debug)]
struct Job {
    id: JobId,
    objects: BTreeMap<Arc<str>, u64>,
    uploads: BTreeSet<(Arc<str>, UploadId)>,
}

/// Sums that are kept rather than counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) object_bytes: u64,
    pub(crate) pending_bytes: u64,
    pub(crate) failed: u64,
}

/// Everything that the log adds up to.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) space: Space,
    pub(crate) sums: Sums,
    jobs: BTreeMap<JobNo, Job>,
    /// Boxed: versions only ever grow, which leaves the nodes of the tree half empty.
    versions: BTreeMap<u64, Box<Entry>>,
    uploads: BTreeMap<UploadId, Upload>,
    pending: BTreeSet<u64>,
    /// Uploads into the bucket that nobody needs any more, by version and name.
    abandoned: BTreeMap<(u64, String), (JobNo, Arc<str>)>,
    /// Versions that their owner deleted, until somebody else remembers that.
    deletions: BTreeMap<u64, (JobNo, Arc<str>)>,
}

impl Index {
    pub(crate) fn new(geometry: Geometry) -> Self {
        Self {
            space: Space::new(geometry),
            sums: Sums::default(),
            jobs: BTreeMap::new(),
            versions: BTreeMap::new(),
            uploads: BTreeMap::new(),
            pending: BTreeSet::new(),
            abandoned: BTreeMap::new(),
            deletions: BTreeMap::new(),
        }
    }

    /// Makes room for a job; its records are refused before.
    pub(crate) fn add_job(&mut self, no: JobNo, id: &JobId) {
        self.jobs.entry(no).or_insert_with(|| Job {
            id: id.clone(),
            objects: BTreeMap::new(),
            uploads: BTreeSet::new(),
        });
    }

    /// Forgets everything about a job whose key is gone.
    pub(crate) fn remove_job(&mut self, no: JobNo) {
        let Some(job) = self.jobs.remove(&no) else {
            return;
        };
        for version in job.objects.into_values() {
            self.remove_version(version);
        }
        for (_, id) in job.uploads {
            self.remove_upload(id);
        }
        self.abandoned.retain(|_, (owner, _)| *owner != no);
        self.deletions.retain(|_, (owner, _)| *owner != no);
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            objects: self.versions.len() as u64,
            uploads: self.uploads.len() as u64,
            pending: self.pending.len() as u64,
        }
    }

    /// Takes a version out of everything but its job's names.
    fn remove_version(&mut self, version: u64) {
        let Some(entry) = self.versions.remove(&version) else {
            return;
        };
        self.uncount(version, &entry);
        let entry = *entry;
        if let Delivery::InFlight { upload, .. } = entry.progress.into_delivery() {
            self.abandoned
                .insert((version, upload), (entry.job, entry.key));
        }
        if let Some(body) = entry.body {
            self.space.retire(body);
        }
    }

    fn remove_upload(&mut self, id: UploadId) -> Option<Upload> {
        let mut upload = self.uploads.remove(&id)?;
        for part in std::mem::take(&mut upload.parts).into_values() {
            self.space.retire(part.body);
        }
        if let Some(job) = self.jobs.get_mut(&upload.job) {
            job.uploads.remove(&(Arc::clone(&upload.key), id));
        }
        Some(upload)
    }

    fn count(&mut self, version: u64, entry: &Entry) {
        self.sums.object_bytes += entry.size;
        if entry.progress.as_delivery().is_pending() {
            self.pending.insert(version);
            self.sums.pending_bytes += entry.size;
        }
        self.sums.failed += u64::from(entry.has_failed());
    }

    fn uncount(&mut self, version: u64, entry: &Entry) {
        self.sums.object_bytes -= entry.size;
        if self.pending.remove(&version) {
            self.sums.pending_bytes -= entry.size;
        }
        self.sums.failed -= u64::from(entry.has_failed());
    }
}

/// How much there is of what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) objects: u64,
    pub(crate) uploads: u64,
    pub(crate) pending: u64,
}

/// The `ETag`: half a BLAKE3 and the number of parts, which no client takes for an MD5.
pub(crate) fn etag(hash: &[u8; 32], parts: u32) -> String {
    use std::fmt::Write;

    let mut text = String::with_capacity(40);
    for nibble in hash[..16].iter().flat_map(|byte| [byte >> 4, byte & 15]) {
        text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
    }
    // Writing to a string does not fail.
    let _ = write!(text, "-{parts}");
    text
}

impl Progress {
    fn as_delivery(&self) -> &Delivery {
        match self {
            Self::OnBox => &Delivery::OnBox,
            Self::InCloud => &Delivery::InCloud,
            Self::Verified => &Delivery::Verified,
            Self::Other(delivery) => delivery,
        }
    }

    fn into_delivery(self) -> Delivery {
        match self {
            Self::OnBox => Delivery::OnBox,
            Self::InCloud => Delivery::InCloud,
            Self::Verified => Delivery::Verified,
            Self::Other(delivery) => *delivery,
        }
    }
}

impl From<Delivery> for Progress {
    fn from(delivery: Delivery) -> Self {
        match delivery {
            Delivery::OnBox => Self::OnBox,
            Delivery::InCloud => Self::InCloud,
            Delivery::Verified => Self::Verified,
            other => Self::Other(Box::new(other)),
        }
    }
}

impl Entry {
    fn has_failed(&self) -> bool {
        matches!(self.progress.as_delivery(), Delivery::Failed { .. })
    }

    fn etag(&self) -> String {
        match &self.content {
            Content::Whole(hash) => etag(hash, 1),
            Content::Parts(parts) => etag(&parts.hash, parts.count),
        }
    }

    fn blake3(&self) -> Option<[u8; 32]> {
        match &self.content {
            Content::Whole(hash) => Some(*hash),
            Content::Parts(parts) => parts.whole,
        }
    }

    fn info(&self, job: &JobId, version: u64) -> ObjectInfo {
        let (metadata, checksums) = crate::codec::decode_detail(&self.detail).unwrap_or_default();
        let blake3 = self.blake3();
        let parts = match &self.content {
            Content::Whole(_) => 0,
            Content::Parts(parts) => parts.count,
        };
        ObjectInfo {
            job: job.clone(),
            key: self.key.to_string(),
            version: Version(version),
            size: self.size,
            last_modified_ms: self.modified_ms,
            etag: self.etag(),
            blake3,
            crc64nvme: self.crc64nvme,
            parts,
            metadata,
            checksums,
            delivery: self.progress.as_delivery().clone(),
            resident: self.body.is_some(),
        }
    }
}
