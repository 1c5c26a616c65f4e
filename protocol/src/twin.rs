//! Desired and reported state.

use serde::{Deserialize, Serialize};

use crate::envelope::Message;
use crate::ids::{BoxId, TicketId};
use crate::journey::{Guide, known_guide};
use crate::network_settings::{NetworkReport, NetworkWish};
use crate::uplink::{UplinkPolicy, UplinkState};
use crate::value::{Jws, UnixMillis};

/// What the cloud wants of a box: always the full document, never a difference.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Desired {
    /// Version of this format; see [`crate::envelope::VERSION`].
    pub v: u16,
    /// The one box that it is for.
    pub box_id: BoxId,
    /// Rises with every change; a box ignores one that is not newer than what it has.
    pub version: u64,
    /// Telemetry interval, 1 to 3,600 seconds.
    pub telemetry_interval_secs: u16,
    /// Tickets that may write to the box. Their secrets travel over HTTPS only: a ticket that the
    /// box does not hold yet makes it fetch them.
    #[serde(default)]
    pub tickets: Vec<TicketRef>,
    /// How the box shall use its way to the buckets.
    #[serde(default, skip_serializing_if = "UplinkPolicy::is_default")]
    pub uplink: UplinkPolicy,
    /// The last change of the box's own network settings that the cloud wants; absent: none ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkWish>,
    /// Why the cloud holds the box back: it has no tickets, and delivers nothing, until somebody has
    /// looked. Absent where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// Where the customer is on their way, and what to do there.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "known_guide"
    )]
    pub journey: Option<Guide>,
}

/// A ticket without its secret.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TicketRef {
    /// Which ticket.
    pub id: TicketId,
    /// Its public half.
    pub access_key: String,
    /// When it ends.
    pub expires: UnixMillis,
}

/// Desired state on its way, signed like a command.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SignedDesired {
    /// [`Desired`] as JSON under an Ed25519 signature.
    pub jws: Jws,
}

impl Message for SignedDesired {
    const NAME: &'static str = "signed desired state";
}

/// What the box has made of the desired state.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Reported {
    /// The version of the desired state that this answers; 0 for none.
    pub desired_version: u64,
    /// Telemetry interval in force, in seconds.
    pub telemetry_interval_secs: u16,
    /// Version of the agent that runs.
    pub agent_version: String,
    /// Versions in the slots; `active` runs.
    pub slots: Slots,
    /// Tickets that the box accepts.
    #[serde(default)]
    pub tickets: Vec<TicketId>,
    /// Where the data plane can be reached on the LAN.
    #[serde(default)]
    pub lan_urls: Vec<String>,
    /// Parts of the desired state that could not be applied, and why.
    #[serde(default)]
    pub problems: Vec<String>,
    /// What is in force on its way to the buckets; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<UplinkState>,
    /// The last change of its own network settings, whoever made it; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkReport>,
}

impl Message for Reported {
    const NAME: &'static str = "reported state";
}

/// What is installed.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Slots {
    /// `a` or `b`.
    pub active: String,
    /// Version in slot a.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub a: Option<String>,
    /// Version in slot b.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub b: Option<String>,
}
