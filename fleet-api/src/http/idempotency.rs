//! `Idempotency-Key`: whoever sends a creating request twice makes one thing and gets one answer.
//!
//! The key is written by the transaction that creates: either both are there or neither. The answer
//! is kept sealed right after, because some hold a secret. If the process dies between the two,
//! a repetition is told that the thing was made and its answer lost: it is never made twice.

use std::cell::RefCell;

use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use warp::reply::{Reply as _, Response};

use super::People;
use super::api::Head;
use super::problem::{Fault, Problem};
use crate::auth::Caller;
use crate::store::idempotency::{
    Claim, IDEMPOTENT, idempotency_answer, idempotency_find, idempotency_forget,
};

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
    if let Some(known) = known {
        if known.fingerprint != fingerprint {
            return Err(Problem::key_reused());
        }
        let (Some(status), Some(sealed)) = (known.status, known.answer) else {
            return Err(Problem::conflict(
                "a request with this key is being carried out, or was and its answer is lost: \
                 look whether what it makes is there",
            ));
        };
        let answer = people
            .fleet
            .seal()
            .open(&format!("{caller} {key}"), &sealed);
        let answer = answer.map_err(|e| Problem::internal("idempotent answer", &e))?;
        let status = u16::try_from(status).ok();
        let status = status.and_then(|s| StatusCode::from_u16(s).ok());
        let mut response = json(status.unwrap_or(StatusCode::CREATED), answer);
        response
            .headers_mut()
            .insert(REPLAYED, HeaderValue::from_static("true"));
        return Ok(response);
    }
    let claim = Claim {
        caller: caller.clone(),
        key: key.clone(),
        fingerprint,
        created: now,
        expires: now.saturating_add(KEPT_MS),
    };
    let response = IDEMPOTENT.scope(RefCell::new(Some(claim)), work).await;
    let response = response?;
    let status = response.status();
    let (parts, body) = response.into_parts();
    let body = body.collect().await;
    let body = body.map_err(|e| Problem::internal("reply", &e))?.to_bytes();
    let sealed = people.fleet.seal().seal(&format!("{caller} {key}"), &body);
    let sealed = sealed.map_err(|e| Problem::internal("idempotent answer", &e))?;
    let mut tx = people.db.write().await?;
    idempotency_answer(&mut tx, &caller, &key, status.as_u16(), &sealed).await?;
    tx.commit().await?;
    let mut answer = json(status, body.to_vec());
    *answer.headers_mut() = parts.headers;
    Ok(answer)
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
