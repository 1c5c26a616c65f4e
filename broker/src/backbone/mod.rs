//! What stands behind the edge: it carries messages from boxes to the cloud.

mod credit;
mod hub_message;
pub mod nats;
pub mod router;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::topic::Up;
use tokio_util::sync::DropGuard;

pub use credit::{Bank, Credit};

use crate::registry::Handle;

/// A message of a box, on its way into the backbone.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub box_id: &'a BoxId,
    pub channel: Up,
    pub payload: &'a [u8],
    pub received: Instant,
}

/// The future of room in the backbone.
pub type Reserving = Pin<Box<dyn Future<Output = Option<Credit>> + Send>>;

/// Carries messages between boxes and the cloud, in each box's order.
///
/// Room is reserved first and then used, so a message that was accepted always fits.
pub trait Backbone: Send + Sync + 'static {
    /// Room for a message of `payload_len` bytes, if there is some now.
    fn try_reserve(&self, payload_len: usize) -> Option<Credit>;

    /// Whether so much room is left that messages which may be lost need not be.
    fn has_spare(&self) -> bool;

    /// Waits for room, behind whoever already waits; `None` if the backbone has ended.
    fn reserve(&self, payload_len: usize) -> Reserving;

    /// Takes a message over. It may be acknowledged to the box now.
    fn submit(&self, message: Message<'_>, credit: Credit);

    /// A box has its seat here: what is sent to it elsewhere is to reach `handle`, until the guard
    /// is dropped.
    fn seat(&self, _box_id: &BoxId, _handle: &Arc<Handle>) -> Option<DropGuard> {
        None
    }
}

/// Why the backbone ended by itself. The process should end too: what was accepted and is not
/// yet stored by the cloud is sent again by the boxes, from their journals.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BackboneError {
    /// The router's thread ended.
    #[error("the message router died")]
    RouterDied,
    /// The router did not carry a test message in time.
    #[error("the message router has not answered for {0} s")]
    RouterStalled(u64),
    /// The router dropped messages that it had accepted.
    #[error("the message router lost {0} messages")]
    RouterLost(u64),
    /// The router handed out something that was not put in.
    #[error("the message router garbled a message")]
    RouterGarbled,
    /// Whoever reads the messages has gone.
    #[error("nobody takes the boxes' messages any more")]
    ConsumerGone,
    /// The NATS cluster does not allow what this role needs.
    #[error("the NATS cluster refused: {0}")]
    NotAllowed(String),
}
