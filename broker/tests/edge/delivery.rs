//! That what is acknowledged arrives, in order, and nothing else is promised.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use longhaul_broker::{Delivery, EdgeConfig};
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::topic::{Dn, Up};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{AsyncClient, Event, Incoming as FromServer, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};

use crate::client::{Client, soon};
use crate::fixture::{Fixture, ME, box_id, config, dn, up};
use crate::frames;

/// A valid box id for each small number.
pub fn numbered(number: usize) -> String {
    format!("B{number:011}")
}

/// Publishes `count` numbered messages with up to `window` unacknowledged, and returns the
/// numbers that were acknowledged with success, in order.
async fn publish_numbered(mut client: Client, id: &str, count: u32, window: usize) -> Vec<u32> {
    let topic = up(id, "journal");
    let (mut open, mut acked) = (VecDeque::new(), Vec::new());
    for number in 0..count {
        if open.len() == window {
            take_ack(&mut client, &mut open, &mut acked).await;
        }
        let packet_id = u16::try_from(number % 60_000).expect("short") + 1;
        let mut payload = vec![0x5a; 200];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        client
            .send(&frames::publish(&topic, packet_id, &payload))
            .await
            .expect("sent");
        open.push_back((packet_id, number));
    }
    while !open.is_empty() {
        take_ack(&mut client, &mut open, &mut acked).await;
    }
    client.send(&frames::DISCONNECT).await.expect("sent");
    acked
}

async fn take_ack(client: &mut Client, open: &mut VecDeque<(u16, u32)>, acked: &mut Vec<u32>) {
    let ack = client.packet().await.expect("PUBACK");
    let (packet_id, number) = open.pop_front().expect("one open");
    assert_eq!(
        (ack.first, &ack.body[..2]),
        (0x40, &packet_id.to_be_bytes()[..])
    );
    match ack.body.get(2) {
        None | Some(0) => acked.push(number),
        Some(reason) => assert_eq!(*reason, 0x97),
    }
}

fn number_of(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[..4].try_into().expect("four bytes"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_messages_of_twenty_boxes_arrive_exactly_as_acknowledged() {
    const BOXES: usize = 20;
    const EACH: u32 = 1000;
    // A backlog of a small part of the traffic, so that room runs out and comes back all the time.
    let (fixture, mut incoming) = Fixture::start(EdgeConfig {
        backlog_bytes: 300 * 1024,
        quota_wait_ms: 15_000,
        ..config()
    })
    .await;
    let mut senders = Vec::new();
    for number in 0..BOXES {
        let id = numbered(number);
        let client = fixture.connect(&id).await;
        senders.push(tokio::spawn(async move {
            publish_numbered(client, &id, EACH, 64).await
        }));
    }

    let mut arrived: HashMap<BoxId, Vec<u32>> = HashMap::new();
    let mut batch = Vec::new();
    for left in (0..BOXES * 1000).rev() {
        if batch.is_empty() {
            soon(incoming.recv_many(&mut batch, 100)).await;
        }
        let message = batch.remove(0);
        arrived
            .entry(message.box_id)
            .or_default()
            .push(number_of(&message.payload));
        assert!(left > 0 || batch.is_empty());
    }

    for (number, sender) in senders.into_iter().enumerate() {
        let acked = sender.await.expect("ran");
        assert_eq!(acked, (0..EACH).collect::<Vec<_>>(), "nothing was refused");
        assert_eq!(arrived.remove(&box_id(&numbered(number))), Some(acked));
    }
    assert!(arrived.is_empty());
    fixture.shutdown.cancel();
    assert!(
        soon(incoming.recv()).await.is_none(),
        "nothing arrives twice"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_cloud_is_behind_messages_are_refused_and_nothing_acknowledged_is_lost() {
    let (fixture, mut incoming) = Fixture::start(EdgeConfig {
        max_packet_bytes: 8 * 1024,
        backlog_bytes: 40 * 1024,
        quota_wait_ms: 100,
        ..config()
    })
    .await;
    let mut senders = BTreeMap::new();
    for number in 0..4 {
        let id = numbered(number);
        let client = fixture.connect(&id).await;
        let sender = {
            let id = id.clone();
            tokio::spawn(async move { publish_numbered(client, &id, 200, 16).await })
        };
        senders.insert(id, sender);
    }
    fixture.until(|edge| edge.stats().quota_exceeded > 0).await;
    let mut bystander = fixture.connect(ME).await;
    bystander.ping().await;

    let mut acked = BTreeMap::new();
    for (id, sender) in senders {
        acked.insert(box_id(&id), soon(sender).await.expect("ran"));
    }
    let total: usize = acked.values().map(Vec::len).sum();
    assert!(total > 0 && total < 800, "{total} of 800 accepted");
    bystander
        .send(&frames::publish_0(&up(ME, "telemetry"), &[7; 400]))
        .await
        .expect("sent");
    fixture.until(|edge| edge.stats().qos0_dropped == 1).await;

    let mut arrived: BTreeMap<BoxId, Vec<u32>> = BTreeMap::new();
    for _ in 0..total {
        let message = soon(incoming.recv()).await.expect("a message");
        arrived
            .entry(message.box_id)
            .or_default()
            .push(number_of(&message.payload));
    }
    acked.retain(|_, numbers| !numbers.is_empty());
    assert_eq!(arrived, acked);
    assert_eq!(
        bystander
            .publish(&up(ME, "journal"), 1, b"room again")
            .await,
        0
    );
    assert_eq!(
        &soon(incoming.recv()).await.expect("a message").payload[..],
        b"room again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_to_a_box_keep_their_order_and_wait_for_its_window() {
    let (fixture, _incoming) = Fixture::start(config()).await;
    let connect = frames::Connect {
        // Receive maximum 3, maximum packet size 1,000.
        properties: b"\x21\0\x03\x27\0\0\x03\xe8",
        ..frames::Connect::new(ME)
    };
    let mut client = fixture.connect_with(&connect).await;
    let publish = |text: &str| {
        fixture.edge.publish(
            &box_id(ME),
            Dn::Command,
            Bytes::copy_from_slice(text.as_bytes()),
        )
    };
    assert_eq!(publish("early"), Delivery::NotConnected);
    assert_eq!(
        client.subscribe(&[&format!("fleet/v1/{ME}/dn/#")]).await,
        [1]
    );

    assert_eq!(publish(&"x".repeat(1000)), Delivery::TooLarge);
    for number in 0..20 {
        assert_eq!(publish(&number.to_string()), Delivery::Queued);
    }

    let mut unacknowledged = VecDeque::new();
    for number in 0..20 {
        if unacknowledged.len() == 3 {
            // The window is full: a ping overtakes the rest.
            client.ping().await;
            let packet_id = unacknowledged.pop_front().expect("three");
            client.send(&frames::puback(packet_id)).await.expect("sent");
        }
        let packet = client.packet().await.expect("PUBLISH");
        let topic = dn(ME, "command");
        let (header, payload) = packet.body.split_at(2 + topic.len() + 3);
        assert_eq!(packet.first, 0x32);
        assert_eq!(&header[2..2 + topic.len()], topic.as_bytes());
        assert_eq!(payload, number.to_string().as_bytes());
        let id = &header[2 + topic.len()..];
        unacknowledged.push_back(u16::from_be_bytes([id[0], id[1]]));
    }
    assert_eq!(
        fixture
            .edge
            .publish(&box_id(&numbered(1)), Dn::Ack, Bytes::new()),
        Delivery::NotConnected
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_that_does_not_read_gets_no_more_than_its_mailbox_holds() {
    let (fixture, _incoming) = Fixture::start(EdgeConfig {
        max_queued_messages: 10,
        max_queued_bytes: 1000,
        ..config()
    })
    .await;
    let mut client = fixture.connect(ME).await;
    assert_eq!(client.subscribe(&[&dn(ME, "desired")]).await, [1]);
    let publish = |len| {
        fixture
            .edge
            .publish(&box_id(ME), Dn::Desired, Bytes::from(vec![7; len]))
    };

    let queued = (0..1000)
        .take_while(|_| publish(1) == Delivery::Queued)
        .count();

    // The mailbox, and what may be in flight.
    assert!((10..=74).contains(&queued), "{queued}");
    assert_eq!(publish(1), Delivery::Full);
    for _ in 0..queued {
        let packet = client.packet().await.expect("PUBLISH");
        let at = 2 + dn(ME, "desired").len();
        let packet_id = u16::from_be_bytes([packet.body[at], packet.body[at + 1]]);
        client.send(&frames::puback(packet_id)).await.expect("sent");
    }
    client.ping().await;
    assert_eq!(publish(1), Delivery::Queued);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_that_boxes_use_is_served() {
    let (fixture, mut incoming) = Fixture::start(config()).await;
    let mut options = MqttOptions::new(ME, "localhost", fixture.address().port());
    let tls = TlsConfiguration::Rustls(fixture.pki.client(ME));
    options.set_transport(Transport::tls_with_config(tls));
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut events) = AsyncClient::new(options, 10);
    let (subscribed, mut received) = (Arc::new(tokio::sync::Notify::new()), Vec::new());

    client
        .subscribe(
            longhaul_protocol::topic::dn_filter(&box_id(ME)),
            QoS::AtLeastOnce,
        )
        .await
        .expect("queued");
    client
        .publish(up(ME, "presence"), QoS::AtLeastOnce, false, "birth")
        .await
        .expect("queued");
    client
        .publish(up(ME, "telemetry"), QoS::AtMostOnce, false, "warm")
        .await
        .expect("queued");
    let poll = async {
        let mut acked = false;
        while received.len() < 2 || !acked {
            match events.poll().await.expect("a connection") {
                Event::Incoming(FromServer::SubAck(_)) => subscribed.notify_one(),
                Event::Incoming(FromServer::PubAck(_)) => acked = true,
                Event::Incoming(FromServer::Publish(publish)) => received.push(publish.payload),
                _ => {}
            }
        }
    };
    let cloud = async {
        subscribed.notified().await;
        for text in ["one", "two"] {
            let delivery = fixture
                .edge
                .publish(&box_id(ME), Dn::Ack, Bytes::from(text));
            assert_eq!(delivery, Delivery::Queued);
        }
        let birth = incoming.recv().await.expect("a message");
        let warm = incoming.recv().await.expect("a message");
        assert_eq!(
            (birth.channel, &birth.payload[..]),
            (Up::Presence, &b"birth"[..])
        );
        assert_eq!(
            (warm.channel, &warm.payload[..]),
            (Up::Telemetry, &b"warm"[..])
        );
    };
    soon(async { tokio::join!(poll, cloud) }).await;

    assert_eq!(received, ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_may_be_lost_leave_the_last_of_the_room_to_the_rest() {
    let (fixture, mut incoming) = Fixture::start(EdgeConfig {
        max_packet_bytes: 1024,
        backlog_bytes: 32 * 1024,
        ..config()
    })
    .await;
    let mut client = fixture.connect(ME).await;

    for _ in 0..100 {
        let telemetry = frames::publish_0(&up(ME, "telemetry"), &[7; 100]);
        client.send(&telemetry).await.expect("sent");
    }
    for packet_id in 1..=5 {
        let reason = client
            .publish(&up(ME, "journal"), packet_id, &[8; 100])
            .await;
        assert_eq!(reason, 0, "{packet_id}");
    }

    let stats = fixture.edge.stats();
    assert!(stats.qos0_dropped > 0);
    assert_eq!(stats.qos0_dropped + stats.messages_up, 105);
    for number in 0..stats.messages_up {
        let message = soon(incoming.recv()).await.expect("a message");
        let is_telemetry = number + 5 < stats.messages_up;
        assert_eq!(message.channel == Up::Telemetry, is_telemetry);
    }
}
