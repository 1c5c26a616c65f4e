//! What boxes say, as the cloud hears it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use longhaul_protocol::backbone::EdgeId;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::topic::Up;
use tokio::sync::{Semaphore, mpsc};

/// One message, or will, of a box.
#[derive(Clone, Debug)]
pub struct Upward {
    /// Who sent it, by its certificate.
    pub box_id: BoxId,
    /// The channel it was published on.
    pub channel: Up,
    /// The message as it was sent; the edge does not look inside.
    pub payload: Bytes,
    /// When the edge took it.
    pub received: Instant,
    /// The edge that took it, where there may be several.
    pub edge: Option<EdgeId>,
}

/// The messages that the edge has accepted, in each box's order.
///
/// Taking one gives its room in the backlog back. What is not taken holds boxes up and, once the
/// backlog is full, is refused at the edge: nothing that was acknowledged to a box is dropped.
#[derive(Debug)]
pub struct Incoming {
    queue: mpsc::UnboundedReceiver<Upward>,
    credit: Arc<Semaphore>,
}

/// What a message of `payload_len` bytes takes of the backlog: no less than the backbone's log
/// counts for it, and about what it takes in memory.
pub(crate) fn cost(payload_len: usize) -> usize {
    payload_len + 640
}

impl Incoming {
    pub(crate) fn new(queue: mpsc::UnboundedReceiver<Upward>, credit: Arc<Semaphore>) -> Self {
        Self { queue, credit }
    }

    /// The next message; `None` once the edge has stopped and everything it accepted was taken.
    pub async fn recv(&mut self) -> Option<Upward> {
        let message = self.queue.recv().await?;
        self.credit.add_permits(cost(message.payload.len()));
        Some(message)
    }

    /// Appends up to `limit` messages to `into`, waiting for the first; returns how many, which is
    /// zero once the edge has stopped and everything was taken.
    pub async fn recv_many(&mut self, into: &mut Vec<Upward>, limit: usize) -> usize {
        let before = into.len();
        let taken = self.queue.recv_many(into, limit).await;
        let room = into[before..].iter().map(|m| cost(m.payload.len())).sum();
        self.credit.add_permits(room);
        taken
    }
}
