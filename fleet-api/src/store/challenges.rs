//! Enrolment challenges: each can be answered once.

use longhaul_protocol::ids::BoxId;
use sqlx::FromRow;

use super::{StoreResult, Tx};

/// One challenge as it was made.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct ChallengeRow {
    /// Names it.
    pub challenge_id: String,
    /// Who must answer.
    #[sqlx(try_from = "String")]
    pub box_id: BoxId,
    /// What quote and certification must be over.
    pub nonce: Vec<u8>,
    /// What activation must yield.
    pub secret: Vec<u8>,
    /// What else the verifier wants to remember: JSON.
    pub detail: String,
    /// When it ends.
    pub expires: i64,
    /// When it was answered.
    pub used: Option<i64>,
}

/// Takes down a challenge.
pub async fn challenge_insert(tx: &mut Tx, row: &ChallengeRow) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO challenges (challenge_id, box_id, nonce, secret, detail, expires) \
         VALUES ($1, $2, $3, $4, $5, $6)",
        row.challenge_id.as_str(),
        row.box_id.as_str(),
        row.nonce.as_slice(),
        row.secret.as_slice(),
        row.detail.as_str(),
        row.expires,
    )?;
    Ok(())
}

/// Uses the challenge up; `None` if it is unknown, expired, used, or another box's. Two who race
/// for it cannot both get it.
pub async fn challenge_take(
    tx: &mut Tx,
    id: &str,
    box_id: &BoxId,
    now: i64,
) -> StoreResult<Option<ChallengeRow>> {
    fetch!(
        optional,
        tx,
        ChallengeRow,
        "UPDATE challenges SET used = $3 \
         WHERE challenge_id = $1 AND box_id = $2 AND used IS NULL AND expires > $3 RETURNING *",
        id,
        box_id.as_str(),
        now,
    )
}

/// Forgets challenges that ended before `before`.
pub async fn challenge_prune(tx: &mut Tx, before: i64) -> StoreResult<u64> {
    execute!(tx, "DELETE FROM challenges WHERE expires < $1", before)
}
