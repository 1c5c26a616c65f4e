//! Two places for the agent: the one that runs, and the one before it or after it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use aws_lc_rs::digest;
use longhaul_protocol::ids::{CommandId, RolloutId};
use longhaul_protocol::twin;
use longhaul_protocol::value::Digest32;
use serde::{Deserialize, Serialize};

use crate::disk::{self, DiskError};

/// The agent's file in a slot.
pub const AGENT_FILE: &str = "longhaul-box";
/// Says which release a slot holds.
const RELEASE_FILE: &str = "release.json";
/// Starts that a release on trial is given: power may be cut in some. Counted, not timed, because
/// clocks may be wrong.
pub const TRIAL_BOOTS: u8 = 3;
/// Bytes hashed at once.
const CHUNK: usize = 1 << 20;

/// One of the two.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    A,
    B,
}

impl Slot {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Its name: `a` or `b`.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

impl FromStr for Slot {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "a" => Ok(Self::A),
            "b" => Ok(Self::B),
            _ => Err(format!("{text:?} is no slot: a or b")),
        }
    }
}

/// A release that has yet to prove itself.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Trial {
    /// Where it is.
    pub slot: Slot,
    /// Starts that it is still given.
    pub boots_left: u8,
    /// The command that assigned it.
    pub command: CommandId,
    /// The rollout that it belongs to.
    pub rollout: RolloutId,
    /// Its version.
    pub version: String,
}

/// How the last trial ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Verdict {
    /// The command that assigned the release.
    pub command: CommandId,
    /// Why it was not kept; absent if it was.
    pub reason: Option<String>,
}

/// What runs, and what is tried.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Current {
    /// The slot that has proved itself.
    pub active: Slot,
    /// The one that has not yet.
    pub trial: Option<Trial>,
    /// How the last trial ended.
    pub last: Option<Verdict>,
}

impl Current {
    /// Nothing is tried.
    pub fn running(active: Slot) -> Self {
        Self {
            active,
            trial: None,
            last: None,
        }
    }
}

/// What a slot holds.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Release {
    /// The release's version.
    pub version: String,
    /// SHA-256 of the agent's file.
    pub sha256: Digest32,
}

/// What failed on a slot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SlotError {
    /// A file could not be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What was copied is not what was verified.
    #[error("{path} has SHA-256 {found}; expected was {wanted}")]
    Differs {
        /// What was copied.
        path: PathBuf,
        /// What it has.
        found: Digest32,
        /// What it should have.
        wanted: Digest32,
    },
}

/// What is done in turn to fill a slot; after any of them the power may fail.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The slot has no release any more.
    Forget,
    /// The new agent lies beside the old one.
    Copy,
    /// The new agent has taken the old one's place.
    Swap,
    /// The slot has a release again.
    Name,
}

impl Step {
    const ALL: [Self; 4] = [Self::Forget, Self::Copy, Self::Swap, Self::Name];
}

/// What to fill a slot with.
struct Filling<'a> {
    from: &'a Path,
    version: &'a str,
    wanted: Option<Digest32>,
}

/// The slots of one state directory.
#[derive(Clone, Debug)]
pub struct Slots {
    dir: PathBuf,
}

impl Slots {
    /// The slots below `state`.
    pub fn in_state(state: &Path) -> Self {
        Self {
            dir: state.join("slots"),
        }
    }

    fn slot_dir(&self, slot: Slot) -> PathBuf {
        self.dir.join(slot.name())
    }

    fn release_file(&self, slot: Slot) -> PathBuf {
        self.slot_dir(slot).join(RELEASE_FILE)
    }

    /// Where the slots lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The agent in `slot`.
    pub fn agent(&self, slot: Slot) -> PathBuf {
        self.slot_dir(slot).join(AGENT_FILE)
    }

    /// What `slot` holds; `None` where it is empty.
    pub fn release(&self, slot: Slot) -> Result<Option<Release>, DiskError> {
        disk::read_json(&self.release_file(slot))
    }

    /// What `slot` holds, if its agent is still the one that was put there.
    pub fn sound(&self, slot: Slot) -> Result<Option<Release>, DiskError> {
        let Some(release) = self.release(slot)? else {
            return Ok(None);
        };
        let agent = self.agent(slot);
        match sha256_of(&agent) {
            Ok(found) if found == release.sha256 => Ok(Some(release)),
            Ok(found) => {
                tracing::error!(agent = %agent.display(), %found, wanted = %release.sha256, "the slot is damaged");
                Ok(None)
            }
            Err(error) => {
                tracing::error!(agent = %agent.display(), %error, "the slot cannot be read");
                Ok(None)
            }
        }
    }

    /// What runs and what is tried; `None` before the first start.
    pub fn current(&self) -> Result<Option<Current>, DiskError> {
        disk::read_json(&self.dir.join("current.json"))
    }

    /// Writes down what runs and what is tried.
    pub fn set_current(&self, current: &Current) -> Result<(), DiskError> {
        disk::make_dir(&self.dir)?;
        disk::write_json(&self.dir.join("current.json"), current)
    }

    /// What the cloud is told by the agent that runs from `running`.
    pub fn report(&self, running: Slot) -> Result<twin::Slots, DiskError> {
        let version = |slot| Ok::<_, DiskError>(self.release(slot)?.map(|r| r.version));
        Ok(twin::Slots {
            active: running.name().to_owned(),
            a: version(Slot::A)?,
            b: version(Slot::B)?,
        })
    }

    /// Replaces what is in `slot` by the executable `from`, which must have the digest `wanted` if
    /// there is one. The slot has no release until every byte is on the disk, so a power cut leaves
    /// an empty slot, never half a release.
    pub fn install(
        &self,
        slot: Slot,
        from: &Path,
        version: &str,
        wanted: Option<Digest32>,
    ) -> Result<(), SlotError> {
        let filling = Filling {
            from,
            version,
            wanted,
        };
        for step in Step::ALL {
            self.fill(slot, &filling, step)?;
        }
        Ok(())
    }

    fn fill(&self, slot: Slot, filling: &Filling<'_>, step: Step) -> Result<(), SlotError> {
        let dir = self.slot_dir(slot);
        let agent = self.agent(slot);
        // Beside and renamed: the old file may be running.
        let beside = dir.join("longhaul-box.new");
        let failed = |source| DiskError::Write {
            path: agent.clone(),
            source,
        };
        match step {
            Step::Forget => {
                disk::make_dir(&dir)?;
                let gone = match fs::remove_file(self.release_file(slot)) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                    _ => disk::sync_dir(&dir),
                };
                gone.map_err(failed)?;
            }
            Step::Copy => {
                let found = copy(filling.from, &beside).map_err(failed)?;
                if let Some(wanted) = filling.wanted
                    && wanted != found
                {
                    return Err(SlotError::Differs {
                        path: filling.from.to_owned(),
                        found,
                        wanted,
                    });
                }
            }
            Step::Swap => {
                let swapped = fs::rename(&beside, &agent).and_then(|()| disk::sync_dir(&dir));
                swapped.map_err(failed)?;
            }
            Step::Name => {
                let sha256 = match filling.wanted {
                    Some(wanted) => wanted,
                    None => sha256_of(&agent).map_err(failed)?,
                };
                let version = filling.version.to_owned();
                disk::write_json(&self.release_file(slot), &Release { version, sha256 })?;
            }
        }
        Ok(())
    }

    /// The other slot is tried at the next start.
    pub fn arm(
        &self,
        current: &Current,
        command: CommandId,
        rollout: RolloutId,
        version: String,
    ) -> Result<(), DiskError> {
        let trial = Trial {
            slot: current.active.other(),
            boots_left: TRIAL_BOOTS,
            command,
            rollout,
            version,
        };
        self.set_current(&Current {
            trial: Some(trial),
            ..current.clone()
        })
    }

    /// Ends the trial, if there is one: without a reason its slot becomes the active one.
    pub fn judge(&self, reason: Option<String>) -> Result<(), DiskError> {
        let Some(mut current) = self.current()? else {
            return Ok(());
        };
        if let Some(trial) = current.trial.take() {
            if reason.is_none() {
                current.active = trial.slot;
            }
            current.last = Some(Verdict {
                command: trial.command,
                reason,
            });
            self.set_current(&current)?;
        }
        Ok(())
    }
}

/// Copies an executable durably, and says what was written.
fn copy(from: &Path, to: &Path) -> io::Result<Digest32> {
    let mut source = File::open(from)?;
    let mut target = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o700)
        .open(to)?;
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut chunk = vec![0; CHUNK];
    loop {
        match source.read(&mut chunk)? {
            0 => break,
            read => {
                hash.update(&chunk[..read]);
                target.write_all(&chunk[..read])?;
            }
        }
    }
    target.sync_all()?;
    Ok(finish(hash))
}

/// SHA-256 of a file as it lies on the disk.
pub(super) fn sha256_of(path: &Path) -> io::Result<Digest32> {
    let mut file = File::open(path)?;
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(finish(hash)),
            read => hash.update(&chunk[..read]),
        }
    }
}

fn finish(hash: digest::Context) -> Digest32 {
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    Digest32(digest)
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
