//! The handle that callers hold.

mod deliver;
mod multipart;

use std::{
    ops::Range,
    path::Path,
    sync::{Arc, atomic::Ordering},
    thread,
};

use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::{
    Checksums, Commit, Condition, Damage, Error, JobId, Metadata, ObjectInfo, ObjectReader,
    ObjectWriter, OpenError, Page, RecoveryReport, Rekey, ScrubReport, Stats, VaultConfig, Version,
    codec::encode_detail,
    core::{Core, FULL_PERCENT, Request, SLOW_DOWN_PERCENT},
    disk::{Disk, RealDisk},
    index::Outcome,
    keyring::{self, JobNo},
    op::Op,
    open,
    reader::{BodyReader, clamp},
    scrub,
    writer::{Sink, check_detail},
};

/// Says what time it is, in milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// A vault; clones are the same vault.
///
/// Its directory stays locked until the last clone, writer and reader are gone.
#[derive(Clone)]
pub struct Vault {
    handle: Arc<Handle>,
}

struct Handle {
    core: Arc<Core>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

/// Longest key, in bytes: what S3 allows, and a bucket's name before it.
const MAX_KEY: usize = 1024 + 64;

impl Vault {
    /// Opens the vault in `config.dir`, or makes one, and says what recovery found.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing that counts was changed then.
    pub fn open(
        config: VaultConfig,
        master_key: &Zeroizing<[u8; 32]>,
        clock: Clock,
    ) -> Result<(Self, RecoveryReport), OpenError> {
        Self::open_on(Arc::new(RealDisk::default()), config, master_key, clock)
    }

    /// True if there is a vault in `dir`, whichever key opens it.
    pub fn is_in(dir: &Path) -> bool {
        keyring::is_in(dir)
    }

    /// Like [`Vault::open`], on another disk than the real one.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing that counts was changed then.
    #[expect(clippy::needless_pass_by_value, reason = "like in `open`")]
    pub fn open_on(
        disk: Arc<dyn Disk>,
        config: VaultConfig,
        master_key: &Zeroizing<[u8; 32]>,
        clock: Clock,
    ) -> Result<(Self, RecoveryReport), OpenError> {
        let ((core, threads), report) = open::open(disk, &config, master_key, clock)?;
        let handle = Handle {
            core,
            threads: Mutex::new(threads),
        };
        Ok((
            Self {
                handle: Arc::new(handle),
            },
            report,
        ))
    }

    /// The jobs that have a key.
    pub fn jobs(&self) -> Vec<JobId> {
        self.core()
            .keyring
            .read()
            .jobs()
            .map(|(_, job)| job.clone())
            .collect()
    }

    /// Gives `job` a key, if it has none yet. Blocks for the disk.
    pub fn create_job(&self, job: &JobId) -> Result<(), Error> {
        self.core()
            .request(|reply| Request::AddJob(job.clone(), reply))
    }

    /// Destroys the key of `job`: what it stored is noise from then on. Blocks for the disk.
    ///
    /// The key is overwritten where it lies; what a flash drive may keep of it in its spare blocks
    /// still opens under the vault's key. [`Vault::erase_job_and_rekey`] can end that, too.
    pub fn erase_job(&self, job: &JobId) -> Result<(), Error> {
        self.core()
            .request(|reply| Request::EraseJob(job.clone(), None, reply))
    }

    /// Like [`Vault::erase_job`], and changes the vault's key: whoever destroys the old one then
    /// has made every copy of the erased job's key worthless.
    ///
    /// Where there is no such job nothing happens, and the key is not kept. After an error from
    /// the disk either key may be the one that opens the vault next time: [`OpenError::WrongKey`]
    /// says that it is the other one. Blocks for the disk and for [`Rekey::keep`].
    pub fn erase_job_and_rekey(&self, job: &JobId, rekey: Rekey) -> Result<(), Error> {
        self.core()
            .request(|reply| Request::EraseJob(job.clone(), Some(rekey), reply))
    }

    /// Has `tell` called with every stretch of stored bytes that is found damaged, each time it is
    /// found, on the thread that reads it: it must not wait. The first one who asks is told.
    pub fn on_damage(&self, tell: impl Fn(&Damage) + Send + Sync + 'static) {
        // A second witness would hear of the same things.
        let _ = self.core().witness.set(Box::new(tell));
    }

    /// Begins an object.
    pub fn begin(&self, job: &JobId, key: &str, metadata: Metadata) -> Result<ObjectWriter, Error> {
        check_key(key)?;
        check_detail(&encode_detail(&metadata, &Checksums::new()))?;
        let sink = Sink::new(Arc::clone(self.core()), self.core().job(job)?, None)?;
        Ok(ObjectWriter::new(sink, key.to_owned(), metadata))
    }

    /// The current version of an object, without its bytes.
    pub fn head(&self, job: &JobId, key: &str) -> Result<ObjectInfo, Error> {
        let core = self.core();
        core.with_current(core.job(job)?, key, |version| core.info(version, key))
    }

    /// Reads the current version of an object; all of it, or the bytes of `range` (its end is
    /// clamped to the object's).
    pub fn get(
        &self,
        job: &JobId,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<ObjectReader, Error> {
        let core = self.core();
        let opened = core.with_current(core.job(job)?, key, |version| core.open(version, key))?;
        self.reader(opened, range)
    }

    /// Reads exactly this version, for the uplink: an object that was overwritten meanwhile is
    /// [`Error::NoSuchVersion`], never other bytes.
    pub fn get_version(
        &self,
        version: Version,
        range: Option<Range<u64>>,
    ) -> Result<ObjectReader, Error> {
        let opened = self.core().open(version, "")?;
        self.reader(opened, range)
    }

    /// Exactly this version, without its bytes.
    pub fn head_version(&self, version: Version) -> Result<ObjectInfo, Error> {
        self.core().info(version, "")
    }

    /// BLAKE3 of this version's bytes. Where [`ObjectInfo::blake3`] has none yet, reads them,
    /// blocking, and remembers it.
    pub fn blake3(&self, version: Version) -> Result<[u8; 32], Error> {
        if let Some(hash) = self.core().blake3(version)? {
            return Ok(hash);
        }
        let mut reader = self.get_version(version, None)?;
        let mut hasher = blake3::Hasher::new();
        while let Some(chunk) = reader.next_chunk()? {
            hasher.update(&chunk);
        }
        let blake3 = *hasher.finalize().as_bytes();
        let job = self.core().index.read().job_of(version)?;
        self.core()
            .submit_plain(job, Op::Hashed { version, blake3 }, |_| Some(()))
            .wait()?;
        Ok(blake3)
    }

    /// Deletes an object; true if there was one.
    pub fn delete(&self, job: &JobId, key: &str, condition: Condition) -> Commit<bool> {
        let number = match self
            .core()
            .job(job)
            .and_then(|no| check_key(key).map(|()| no))
        {
            Ok(number) => number,
            Err(error) => return Commit::ready(Err(error)),
        };
        let op = Op::Delete {
            key: key.to_owned(),
            condition,
        };
        self.core()
            .submit_plain(number, op, |outcome| match outcome {
                Outcome::Deleted(existed) => Some(existed),
                _ => None,
            })
    }

    /// At most `limit` objects whose keys begin with `prefix` and sort behind `start_after`.
    pub fn list(
        &self,
        job: &JobId,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Result<Page<ObjectInfo>, Error> {
        let number = self.core().job(job)?;
        self.core().list(number, prefix, start_after, limit)
    }

    /// Bytes of the longest object that this vault could ever take.
    pub fn largest_object(&self) -> u64 {
        self.core().share(FULL_PERCENT)
    }

    /// Bytes that the parts of one upload can have before it is told to slow down for ever, though
    /// nothing else is here: what its own log leaves of the capacity, and the segments that are open.
    pub fn largest_upload(&self) -> u64 {
        let core = self.core();
        let taken = core.log_bytes() + 2 * core.geometry.segment;
        core.share(SLOW_DOWN_PERCENT).saturating_sub(taken)
    }

    /// How full the vault is and what it holds.
    pub fn stats(&self) -> Stats {
        let core = self.core();
        let index = core.index.read();
        let segments = core.segments.usage(&index.space);
        let (counts, sums, log_bytes) = (index.counts(), index.sums(), core.log_bytes());
        let used_bytes = segments.used_bytes + log_bytes;
        Stats {
            capacity_bytes: core.config.capacity_bytes,
            used_bytes,
            free_bytes: core.config.capacity_bytes.saturating_sub(used_bytes),
            objects: counts.objects,
            object_bytes: sums.object_bytes,
            uploads: counts.uploads,
            segments: segments.files,
            free_segments: segments.free,
            log_bytes,
            pending: counts.pending,
            pending_bytes: sums.pending_bytes,
            failed: sums.failed,
        }
    }

    /// Reads and verifies everything. Blocks until done.
    pub fn scrub(&self) -> ScrubReport {
        scrub::scrub(self.core())
    }

    /// Writes a checkpoint and removes the log files that it replaces. Blocks for the disk.
    pub fn checkpoint(&self) -> Result<(), Error> {
        self.core().request(Request::Checkpoint)
    }

    /// Waits for what is under way and stops the vault's threads; later operations are
    /// [`Error::Closed`]. The last clone's drop does the same.
    pub fn close(&self) {
        self.handle.close();
    }

    fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }

    fn reader(
        &self,
        (info, job, body): (ObjectInfo, JobNo, Option<crate::op::Body>),
        range: Option<Range<u64>>,
    ) -> Result<ObjectReader, Error> {
        let range = clamp(range, info.size)?;
        let body = body.ok_or_else(|| Error::Released(info.key.clone()))?;
        let name = (info.job.to_string(), info.key.clone(), info.version.0);
        let bytes = BodyReader::new(Arc::clone(self.core()), job, name, body, range);
        Ok(ObjectReader::new(info, bytes))
    }
}

impl Handle {
    fn close(&self) {
        self.core.closing.store(true, Ordering::Relaxed);
        // The threads end when they have done what was sent before.
        self.core.queues.write().take();
        for thread in self.threads.lock().drain(..) {
            // A result that drops the last handle does so on a thread of ours.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

fn check_key(key: &str) -> Result<(), Error> {
    if key.is_empty() {
        return Err(Error::EmptyKey);
    }
    check_len("an object key", key, MAX_KEY)
}

fn check_len(what: &'static str, text: &str, max: usize) -> Result<(), Error> {
    if text.len() > max {
        return Err(Error::TooLong {
            what,
            len: text.len(),
            max,
        });
    }
    Ok(())
}
