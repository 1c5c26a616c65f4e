//! The handle of a running edge.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use longhaul_protocol::backbone::EdgeId;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::topic::Dn;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_rustls::server::StartHandshake;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::admission::Admission;
use crate::backbone::nats::{self, Calls, NatsOutlet};
use crate::backbone::router::{self, Outlet, RouterBackbone};
use crate::backbone::{Backbone, BackboneError};
use crate::bus::{Bus, BusError};
use crate::config::{self, EdgeConfig};
use crate::half_open::HalfOpen;
use crate::handshake::Arrival;
use crate::incoming::{Incoming, cost};
use crate::mailbox::Delivery;
use crate::reason::Reason;
use crate::registry::Registry;
use crate::server::{Server, TlsSource};
use crate::stats::{Counters, Stats};

/// Connections that the kernel keeps for the edge to accept.
const LISTEN_BACKLOG: u32 = 4096;

/// By this name (ALPN, RFC 7301) a box asks for MQTT on a port that answers HTTPS as well.
pub const ALPN: &[u8] = b"mqtt";

/// A running edge; clones are the same edge.
#[derive(Clone)]
pub struct Edge {
    server: Arc<Server>,
    local_addr: SocketAddr,
    outcome: watch::Receiver<Option<Result<(), EdgeError>>>,
}

/// Why the edge did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The backlog could never take the largest packet, so no box could send one.
    #[error("backlog_bytes ({backlog}) is too small for one packet of max_packet_bytes ({packet})")]
    BacklogTooSmall {
        /// `backlog_bytes` of the configuration.
        backlog: u32,
        /// `max_packet_bytes` of the configuration.
        packet: u32,
    },
    /// The listener could not be opened.
    #[error("failed to listen on {address}")]
    Listen {
        /// The address of the configuration.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The backbone could not be started.
    #[error("failed to start the backbone")]
    Backbone(#[from] BackboneError),
    /// The NATS cluster cannot be used.
    #[error("failed to use the NATS cluster")]
    Bus(#[from] BusError),
}

/// Why a running edge ended by itself; the process should end with it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EdgeError {
    /// The backbone ended.
    #[error("the backbone failed")]
    Backbone(#[from] BackboneError),
    /// A task of the edge itself ended early.
    #[error("the edge's {0} task ended early")]
    Task(&'static str),
}

impl Edge {
    /// Opens the listener and starts to serve boxes, until `shutdown`.
    ///
    /// `tls` is asked for each connection, so certificates can change without a restart;
    /// [`server_config`](crate::server_config) makes what it should return. The edge needs a
    /// multi-threaded tokio runtime. Whoever calls must take [`Incoming`]'s messages, and watch
    /// [`Edge::stopped`].
    ///
    /// # Errors
    ///
    /// [`StartError`] if the configuration, the listener or the backbone does not allow it.
    pub async fn start(
        config: EdgeConfig,
        tls: impl Fn() -> Arc<rustls::ServerConfig> + Send + Sync + 'static,
        admission: Arc<dyn Admission>,
        shutdown: CancellationToken,
    ) -> Result<(Self, Incoming), StartError> {
        let backlog = checked_backlog(&config)?;
        let (backbone, outlet, incoming) = router::start(backlog).await?;
        let backbone = Arc::new(backbone);
        let behind = Behind::Router(Arc::clone(&backbone), outlet);
        let edge = Self::start_with(config, Box::new(tls), admission, backbone, behind, shutdown)?;
        Ok((edge, incoming))
    }

    /// The same as one of many edges, `id`, on a NATS cluster: others take what boxes say. Whoever
    /// calls must do what [`Calls`] ask for.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the configuration, the listener or the cluster does not allow it.
    pub async fn start_behind(
        bus: Bus,
        id: EdgeId,
        config: EdgeConfig,
        tls: impl Fn() -> Arc<rustls::ServerConfig> + Send + Sync + 'static,
        admission: Arc<dyn Admission>,
        shutdown: CancellationToken,
    ) -> Result<(Self, Calls), StartError> {
        let backlog = checked_backlog(&config)?;
        let (backbone, outlet, calls) = nats::start(bus, id, backlog).await?;
        let backbone = Arc::new(backbone);
        let behind = Behind::Nats(outlet);
        let edge = Self::start_with(config, Box::new(tls), admission, backbone, behind, shutdown)?;
        Ok((edge, calls))
    }

    fn start_with(
        config: EdgeConfig,
        tls: TlsSource,
        admission: Arc<dyn Admission>,
        backbone: Arc<dyn Backbone>,
        behind: Behind,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        let failed = |source| StartError::Listen {
            address: config.listen,
            source,
        };
        let listener = listen(config.listen).map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let server = Arc::new(Server {
            tls,
            admission,
            registry: Arc::new(Registry::new(config::len(config.max_sessions))),
            half_open: Arc::new(HalfOpen::new(config::len(config.max_half_open))),
            backbone,
            counters: Arc::new(Counters::default()),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            config,
        });
        let (outcome_tx, outcome) = watch::channel(None);
        let supervised = Arc::clone(&server);
        tokio::spawn(async move {
            let outcome = supervise(supervised, listener, behind, shutdown).await;
            if let Err(error) = &outcome {
                error!(error = error as &dyn std::error::Error, "the edge failed");
            }
            outcome_tx.send_replace(Some(outcome));
        });
        info!(%local_addr, "listening for boxes");
        Ok(Self {
            server,
            local_addr,
            outcome,
        })
    }

    /// Serves a connection that another listener has accepted, and in whose hello it found that
    /// the box asks for MQTT ([`ALPN`]): for networks that let nothing out but port 443.
    pub fn take(&self, hello: StartHandshake<TcpStream>, peer: SocketAddr) {
        if !self.server.stop.is_cancelled() {
            self.server.accepted(Arrival::Hello(Box::new(hello)), peer);
        }
    }

    /// The address that the edge listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Sends a message to a connected box, at quality of service 1 unless the box subscribed with
    /// less. Never blocks.
    pub fn publish(&self, box_id: &BoxId, channel: Dn, payload: Bytes) -> Delivery {
        match self.server.registry.get(box_id) {
            Some(handle) => handle.mailbox.push(channel, payload),
            None => Delivery::NotConnected,
        }
    }

    /// Ends a box's connection within a second; `false` if it had none. Its will is published.
    pub fn disconnect(&self, box_id: &BoxId, reason: Reason) -> bool {
        let handle = self.server.registry.get(box_id);
        handle.is_some_and(|handle| handle.end(reason))
    }

    /// The boxes that are connected, sorted.
    pub fn connected(&self) -> Vec<BoxId> {
        let mut boxes = self.server.registry.connected();
        boxes.sort_unstable();
        boxes
    }

    /// The boxes that have been connected for so long, sorted.
    pub fn connected_for(&self, time: std::time::Duration) -> Vec<BoxId> {
        let mut boxes = self.server.registry.connected_for(time);
        boxes.sort_unstable();
        boxes
    }

    /// How many boxes are connected.
    pub fn connected_count(&self) -> usize {
        self.server.registry.connected_count()
    }

    /// Whether a box is connected.
    pub fn is_connected(&self, box_id: &BoxId) -> bool {
        let handle = self.server.registry.get(box_id);
        handle.is_some_and(|handle| handle.is_live())
    }

    /// The edge's counters.
    pub fn stats(&self) -> Stats {
        let server = &self.server;
        server
            .counters
            .snapshot(self.connected_count(), server.half_open.len())
    }

    /// Waits until the edge has ended: `Ok` after a shutdown.
    ///
    /// # Errors
    ///
    /// [`EdgeError`] if it failed. The process should then end, for its supervisor to start it
    /// anew: the boxes come back and send again what was not acknowledged in their journals.
    pub async fn stopped(&self) -> Result<(), EdgeError> {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
            Err(_) => Err(EdgeError::Task("supervisor")),
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restart must not wait for the old connections to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

/// The backlog, if a box could send its largest packet into it.
fn checked_backlog(config: &EdgeConfig) -> Result<usize, StartError> {
    let backlog = config::len(config.backlog_bytes);
    if cost(config.max_packet_len()) > backlog {
        return Err(StartError::BacklogTooSmall {
            backlog: config.backlog_bytes,
            packet: config.max_packet_bytes,
        });
    }
    Ok(backlog)
}

/// What stands behind the edge, and must be run for messages to leave it.
enum Behind {
    Router(Arc<RouterBackbone>, Outlet),
    Nats(NatsOutlet),
}

impl Behind {
    /// Carries messages until `end`, and then what was accepted before.
    async fn run(
        self,
        registry: Arc<Registry>,
        end: CancellationToken,
    ) -> Result<(), BackboneError> {
        match self {
            Self::Router(backbone, outlet) => {
                let ending = async {
                    end.cancelled().await;
                    backbone.end();
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    result = outlet.run() => result,
                    () = ending => Ok(()),
                }
            }
            Self::Nats(outlet) => outlet.run(registry, end).await,
        }
    }
}

/// Runs the edge's tasks; stops, drains and ends them in order.
async fn supervise(
    server: Arc<Server>,
    listener: TcpListener,
    behind: Behind,
    shutdown: CancellationToken,
) -> Result<(), EdgeError> {
    let end = CancellationToken::new();
    let mut accept = tokio::spawn(Arc::clone(&server).accept(listener));
    let mut outlet = tokio::spawn(behind.run(Arc::clone(&server.registry), end.clone()));
    let failure = tokio::select! {
        () = shutdown.cancelled() => None,
        ended = &mut accept => {
            drop(ended);
            Some(EdgeError::Task("accept"))
        }
        ended = &mut outlet => Some(match ended {
            Ok(Err(error)) => EdgeError::Backbone(error),
            Ok(Ok(())) | Err(_) => EdgeError::Task("backbone"),
        }),
    };
    server.stop.cancel();
    server.registry.close(Reason::ServerShuttingDown);
    server.tasks.close();
    let grace = server.config.shutdown_grace();
    if tokio::time::timeout(grace, server.tasks.wait())
        .await
        .is_err()
    {
        warn!(
            left = server.tasks.len(),
            "connections outlasted the shutdown"
        );
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    // What was accepted comes out before the end does.
    end.cancel();
    match outlet.await {
        // A consumer that leaves during a shutdown is part of it.
        Ok(Ok(()) | Err(BackboneError::ConsumerGone)) => Ok(()),
        Ok(Err(error)) => Err(EdgeError::Backbone(error)),
        Err(_) => Err(EdgeError::Task("backbone")),
    }
}
