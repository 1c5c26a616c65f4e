//! A push: every file of a plan is read once, sent, acknowledged and remembered.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use longhaul_protocol::ids::ObjectKey;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;

use crate::advice;
use crate::client::BoxClient;
use crate::journal::{Done, Journal};
use crate::list::confirm;
use crate::multipart;
use crate::pack::{self, Told};
use crate::plan::{self, Plan, PlanError, Planned};
use crate::progress::Progress;
use crate::report::{FailedFile, FileReport, Outcome, PushReport};
use crate::retry::{Patience, S3Error};
use crate::source::{Buffers, Stamp};
use crate::{small, state_dir};

/// How often a file is begun before it counts as failed.
const ATTEMPTS: usize = 3;
/// Bytes of files in memory at the most, in KiB.
const MEMORY_KIB: u32 = 160 * 1024;
/// Large files at once, so that one's last part does not leave the wire idle.
const LARGE_AT_ONCE: usize = 2;

/// Answers about packed files that wait to be taken down.
const PACKED_AHEAD: usize = 1024;

/// How to push.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// Folder in the bucket; empty for its root.
    pub prefix: String,
    /// Small files at once.
    pub files_at_once: usize,
    /// Parts of one large file at once.
    pub parts_at_once: usize,
    /// Files longer than this, in bytes, are sent in parts of this size or more; S3 allows no less
    /// than 5 MiB.
    pub part_bytes: u64,
    /// How long to keep trying while the box does not answer.
    pub patience: Duration,
    /// Where to remember what was sent; `None` remembers nothing.
    pub state_dir: Option<PathBuf>,
}

impl Default for PushOptions {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            files_at_once: 16,
            parts_at_once: 4,
            part_bytes: 16 * 1024 * 1024,
            patience: Duration::from_mins(5),
            state_dir: state_dir(),
        }
    }
}

/// Why a push ended before it had tried every file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// A path that was asked for is not there.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// What the box answered would be its answer to every file.
    #[error("the push stopped at {key}: {source}")]
    Stopped {
        /// The object that failed.
        key: String,
        /// The answer.
        source: S3Error,
        /// What was achieved before.
        report: Box<PushReport>,
    },
}

/// Sends `paths` to the box, and returns when every file is safe on it or has failed.
///
/// Dropping the future stops the push; the next push of the same files continues it.
///
/// # Errors
///
/// [`PushError`]. A single file that fails is in the report, not an error.
pub async fn push(
    client: &BoxClient,
    paths: &[PathBuf],
    options: &PushOptions,
    progress: &Arc<Progress>,
) -> Result<PushReport, PushError> {
    let began = Instant::now();
    let plan = planned(paths.to_vec(), options.prefix.clone()).await?;
    let sender = Sender::new(client, options, progress).await;
    sender.expect(&plan.files);
    let known = confirm(&sender, &plan.files).await;
    sender.run(plan, known, began).await
}

pub(crate) async fn planned(paths: Vec<PathBuf>, prefix: String) -> Result<Plan, PlanError> {
    spawn_blocking(move || plan::plan(&paths, &prefix))
        .await
        .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
}

async fn open_journal(client: &BoxClient, options: &PushOptions) -> Journal {
    let Some(dir) = options.state_dir.clone() else {
        return Journal::forgetful();
    };
    let ticket = client.ticket().clone();
    let opened = spawn_blocking(move || Journal::open(&dir, &ticket)).await;
    match opened {
        Ok(Ok(journal)) => journal,
        Ok(Err(error)) => {
            tracing::warn!(%error, "no journal: if this push is stopped, the next one starts again");
            Journal::forgetful()
        }
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Why one file is not on the box.
pub(crate) enum SendError {
    /// Only this file is concerned.
    File(String),
    /// The box's answer.
    S3(S3Error),
}

impl From<S3Error> for SendError {
    fn from(error: S3Error) -> Self {
        Self::S3(error)
    }
}

/// A file that is safe on the box, and the bytes that were sent for it.
pub(crate) struct Sent {
    pub done: Done,
    pub outcome: Outcome,
    pub bytes: u64,
    /// What the box found odd about it.
    pub notice: Option<String>,
}

/// How one attempt at a file ended, where it did not fail.
pub(crate) enum Attempt {
    Sent(Sent),
    /// The file changed while it was read.
    Changed,
    /// The box does not know the upload any more.
    UploadLost,
}

/// Everything that the requests of one push share.
pub(crate) struct Sender<'a> {
    pub client: &'a BoxClient,
    pub journal: Journal,
    pub progress: Arc<Progress>,
    pub options: &'a PushOptions,
    pub buffers: Buffers,
    memory: Arc<Semaphore>,
}

impl<'a> Sender<'a> {
    /// A sender with the journal of the client's box and bucket.
    pub async fn new(
        client: &'a BoxClient,
        options: &'a PushOptions,
        progress: &Arc<Progress>,
    ) -> Self {
        Self {
            client,
            journal: open_journal(client, options).await,
            progress: Arc::clone(progress),
            options,
            buffers: Buffers::default(),
            memory: Arc::new(Semaphore::new(MEMORY_KIB as usize)),
        }
    }
}

impl Sender<'_> {
    /// Says how much there is to do.
    pub fn expect(&self, files: &[Planned]) {
        let total = files.iter().map(Planned::size).sum();
        self.progress.planned(files.len() as u64, total);
    }

    /// Sends the plan's files except those that are `known` to be on the box, by their place in
    /// the plan.
    pub async fn run(
        &self,
        plan: Plan,
        known: Result<HashMap<usize, Done>, S3Error>,
        began: Instant,
    ) -> Result<PushReport, PushError> {
        let Plan { files, skipped } = plan;
        let mut report = PushReport {
            box_id: self.client.ticket().box_id.clone(),
            address: self.client.endpoint().addr.to_string(),
            bucket: self.client.ticket().bucket.clone(),
            files: Vec::with_capacity(files.len()),
            failed: Vec::new(),
            skipped,
            bytes: 0,
            bytes_sent: 0,
            retries: 0,
            seconds: 0.0,
        };
        let stopped = match known {
            Ok(known) => self.send_all(&files, &known, &mut report).await,
            Err(error) => Some(("the list of what is on the box".to_owned(), error)),
        };
        report.bytes = report.files.iter().map(|f| f.size).sum();
        report.retries = self.progress.snapshot().retries;
        report.seconds = began.elapsed().as_secs_f64();
        match stopped {
            None => Ok(report),
            Some((key, source)) => Err(PushError::Stopped {
                key,
                source,
                report: Box::new(report),
            }),
        }
    }

    async fn send_all(
        &self,
        files: &[Planned],
        known: &HashMap<usize, Done>,
        report: &mut PushReport,
    ) -> Option<(String, S3Error)> {
        let is_large = |file: &Planned| file.size() > self.options.part_bytes;
        let (mut large, small): (VecDeque<usize>, VecDeque<usize>) =
            (0..files.len()).partition(|index| is_large(&files[*index]));
        let (packed, mut small) = self.packable(small, files, known).await;
        let (tell, mut told) = mpsc::channel(PACKED_AHEAD);
        let mut packing = std::pin::pin!(pack::send(self, files, packed, tell));
        let mut packs_left = true;
        let (mut large_free, mut small_free) = (LARGE_AT_ONCE, self.options.files_at_once.max(1));
        let mut running = FuturesUnordered::new();
        let mut done: Vec<(usize, FileReport)> = Vec::with_capacity(files.len());
        let mut stopped = None;
        loop {
            for (waiting, free) in [(&mut large, &mut large_free), (&mut small, &mut small_free)] {
                while *free > 0
                    && let Some(index) = waiting.pop_front()
                {
                    *free -= 1;
                    running.push(
                        self.send_one(index, &files[index], known.get(&index))
                            .boxed(),
                    );
                }
            }
            let (index, result) = tokio::select! {
                Some((index, result)) = running.next() => {
                    *(if is_large(&files[index]) {
                        &mut large_free
                    } else {
                        &mut small_free
                    }) += 1;
                    (index, result)
                }
                Some(told) = told.recv() => match told {
                    Told::Sent(index, sent) => (index, Ok(*sent)),
                    Told::Failed(index, error) => (index, Err(error)),
                    Told::Stopped(index, error) => (index, Err(SendError::S3(error))),
                    Told::Alone(index) => {
                        small.push_back(index);
                        continue;
                    }
                },
                () = &mut packing, if packs_left => {
                    packs_left = false;
                    continue;
                }
                else => break,
            };
            let file = &files[index];
            match result {
                Ok(sent) => {
                    self.progress.file_on_box();
                    report.bytes_sent += sent.bytes;
                    done.push((index, file_report(file, sent)));
                }
                Err(SendError::S3(error)) if error.ends_everything() => {
                    stopped = Some((file.key.to_string(), error));
                    break;
                }
                Err(SendError::S3(error)) => self.failed(report, file, error.to_string()),
                Err(SendError::File(reason)) => self.failed(report, file, reason),
            }
        }
        done.sort_by_key(|(index, _)| *index);
        report.files = done.into_iter().map(|(_, file)| file).collect();
        stopped
    }

    /// The files that travel in packs, and those that are left.
    async fn packable(
        &self,
        small: VecDeque<usize>,
        files: &[Planned],
        known: &HashMap<usize, Done>,
    ) -> (Vec<usize>, VecDeque<usize>) {
        let fits = |index: usize| {
            files[index].size() <= pack::MAX_FILE_BYTES && !known.contains_key(&index)
        };
        if !small.iter().any(|index| fits(*index)) || !pack::available(self.client).await {
            return (Vec::new(), small);
        }
        let (packed, small): (VecDeque<usize>, VecDeque<usize>) =
            small.into_iter().partition(|index| fits(*index));
        (packed.into(), small)
    }

    fn failed(&self, report: &mut PushReport, file: &Planned, reason: String) {
        self.progress.file_failed();
        report.failed.push(FailedFile {
            path: file.path.clone(),
            key: file.key.clone(),
            reason,
        });
    }

    async fn send_one(
        &self,
        index: usize,
        file: &Planned,
        known: Option<&Done>,
    ) -> (usize, Result<Sent, SendError>) {
        (index, self.send(file, known).await)
    }

    async fn send(&self, file: &Planned, known: Option<&Done>) -> Result<Sent, SendError> {
        if let Some(done) = known {
            self.progress.bytes_on_box(done.origin.stamp.size);
            return Ok(Sent {
                done: done.clone(),
                outcome: Outcome::AlreadyThere,
                bytes: 0,
                notice: None,
            });
        }
        let mut lost = false;
        for _ in 0..ATTEMPTS {
            let stamp = stamp(file).await?;
            let attempt = if stamp.size > self.options.part_bytes {
                multipart::send(self, file).await?
            } else {
                small::send(self, file, stamp.size).await?
            };
            lost = match attempt {
                Attempt::Sent(sent) => {
                    self.journal.remember_done(&file.key, sent.done.clone());
                    return Ok(sent);
                }
                Attempt::Changed => false,
                Attempt::UploadLost => true,
            };
            tracing::debug!(path = %file.path.display(), lost, "starting the file again");
        }
        Err(SendError::File(if lost {
            format!(
                "the box lost its upload {ATTEMPTS} times; run the same command again, and call us if this stays"
            )
        } else {
            format!(
                "it changed {ATTEMPTS} times while it was read; push it when it is not being written"
            )
        }))
    }

    /// Waits until `bytes` more may be held in memory.
    pub async fn memory(&self, bytes: u64) -> Option<tokio::sync::OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes / 1024 + 1)
            .unwrap_or(MEMORY_KIB)
            .min(MEMORY_KIB);
        // The semaphore is never closed, so there is always a permit in the end.
        Arc::clone(&self.memory).acquire_many_owned(kib).await.ok()
    }

    pub fn patience(&self, bytes: u64) -> Patience {
        Patience::for_bytes(self.options.patience, bytes)
    }
}

/// What a browser should take an object for, by the end of its name.
pub(crate) fn content_type(key: &ObjectKey) -> &'static str {
    mime_guess::from_path(key.as_str())
        .first_raw()
        .unwrap_or("application/octet-stream")
}

/// The tag of an answer, without its quotes.
pub(crate) fn etag(quoted: Option<&str>) -> Result<String, S3Error> {
    quoted
        .map(|quoted| quoted.trim_matches('"').to_owned())
        .ok_or_else(|| S3Error::malformed("ETag"))
}

/// What cannot be read, as one file's failure.
pub(crate) fn unreadable(error: &std::io::Error) -> SendError {
    SendError::File(format!(
        "it could not be read: {}; check that it exists and that you may read it",
        advice::chain(error)
    ))
}

async fn stamp(file: &Planned) -> Result<Stamp, SendError> {
    let metadata = tokio::fs::metadata(&file.path)
        .await
        .map_err(|e| unreadable(&e))?;
    Ok(Stamp::of(&metadata))
}

fn file_report(file: &Planned, sent: Sent) -> FileReport {
    FileReport {
        path: file.path.clone(),
        key: file.key.clone(),
        size: sent.done.origin.stamp.size,
        blake3: sent.done.blake3,
        etag: sent.done.etag,
        outcome: sent.outcome,
        notice: file.notice.clone().or(sent.notice),
        delivery: None,
    }
}
