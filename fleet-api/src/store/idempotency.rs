//! Keys of requests that create, each with the answer that it got.

use std::cell::RefCell;

use sqlx::FromRow;

use super::{StoreError, StoreResult, Tx};

/// A key that the next commit of this request writes down.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Whose key.
    pub caller: String,
    /// The key.
    pub key: String,
    /// Hash of the request.
    pub fingerprint: String,
    /// When.
    pub created: i64,
    /// Until when it is known.
    pub expires: i64,
}

tokio::task_local! {
    /// Set while a request with a key is carried out: the transaction that creates takes it.
    pub static IDEMPOTENT: RefCell<Option<Claim>>;
}

/// What is known of a key.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct KeyRow {
    /// Hash of the request.
    pub fingerprint: String,
    /// Status of its answer.
    pub status: Option<i64>,
    /// The answer, sealed.
    pub answer: Option<Vec<u8>>,
}

/// Writes down the key of the request that this transaction belongs to, if it has one. Two requests
/// with one key at once: the second one's transaction fails here, and with it what it made.
pub(super) async fn idempotency_claim(tx: &mut Tx) -> StoreResult<()> {
    let claim = IDEMPOTENT.try_with(|claim| claim.borrow_mut().take());
    let Ok(Some(claim)) = claim else {
        return Ok(());
    };
    let written = execute!(
        tx,
        "INSERT INTO idempotency_keys (caller, idempotency_key, fingerprint, created, expires) \
         VALUES ($1, $2, $3, $4, $5)",
        claim.caller.as_str(),
        claim.key.as_str(),
        claim.fingerprint.as_str(),
        claim.created,
        claim.expires,
    );
    match written {
        Ok(_) => Ok(()),
        Err(error) if error.is_duplicate() => Err(StoreError::KeyTaken),
        Err(error) => Err(error),
    }
}

/// What is known of a caller's key.
pub async fn idempotency_find(tx: &mut Tx, caller: &str, key: &str) -> StoreResult<Option<KeyRow>> {
    fetch!(
        optional,
        tx,
        KeyRow,
        "SELECT fingerprint, status, answer FROM idempotency_keys \
         WHERE caller = $1 AND idempotency_key = $2",
        caller,
        key,
    )
}

/// Keeps the answer, sealed.
pub async fn idempotency_answer(
    tx: &mut Tx,
    caller: &str,
    key: &str,
    status: u16,
    answer: &[u8],
) -> StoreResult<()> {
    execute!(
        tx,
        "UPDATE idempotency_keys SET status = $3, answer = $4 \
         WHERE caller = $1 AND idempotency_key = $2",
        caller,
        key,
        i64::from(status),
        answer,
    )?;
    Ok(())
}

/// Forgets keys whose day has passed.
pub async fn idempotency_forget(tx: &mut Tx, now: i64) -> StoreResult<()> {
    execute!(tx, "DELETE FROM idempotency_keys WHERE expires <= $1", now)?;
    Ok(())
}
