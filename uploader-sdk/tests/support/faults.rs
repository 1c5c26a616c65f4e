//! Networks and servers that misbehave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Authority, noise, take_one};

/// Forwards connections to `target` and cuts the first `cuts` of them after some bytes upstream.
pub struct CuttingProxy {
    pub addr: SocketAddr,
    left: Arc<AtomicU64>,
}

impl CuttingProxy {
    pub async fn start(target: SocketAddr, cuts: u64, after_bytes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let addr = listener.local_addr().expect("an address");
        let left = Arc::new(AtomicU64::new(cuts));
        let shared = Arc::clone(&left);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let left = Arc::clone(&shared);
                tokio::spawn(async move { forward(client, target, &left, after_bytes).await });
            }
        });
        Self { addr, left }
    }

    pub fn cuts_left(&self) -> u64 {
        self.left.load(Ordering::SeqCst)
    }
}

async fn forward(client: TcpStream, target: SocketAddr, left: &AtomicU64, after: usize) {
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let upstream = async {
        let mut buffer = vec![0; 16 * 1024];
        let mut passed = 0;
        loop {
            match from_client.read(&mut buffer).await {
                Ok(read @ 1..) => {
                    passed += read;
                    if passed > after && take_one(left) {
                        return;
                    }
                    if to_server.write_all(&buffer[..read]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    };
    // Whichever side ends first takes the other with it: both sockets close.
    tokio::select! {
        () = upstream => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
}

/// Forwards connections to `target` while it is open; closing it cuts them all, as a box that
/// restarts does.
pub struct Gate {
    pub addr: SocketAddr,
    open: Arc<tokio::sync::watch::Sender<bool>>,
}

impl Gate {
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let addr = listener.local_addr().expect("an address");
        let open = Arc::new(tokio::sync::watch::Sender::new(true));
        let shared = Arc::clone(&open);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut open = shared.subscribe();
                tokio::spawn(async move {
                    if !*open.borrow() {
                        return;
                    }
                    let Ok(mut server) = TcpStream::connect(target).await else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = open.wait_for(|open| !*open) => {}
                    }
                });
            }
        });
        Self { addr, open }
    }

    pub fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }
}

/// A TLS server with the right name that answers everything with noise.
pub async fn nonsense(authority: &Authority, name: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let addr = listener.local_addr().expect("an address");
    let acceptor = authority.acceptor(vec![name]);
    tokio::spawn(async move {
        let mut seed = 0;
        while let Ok((tcp, _)) = listener.accept().await {
            seed += 1;
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut tls) = acceptor.accept(tcp).await {
                    let _ = tls.read_u8().await;
                    let _ = tls.write_all(&noise(seed, 5000)).await;
                    let _ = tls.shutdown().await;
                }
            });
        }
    });
    addr
}
