//! The handle that callers hold.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::{
    Abandoned, Checksums, Commit, Condition, DeliveryEvent, Digests, Error, JobId, Metadata,
    ObjectInfo, OpenError, Page, PartInfo, PartNumber, Pending, RecoveryReport, ScrubReport, Stats,
    UploadId, UploadInfo, VaultConfig, Version,
};

/// Says what time it is, in milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// A vault; clones are the same vault.
#[derive(Clone)]
pub struct Vault {}

/// An object being written. Dropping it before [`ObjectWriter::finish`] leaves no trace.
pub struct ObjectWriter {}

/// A part being written. Dropping it before [`PartWriter::finish`] leaves no trace.
pub struct PartWriter {}

/// The bytes of one version, verified frame by frame. Keeps them readable while it lives, also
/// when the object is overwritten or deleted meanwhile.
pub struct ObjectReader {}

impl Vault {
    /// Opens the vault in `config.dir`, or makes one, and says what recovery found.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing on the disk was changed then.
    pub fn open(
        config: VaultConfig,
        master_key: &Zeroizing<[u8; 32]>,
        clock: Clock,
    ) -> Result<(Self, RecoveryReport), OpenError> {
        todo!("{config:?} {} {}", master_key.len(), clock())
    }

    /// The jobs that have a key.
    pub fn jobs(&self) -> Vec<JobId> {
        todo!()
    }

    /// Gives `job` a key, if it has none yet. Blocks for the disk.
    pub fn create_job(&self, job: &JobId) -> Result<(), Error> {
        todo!("{job}")
    }

    /// Destroys the key of `job`: what it stored is noise from then on. Blocks for the disk.
    pub fn erase_job(&self, job: &JobId) -> Result<(), Error> {
        todo!("{job}")
    }

    /// Begins an object.
    pub fn begin(&self, job: &JobId, key: &str, metadata: Metadata) -> Result<ObjectWriter, Error> {
        todo!("{job} {key} {metadata:?}")
    }

    /// The current version of an object, without its bytes.
    pub fn head(&self, job: &JobId, key: &str) -> Result<ObjectInfo, Error> {
        todo!("{job} {key}")
    }

    /// Reads the current version of an object; all of it, or the bytes of `range` (its end is
    /// clamped to the object's).
    pub fn get(
        &self,
        job: &JobId,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<ObjectReader, Error> {
        todo!("{job} {key} {range:?}")
    }

    /// Reads exactly this version, for the uplink: an object that was overwritten meanwhile is
    /// [`Error::NoSuchVersion`], never other bytes.
    pub fn get_version(
        &self,
        version: Version,
        range: Option<Range<u64>>,
    ) -> Result<ObjectReader, Error> {
        todo!("{version} {range:?}")
    }

    /// Exactly this version, without its bytes.
    pub fn head_version(&self, version: Version) -> Result<ObjectInfo, Error> {
        todo!("{version}")
    }

    /// Deletes an object; true if there was one.
    pub fn delete(&self, job: &JobId, key: &str, condition: Condition) -> Commit<bool> {
        todo!("{job} {key} {condition:?}")
    }

    /// At most `limit` objects whose keys begin with `prefix` and sort behind `start_after`.
    pub fn list(
        &self,
        job: &JobId,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Result<Page<ObjectInfo>, Error> {
        todo!("{job} {prefix} {start_after:?} {limit}")
    }

    /// Creates a multipart upload. `checksums` is kept with it and given back, nothing more.
    pub fn create_upload(
        &self,
        job: &JobId,
        key: &str,
        metadata: Metadata,
        checksums: Checksums,
    ) -> Commit<UploadId> {
        todo!("{job} {key} {metadata:?} {checksums:?}")
    }

    /// One open upload.
    pub fn upload(&self, upload: &UploadId) -> Result<UploadInfo, Error> {
        todo!("{upload}")
    }

    /// At most `limit` open uploads of `job` whose keys begin with `prefix`, in order of key and
    /// identifier, behind `start_after`.
    pub fn uploads(
        &self,
        job: &JobId,
        prefix: &str,
        start_after: Option<(&str, Option<UploadId>)>,
        limit: usize,
    ) -> Result<Page<UploadInfo>, Error> {
        todo!("{job} {prefix} {start_after:?} {limit}")
    }

    /// Begins a part; when finished, it replaces an earlier one of the same number.
    pub fn begin_part(&self, upload: &UploadId, number: PartNumber) -> Result<PartWriter, Error> {
        todo!("{upload} {number}")
    }

    /// At most `limit` parts of an upload with numbers above `after`.
    pub fn parts(
        &self,
        upload: &UploadId,
        after: Option<PartNumber>,
        limit: usize,
    ) -> Result<Page<PartInfo>, Error> {
        todo!("{upload} {after:?} {limit}")
    }

    /// Makes the named parts, in this order, the new version of the object. No byte is copied.
    pub fn complete_upload(
        &self,
        upload: &UploadId,
        parts: Vec<(PartNumber, String)>,
        checksums: Checksums,
        condition: Condition,
    ) -> Commit<ObjectInfo> {
        todo!("{upload} {parts:?} {checksums:?} {condition:?}")
    }

    /// Forgets an upload and its parts.
    pub fn abort_upload(&self, upload: &UploadId) -> Commit<()> {
        todo!("{upload}")
    }

    /// At most `limit` versions that are still to be delivered, oldest first, behind `after`.
    pub fn pending(&self, after: Option<Version>, limit: usize) -> Vec<Pending> {
        todo!("{after:?} {limit}")
    }

    /// Records that something happened to a version on its way to the bucket.
    pub fn deliver(&self, version: Version, event: DeliveryEvent) -> Commit<()> {
        todo!("{version} {event:?}")
    }

    /// Uploads into the bucket whose version is gone; each until [`Vault::forget_abandoned`].
    pub fn abandoned(&self) -> Vec<Abandoned> {
        todo!()
    }

    /// The upload of this version was aborted in the bucket.
    pub fn forget_abandoned(&self, version: Version) -> Commit<()> {
        todo!("{version}")
    }

    /// How full the vault is and what it holds.
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// Reads and verifies everything. Blocks until done.
    pub fn scrub(&self) -> ScrubReport {
        todo!()
    }

    /// Writes a checkpoint and removes the log files that it replaces. Blocks for the disk.
    pub fn checkpoint(&self) -> Result<(), Error> {
        todo!()
    }

    /// Waits for what is under way and stops the vault's threads; later operations are
    /// [`Error::Closed`]. The last clone's drop does the same.
    pub fn close(&self) {
        todo!()
    }
}

impl ObjectWriter {
    /// Takes the next bytes: hashes, encrypts and writes them. Blocks for the disk now and then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        todo!("{}", bytes.len())
    }

    /// What was computed over the bytes so far; compare before [`ObjectWriter::finish`].
    pub fn digests(&self) -> Digests {
        todo!()
    }

    /// Makes the object current. The commit resolves when bytes and record are durable.
    pub fn finish(self, checksums: Checksums, condition: Condition) -> Commit<ObjectInfo> {
        todo!("{checksums:?} {condition:?}")
    }
}

impl PartWriter {
    /// Takes the next bytes: hashes, encrypts and writes them. Blocks for the disk now and then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        todo!("{}", bytes.len())
    }

    /// What was computed over the bytes so far; compare before [`PartWriter::finish`].
    pub fn digests(&self) -> Digests {
        todo!()
    }

    /// Puts the part in its upload. The commit resolves when bytes and record are durable.
    pub fn finish(self, checksums: Checksums) -> Commit<PartInfo> {
        todo!("{checksums:?}")
    }
}

impl ObjectReader {
    /// The version being read.
    pub fn info(&self) -> &ObjectInfo {
        todo!()
    }

    /// Bytes that are still to come.
    pub fn remaining(&self) -> u64 {
        todo!()
    }

    /// The next bytes, verified; `None` at the end. Blocks for the disk.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        todo!()
    }
}
