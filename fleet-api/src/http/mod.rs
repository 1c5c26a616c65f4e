//! The people's port: the HTTP API, its description, and the operators' dashboard.
//!
//! A request goes through [`api::Api`], one table of routes. Each route is an
//! [`endpoint::Endpoint`], which says who may call it; that is checked before anything of the
//! request is read.

pub mod api;
mod cursor;
pub mod dashboard;
pub mod endpoint;
mod idempotency;
mod parameters;
pub mod problem;
pub mod reply;
pub mod routes;
mod tag;
#[cfg(test)]
pub(crate) mod tests;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Method, header};
use futures::StreamExt as _;
use hyper::body::Body as _;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use warp::Filter as _;
use warp::filters::path::FullPath;
use warp::reply::{Reply as _, Response};

use crate::auth::throttle::Throttle;
use crate::clock::Clock;
use crate::fleet::Fleet;
use crate::listen::{Listen, Peer};
use crate::metrics::Metrics;
use crate::sso::Sso;
use crate::store::Db;
use api::{Api, Head};

/// Dashboards that watch live at once.
const MAX_WATCHERS: usize = 256;
/// Between two signs of life of a live view, so that whatever lies between does not think the line
/// is dead.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What the routes work on.
pub struct People {
    /// The database.
    pub db: Db,
    /// What actions are carried out by.
    pub fleet: Fleet,
    /// The time.
    pub clock: Clock,
    /// Ends what would otherwise never end.
    pub stop: CancellationToken,
    /// Counts attempts to log in.
    pub throttle: Mutex<Throttle>,
    /// One for each live view.
    pub watchers: Arc<Semaphore>,
    /// Between two signs of life of a live view.
    pub heartbeat: Duration,
    /// Counts what was answered.
    pub metrics: Metrics,
    /// Who else vouches for people.
    pub sso: Option<Arc<Sso>>,
}

impl People {
    /// Puts the parts together.
    pub fn new(db: Db, fleet: Fleet, clock: Clock, stop: CancellationToken) -> Self {
        Self {
            db,
            fleet,
            clock,
            stop,
            throttle: Mutex::default(),
            watchers: Arc::new(Semaphore::new(MAX_WATCHERS)),
            heartbeat: HEARTBEAT,
            metrics: Metrics::default(),
            sso: None,
        }
    }
}

/// Serves the people's port until `people.stop`, then drains.
pub async fn serve(listen: Listen, people: People) {
    let stop = people.stop.clone();
    let service = TowerToHyperService::new(warp::service(filter(Arc::new(people))));
    listen.serve(service, stop).await;
}

/// Everything on the people's port, as one filter.
pub fn filter(
    people: Arc<People>,
) -> impl warp::Filter<Extract = (Response,), Error = warp::Rejection> + Clone {
    let api = Arc::new(routes::api());
    warp::method()
        .and(warp::path::full())
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Peer>())
        .and(warp::body::stream())
        .then(
            move |method: Method,
                  path: FullPath,
                  query: String,
                  headers: HeaderMap,
                  peer: Option<Peer>,
                  body| {
                let (api, people) = (Arc::clone(&api), Arc::clone(&people));
                let head = Head {
                    method,
                    path: path.as_str().to_owned(),
                    query,
                    headers,
                    address: peer.map(|p| p.address.ip()),
                };
                let body = to_bytes(body);
                async move { answer(&api, &people, head, body).await }
            },
        )
}

fn to_bytes<B: bytes::Buf>(
    body: impl futures::Stream<Item = Result<B, warp::Error>> + Send + 'static,
) -> api::BodyStream {
    let body = body.map(|piece| {
        piece.map(|mut piece| {
            let length = piece.remaining();
            piece.copy_to_bytes(length)
        })
    });
    Box::pin(body) as Pin<Box<_>>
}

async fn answer(
    api: &Api,
    people: &Arc<People>,
    mut head: Head,
    body: api::BodyStream,
) -> Response {
    let is_head = head.method == Method::HEAD;
    if is_head {
        head.method = Method::GET;
    }
    let mut response = if is_api(&head.path) {
        api.answer(people, head, body).await
    } else if head.method == Method::GET {
        dashboard::file(&head.path)
    } else {
        problem::Problem::method_not_allowed("GET".to_owned()).into_response()
    };
    harden(response.headers_mut());
    if is_head {
        response = without_body(response);
    }
    response
}

/// What `HEAD` answers: hyper leaves the body out by itself in HTTP/1.1 only.
fn without_body(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts
            .headers
            .entry(header::CONTENT_LENGTH)
            .or_insert_with(|| HeaderValue::from(length));
    }
    let mut empty = Vec::new().into_response();
    *empty.status_mut() = parts.status;
    *empty.headers_mut() = parts.headers;
    empty
}

fn is_api(path: &str) -> bool {
    matches!(path, "/healthz" | "/metrics") || path == "/v1" || path.starts_with("/v1/")
}

/// Headers that every answer carries.
fn harden(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in [
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        (
            "permissions-policy",
            "camera=(), geolocation=(), microphone=(), usb=()",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'",
        ));
}

/// Where a caller sits, for the throttle: one household or office shares an IPv6 /64.
pub(crate) fn network(address: Option<IpAddr>) -> Option<IpAddr> {
    match address {
        Some(IpAddr::V6(v6)) => {
            let mut octets = v6.octets();
            octets[8..].fill(0);
            Some(IpAddr::from(octets))
        }
        other => other,
    }
}
