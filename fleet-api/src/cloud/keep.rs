//! Upkeep: ends what is overdue, renews certificates, frees what nobody will finish.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::fleet::{Fleet, FleetError};
use crate::store::alert_channels::delivery_prune;
use crate::store::alerts::alert_prune;
use crate::unpack;

/// Between looks for overdue commands.
const TICK: Duration = Duration::from_secs(5);
/// Ticks between the rest: ten minutes.
const SELDOM: u32 = 120;
/// Alerts that are over are kept for 90 days, in milliseconds.
const ALERTS_MS: i64 = 90 * 86_400 * 1000;
/// An upload at the object store that nobody knows is left alone for an hour, in milliseconds: it
/// may have been begun a moment ago.
const ORPHAN_MS: i64 = 3_600 * 1000;

/// Renews this process's own certificates, until `stop`.
pub(super) async fn renew(fleet: Fleet, stop: CancellationToken) {
    let mut tick = tokio::time::interval(TICK * SELDOM);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        if let Err(error) = fleet.identity().renew(fleet.now()) {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "failed to renew the cloud's certificates");
        }
    }
}

/// Does the rest, for as long as it is this process's turn.
pub(super) async fn run(fleet: Fleet) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for count in 0_u32.. {
        tick.tick().await;
        note("ending overdue commands", fleet.commands_expire().await);
        note("ending proposals", fleet.proposals_expire().await);
        note("trying out destinations", fleet.destinations_look().await);
        if count % SELDOM == 0 {
            note("forgetting old alerts", forget_alerts(&fleet).await);
            note(
                "freeing orphaned uploads",
                fleet.orphans_free(ORPHAN_MS).await,
            );
            note("sweeping staged packs", unpack::sweep(&fleet).await);
        }
    }
}

/// Upkeep that failed is tried again at the next tick.
pub(super) fn note(what: &str, result: Result<(), FleetError>) {
    if let Err(error) = result {
        let error = &error as &dyn std::error::Error;
        tracing::error!(error, "{what} failed");
    }
}

async fn forget_alerts(fleet: &Fleet) -> Result<(), FleetError> {
    let before = fleet.now().0.saturating_sub(ALERTS_MS);
    let mut tx = fleet.db().write().await?;
    alert_prune(&mut tx, before).await?;
    delivery_prune(&mut tx, before).await?;
    tx.commit().await?;
    Ok(())
}
