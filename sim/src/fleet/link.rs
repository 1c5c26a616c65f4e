//! One simulated box's connection: real TLS 1.3 with its certificate, real MQTT 5, little memory.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::ready;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::frames::{self, CONNACK, Packet, SUBACK};

/// Addresses of this machine that boxes connect from: each has some 28,000 ports, and one that was
/// used is not free again for a minute.
const ADDRESSES: usize = 200;
/// Read at a time; on the stack, so that a waiting box holds none of it.
const STRIDE: usize = 4096;

/// A connection that has been told of as MQTT.
#[derive(Debug)]
pub struct Link<S> {
    stream: S,
    buffer: Vec<u8>,
}

/// The address of this machine that box `number` connects from.
pub fn source(number: usize) -> Ipv4Addr {
    let last = u8::try_from(number % ADDRESSES).unwrap_or(0);
    Ipv4Addr::new(127, 0, 1, last + 1)
}

/// TCP from `source`, without delays of its own.
///
/// # Errors
///
/// What the system says.
pub async fn tcp(to: SocketAddr, source: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((source, 0)))?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// TCP and TLS; the server must prove to be `localhost`.
///
/// # Errors
///
/// What the system or TLS says.
pub async fn tls(
    to: SocketAddr,
    source: Ipv4Addr,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let tcp = tcp(to, source).await?;
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    TlsConnector::from(config).connect(name, tcp).await
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    /// Says CONNECT and waits until the server has agreed.
    ///
    /// # Errors
    ///
    /// What the system says, or that the server refuses and its reason.
    pub async fn open(stream: S, client_id: &str, will: Option<(&str, &[u8])>) -> io::Result<Self> {
        let mut link = Self {
            stream,
            buffer: Vec::new(),
        };
        link.send(&frames::connect(client_id, will)).await?;
        let answer = link.packet().await?;
        match (answer.first, answer.body.get(1)) {
            (CONNACK, Some(0)) => Ok(link),
            (first, reason) => Err(io::Error::other(format!(
                "CONNECT was answered by {first:#04x}, reason {reason:?}"
            ))),
        }
    }

    /// Subscribes and waits until the server has agreed.
    ///
    /// # Errors
    ///
    /// What the system says, or that the server refuses.
    pub async fn subscribe(&mut self, filter: &str) -> io::Result<()> {
        self.send(&frames::subscribe(filter)).await?;
        let answer = self.packet().await?;
        if answer.first == SUBACK && answer.body.last().is_some_and(|reason| *reason < 0x80) {
            Ok(())
        } else {
            Err(io::Error::other(format!(
                "SUBSCRIBE was answered by {answer:?}"
            )))
        }
    }

    /// Sends whole packets.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The next packet. Nothing is lost if this is given up while it waits.
    ///
    /// # Errors
    ///
    /// What the system says; the end of the stream is one.
    pub async fn packet(&mut self) -> io::Result<Packet> {
        loop {
            if let Some(packet) = frames::cut(&mut self.buffer) {
                return Ok(packet);
            }
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// A packet that has arrived already.
    pub fn ready(&mut self) -> Option<Packet> {
        frames::cut(&mut self.buffer)
    }

    async fn fill(&mut self) -> io::Result<usize> {
        let Self { stream, buffer } = self;
        poll_fn(|cx| {
            let mut space = [0; STRIDE];
            let mut read = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut read))?;
            buffer.extend_from_slice(read.filled());
            Ok(read.filled().len()).into()
        })
        .await
    }
}
