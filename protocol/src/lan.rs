//! What the box says over HTTPS on the LAN beside S3.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::diag::RungReport;
use crate::ids::{BoxId, ObjectKey};
use crate::telemetry::VaultFill;

/// `GET` here without log-in; answers [`LanStatus`].
pub const STATUS_PATH: &str = "/longhaul/v1/status";
/// `POST` here with [`DeliveryQuery`] and the ticket's key pair as HTTP Basic; answers [`Deliveries`].
pub const DELIVERY_PATH: &str = "/longhaul/v1/delivery";

/// Keys in one query at the most.
pub const MAX_KEYS: usize = 1000;

/// The box at a glance; says nothing about anybody's files.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LanStatus {
    /// Version of this format; see [`crate::envelope::VERSION`].
    pub v: u16,
    /// Which box this is.
    pub box_id: BoxId,
    /// Version of its agent.
    pub agent_version: String,
    /// The ladder.
    pub rungs: Vec<RungReport>,
    /// The store.
    pub vault: VaultFill,
    /// Whether it is being identified right now.
    pub identifying: bool,
}

/// Asks how far objects have come.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DeliveryQuery {
    /// The bucket.
    pub bucket: String,
    /// 1 to [`MAX_KEYS`] keys.
    pub keys: Vec<ObjectKey>,
}

/// How far each object has come; a key that the box does not hold is absent.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Deliveries {
    /// State by key.
    pub objects: BTreeMap<ObjectKey, Delivery>,
}

/// How far one object has come.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Delivery {
    /// Safe on the box.
    OnBox,
    /// On its way.
    InFlight,
    /// In the bucket, not yet compared.
    InCloud,
    /// In the bucket, compared.
    Verified,
    /// Needs someone's help.
    Failed {
        /// What failed, and what to do.
        reason: String,
    },
}
