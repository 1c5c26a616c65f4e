//! The fleet: what operators and the boxes' port ask for, carried out.
//!
//! Every change is committed before it takes effect: a command is in the database before it is
//! published, a revocation before the connection is cut. Whatever is lost after the commit is
//! repeated at the box's next birth.

mod admission;
mod alerts;
mod boxes;
mod bulk;
mod commands;
mod desired;
mod destinations;
mod enrolment;
mod error;
mod event;
mod lan;
mod line;
mod network;
mod networks;
mod objects;
mod offline;
mod orphans;
mod proposals;
mod receipts;
mod releases;
mod rollouts;
mod states;
mod tickets;
mod uplink;
mod view;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use longhaul_broker::Delivery;
use longhaul_protocol::envelope::{self, Message};
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::inventory::CloudEndpoint;
use longhaul_protocol::topic::Dn;
use longhaul_protocol::value::UnixMillis;
use tokio::sync::{Mutex, MutexGuard, Notify, broadcast};

pub use admission::Admitted;
pub use alerts::NewChannel;
pub use bulk::{Blast, BulkError, NewBulk};
pub(crate) use commands::{command_end, rollout_end};
pub(crate) use desired::Wish;
pub use destinations::Destination;
pub(crate) use destinations::{abilities, held};
pub use error::{FleetError, FleetErrorKind};
pub use event::{FleetEvent, FleetEventKind};
pub(crate) use lan::is_local;
pub use line::Line;
pub use network::SiteNetwork;
pub use networks::{MAX_PROBE_SECS, OrderNetwork, Said};
pub use offline::{JournalTaken, OfflineAnswer};
pub use proposals::{MAX_DECIDE_SECS, NewProposal, Person};
pub use receipts::{ReceiptPage, ReceiptQuery};
pub use rollouts::MAX_ROLLOUT_BOXES;
pub(crate) use rollouts::rollout_view;
pub use uplink::Uplink;
pub use view::{
    Actor, NewRollout, NewTicket, ObjectBody, ObjectInfo, ObjectPage, ObjectQuery, OpenObject,
    Release, RolloutBox, RolloutView,
};

use crate::alerts::address::Reach;
use crate::clock::Clock;
use crate::identity::CloudIdentity;
use crate::objects::bucket::Buckets;
use crate::store::audit::{AuditEntry, audit_append};
use crate::store::boxes::BoxState;
use crate::store::seal::SealKey;
use crate::store::{Db, StoreError, Tx};
use crate::unpack::Wake;

/// Events that a slow reader may be behind before it loses some.
const EVENTS_BEHIND: usize = 4096;
/// Boxes share this many locks.
const LOCKS: usize = 64;

/// What the fleet is made of.
pub struct FleetParts {
    /// Where people reach the cloud, as it stands in tickets.
    pub people_url: String,
    /// The database.
    pub db: Db,
    /// The clock.
    pub clock: Clock,
    /// The authorities and the cloud's keys.
    pub identity: Arc<CloudIdentity>,
    /// Seals secrets in the database.
    pub seal: SealKey,
    /// The way to boxes and to other processes.
    pub line: Line,
    /// Who the edge lets in.
    pub admitted: Arc<Admitted>,
    /// The object store.
    pub buckets: Buckets,
    /// Region of the object store, for tickets.
    pub region: String,
    /// The signed repository of releases.
    pub tuf_dir: PathBuf,
    /// Where boxes reach the cloud, first choice first.
    pub endpoints: Vec<CloudEndpoint>,
    /// Where webhooks may go.
    pub reach: Reach,
    /// Whether commands are traced.
    pub traced: bool,
}

/// The handle on everything; cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    inner: Arc<Inner>,
}

struct Inner {
    parts: FleetParts,
    events: broadcast::Sender<FleetEvent>,
    unpack: Wake,
    /// Rings when a bulk command is to be sent.
    bulk: Notify,
    /// Held from drawing a counter until the message is queued, so that what a box gets rises.
    locks: Vec<Mutex<()>>,
}

impl Fleet {
    /// Puts the parts together.
    pub fn new(parts: FleetParts) -> Self {
        let (events, _) = broadcast::channel(EVENTS_BEHIND);
        let locks = (0..LOCKS).map(|_| Mutex::new(())).collect();
        Self {
            inner: Arc::new(Inner {
                parts,
                events,
                unpack: Wake::default(),
                bulk: Notify::new(),
                locks,
            }),
        }
    }

    /// What happens from now on. A reader that falls behind loses events.
    pub fn events(&self) -> broadcast::Receiver<FleetEvent> {
        self.inner.events.subscribe()
    }

    /// Where people reach the cloud.
    pub fn people_url(&self) -> &str {
        &self.inner.parts.people_url
    }

    /// The database.
    pub fn db(&self) -> &Db {
        &self.inner.parts.db
    }

    /// The time.
    pub fn now(&self) -> UnixMillis {
        self.inner.parts.clock.now()
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.inner.parts.clock
    }

    /// The authorities and the cloud's keys.
    pub fn identity(&self) -> &CloudIdentity {
        &self.inner.parts.identity
    }

    pub(crate) fn identity_shared(&self) -> &Arc<CloudIdentity> {
        &self.inner.parts.identity
    }

    /// Who the edge lets in.
    pub fn admitted(&self) -> &Admitted {
        &self.inner.parts.admitted
    }

    /// The object store.
    pub fn buckets(&self) -> &Buckets {
        &self.inner.parts.buckets
    }

    /// Wakes who takes packs apart.
    pub fn unpack_wake(&self) -> &Wake {
        &self.inner.unpack
    }

    /// The signed repository of releases.
    pub fn tuf_dir(&self) -> &std::path::Path {
        &self.inner.parts.tuf_dir
    }

    /// Where boxes reach the cloud, first choice first.
    pub fn endpoints(&self) -> &[CloudEndpoint] {
        &self.inner.parts.endpoints
    }

    pub(crate) fn seal(&self) -> &SealKey {
        &self.inner.parts.seal
    }

    /// Whether commands are traced.
    pub(crate) fn traced(&self) -> bool {
        self.inner.parts.traced
    }

    pub(crate) fn line(&self) -> &Line {
        &self.inner.parts.line
    }

    /// Tells whoever listens.
    pub(crate) fn tell(&self, box_id: Option<&BoxId>, kind: FleetEventKind) {
        let event = FleetEvent {
            at: self.now(),
            box_id: box_id.cloned(),
            kind,
        };
        // It comes back from there, to this process as to every other.
        if let Some(bus) = self.line().bus() {
            match serde_json::to_vec(&event) {
                Ok(text) => bus.tell_event(text),
                Err(error) => tracing::error!(%error, "failed to encode an event"),
            }
            return;
        }
        self.tell_here(event);
    }

    /// Tells whoever listens in this process.
    pub(crate) fn tell_here(&self, event: FleetEvent) {
        // Nobody listening is fine.
        let _ = self.inner.events.send(event);
    }

    /// Takes over a box's state, which the database has, here and in every other process.
    pub(crate) fn admit_as(&self, box_id: &BoxId, state: BoxState) {
        self.admitted().set(box_id, state);
        self.tell_states();
    }

    /// Tells every other process to look at boxes' states.
    pub(crate) fn tell_states(&self) {
        if let Some(bus) = self.line().bus() {
            bus.tell_states();
        }
    }

    /// Sends all that is open to a box whose session begins here.
    pub(crate) async fn born(&self, box_id: &BoxId, applied: u64) -> Result<(), FleetError> {
        let desired = self.desired_send(box_id, Some(applied)).await;
        let commands = self.commands_resend(box_id).await;
        desired.and(commands)
    }

    async fn lock(&self, box_id: &BoxId) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        box_id.hash(&mut hasher);
        let at = usize::try_from(hasher.finish() % LOCKS as u64).unwrap_or(0);
        self.inner.locks[at].lock().await
    }

    /// Queues a message for a box if it is connected; `false` if it must wait for its birth.
    pub(crate) fn publish<T: Message>(&self, box_id: &BoxId, channel: Dn, body: &T) -> bool {
        let payload = match envelope::encode(body, self.now()) {
            Ok(payload) => payload,
            Err(error) => {
                tracing::error!(%box_id, error = &error as &dyn std::error::Error, "failed to encode");
                return false;
            }
        };
        match self.line().publish(box_id, channel, Bytes::from(payload)) {
            Delivery::Queued => true,
            Delivery::NotConnected => false,
            refused => {
                tracing::warn!(%box_id, channel = channel.as_str(), ?refused, "message waits for the next birth");
                false
            }
        }
    }
}

/// Takes down who did what, in the transaction of the deed.
async fn audit(
    tx: &mut Tx,
    actor: &Actor,
    action: &str,
    subject: &str,
    detail: serde_json::Value,
    now: UnixMillis,
) -> Result<(), FleetError> {
    let entry = AuditEntry {
        actor: &actor.0,
        action,
        subject,
        detail: &detail,
    };
    audit_append(tx, entry, now.0).await?;
    Ok(())
}

impl From<StoreError> for FleetError {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::KeyTaken) {
            return Self::conflict(error.to_string());
        }
        Self::internal("the database failed", error)
    }
}

/// A fresh identifier that parses as `T`.
fn fresh<T: std::str::FromStr>(prefix: &str) -> Result<T, FleetError>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    crate::store::new_id(prefix)
        .parse()
        .map_err(|e: T::Err| FleetError::internal("failed to make an identifier", e))
}
