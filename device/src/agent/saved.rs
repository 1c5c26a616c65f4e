//! What the agent remembers across restarts; on disk before it is acted on.

use std::collections::VecDeque;

use longhaul_protocol::command::{CommandClaims, CommandKind};
use longhaul_protocol::ids::CommandId;
use longhaul_protocol::journal::Outcome;
use longhaul_protocol::twin::Desired;
use longhaul_protocol::uplink::UplinkPolicy;
use serde::{Deserialize, Serialize};

/// Commands that are remembered with their result. The cloud resends what it has no result of;
/// what is older is refused by its counter.
const MAX_COMMANDS: usize = 256;
/// Seconds between samples until the cloud says otherwise.
const DEFAULT_TELEMETRY_SECS: u16 = 30;

/// The agent's memory.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Saved {
    /// The highest counter of a command that was accepted; 0 for none.
    pub counter: u64,
    /// Accepted commands, oldest first.
    pub commands: VecDeque<Command>,
    /// Seconds between samples.
    pub telemetry_interval_secs: u16,
    /// The desired state in force.
    pub desired: Option<Desired>,
}

impl Default for Saved {
    fn default() -> Self {
        Self {
            counter: 0,
            commands: VecDeque::new(),
            telemetry_interval_secs: DEFAULT_TELEMETRY_SECS,
            desired: None,
        }
    }
}

/// A command that was accepted.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Command {
    pub id: CommandId,
    pub counter: u64,
    pub kind: CommandKind,
    pub progress: Progress,
}

/// How far a command has come.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "progress", rename_all = "snake_case")]
pub enum Progress {
    /// Accepted; whether it was carried out is not known. Every kind may be carried out again.
    Accepted,
    /// It has ended like this.
    Ended(Outcome),
}

impl Saved {
    /// The version of the desired state in force; 0 for none.
    pub fn desired_version(&self) -> u64 {
        self.desired.as_ref().map_or(0, |d| d.version)
    }

    /// How the way to the buckets is to be used.
    pub fn uplink(&self) -> UplinkPolicy {
        let desired = self.desired.as_ref();
        desired.map(|d| d.uplink.clone()).unwrap_or_default()
    }

    /// A command that was accepted before.
    pub fn command(&self, id: &CommandId) -> Option<&Command> {
        self.commands.iter().find(|c| c.id == *id)
    }

    /// Remembers a new command and its counter.
    pub fn accept(&mut self, claims: &CommandClaims) {
        self.counter = claims.counter;
        if self.commands.len() >= MAX_COMMANDS {
            let oldest_ended = self
                .commands
                .iter()
                .position(|c| matches!(c.progress, Progress::Ended(_)));
            self.commands.remove(oldest_ended.unwrap_or(0));
        }
        self.commands.push_back(Command {
            id: claims.id.clone(),
            counter: claims.counter,
            kind: claims.command.clone(),
            progress: Progress::Accepted,
        });
    }

    /// Remembers how a command ended; false if it is unknown or ended before.
    pub fn end(&mut self, id: &CommandId, outcome: &Outcome) -> bool {
        match self.commands.iter_mut().find(|c| c.id == *id) {
            Some(command) if command.progress == Progress::Accepted => {
                command.progress = Progress::Ended(outcome.clone());
                true
            }
            _ => false,
        }
    }

    /// Commands that were accepted and have not ended.
    pub fn unfinished(&self) -> impl Iterator<Item = &Command> {
        self.commands
            .iter()
            .filter(|c| c.progress == Progress::Accepted)
    }
}
