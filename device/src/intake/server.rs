//! The accept loop: TLS with a deadline, HTTP/1.1 or 2 by ALPN, limits on silence, graceful drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use s3s::Body;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::access::Gate;
use super::early::{asks_for_attributes, dated, refused, unquoted};
use super::limits::{CutShort, TimedBody, TimedWrites};
use super::request_id::RequestId;
use super::routes::Routes;
use super::service::Store;
use super::spellings::Spellings;
use super::{IntakeConfig, IntakeParts};
use crate::packs::PackIntake;

/// Requests of one HTTP/2 connection at a time.
const STREAMS: u32 = 32;
/// Flow-control windows of HTTP/2, in bytes: what one stream and one connection may have on the way.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Longest header of a request, in bytes; S3 allows 8 KiB, a presigned URL with metadata is longer.
const HEADER_BYTES: u32 = 64 << 10;
/// Longest XML body, in bytes: ten thousand parts with their checksums.
const XML_BYTES: usize = 4 << 20;
/// Pause after the system refused a connection, for lack of file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every connection works with.
struct Endpoint {
    config: IntakeConfig,
    s3: S3Service,
    routes: Routes,
    spellings: Spellings,
    /// Which box this is, for who asks us about an answer.
    host: String,
}

pub(super) async fn run(
    listener: TcpListener,
    config: IntakeConfig,
    parts: IntakeParts,
    stop: CancellationToken,
) {
    let tls = parts.tls.clone();
    let connections = Arc::new(Semaphore::new(config.max_connections));
    let endpoint = Arc::new(Endpoint::new(config, parts));
    let mut tasks = JoinSet::new();
    {
        let (endpoint, stop) = (Arc::clone(&endpoint), stop.clone());
        tasks.spawn_blocking(move || {
            let vault = &endpoint.routes.vault;
            endpoint.spellings.fill(vault, || stop.is_cancelled());
        });
    }
    loop {
        while tasks.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &connections) => accepted,
        };
        let Some((socket, permit)) = accepted else {
            continue;
        };
        let (endpoint, acceptor) = (Arc::clone(&endpoint), TlsAcceptor::from(tls.config()));
        let stop = stop.clone();
        tasks.spawn(async move {
            let _permit = permit;
            endpoint.connection(socket, acceptor, stop).await;
        });
    }
    drop(listener);
    let drained = timeout(endpoint.config.drain_limit, async {
        while tasks.join_next().await.is_some() {}
    });
    if drained.await.is_err() {
        tracing::warn!(open = tasks.len(), "requests were cut off at the end");
        tasks.shutdown().await;
    }
}

/// The next connection, once there is room for it.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((socket, _)) => Some((socket, permit)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

impl Endpoint {
    fn new(config: IntakeConfig, parts: IntakeParts) -> Self {
        let gate = Gate {
            credentials: parts.credentials,
            clock: parts.clock,
        };
        let spellings = Spellings::new(parts.oddities);
        let packs = PackIntake::new(
            parts.vault.clone(),
            parts.arrivals.clone(),
            spellings.clone(),
            config.stall_limit,
        );
        let store = Store {
            vault: parts.vault.clone(),
            region: config.region.clone(),
            bodies: Arc::new(Semaphore::new(config.max_bodies)),
            arrivals: parts.arrivals,
            spellings: spellings.clone(),
        };
        let mut limits = S3Config::default();
        limits.xml_max_body_size = XML_BYTES;
        let mut builder = S3ServiceBuilder::new(store);
        builder.set_auth(gate.clone());
        builder.set_access(gate.clone());
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(limits))));
        let routes = Routes {
            vault: parts.vault,
            gate,
            status: parts.status,
            packs,
            proofs: parts.proofs,
            holds: parts.holds,
        };
        let host = routes.status.current().box_id.to_string();
        Self {
            config,
            s3: builder.build(),
            routes,
            spellings,
            host,
        }
    }

    async fn connection(
        self: Arc<Self>,
        socket: TcpStream,
        acceptor: TlsAcceptor,
        stop: CancellationToken,
    ) {
        let _ = socket.set_nodelay(true);
        let cut_short = CutShort::default();
        let socket = TimedWrites::new(socket, self.config.stall_limit, cut_short.clone());
        let handshake = timeout(self.config.handshake_limit, acceptor.accept(socket));
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            stream = handshake => stream,
        };
        let ended = match stream {
            Ok(Ok(stream)) => self.speak(stream, cut_short, &stop).await,
            Ok(Err(error)) => {
                tracing::debug!(%error, "TLS handshake failed");
                return;
            }
            Err(_) => {
                tracing::debug!("TLS handshake took too long");
                return;
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = %crate::cloud::chain(&error), "connection ended");
        }
    }

    async fn speak(
        self: Arc<Self>,
        stream: TlsStream<TimedWrites<TcpStream>>,
        cut_short: CutShort,
        stop: &CancellationToken,
    ) -> Result<(), hyper::Error> {
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(stream);
        let open = Arc::new(Open::default());
        let limit = self.config.header_limit;
        let service = {
            let (endpoint, open) = (Arc::clone(&self), Arc::clone(&open));
            service_fn(move |request| {
                let (endpoint, open) = (Arc::clone(&endpoint), Arc::clone(&open));
                let cut_short = cut_short.clone();
                async move {
                    let _count = open.begin();
                    endpoint.answer(request, cut_short).await
                }
            })
        };
        // Drives one connection to its end, or asks it to end on the stop signal or in silence.
        macro_rules! drive {
            ($connection:expr) => {{
                let mut connection = std::pin::pin!($connection);
                tokio::select! {
                    ended = connection.as_mut() => return ended,
                    () = stop.cancelled() => {}
                    () = open.silent(limit) => {}
                }
                connection.as_mut().graceful_shutdown();
                connection.await
            }};
        }
        if h2 {
            drive!(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .max_concurrent_streams(STREAMS)
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .max_header_list_size(HEADER_BYTES)
                    .keep_alive_interval(Some(limit))
                    .keep_alive_timeout(limit)
                    .serve_connection(io, service)
            )
        } else {
            drive!(
                hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(limit)
                    .max_buf_size(HEADER_BYTES as usize)
                    .serve_connection(io, service)
            )
        }
    }

    /// Answers one request under an id of its own, which is in the answer and in the log.
    async fn answer(
        &self,
        request: Request<Incoming>,
        cut_short: CutShort,
    ) -> Result<Response<Body>, s3s::HttpError> {
        let id = RequestId::fresh();
        let method = request.method().clone();
        let span = tracing::info_span!("request", id = id.as_str());
        async {
            let answer = self.dispatch(request, cut_short).await?;
            let status = answer.status().as_u16();
            if status >= 500 {
                tracing::warn!(%method, status, "a request failed");
            } else if status >= 400 {
                tracing::info!(%method, status, "a request was refused");
            }
            Ok(id.mark(answer, &self.host))
        }
        .instrument(span)
        .await
    }

    async fn dispatch(
        &self,
        request: Request<Incoming>,
        cut_short: CutShort,
    ) -> Result<Response<Body>, s3s::HttpError> {
        let limit = self.config.stall_limit;
        let mut request = request.map(|body| TimedBody::new(body, limit, cut_short));
        dated(request.headers_mut());
        if Routes::wants(&request) {
            return Ok(self.routes.answer(request).await);
        }
        let head = request.method() == Method::HEAD;
        let attributes = request.method() == Method::GET && asks_for_attributes(&request);
        let answer = match refused(&request) {
            Some(refusal) => refusal
                .to_http_response()
                .map_err(|error| s3s::HttpError::new(Box::new(error)))?,
            None => self.s3.call(request.map(Body::http_body_unsync)).await?,
        };
        let answer = if attributes {
            answer.map(unquoted)
        } else {
            answer
        };
        // s3s explains errors to HEAD in a body, which HTTP/2 clients take for a protocol error.
        let empty = head && answer.status().as_u16() >= 300;
        Ok(if empty {
            answer.map(|_| Body::empty())
        } else {
            answer
        })
    }
}

/// Requests of one connection that are being answered, to notice one that asks nothing.
#[derive(Default)]
struct Open {
    now: AtomicUsize,
    ever: AtomicUsize,
}

struct Count(Arc<Open>);

impl Open {
    fn begin(self: &Arc<Self>) -> Count {
        self.now.fetch_add(1, Ordering::Relaxed);
        self.ever.fetch_add(1, Ordering::Relaxed);
        Count(Arc::clone(self))
    }

    /// Resolves when nothing was asked for a whole `limit`.
    async fn silent(&self, limit: Duration) {
        let mut ticks = interval(limit);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        let mut seen = self.ever.load(Ordering::Relaxed);
        loop {
            ticks.tick().await;
            let ever = self.ever.load(Ordering::Relaxed);
            if ever == seen && self.now.load(Ordering::Relaxed) == 0 {
                return;
            }
            seen = ever;
        }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}
