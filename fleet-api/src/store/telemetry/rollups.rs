//! Rollups: samples folded by five minutes, these by hours.
//!
//! A bucket is rolled up when no timely sample of it can still be under way. A sample that comes
//! later leaves a note, and its bucket is folded anew; the fold that knows more samples stands.
//! Every step may be done twice.

use longhaul_protocol::ids::BoxId;

use super::LATE_MS;
use super::series::Series;
use crate::store::{StoreResult, Tx};

/// Five minutes, in milliseconds.
pub(super) const MINUTES_5: i64 = 5 * 60 * 1000;
/// A transaction that takes a sample down is over after this long, and clocks of several processes
/// differ by less; in milliseconds.
const SETTLED_MS: i64 = 60 * 1000;
/// Late buckets that are folded anew in one transaction.
const LATE_BUCKETS: i64 = 500;

/// A bucket's values from those of the buckets in it.
macro_rules! fold {
    () => {
        "CAST(sum(samples) AS BIGINT) AS samples, \
         CAST(sum(disk_samples) AS BIGINT) AS disk_samples, \
         CAST(sum(celsius_samples) AS BIGINT) AS celsius_samples, \
         CAST(sum(vault_samples) AS BIGINT) AS vault_samples, \
         sum(load_1m * samples) / sum(samples) AS load_1m, \
         min(load_1m_min) AS load_1m_min, max(load_1m_max) AS load_1m_max, \
         sum(memory_used_bytes * samples) / sum(samples) AS memory_used_bytes, \
         min(memory_used_bytes_min) AS memory_used_bytes_min, \
         max(memory_used_bytes_max) AS memory_used_bytes_max, \
         min(disk_free_bytes) AS disk_free_bytes, \
         sum(disk_free_bytes_avg * disk_samples) / nullif(sum(disk_samples), 0) AS disk_free_bytes_avg, \
         max(disk_free_bytes_max) AS disk_free_bytes_max, \
         max(celsius) AS celsius, min(celsius_min) AS celsius_min, \
         sum(celsius_avg * celsius_samples) / nullif(sum(celsius_samples), 0) AS celsius_avg, \
         max(network_sent_bytes) AS network_sent_bytes, \
         max(network_received_bytes) AS network_received_bytes, \
         sum(vault_used_bytes * vault_samples) / nullif(sum(vault_samples), 0) AS vault_used_bytes, \
         min(vault_used_bytes_min) AS vault_used_bytes_min, \
         max(vault_used_bytes_max) AS vault_used_bytes_max, \
         max(pending_objects) AS pending_objects, min(pending_objects_min) AS pending_objects_min, \
         sum(pending_objects_avg * vault_samples) / nullif(sum(vault_samples), 0) AS pending_objects_avg, \
         max(pending_bytes) AS pending_bytes, min(pending_bytes_min) AS pending_bytes_min, \
         sum(pending_bytes_avg * vault_samples) / nullif(sum(vault_samples), 0) AS pending_bytes_avg"
    };
}
pub(super) use fold;

/// What [`fold!`] reads, from a sample `t`: a bucket of one.
macro_rules! of_samples {
    () => {
        "t.at, CAST(1 AS BIGINT) AS samples, \
         CAST(CASE WHEN t.disk_free_bytes IS NULL THEN 0 ELSE 1 END AS BIGINT) AS disk_samples, \
         CAST(CASE WHEN t.celsius IS NULL THEN 0 ELSE 1 END AS BIGINT) AS celsius_samples, \
         CAST(CASE WHEN t.vault_used_bytes IS NULL THEN 0 ELSE 1 END AS BIGINT) AS vault_samples, \
         t.load_1m, t.load_1m AS load_1m_min, \
         t.load_1m AS load_1m_max, \
         CAST(t.memory_used_bytes AS DOUBLE PRECISION) AS memory_used_bytes, \
         CAST(t.memory_used_bytes AS DOUBLE PRECISION) AS memory_used_bytes_min, \
         CAST(t.memory_used_bytes AS DOUBLE PRECISION) AS memory_used_bytes_max, \
         CAST(t.disk_free_bytes AS DOUBLE PRECISION) AS disk_free_bytes, \
         CAST(t.disk_free_bytes AS DOUBLE PRECISION) AS disk_free_bytes_avg, \
         CAST(t.disk_free_bytes AS DOUBLE PRECISION) AS disk_free_bytes_max, \
         t.celsius, t.celsius AS celsius_min, t.celsius AS celsius_avg, \
         CAST(t.network_sent_bytes AS DOUBLE PRECISION) AS network_sent_bytes, \
         CAST(t.network_received_bytes AS DOUBLE PRECISION) AS network_received_bytes, \
         CAST(t.vault_used_bytes AS DOUBLE PRECISION) AS vault_used_bytes, \
         CAST(t.vault_used_bytes AS DOUBLE PRECISION) AS vault_used_bytes_min, \
         CAST(t.vault_used_bytes AS DOUBLE PRECISION) AS vault_used_bytes_max, \
         CAST(t.pending_objects AS DOUBLE PRECISION) AS pending_objects, \
         CAST(t.pending_objects AS DOUBLE PRECISION) AS pending_objects_min, \
         CAST(t.pending_objects AS DOUBLE PRECISION) AS pending_objects_avg, \
         CAST(t.pending_bytes AS DOUBLE PRECISION) AS pending_bytes, \
         CAST(t.pending_bytes AS DOUBLE PRECISION) AS pending_bytes_min, \
         CAST(t.pending_bytes AS DOUBLE PRECISION) AS pending_bytes_avg"
    };
}
pub(super) use of_samples;

/// A bucket's values without its box and time.
macro_rules! values {
    () => {
        "samples, disk_samples, celsius_samples, vault_samples, load_1m, load_1m_min, load_1m_max, memory_used_bytes, memory_used_bytes_min, \
         memory_used_bytes_max, disk_free_bytes, disk_free_bytes_avg, disk_free_bytes_max, celsius, \
         celsius_min, celsius_avg, network_sent_bytes, network_received_bytes, vault_used_bytes, \
         vault_used_bytes_min, vault_used_bytes_max, pending_objects, pending_objects_min, \
         pending_objects_avg, pending_bytes, pending_bytes_min, pending_bytes_avg"
    };
}

/// What [`fold!`] reads, from a rollup `t`.
macro_rules! of_rollup {
    () => {
        "t.at, t.samples, t.disk_samples, t.celsius_samples, t.vault_samples, t.load_1m, t.load_1m_min, t.load_1m_max, t.memory_used_bytes, \
         t.memory_used_bytes_min, t.memory_used_bytes_max, t.disk_free_bytes, \
         t.disk_free_bytes_avg, t.disk_free_bytes_max, t.celsius, t.celsius_min, t.celsius_avg, \
         t.network_sent_bytes, t.network_received_bytes, t.vault_used_bytes, \
         t.vault_used_bytes_min, t.vault_used_bytes_max, t.pending_objects, \
         t.pending_objects_min, t.pending_objects_avg, t.pending_bytes, t.pending_bytes_min, \
         t.pending_bytes_avg"
    };
}
pub(super) use of_rollup;

/// Folds what `$from` yields as `s (box_id, bucket, ..)` into `$into`. What was forgotten in part is
/// folded from fewer samples than before: the bucket stands as it was.
macro_rules! fold_into {
    ($into:literal, $from:expr) => {
        concat!(
            "INSERT INTO ",
            $into,
            " (box_id, at, ",
            values!(),
            ") SELECT box_id, bucket, ",
            fold!(),
            " FROM (",
            $from,
            ") AS s WHERE true GROUP BY box_id, bucket ON CONFLICT (box_id, at) DO UPDATE SET \
             samples = excluded.samples, disk_samples = excluded.disk_samples, \
             celsius_samples = excluded.celsius_samples, \
             vault_samples = excluded.vault_samples, load_1m = excluded.load_1m, \
             load_1m_min = excluded.load_1m_min, load_1m_max = excluded.load_1m_max, \
             memory_used_bytes = excluded.memory_used_bytes, \
             memory_used_bytes_min = excluded.memory_used_bytes_min, \
             memory_used_bytes_max = excluded.memory_used_bytes_max, \
             disk_free_bytes = excluded.disk_free_bytes, \
             disk_free_bytes_avg = excluded.disk_free_bytes_avg, \
             disk_free_bytes_max = excluded.disk_free_bytes_max, celsius = excluded.celsius, \
             celsius_min = excluded.celsius_min, celsius_avg = excluded.celsius_avg, \
             network_sent_bytes = excluded.network_sent_bytes, \
             network_received_bytes = excluded.network_received_bytes, \
             vault_used_bytes = excluded.vault_used_bytes, \
             vault_used_bytes_min = excluded.vault_used_bytes_min, \
             vault_used_bytes_max = excluded.vault_used_bytes_max, \
             pending_objects = excluded.pending_objects, \
             pending_objects_min = excluded.pending_objects_min, \
             pending_objects_avg = excluded.pending_objects_avg, \
             pending_bytes = excluded.pending_bytes, \
             pending_bytes_min = excluded.pending_bytes_min, \
             pending_bytes_avg = excluded.pending_bytes_avg \
             WHERE excluded.samples >= ",
            $into,
            ".samples"
        )
    };
}

/// Boxes after one, in the order of their names.
macro_rules! some_boxes {
    () => {
        "SELECT box_id FROM boxes WHERE box_id > $1 ORDER BY box_id LIMIT $2"
    };
}

/// Until when five minutes can be rolled up: no timely sample from before is still under way.
pub fn ready_through(now: i64) -> i64 {
    let settled = now.saturating_sub(LATE_MS + SETTLED_MS).max(0);
    settled - settled % MINUTES_5
}

/// Folds one series into the next coarser one, `since` until before `until`, for up to `limit` boxes
/// after `after`; yields the last of them, `None` where there is none.
pub async fn roll(
    tx: &mut Tx,
    into: Series,
    (since, until): (i64, i64),
    after: &str,
    limit: u32,
) -> StoreResult<Option<String>> {
    let limit = i64::from(limit);
    let (last,) = fetch!(
        one,
        tx,
        (Option<String>,),
        concat!("SELECT max(box_id) FROM (", some_boxes!(), ") AS b"),
        after,
        limit
    )?;
    if last.is_none() {
        return Ok(None);
    }
    match into {
        Series::Samples => 0,
        Series::FiveMinutes => execute!(
            tx,
            fold_into!(
                "telemetry_5m",
                concat!(
                    "SELECT t.box_id, (t.at / 300000) * 300000 AS bucket, ",
                    of_samples!(),
                    " FROM (",
                    some_boxes!(),
                    ") AS b CROSS JOIN telemetry AS t \
                     WHERE t.box_id = b.box_id AND t.at >= $3 AND t.at < $4"
                )
            ),
            after,
            limit,
            since,
            until
        )?,
        Series::Hours => execute!(
            tx,
            fold_into!(
                "telemetry_1h",
                concat!(
                    "SELECT t.box_id, (t.at / 3600000) * 3600000 AS bucket, ",
                    of_rollup!(),
                    " FROM (",
                    some_boxes!(),
                    ") AS b CROSS JOIN telemetry_5m AS t \
                     WHERE t.box_id = b.box_id AND t.at >= $3 AND t.at < $4"
                )
            ),
            after,
            limit,
            since,
            until
        )?,
    };
    Ok(last)
}

/// Says that `series` is rolled up until `through`.
pub async fn rolled_set(tx: &mut Tx, series: Series, through: i64) -> StoreResult<()> {
    execute!(
        tx,
        "UPDATE telemetry_marks SET through = $2 WHERE series = $1 AND through < $2",
        series.as_str(),
        through
    )?;
    Ok(())
}

/// Whether there is a sample at all.
pub async fn telemetry_any(tx: &mut Tx) -> StoreResult<bool> {
    let found = fetch!(
        optional,
        tx,
        (i64,),
        "SELECT CAST(1 AS BIGINT) FROM telemetry LIMIT 1"
    )?;
    Ok(found.is_some())
}

/// Notes that the bucket of a sample is to be folded anew.
pub(super) async fn late_insert(
    tx: &mut Tx,
    box_id: &BoxId,
    at: i64,
    received: i64,
) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO telemetry_late (box_id, at, received) VALUES ($1, $2, $3) \
         ON CONFLICT (box_id, at, received) DO NOTHING",
        box_id.as_str(),
        at - at % MINUTES_5,
        received
    )?;
    Ok(())
}

/// Some of the buckets that were noted and whose samples are all there by now.
macro_rules! late_buckets {
    () => {
        "SELECT DISTINCT box_id, at FROM telemetry_late \
         WHERE received < $1 AND (box_id, at) <= ($2, $3)"
    };
}

/// Folds some buckets anew that late samples came for; `false` if there is none.
pub async fn late_roll(tx: &mut Tx, now: i64) -> StoreResult<bool> {
    // A note is of its own time: one that comes while this goes on is not touched by it.
    let settled = now.saturating_sub(SETTLED_MS);
    let last = fetch!(
        optional,
        tx,
        (String, i64),
        "SELECT box_id, at FROM (SELECT DISTINCT box_id, at FROM telemetry_late \
           WHERE received < $1 ORDER BY box_id, at LIMIT $2) AS l \
         ORDER BY box_id DESC, at DESC LIMIT 1",
        settled,
        LATE_BUCKETS
    )?;
    let Some((box_id, at)) = last else {
        return Ok(false);
    };
    execute!(
        tx,
        fold_into!(
            "telemetry_5m",
            concat!(
                "SELECT t.box_id, l.at AS bucket, ",
                of_samples!(),
                " FROM (",
                late_buckets!(),
                ") AS l CROSS JOIN telemetry AS t \
                 WHERE t.box_id = l.box_id AND t.at >= l.at AND t.at < l.at + 300000"
            )
        ),
        settled,
        &box_id,
        at
    )?;
    execute!(
        tx,
        fold_into!(
            "telemetry_1h",
            concat!(
                "SELECT t.box_id, h.hour AS bucket, ",
                of_rollup!(),
                " FROM (SELECT DISTINCT box_id, (at / 3600000) * 3600000 AS hour FROM (",
                late_buckets!(),
                ") AS l) AS h CROSS JOIN telemetry_5m AS t \
                 WHERE t.box_id = h.box_id AND t.at >= h.hour AND t.at < h.hour + 3600000"
            )
        ),
        settled,
        &box_id,
        at
    )?;
    execute!(
        tx,
        "DELETE FROM telemetry_late WHERE received < $1 AND (box_id, at) <= ($2, $3)",
        settled,
        &box_id,
        at
    )?;
    Ok(true)
}
