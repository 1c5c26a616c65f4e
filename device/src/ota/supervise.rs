//! Starts the agent, and the agent before it when a new one does not prove itself.
//!
//! It decides by what is on the disk alone and writes down what it decides before it acts, so it
//! may be killed at any moment: the next one goes on. It is not updated itself.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::health::healthy_path;
use super::log_tail::LogTail;
use super::program::is_program;
use super::slots::{Current, Slot, SlotError, Slots};
use crate::disk::{self, DiskError};

/// The agent's exit code for: start what is armed.
pub const EXIT_RESTART: u8 = 75;
/// How long an agent may take to end.
const GRACE: Duration = Duration::from_secs(30);
/// How often a trial's proof is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// What to supervise with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The state directory.
    pub state: PathBuf,
    /// The settings file that the agent is given.
    pub config: Option<PathBuf>,
    /// What goes into a slot if none can be started.
    pub factory_agent: PathBuf,
    /// Its version.
    pub factory_version: String,
    /// How long a release may take to prove itself.
    pub trial: Duration,
    /// Wait before an agent that ended by itself is started again.
    pub pause: Duration,
}

/// Why the supervisor gave up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuperviseError {
    /// A state file failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A slot could not be filled.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// The state directory belongs to a supervisor that runs.
    #[error("another supervisor runs with state directory {0}")]
    AlreadyRunning(PathBuf),
    /// The agent could not be started or waited for.
    #[error("failed to run {agent}")]
    Run {
        /// Which file.
        agent: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

enum Ended {
    /// The supervisor was asked to stop, and the agent has.
    Stopped,
    /// The agent ended by itself.
    Exited(ExitStatus),
    /// It did not prove itself in time, and was ended.
    TimedOut,
}

/// What is started next.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Choice {
    slot: Slot,
    on_trial: bool,
}

/// Keeps an agent running until `stop`. Must run on the thread that lives longest: an agent is
/// ended by the kernel together with the thread that started it.
pub async fn supervise(settings: Settings, stop: CancellationToken) -> Result<(), SuperviseError> {
    let slots = Slots::in_state(&settings.state);
    let run_dir = settings.state.join("run");
    disk::make_dir(&run_dir)?;
    let _lock = lock(&run_dir.join("supervisor.lock"))?
        .ok_or_else(|| SuperviseError::AlreadyRunning(settings.state.clone()))?;
    while !stop.is_cancelled() {
        let agent_gone = wait_for_agent(&run_dir, &settings);
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            gone = agent_gone => gone?,
        }
        let choice = choose(&slots, &settings)?;
        let release = slots.release(choice.slot)?;
        let version = release.map(|r| r.version).unwrap_or_default();
        forget_proof(&settings.state)?;
        let on_trial = choice.on_trial;
        tracing::info!(
            slot = choice.slot.name(),
            version,
            on_trial,
            "starting the agent"
        );
        let agent = slots.agent(choice.slot);
        let mut run = match Run::start(&agent, choice.slot, &version, &settings) {
            Ok(run) => run,
            Err(source) => return Err(SuperviseError::Run { agent, source }),
        };
        let mut unproved = on_trial;
        let ended = run.watch(&slots, &settings, &version, &mut unproved, &stop);
        match ended.await? {
            Ended::Stopped => return Ok(()),
            Ended::TimedOut => {
                let limit = settings.trial.as_secs();
                let tail = run.log.text().await;
                let why = format!("did not prove itself within {limit} s; its log ends: {tail}");
                roll_back(&slots, &version, why)?;
            }
            // Asked to end by somebody else, as every process is when the machine goes down: no
            // verdict, but one start less.
            Ended::Exited(status) if unproved && !status.success() => {
                let tail = run.log.text().await;
                let why = format!("ended on trial ({status}); its log ends: {tail}");
                roll_back(&slots, &version, why)?;
            }
            Ended::Exited(status) if status.code() == Some(i32::from(EXIT_RESTART)) => {}
            Ended::Exited(status) => {
                tracing::warn!(%status, "the agent ended");
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(settings.pause) => {}
                }
            }
        }
    }
    Ok(())
}

fn roll_back(slots: &Slots, version: &str, why: String) -> Result<(), DiskError> {
    tracing::warn!(version, why, "back to the release before");
    slots.judge(Some(why))
}

fn forget_proof(state: &Path) -> Result<(), DiskError> {
    let path = healthy_path(state);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(DiskError::Write { path, source: e })
        }
        _ => Ok(()),
    }
}

/// Locks a file until the handle is dropped; `None` if somebody else has.
fn lock(path: &Path) -> Result<Option<Flock<File>>, SuperviseError> {
    let failed = |source| DiskError::Write {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(failed)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(held) => Ok(Some(held)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(failed(errno.into()).into()),
    }
}

/// The agent of a supervisor that was killed may take a moment to be gone.
async fn wait_for_agent(run_dir: &Path, settings: &Settings) -> Result<(), SuperviseError> {
    while lock(&run_dir.join("lock"))?.is_none() {
        tracing::warn!("an agent still runs with this state directory");
        tokio::time::sleep(settings.pause.min(LOOK)).await;
    }
    Ok(())
}

/// What to start. A trial has one start less before it is started.
fn choose(slots: &Slots, settings: &Settings) -> Result<Choice, SuperviseError> {
    let current = match slots.current() {
        Ok(current) => current,
        Err(error @ (DiskError::Malformed { .. } | DiskError::TooLong { .. })) => {
            tracing::error!(error = %crate::cloud::chain(&error), "what runs is not known any more");
            None
        }
        Err(error) => return Err(error.into()),
    };
    let mut current = match current {
        Some(current) => current,
        None => repair(slots, settings, Slot::A)?,
    };
    if let Some(mut trial) = current.trial.clone() {
        let hopeless = if slots.sound(trial.slot)?.is_none() {
            Some("its slot is damaged".to_owned())
        } else if !is_program(&slots.agent(trial.slot)) {
            Some("it is no program for this machine".to_owned())
        } else if trial.boots_left == 0 {
            Some("every start of the trial ended before it had proved itself".to_owned())
        } else {
            None
        };
        if let Some(why) = hopeless {
            roll_back(slots, &trial.version, why)?;
        } else {
            trial.boots_left -= 1;
            let slot = trial.slot;
            current.trial = Some(trial);
            slots.set_current(&current)?;
            return Ok(Choice {
                slot,
                on_trial: true,
            });
        }
    }
    let slot = match slots.sound(current.active)? {
        Some(_) => current.active,
        None => repair(slots, settings, current.active)?.active,
    };
    Ok(Choice {
        slot,
        on_trial: false,
    })
}

/// Finds something that can be started, `wanted` if possible, and makes it the active one. What
/// was rolled back does not count.
fn repair(slots: &Slots, settings: &Settings, wanted: Slot) -> Result<Current, SuperviseError> {
    let last = slots.current().ok().flatten().and_then(|c| c.last);
    let rejected = last.is_some_and(|verdict| verdict.reason.is_some());
    let candidates = [wanted, wanted.other()];
    for slot in candidates.into_iter().take(if rejected { 1 } else { 2 }) {
        if slots.sound(slot)?.is_some() {
            return made_active(slots, slot);
        }
    }
    let (agent, version) = (&settings.factory_agent, &settings.factory_version);
    tracing::warn!(version, slot = wanted.name(), "filling an empty slot");
    slots.install(wanted, agent, version, None)?;
    made_active(slots, wanted)
}

fn made_active(slots: &Slots, active: Slot) -> Result<Current, SuperviseError> {
    let last = slots.current().ok().flatten().and_then(|c| c.last);
    let current = Current {
        last,
        ..Current::running(active)
    };
    slots.set_current(&current)?;
    Ok(current)
}

/// An agent that runs.
struct Run {
    agent: PathBuf,
    child: Child,
    log: LogTail,
}

impl Run {
    fn start(
        agent: &Path,
        slot: Slot,
        version: &str,
        settings: &Settings,
    ) -> std::io::Result<Self> {
        // The kernel ends the agent with its supervisor: two agents never share a state.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(agent);
        command.arg("--state").arg(&settings.state);
        if let Some(config) = &settings.config {
            command.arg("--config").arg(config);
        }
        command
            .arg("run")
            .env("LONGHAUL_AGENT_VERSION", version)
            .env("LONGHAUL_SLOTS", slot.name())
            // The end of the log becomes a reason that people read.
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let log = LogTail::follow(child.stderr.take());
        Ok(Self {
            agent: agent.to_owned(),
            child,
            log,
        })
    }

    async fn watch(
        &mut self,
        slots: &Slots,
        settings: &Settings,
        version: &str,
        unproved: &mut bool,
        stop: &CancellationToken,
    ) -> Result<Ended, SuperviseError> {
        let healthy = healthy_path(&settings.state);
        let deadline = tokio::time::sleep(settings.trial);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.end(Signal::SIGTERM).await?;
                    return Ok(Ended::Stopped);
                }
                status = self.child.wait() => {
                    let status = status.map_err(|e| self.failed(e))?;
                    return Ok(Ended::Exited(status));
                }
                () = tokio::time::sleep(LOOK), if *unproved => {
                    if disk::read(&healthy)?.as_deref() == Some(version.as_bytes()) {
                        slots.judge(None)?;
                        *unproved = false;
                        tracing::info!(version, "the release has proved itself");
                    }
                }
                () = &mut deadline, if *unproved => {
                    self.end(Signal::SIGKILL).await?;
                    return Ok(Ended::TimedOut);
                }
            }
        }
    }

    async fn end(&mut self, signal: Signal) -> Result<(), SuperviseError> {
        if let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            // It is our child and was not waited for, so the id is still its own.
            kill(Pid::from_raw(pid), signal).map_err(|e| self.failed(e.into()))?;
        }
        let ended = match tokio::time::timeout(GRACE, self.child.wait()).await {
            Ok(status) => status.map(drop),
            Err(_) => self.child.kill().await,
        };
        ended.map_err(|e| self.failed(e))
    }

    fn failed(&self, source: std::io::Error) -> SuperviseError {
        SuperviseError::Run {
            agent: self.agent.clone(),
            source,
        }
    }
}

/// [`choose`], for the tests of what the slots look like after a power cut.
#[cfg(test)]
pub(super) fn choose_for_tests(
    slots: &Slots,
    factory_agent: &Path,
) -> Result<(Slot, bool), SuperviseError> {
    let settings = Settings {
        state: PathBuf::new(),
        config: None,
        factory_agent: factory_agent.to_owned(),
        factory_version: "0.1".to_owned(),
        trial: Duration::from_secs(1),
        pause: Duration::from_secs(1),
    };
    choose(slots, &settings).map(|choice| (choice.slot, choice.on_trial))
}

#[cfg(test)]
#[path = "supervise_tests.rs"]
mod tests;
