//! Boxes as the fleet's table shows them.

use longhaul_protocol::ids::BoxId;
use sqlx::FromRow;

use super::{BoxRow, BoxState};
use crate::store::filter::{Filter, like_anywhere};
use crate::store::tenants::TenantId;
use crate::store::tx::{Piece, rows};
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
    /// What else is asked; see [`super::super::bulk::BOX_FIELDS`].
    pub filter: Filter,
}

impl BoxFilter {
    /// `SELECT columns FROM boxes WHERE ..`, in the order of names from the one after `after`.
    fn select(&self, columns: &'static str, after: Option<&BoxId>, limit: u32) -> Vec<Piece> {
        let mut statement: Vec<Piece> = vec![
            "SELECT ".into(),
            columns.into(),
            " FROM boxes WHERE box_id > ".into(),
            Piece::Text(after.map_or("", BoxId::as_str).to_owned()),
        ];
        let mut and = |sql: &'static str, value: Piece| statement.extend([sql.into(), value]);
        if let Some(state) = self.state {
            and(" AND state = ", Piece::Text(state.as_str().to_owned()));
        }
        if let Some(online) = self.online {
            and(" AND connected = ", Piece::Bool(online));
        }
        if let Some(tenant) = &self.tenant {
            and(" AND tenant_id = ", Piece::Text(tenant.as_str().to_owned()));
        }
        if let Some(text) = &self.text {
            let all = " AND lower(box_id || ' ' || label || ' ' || site || ' ' || hardware) LIKE ";
            and(all, Piece::Text(like_anywhere(text)));
            statement.push(" ESCAPE '\\'".into());
        }
        self.filter.push(&mut statement);
        statement.push(" ORDER BY box_id LIMIT ".into());
        statement.push(Piece::Int(i64::from(limit)));
        statement
    }
}

/// Boxes in the order of their names, from the one after `after`.
pub async fn box_list(
    tx: &mut Tx,
    filter: &BoxFilter,
    after: Option<&BoxId>,
    limit: u32,
) -> StoreResult<Vec<BoxRow>> {
    rows(tx, filter.select("*", after, limit)).await
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
    let columns = "boxes.*, \
           (SELECT t.at FROM telemetry_latest t WHERE t.box_id = boxes.box_id) AS sample_at, \
           (SELECT t.detail FROM telemetry_latest t WHERE t.box_id = boxes.box_id) AS sample, \
           (SELECT r.detail FROM reported r WHERE r.box_id = boxes.box_id) AS reported, \
           (SELECT count(*) FROM alerts a WHERE a.box_id = boxes.box_id \
            AND a.state <> 'resolved' AND a.state <> 'pending') AS alerts";
    rows(tx, filter.select(columns, after, limit)).await
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
