//! One TLS listener: accepts, limits, serves HTTP/1.1 and HTTP/2, drains.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// From accepting a connection to the end of its handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// From the first byte of a request to the end of its headers, and between requests.
const HEADERS: Duration = Duration::from_mins(1);
/// How long connections get to end at a shutdown.
const GRACE: Duration = Duration::from_secs(5);
/// Headers of one request at the most, in bytes.
const MAX_HEADER_BYTES: usize = 64 * 1024;
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
            let cut = drained.clone();
            tasks.spawn(async move {
                let _place = place;
                let connection = serve_one(stream, address, tls, service, stop);
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
        if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
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

async fn serve_one<S, B>(
    stream: TcpStream,
    address: SocketAddr,
    tls: Arc<ServerConfig>,
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
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(tls).accept(stream)).await??;
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
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        service.call(request)
    });
    let io = TokioIo::new(stream);
    if http2 {
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_header_list_size(64 * 1024)
            .keep_alive_interval(Some(Duration::from_secs(30)))
            .serve_connection(io, service);
        let mut connection = pin!(connection);
        tokio::select! {
            result = connection.as_mut() => return Ok(result?),
            () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        Ok(connection.await?)
    } else {
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .max_buf_size(MAX_HEADER_BYTES)
            .serve_connection(io, service)
            .with_upgrades();
        let mut connection = pin!(connection);
        tokio::select! {
            result = connection.as_mut() => return Ok(result?),
            () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        Ok(connection.await?)
    }
}
