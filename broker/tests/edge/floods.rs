//! Everything at once: peers that take places, time, memory and names, beside a box that does not.

use std::time::Duration;

use longhaul_broker::EdgeConfig;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::delivery::numbered;
use crate::fixture::{Fixture, ME, config, dn, many, up};
use crate::frames::{self, Connect};

/// What the edge may grow by, in bytes; the peers, who live in the same process, are counted with it.
const MOST: u64 = 64 << 20;
/// Peers that say their hello byte by byte.
const DAWDLING: usize = 150;
/// Boxes gone bad, of each kind.
const BAD: usize = 8;

/// Bytes of memory that this process holds.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages = statm.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok());
    pages.expect("a number") * 4096
}

/// Sends a byte at a time, until the edge has had enough.
async fn dawdle(address: std::net::SocketAddr) {
    let Ok(mut peer) = TcpStream::connect(address).await else {
        return;
    };
    for byte in [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]
        .into_iter()
        .chain([0; 500])
    {
        if peer.write_all(&[byte]).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_box_works_and_memory_is_bounded_while_others_flood_every_layer() {
    let (fixture, mut incoming) = Fixture::start(EdgeConfig {
        max_half_open: 400,
        handshake_timeout_ms: many(5_000),
        ..config()
    })
    .await;
    let drain = tokio::spawn(async move { while incoming.recv().await.is_some() {} });
    let mut honest = fixture.connect(ME).await;
    let address = fixture.address();
    let before = resident();

    let mut peers = JoinSet::new();
    for _ in 0..DAWDLING {
        peers.spawn(dawdle(address));
    }
    peers.spawn(async move {
        for _ in 0..2_000 {
            drop(TcpStream::connect(address).await);
        }
    });
    for number in 0..BAD {
        // One identity from many places, each throwing out the one before.
        let id = numbered(number);
        let tls = fixture.pki.client(&id);
        peers.spawn(async move {
            for _ in 0..10 {
                let _ = Client::try_connect(address, tls.clone(), &Connect::new(&id)).await;
            }
        });
        let id = numbered(100 + number);
        let tls = fixture.pki.client(&id);
        peers.spawn(async move {
            let mut client = Client::connect(address, tls, &Connect::new(&id)).await;
            for number in 0..500 {
                let filter = dn(&id, &format!("name-{number}"));
                client.subscribe(&[&filter]).await;
            }
            let topic = up(ME, "journal");
            client
                .send(&frames::publish_0(&topic, b"x"))
                .await
                .expect("sent");
            client.closed().await;
        });
        let id = numbered(200 + number);
        let tls = fixture.pki.client(&id);
        peers.spawn(async move {
            let mut client = Client::connect(address, tls, &Connect::new(&id)).await;
            // Nearly the longest packet that MQTT knows.
            let mut begun = vec![0x30, 0xff, 0xff, 0xff, 0x7f];
            begun.resize(64 << 10, 0);
            while client.send(&begun).await.is_ok() {
                begun.fill(0);
            }
        });
    }
    let topic = up(ME, "journal");
    let mut most = before;
    for number in 0..300 {
        assert_eq!(honest.publish(&topic, number + 1, b"honest").await, 0);
        most = most.max(resident());
    }
    while peers.join_next().await.is_some() {
        most = most.max(resident());
    }

    assert!(most - before < MOST, "{} MiB", (most - before) >> 20);
    fixture
        .until(|edge| edge.stats().half_open == 0 && edge.connected_count() == 1)
        .await;
    assert_eq!(fixture.edge.stats().panics, 0);
    honest.ping().await;
    drain.abort();
}
