//! From an accepted TCP connection to a CONNECT that may be answered.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::topic::Up;
use rustls::ProtocolVersion;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::{StartHandshake, TlsStream};

use crate::clock;
use crate::config::{self, EdgeConfig};
use crate::identity::{self, IdentityError, identity_from_certificate};
use crate::reason::Reason;
use crate::session::own_channel;
use crate::transport::Transport;
use crate::wire::connect::Connect;
use crate::wire::encode;
use crate::wire::frame::{self, Kind};

/// What a CONNECT may take beside its will. Far less than other packets: one box can have many
/// unfinished connections, and each may hold so much.
const CONNECT_BYTES: usize = 4 * 1024;

/// A box that has proved who it is and asks for a session.
#[derive(Debug)]
pub struct Hello {
    pub transport: Transport,
    pub box_id: BoxId,
    pub certificate: CertificateDer<'static>,
    pub terms: ClientTerms,
    pub will: Option<Will>,
}

/// What the box and its certificate ask for.
#[derive(Clone, Copy, Debug)]
pub struct ClientTerms {
    pub certificate_end: Instant,
    /// Zero is "never".
    pub keep_alive_secs: u16,
    pub receive_maximum: u16,
    pub max_packet_bytes: Option<u32>,
}

/// What to publish if the connection ends without a goodbye.
#[derive(Clone, Debug)]
pub struct Will {
    pub channel: Up,
    pub payload: Bytes,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("TLS handshake failed")]
    Tls(#[source] io::Error),
    #[error("not TLS 1.3 with a client certificate")]
    NoCertificate,
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("connection was lost before CONNECT")]
    Lost(#[source] io::Error),
    #[error("first packet is not a CONNECT: {0}")]
    NotConnect(Reason),
    #[error("refused: {reason}")]
    Refused {
        reason: Reason,
        /// To say so through.
        transport: Box<Transport>,
    },
}

/// How far a connection has come when the edge gets it.
pub enum Arrival {
    /// Accepted, nothing read.
    Tcp(TcpStream),
    /// Another listener has read its hello, and found that it asks for MQTT.
    Hello(Box<StartHandshake<TcpStream>>),
}

impl Arrival {
    async fn into_tls(self, tls: Arc<rustls::ServerConfig>) -> io::Result<TlsStream<TcpStream>> {
        match self {
            Self::Tcp(tcp) => TlsAcceptor::from(tls).accept(tcp).await,
            Self::Hello(hello) => hello.into_stream(tls).await,
        }
    }
}

/// Does TLS, reads the certificate and the CONNECT, and checks one against the other.
///
/// Not bounded in time: the caller gives up on it.
pub async fn shake_hands(
    arrival: Arrival,
    tls: Arc<rustls::ServerConfig>,
    config: &EdgeConfig,
) -> Result<Hello, HandshakeError> {
    let stream = arrival.into_tls(tls).await.map_err(HandshakeError::Tls)?;
    let connection = stream.get_ref().1;
    let certificate = match (
        connection.peer_certificates(),
        connection.protocol_version(),
    ) {
        (Some([leaf, ..]), Some(ProtocolVersion::TLSv1_3)) => leaf.clone().into_owned(),
        _ => return Err(HandshakeError::NoCertificate),
    };
    let box_id = identity_from_certificate(&certificate)?;
    let validity = clock::until_unix_secs(identity::not_after_unix_secs(&certificate)?);

    let mut transport = Transport::new(stream);
    let max_will = config::len(config.max_will_bytes);
    let body = read_connect(&mut transport, max_will + CONNECT_BYTES).await?;
    match Connect::parse(&body).and_then(|c| check(&c, &box_id, config).map(|will| (c, will))) {
        Ok((connect, will)) => Ok(Hello {
            terms: ClientTerms {
                certificate_end: in_time(validity),
                keep_alive_secs: connect.keep_alive_secs,
                receive_maximum: connect.receive_maximum,
                max_packet_bytes: connect.max_packet_bytes,
            },
            will,
            transport,
            box_id,
            certificate,
        }),
        Err(reason) => Err(HandshakeError::Refused {
            reason,
            transport: Box::new(transport),
        }),
    }
}

/// Reads the first packet, which must be CONNECT, and returns its body.
async fn read_connect(
    transport: &mut Transport,
    max_len: usize,
) -> Result<Vec<u8>, HandshakeError> {
    loop {
        match frame::first(&transport.inbox, max_len) {
            Err(reason) => return Err(HandshakeError::NotConnect(reason)),
            Ok(Some(frame)) if frame.kind == Kind::Connect => {
                let (body, len) = (frame.body.to_vec(), frame.len);
                transport.consume(len);
                return Ok(body);
            }
            Ok(Some(_)) => return Err(HandshakeError::NotConnect(Reason::ProtocolError)),
            Ok(None) => std::future::poll_fn(|cx| transport.poll(cx, true))
                .await
                .map_err(HandshakeError::Lost)?,
        }
    }
}

/// What the certificate and the topic rules allow of a CONNECT; its will, if it has one.
fn check(
    connect: &Connect<'_>,
    box_id: &BoxId,
    config: &EdgeConfig,
) -> Result<Option<Will>, Reason> {
    if connect.client_id != box_id.as_str() {
        return Err(Reason::ClientIdentifierNotValid);
    }
    let Some(will) = connect.will else {
        return Ok(None);
    };
    if will.payload.len() > config::len(config.max_will_bytes) {
        return Err(Reason::PacketTooLarge);
    }
    Ok(Some(Will {
        channel: own_channel(box_id, will.topic).ok_or(Reason::NotAuthorized)?,
        payload: Bytes::copy_from_slice(will.payload),
    }))
}

/// The moment `after` now, or one so far off that no connection lives to see it.
fn in_time(after: Duration) -> Instant {
    const FAR: Duration = Duration::from_hours(10 * 365 * 24);
    Instant::now() + after.min(FAR)
}

/// Tells a box why it is refused and closes the connection.
pub async fn refuse(mut transport: Transport, reason: Reason, limit: Duration) {
    encode::connack_refused(&mut transport.outbox, reason);
    transport.finish(limit).await;
    transport.linger(limit).await;
}
