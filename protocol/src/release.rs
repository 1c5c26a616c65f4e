//! Updates: the assignment of a release to a box, and how far the box has come.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{CommandId, RolloutId};
use crate::value::Digest32;

/// A release that a box shall run. What it consists of is said by the TUF repository, not here.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Assignment {
    /// The rollout that this belongs to.
    pub rollout: RolloutId,
    /// The release's version, as in the target's custom metadata.
    pub version: String,
    /// Name of the target in the TUF repository.
    pub target: String,
    /// SHA-256 of the target; must agree with the repository's signed metadata.
    pub sha256: Digest32,
    /// Length of the target in bytes; likewise.
    pub length: u64,
}

/// A state that machines are in once they run a release; signed with it, in the target's custom
/// metadata.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MachineState {
    /// The hardware type that it is for, as in the box's record; absent for every type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<String>,
    /// PCR values of the SHA-256 bank that differ from what the factory saw, by number.
    pub pcrs: BTreeMap<u8, Digest32>,
}

/// A step of an update; each is on disk before its effect.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateStep {
    /// Accepted and written down.
    Assigned,
    /// Refreshing the signed metadata.
    Metadata,
    /// Looking whether it can be done: space, battery, nobody's transfer under way.
    Preflight,
    /// Fetching the image.
    Download,
    /// Comparing the image with the metadata.
    Verify,
    /// Waiting until an update is allowed.
    WaitWindow,
    /// The other slot is made the one to try next.
    Arm,
    /// Restarting into it.
    Reboot,
    /// Running it on trial.
    Trial,
    /// It has proved itself. Terminal.
    Committed,
    /// The old release runs again. Terminal.
    RolledBack,
    /// Given up before anything was changed. Terminal.
    Failed,
}

impl UpdateStep {
    /// Whether nothing follows.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Committed | Self::RolledBack | Self::Failed)
    }
}

/// How far an update has come.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct UpdateStatus {
    /// The command that assigned it.
    pub command: CommandId,
    /// The rollout that it belongs to.
    pub rollout: RolloutId,
    /// The release.
    pub version: String,
    /// The step that has been reached.
    pub step: UpdateStep,
    /// Why it failed or was rolled back: the check, and the end of its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Bytes fetched so far, while downloading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched_bytes: Option<u64>,
}
