//! Carries an update out, step by step; each step is on the disk before its effect.
//!
//! Whatever is cut off is done again by the next agent, which may run from either slot: every
//! effect may be repeated.

use std::path::PathBuf;
use std::time::Duration;

use longhaul_protocol::ids::CommandId;
use longhaul_protocol::journal::{Fact, Outcome};
use longhaul_protocol::release::UpdateStep;
use tokio_util::sync::CancellationToken;

use super::UpdateError;
use super::slots::{Slot, Slots};
use super::state::{Event, Update};
use crate::cloud::{CloudClient, chain};
use crate::disk;
use crate::journal::{JournalError, JournalHandle};
use crate::update::{AgentHandle, UpdateRequest, UpdateRequests};

/// Wait where the disk takes no state; it may be full for a while.
const DISK_PAUSE: Duration = Duration::from_secs(30);

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
    pub(super) parts: Parts,
    pub(super) slots: Slots,
    /// Where updates keep their state.
    pub(super) dir: PathBuf,
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

    /// Writes down how far the update has come, and tells the cloud; once, also where another agent
    /// goes on with it.
    pub(super) async fn note(&self, update: &Update) -> Result<(), UpdateError> {
        if update.told {
            return Ok(());
        }
        self.store(update).await?;
        let status = update.status.clone();
        tracing::info!(version = status.version, step = ?status.step, reason = status.reason, "update");
        match self.parts.journal.append(Fact::Update(status)).await {
            Ok(_) => {
                let told = Update {
                    told: true,
                    ..update.clone()
                };
                self.store(&told).await
            }
            Err(error @ (JournalError::Full { .. } | JournalError::TooLong { .. })) => {
                tracing::error!(%error, "fact not kept");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn store(&self, update: &Update) -> Result<(), UpdateError> {
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
}

pub(super) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, UpdateError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| UpdateError::Panicked(what))
}
