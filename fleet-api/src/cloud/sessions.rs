//! Who is online, where several edges share a database; and what gets through to an edge although
//! messages between the processes may be lost.
//!
//! Each edge extends its time in the database. Whose time is over holds no session any more: one of
//! the workers takes that down. And each edge compares what the database says of its boxes with the
//! boxes that it holds, so that a lost birth, death or takeover does not stay.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt as _;
use longhaul_broker::{Calls, Edge, Reason};
use longhaul_protocol::backbone::Call;
use longhaul_protocol::ids::BoxId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::fleet::{Fleet, FleetError, FleetEventKind};
use crate::store::boxes::BoxState;
use crate::store::edges::{
    box_states_since, edge_box_set, edge_boxes, edge_end, edge_extend, edge_orphans_end,
    edge_prune, edge_undesired, edge_unsent,
};
use crate::store::presence::{PresenceKind, presence_insert};

/// How long an edge that was killed counts as alive, in milliseconds.
const HELD_MS: i64 = 6_000;
const BEAT: Duration = Duration::from_secs(2);
/// Beats between two comparisons.
const COMPARE: u32 = 4;
/// A box that came in so long ago, and whose birth the database does not have, is sent away to come
/// again: its birth was lost.
const BORN: Duration = Duration::from_secs(15);
/// Boxes sent away at a time: their births may only be late.
const SENT_AWAY: usize = 50;
/// Boxes that are looked after at a time.
const LOOKED_AFTER: u32 = 500;
/// What was written so long ago was lost on its way, in milliseconds.
const LOST_MS: i64 = 4_000;
/// A desired state that a box does not take is sent again for so long, in milliseconds.
const INSIST_MS: i64 = 120_000;
/// States are read from so long before the last look: clocks differ, in milliseconds.
const OVERLAP_MS: i64 = 60_000;
const STATES: Duration = Duration::from_millis(500);
/// Edges that ended are remembered for a day, in milliseconds.
const REMEMBERED_MS: i64 = 86_400_000;
/// Calls that are answered at a time.
const AT_ONCE: usize = 8;

/// Says that this edge lives, and keeps the database and its boxes in step; until `stop`.
pub(super) async fn hold(fleet: Fleet, edge: Edge, stop: CancellationToken) {
    let mut tick = tokio::time::interval(BEAT);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut missing = BTreeSet::new();
    for beat in 0_u32.. {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = tick.tick() => {}
        }
        note("saying that this edge lives", live(&fleet, &edge).await);
        note("looking for what was lost", send_lost(&fleet).await);
        if beat % COMPARE == 0 {
            match compare(&fleet, &edge, &missing).await {
                Ok(now_missing) => missing = now_missing,
                Err(error) => note("comparing sessions", Err(error)),
            }
        }
    }
    let ended = async {
        let mut tx = fleet.db().write().await?;
        edge_end(&mut tx, fleet.line().name()).await?;
        tx.commit().await?;
        Ok(())
    };
    note("saying that this edge ends", ended.await);
}

async fn live(fleet: &Fleet, edge: &Edge) -> Result<(), FleetError> {
    let (name, now) = (fleet.line().name(), fleet.now().0);
    let mut tx = fleet.db().write().await?;
    let lived = edge_extend(&mut tx, name, now.saturating_add(HELD_MS), now).await?;
    let mut back = Vec::new();
    if !lived {
        // The database was away for so long that others took this edge for dead.
        for box_id in edge.connected() {
            if edge_box_set(&mut tx, name, &box_id, true, now).await? {
                back.push(box_id);
            }
        }
    }
    tx.commit().await?;
    for box_id in back {
        tracing::info!(%box_id, "the box was online all the time");
    }
    Ok(())
}

/// Sends commands and desired states again whose way to this edge was not found.
async fn send_lost(fleet: &Fleet) -> Result<(), FleetError> {
    let (name, now) = (fleet.line().name(), fleet.now().0);
    let before = now.saturating_sub(LOST_MS);
    let mut tx = fleet.db().read().await?;
    let unsent = edge_unsent(&mut tx, name, before, now, LOOKED_AFTER).await?;
    let range = (now.saturating_sub(INSIST_MS), before);
    let undesired = edge_undesired(&mut tx, name, range, LOOKED_AFTER).await?;
    drop(tx);
    for box_id in unsent {
        fleet.commands_push(&box_id).await?;
    }
    for box_id in undesired {
        fleet.desired_send(&box_id, None).await?;
    }
    Ok(())
}

/// Yields the boxes that the database has here and this edge has not; those that were missing the
/// last time too are offline.
async fn compare(
    fleet: &Fleet,
    edge: &Edge,
    missing: &BTreeSet<BoxId>,
) -> Result<BTreeSet<BoxId>, FleetError> {
    let (name, now) = (fleet.line().name(), fleet.now().0);
    let mut tx = fleet.db().read().await?;
    let known: BTreeSet<BoxId> = edge_boxes(&mut tx, name).await?.into_iter().collect();
    drop(tx);
    let held: BTreeSet<BoxId> = edge.connected().into_iter().collect();
    let gone: BTreeSet<BoxId> = known.difference(&held).cloned().collect();
    for box_id in gone.intersection(missing) {
        let mut tx = fleet.db().write().await?;
        let changed = edge_box_set(&mut tx, name, box_id, false, now).await?;
        tx.commit().await?;
        if changed {
            tracing::info!(%box_id, "box is offline: its last word was lost");
            fleet.tell(Some(box_id), FleetEventKind::Offline);
        }
    }
    let unborn = edge.connected_for(BORN).into_iter();
    for box_id in unborn.filter(|id| !known.contains(id)).take(SENT_AWAY) {
        tracing::warn!(%box_id, "its session is not in the database: it is to come again");
        edge.disconnect(&box_id, Reason::ServerBusy);
    }
    Ok(gone)
}

/// Ends the sessions of edges that were killed; for as long as it is this process's turn.
pub(super) async fn bury(fleet: Fleet) {
    let mut tick = tokio::time::interval(BEAT);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Edges get the time to say that they live: the database may have been away for all of them.
    let mut patience = patience();
    loop {
        tick.tick().await;
        if patience > 0 {
            patience -= 1;
            continue;
        }
        if let Err(error) = bury_once(&fleet).await {
            note("ending dead edges' sessions", Err(error));
            patience = self::patience();
        }
    }
}

fn patience() -> u64 {
    // One beat, with some to spare.
    2
}

async fn bury_once(fleet: &Fleet) -> Result<(), FleetError> {
    let now = fleet.now().0;
    let mut tx = fleet.db().write().await?;
    let ended = edge_orphans_end(&mut tx, now).await?;
    for (box_id, session) in &ended {
        let detail = serde_json::json!({ "session": session, "edge": "ended" }).to_string();
        presence_insert(&mut tx, box_id, PresenceKind::Death, session, &detail, now).await?;
    }
    edge_prune(&mut tx, now.saturating_sub(REMEMBERED_MS)).await?;
    tx.commit().await?;
    for (box_id, session) in ended {
        tracing::info!(%box_id, session, "box is offline: its edge has ended");
        fleet.tell(Some(&box_id), FleetEventKind::Offline);
    }
    Ok(())
}

/// Takes over which boxes may in, as other processes decide it; until `stop`.
pub(super) async fn follow_states(
    fleet: Fleet,
    mut rings: Option<watch::Receiver<u64>>,
    stop: CancellationToken,
) {
    let mut since = fleet.now().0;
    loop {
        let ring = async {
            let rung = match &mut rings {
                Some(rings) => rings.changed().await.is_ok(),
                None => false,
            };
            if !rung {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = ring => {}
            () = tokio::time::sleep(STATES) => {}
        }
        let now = fleet.now().0;
        match states(&fleet, since.saturating_sub(OVERLAP_MS)).await {
            Ok(()) => since = now,
            Err(error) => note("following boxes' states", Err(error)),
        }
    }
}

async fn states(fleet: &Fleet, since: i64) -> Result<(), FleetError> {
    let mut tx = fleet.db().read().await?;
    let changed = box_states_since(&mut tx, since).await?;
    drop(tx);
    for (box_id, state) in changed {
        fleet.admitted().follow(&box_id, state);
        if state == BoxState::Revoked && fleet.line().disconnect(&box_id, Reason::Banned) {
            tracing::info!(%box_id, "cut off: it was revoked elsewhere");
        }
    }
    Ok(())
}

/// Does for this edge's boxes what other processes ask for; until the backbone has ended.
pub(super) async fn answer(fleet: Fleet, calls: Calls) {
    let calls = futures::stream::unfold(calls, async |mut calls| {
        let call = calls.recv().await?;
        Some((call, calls))
    });
    calls
        .for_each_concurrent(AT_ONCE, |(box_id, call)| {
            let fleet = fleet.clone();
            async move {
                let done = match call {
                    Call::Born { applied } => fleet.born(&box_id, applied).await,
                    Call::Commands => fleet.commands_push(&box_id).await,
                };
                note("answering a call", done);
            }
        })
        .await;
}

fn note(what: &str, result: Result<(), FleetError>) {
    if let Err(error) = result {
        let error = &error as &dyn std::error::Error;
        tracing::error!(error, "{what} failed");
    }
}
