//! Why boxes are held back: one row for each that is.

use longhaul_protocol::ids::BoxId;
use longhaul_provisioning::policy::Difference;
use sqlx::FromRow;

use super::tx::{json_text, plain};
use super::{StoreResult, Tx};

/// Why one box is held back.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct QuarantineRow {
    /// The box.
    #[sqlx(try_from = "String")]
    pub box_id: BoxId,
    /// Since when.
    pub since: i64,
    /// Who held it back: an operator, or the cloud's enrolment.
    pub held_by: String,
    /// Why, for people.
    pub reason: String,
    /// PCRs that differ: JSON array of [`Difference`].
    pub detail: String,
    /// When the box last proved a state that is accepted after all.
    pub accepted: Option<i64>,
}

impl QuarantineRow {
    /// The PCRs that differ.
    pub fn differs(&self) -> Vec<Difference> {
        serde_json::from_str(&self.detail).unwrap_or_default()
    }
}

/// Takes down why a box is held back; since when and by whom stays, where it was before.
pub async fn quarantine_set(
    tx: &mut Tx,
    box_id: &BoxId,
    held_by: &str,
    reason: &str,
    differs: &[Difference],
    now: i64,
) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO quarantines (box_id, since, held_by, reason, detail) \
         VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (box_id) DO UPDATE SET reason = excluded.reason, detail = excluded.detail, \
             accepted = NULL",
        box_id.as_str(),
        now,
        held_by,
        plain(reason),
        json_text("differences", &differs)?,
    )?;
    Ok(())
}

/// Takes down that a box that is held back proved an accepted state.
pub async fn quarantine_accepted(tx: &mut Tx, box_id: &BoxId, now: i64) -> StoreResult<()> {
    execute!(
        tx,
        "UPDATE quarantines SET accepted = $2 WHERE box_id = $1",
        box_id.as_str(),
        now,
    )?;
    Ok(())
}

/// Why a box is held back.
pub async fn quarantine_get(tx: &mut Tx, box_id: &BoxId) -> StoreResult<Option<QuarantineRow>> {
    fetch!(
        optional,
        tx,
        QuarantineRow,
        "SELECT * FROM quarantines WHERE box_id = $1",
        box_id.as_str()
    )
}

/// The box is held back no more.
pub async fn quarantine_end(tx: &mut Tx, box_id: &BoxId) -> StoreResult<()> {
    execute!(
        tx,
        "DELETE FROM quarantines WHERE box_id = $1",
        box_id.as_str()
    )?;
    Ok(())
}
