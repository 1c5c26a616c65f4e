//! Telemetry's upkeep: partitions ahead, rollups, and what is over forgotten. Every step is a
//! transaction of its own that may be done twice, so that whoever comes next goes on anywhere.

use std::time::Duration;

use super::keep::note;
use crate::config::Retention;
use crate::fleet::{Fleet, FleetError};
use crate::store::telemetry::Series;
use crate::store::telemetry::partitions::{
    keep_since, partitions_ahead, pieces_forget, rows_forget,
};
use crate::store::telemetry::rollups::{late_roll, ready_through, roll, rolled_set, telemetry_any};
use crate::store::telemetry::series::{Mark, marks_get};

/// Between looks for what can be rolled up.
const TICK: Duration = Duration::from_secs(30);
/// Boxes in one transaction.
const BOXES: u32 = 1000;
/// Time that is rolled up in one go, in milliseconds.
const WINDOW_MS: i64 = 6 * 3_600 * 1000;

/// Does all of it, for as long as it is this process's turn.
pub(super) async fn run(fleet: Fleet, retention: Retention) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        note("making telemetry's partitions", ahead(&fleet).await);
        note("rolling up telemetry", roll_up(&fleet, retention).await);
        note("forgetting old telemetry", forget(&fleet, retention).await);
    }
}

/// Makes the partitions for the days to come.
pub(crate) async fn ahead(fleet: &Fleet) -> Result<(), FleetError> {
    if !fleet.db().is_shared() {
        return Ok(());
    }
    for series in Series::ALL {
        let mut tx = fleet.db().write().await?;
        partitions_ahead(&mut tx, *series, fleet.now().0).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Rolls up whatever can be.
pub(crate) async fn roll_up(fleet: &Fleet, retention: Retention) -> Result<(), FleetError> {
    let now = fleet.now().0;
    let ready = ready_through(now);
    let mut tx = fleet.db().read().await?;
    let marks = marks_get(&mut tx).await?;
    // A database that was there before there were rollups has samples from before; none else has.
    let first = if telemetry_any(&mut tx).await? {
        keep_since(Series::FiveMinutes, now, retention.samples_ms, ready)
    } else {
        ready
    };
    drop(tx);
    roll_into(fleet, Series::FiveMinutes, marks.five, first, ready).await?;
    let hour = Series::Hours.bucket_ms();
    let first = first - first % hour;
    roll_into(
        fleet,
        Series::Hours,
        marks.hours,
        first,
        ready - ready % hour,
    )
    .await?;
    loop {
        let mut tx = fleet.db().write().await?;
        let more = late_roll(&mut tx, now).await?;
        tx.commit().await?;
        if !more {
            return Ok(());
        }
    }
}

/// Rolls up into `series` from where it stands, or from `first`, until `ready`.
async fn roll_into(
    fleet: &Fleet,
    series: Series,
    mark: Mark,
    first: i64,
    ready: i64,
) -> Result<(), FleetError> {
    let mut since = mark.through;
    if since == 0 {
        since = first;
        let mut tx = fleet.db().write().await?;
        rolled_set(&mut tx, series, first).await?;
        tx.commit().await?;
    }
    while since < ready {
        let until = since.saturating_add(WINDOW_MS).min(ready);
        let mut after = String::new();
        loop {
            let mut tx = fleet.db().write().await?;
            let last = roll(&mut tx, series, (since, until), &after, BOXES).await?;
            tx.commit().await?;
            match last {
                Some(last) => after = last,
                None => break,
            }
        }
        let mut tx = fleet.db().write().await?;
        rolled_set(&mut tx, series, until).await?;
        tx.commit().await?;
        since = until;
    }
    Ok(())
}

/// Forgets what each series need not keep.
pub(crate) async fn forget(fleet: &Fleet, retention: Retention) -> Result<(), FleetError> {
    let now = fleet.now().0;
    let mut tx = fleet.db().read().await?;
    let marks = marks_get(&mut tx).await?;
    drop(tx);
    for (series, keep_ms, mark, taken_up) in [
        (
            Series::Samples,
            retention.samples_ms,
            marks.samples,
            marks.five.through,
        ),
        (
            Series::FiveMinutes,
            retention.five_ms,
            marks.five,
            marks.hours.through,
        ),
        (Series::Hours, retention.hours_ms, marks.hours, i64::MAX),
    ] {
        let before = keep_since(series, now, keep_ms, taken_up);
        if before <= mark.kept_since {
            continue;
        }
        let mut tx = fleet.db().write().await?;
        pieces_forget(&mut tx, series, before).await?;
        tx.commit().await?;
        let mut after = String::new();
        loop {
            let mut tx = fleet.db().write().await?;
            let last = rows_forget(&mut tx, series, (before, keep_ms), &after, BOXES).await?;
            tx.commit().await?;
            match last {
                Some(last) => after = last,
                None => break,
            }
        }
    }
    Ok(())
}
