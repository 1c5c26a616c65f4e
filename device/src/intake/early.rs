//! What is settled before s3s sees a request: what it would take and the box must not, and what clients
//! do and it does not know.

use http::{HeaderMap, HeaderName, Request};
use s3s::{Body, S3Error, S3ErrorCode};

/// When a request was signed.
const AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
/// How long a presigned address may live, in seconds (S3 user guide, "Presigned URLs").
const PRESIGNED_SECS: std::ops::RangeInclusive<u32> = 1..=604_800;

/// What s3s would take and the box must not: signatures of version 2 (SHA-1, no body), and browser
/// forms, which are gathered in memory.
pub(super) fn refused<B>(request: &Request<B>) -> Option<S3Error> {
    let header = |name| {
        request
            .headers()
            .get(name)
            .map(http::HeaderValue::as_bytes)
            .unwrap_or_default()
    };
    let query = request.uri().query().unwrap_or_default();
    let v2 = header(http::header::AUTHORIZATION).starts_with(b"AWS ")
        || query.split('&').any(|pair| pair.starts_with("Signature="));
    if v2 {
        return Some(invalid(
            "signature version 2 is not taken; set the client to version 4 (AWS4-HMAC-SHA256)",
        ));
    }
    let lifetime = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("X-Amz-Expires="));
    if lifetime.is_some_and(|secs| !secs.parse().is_ok_and(|s: u32| PRESIGNED_SECS.contains(&s))) {
        return Some(forbidden(
            "a presigned address may live from one second to seven days",
        ));
    }
    let unreadable = request.headers().iter().find(|(name, value)| {
        name.as_str().starts_with("x-amz-meta-") && std::str::from_utf8(value.as_bytes()).is_err()
    });
    if let Some((name, _)) = unreadable {
        return Some(bad_value(format!(
            "the value of {name} is not UTF-8; send UTF-8, or ASCII with encoded words (RFC 2047)"
        )));
    }
    if header(http::header::CONTENT_TYPE)
        .to_ascii_lowercase()
        .starts_with(b"multipart/form-data")
    {
        return Some(invalid("browser forms are not taken; use PUT"));
    }
    None
}

/// Signatures count from `x-amz-date`, or from `Date` where a client sends that alone (Amazon S3 API
/// reference, "Authenticating requests"); s3s reads the former only. It is not among the signed
/// headers then, so that adding it breaks no signature.
pub(super) fn dated(headers: &mut HeaderMap) {
    if headers.contains_key(AMZ_DATE) || !headers.contains_key(http::header::AUTHORIZATION) {
        return;
    }
    let date = headers.get(http::header::DATE).and_then(|date| {
        let date = jiff::fmt::rfc2822::parse(date.to_str().ok()?).ok()?;
        let text = date.timestamp().strftime("%Y%m%dT%H%M%SZ").to_string();
        http::HeaderValue::from_str(&text).ok()
    });
    if let Some(date) = date {
        headers.insert(AMZ_DATE, date);
    }
}

pub(super) fn asks_for_attributes<B>(request: &Request<B>) -> bool {
    let mut pairs = request.uri().query().unwrap_or_default().split('&');
    pairs.any(|pair| pair == "attributes" || pair == "attributes=")
}

/// `GetObjectAttributes` is the one answer in which S3 shows an `ETag` without quotes; s3s knows
/// only quoted ones.
pub(super) fn unquoted(mut body: Body) -> Body {
    let Some(bytes) = body.take_bytes() else {
        return body;
    };
    let text = String::from_utf8_lossy(&bytes);
    let (begin, end) = ("<ETag>", "</ETag>");
    let place = text
        .find(begin)
        .map(|at| at + begin.len())
        .and_then(|from| Some(from..from + text.get(from..)?.find(end)?));
    let Some(place) = place else {
        return Body::from(bytes);
    };
    let (before, after) = (&text[..place.start], &text[place.end..]);
    let etag = text[place].replace("&quot;", "").replace('"', "");
    Body::from(format!("{before}{etag}{after}").into_bytes())
}

fn invalid(why: &'static str) -> S3Error {
    S3Error::with_message(S3ErrorCode::InvalidRequest, why)
}

fn bad_value(why: String) -> S3Error {
    S3Error::with_message(S3ErrorCode::InvalidArgument, why)
}

fn forbidden(why: &'static str) -> S3Error {
    S3Error::with_message(S3ErrorCode::AccessDenied, why)
}
