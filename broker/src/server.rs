//! The server around the connections: accept, shake hands, seat, serve, publish the will, leave.

use std::fmt::Display;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use longhaul_protocol::ids::BoxId;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use crate::admission::Admission;
use crate::backbone::{Backbone, Message};
use crate::config::{self, EdgeConfig};
use crate::connection::{Connection, End, Granted};
use crate::half_open::{HalfOpen, Place};
use crate::handshake::{Arrival, ClientTerms, HandshakeError, Hello, Will, refuse, shake_hands};
use crate::mailbox::{Limits, Mailbox};
use crate::reason::Reason;
use crate::registry::{Registry, Seat};
use crate::stats::Counters;
use crate::transport::Transport;
use crate::wire::encode::{self, ServerTerms};

/// How long an ended connection gets to hear why. Together with [`LINGER`] it stays below the
/// second within which a revoked box must be gone.
const FAREWELL: Duration = Duration::from_millis(250);
const LINGER: Duration = Duration::from_millis(250);

/// How long a new connection waits for the older one of the same box to leave.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(5);

/// What PUBLISH adds to a payload, at most: its header and a topic, which is far shorter.
const PUBLISH_OVERHEAD: usize = 80;

/// Pause after a failed accept, such as one for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where each connection's TLS configuration comes from.
pub type TlsSource = Box<dyn Fn() -> Arc<rustls::ServerConfig> + Send + Sync>;

/// What every connection shares.
pub struct Server {
    pub config: EdgeConfig,
    pub tls: TlsSource,
    pub admission: Arc<dyn Admission>,
    pub registry: Arc<Registry>,
    pub half_open: Arc<HalfOpen>,
    pub backbone: Arc<dyn Backbone>,
    pub counters: Arc<Counters>,
    /// Ends everything: a shutdown, or the backbone's death.
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
}

impl Server {
    /// Accepts connections until told to stop.
    pub async fn accept(self: Arc<Self>, listener: TcpListener) {
        while let Some(accepted) = self.stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((tcp, peer)) => self.accepted(Arrival::Tcp(tcp), peer),
                Err(error) => {
                    warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Takes a connection in, if there is room for it.
    pub fn accepted(self: &Arc<Self>, arrival: Arrival, peer: SocketAddr) {
        let Some(place) = self.half_open.enter(peer.ip()) else {
            self.counters.turned_away.add(1);
            return;
        };
        self.counters.accepted.add(1);
        let server = Arc::clone(self);
        self.tasks.spawn(async move {
            // Boxed: what a handshake needs is not kept for as long as the session.
            let hello = guarded(Box::pin(server.handshake(arrival, peer, place))).await;
            match hello {
                Ok(Some(hello)) => Box::pin(server.serve(*hello)).await,
                Ok(None) => {}
                Err(Panic) => server.panicked(),
            }
        });
    }

    fn panicked(&self) {
        self.counters.panics.add(1);
        error!("a connection task panicked");
    }

    async fn handshake(
        &self,
        arrival: Arrival,
        peer: SocketAddr,
        place: Place,
    ) -> Option<Box<Hello>> {
        // Whoever has read a hello has seen to its socket.
        if let Arrival::Tcp(tcp) = &arrival
            && let Err(error) = tcp.set_nodelay(true)
        {
            debug!(%peer, %error, "failed to prepare a connection");
            return None;
        }
        let shake = shake_hands(arrival, (self.tls)(), &self.config);
        let limit = self.config.handshake_timeout();
        let shake = tokio::time::timeout(limit, shake);
        let result = self.stop.run_until_cancelled(shake).await?;
        // Its place is free as soon as the outcome is known: a farewell is bounded by itself.
        drop(place);
        match result {
            Ok(Ok(hello)) => Some(Box::new(hello)),
            Ok(Err(HandshakeError::Refused { reason, transport })) => {
                self.refuse(*transport, reason, peer).await;
                None
            }
            Ok(Err(error)) => {
                self.counters.handshakes_failed.add(1);
                debug!(%peer, error = &error as &dyn std::error::Error, "handshake failed");
                None
            }
            Err(_) => {
                self.counters.handshakes_timed_out.add(1);
                debug!(%peer, "handshake took too long");
                None
            }
        }
    }

    async fn refuse(&self, transport: Transport, reason: Reason, who: impl Display) {
        self.counters.connects_refused.add(1);
        info!(%who, %reason, "refused a connection");
        let reason = match reason {
            // CONNACK has its own words for these (MQTT 5.0, 3.2.2.2).
            Reason::SessionTakenOver | Reason::ServerShuttingDown => Reason::ServerBusy,
            Reason::AdministrativeAction => Reason::Banned,
            reason => reason,
        };
        refuse(transport, reason, FAREWELL).await;
    }

    /// Seats the box, serves it, and publishes its will if it left without a goodbye.
    async fn serve(&self, hello: Hello) {
        let Hello {
            transport,
            box_id,
            certificate,
            terms,
            will,
        } = hello;
        let seat = self.seat(&box_id, &certificate, terms.max_packet_bytes);
        let seat = match guarded(Box::pin(seat)).await {
            Ok(Ok(seat)) => seat,
            Ok(Err(reason)) => return self.refuse(transport, reason, &box_id).await,
            Err(Panic) => return self.panicked(),
        };
        drop(certificate);
        let reach = self.backbone.seat(&box_id, seat.handle());
        let mut connection = self.connect(transport, &box_id, &seat, terms);
        let end = guarded(Box::pin(connection.run())).await;
        let end = end.unwrap_or_else(|Panic| {
            self.panicked();
            End::Closed(Reason::Unspecified)
        });
        info!(%box_id, %end, "disconnected");
        let transport = connection.into_transport();
        drop(reach);
        Box::pin(self.leave(transport, seat, &box_id, end, will)).await;
    }

    /// Takes the box's seat once its older connections have left it.
    async fn seat(
        &self,
        box_id: &BoxId,
        certificate: &[u8],
        max_packet_bytes: Option<u32>,
    ) -> Result<Seat, Reason> {
        let admit = || {
            let admitted = self.admission.admit(box_id, certificate);
            admitted.map_err(crate::admission::Refused::reason)
        };
        admit()?;
        let mailbox = Mailbox::new(self.mailbox_limits(max_packet_bytes));
        let mut seat = self
            .registry
            .enter(box_id, mailbox)
            .map_err(|_| Reason::ServerBusy)?;
        let handle = Arc::clone(seat.handle());
        tokio::select! {
            biased;
            reason = handle.ended() => return Err(reason),
            turn = tokio::time::timeout(TAKEOVER_LIMIT, seat.wait_for_turn()) => {
                turn.map_err(|_| Reason::ServerBusy)?;
            }
        }
        // Again, now that a revocation can reach this connection: see `Admission`.
        admit()?;
        seat.go_live()?;
        Ok(seat)
    }

    fn mailbox_limits(&self, max_packet_bytes: Option<u32>) -> Limits {
        let max_packet = max_packet_bytes.map_or(usize::MAX, config::len);
        let bytes = config::len(self.config.max_queued_bytes);
        Limits {
            messages: config::len(self.config.max_queued_messages),
            bytes,
            payload_bytes: max_packet.saturating_sub(PUBLISH_OVERHEAD).min(bytes),
        }
    }

    /// Accepts the CONNECT.
    fn connect(
        &self,
        transport: Transport,
        box_id: &BoxId,
        seat: &Seat,
        terms: ClientTerms,
    ) -> Connection {
        let longest = self.config.max_keep_alive_secs;
        let server_keep_alive_secs = match terms.keep_alive_secs {
            0 => Some(longest),
            secs if secs > longest => Some(longest),
            _ => None,
        };
        let granted = Granted {
            keep_alive_secs: server_keep_alive_secs.unwrap_or(terms.keep_alive_secs),
            window: terms.receive_maximum.min(self.config.receive_maximum),
            certificate_end: terms.certificate_end,
        };
        let mut connection = Connection::new(
            transport,
            box_id.clone(),
            Arc::clone(seat.handle()),
            granted,
            &self.config,
            Arc::clone(&self.backbone),
            Arc::clone(&self.counters),
        );
        let terms = ServerTerms {
            receive_maximum: self.config.receive_maximum,
            max_packet_bytes: self.config.max_packet_bytes,
            server_keep_alive_secs,
        };
        encode::connack(&mut connection.transport.outbox, terms);
        self.counters.connects.add(1);
        info!(%box_id, "connected");
        connection
    }

    /// Says goodbye, closes, publishes the will if there is to be one, and gives the seat up.
    async fn leave(
        &self,
        mut transport: Transport,
        seat: Seat,
        box_id: &BoxId,
        end: End,
        will: Option<Will>,
    ) {
        seat.handle().end(Reason::Unspecified);
        seat.handle().mailbox.close();
        let alive = match &end {
            End::Closed(reason) => {
                encode::disconnect(&mut transport.outbox, *reason);
                transport.finish(FAREWELL).await;
                true
            }
            End::Left { .. } => {
                transport.finish(FAREWELL).await;
                true
            }
            End::Lost(_) | End::NoBackbone => false,
        };
        // A will comes after its connection has closed (MQTT 5.0, 3.1.2.5), and before the next
        // session of this box begins. A stop of the edge is no box's death.
        let silent = matches!(
            end,
            End::Left { without_will: true } | End::Closed(Reason::ServerShuttingDown)
        );
        if let (Some(will), false) = (will, silent) {
            let publish = self.publish_will(box_id, &will);
            self.stop.run_until_cancelled(publish).await;
        }
        drop(seat);
        if alive {
            transport.linger(LINGER).await;
        }
    }

    /// Waits for room as long as it takes: the seat is held meanwhile, so wills cannot pile up
    /// beyond the number of sessions.
    async fn publish_will(&self, box_id: &BoxId, will: &Will) {
        let Some(credit) = self.backbone.reserve(will.payload.len()).await else {
            return;
        };
        let message = Message {
            box_id,
            channel: will.channel,
            payload: &will.payload,
            received: std::time::Instant::now(),
        };
        self.counters.wills.add(1);
        self.backbone.submit(message, credit);
    }
}

/// The future it ran panicked.
struct Panic;

/// Runs `future` and turns its panic into an error: one connection's fault stays its own, and its
/// seat and its will are still dealt with.
async fn guarded<F: Future>(mut future: Pin<Box<F>>) -> Result<F::Output, Panic> {
    poll_fn(|cx| {
        // The future is never polled again after a panic.
        let poll = AssertUnwindSafe(|| future.as_mut().poll(cx));
        match catch_unwind(poll) {
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => Poll::Ready(Err(Panic)),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_and_anything_else_passes() {
        let fine = guarded(Box::pin(async {
            tokio::task::yield_now().await;
            7
        }));
        let faulty = guarded(Box::pin(async {
            tokio::task::yield_now().await;
            assert!(std::hint::black_box(false), "a fault");
        }));

        assert!(matches!(fine.await, Ok(7)));
        assert!(faulty.await.is_err());
    }
}
