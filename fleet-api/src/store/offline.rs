//! Answers to requests that boxes made without a line.

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::value::Digest32;
use sqlx::FromRow;

use super::{StoreResult, Tx};

/// Answers of one box that are kept: the newest.
const KEPT: i64 = 8;

/// One answer.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct AnswerRow {
    /// For whom.
    #[sqlx(try_from = "String")]
    pub box_id: BoxId,
    /// SHA-256 of the request.
    #[sqlx(try_from = "String")]
    pub request_id: Digest32,
    /// When the factory's record was made that it was judged by.
    pub made_at: i64,
    /// How often the TPM had been reset when it quoted.
    pub resets: i64,
    /// The TPM's clock then, in milliseconds.
    pub clock_ms: i64,
    /// When it was answered.
    pub answered: i64,
    /// By whom.
    pub answered_by: String,
    /// When the answer ends.
    pub expires: i64,
    /// The answer, as it is downloaded; only the box's TPM opens it.
    pub answer: String,
}

/// Takes down an answer, and forgets all but the newest of its box.
pub async fn offline_answer_insert(tx: &mut Tx, row: &AnswerRow) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO offline_answers (box_id, request_id, made_at, resets, clock_ms, answered, \
             answered_by, expires, answer) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
         ON CONFLICT (box_id, request_id) DO UPDATE SET answered = excluded.answered, \
             answered_by = excluded.answered_by, expires = excluded.expires, answer = excluded.answer",
        row.box_id.as_str(),
        row.request_id.to_string(),
        row.made_at,
        row.resets,
        row.clock_ms,
        row.answered,
        row.answered_by.as_str(),
        row.expires,
        row.answer.as_str(),
    )?;
    execute!(
        tx,
        "DELETE FROM offline_answers WHERE box_id = $1 AND request_id NOT IN ( \
             SELECT request_id FROM offline_answers WHERE box_id = $1 \
             ORDER BY answered DESC, request_id LIMIT $2)",
        row.box_id.as_str(),
        KEPT,
    )?;
    Ok(())
}

/// The answer to the latest request of a box, as its TPM counts, of those judged by this record.
pub async fn offline_answer_latest(
    tx: &mut Tx,
    box_id: &BoxId,
    made_at: i64,
) -> StoreResult<Option<AnswerRow>> {
    fetch!(
        optional,
        tx,
        AnswerRow,
        "SELECT * FROM offline_answers WHERE box_id = $1 AND made_at = $2 \
         ORDER BY resets DESC, clock_ms DESC LIMIT 1",
        box_id.as_str(),
        made_at,
    )
}
