//! Peers that mean harm, beside boxes that do not.

use std::time::{Duration, Instant};

use longhaul_broker::EdgeConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, soon};
use crate::delivery::numbered;
use crate::fixture::{Fixture, ME, OTHER, box_id, config, many, up};
use crate::frames::{self, Connect};

/// A small generator with a fixed seed (Marsaglia's xorshift64): every run sees the same bytes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> usize {
        usize::try_from(self.next() % limit).expect("small")
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_boxes_connect_beside_five_hundred_half_open_peers_of_the_same_address() {
    const COUNT: usize = 500;
    let (fixture, _incoming) = Fixture::start(EdgeConfig {
        handshake_timeout_ms: many(60_000),
        ..config()
    })
    .await;
    let mut half_open = Vec::new();
    for number in 0..COUNT {
        let mut peer = TcpStream::connect(fixture.address()).await.expect("TCP");
        // Silence, or the first bytes of a ClientHello.
        let opening = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01];
        peer.write_all(&opening[..number % 7]).await.expect("sent");
        half_open.push(peer);
    }
    fixture.until(|edge| edge.stats().half_open == 500).await;

    let began = Instant::now();
    let mut boxes = Vec::new();
    for chunk in 0..COUNT / 50 {
        let joining: Vec<_> = (0..50)
            .map(|number| {
                let id = numbered(chunk * 50 + number);
                let (tls, address) = (fixture.pki.client(&id), fixture.address());
                tokio::spawn(async move { Client::connect(address, tls, &Connect::new(&id)).await })
            })
            .collect();
        for join in joining {
            boxes.push(join.await.expect("connected"));
        }
    }

    assert_eq!(fixture.edge.connected_count(), COUNT);
    assert_eq!(fixture.edge.stats().half_open, 500);
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_dawdles_is_cut_off_wherever_it_stops() {
    let (fixture, _incoming) = Fixture::start(EdgeConfig {
        handshake_timeout_ms: many(700),
        ..config()
    })
    .await;
    let connect = Connect::new(ME).bytes();
    let began = Instant::now();

    let mut silent = TcpStream::connect(fixture.address()).await.expect("TCP");
    let mut no_connect = Client::tls(fixture.address(), fixture.pki.client(ME))
        .await
        .expect("TLS");
    let mut half = Client::tls(fixture.address(), fixture.pki.client(OTHER))
        .await
        .expect("TLS");
    half.send(&connect[..connect.len() / 2])
        .await
        .expect("sent");
    let mut drip = Client::tls(fixture.address(), fixture.pki.client(ME))
        .await
        .expect("TLS");
    let drip = tokio::spawn(async move {
        // One byte at a time resets no clock.
        for byte in &connect {
            if drip.send(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        drip.closed().await
    });

    assert_eq!(soon(silent.read(&mut [0; 16])).await.unwrap_or(0), 0);
    assert_eq!(no_connect.closed().await, None);
    assert_eq!(half.closed().await, None);
    assert_eq!(soon(drip).await.expect("ran"), None);
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    fixture
        .until(|edge| edge.stats().half_open == 0 && edge.stats().handshakes_timed_out == 4)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_takes_every_place_it_can_leaves_half() {
    let (fixture, _incoming) = Fixture::start(EdgeConfig {
        max_half_open: 20,
        handshake_timeout_ms: many(60_000),
        ..config()
    })
    .await;
    let mut peers = Vec::new();

    for _ in 0..30 {
        peers.push(TcpStream::connect(fixture.address()).await.expect("TCP"));
    }
    fixture.until(|edge| edge.stats().turned_away == 20).await;

    assert_eq!(fixture.edge.stats().half_open, 10);
    drop(peers);
    fixture.until(|edge| edge.stats().half_open == 0).await;
    fixture.connect(ME).await.ping().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_box_works_while_others_send_random_bytes_at_every_layer() {
    let (fixture, mut incoming) = Fixture::start(config()).await;
    let address = fixture.address();
    let mut honest = fixture.connect(ME).await;
    let tls = fixture.pki.client(OTHER);
    let mut seed = Random(0x5eed_0001);
    let mut attackers = Vec::new();
    for worker in 0..3_u64 {
        let mut random = Random(seed.next() | 1);
        let tls = tls.clone();
        attackers.push(tokio::spawn(async move {
            for round in 0..60 {
                let len = 1 + random.below(300);
                let mut bytes = random.bytes(len);
                if worker == 0 {
                    // Below TLS.
                    let mut tcp = TcpStream::connect(address).await.expect("TCP");
                    let _ = tcp.write_all(&bytes).await;
                    continue;
                }
                if worker == 1 {
                    // Instead of CONNECT.
                    if round % 2 == 0 {
                        bytes = Connect::new(OTHER).bytes();
                        let at = random.below(20);
                        bytes[at] ^= 1 << random.below(8);
                    }
                    if let Ok(mut client) = Client::tls(address, tls.clone()).await {
                        let _ = client.send(&bytes).await;
                    }
                    continue;
                }
                // In a session: a good packet with a few bits flipped, or garbage.
                let connect = Connect::new(OTHER);
                let Ok((mut client, 0)) = Client::try_connect(address, tls.clone(), &connect).await
                else {
                    continue;
                };
                let mut packet = match round % 4 {
                    0 => frames::publish(&up(OTHER, "journal"), 7, &bytes),
                    1 => frames::subscribe(7, &["fleet/v1/ZZZZZZZZZZZZ/dn/#"]),
                    2 => frames::unsubscribe(7, &["fleet/v1/ZZZZZZZZZZZZ/dn/#"]),
                    _ => bytes,
                };
                let at = random.below(packet.len() as u64);
                packet[at] ^= 1 << random.below(8);
                let _ = client.send(&packet).await;
                let _ = client.send(&frames::DISCONNECT).await;
            }
        }));
    }

    let drain = tokio::spawn(async move {
        let mut mine = 0;
        while let Some(message) = incoming.recv().await {
            mine += u32::from(message.box_id == box_id(ME));
        }
        mine
    });
    let mut sent = 0_u16;
    while attackers.iter().any(|attacker| !attacker.is_finished()) || sent < 200 {
        sent += 1;
        assert_eq!(
            honest
                .publish(&up(ME, "journal"), sent, b"still here")
                .await,
            0
        );
    }
    for attacker in attackers {
        attacker.await.expect("ran");
    }
    fixture.shutdown.cancel();

    assert_eq!(soon(drain).await.expect("ran"), u32::from(sent));
    assert_eq!(fixture.edge.stats().panics, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_one_connection_stays_there() {
    let (fixture, _incoming) = Fixture::start(config()).await;
    let mut honest = fixture.connect(ME).await;
    *fixture.guard.panics_on.lock().expect("not poisoned") = Some(box_id(OTHER));

    let tls = fixture.pki.client(OTHER);
    let answer = Client::try_connect(fixture.address(), tls, &Connect::new(OTHER)).await;

    assert!(answer.is_err());
    assert_eq!(fixture.edge.stats().panics, 1);
    honest.ping().await;
    *fixture.guard.panics_on.lock().expect("not poisoned") = None;
    fixture.connect(OTHER).await.ping().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_asks_and_never_reads_is_cut_off_with_bounded_memory() {
    let (fixture, _incoming) = Fixture::start(EdgeConfig {
        write_stall_ms: many(500),
        ..config()
    })
    .await;
    let mut client = fixture.connect(ME).await;
    let requests = frames::PINGREQ.repeat(8 * 1024);

    let mut sent = 0_usize;
    while tokio::time::timeout(Duration::from_secs(10), client.stream.write_all(&requests))
        .await
        .is_ok_and(|result| result.is_ok())
    {
        sent += requests.len();
    }

    // What fits into the sockets on both sides and the edge's own buffers, not more.
    assert!(sent < 64 * 1024 * 1024, "{sent}");
    fixture.until(|edge| edge.connected_count() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_reconnects_leaves_nothing_behind() {
    let (fixture, mut incoming) = Fixture::start(config()).await;
    let drain = tokio::spawn(async move { while incoming.recv().await.is_some() {} });
    let mut storms = Vec::new();
    for number in 0..10 {
        let id = numbered(number);
        let (tls, address) = (fixture.pki.client(&id), fixture.address());
        storms.push(tokio::spawn(async move {
            let topic = up(&id, "presence");
            let will = vec![7; 4096];
            for round in 0..20 {
                let connect = Connect::new(&id).will(&topic, &will);
                let mut client = Client::tls(address, tls.clone()).await.expect("TLS");
                client.send(&connect.bytes()).await.expect("sent");
                if round % 3 == 0 {
                    let _ = client.packet().await;
                }
            }
        }));
    }
    for storm in storms {
        storm.await.expect("ran");
    }

    fixture
        .until(|edge| edge.connected_count() == 0 && edge.stats().half_open == 0)
        .await;
    assert_eq!(fixture.edge.stats().panics, 0);
    fixture.connect(ME).await.ping().await;
    fixture.shutdown.cancel();
    soon(fixture.edge.stopped()).await.expect("a clean end");
    soon(drain).await.expect("drained");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_stuffed_with_properties_or_filters_are_refused_or_ignored() {
    let (fixture, mut incoming) = Fixture::start(config()).await;
    let mut client = fixture.connect(ME).await;
    let mut stuffed = Vec::new();
    frames::text(&mut stuffed, up(ME, "journal").as_bytes());
    stuffed.extend([0, 1]);
    let property = b"\x26\0\x01k\0\x01v";
    let len = property.len() * 30_000;
    // 210,000 as a variable byte integer.
    stuffed.extend([0xd0, 0xe8, 0x0c]);
    assert_eq!(len, 0x50 | (0x68 << 7) | (0x0c << 14));
    stuffed.extend(property.repeat(30_000));
    stuffed.extend(b"payload");

    client
        .send(&frames::packet(0x32, &stuffed))
        .await
        .expect("sent");
    assert_eq!(client.packet().await.expect("PUBACK").body, [0, 1]);
    assert_eq!(
        &incoming.recv().await.expect("a message").payload[..],
        b"payload"
    );

    client
        .send(&frames::subscribe(1, &vec!["#"; 50_000]))
        .await
        .expect("sent");
    client.disconnected(0x97).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connect_far_larger_than_it_need_be_is_refused_before_it_has_arrived() {
    let (fixture, _incoming) = Fixture::start(config()).await;
    let mut client = Client::tls(fixture.address(), fixture.pki.client(ME))
        .await
        .expect("TLS");

    // A header that promises 16,384 bytes, within what other packets may have.
    client.send(&[0x10, 0x80, 0x80, 0x01]).await.expect("sent");

    assert_eq!(client.closed().await, None);
    fixture
        .until(|edge| edge.stats().handshakes_failed == 1)
        .await;
}
