//! Boxes as the fleet's table shows them.

use longhaul_protocol::ids::BoxId;
use sqlx::FromRow;

use super::{BoxRow, BoxState};
use crate::store::tenants::TenantId;
use crate::store::tx::plain;
use crate::store::{StoreResult, Tx};

/// Which boxes are wanted; an absent condition holds for all.
#[derive(Clone, Debug, Default)]
pub struct BoxFilter {
    /// In this state.
    pub state: Option<BoxState>,
    /// With, or without, a session.
    pub online: Option<bool>,
    /// Of this tenant.
    pub tenant: Option<TenantId>,
    /// With this text in name, label, site or hardware; case does not matter.
    pub text: Option<String>,
}

/// Boxes in the order of their names, from the one after `after`.
pub async fn box_list(
    tx: &mut Tx,
    filter: &BoxFilter,
    after: Option<&BoxId>,
    limit: u32,
) -> StoreResult<Vec<BoxRow>> {
    let text = filter.text.as_deref().map(like_anywhere);
    fetch!(
        all,
        tx,
        BoxRow,
        "SELECT * FROM boxes \
         WHERE box_id > $1 \
           AND (CAST($2 AS TEXT) IS NULL OR state = $2) \
           AND (CAST($3 AS BOOLEAN) IS NULL OR connected = $3) \
           AND (CAST($6 AS TEXT) IS NULL OR tenant_id = $6) \
           AND (CAST($4 AS TEXT) IS NULL OR \
                lower(box_id || ' ' || label || ' ' || site || ' ' || hardware) LIKE $4 ESCAPE '\\') \
         ORDER BY box_id LIMIT $5",
        after.map_or("", BoxId::as_str),
        filter.state.map(BoxState::as_str),
        filter.online,
        text.as_deref(),
        i64::from(limit),
        filter.tenant.as_ref().map(TenantId::as_str),
    )
}

/// A box with its last sample.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct BoxSample {
    /// The box.
    #[sqlx(flatten)]
    pub row: BoxRow,
    /// When the last sample was taken, by the box's clock.
    pub sample_at: Option<i64>,
    /// The last sample: JSON.
    pub sample: Option<String>,
    /// The reported state that came last: JSON.
    pub reported: Option<String>,
    /// Alerts on it that are not over.
    pub alerts: i64,
}

/// As [`box_list`], with the last sample and reported state of each: the databases look them up
/// only for the rows that they yield.
pub async fn box_list_sampled(
    tx: &mut Tx,
    filter: &BoxFilter,
    after: Option<&BoxId>,
    limit: u32,
) -> StoreResult<Vec<BoxSample>> {
    let text = filter.text.as_deref().map(like_anywhere);
    fetch!(
        all,
        tx,
        BoxSample,
        "SELECT boxes.*, \
           (SELECT t.at FROM telemetry t WHERE t.box_id = boxes.box_id \
            ORDER BY t.at DESC LIMIT 1) AS sample_at, \
           (SELECT t.detail FROM telemetry t WHERE t.box_id = boxes.box_id \
            ORDER BY t.at DESC LIMIT 1) AS sample, \
           (SELECT r.detail FROM reported r WHERE r.box_id = boxes.box_id) AS reported, \
           (SELECT count(*) FROM alerts a WHERE a.box_id = boxes.box_id \
            AND a.state <> 'resolved' AND a.state <> 'pending') AS alerts \
         FROM boxes \
         WHERE box_id > $1 \
           AND (CAST($2 AS TEXT) IS NULL OR state = $2) \
           AND (CAST($3 AS BOOLEAN) IS NULL OR connected = $3) \
           AND (CAST($6 AS TEXT) IS NULL OR tenant_id = $6) \
           AND (CAST($4 AS TEXT) IS NULL OR \
                lower(box_id || ' ' || label || ' ' || site || ' ' || hardware) LIKE $4 ESCAPE '\\') \
         ORDER BY box_id LIMIT $5",
        after.map_or("", BoxId::as_str),
        filter.state.map(BoxState::as_str),
        filter.online,
        text.as_deref(),
        i64::from(limit),
        filter.tenant.as_ref().map(TenantId::as_str),
    )
}

/// How many boxes there are by state and session: `(state, connected, count)`.
pub async fn box_count(tx: &mut Tx) -> StoreResult<Vec<(String, bool, i64)>> {
    fetch!(
        all,
        tx,
        (String, bool, i64),
        "SELECT state, connected, count(*) FROM boxes \
         GROUP BY state, connected ORDER BY state, connected"
    )
}

/// A `LIKE` pattern for texts that contain `text`, whatever characters it has.
fn like_anywhere(text: &str) -> String {
    let mut pattern = String::from("%");
    for c in plain(text).to_lowercase().chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}
