//! The other kind: a NATS cluster, with many edges before and many workers behind it.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use longhaul_protocol::backbone::{self as wire, Call, Down, EdgeId};
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::topic::Dn;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::{Backbone, BackboneError, Bank, Credit, Message, Reserving};
use crate::bus::{Bus, BusError};
use crate::incoming::cost;
use crate::mailbox::Delivery;
use crate::reason::Reason;
use crate::registry::{Handle, Registry};

/// Calls that wait for this edge.
const CALLS: usize = 16 * 1024;

/// What boxes said and the edge has not handed to the client yet.
struct Outgoing {
    subject: String,
    frame: Bytes,
    cost: usize,
}

/// An edge's way into the cluster.
#[derive(Debug)]
pub struct NatsBackbone {
    bus: Bus,
    edge: EdgeId,
    bank: Bank,
    out: mpsc::UnboundedSender<Outgoing>,
    calls: mpsc::Sender<(BoxId, Call)>,
    seats: TaskTracker,
}

/// What carries messages into the cluster; must be run for them to leave.
pub struct NatsOutlet {
    bus: Bus,
    edge: EdgeId,
    bank: Bank,
    queue: mpsc::UnboundedReceiver<Outgoing>,
    claims: async_nats::Subscriber,
}

/// What the cluster asks of this edge.
pub type Calls = mpsc::Receiver<(BoxId, Call)>;

pub async fn start(
    bus: Bus,
    edge: EdgeId,
    backlog_bytes: usize,
) -> Result<(NatsBackbone, NatsOutlet, Calls), BusError> {
    let claims = bus.subscribe(wire::ALL_SEATS).await?;
    let bank = Bank::new(backlog_bytes);
    // Unbounded in form; in fact the bank bounds it.
    let (out, queue) = mpsc::unbounded_channel();
    let (calls, called) = mpsc::channel(CALLS);
    let outlet = NatsOutlet {
        bus: bus.clone(),
        edge,
        bank: bank.clone(),
        queue,
        claims,
    };
    let backbone = NatsBackbone {
        bus,
        edge,
        bank,
        out,
        calls,
        seats: TaskTracker::new(),
    };
    Ok((backbone, outlet, called))
}

impl Backbone for NatsBackbone {
    fn try_reserve(&self, payload_len: usize) -> Option<Credit> {
        self.bank.try_reserve(payload_len)
    }

    fn has_spare(&self) -> bool {
        self.bank.has_spare()
    }

    fn reserve(&self, payload_len: usize) -> Reserving {
        self.bank.reserve(payload_len)
    }

    fn submit(&self, message: Message<'_>, credit: Credit) {
        credit.spend();
        // Fails only when the outlet is gone, which ends the process.
        let _ = self.out.send(Outgoing {
            subject: wire::up_subject(message.box_id, message.channel),
            frame: wire::up_frame(self.edge, message.payload).into(),
            cost: cost(message.payload.len()),
        });
    }

    fn seat(&self, box_id: &BoxId, handle: &Arc<Handle>) -> Option<DropGuard> {
        let left = CancellationToken::new();
        let seat = Seated {
            bus: self.bus.clone(),
            box_id: box_id.clone(),
            handle: Arc::clone(handle),
            calls: self.calls.clone(),
        };
        self.bus
            .post(wire::seat_subject(box_id), wire::seat_frame(self.edge));
        let until = left.clone();
        self.seats.spawn(async move {
            until.run_until_cancelled(seat.listen()).await;
        });
        Some(left.drop_guard())
    }
}

/// Takes what the cloud sends to one box, for as long as it sits here.
struct Seated {
    bus: Bus,
    box_id: BoxId,
    handle: Arc<Handle>,
    calls: mpsc::Sender<(BoxId, Call)>,
}

impl Seated {
    async fn listen(self) {
        let subject = wire::dn_subject(&self.box_id);
        let Ok(mut letters) = self.bus.client().subscribe(subject).await else {
            // A box that cannot be reached is better off elsewhere.
            self.handle.end(Reason::ServerBusy);
            return;
        };
        while let Some(message) = letters.next().await {
            match wire::parse_down(&message.payload) {
                Some(Down::Forward(channel @ (Dn::Ack | Dn::Desired), payload)) => {
                    let payload = message.payload.slice_ref(payload);
                    if self.handle.mailbox.push(channel, payload) == Delivery::Full {
                        tracing::warn!(box_id = %self.box_id, "a box takes no more; it is sent again");
                    }
                }
                Some(Down::Call(call)) => {
                    // What is left out here is found by the edge's next look into the database.
                    if self.calls.try_send((self.box_id.clone(), call)).is_err() {
                        self.bus.watched().dropped();
                    }
                }
                // Commands come out of the database, in their order, not from here.
                Some(Down::Forward(..)) | None => self.bus.watched().garbled(),
            }
        }
    }
}

impl NatsOutlet {
    /// Carries messages until the edge has ended, or the cluster does not allow it.
    pub async fn run(
        mut self,
        registry: Arc<Registry>,
        end: CancellationToken,
    ) -> Result<(), BackboneError> {
        let bus = self.bus.clone();
        let result = tokio::select! {
            failure = bus.failed() => Err(failure),
            ended = self.carry(&registry, &end) => ended,
        };
        // Nobody should wait for room that will never come.
        self.bank.close();
        result
    }

    async fn carry(
        &mut self,
        registry: &Registry,
        end: &CancellationToken,
    ) -> Result<(), BackboneError> {
        loop {
            tokio::select! {
                biased;
                next = self.queue.recv() => match next {
                    Some(next) => self.send(next).await,
                    None => return Err(BackboneError::ConsumerGone),
                },
                claim = self.claims.next() => match claim {
                    Some(claim) => self.claimed(registry, &claim),
                    None => return Err(BackboneError::ConsumerGone),
                },
                // Last of all: what was accepted goes out before the end does.
                () = end.cancelled() => {
                    let _ = self.bus.flush().await;
                    return Ok(());
                }
            }
        }
    }

    async fn send(&self, next: Outgoing) {
        // It waits while there is no server: the backlog fills, and boxes are told to come later.
        if self
            .bus
            .client()
            .publish(next.subject, next.frame)
            .await
            .is_err()
        {
            self.bus.watched().dropped();
        }
        self.bank.semaphore().add_permits(next.cost);
    }

    /// Another edge has a box's newer session: the one here ends.
    fn claimed(&self, registry: &Registry, claim: &async_nats::Message) {
        let parsed =
            wire::parse_seat(claim.subject.as_str()).zip(wire::parse_up_frame(&claim.payload));
        let Some((box_id, edge)) = parsed else {
            self.bus.watched().garbled();
            return;
        };
        if edge != self.edge
            && let Some(handle) = registry.get(&box_id)
        {
            handle.end(Reason::SessionTakenOver);
        }
    }
}
