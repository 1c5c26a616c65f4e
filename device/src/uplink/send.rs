//! Sends bytes of one version to a presigned URL, straight from the vault.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http::header::{CONTENT_LENGTH, ETAG, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use longhaul_protocol::upload::{PresignedPut, StoreTrust};
use longhaul_vault::{Error as VaultError, Vault, Version};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::throttle::{Held, Throttle};
use super::{StoreTls, UplinkError};
use crate::cloud::chain;
use crate::intake::{StreamError, VersionStream};

/// A connection that takes longer to make has failed.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Bytes that are handed to the connection at a time.
const PIECE: usize = 64 << 10;
/// Questions that measure the round trip; the first one makes the connection.
const ROUNDS: u32 = 4;
/// The longest pause that a store can ask for.
const LONGEST_PAUSE: Duration = Duration::from_mins(15);
/// Bytes of a refusal that are kept as its reason.
const REASON_BYTES: usize = 400;

/// The object store, as whoever holds a presigned URL sees it.
#[derive(Clone)]
pub(super) struct Store {
    fleet: reqwest::Client,
    public: reqwest::Client,
    stall_limit: Duration,
}

/// Why bytes did not arrive.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// The way, or the store's side: worth sending again.
    #[error("{0}")]
    Later(String),
    /// The store asks to be left alone for a while.
    #[error("{why}")]
    Busy {
        /// What it said.
        why: String,
        /// For how long.
        pause: Duration,
    },
    /// The URL is not taken, most likely because it expired: a fresh one may be.
    #[error("{0}")]
    Stale(String),
    /// The store does not know the upload: it must begin anew.
    #[error("{0}")]
    Lost(String),
    /// The store will not take these bytes.
    #[error("{0}")]
    Refused(String),
    /// The version was overwritten or deleted.
    #[error("the version is gone")]
    Gone,
    /// The condition that there is no such object yet does not hold.
    #[error("the object store has such an object already")]
    Exists,
    /// The box cannot read its own bytes.
    #[error("{0}")]
    Unreadable(String),
    /// A pause, or an hour in which nothing may be sent, began in the middle.
    #[error("sending is paused")]
    Held,
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
enum BodyError {
    #[error(transparent)]
    Source(#[from] StreamError),
    #[error(transparent)]
    Held(#[from] Held),
}

impl From<VaultError> for SendError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::NoSuchVersion(_) | VaultError::NoSuchJob(_) => Self::Gone,
            VaultError::Damaged(_) | VaultError::Released(_) => Self::Unreadable(format!(
                "{error}; push the file again, and have the box's disk looked at"
            )),
            error => Self::Later(chain(&error)),
        }
    }
}

impl Store {
    /// Clients that trust what `tls` trusts. Without a time limit on the whole request: a part
    /// takes as long as the line needs, as long as something moves.
    pub fn new(tls: &StoreTls, stall_limit: Duration) -> Result<Self, UplinkError> {
        let proxy = tls.proxy.for_http();
        let client = |tls: &rustls::ClientConfig| {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .proxy(proxy.clone())
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT_LIMIT)
                .http1_only()
                .build()
                .map_err(UplinkError::Client)
        };
        Ok(Self {
            fleet: client(&tls.fleet)?,
            public: client(&tls.public)?,
            stall_limit,
        })
    }

    /// Sends `range` of `version`, all of it where absent; returns the store's `ETag`.
    pub async fn put(
        &self,
        vault: &Vault,
        version: Version,
        range: Option<Range<u64>>,
        put: &PresignedPut,
        throttle: &Throttle,
    ) -> Result<String, SendError> {
        // An empty object has no range.
        let range = range.filter(|r| !r.is_empty());
        let reader = vault.get_version(version, range)?;
        let length = reader.remaining();
        let request = self.request(put)?;
        let moved = Arc::new(Mutex::new(Instant::now()));
        let bytes = throttled(VersionStream::new(reader), throttle, &moved);
        let request = request
            .header(CONTENT_LENGTH, length)
            .body(reqwest::Body::wrap_stream(bytes));
        self.answer(request, &moved).await
    }

    /// Sends bytes that lie in memory; returns the store's `ETag`.
    pub async fn put_bytes(
        &self,
        put: &PresignedPut,
        bytes: Bytes,
        throttle: &Throttle,
    ) -> Result<String, SendError> {
        let moved = Arc::new(Mutex::new(Instant::now()));
        let length = bytes.len();
        let pieces = futures::stream::unfold(bytes, |mut rest| {
            let piece = rest.split_to(rest.len().min(PIECE));
            let more = (!piece.is_empty()).then_some((Ok(piece), rest));
            std::future::ready(more)
        });
        let request =
            self.request(put)?
                .header(CONTENT_LENGTH, length)
                .body(reqwest::Body::wrap_stream(throttled(
                    pieces, throttle, &moved,
                )));
        self.answer(request, &moved).await
    }

    /// How long the store takes to answer a question that costs it nothing, on a connection that
    /// is there already; `None` if it does not answer.
    pub async fn round_trip(&self, put: &PresignedPut) -> Option<Duration> {
        let mut url: reqwest::Url = put.url.parse().ok()?;
        url.set_path("/");
        url.set_query(None);
        let http = self.client(put);
        let mut shortest: Option<Duration> = None;
        for round in 0..ROUNDS {
            let asked = Instant::now();
            let question = http.head(url.clone()).timeout(CONNECT_LIMIT).send();
            // Whatever it answers: without a signature it refuses.
            question.await.ok()?;
            if round > 0 {
                let took = asked.elapsed();
                shortest = Some(shortest.map_or(took, |before| before.min(took)));
            }
        }
        shortest
    }

    fn client(&self, put: &PresignedPut) -> &reqwest::Client {
        match put.trust {
            StoreTrust::Fleet => &self.fleet,
            StoreTrust::Public => &self.public,
        }
    }

    /// A request with the headers that the cloud signed.
    fn request(&self, put: &PresignedPut) -> Result<reqwest::RequestBuilder, SendError> {
        let mut request = self.client(put).put(&put.url);
        for (name, value) in &put.headers {
            let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value))
            else {
                return Err(SendError::Later(format!(
                    "the cloud signed a header that cannot be sent: {name:?}"
                )));
            };
            // The client writes these two itself, from the URL and the body.
            if name != http::header::HOST && name != CONTENT_LENGTH {
                request = request.header(name, value);
            }
        }
        Ok(request)
    }

    /// Sends a request whose body notes when it `moved`, and understands the answer.
    async fn answer(
        &self,
        request: reqwest::RequestBuilder,
        moved: &Mutex<Instant>,
    ) -> Result<String, SendError> {
        let response = tokio::select! {
            response = request.send() => response.map_err(|error| failed(&error))?,
            () = stalled(moved, self.stall_limit) => {
                return Err(SendError::Later(format!(
                    "the object store took no byte for {} s",
                    self.stall_limit.as_secs()
                )));
            }
        };
        let status = response.status();
        if status.is_success() {
            let etag = response
                .headers()
                .get(ETAG)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            return Ok(etag.to_owned());
        }
        let pause = retry_after(response.headers());
        let text = response.bytes().await.unwrap_or_default();
        let text = String::from_utf8_lossy(text.get(..REASON_BYTES).unwrap_or(&text));
        let reason = format!("the object store answered {status}: {text}");
        if let Some(pause) = pause.filter(|_| asks_for_pause(status)) {
            return Err(SendError::Busy { why: reason, pause });
        }
        Err(match status {
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => SendError::Stale(reason),
            StatusCode::NOT_FOUND => SendError::Lost(reason),
            StatusCode::PRECONDITION_FAILED => SendError::Exists,
            // S3's code for a request that was cut or came too slowly.
            StatusCode::BAD_REQUEST
                if [
                    "RequestTimeout",
                    "IncompleteBody",
                    "BadDigest",
                    "ExpiredToken",
                ]
                .iter()
                .any(|code| reason.contains(code)) =>
            {
                SendError::Later(reason)
            }
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::CONFLICT
            | StatusCode::TOO_EARLY
            | StatusCode::TOO_MANY_REQUESTS => SendError::Later(reason),
            status if status.is_client_error() => SendError::Refused(reason),
            _ => SendError::Later(reason),
        })
    }
}

fn asks_for_pause(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// How long the store wants to be left alone, where it says so in seconds.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

/// The same bytes, as fast as `throttle` lets them go; notes when something `moved`.
fn throttled<S>(
    bytes: S,
    throttle: &Throttle,
    moved: &Arc<Mutex<Instant>>,
) -> impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static
where
    S: Stream<Item = Result<Bytes, StreamError>> + Send + 'static,
{
    let (throttle, moved) = (throttle.clone(), Arc::clone(moved));
    let begin = (Box::pin(bytes), Bytes::new());
    futures::stream::try_unfold(begin, move |(mut bytes, mut rest)| {
        let (throttle, moved) = (throttle.clone(), Arc::clone(&moved));
        async move {
            while rest.is_empty() {
                match bytes.next().await {
                    Some(chunk) => rest = chunk?,
                    None => return Ok(None),
                }
            }
            let piece = rest.split_to(rest.len().min(throttle.piece()));
            throttle.pass(piece.len()).await?;
            *moved.lock() = Instant::now();
            Ok(Some((piece, (bytes, rest))))
        }
    })
}

/// Resolves when nothing has moved for `limit`.
async fn stalled(moved: &Mutex<Instant>, limit: Duration) {
    loop {
        let end = *moved.lock() + limit;
        if end <= Instant::now() {
            return;
        }
        sleep_until(end).await;
    }
}

/// A request that failed: by the vault's bytes, or by the way.
fn failed(error: &reqwest::Error) -> SendError {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        match cause.downcast_ref() {
            Some(BodyError::Source(StreamError::Vault(error))) => {
                return SendError::from(error.clone());
            }
            Some(BodyError::Held(_)) => return SendError::Held,
            _ => {}
        }
        source = cause.source();
    }
    let mut text = chain(error);
    // The URL carries a signature that opens the bucket for a while.
    if let Some(url) = error.url() {
        text = text.replace(url.as_str(), url.host_str().unwrap_or("the object store"));
    }
    SendError::Later(text)
}
