//! A line to a box that counts what clients send and can be held: what is beyond a number of bytes
//! waits until the line is released. Tests strike where a program stands in the middle of something,
//! not where they hope it does.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// What all connections share.
struct Shared {
    sent: AtomicU64,
    /// Nothing passes once so much was sent; `u64::MAX` for a free line.
    limit: watch::Sender<u64>,
    held: watch::Sender<bool>,
}

/// The line; it ends when this is dropped.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    cuts: mpsc::Sender<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Relay {
    /// A free line to `target`.
    ///
    /// # Errors
    ///
    /// What listening says.
    pub async fn to(target: SocketAddr) -> io::Result<Self> {
        let (listener, _) = Self::listen().await?;
        Self::from(listener, target)
    }

    /// Where a line will begin, for a target whose own address follows from it.
    ///
    /// # Errors
    ///
    /// What listening says.
    pub async fn listen() -> io::Result<(TcpListener, SocketAddr)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    }

    /// A free line from `listener` to `target`.
    ///
    /// # Errors
    ///
    /// What the listener says of its address.
    pub fn from(listener: TcpListener, target: SocketAddr) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            sent: AtomicU64::new(0),
            limit: watch::Sender::new(u64::MAX),
            held: watch::Sender::new(false),
        });
        let (cuts, cut) = mpsc::channel(1);
        let serving = tokio::spawn(serve(listener, target, Arc::clone(&shared), cut));
        Ok(Self {
            address,
            shared,
            cuts,
            serving,
        })
    }

    /// Where clients find the box.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Bytes that clients have sent through the line, TLS and headers included.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// Holds what is sent beyond `bytes` more.
    pub fn hold_after(&self, bytes: u64) {
        self.shared.held.send_replace(false);
        self.shared.limit.send_replace(self.sent() + bytes);
    }

    /// Ends every connection, with what is still on its way in it.
    pub async fn cut(&self) {
        let (done, is_done) = oneshot::channel();
        // The line is served as long as this lives.
        if self.cuts.send(done).await.is_ok() {
            let _ = is_done.await;
        }
    }

    /// Lets everything pass again.
    pub fn release(&self) {
        self.shared.limit.send_replace(u64::MAX);
    }

    /// Waits until something is held.
    pub async fn held(&self) {
        let mut held = self.shared.held.subscribe();
        // The sender lives as long as this.
        let _ = held.wait_for(|held| *held).await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(
    listener: TcpListener,
    target: SocketAddr,
    shared: Arc<Shared>,
    mut cut: mpsc::Receiver<oneshot::Sender<()>>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((near, _)) = accepted else { continue };
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    // A connection that fails is closed; its ends see that.
                    let _ = join(near, target, &shared).await;
                });
            }
            Some(_) = connections.join_next() => {}
            Some(done) = cut.recv() => {
                connections.shutdown().await;
                let _ = done.send(());
            }
        }
    }
}

async fn join(near: TcpStream, target: SocketAddr, shared: &Shared) -> io::Result<()> {
    let far = TcpStream::connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_in, mut near_out) = near.into_split();
    let (mut far_in, far_out) = far.into_split();
    let back = async {
        tokio::io::copy(&mut far_in, &mut near_out).await?;
        // A box that was killed must be noticed by a client that still sends.
        Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionAborted))
    };
    tokio::try_join!(there(near_in, far_out, shared), back)?;
    Ok(())
}

async fn there(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut limit = shared.limit.subscribe();
    loop {
        let read = from.read(&mut chunk).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let room = |limit: u64| shared.sent.load(Ordering::SeqCst) < limit;
        if !room(*limit.borrow_and_update()) {
            shared.held.send_replace(true);
            // The sender lives as long as the line.
            let _ = limit.wait_for(|limit| room(*limit)).await;
        }
        shared.sent.fetch_add(read as u64, Ordering::SeqCst);
        to.write_all(&chunk[..read]).await?;
    }
}
