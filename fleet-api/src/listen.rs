//! One TLS listener: accepts, limits, serves HTTP/1.1 and HTTP/2, drains.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use longhaul_broker::Edge;
use longhaul_protocol::probe;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a peer may take for what.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From accepting a connection to the end of its handshake.
    pub handshake: Duration,
    /// From the begin of a request to the end of its headers (HTTP/1.1).
    pub headers: Duration,
    /// Without any request under way, from the handshake on.
    pub idle: Duration,
    /// For connections to end at a shutdown.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            headers: Duration::from_secs(30),
            idle: Duration::from_mins(1),
            grace: Duration::from_secs(5),
        }
    }
}

/// Headers of one request at the most, in bytes.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// The same for HTTP/2.
const MAX_HEADER_LIST: u32 = 64 * 1024;
/// Pause after the system refused a connection, mostly because it has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end; in the extensions of every request.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The chain that it proved, leaf first; empty where none is asked for.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

/// Asked at each connection, so that certificates change without a restart.
pub type TlsSource = Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

/// A listener that is open but not yet served.
pub struct Listen {
    /// The open socket.
    pub listener: TcpListener,
    /// Its TLS configuration.
    pub tls: TlsSource,
    /// Connections at once.
    pub max_connections: usize,
    /// Gets the connections that ask for MQTT by ALPN, where this port takes such.
    pub mqtt: Option<Edge>,
    /// Shown to those who ask by ALPN for a connection without a certificate, where this port has such.
    pub strangers: Option<TlsSource>,
}

impl Listen {
    /// Serves `service` until `stop`, then drains.
    pub async fn serve<S, B>(self, service: S, stop: CancellationToken)
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.serve_within(Limits::default(), service, stop).await;
    }

    /// As [`Listen::serve`], with other limits.
    pub async fn serve_within<S, B>(self, limits: Limits, service: S, stop: CancellationToken)
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let tasks = TaskTracker::new();
        let places = Arc::new(Semaphore::new(self.max_connections));
        let drained = CancellationToken::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(&self.listener, &places) => accepted,
            };
            let (stream, address, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let tls = (self.tls)();
            let (service, stop) = (service.clone(), stop.clone());
            let (cut, mqtt) = (drained.clone(), self.mqtt.clone());
            let strangers = self.strangers.as_ref().map(|tls| tls());
            tasks.spawn(async move {
                let _place = place;
                let connection = async {
                    match shake_hands(stream, address, (tls, strangers), mqtt, limits.handshake)
                        .await?
                    {
                        Some(stream) => serve_one(stream, address, limits, service, stop).await,
                        None => Ok(()),
                    }
                };
                tokio::select! {
                    () = cut.cancelled() => {}
                    result = connection => {
                        if let Err(error) = result {
                            tracing::debug!(%address, error = &*error, "connection ended");
                        }
                    }
                }
            });
        }
        drop(self.listener);
        tasks.close();
        if tokio::time::timeout(limits.grace, tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                connections = tasks.len(),
                "cut connections that did not end in time"
            );
            drained.cancel();
            tasks.wait().await;
        }
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((stream, address, place))
}

/// The connection after its handshake; `None` where the MQTT edge has it from its hello on.
async fn shake_hands(
    stream: TcpStream,
    address: SocketAddr,
    (tls, strangers): (Arc<ServerConfig>, Option<Arc<ServerConfig>>),
    mqtt: Option<Edge>,
    limit: Duration,
) -> Result<Option<TlsStream<TcpStream>>, Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let shake = async {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let asks = |protocol: &[u8]| {
            let mut names = hello.client_hello().alpn().into_iter().flatten();
            names.any(|name| name == protocol)
        };
        let (asked, stranger) = (asks(longhaul_broker::ALPN), asks(probe::ALPN));
        match mqtt {
            Some(edge) if asked => {
                edge.take(hello, address);
                Ok(None)
            }
            _ => {
                let tls = strangers.filter(|_| stranger).unwrap_or(tls);
                hello.into_stream(tls).await.map(Some)
            }
        }
    };
    Ok(tokio::time::timeout(limit, shake).await??)
}

async fn serve_one<S, B>(
    stream: TlsStream<TcpStream>,
    address: SocketAddr,
    limits: Limits,
    service: S,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let session = stream.get_ref().1;
    let http2 = session.alpn_protocol() == Some(b"h2");
    let certificates = session.peer_certificates().unwrap_or_default();
    let peer = Peer {
        address,
        certificates: certificates
            .iter()
            .cloned()
            .map(CertificateDer::into_owned)
            .collect(),
    };
    let activity = Activity::default();
    let counted = activity.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let under_way = counted.begin();
        let answer = service.call(request);
        async move {
            let response = answer.await?;
            Ok::<_, S::Error>(response.map(|body| Counted {
                body: Box::pin(body),
                _under_way: under_way,
            }))
        }
    });
    let io = TokioIo::new(stream);
    let end = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = activity.idle_for(limits.idle) => {}
        }
    };
    if http2 {
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_header_list_size(MAX_HEADER_LIST)
            .keep_alive_interval(Some(Duration::from_secs(30)))
            .serve_connection(io, service);
        let mut connection = pin!(connection);
        tokio::select! {
            result = connection.as_mut() => return Ok(result?),
            () = end => connection.as_mut().graceful_shutdown(),
        }
        Ok(tokio::time::timeout(limits.grace, connection).await??)
    } else {
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.headers)
            .max_buf_size(MAX_HEADER_BYTES)
            .serve_connection(io, service)
            .with_upgrades();
        let mut connection = pin!(connection);
        tokio::select! {
            result = connection.as_mut() => return Ok(result?),
            () = end => connection.as_mut().graceful_shutdown(),
        }
        Ok(tokio::time::timeout(limits.grace, connection).await??)
    }
}

/// How many requests of one connection began, and how many of them are under way.
#[derive(Clone, Debug)]
struct Activity(watch::Sender<(u64, usize)>);

impl Default for Activity {
    fn default() -> Self {
        Self(watch::Sender::new((0, 0)))
    }
}

/// One request; ends when it is dropped.
struct UnderWay(Activity);

impl Activity {
    fn begin(&self) -> UnderWay {
        self.0.send_modify(|(began, under_way)| {
            *began += 1;
            *under_way += 1;
        });
        UnderWay(self.clone())
    }

    /// Returns once no request was under way for `limit`.
    async fn idle_for(&self, limit: Duration) {
        let mut changes = self.0.subscribe();
        loop {
            let seen = match changes.wait_for(|(_, under_way)| *under_way == 0).await {
                Ok(now) => now.0,
                Err(_) => return,
            };
            let next = changes.wait_for(|(began, _)| *began != seen);
            if tokio::time::timeout(limit, next).await.is_err() {
                return;
            }
        }
    }
}

/// An answer's body: its request is under way until the last byte was handed over.
struct Counted<B> {
    body: Pin<Box<B>>,
    _under_way: UnderWay,
}

impl<B: Body> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.body.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.send_modify(|(_, under_way)| *under_way -= 1);
    }
}

#[cfg(test)]
mod tests;
