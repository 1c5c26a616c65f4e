//! What a box may say.

use longhaul_broker::EdgeConfig;
use longhaul_protocol::topic::Up;

use crate::client::Client;
use crate::fixture::{Fixture, ME, OTHER, box_id, config, dn, many, up};
use crate::frames::{self, Connect};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_outside_the_boxs_own_topics_is_refused_and_never_arrives() {
    let (fixture, mut incoming) = Fixture::start(config()).await;
    let mut client = fixture.connect(ME).await;

    for (packet_id, topic) in (1..).zip([
        up(OTHER, "journal"),
        dn(ME, "command"),
        dn(OTHER, "command"),
        up(ME, "nonsense"),
        up(ME, "#"),
        up(ME, "journal/x"),
        "$SYS/broker".to_owned(),
        "hub".to_owned(),
        "été".to_owned(),
    ]) {
        assert_eq!(
            client.publish(&topic, packet_id, b"no").await,
            0x87,
            "{topic}"
        );
    }
    assert_eq!(client.publish(&up(ME, "journal"), 99, b"yes").await, 0);

    let arrived = incoming.recv().await.expect("a message");
    assert_eq!(
        (arrived.box_id, arrived.channel, &arrived.payload[..]),
        (box_id(ME), Up::Journal, &b"yes"[..])
    );
    client
        .send(&frames::publish_0(&up(OTHER, "log"), b"no"))
        .await
        .expect("sent");
    client.disconnected(0x87).await;
    assert_eq!(fixture.edge.stats().messages_up, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_outside_the_boxs_own_topics_is_refused() {
    let (fixture, _incoming) = Fixture::start(config()).await;
    let mut client = fixture.connect(ME).await;
    let own = format!("fleet/v1/{ME}/dn/#");
    let ack = dn(ME, "ack");
    let other = format!("fleet/v1/{OTHER}/dn/#");
    let shared = format!("$share/group/{own}");

    let reasons = client
        .subscribe(&[
            &own,
            &ack,
            &other,
            &dn(OTHER, "command"),
            &up(ME, "journal"),
            "#",
            "fleet/v1/+/dn/#",
            "$SYS/#",
            &shared,
            "",
        ])
        .await;

    assert_eq!(
        reasons,
        [1, 1, 0x87, 0x87, 0x87, 0x87, 0x87, 0x87, 0x9E, 0x87]
    );
    client
        .send(&frames::unsubscribe(7, &[&own, &own, &other]))
        .await
        .expect("sent");
    let unsuback = client.packet().await.expect("UNSUBACK");
    assert_eq!(unsuback.body, [0, 7, 0, 0, 0x11, 0x87]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_will_outside_the_boxs_own_topics_is_refused_at_connect() {
    let (fixture, _incoming) = Fixture::start(config()).await;
    let huge = vec![0; 5000];
    let presence = up(ME, "presence");

    for (topic, payload, expected) in [
        (up(OTHER, "presence"), &b"x"[..], 0x87),
        (dn(ME, "command"), b"x", 0x87),
        ("#".to_owned(), b"x", 0x87),
        (presence, &huge, 0x95),
    ] {
        let connect = Connect::new(ME).will(&topic, payload);
        let tls = fixture.pki.client(ME);
        let answer = Client::try_connect(fixture.address(), tls, &connect).await;
        let (_, reason) = answer.expect("an answer");
        assert_eq!(reason, expected, "{topic}");
    }
    assert_eq!(fixture.edge.connected_count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_edge_does_not_offer_ends_the_connection_with_its_own_reason() {
    let (fixture, _incoming) = Fixture::start(config()).await;
    let topic = up(ME, "journal");
    let mut alias = Vec::new();
    frames::text(&mut alias, topic.as_bytes());
    alias.extend(b"\x03\x23\0\x01x");
    let mut identified = b"\0\x01\x02\x0b\x01".to_vec();
    frames::text(&mut identified, format!("fleet/v1/{ME}/dn/#").as_bytes());
    identified.push(1);

    for (what, frame, reason) in [
        ("retain", frames::publish_with(0x33, &topic, 1, b"x"), 0x9A),
        ("qos 2", frames::publish_with(0x34, &topic, 1, b"x"), 0x9B),
        ("topic alias", frames::packet(0x30, &alias), 0x94),
        ("subscription id", frames::packet(0x82, &identified), 0xA1),
        ("second CONNECT", Connect::new(ME).bytes(), 0x82),
        ("CONNACK", frames::packet(0x20, &[0, 0, 0]), 0x82),
        ("SUBACK", frames::packet(0x90, &[0, 1, 0, 0]), 0x82),
        ("UNSUBACK", frames::packet(0xb0, &[0, 1, 0, 0]), 0x82),
        ("PUBREC", frames::packet(0x50, &[0, 1]), 0x82),
        ("PUBREL", frames::packet(0x62, &[0, 1]), 0x82),
        ("PUBCOMP", frames::packet(0x70, &[0, 1]), 0x82),
        ("AUTH", frames::packet(0xf0, &[]), 0x82),
        ("reserved type", frames::packet(0x00, &[]), 0x81),
        ("wrong flags", frames::packet(0x80, &[0, 1, 0]), 0x81),
        (
            "endless length",
            vec![0x32, 0xff, 0xff, 0xff, 0xff, 0x01],
            0x81,
        ),
        ("oversized", vec![0x32, 0xff, 0xff, 0xff, 0x7f], 0x95),
        ("cut topic", frames::packet(0x32, &[0, 50, b'x']), 0x81),
        (
            "no UTF-8",
            frames::packet(0x32, &[0, 1, 0xff, 0, 1, 0]),
            0x81,
        ),
        (
            "packet id 0",
            frames::packet(0x82, &[0, 0, 0, 0, 1, b'a', 1]),
            0x82,
        ),
        ("no filter", frames::packet(0x82, &[0, 1, 0]), 0x82),
        ("cut properties", frames::packet(0x82, &[0, 1, 9, 38]), 0x81),
    ] {
        let mut client = fixture.connect(ME).await;
        client.send(&frame).await.expect("sent");
        let last = client
            .closed()
            .await
            .map(|packet| (packet.first, packet.body));
        assert_eq!(last, Some((0xe0, vec![reason])), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connects_that_the_edge_does_not_offer_are_refused_with_their_own_reason() {
    let (fixture, _incoming) = Fixture::start(config()).await;
    let topic = up(ME, "presence");
    let plain = Connect::new(ME).bytes();
    let mut version_4 = plain.clone();
    version_4[8] = 4;
    let with_auth = Connect {
        properties: b"\x15\0\x01x",
        ..Connect::new(ME)
    };
    let retained_will = Connect {
        extra_flags: 0x20,
        ..Connect::new(ME).will(&topic, b"x")
    };

    for (what, frame, reason) in [
        ("MQTT 3.1.1", version_4, 0x84),
        ("authentication", with_auth.bytes(), 0x8C),
        ("retained will", retained_will.bytes(), 0x9A),
        ("cut", frames::packet(0x10, &plain[2..20]), 0x81),
    ] {
        let tls = fixture.pki.client(ME);
        let mut client = Client::tls(fixture.address(), tls).await.expect("TLS");
        client.send(&frame).await.expect("sent");
        let answer = client.packet().await.expect("CONNACK");
        assert_eq!((answer.first, answer.body[1]), (0x20, reason), "{what}");
    }
    for first in [
        frames::PINGREQ.to_vec(),
        frames::publish(&topic, 1, b"x"),
        b"GET / HTTP/1.1".to_vec(),
    ] {
        let tls = fixture.pki.client(ME);
        let mut client = Client::tls(fixture.address(), tls).await.expect("TLS");
        client.send(&first).await.expect("sent");
        assert_eq!(client.closed().await, None, "{first:x?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connack_states_the_terms() {
    let (fixture, _incoming) = Fixture::start(EdgeConfig {
        max_keep_alive_secs: 50,
        max_packet_bytes: 0x0001_0203,
        receive_maximum: 17,
        ..config()
    })
    .await;
    let tls = fixture.pki.client(ME);
    let mut client = Client::tls(fixture.address(), tls).await.expect("TLS");

    client.send(&Connect::new(ME).bytes()).await.expect("sent");
    let connack = client.packet().await.expect("CONNACK");

    let terms = [
        &[0, 0, 24][..],
        &[17, 0, 0, 0, 0],
        &[33, 0, 17],
        &[39, 0, 1, 2, 3],
        &[36, 1, 37, 0, 41, 0, 42, 0],
        &[19, 0, 50],
    ];
    assert_eq!(connack.body, terms.concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_that_sends_too_fast_is_slowed_and_loses_nothing() {
    let (fixture, mut incoming) = Fixture::start(EdgeConfig {
        max_packets_per_second: many(50),
        packet_burst: many(10),
        ..config()
    })
    .await;
    let mut client = fixture.connect(ME).await;
    let began = std::time::Instant::now();

    let frames: Vec<u8> = (1..=40_u16)
        .flat_map(|id| frames::publish(&up(ME, "journal"), id, &id.to_be_bytes()))
        .collect();
    client.send(&frames).await.expect("sent");

    for id in 1..=40_u16 {
        let ack = client.packet().await.expect("PUBACK");
        assert_eq!(ack.body, id.to_be_bytes());
        let message = incoming.recv().await.expect("a message");
        assert_eq!(&message.payload[..], id.to_be_bytes());
    }
    // Forty, less the ten of the burst, at fifty a second.
    assert!(began.elapsed().as_millis() >= 550, "{:?}", began.elapsed());
}
