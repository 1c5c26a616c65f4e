//! Desired and reported state, one of each per box.

use longhaul_protocol::ids::BoxId;
use sqlx::FromRow;

use super::{StoreResult, Tx};

/// The desired state that was signed last.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct DesiredRow {
    /// Whose.
    #[sqlx(try_from = "String")]
    pub box_id: BoxId,
    /// Its version.
    pub version: i64,
    /// The document: JSON.
    pub detail: String,
    /// The document under its signature.
    pub jws: String,
    /// When it was signed.
    pub updated: i64,
}

/// The reported state that came last.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct ReportedRow {
    /// Whose.
    #[sqlx(try_from = "String")]
    pub box_id: BoxId,
    /// The desired version that it answers.
    pub desired_version: i64,
    /// The document: JSON.
    pub detail: String,
    /// When it came.
    pub updated: i64,
}

/// Takes down a desired state; `false` if a newer one is stored.
pub async fn desired_set(tx: &mut Tx, row: &DesiredRow) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "INSERT INTO desired (box_id, version, detail, jws, updated) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (box_id) DO UPDATE SET version = excluded.version, \
             detail = excluded.detail, jws = excluded.jws, updated = excluded.updated \
         WHERE excluded.version > desired.version",
        row.box_id.as_str(),
        row.version,
        row.detail.as_str(),
        row.jws.as_str(),
        row.updated,
    )?;
    Ok(rows == 1)
}

/// The box's desired state.
pub async fn desired_get(tx: &mut Tx, id: &BoxId) -> StoreResult<Option<DesiredRow>> {
    fetch!(
        optional,
        tx,
        DesiredRow,
        "SELECT * FROM desired WHERE box_id = $1",
        id.as_str()
    )
}

/// Takes down a reported state.
pub async fn reported_set(tx: &mut Tx, row: &ReportedRow) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO reported (box_id, desired_version, detail, updated) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (box_id) DO UPDATE SET desired_version = excluded.desired_version, \
             detail = excluded.detail, updated = excluded.updated",
        row.box_id.as_str(),
        row.desired_version,
        row.detail.as_str(),
        row.updated,
    )?;
    Ok(())
}

/// The box's reported state.
pub async fn reported_get(tx: &mut Tx, id: &BoxId) -> StoreResult<Option<ReportedRow>> {
    fetch!(
        optional,
        tx,
        ReportedRow,
        "SELECT * FROM reported WHERE box_id = $1",
        id.as_str()
    )
}
