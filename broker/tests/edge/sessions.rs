//! How sessions begin, follow each other and end.

use bytes::Bytes;
use longhaul_broker::{Delivery, EdgeConfig, Reason};
use longhaul_protocol::topic::{Dn, Up};

use crate::client::{Client, soon};
use crate::fixture::{Fixture, ME, OTHER, box_id, config, up};
use crate::frames::{self, Connect};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_closes_the_older_connection_and_its_will_comes_before_the_next_birth() {
    let (fixture, mut incoming) = Fixture::start(config()).await;
    let topic = up(ME, "presence");
    let mut older = fixture
        .connect_with(&Connect::new(ME).will(&topic, b"death 0"))
        .await;

    for number in 1..=5_u8 {
        let will = format!("death {number}");
        let mut newer = fixture
            .connect_with(&Connect::new(ME).will(&topic, will.as_bytes()))
            .await;
        assert_eq!(
            newer
                .publish(&topic, 1, format!("birth {number}").as_bytes())
                .await,
            0
        );
        older.disconnected(0x8E).await;
        older = newer;

        for expected in [format!("death {}", number - 1), format!("birth {number}")] {
            let message = soon(incoming.recv()).await.expect("a message");
            assert_eq!(message.channel, Up::Presence);
            assert_eq!(message.payload, expected.as_bytes());
        }
    }
    assert_eq!(fixture.edge.connected(), [box_id(ME)]);
    older.ping().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_takeovers_at_once_exactly_one_connection_is_left() {
    let (fixture, mut incoming) = Fixture::start(config()).await;
    let tls = fixture.pki.client(ME);
    let address = fixture.address();
    let topic = up(ME, "presence");

    let attempts: Vec<_> = (0..30)
        .map(|_| {
            let (tls, topic) = (tls.clone(), topic.clone());
            tokio::spawn(async move {
                let connect = Connect::new(ME).will(&topic, b"death");
                let mut client = Client::tls(address, tls).await.expect("TLS");
                client.send(&connect.bytes()).await.expect("sent");
                match client.packet().await {
                    Ok(packet) if packet.body[1] == 0 => Some(client),
                    _ => None,
                }
            })
        })
        .collect();
    let mut clients = Vec::new();
    for attempt in attempts {
        clients.extend(attempt.await.expect("ran"));
    }

    let accepted = clients.len();
    fixture
        .until(|edge| edge.stats().wills == u64::try_from(accepted - 1).expect("few"))
        .await;
    let mut alive = 0;
    for mut client in clients {
        let pinged = client.send(&frames::PINGREQ).await;
        let answer = client.packet().await;
        alive += usize::from(pinged.is_ok() && answer.is_ok_and(|packet| packet.first == 0xd0));
    }
    assert_eq!(alive, 1);
    for _ in 1..accepted {
        let message = soon(incoming.recv()).await.expect("a will");
        assert_eq!(&message.payload[..], b"death");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_will_is_published_unless_the_box_says_goodbye() {
    let (fixture, mut incoming) = Fixture::start(config()).await;
    let topic = up(ME, "presence");

    for (what, goodbye, has_will) in [
        ("goodbye", Some(&frames::DISCONNECT[..]), false),
        ("goodbye with will", Some(&[0xe0, 1, 4]), true),
        ("garbage", Some(&[0x00, 0x00]), true),
        ("cut off", None, true),
        ("kicked", Some(&[]), true),
    ] {
        let mut client = fixture
            .connect_with(&Connect::new(ME).will(&topic, what.as_bytes()))
            .await;
        assert_eq!(client.publish(&up(ME, "journal"), 1, b"first").await, 0);
        match goodbye {
            Some([]) => {
                assert!(
                    fixture
                        .edge
                        .disconnect(&box_id(ME), Reason::AdministrativeAction)
                );
            }
            Some(bytes) => client.send(bytes).await.expect("sent"),
            None => {}
        }
        drop(client);

        let first = soon(incoming.recv()).await.expect("a message");
        assert_eq!(&first.payload[..], b"first", "{what}");
        if has_will {
            let will = soon(incoming.recv()).await.expect("a will");
            assert_eq!(
                (will.channel, will.payload),
                (Up::Presence, Bytes::from(what))
            );
        }
        fixture.until(|edge| edge.connected_count() == 0).await;
    }
    assert_eq!(fixture.edge.stats().wills, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_will_waits_for_room_and_holds_its_boxs_seat_until_there_is_some() {
    let (fixture, mut incoming) = Fixture::start(EdgeConfig {
        max_packet_bytes: 4096,
        backlog_bytes: 8 * 1024,
        quota_wait_ms: 1,
        ..config()
    })
    .await;
    let topic = up(ME, "presence");
    let mut client = fixture
        .connect_with(&Connect::new(ME).will(&topic, &[9; 2000]))
        .await;
    let mut accepted = 0;
    while client.publish(&up(ME, "journal"), 1, &[7; 1000]).await == 0 {
        accepted += 1;
    }

    drop(client);
    fixture.until(|edge| edge.connected_count() == 0).await;
    let returning = fixture.connect(ME);
    tokio::pin!(returning);
    // Long enough for a connection that nothing held up.
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), &mut returning).await;

    assert!(early.is_err(), "the will is not on its way yet");
    assert_eq!(fixture.edge.stats().wills, 0);
    for _ in 0..accepted {
        let message = soon(incoming.recv()).await.expect("a message");
        assert_eq!(message.channel, Up::Journal);
    }
    let will = soon(incoming.recv()).await.expect("a will");
    assert_eq!((will.channel, will.payload.len()), (Up::Presence, 2000));
    returning.await.ping().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_box_is_given_up_after_one_and_a_half_keep_alives() {
    let (fixture, mut incoming) = Fixture::start(config()).await;
    let topic = up(ME, "presence");
    let connect = Connect {
        keep_alive_secs: 1,
        ..Connect::new(ME).will(&topic, b"death")
    };
    let began = std::time::Instant::now();

    let mut client = fixture.connect_with(&connect).await;
    // Bytes of a packet that never ends are no sign of life.
    client.send(&[0x32, 0x80, 0x01, 0x00]).await.expect("sent");
    client.disconnected(0x8D).await;

    assert!(began.elapsed().as_millis() >= 1400, "{:?}", began.elapsed());
    assert!(
        began.elapsed().as_millis() < 10_000,
        "{:?}",
        began.elapsed()
    );
    let will = soon(incoming.recv()).await.expect("a will");
    assert_eq!(&will.payload[..], b"death");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_never_outlives_its_connection() {
    let (fixture, _incoming) = Fixture::start(config()).await;
    let resume = Connect {
        // Session expiry: one day.
        properties: b"\x11\0\x01\x51\x80",
        extra_flags: 0,
        ..Connect::new(ME)
    };
    let mut first = fixture.connect_with(&resume).await;
    assert_eq!(
        first.subscribe(&[&format!("fleet/v1/{ME}/dn/#")]).await,
        [1]
    );
    assert_eq!(
        fixture.edge.publish(&box_id(ME), Dn::Ack, Bytes::from("1")),
        Delivery::Queued
    );
    drop(first);
    fixture.until(|edge| edge.connected_count() == 0).await;
    let mut frame = resume.bytes();
    // Without the clean-start flag.
    frame[9] &= !0x02;

    let mut second = Client::tls(fixture.address(), fixture.pki.client(ME))
        .await
        .expect("TLS");
    second.send(&frame).await.expect("sent");
    let connack = second.packet().await.expect("CONNACK");

    assert_eq!(&connack.body[..2], [0, 0], "no session present");
    let ack = fixture.edge.publish(&box_id(ME), Dn::Ack, Bytes::from("2"));
    assert_eq!(ack, Delivery::NotConnected, "no subscription left");
    second.ping().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_house_turns_boxes_away_but_lets_its_own_come_back() {
    let (fixture, _incoming) = Fixture::start(EdgeConfig {
        max_sessions: 1,
        ..config()
    })
    .await;
    let _first = fixture.connect(ME).await;

    let tls = fixture.pki.client(OTHER);
    let (_, reason) = Client::try_connect(fixture.address(), tls, &Connect::new(OTHER))
        .await
        .expect("an answer");

    assert_eq!(reason, 0x89);
    fixture.connect(ME).await.ping().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_tells_every_box_and_ends_well() {
    let (fixture, mut incoming) = Fixture::start(config()).await;
    let topic = up(ME, "presence");
    let mut client = fixture
        .connect_with(&Connect::new(ME).will(&topic, b"death"))
        .await;
    assert_eq!(client.publish(&topic, 1, b"birth").await, 0);
    let half_open = Client::tls(fixture.address(), fixture.pki.client(OTHER))
        .await
        .expect("TLS");

    fixture.shutdown.cancel();

    client.disconnected(0x8B).await;
    soon(fixture.edge.stopped()).await.expect("a clean end");
    assert_eq!(
        &incoming.recv().await.expect("accepted").payload[..],
        b"birth"
    );
    assert!(
        incoming.recv().await.is_none(),
        "a stop of the edge is no box's death"
    );
    drop(half_open);
    let refused = tokio::net::TcpStream::connect(fixture.address()).await;
    assert!(refused.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_whose_messages_nobody_takes_fails_visibly() {
    let (fixture, incoming) = Fixture::start(config()).await;
    let mut client = fixture.connect(ME).await;

    drop(incoming);
    client
        .send(&frames::publish(&up(ME, "journal"), 1, b"x"))
        .await
        .expect("sent");

    let error = soon(fixture.edge.stopped()).await.expect_err("a failure");
    assert_eq!(error.to_string(), "the backbone failed");
    assert!(client.closed().await.is_some());
    assert_eq!(fixture.edge.connected_count(), 0);
}
