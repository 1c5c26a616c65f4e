//! What happens in the fleet, as it happens: for live views. Losing one is acceptable, the
//! database has it.

use std::borrow::Cow;

use longhaul_protocol::command::CommandKind;
use longhaul_protocol::ids::{BoxId, CommandId, ObjectKey, RolloutId};
use longhaul_protocol::release::UpdateStep;
use longhaul_protocol::telemetry::Telemetry;
use longhaul_protocol::value::UnixMillis;
use serde::{Deserialize, Serialize};

/// One happening.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct FleetEvent {
    /// The cloud's clock.
    pub at: UnixMillis,
    /// The box that it is about; absent for what concerns the whole fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub box_id: Option<BoxId>,
    /// What happened.
    #[serde(flatten)]
    pub kind: FleetEventKind,
}

/// What can happen.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum FleetEventKind {
    /// A box entered the inventory.
    BoxAdded,
    /// An operator gave a box another label or site.
    BoxLabelled,
    /// A box received a certificate.
    BoxEnrolled,
    /// A box was refused at enrolment, or quarantined.
    BoxRefused {
        /// Why.
        reason: String,
    },
    /// A box was thrown out.
    BoxRevoked,
    /// A box's session began.
    Online {
        /// Version of its agent.
        agent_version: String,
    },
    /// A box's session ended.
    Offline,
    /// A live sample.
    Telemetry {
        /// The sample.
        sample: Box<Telemetry>,
    },
    /// Journal entries were committed.
    Journal {
        /// Highest number that is committed.
        through: u64,
        /// How many entries were new.
        entries: usize,
    },
    /// The box says what it has made of the desired state.
    Reported {
        /// Telemetry interval in force.
        telemetry_interval_secs: u16,
    },
    /// A command changed.
    Command {
        /// Which.
        id: CommandId,
        /// Where it stands, as in the store.
        state: String,
        /// What it is; only when it is new.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<CommandKind>,
    },
    /// A bulk command was made, came further, or was taken back.
    Bulk {
        /// Which.
        id: String,
    },
    /// What needs two people was proposed, decided or ran out of time.
    Proposal {
        /// Which.
        id: String,
        /// Where it stands, as in the store.
        state: String,
    },
    /// An update took a step.
    Update {
        /// The rollout.
        rollout: RolloutId,
        /// The release.
        version: String,
        /// The step.
        step: UpdateStep,
    },
    /// An object is safe on the box.
    ObjectStored {
        /// The bucket that it is bound for.
        bucket: String,
        /// Its name.
        key: ObjectKey,
        /// Its length.
        bytes: u64,
    },
    /// A box destroyed the key of everything that it held for a bucket.
    BucketErased {
        /// The bucket.
        bucket: String,
        /// How many objects that were.
        objects: u64,
    },
    /// An object was verified in the bucket.
    ObjectVerified {
        /// The bucket.
        bucket: String,
        /// Its name.
        key: ObjectKey,
        /// Its length.
        bytes: u64,
    },
    /// An operator wants a box to use its way to the buckets otherwise.
    Uplink,
    /// An operator wants a box to try other network settings.
    Network,
    /// A ticket was made or revoked.
    Tickets,
    /// An alert opened, was taken up, or is over.
    Alert {
        /// Which.
        id: String,
        /// `opened`, `acknowledged` or `resolved`.
        change: Cow<'static, str>,
    },
    /// A rollout began or changed.
    Rollout {
        /// Which.
        id: RolloutId,
    },
}
