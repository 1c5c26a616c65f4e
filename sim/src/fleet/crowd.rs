//! Many boxes connecting at once.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use longhaul_protocol::topic::dn_filter;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use super::link::{self, Link};
use super::members::Member;
use crate::bench::BenchError;

/// Handshakes under way at once.
const AT_ONCE: usize = 64;

/// A box that is connected.
pub type Connected = Link<TlsStream<TcpStream>>;

/// Connects all of `members` and subscribes each to what is meant for it; the connections in the
/// same order, and how long that took, in seconds.
///
/// # Errors
///
/// The first that failed.
pub async fn connect(
    members: &[Member],
    to: SocketAddr,
) -> Result<(Vec<Connected>, f64), BenchError> {
    let began = Instant::now();
    let links = stream::iter(members.iter().enumerate())
        .map(|(number, member)| {
            let member = member.clone();
            // On all processors: a box's half of the handshake costs as much as the edge's.
            let task = tokio::spawn(async move { one(number, &member, to).await });
            async move { task.await.map_err(io::Error::other)? }
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await
        .map_err(BenchError::io("connect a simulated box"))?;
    Ok((links, began.elapsed().as_secs_f64()))
}

async fn one(number: usize, member: &Member, to: SocketAddr) -> io::Result<Connected> {
    let stream = link::tls(to, link::source(number), member.tls.clone()).await?;
    let mut link = Link::open(stream, member.id.as_str(), None).await?;
    link.subscribe(&dn_filter(&member.id)).await?;
    Ok(link)
}

/// Peers that connect and then say nothing, not even the first byte of TLS, and come back when
/// they are thrown out; until this is dropped.
#[derive(Debug)]
pub struct Silent(JoinSet<()>);

impl Silent {
    /// So many, once all have connected.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub async fn gather(count: usize, to: SocketAddr) -> Result<Self, BenchError> {
        let mut peers = JoinSet::new();
        for _ in 0..count {
            let first = stranger(to).await;
            let first = first.map_err(BenchError::io("connect a silent peer"))?;
            peers.spawn(stay(first, to));
        }
        Ok(Self(peers))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// From an address of their own: they are not boxes.
async fn stranger(to: SocketAddr) -> io::Result<TcpStream> {
    link::tcp(to, Ipv4Addr::new(127, 0, 2, 1)).await
}

async fn stay(first: TcpStream, to: SocketAddr) {
    let mut stream = Some(first);
    loop {
        if let Some(mut stream) = stream {
            // Ends when the server does.
            let _ = stream.read(&mut [0; 1]).await;
        }
        stream = stranger(to).await.ok();
        if stream.is_none() {
            // A refusal at once must not become a flood.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
