//! Work that one process at a time does: a lock in the database, extended while the process lives.
//!
//! A process that is killed loses it within [`HELD_MS`], and the next that asks has it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::fleet::Fleet;
use crate::store::locks::{lock_hold, lock_release};
use crate::store::{StoreResult, new_id};

/// How long a lock outlives its holder, in milliseconds.
const HELD_MS: i64 = 6_000;
/// How often it is extended, or asked for.
const EVERY: Duration = Duration::from_secs(2);

/// Runs `work` while this process has the lock `name`; `work` is dropped where the lock is lost, and
/// must be written to stand that.
pub(super) async fn take_turns<F>(
    fleet: Fleet,
    name: &'static str,
    stop: CancellationToken,
    work: impl Fn(Fleet) -> F,
) where
    F: Future<Output = ()>,
{
    if !fleet.db().is_shared() {
        // Nobody else is there to take a turn.
        stop.run_until_cancelled(work(fleet.clone())).await;
        return;
    }
    let holder = new_id("turn");
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        if !holds(&fleet, name, &holder).await {
            continue;
        }
        let keep = async {
            loop {
                tick.tick().await;
                if !holds(&fleet, name, &holder).await {
                    return;
                }
            }
        };
        let stopped = tokio::select! {
            () = stop.cancelled() => true,
            () = keep => false,
            () = work(fleet.clone()) => false,
        };
        if stopped {
            // Without it the next process waits until the lock ends by itself.
            let _ = release(&fleet, name, &holder).await;
            return;
        }
        tracing::info!(name, "another process goes on with this work");
    }
}

async fn holds(fleet: &Fleet, name: &str, holder: &str) -> bool {
    let held = async {
        let now = fleet.now().0;
        let mut tx = fleet.db().write().await?;
        let held = lock_hold(&mut tx, name, holder, now.saturating_add(HELD_MS), now).await?;
        tx.commit().await?;
        StoreResult::Ok(held)
    };
    // One that cannot be extended in time is lost.
    match tokio::time::timeout(EVERY, held).await {
        Ok(Ok(held)) => held,
        Ok(Err(error)) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, name, "a lock could not be extended");
            false
        }
        Err(_) => false,
    }
}

async fn release(fleet: &Fleet, name: &str, holder: &str) -> StoreResult<()> {
    let mut tx = fleet.db().write().await?;
    lock_release(&mut tx, name, holder).await?;
    tx.commit().await
}
