//! `Idempotency-Key`: whoever sends a creating request twice makes one thing and gets one answer.
//!
//! Key and answer are written by the transaction that creates: all three are there, or none. A route
//! that commits by itself says what it answers with [`keep`]; one that leaves that to the fleet says
//! with [`answer_by`] how the answer follows from what was made. Answers are sealed, because some hold
//! a secret.

use std::cell::RefCell;

use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use bytes::Bytes;
use futures::future::BoxFuture;
use serde::Serialize;
use warp::reply::{Reply as _, Response};

use super::People;
use super::api::Head;
use super::problem::{Fault, Problem};
use crate::auth::Caller;
use crate::store::idempotency::{
    Answer, Claim, IDEMPOTENT, Keyed, idempotency_find, idempotency_forget,
};
use crate::store::seal::SealKey;
use crate::store::{StoreError, Tx};

/// The request's header.
pub const KEY: &str = "idempotency-key";
/// Says that the answer is the first request's.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// How long a key is known: a day, in milliseconds.
const KEPT_MS: i64 = 86_400 * 1000;
/// Longest key.
const MAX_KEY: usize = 255;

/// The key that a request carries, if any.
fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(KEY) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let fits = (1..=MAX_KEY).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if fits {
        return Ok(Some(text.to_owned()));
    }
    let rule = format!("it has 1 to {MAX_KEY} visible ASCII characters");
    Err(Problem::faults(vec![Fault::parameter(
        "Idempotency-Key",
        None,
        rule,
    )]))
}

/// Whose key it is: another caller's is another key.
fn whose(caller: &Caller) -> Option<String> {
    match caller {
        Caller::Nobody | Caller::Customer(_) => None,
        Caller::Operator { name, .. } => Some(format!("operator:{name}")),
        Caller::Token { hash, .. } => Some(format!("token:{hash}")),
    }
}

/// A request with a key.
pub struct Request {
    caller: String,
    key: String,
    fingerprint: String,
}

impl Request {
    /// The request, if it has a key and somebody to whom keys belong.
    pub fn of(caller: &Caller, head: &Head, body: &Bytes) -> Result<Option<Self>, Problem> {
        let (Some(key), Some(caller)) = (key(&head.headers)?, whose(caller)) else {
            return Ok(None);
        };
        let mut hasher = blake3::Hasher::new();
        for part in [head.method.as_str(), &head.path, &head.query] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(body);
        let fingerprint = hasher.finalize().to_hex().to_string();
        Ok(Some(Self {
            caller,
            key,
            fingerprint,
        }))
    }
}

/// To what an answer is sealed.
fn place(claim: &Claim) -> String {
    format!("{} {}", claim.caller, claim.key)
}

fn sealed(seal: &SealKey, place: &str, reply: &impl Serialize) -> Result<Answer, Problem> {
    let body = serde_json::to_vec(reply).map_err(|e| Problem::internal("reply", &e))?;
    let sealed = seal.seal(place, &body);
    let sealed = sealed.map_err(|e| Problem::internal("idempotent answer", &e))?;
    Ok(Answer { body, sealed })
}

/// Where the request's answer is sealed to, if the request has a key that waits to be written.
fn waiting() -> Option<String> {
    let place = IDEMPOTENT.try_with(|keyed| keyed.borrow().claim.as_ref().map(place));
    place.ok().flatten()
}

/// Keeps what this request answers; the caller's next commit writes it down.
pub fn keep(people: &People, reply: &impl Serialize) -> Result<(), Problem> {
    let Some(place) = waiting() else {
        return Ok(());
    };
    let answer = sealed(people.fleet.seal(), &place, reply)?;
    let _ = IDEMPOTENT.try_with(|keyed| keyed.borrow_mut().answer = Some(answer));
    Ok(())
}

/// Says how this request's answer follows from what the fleet makes for it, in its transaction.
pub fn answer_by<T, F>(people: &People, view: F)
where
    T: Serialize + Send,
    F: for<'a> FnOnce(&'a mut Tx, &'a str) -> BoxFuture<'a, Result<T, Problem>> + Send + 'static,
{
    let Some(place) = waiting() else {
        return;
    };
    let fleet = people.fleet.clone();
    let _ = IDEMPOTENT.try_with(|keyed| {
        keyed.borrow_mut().answering = Some(Box::new(move |tx, made| {
            Box::pin(async move {
                let reply = view(tx, made).await;
                let answer = reply.and_then(|reply| sealed(fleet.seal(), &place, &reply));
                // The problem has told the log what it is.
                answer.map_err(|_| StoreError::Unanswered)
            })
        }));
    });
}

/// Carries `work` out unless it was carried out under this key before.
pub async fn once(
    people: &People,
    request: Request,
    work: impl Future<Output = Result<Response, Problem>>,
) -> Result<Response, Problem> {
    let Request {
        caller,
        key,
        fingerprint,
    } = request;
    let now = people.clock.now().0;
    let mut tx = people.db.write().await?;
    idempotency_forget(&mut tx, now).await?;
    let known = idempotency_find(&mut tx, &caller, &key).await?;
    tx.commit().await?;
    let claim = Claim {
        caller,
        key,
        fingerprint,
        status: StatusCode::CREATED.as_u16(),
        created: now,
        expires: now.saturating_add(KEPT_MS),
    };
    if let Some(known) = known {
        if known.fingerprint != claim.fingerprint {
            return Err(Problem::key_reused());
        }
        // Written by a version that kept the answer after the change, and died between the two.
        let (Some(status), Some(sealed)) = (known.status, known.answer) else {
            return Err(Problem::conflict(
                "a request with this key was carried out and its answer is lost: look whether what \
                 it makes is there",
            ));
        };
        let answer = people.fleet.seal().open(&place(&claim), &sealed);
        let answer = answer.map_err(|e| Problem::internal("idempotent answer", &e))?;
        let status = u16::try_from(status).ok();
        let status = status.and_then(|s| StatusCode::from_u16(s).ok());
        let mut response = json(status.unwrap_or(StatusCode::CREATED), answer);
        response
            .headers_mut()
            .insert(REPLAYED, HeaderValue::from_static("true"));
        return Ok(response);
    }
    let keyed = Keyed {
        claim: Some(claim),
        answering: None,
        made: None,
        answer: None,
    };
    let (response, answer) = IDEMPOTENT
        .scope(RefCell::new(keyed), async {
            let response = work.await;
            let answer = IDEMPOTENT.with(|keyed| keyed.borrow_mut().answer.take());
            (response, answer)
        })
        .await;
    let (response, Some(answer)) = (response?, answer) else {
        return Err(Problem::internal("reply", &StoreError::Unanswered));
    };
    // What a repetition gets, to the byte: the thing may have moved on since it was committed.
    let (parts, _) = response.into_parts();
    let mut first = json(parts.status, answer.body);
    *first.headers_mut() = parts.headers;
    Ok(first)
}

fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = body.into_response();
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
