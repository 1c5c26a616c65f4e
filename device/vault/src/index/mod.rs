//! What the log adds up to: every object, upload and delivery, and where their bytes are.
//!
//! Pure: no disk, no clock, no randomness. The same operations in the same order give the same
//! index, whether they are applied as they happen or replayed.
//!
//! Which versions live is in memory. What they are is here only as far as it was touched lately;
//! the rest lies in [`crate::runs`], which are read before an operation is applied, never by it:
//! whoever applies one calls [`Index::seek`] first and [`Index::promote`]s what that names.

mod apply;
pub(crate) mod fact;
mod query;
pub(crate) mod settle;
pub(crate) mod space;
mod versions;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use crate::tree::PartTree;
use crate::{
    Delivery, Digests, JobId, ObjectInfo, PartInfo, UploadId, Version,
    config::Geometry,
    keyring::JobNo,
    op::{Body, Extent},
    runs::{Claim, Runs},
};
pub(crate) use settle::{Living, Sought, Stored};
use space::Space;
use versions::VersionSet;

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
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
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

#[derive(Default)]
struct Job {
    id: JobId,
    /// Versions that are somebody's current one.
    live: VersionSet,
    /// Versions that their owner deleted, until somebody else remembers that.
    deleted: VersionSet,
    /// Live versions that are still to be delivered.
    pending: VersionSet,
    /// Live versions that the cloud has verified and whose bytes are still here.
    releasable: VersionSet,
    sums: Sums,
    /// Its sums, sets and shares of the space came from a checkpoint, whole.
    summed: bool,
    /// Of live versions that were touched since the last flush.
    names: BTreeMap<Arc<str>, u64>,
    /// The same versions. Boxed: versions only ever grow, which leaves the nodes of the tree half
    /// empty.
    versions: BTreeMap<u64, Box<Entry>>,
    /// Names of deleted versions, as far as they were deleted since the last flush.
    told: BTreeMap<u64, Arc<str>>,
    uploads: BTreeSet<(Arc<str>, UploadId)>,
    /// About how many bytes of memory names, versions and deletions take.
    weight: u64,
    /// The runs that a checkpoint named and nobody has opened yet, newest first.
    claims: Vec<Claim>,
    runs: Runs,
}

/// Sums that are kept rather than counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Sums {
    pub(crate) object_bytes: u64,
    pub(crate) pending_bytes: u64,
    pub(crate) failed: u64,
}

/// Everything that the log adds up to.
pub(crate) struct Index {
    pub(crate) space: Space,
    jobs: BTreeMap<JobNo, Job>,
    uploads: BTreeMap<UploadId, Upload>,
    /// Uploads into the bucket that nobody needs any more, by version and name.
    abandoned: BTreeMap<(u64, String), (JobNo, Arc<str>)>,
    /// Bodies of versions that lie in runs, while somebody reads them: their space is not free
    /// before that ends, whoever deletes them.
    reading: Mutex<Reading>,
}

type Reading = BTreeMap<u64, (JobNo, Weak<[Extent]>)>;

impl Index {
    pub(crate) fn new(geometry: Geometry) -> Self {
        Self {
            space: Space::new(geometry),
            jobs: BTreeMap::new(),
            uploads: BTreeMap::new(),
            abandoned: BTreeMap::new(),
            reading: Mutex::default(),
        }
    }

    /// Makes room for a job; its records are refused before.
    pub(crate) fn add_job(&mut self, no: JobNo, id: &JobId) {
        self.jobs.entry(no).or_insert_with(|| Job {
            id: id.clone(),
            ..Job::default()
        });
    }

    /// Forgets everything about a job whose key is gone, and says which runs it had.
    pub(crate) fn remove_job(&mut self, no: JobNo) -> Vec<Claim> {
        let Some(mut job) = self.jobs.remove(&no) else {
            return Vec::new();
        };
        for (_, id) in std::mem::take(&mut job.uploads) {
            self.remove_upload(id);
        }
        self.abandoned.retain(|_, (owner, _)| *owner != no);
        // Nothing of it counts; what is read just now keeps its place until that ends.
        let read = job.versions.values_mut().filter_map(|e| e.body.take());
        let mut read: Vec<Body> = read.filter(|body| Arc::strong_count(body) > 1).collect();
        for (version, (owner, body)) in self.reading.get_mut() {
            let touched = job.versions.contains_key(version);
            if *owner == no && job.live.contains(*version) && !touched {
                read.extend(body.upgrade());
            }
        }
        self.space.forget(no, read);
        job.runs.iter().map(|run| run.claim()).collect()
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            objects: self.jobs.values().map(|job| job.live.len()).sum(),
            uploads: self.uploads.len() as u64,
            pending: self.jobs.values().map(|job| job.pending.len()).sum(),
        }
    }

    pub(crate) fn sums(&self) -> Sums {
        let mut all = Sums::default();
        for job in self.jobs.values() {
            all.object_bytes = all.object_bytes.saturating_add(job.sums.object_bytes);
            all.pending_bytes = all.pending_bytes.saturating_add(job.sums.pending_bytes);
            all.failed = all.failed.saturating_add(job.sums.failed);
        }
        all
    }

    /// The job that a live version belongs to.
    fn job_with(&self, version: u64) -> Option<(JobNo, &Job)> {
        let mut jobs = self.jobs.iter();
        jobs.find(|(_, job)| job.live.contains(version))
            .map(|(no, job)| (*no, job))
    }

    /// Takes a version out of everything but its job's names.
    fn remove_version(&mut self, no: JobNo, version: u64) -> Option<Arc<str>> {
        let job = self.jobs.get_mut(&no)?;
        let entry = *job.versions.remove(&version)?;
        job.uncount(version, &entry);
        if let Delivery::InFlight { upload, .. } = entry.progress.into_delivery() {
            let owner = (no, Arc::clone(&entry.key));
            self.abandoned.insert((version, upload), owner);
        }
        if let Some(body) = entry.body {
            self.space.retire(no, body);
        }
        Some(entry.key)
    }

    fn remove_upload(&mut self, id: UploadId) -> Option<Upload> {
        let mut upload = self.uploads.remove(&id)?;
        for part in std::mem::take(&mut upload.parts).into_values() {
            self.space.retire(upload.job, part.body);
        }
        if let Some(job) = self.jobs.get_mut(&upload.job) {
            job.uploads.remove(&(Arc::clone(&upload.key), id));
        }
        Some(upload)
    }
}

impl Job {
    /// Counts a version that is there from now on.
    fn count(&mut self, version: u64, entry: &Entry) {
        self.live.insert(version);
        let sums = &mut self.sums;
        sums.object_bytes = sums.object_bytes.saturating_add(entry.size);
        if entry.progress.as_delivery().is_pending() {
            self.pending.insert(version);
            sums.pending_bytes = sums.pending_bytes.saturating_add(entry.size);
        }
        sums.failed = sums.failed.saturating_add(entry.has_failed().into());
        if entry.body.is_some() && *entry.progress.as_delivery() == Delivery::Verified {
            self.releasable.insert(version);
        }
    }

    fn uncount(&mut self, version: u64, entry: &Entry) {
        self.live.remove(version);
        self.releasable.remove(version);
        let sums = &mut self.sums;
        sums.object_bytes = sums.object_bytes.saturating_sub(entry.size);
        if self.pending.remove(version) {
            sums.pending_bytes = sums.pending_bytes.saturating_sub(entry.size);
        }
        sums.failed = sums.failed.saturating_sub(entry.has_failed().into());
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

/// What an entry takes in memory beside its texts and lists: about this much.
const ENTRY_OVERHEAD: usize = 256;

impl Entry {
    /// About how many bytes of memory it takes.
    fn weight(&self) -> u64 {
        let extents = self.body.as_ref().map_or(0, |body| body.len());
        let parts = match self.progress.as_delivery() {
            Delivery::InFlight { parts, .. } => parts.len(),
            _ => 0,
        };
        let lists = size_of::<Extent>() * extents + 96 * parts;
        (ENTRY_OVERHEAD + self.key.len() + self.detail.len() + lists) as u64
    }

    fn has_failed(&self) -> bool {
        matches!(self.progress.as_delivery(), Delivery::Failed { .. })
    }

    fn etag(&self) -> String {
        match &self.content {
            Content::Whole(hash) => etag(hash, 1),
            Content::Parts(parts) => etag(&parts.hash, parts.count),
        }
    }

    pub(crate) fn blake3(&self) -> Option<[u8; 32]> {
        match &self.content {
            Content::Whole(hash) => Some(*hash),
            Content::Parts(parts) => parts.whole,
        }
    }

    pub(crate) fn info(&self, job: &JobId, version: u64) -> ObjectInfo {
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
