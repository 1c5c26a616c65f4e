//! A client of raw frames.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::frames::{self, Connect};

/// Longer than anything should take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Fails a test that would hang.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(LIMIT, future)
        .await
        .expect("an answer in time")
}

/// One packet from the server: first byte and body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Packet {
    pub first: u8,
    pub body: Vec<u8>,
}

pub struct Client {
    pub stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

impl Client {
    /// TCP and TLS, nothing else.
    pub async fn tls(address: SocketAddr, config: Arc<ClientConfig>) -> io::Result<Self> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = soon(TlsConnector::from(config).connect(name, tcp)).await?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    /// TLS and CONNECT; returns CONNACK's reason.
    pub async fn try_connect(
        address: SocketAddr,
        config: Arc<ClientConfig>,
        connect: &Connect<'_>,
    ) -> io::Result<(Self, u8)> {
        let mut client = Self::tls(address, config).await?;
        client.send(&connect.bytes()).await?;
        let connack = client.packet().await?;
        assert_eq!(connack.first, 0x20, "CONNACK");
        Ok((client, connack.body[1]))
    }

    pub async fn connect(
        address: SocketAddr,
        config: Arc<ClientConfig>,
        connect: &Connect<'_>,
    ) -> Self {
        let (client, reason) = Self::try_connect(address, config, connect)
            .await
            .expect("a connection");
        assert_eq!(reason, 0, "CONNACK's reason");
        client
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        soon(async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        })
        .await
    }

    /// The next packet; an error once the server has closed.
    pub async fn packet(&mut self) -> io::Result<Packet> {
        soon(async {
            loop {
                if let Some(packet) = cut(&mut self.buffer) {
                    return Ok(packet);
                }
                if self.stream.read_buf(&mut self.buffer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        })
        .await
    }

    /// Expects the server to close, and returns the last packet before it did.
    pub async fn closed(&mut self) -> Option<Packet> {
        let mut last = None;
        while let Ok(packet) = self.packet().await {
            last = Some(packet);
        }
        last
    }

    /// Expects a DISCONNECT with this reason, then the end.
    pub async fn disconnected(&mut self, reason: u8) {
        let expected = Packet {
            first: 0xe0,
            body: vec![reason],
        };
        assert_eq!(self.closed().await, Some(expected));
    }

    /// Publishes at quality of service 1 and returns PUBACK's reason.
    pub async fn publish(&mut self, topic: &str, packet_id: u16, payload: &[u8]) -> u8 {
        self.send(&frames::publish(topic, packet_id, payload))
            .await
            .expect("sent");
        let ack = self.packet().await.expect("PUBACK");
        assert_eq!(
            (ack.first, &ack.body[..2]),
            (0x40, &packet_id.to_be_bytes()[..])
        );
        ack.body.get(2).copied().unwrap_or(0)
    }

    /// Subscribes and returns SUBACK's reasons.
    pub async fn subscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        self.send(&frames::subscribe(1, filters))
            .await
            .expect("sent");
        let ack = self.packet().await.expect("SUBACK");
        assert_eq!((ack.first, &ack.body[..3]), (0x90, &[0, 1, 0][..]));
        ack.body[3..].to_vec()
    }

    pub async fn ping(&mut self) {
        self.send(&frames::PINGREQ).await.expect("sent");
        let answer = self.packet().await.expect("PINGRESP");
        assert_eq!(answer.first, 0xd0);
    }
}

/// Takes the first whole packet out of `buffer`.
fn cut(buffer: &mut Vec<u8>) -> Option<Packet> {
    let (mut len, mut at) = (0_usize, 1_usize);
    loop {
        let byte = usize::from(*buffer.get(at)?);
        len |= (byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    if buffer.len() < at + len {
        return None;
    }
    let packet = Packet {
        first: buffer[0],
        body: buffer[at..at + len].to_vec(),
    };
    buffer.drain(..at + len);
    Some(packet)
}
