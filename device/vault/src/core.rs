//! What every handle, writer, reader and thread of one vault shares.

use std::{
    any::Any,
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::{
    Clock, Commit, Damage, Error, JobId, PartNumber, UploadId, VaultConfig,
    commit::Reply,
    config::{BLOCK, Geometry},
    crypto::{Secret, random},
    disk::Disk,
    index::{Index, Outcome},
    keyring::{JobNo, Keyring, Rekey, VAULT},
    log::files::LogFiles,
    op::Op,
    runs::{
        RunFiles,
        merge::{MergeError, Merged},
    },
    segments::{OpenSegment, Run, Segments},
    tree::LEAF,
};

/// New objects are told to slow down from here on.
pub(crate) const SLOW_DOWN_PERCENT: u64 = 90;
/// New bytes are refused from here on; the rest is for records and for sealing what is open.
pub(crate) const FULL_PERCENT: u64 = 95;

/// Uploads whose part length is remembered before those that have ended are forgotten.
const MAX_PART_LENS: usize = 1024;

/// What every handle, writer, reader and thread of one vault shares.
pub(crate) struct Core {
    pub(crate) config: VaultConfig,
    pub(crate) geometry: Geometry,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Clock,
    pub(crate) keyring: RwLock<Keyring>,
    pub(crate) index: RwLock<Index>,
    pub(crate) files: Arc<LogFiles>,
    pub(crate) runs: Arc<RunFiles>,
    /// Set when the vault is closed: nobody waits for work that can be done again.
    pub(crate) closing: Arc<AtomicBool>,
    pub(crate) segments: Segments,
    /// The longest part that was begun, per upload: what the place of the others is guessed from.
    pub(crate) part_lens: Mutex<BTreeMap<UploadId, u64>>,
    /// Bytes in use, as of the last batch: asked for with every object.
    pub(crate) used: AtomicU64,
    /// One incarnation is begun at a time.
    pub(crate) beginning: Mutex<()>,
    pub(crate) queues: RwLock<Option<Queues>>,
    /// Told of every stretch of stored bytes that was found damaged.
    pub(crate) witness: OnceLock<Witness>,
    /// Held until the last writer and reader are gone: nobody else may reuse their segments.
    pub(crate) _lock: Box<dyn Any + Send + Sync>,
}

/// Who is told of damage, on the thread that finds it.
pub(crate) type Witness = Box<dyn Fn(&Damage) + Send + Sync>;

/// The ways to the vault's threads; gone when it is closed.
pub(crate) struct Queues {
    /// For operations whose frames must be made durable first.
    pub(crate) sync: mpsc::Sender<Box<Submission>>,
    pub(crate) log: mpsc::Sender<Request>,
}

/// What the log thread is asked to do.
pub(crate) enum Request {
    Apply(Box<Submission>),
    AddJob(JobId, Reply<()>),
    EraseJob(JobId, Option<Rekey>, Reply<()>),
    Checkpoint(Reply<()>),
    /// Runs were merged into one, or not.
    Merged(JobNo, Result<Merged, MergeError>),
    /// Set space aside for the log again.
    Reserve(Reply<()>),
}

/// Takes an operation's outcome, and the number of its record.
pub(crate) type Answer = Box<dyn FnOnce(Result<(u64, Outcome), Error>) + Send>;

/// An operation on its way to the log.
pub(crate) struct Submission {
    pub(crate) job: JobNo,
    pub(crate) op: Op,
    pub(crate) inline: Bytes,
    /// Segments that hold its frames: synced before the record is written, not reused before it
    /// is applied.
    pub(crate) touched: Vec<Arc<OpenSegment>>,
    pub(crate) reply: Answer,
}

impl Core {
    /// The number of a job.
    pub(crate) fn job(&self, job: &JobId) -> Result<JobNo, Error> {
        let number = self.keyring.read().number(job);
        number.ok_or_else(|| Error::NoSuchJob(job.to_string()))
    }

    pub(crate) fn secret(&self, job: JobNo) -> Result<Secret, Error> {
        let keyring = self.keyring.read();
        keyring
            .secret(job)
            .cloned()
            .ok_or_else(|| Error::NoSuchJob(job.to_string()))
    }

    /// Sends an operation to the log; `then` makes the caller's result of its outcome.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        job: JobNo,
        op: Op,
        inline: Bytes,
        touched: Vec<Arc<OpenSegment>>,
        then: impl FnOnce(u64, Outcome) -> Option<T> + Send + 'static,
    ) -> Commit<T> {
        let (reply, commit) = Commit::pair();
        let reply = Box::new(move |result: Result<(u64, Outcome), Error>| {
            reply.send(result.and_then(|(lsn, outcome)| then(lsn, outcome).ok_or(Error::Closed)));
        });
        let submission = Box::new(Submission {
            job,
            op,
            inline,
            touched,
            reply,
        });
        // A queue that is gone drops the reply, which says that the vault is closed.
        if let Some(queues) = &*self.queues.read() {
            if submission.touched.is_empty() {
                let _ = queues.log.send(Request::Apply(submission));
            } else {
                let _ = queues.sync.send(submission);
            }
        }
        commit
    }

    /// An operation without bytes of its own.
    pub(crate) fn submit_plain<T: Send + 'static>(
        &self,
        job: JobNo,
        op: Op,
        then: impl FnOnce(Outcome) -> Option<T> + Send + 'static,
    ) -> Commit<T> {
        self.submit(job, op, Bytes::new(), Vec::new(), |_, outcome| {
            then(outcome)
        })
    }

    /// Asks the log thread for something that is not an operation.
    pub(crate) fn request(&self, make: impl FnOnce(Reply<()>) -> Request) -> Result<(), Error> {
        let (reply, commit) = Commit::pair();
        if let Some(queues) = &*self.queues.read() {
            let _ = queues.log.send(make(reply));
        } else {
            drop(reply);
        }
        commit.wait()
    }

    /// Sums up anew what is in use.
    pub(crate) fn measure(&self) {
        let segments = self.segments.usage(&self.index.read().space);
        self.used
            .store(segments.used_bytes + self.log_bytes(), Ordering::Relaxed);
    }

    /// Bytes on disk of everything but segments: log files, checkpoint, runs.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.files.total_bytes() + self.runs.total_bytes()
    }

    /// Keeps the files within the capacity when the log has grown at the cost of segments.
    pub(crate) fn trim(&self) -> std::io::Result<()> {
        let space = &self.index.read().space;
        let files = self.segments.usage(space).files * self.geometry.segment;
        let over = (files + self.log_bytes()).saturating_sub(self.config.capacity_bytes);
        if over > 0 {
            self.segments.trim(space, over)
        } else {
            Ok(())
        }
    }

    /// So much of the capacity, in bytes.
    pub(crate) fn share(&self, percent: u64) -> u64 {
        let share = u128::from(self.config.capacity_bytes) * u128::from(percent) / 100;
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    /// Is this much of the capacity in use?
    pub(crate) fn above(&self, percent: u64) -> bool {
        let mark = self.share(percent);
        let exceeds = || self.used.load(Ordering::Relaxed) >= mark;
        if !exceeds() {
            return false;
        }
        // The sum is from the last commit. What a writer took that gave up since is free again, and
        // while everybody is refused there is no commit to notice it.
        self.measure();
        exceeds()
    }

    /// May a new object be begun?
    pub(crate) fn admit(&self) -> Result<(), Error> {
        if !self.files.is_reserved() {
            // What space there is belongs to the records of deletions and deliveries.
            self.request(Request::Reserve)?;
        }
        if self.above(FULL_PERCENT) {
            return Err(Error::DiskFull);
        }
        if self.above(SLOW_DOWN_PERCENT) {
            return Err(Error::SlowDown);
        }
        Ok(())
    }

    /// Where a part probably begins in its object: all parts but the last have the same length,
    /// and the last one is not longer.
    pub(crate) fn guess_base(&self, upload: UploadId, number: PartNumber, len: u64) -> u64 {
        let longest = {
            let index = self.index.read();
            let mut lens = self.part_lens.lock();
            if lens.len() > MAX_PART_LENS {
                lens.retain(|id, _| index.upload(*id).is_ok());
            }
            let begun = lens.entry(upload).or_default();
            *begun = len.max(*begun);
            index.longest_part(upload, number).max(*begun)
        };
        let base = longest.saturating_mul(u64::from(number.get()) - 1);
        // A wrong guess costs a reading of the object, when somebody asks for its hash.
        if base.is_multiple_of(LEAF) && base < 1 << 60 {
            base
        } else {
            0
        }
    }

    /// Between `min` and `want` bytes of a segment that nobody else writes to.
    pub(crate) fn reserve(&self, min: u64, want: u64) -> Result<Run, Error> {
        loop {
            if let Some(run) = self.segments.take(min, want) {
                return Ok(run);
            }
            let beginning = self.beginning.lock();
            // Another writer may have begun one meanwhile.
            if let Some(run) = self.segments.take(min, want) {
                return Ok(run);
            }
            self.begin_incarnation()?;
            drop(beginning);
        }
    }

    /// Looks for dead space between live bytes, in some segments; false when all were looked at.
    /// Nobody begins an incarnation meanwhile.
    fn look_for_holes(&self) -> bool {
        let segments = self.segments.to_look_at(&self.index.read().space);
        if segments.is_empty() {
            return false;
        }
        if let Some(live) = self.places_in(&segments) {
            self.segments.note_holes(&segments, &live);
        }
        true
    }

    /// Opens a segment, or the rest of one, under a fresh key; recorded before it is used.
    fn begin_incarnation(&self) -> Result<(), Error> {
        if self.above(FULL_PERCENT) {
            return Err(Error::DiskFull);
        }
        let grown = self.segments.usage(&self.index.read().space).files + 1;
        let wanted = grown * self.geometry.segment + self.log_bytes();
        let may_grow = wanted <= self.config.capacity_bytes;
        let failed = |source| Error::io("begin a segment", source);
        let (site, segment) = loop {
            let site = self.segments.site(&mut self.index.write(), may_grow);
            if let Some(site) = site.map_err(failed)? {
                break site;
            }
            if !self.look_for_holes() {
                return Err(Error::DiskFull);
            }
        };
        let base = u32::try_from(site.base / BLOCK).map_err(|_| Error::DiskFull)?;
        let salt = random();
        let op = Op::Incarnate {
            segment: site.segment,
            base,
            salt,
        };
        let pin = vec![Arc::clone(&segment)];
        let id = self
            .submit(VAULT, op, Bytes::new(), pin, |lsn, _| Some(lsn))
            .wait()?;
        self.segments.begin(&site, segment, id, salt);
        Ok(())
    }
}
