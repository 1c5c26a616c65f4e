//! Birth and death of a box's MQTT session.

use serde::{Deserialize, Serialize};

use crate::diag::RungReport;
use crate::envelope::Message;
use crate::ids::{BootId, EpochId, SessionId};
use crate::value::UnixMillis;

/// What a box says first, and what its will says for it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Presence {
    /// The session has begun.
    Birth(Birth),
    /// The session has ended; ignored unless it is the session of the last birth.
    Death(Death),
}

impl Message for Presence {
    const NAME: &'static str = "presence";
}

/// The first message of a session.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Birth {
    /// The session that begins.
    pub session: SessionId,
    /// The boot that it runs in.
    pub boot: BootId,
    /// Life of the journal that the box writes now.
    pub epoch: EpochId,
    /// Version of the agent that runs.
    pub agent_version: String,
    /// Version of the operating system image, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// What this agent can do, by name; a cloud asks for nothing else.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Version of the desired state that the box has applied; 0 for none.
    pub desired_version: u64,
    /// When the box's certificate expires.
    pub certificate_expires: UnixMillis,
    /// Where the data plane can be reached on the LAN, as `https://address:port`.
    #[serde(default)]
    pub lan_urls: Vec<String>,
    /// How the box came online: the ladder as it was at the birth.
    #[serde(default)]
    pub rungs: Vec<RungReport>,
}

/// The end of a session: the will, or a farewell.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Death {
    /// The session that ended.
    pub session: SessionId,
    /// Why, where the box could say it itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
