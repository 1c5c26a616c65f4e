//! What callers say to the fleet and get from it.

use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use longhaul_protocol::ids::{BoxId, CommandId, OrderId, RolloutId};
use longhaul_protocol::value::{Digest32, UnixMillis};

/// Who asks, for the audit: an operator's name, a token's, or a part of the cloud.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Actor(pub String);

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a new ticket is for.
#[derive(Clone, Debug)]
pub struct NewTicket {
    /// The box that it lets in to.
    pub box_id: BoxId,
    /// The order that it belongs to.
    pub order: Option<OrderId>,
    /// The bucket that objects go to.
    pub bucket: String,
    /// How long it is valid.
    pub valid_for_secs: u32,
}

/// A release that the signed repository offers.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Release {
    /// Its version, as in the target's custom metadata.
    pub version: String,
    /// The target's name.
    pub target: String,
    /// SHA-256 of the target.
    pub sha256: Digest32,
    /// Length of the target in bytes.
    pub length: u64,
}

/// A rollout to be started.
#[derive(Clone, Debug)]
pub struct NewRollout {
    /// The release's version.
    pub version: String,
    /// The boxes that shall run it.
    pub boxes: Vec<BoxId>,
    /// How long the assignment may be begun.
    pub valid_for_secs: u32,
}

/// How far one box of a rollout has come.
#[derive(Clone, Debug, serde::Serialize)]
pub struct RolloutBox {
    /// The box.
    pub box_id: BoxId,
    /// The command that assigned the release.
    pub command: CommandId,
    /// `offline`, `sent`, `expired`, `cancelled`, `failed` or the name of the update's step.
    pub state: String,
    /// The step that the box reported last: where it was when it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Why it failed, was rolled back or was not begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The agent's version when the rollout began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_before: Option<String>,
    /// The agent's version when the update ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_after: Option<String>,
    /// When the state was reached.
    pub since: UnixMillis,
}

/// A rollout and its boxes.
#[derive(Clone, Debug, serde::Serialize)]
pub struct RolloutView {
    /// Its name.
    pub id: RolloutId,
    /// The release's version.
    pub version: String,
    /// Who started it.
    pub started_by: String,
    /// When.
    pub started_at: UnixMillis,
    /// When it was aborted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aborted_at: Option<UnixMillis>,
    /// Who aborted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aborted_by: Option<String>,
    /// Its boxes.
    pub boxes: Vec<RolloutBox>,
}

/// An object in the bucket.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ObjectInfo {
    /// Its name.
    pub key: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// When it was written.
    pub modified: UnixMillis,
}

/// Some objects of a bucket, in the order of their keys.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct ObjectPage {
    /// The objects.
    pub objects: Vec<ObjectInfo>,
    /// Prefixes up to the delimiter, where one was asked for.
    pub prefixes: Vec<String>,
    /// Where to go on; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Which objects to list.
#[derive(Clone, Debug, Default)]
pub struct ObjectQuery {
    /// The bucket.
    pub bucket: String,
    /// What keys start with.
    pub prefix: String,
    /// Group keys at this text, mostly `/`.
    pub delimiter: Option<String>,
    /// [`ObjectPage::next`] of the page before.
    pub after: Option<String>,
    /// At the most, 1 to 1,000.
    pub limit: u16,
}

/// An object's bytes as they arrive.
pub type ObjectBody = Pin<Box<dyn Stream<Item = Result<Bytes, std::io::Error>> + Send>>;

/// An object that is being read.
pub struct OpenObject {
    /// Its length in bytes.
    pub bytes: u64,
    /// Its content type.
    pub content_type: Option<String>,
    /// Its bytes.
    pub body: ObjectBody,
}
