//! The fleet: what operators and the boxes' port ask for, carried out.
//!
//! Every change is committed before it takes effect: a command is in the database before it is
//! published, a revocation before the connection is cut. Whatever is lost after the commit is
//! repeated at the box's next birth.

mod error;
mod event;

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use longhaul_protocol::command::CommandKind;
use longhaul_protocol::ids::{BoxId, CommandId, ObjectKey, OrderId, RolloutId, TicketId};
use longhaul_protocol::ticket::Ticket;
use longhaul_protocol::value::{Digest32, Jws, UnixMillis};
use tokio::sync::broadcast;

pub use error::{FleetError, FleetErrorKind};
pub use event::{FleetEvent, FleetEventKind};

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
    /// `offline`, `sent`, `expired`, `refused` or the name of the update's step.
    pub state: String,
    /// Why it failed or was rolled back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
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

/// The handle on everything; cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    inner: Arc<Inner>,
}

struct Inner {
    events: broadcast::Sender<FleetEvent>,
}

macro_rules! not_running {
    ($($arg:ident),*) => {{ $(let _ = $arg;)* Err(FleetError::unavailable("the fleet is still starting")) }};
}

#[expect(
    clippy::unused_async,
    reason = "the parts that they will wait for are landing"
)]
impl Fleet {
    /// Takes a box into the inventory; the record must be signed by the factory.
    pub async fn inventory_import(&self, actor: &Actor, record: &Jws) -> Result<BoxId, FleetError> {
        not_running!(actor, record)
    }

    /// Signs, stores and publishes a command. It is sent again at every birth until the box has
    /// answered or it has expired.
    pub async fn command_send(
        &self,
        actor: &Actor,
        box_id: &BoxId,
        command: CommandKind,
        valid_for_secs: u32,
    ) -> Result<CommandId, FleetError> {
        not_running!(actor, box_id, command, valid_for_secs)
    }

    /// Stops sending a command that the box has not answered.
    pub async fn command_cancel(&self, actor: &Actor, id: &CommandId) -> Result<(), FleetError> {
        not_running!(actor, id)
    }

    /// Throws a box out: no certificate any more, and its connection is cut at once.
    pub async fn box_revoke(&self, actor: &Actor, box_id: &BoxId) -> Result<(), FleetError> {
        not_running!(actor, box_id)
    }

    /// Makes a ticket: a random S3 key pair for one box and one bucket.
    pub async fn ticket_create(
        &self,
        actor: &Actor,
        ticket: NewTicket,
    ) -> Result<Ticket, FleetError> {
        not_running!(actor, ticket)
    }

    /// The ticket as the customer downloads it, with its secret.
    pub async fn ticket_file(&self, actor: &Actor, id: &TicketId) -> Result<Ticket, FleetError> {
        not_running!(actor, id)
    }

    /// Ends a ticket.
    pub async fn ticket_revoke(&self, actor: &Actor, id: &TicketId) -> Result<(), FleetError> {
        not_running!(actor, id)
    }

    /// The releases that the signed repository offers, newest last.
    pub async fn releases_list(&self) -> Result<Vec<Release>, FleetError> {
        not_running!()
    }

    /// Assigns a release to boxes.
    pub async fn rollout_start(
        &self,
        actor: &Actor,
        rollout: NewRollout,
    ) -> Result<RolloutId, FleetError> {
        not_running!(actor, rollout)
    }

    /// A rollout and how far each of its boxes has come.
    pub async fn rollout_get(&self, id: &RolloutId) -> Result<RolloutView, FleetError> {
        not_running!(id)
    }

    /// Buckets that exist.
    pub async fn buckets_list(&self) -> Result<Vec<String>, FleetError> {
        not_running!()
    }

    /// Objects as the bucket has them.
    pub async fn objects_list(&self, query: &ObjectQuery) -> Result<ObjectPage, FleetError> {
        not_running!(query)
    }

    /// Opens an object for reading.
    pub async fn object_open(
        &self,
        bucket: &str,
        key: &ObjectKey,
    ) -> Result<OpenObject, FleetError> {
        not_running!(bucket, key)
    }

    /// Deletes an object from the bucket.
    pub async fn object_delete(
        &self,
        actor: &Actor,
        bucket: &str,
        key: &ObjectKey,
    ) -> Result<(), FleetError> {
        not_running!(actor, bucket, key)
    }

    /// What happens from now on. A reader that falls behind loses events.
    pub fn events(&self) -> broadcast::Receiver<FleetEvent> {
        self.inner.events.subscribe()
    }
}
