//! What boxes say over MQTT, taken down and answered.
//!
//! Messages are applied in groups: one transaction, then, once it is committed, what follows from
//! it: acknowledgements, resent commands, events. A message that is malformed is counted and
//! logged, never fatal; one that the database refuses is tried by itself, so that it takes no
//! other with it.

mod apply;
mod bring_up;
mod journal;

use longhaul_broker::{Incoming, Upward};
use longhaul_protocol::backbone::Call;
use longhaul_protocol::ids::{BoxId, EpochId};
use longhaul_protocol::journal::{JournalAck, JournalEntry};
use longhaul_protocol::topic::Dn;

use crate::fleet::{Fleet, FleetError, FleetEventKind};
use crate::store::Tx;

/// Messages in one transaction at the most.
const GROUP: usize = 256;

/// What follows from a message once it is committed.
enum Effect {
    /// Tell whoever watches.
    Tell(BoxId, FleetEventKind),
    /// Everything up to a number is safe; the box may forget it.
    Ack(BoxId, JournalAck),
    /// A session began: send what is open.
    Born {
        box_id: BoxId,
        /// The desired state that the box has applied.
        applied: u64,
    },
    /// The desired state changed: send it.
    Desired(BoxId),
}

/// Takes messages until the edge has stopped.
pub async fn run(fleet: Fleet, mut incoming: Incoming) {
    let mut group = Vec::with_capacity(GROUP);
    loop {
        group.clear();
        if incoming.recv_many(&mut group, GROUP).await == 0 {
            return;
        }
        if fleet.db().is_shared() {
            // Rows are locked in one order by all who take messages; each box's own order stays.
            group.sort_by(|a: &Upward, b| a.box_id.cmp(&b.box_id));
        }
        let effects = match take(&fleet, &group).await {
            Ok(effects) => effects,
            Err(error) if group.len() == 1 => {
                failed(&group[0], &error);
                continue;
            }
            Err(_) => one_by_one(&fleet, &group).await,
        };
        for effect in effects {
            carry_out(&fleet, effect).await;
        }
    }
}

/// Takes entries of a box's journal that came by file, all or none; yields the highest number without
/// a gap below it, and how many were new.
pub(crate) async fn take_file(
    fleet: &Fleet,
    box_id: &BoxId,
    epoch: &EpochId,
    entries: &[JournalEntry],
) -> Result<(u64, usize), FleetError> {
    let mut effects = Vec::new();
    let mut tx: Tx = fleet.db().write().await?;
    let of = (box_id, epoch);
    let done = journal::commit_file(fleet, &mut tx, of, entries, &mut effects).await?;
    tx.commit().await?;
    for effect in effects {
        carry_out(fleet, effect).await;
    }
    Ok(done)
}

async fn take(fleet: &Fleet, group: &[Upward]) -> Result<Vec<Effect>, FleetError> {
    let mut effects = Vec::new();
    let mut tx: Tx = fleet.db().write().await?;
    for message in group {
        apply::apply(fleet, &mut tx, message, &mut effects).await?;
    }
    tx.commit().await?;
    Ok(effects)
}

async fn one_by_one(fleet: &Fleet, group: &[Upward]) -> Vec<Effect> {
    let mut effects = Vec::new();
    for message in group {
        match take(fleet, std::slice::from_ref(message)).await {
            Ok(more) => effects.extend(more),
            Err(error) => failed(message, &error),
        }
    }
    effects
}

/// Nothing was acknowledged: what matters is in the box's journal and comes again.
fn failed(message: &Upward, error: &FleetError) {
    tracing::error!(
        box_id = %message.box_id,
        channel = message.channel.as_str(),
        error = error as &dyn std::error::Error,
        "a message could not be taken down"
    );
}

async fn carry_out(fleet: &Fleet, effect: Effect) {
    let (box_id, result) = match effect {
        Effect::Tell(box_id, kind) => {
            fleet.tell(Some(&box_id), kind);
            return;
        }
        Effect::Ack(box_id, ack) => {
            // A lost acknowledgement is repeated when the batch comes again.
            fleet.publish(&box_id, Dn::Ack, &ack);
            return;
        }
        Effect::Born { box_id, applied } => {
            let line = fleet.line();
            if !line.holds(&box_id) && line.call(&box_id, Call::Born { applied }) {
                return;
            }
            let result = fleet.born(&box_id, applied).await;
            (box_id, result)
        }
        Effect::Desired(box_id) => {
            let result = fleet.desired_send(&box_id, None).await;
            (box_id, result)
        }
    };
    if let Err(error) = result {
        tracing::error!(
            %box_id,
            error = &error as &dyn std::error::Error,
            "failed to send what is open; the next birth repeats it"
        );
    }
}
