//! Telemetry: samples by box and time, thinned out by the database when they are drawn.

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::telemetry::Telemetry;
use sqlx::FromRow;

use super::tx::json_text;
use super::{StoreResult, Tx};

/// One bucket of a thinned series; the values are means over it, extremes where they matter.
#[derive(Clone, Debug, FromRow, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub struct TelemetryPoint {
    /// Begin of the bucket.
    pub at: i64,
    /// Samples in it.
    pub samples: i64,
    /// Load average over one minute.
    pub load_1m: f64,
    /// Memory in use, in bytes.
    pub memory_used_bytes: f64,
    /// Least space on any of the box's file systems, in bytes.
    pub disk_free_bytes: Option<f64>,
    /// Hottest sensor, degrees Celsius.
    pub celsius: Option<f64>,
    /// Bytes sent since boot, all interfaces, at the end of the bucket.
    pub network_sent_bytes: f64,
    /// Bytes received since boot, all interfaces, at the end of the bucket.
    pub network_received_bytes: f64,
    /// What the vault holds, in bytes.
    pub vault_used_bytes: Option<f64>,
    /// Objects waiting for delivery, the most in the bucket.
    pub pending_objects: Option<f64>,
    /// Their bytes, the most in the bucket.
    pub pending_bytes: Option<f64>,
}

/// Takes down a sample; `false` if one of the same time is stored: a spooled sample may come twice.
pub async fn telemetry_insert(
    tx: &mut Tx,
    box_id: &BoxId,
    at: i64,
    sample: &Telemetry,
    received: i64,
) -> StoreResult<bool> {
    let used = sample
        .memory_total_bytes
        .saturating_sub(sample.memory_available_bytes);
    let sent = sample.networks.iter().map(|n| n.sent_bytes);
    let got = sample.networks.iter().map(|n| n.received_bytes);
    let hottest = sample.temperatures.iter().map(|t| t.celsius);
    let rows = execute!(
        tx,
        "INSERT INTO telemetry (box_id, at, received, load_1m, memory_used_bytes, \
             disk_free_bytes, celsius, network_sent_bytes, network_received_bytes, \
             vault_used_bytes, pending_objects, pending_bytes, detail) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
         ON CONFLICT (box_id, at) DO NOTHING",
        box_id.as_str(),
        at,
        received,
        finite(sample.load_1m).unwrap_or(0.0),
        clamp(used),
        sample.disks.iter().map(|d| clamp(d.free_bytes)).min(),
        hottest.filter_map(finite).reduce(f64::max),
        clamp(sent.fold(0, u64::saturating_add)),
        clamp(got.fold(0, u64::saturating_add)),
        sample.vault.map(|v| clamp(v.used_bytes)),
        sample.vault.map(|v| clamp(v.pending_objects)),
        sample.vault.map(|v| clamp(v.pending_bytes)),
        json_text("telemetry", sample)?,
    )?;
    Ok(rows == 1)
}

/// The last sample by the box's clock: when, and its JSON.
pub async fn telemetry_latest(tx: &mut Tx, box_id: &BoxId) -> StoreResult<Option<(i64, String)>> {
    fetch!(
        optional,
        tx,
        (i64, String),
        "SELECT at, detail FROM telemetry WHERE box_id = $1 ORDER BY at DESC LIMIT 1",
        box_id.as_str()
    )
}

/// Samples from `since` until before `until` in buckets of `step` milliseconds, oldest first.
pub async fn telemetry_series(
    tx: &mut Tx,
    box_id: &BoxId,
    since: i64,
    until: i64,
    step: i64,
) -> StoreResult<Vec<TelemetryPoint>> {
    fetch!(
        all,
        tx,
        TelemetryPoint,
        "SELECT (at / $4) * $4 AS at, count(*) AS samples, avg(load_1m) AS load_1m, \
             avg(CAST(memory_used_bytes AS DOUBLE PRECISION)) AS memory_used_bytes, \
             min(CAST(disk_free_bytes AS DOUBLE PRECISION)) AS disk_free_bytes, \
             max(celsius) AS celsius, \
             max(CAST(network_sent_bytes AS DOUBLE PRECISION)) AS network_sent_bytes, \
             max(CAST(network_received_bytes AS DOUBLE PRECISION)) AS network_received_bytes, \
             avg(CAST(vault_used_bytes AS DOUBLE PRECISION)) AS vault_used_bytes, \
             max(CAST(pending_objects AS DOUBLE PRECISION)) AS pending_objects, \
             max(CAST(pending_bytes AS DOUBLE PRECISION)) AS pending_bytes \
         FROM telemetry WHERE box_id = $1 AND at >= $2 AND at < $3 \
         GROUP BY (at / $4) * $4 ORDER BY (at / $4) * $4",
        box_id.as_str(),
        since,
        until,
        step.max(1),
    )
}

/// Forgets samples from before `before`.
pub async fn telemetry_prune(tx: &mut Tx, before: i64) -> StoreResult<u64> {
    execute!(tx, "DELETE FROM telemetry WHERE received < $1", before)
}

/// A box's number as the database holds it; what is absurdly large stays so.
fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Not-a-number would become NULL on one database and an error of arithmetic on the other.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}
