//! `ETag` and `If-Match`: who changes something says what they saw, and nobody overwrites what they
//! did not see.

use ::http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::Response as Description;
use warp::reply::Response;

use super::endpoint::{Json, Schemas};
use super::problem::{Fault, Problem};
use super::reply::Reply;

/// Something that can be changed.
pub trait Changeable: Serialize {
    /// What of it callers can change: its tag changes with that and with nothing else.
    fn changeable(&self) -> serde_json::Value;

    /// Its entity tag, in quotes.
    fn tag(&self) -> String {
        let hash = blake3::hash(self.changeable().to_string().as_bytes());
        format!("\"{}\"", &hash.to_hex().as_str()[..32])
    }
}

/// A changeable thing, with its tag.
pub struct Tagged<T>(pub T);

impl<T: Changeable + ToSchema + Send> Reply for Tagged<T> {
    fn into_response(self, status: StatusCode) -> Result<Response, Problem> {
        let tag = self.0.tag();
        let json: Json<T> = Json(self.0);
        let mut response = json.into_response(status)?;
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        Ok(response)
    }

    fn describe(schemas: &mut Schemas) -> Description {
        let mut described = <Json<T> as Reply>::describe(schemas);
        let mut tag = utoipa::openapi::header::Header::default();
        tag.description = Some("Send it as `If-Match` to change what you saw.".to_owned());
        described.headers.insert("ETag".to_owned(), tag.into());
        described
    }
}

/// The entity tags of a list (RFC 9110, sections 5.6.1 and 8.8.3); a comma may stand in one.
fn tags(text: &str) -> Option<Vec<String>> {
    let (mut found, mut rest) = (Vec::new(), text.trim());
    loop {
        let weak = if rest.starts_with("W/") { 2 } else { 0 };
        let inner = rest[weak..].strip_prefix('"')?;
        let length = inner.find('"')?;
        if !inner[..length].bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let (tag, after) = rest.split_at(weak + length + 2);
        found.push(tag.to_owned());
        rest = match after.trim_start() {
            "" => return Some(found),
            more => more.strip_prefix(',')?.trim_start(),
        };
    }
}

/// What a caller saw, from `If-Match`.
#[derive(Clone, Debug, Default)]
pub struct Seen(Option<Vec<String>>);

impl Seen {
    /// Reads the headers.
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let all = headers.get_all(header::IF_MATCH).iter();
        let texts: Vec<_> = all
            .map(|value| value.to_str().unwrap_or_default())
            .collect();
        if texts.is_empty() {
            return Ok(Self(None));
        }
        let text = texts.join(",");
        if text.trim() == "*" {
            return Ok(Self(Some(vec!["*".to_owned()])));
        }
        if let Some(tags) = tags(&text) {
            return Ok(Self(Some(tags)));
        }
        Err(Problem::faults(vec![Fault::parameter(
            "If-Match",
            None,
            "it is `*`, or tags in quotes as `ETag` gives them",
        )]))
    }

    /// Refuses with 412 and the present state where the caller saw another one; says nothing where
    /// they did not say what they saw. Call it in the transaction that changes.
    pub fn check(&self, now: &impl Changeable) -> Result<(), Problem> {
        let Some(seen) = &self.0 else {
            return Ok(());
        };
        let tag = now.tag();
        // Weak tags never match (RFC 9110, section 13.1.1).
        let fits = seen.iter().any(|one| one == "*" || *one == tag);
        if fits {
            return Ok(());
        }
        Err(Problem::changed(&tag).with("current", now))
    }
}
