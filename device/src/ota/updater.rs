//! Carries an update out, step by step; each step is on the disk before its effect.
//!
//! Whatever is cut off is done again by the next agent, which may run from either slot: every
//! effect may be repeated.

use std::path::{Path, PathBuf};
use std::time::Duration;

use longhaul_protocol::ids::CommandId;
use longhaul_protocol::journal::{Fact, Outcome};
use longhaul_protocol::release::UpdateStep;
use tokio_util::sync::CancellationToken;

use super::UpdateError;
use super::download::Download;
use super::repository::{self, Refused};
use super::slots::{Slot, Slots, sha256_of};
use super::state::{Event, Update};
use crate::agent::backoff::Backoff;
use crate::cloud::{CloudClient, chain};
use crate::disk::{self, DiskError};
use crate::journal::{JournalError, JournalHandle};
use crate::update::{AgentHandle, UpdateRequest, UpdateRequests};

/// Waits between tries at the cloud: first ceiling and last, in milliseconds.
const RETRY_MS: (u64, u64) = (1_000, 120_000);
/// Tries without a new byte before an update is given up: more than a day.
const TRIES: u32 = 2_000;
/// How often the supervisor's verdict is looked for.
const LOOK: Duration = Duration::from_millis(200);
/// Wait where the disk takes no state; it may be full for a while.
const DISK_PAUSE: Duration = Duration::from_secs(30);
/// Bytes that an update leaves free.
const MARGIN: u64 = 32 << 20;
/// A download is made durable after this many bytes, or a sixteenth of it if that is more.
const SYNC_BYTES: u64 = 4 << 20;

/// What the updater works with.
pub struct Parts {
    /// The agent's state directory.
    pub state: PathBuf,
    /// The root of releases that the factory gave the box.
    pub tuf_root: PathBuf,
    /// The version that runs.
    pub agent_version: String,
    /// The slot that it runs from.
    pub slot: Slot,
    pub cloud: CloudClient,
    pub journal: JournalHandle,
    pub agent: AgentHandle,
}

/// Why the updater ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// The agent shall end, so that the supervisor starts what is armed.
    Restart,
}

/// What came of a step.
#[derive(Debug)]
pub(super) enum Done {
    Event(Event),
    Ended(Ended),
}

/// Carries out one update at a time.
pub struct Updater {
    parts: Parts,
    slots: Slots,
    dir: PathBuf,
    /// The command whose end this agent has told.
    told: Option<CommandId>,
}

impl Updater {
    /// An updater that goes on where the one before it was cut off.
    pub fn new(parts: Parts) -> Self {
        Self {
            slots: Slots::in_state(&parts.state),
            dir: parts.state.join("ota"),
            parts,
            told: None,
        }
    }

    /// Carries out what is asked for until `stop`, or until the agent must restart.
    pub async fn run(
        mut self,
        mut requests: UpdateRequests,
        stop: CancellationToken,
    ) -> Result<Ended, UpdateError> {
        self.tell_slots().await;
        let mut open = self.stored();
        loop {
            if let Some(update) = open.take()
                && !update.status.step.is_terminal()
                && let Some(ended) = self.drive_on(update, &stop).await?
            {
                return Ok(ended);
            }
            let request = tokio::select! {
                () = stop.cancelled() => return Ok(Ended::Stopped),
                request = requests.recv() => request,
            };
            let Some(request) = request else {
                stop.cancelled().await;
                return Ok(Ended::Stopped);
            };
            open = self.taken_on(request).await?;
        }
    }

    /// [`Self::drive`], for as long as the disk takes no state.
    async fn drive_on(
        &mut self,
        update: Update,
        stop: &CancellationToken,
    ) -> Result<Option<Ended>, UpdateError> {
        let mut update = update;
        loop {
            let error = match self.drive(update.clone(), stop).await {
                Err(UpdateError::Disk(error)) => error,
                other => return other,
            };
            tracing::error!(error = %chain(&error), "the update waits for the disk");
            tokio::select! {
                () = stop.cancelled() => return Ok(Some(Ended::Stopped)),
                () = tokio::time::sleep(DISK_PAUSE) => {}
            }
            update = self.stored().unwrap_or(update);
        }
    }

    /// Goes from step to step until the update has ended, or this agent must.
    async fn drive(
        &mut self,
        mut update: Update,
        stop: &CancellationToken,
    ) -> Result<Option<Ended>, UpdateError> {
        loop {
            self.note(&update).await?;
            if update.status.step.is_terminal() {
                self.finish(&update).await;
                return Ok(None);
            }
            match self.carry_out(&update, stop).await? {
                Done::Ended(ended) => return Ok(Some(ended)),
                Done::Event(event) => {
                    let Some(next) = update.after(event.clone()) else {
                        tracing::error!(?event, step = ?update.status.step, "out of place");
                        return Ok(None);
                    };
                    update = next;
                }
            }
        }
    }

    /// The update on the disk.
    fn stored(&self) -> Option<Update> {
        disk::read_json(&self.dir.join("update.json")).unwrap_or_else(|error| {
            tracing::error!(error = %chain(&error), "what was being updated is not known any more");
            None
        })
    }

    /// What to do about a request: go on, begin, or say again how it ended.
    async fn taken_on(&mut self, request: UpdateRequest) -> Result<Option<Update>, UpdateError> {
        let UpdateRequest {
            command,
            assignment,
        } = request;
        if self.told.as_ref() == Some(&command) {
            return Ok(None);
        }
        match self.stored() {
            Some(update) if update.status.command == command => {
                if update.status.step.is_terminal() {
                    self.note(&update).await?;
                    self.finish(&update).await;
                }
                Ok(Some(update))
            }
            _ => Ok(Some(Update::new(command, assignment))),
        }
    }

    /// Writes down how far the update has come, and tells the cloud.
    async fn note(&self, update: &Update) -> Result<(), UpdateError> {
        self.store(update).await?;
        let status = update.status.clone();
        tracing::info!(version = status.version, step = ?status.step, reason = status.reason, "update");
        match self.parts.journal.append(Fact::Update(status)).await {
            Ok(_) => Ok(()),
            Err(error @ (JournalError::Full { .. } | JournalError::TooLong { .. })) => {
                tracing::error!(%error, "fact not kept");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn store(&self, update: &Update) -> Result<(), UpdateError> {
        let (dir, update) = (self.dir.clone(), update.clone());
        blocking("writing down an update", move || {
            disk::make_dir(&dir)?;
            disk::write_json(&dir.join("update.json"), &update)
        })
        .await??;
        Ok(())
    }

    async fn finish(&mut self, update: &Update) {
        let status = &update.status;
        let reason = || status.reason.clone().unwrap_or_default();
        let outcome = match status.step {
            UpdateStep::Committed => Outcome::Done {
                detail: serde_json::json!({ "version": status.version }),
            },
            UpdateStep::RolledBack => Outcome::Failed {
                reason: format!("rolled back: {}", reason()),
            },
            _ => Outcome::Failed { reason: reason() },
        };
        self.forget_images(None);
        self.tell_slots().await;
        let command = status.command.clone();
        self.parts
            .agent
            .command_ended(command.clone(), outcome)
            .await;
        self.told = Some(command);
    }

    async fn tell_slots(&self) {
        match self.slots.report(self.parts.slot) {
            Ok(slots) => self.parts.agent.slots(slots).await,
            Err(error) => tracing::error!(error = %chain(&error), "slots cannot be read"),
        }
    }

    /// Carries out one step; doing so twice does no harm.
    pub(super) async fn carry_out(
        &self,
        update: &Update,
        stop: &CancellationToken,
    ) -> Result<Done, UpdateError> {
        let event = match update.status.step {
            UpdateStep::Assigned if update.status.version == self.parts.agent_version => {
                Event::AlreadyRuns
            }
            UpdateStep::Assigned => Event::Begin,
            UpdateStep::Metadata => return Ok(self.list(update, stop).await),
            UpdateStep::Preflight => self.preflight(update),
            UpdateStep::Download => return self.download(update, stop).await,
            UpdateStep::Verify => self.hash(update).await?,
            // The fleet has no windows yet: it is always open.
            UpdateStep::WaitWindow => Event::WindowOpen,
            UpdateStep::Arm => self.arm(update).await?,
            UpdateStep::Reboot | UpdateStep::Trial => return self.verdict(update, stop).await,
            UpdateStep::Committed | UpdateStep::RolledBack | UpdateStep::Failed => {
                return Ok(Done::Ended(Ended::Stopped));
            }
        };
        Ok(Done::Event(event))
    }

    async fn list(&self, update: &Update, stop: &CancellationToken) -> Done {
        let mut patience = Patience::new();
        loop {
            let memory = self.dir.join("metadata");
            let target = &update.assignment.target;
            let parts = &self.parts;
            let asked = repository::look_up(&parts.cloud, &parts.tuf_root, &memory, target);
            let answer = tokio::select! {
                () = stop.cancelled() => return Done::Ended(Ended::Stopped),
                answer = asked => answer,
            };
            match answer {
                Ok(listed) => {
                    return Done::Event(Event::Listed {
                        version: listed.version,
                        sha256: listed.sha256,
                        length: listed.length,
                    });
                }
                Err(refused) => {
                    if let Some(done) = patience.wait(refused, &self.parts.cloud, stop).await {
                        return done;
                    }
                }
            }
        }
    }

    fn preflight(&self, update: &Update) -> Event {
        let image = self.image(update);
        self.forget_images(Some(&image));
        match self.obstacle(update, &image) {
            Ok(None) => Event::Clear,
            Ok(Some(obstacle)) => Event::Impossible(obstacle),
            Err(error) => Event::Impossible(chain(&error)),
        }
    }

    /// What keeps the update from being done.
    fn obstacle(&self, update: &Update, image: &Path) -> Result<Option<String>, DiskError> {
        let slots = &self.slots;
        let Some(current) = slots.current()? else {
            return Ok(Some("the supervisor knows no slots".to_owned()));
        };
        if current.active != self.parts.slot || current.trial.is_some() {
            return Ok(Some(format!(
                "slot {} is active, but this agent runs from slot {}",
                current.active.name(),
                self.parts.slot.name()
            )));
        }
        disk::make_dir(&self.dir)?;
        let read = |source| DiskError::Read {
            path: self.dir.clone(),
            source,
        };
        let stat = nix::sys::statvfs::statvfs(&self.dir).map_err(|e| read(e.into()))?;
        let free = stat.blocks_available().saturating_mul(stat.fragment_size());
        let there = std::fs::metadata(image).map_or(0, |m| m.len());
        // Once as it comes, once in its slot.
        let length = update.assignment.length;
        let needed = length.saturating_mul(2).saturating_sub(there);
        if free < needed.saturating_add(MARGIN) {
            return Ok(Some(format!(
                "the release needs {needed} bytes and {MARGIN} to spare, {free} are free in {}",
                self.dir.display()
            )));
        }
        Ok(None)
    }

    async fn download(
        &self,
        update: &Update,
        stop: &CancellationToken,
    ) -> Result<Done, UpdateError> {
        let mut patience = Patience::new();
        let length = update.assignment.length;
        let opened = Download::open(&self.image(update), update.fetched(), length).await;
        let mut download = match opened {
            Ok(download) => download,
            Err(error) => return Ok(Done::Event(Event::Impossible(chain(&error)))),
        };
        while !download.is_whole() {
            let before = download.synced();
            let fetched = tokio::select! {
                () = stop.cancelled() => return Ok(Done::Ended(Ended::Stopped)),
                fetched = self.fetch(update, &mut download) => fetched?,
            };
            if let Err(error) = download.sync().await {
                return Ok(Done::Event(Event::Impossible(chain(&error))));
            }
            self.store(&update.with_fetched(download.synced())).await?;
            let Err(refused) = fetched else { continue };
            if download.synced() > before {
                patience = Patience::new();
            }
            if let Some(done) = patience.wait(refused, &self.parts.cloud, stop).await {
                return Ok(done);
            }
        }
        Ok(Done::Event(Event::Fetched))
    }

    /// Fetches until the answer ends, and says now and then how far it has come.
    async fn fetch(
        &self,
        update: &Update,
        download: &mut Download,
    ) -> Result<Result<(), Refused>, UpdateError> {
        let path = repository::target_path(&update.assignment);
        let every = SYNC_BYTES.max(update.assignment.length / 16);
        let mut response = match download.ask(&self.parts.cloud, &path).await {
            Ok(response) => response,
            Err(refused) => return Ok(Err(refused)),
        };
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => return Ok(Err(Refused::Later(chain(&error)))),
            };
            if let Err(refused) = download.take(&path, &chunk).await {
                return Ok(Err(refused));
            }
            if download.unsynced() >= every {
                if let Err(error) = download.sync().await {
                    return Ok(Err(error.into()));
                }
                self.note(&update.with_fetched(download.synced())).await?;
            }
        }
        if let Err(error) = download.sync().await {
            return Ok(Err(error.into()));
        }
        if download.is_whole() {
            Ok(Ok(()))
        } else {
            Ok(Err(Refused::Later(format!("{path} ended early"))))
        }
    }

    async fn hash(&self, update: &Update) -> Result<Event, UpdateError> {
        let image = self.image(update);
        let hashed = blocking("hashing an image", move || {
            let sha256 = sha256_of(&image)?;
            Ok::<_, std::io::Error>((sha256, std::fs::metadata(&image)?.len()))
        });
        Ok(match hashed.await? {
            Ok((sha256, length)) => Event::Hashed { sha256, length },
            Err(error) => Event::Impossible(format!("the image cannot be read: {error}")),
        })
    }

    /// Puts the image into the other slot and arms it, unless that was done and even judged before.
    async fn arm(&self, update: &Update) -> Result<Event, UpdateError> {
        let (slots, image) = (self.slots.clone(), self.image(update));
        let (slot, update) = (self.parts.slot, update.clone());
        let armed = blocking("filling a slot", move || {
            let command = &update.status.command;
            let current = match slots.current() {
                Ok(Some(current)) => current,
                Ok(None) => return Err("the supervisor knows no slots".to_owned()),
                Err(error) => return Err(chain(&error)),
            };
            let tried = current.trial.as_ref().map(|t| &t.command);
            let judged = current.last.as_ref().map(|l| &l.command);
            if tried == Some(command) || judged == Some(command) {
                return Ok(());
            }
            if current.active != slot {
                return Err("this agent does not run from the active slot".to_owned());
            }
            let wanted = &update.assignment;
            slots
                .install(slot.other(), &image, &wanted.version, Some(wanted.sha256))
                .map_err(|e| chain(&e))?;
            let (rollout, version) = (wanted.rollout.clone(), wanted.version.clone());
            slots
                .arm(&current, command.clone(), rollout, version)
                .map_err(|e| chain(&e))
        });
        Ok(match armed.await? {
            Ok(()) => Event::Armed,
            Err(why) => Event::Impossible(why),
        })
    }

    /// Waits for what the supervisor thinks of the trial, or makes way for it.
    async fn verdict(
        &self,
        update: &Update,
        stop: &CancellationToken,
    ) -> Result<Done, UpdateError> {
        let command = &update.status.command;
        loop {
            let current = self.slots.current()?;
            let trial = current.as_ref().and_then(|c| c.trial.as_ref());
            let last = current.as_ref().and_then(|c| c.last.as_ref());
            match (trial, last) {
                (Some(trial), _) if trial.command == *command => {
                    if trial.slot != self.parts.slot {
                        return Ok(Done::Ended(Ended::Restart));
                    }
                    if update.status.step == UpdateStep::Reboot {
                        return Ok(Done::Event(Event::OnTrial));
                    }
                }
                (_, Some(last)) if last.command == *command => {
                    return Ok(Done::Event(match &last.reason {
                        Some(reason) => Event::FellBack(reason.clone()),
                        None => Event::Proved,
                    }));
                }
                _ => {
                    let why = "the supervisor knows nothing of the trial";
                    return Ok(Done::Event(Event::FellBack(why.to_owned())));
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(Done::Ended(Ended::Stopped)),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn image(&self, update: &Update) -> PathBuf {
        let name = update.assignment.sha256.to_string();
        self.dir.join(name).with_extension("image")
    }

    /// Removes images that are of no use any more; what cannot be removed is at the next update.
    fn forget_images(&self, except: Option<&Path>) {
        let Ok(entries) = std::fs::read_dir(&self.dir) else {
            return;
        };
        for path in entries.filter_map(|e| e.ok().map(|e| e.path())) {
            let image = path.extension().is_some_and(|e| e == "image");
            if image
                && Some(path.as_path()) != except
                && let Err(error) = std::fs::remove_file(&path)
            {
                tracing::warn!(path = %path.display(), %error, "image not removed");
            }
        }
    }
}

/// How often the cloud has been asked in vain.
struct Patience {
    backoff: Backoff,
    left: u32,
}

impl Patience {
    fn new() -> Self {
        Self {
            backoff: Backoff::new(RETRY_MS.0, RETRY_MS.1),
            left: TRIES,
        }
    }

    /// Waits until it may be tried again; `Some` where it may not.
    async fn wait(
        &mut self,
        refused: Refused,
        cloud: &CloudClient,
        stop: &CancellationToken,
    ) -> Option<Done> {
        let why = match refused {
            Refused::Never(why) => return Some(Done::Event(Event::Impossible(why))),
            Refused::Later(why) => why,
        };
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            let why = format!("given up after {TRIES} tries: {why}");
            return Some(Done::Event(Event::Impossible(why)));
        }
        let pause = Duration::from_millis(self.backoff.next(rand::random()));
        tracing::warn!(why, ?pause, "the update goes on later");
        let again = async {
            tokio::time::sleep(pause).await;
            cloud.enrolled().await
        };
        tokio::select! {
            () = stop.cancelled() => Some(Done::Ended(Ended::Stopped)),
            enrolled = again => (!enrolled).then_some(Done::Ended(Ended::Stopped)),
        }
    }
}

async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, UpdateError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| UpdateError::Panicked(what))
}
