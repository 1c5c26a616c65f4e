//! Keys of requests that create, each with the answer that it got.

use std::cell::RefCell;

use futures::future::BoxFuture;
use sqlx::FromRow;

use super::{StoreError, StoreResult, Tx};

/// Puts the answer together from inside the transaction that creates, by the name of what it made.
pub type Answering =
    Box<dyn for<'a> FnOnce(&'a mut Tx, &'a str) -> BoxFuture<'a, StoreResult<Answer>> + Send>;

/// What a request answers.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its body.
    pub body: Vec<u8>,
    /// The same, sealed: some answers hold a secret.
    pub sealed: Vec<u8>,
}

/// A request with a key, while it is carried out.
pub struct Keyed {
    /// What the next commit writes down; absent once that is done.
    pub claim: Option<Claim>,
    /// How the answer is put together, where the route leaves the transaction to the fleet.
    pub answering: Option<Answering>,
    /// Name of what the transaction made.
    pub made: Option<String>,
    /// The answer.
    pub answer: Option<Answer>,
}

/// A key that the next commit of this request writes down, with the answer.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Whose key.
    pub caller: String,
    /// The key.
    pub key: String,
    /// Hash of the request.
    pub fingerprint: String,
    /// Status of the answer.
    pub status: u16,
    /// When.
    pub created: i64,
    /// Until when it is known.
    pub expires: i64,
}

tokio::task_local! {
    /// Set while a request with a key is carried out: the transaction that creates takes it.
    pub static IDEMPOTENT: RefCell<Keyed>;
}

/// Says what the transaction made that is about to be committed: the answer is about that.
pub fn idempotency_made(name: &str) {
    // Most requests have no key.
    let _ = IDEMPOTENT.try_with(|keyed| keyed.borrow_mut().made = Some(name.to_owned()));
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

/// Writes down the key of the request that this transaction belongs to, if it has one, and the answer.
/// Two requests with one key at once: the second one's transaction fails here, and with it what it made.
pub(super) async fn idempotency_claim(tx: &mut Tx) -> StoreResult<()> {
    let taken = IDEMPOTENT.try_with(|keyed| {
        let mut keyed = keyed.borrow_mut();
        // What is committed on the way there is not what the request makes.
        if keyed.answer.is_none() && keyed.made.is_none() {
            return None;
        }
        let claim = keyed.claim.take()?;
        Some((
            claim,
            keyed.answer.clone(),
            keyed.answering.take(),
            keyed.made.take(),
        ))
    });
    let Ok(Some((claim, kept, answering, made))) = taken else {
        return Ok(());
    };
    let answer = match (kept, answering, made) {
        (Some(answer), _, _) => answer,
        (None, Some(answering), Some(made)) => answering(tx, &made).await?,
        _ => return Err(StoreError::Unanswered),
    };
    let written = execute!(
        tx,
        "INSERT INTO idempotency_keys \
             (caller, idempotency_key, fingerprint, status, answer, created, expires) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        claim.caller.as_str(),
        claim.key.as_str(),
        claim.fingerprint.as_str(),
        i64::from(claim.status),
        answer.sealed.as_slice(),
        claim.created,
        claim.expires,
    );
    match written {
        Ok(_) => {
            let _ = IDEMPOTENT.try_with(|keyed| keyed.borrow_mut().answer = Some(answer));
            Ok(())
        }
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

/// Forgets keys whose day has passed.
pub async fn idempotency_forget(tx: &mut Tx, now: i64) -> StoreResult<()> {
    execute!(tx, "DELETE FROM idempotency_keys WHERE expires <= $1", now)?;
    Ok(())
}
