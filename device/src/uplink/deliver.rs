//! Carries out what the planner decides, and tells it what came of it.

use std::time::Duration;

use longhaul_protocol::uplink::{Priority, UplinkPolicy};
use longhaul_protocol::upload::{CompleteUpload, MAX_ITEMS, MAX_PACK_OBJECTS};
use longhaul_vault::{Abandoned, Version};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::carry::{Asked, Carrier, Next};
use super::cloud::AskError;
use super::plan::{Name, Planner};
use super::send::Store;
use super::throttle::Throttle;
use super::turns::class;
use super::{UplinkConfig, UplinkError, UplinkParts};
use crate::agent::backoff::Backoff;
use crate::clock;

/// Versions on their way at a time: one batch is sent while the next one is begun.
const WINDOW: usize = 2 * MAX_ITEMS;
/// The same where they travel in packs.
const PACK_WINDOW: usize = 4 * MAX_PACK_OBJECTS;
/// Versions of each priority that the planner is given at the most; the vault keeps the rest.
const AHEAD: usize = 8192;
/// Batches that are looked through for one priority before something else is done.
const SCANS: usize = 32;
/// Pauses between questions to a cloud that does not answer, in milliseconds.
const CLOUD_PAUSE_MS: (u64, u64) = (1_000, 60_000);
/// The vault is looked at this often, even if nothing rings.
const LOOK: Duration = Duration::from_secs(5);

/// What a task has found out.
enum Report {
    Started(Vec<Version>, Asked),
    Sent(Vec<(Version, Next)>),
    Completed(Vec<(Version, CompleteUpload)>, Asked),
    Aborted(Vec<Abandoned>, bool),
}

struct Runtime {
    carrier: Carrier,
    planner: Planner,
    recorded: watch::Receiver<Version>,
    /// The last version that the planner was given or passed by, for each priority.
    offered: [Option<Version>; 3],
    policy: UplinkPolicy,
    ready: Vec<(Version, CompleteUpload)>,
    tasks: JoinSet<Result<Report, UplinkError>>,
    starting: bool,
    completing: bool,
    aborting: bool,
    cloud: Backoff,
    /// No question to the cloud before this moment.
    cloud_from_ms: u64,
    /// Questions that are asked for one object alone, after the cloud refused them together.
    alone: usize,
}

pub(super) async fn run(
    config: &UplinkConfig,
    parts: &UplinkParts,
    store: Store,
    throttle: Throttle,
    recorded: watch::Receiver<Version>,
    stop: CancellationToken,
) -> Result<(), UplinkError> {
    let mut uplink = throttle.watch();
    let mut runtime = Runtime {
        policy: throttle.policy(),
        carrier: Carrier::new(config, parts, store, throttle),
        planner: Planner::new(WINDOW),
        recorded,
        offered: [None; 3],
        ready: Vec::new(),
        tasks: JoinSet::new(),
        starting: false,
        completing: false,
        aborting: false,
        cloud: Backoff::new(CLOUD_PAUSE_MS.0, CLOUD_PAUSE_MS.1),
        cloud_from_ms: 0,
        alone: 0,
    };
    let retrier = parts.retrier.clone();
    while !stop.is_cancelled() {
        runtime.prioritize();
        let more = runtime.offer();
        runtime.ask();
        let pause = if more {
            Duration::ZERO
        } else {
            runtime.pause()
        };
        tokio::select! {
            () = stop.cancelled() => {}
            Some(report) = runtime.tasks.join_next() => runtime.take(report)?,
            changed = runtime.recorded.changed() => {
                if changed.is_err() {
                    stop.cancelled().await;
                }
            }
            () = retrier.rung() => runtime.offered = [None; 3],
            // A pause has ended, or begun.
            Ok(()) = uplink.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    // What is on its way is cut off: the vault knows what had arrived.
    runtime.tasks.shutdown().await;
    Ok(())
}

impl Runtime {
    /// Looks whether other buckets are urgent now.
    fn prioritize(&mut self) {
        let policy = self.carrier.throttle.policy();
        if policy.priorities != self.policy.priorities {
            self.planner.prioritize(|bucket| policy.priority(bucket));
            self.offered = [None; 3];
        }
        self.policy = policy;
    }

    /// Gives the planner what is recorded and pending, as much as it may hold; says whether there
    /// is more to look at.
    fn offer(&mut self) -> bool {
        if self.planner.is_empty() {
            self.offered = [None; 3];
            // What waited for a bucket may have been deleted.
            self.carrier.parts.holds.clear();
        }
        let through = *self.recorded.borrow_and_update();
        let mut more = false;
        for priority in Priority::ALL {
            let used = self.policy.priorities.values().any(|p| *p == priority);
            if used || priority == Priority::default() {
                more |= self.offer_of(priority, through);
            }
        }
        more
    }

    fn offer_of(&mut self, priority: Priority, through: Version) -> bool {
        let vault = &self.carrier.parts.vault;
        let offered = &mut self.offered[class(priority)];
        for _ in 0..SCANS {
            if self.planner.len_of(priority) >= AHEAD {
                return false;
            }
            let batch = vault.pending(*offered, MAX_ITEMS);
            if batch.is_empty() {
                return false;
            }
            for pending in batch {
                if pending.version > through {
                    return false;
                }
                *offered = Some(pending.version);
                let bucket = pending.job.to_string();
                if self.policy.priority(&bucket) == priority {
                    let key = pending.key;
                    let name = Name { bucket, key };
                    self.planner.offer(pending.version, name, priority);
                }
            }
        }
        true
    }

    /// Asks the cloud whatever there is to ask; one question of a kind at a time.
    fn ask(&mut self) {
        let now = clock::now().mono_ms;
        if now < self.cloud_from_ms {
            return;
        }
        let limit = if self.alone > 0 { 1 } else { MAX_ITEMS };
        let mut gone = self.carrier.parts.vault.abandoned();
        if !self.completing && !self.ready.is_empty() {
            let batch: Vec<_> = self.ready.drain(..self.ready.len().min(limit)).collect();
            self.completing = true;
            let carrier = self.carrier.clone();
            self.tasks.spawn(async move {
                let asked = carrier.complete(&batch).await?;
                Ok(Report::Completed(batch, asked))
            });
        }
        // While sending is held, URLs would only grow old.
        if !self.starting && !self.carrier.throttle.is_held() {
            let packs = self.alone == 0 && self.carrier.gauge.lock().pays(now);
            self.planner
                .set_window(if packs { PACK_WINDOW } else { WINDOW });
            let limit = if packs { MAX_PACK_OBJECTS } else { limit };
            let mut batch = self.planner.take(now, limit);
            // The cloud knows an upload and the one before it by the same name: what was given up
            // must be gone before it begins anew.
            batch.retain(|version| {
                let waits = gone.iter().any(|gone| gone.version == *version);
                if waits {
                    self.planner.progressed(*version);
                    self.planner.failed(*version, now, 0);
                }
                !waits
            });
            if !batch.is_empty() {
                self.starting = true;
                let carrier = self.carrier.clone();
                self.tasks.spawn(async move {
                    let asked = carrier.start(&batch).await?;
                    Ok(Report::Started(batch, asked))
                });
            }
        }
        if !self.aborting {
            gone.truncate(MAX_ITEMS);
            if !gone.is_empty() {
                self.aborting = true;
                let carrier = self.carrier.clone();
                self.tasks.spawn(async move {
                    let uploads = gone.iter().filter_map(|a| a.upload.parse().ok()).collect();
                    let aborted = carrier.abort(uploads).await;
                    if aborted {
                        for gone in &gone {
                            let vault = &carrier.parts.vault;
                            vault.forget_abandoned(gone.version, &gone.upload).await?;
                        }
                    }
                    Ok(Report::Aborted(gone, aborted))
                });
            }
        }
    }

    fn pause(&self) -> Duration {
        let now = clock::now().mono_ms;
        let idle = self.starting || self.carrier.throttle.is_held();
        let due = self.planner.next_due_ms().filter(|_| !idle);
        let cloud = Some(self.cloud_from_ms).filter(|from| *from > now);
        let next = match (due, cloud) {
            (Some(due), Some(cloud)) => due.max(cloud),
            (Some(at), None) | (None, Some(at)) => at,
            (None, None) => return LOOK,
        };
        Duration::from_millis(next.saturating_sub(now)).clamp(Duration::from_millis(1), LOOK)
    }

    fn take(
        &mut self,
        report: Result<Result<Report, UplinkError>, tokio::task::JoinError>,
    ) -> Result<(), UplinkError> {
        let report = match report {
            Ok(report) => report?,
            Err(error) if error.is_cancelled() => return Ok(()),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        match report {
            Report::Started(batch, asked) => {
                self.starting = false;
                match asked {
                    Asked::Answered(steps) => {
                        self.answered(batch.len());
                        self.proceed(steps);
                    }
                    Asked::Failed(error) => self.unanswered(batch, &error),
                }
            }
            Report::Completed(batch, asked) => {
                self.completing = false;
                match asked {
                    Asked::Answered(steps) => {
                        self.answered(batch.len());
                        self.proceed(steps);
                    }
                    // The bytes are there: only the question is asked again.
                    Asked::Failed(error @ AskError::Later(_)) => {
                        self.ready.extend(batch);
                        self.cloud_failed(&error);
                    }
                    Asked::Failed(error) => {
                        let versions = batch.into_iter().map(|(version, _)| version).collect();
                        self.unanswered(versions, &error);
                    }
                }
            }
            Report::Sent(steps) => self.proceed(steps),
            Report::Aborted(gone, aborted) => {
                self.aborting = false;
                if !aborted {
                    self.cloud_failed(&AskError::Later(format!(
                        "{} uploads could not be given up",
                        gone.len()
                    )));
                }
            }
        }
        Ok(())
    }

    fn proceed(&mut self, steps: Vec<(Version, Next)>) {
        let now = clock::now().mono_ms;
        // One for all: what failed together goes again together, and fills a pack again.
        let entropy = rand::random();
        for (version, next) in steps {
            match next {
                Next::Send(info, result) => {
                    let carrier = self.carrier.clone();
                    self.tasks
                        .spawn(async move { Ok(Report::Sent(carrier.send(*info, result).await?)) });
                }
                Next::Pack(job) => {
                    let carrier = self.carrier.clone();
                    self.tasks
                        .spawn(async move { Ok(Report::Sent(carrier.carry_pack(*job).await?)) });
                }
                Next::Complete(upload) => self.ready.push((version, upload)),
                Next::Again(again) => {
                    tracing::warn!(%version, why = again.why, "an object is not delivered yet");
                    if again.progressed {
                        self.planner.progressed(version);
                    }
                    let from = now.saturating_add(millis(again.pause));
                    self.planner.failed(version, from, entropy);
                }
                Next::Done => self.planner.done(version),
            }
        }
    }

    fn answered(&mut self, objects: usize) {
        self.cloud.reset();
        self.alone = self.alone.saturating_sub(objects);
    }

    /// The cloud did not answer a question about these versions, or refused it.
    fn unanswered(&mut self, versions: Vec<Version>, error: &AskError) {
        let now = clock::now().mono_ms;
        match (error, versions.as_slice()) {
            // Alone it is known whose fault it is.
            (AskError::Refused(reason), [version]) => {
                let (carrier, version, reason) = (self.carrier.clone(), *version, reason.clone());
                self.alone = self.alone.saturating_sub(1);
                self.tasks.spawn(async move {
                    Ok(Report::Sent(
                        carrier.give_up_version(version, &reason).await?,
                    ))
                });
                return;
            }
            (AskError::Refused(_), _) => self.alone = versions.len(),
            (AskError::Later(_), _) => self.cloud_failed(error),
        }
        let entropy = rand::random();
        for version in versions {
            self.planner.failed(version, now, entropy);
        }
    }

    fn cloud_failed(&mut self, error: &AskError) {
        tracing::warn!(%error, "the cloud does not answer about deliveries");
        let pause = self.cloud.next(rand::random());
        self.cloud_from_ms = clock::now().mono_ms.saturating_add(pause);
    }
}

fn millis(pause: Duration) -> u64 {
    u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)
}
