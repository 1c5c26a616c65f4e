//! Telemetry: samples by box and time, rolled up for long ranges, forgotten after their time.
//!
//! Three series, each coarser and kept for longer: samples, five minutes, hours. The finest that
//! answers a question in as many points as it wants is what is read ([`series`]); [`rollups`] makes
//! the coarser ones and [`partitions`] keeps each in pieces that can be dropped. What came last of a
//! box lies apart: whoever looks at all boxes never looks through their history.

pub mod partitions;
pub mod rollups;
pub mod series;

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::telemetry::Telemetry;

use super::tx::json_text;
use super::{StoreResult, Tx};

pub use series::{Drawn, Series, TelemetryPoint, telemetry_series};

/// A sample that comes later than this after it was taken may find its bucket rolled up already, in
/// milliseconds.
pub(super) const LATE_MS: i64 = 10 * 60 * 1000;

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
             vault_used_bytes, pending_objects, pending_bytes) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
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
    )?;
    if rows == 0 {
        return Ok(false);
    }
    execute!(
        tx,
        "INSERT INTO telemetry_latest (box_id, at, received, detail) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (box_id) DO UPDATE SET \
             at = excluded.at, received = excluded.received, detail = excluded.detail \
         WHERE telemetry_latest.at <= excluded.at",
        box_id.as_str(),
        at,
        received,
        json_text("telemetry", sample)?,
    )?;
    if at >= 0 && at < received.saturating_sub(LATE_MS) {
        rollups::late_insert(tx, box_id, at, received).await?;
    }
    Ok(true)
}

/// The last sample by the box's clock: when, and its JSON.
pub async fn telemetry_latest(tx: &mut Tx, box_id: &BoxId) -> StoreResult<Option<(i64, String)>> {
    fetch!(
        optional,
        tx,
        (i64, String),
        "SELECT at, detail FROM telemetry_latest WHERE box_id = $1",
        box_id.as_str()
    )
}

/// A box's number as the database holds it; what is absurdly large stays so.
fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Not-a-number would become NULL on one database and an error of arithmetic on the other.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}
