"""What the edge offers of MQTT 5, as Eclipse paho's client sees it, beside mosquitto; then what it does not offer, and how it says so.

The list follows paho's interoperability tests, those of them that concern what is offered. The tests themselves cannot run: their clients
choose their names and topics, and here a certificate does.
"""

import socket
import ssl

import pytest
from conftest import until
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def ours_only(broker):
    if broker.name != "edge":
        pytest.skip("a rule of the edge's own")


def test_a_client_connects_and_is_told_the_terms(broker, box):
    reason, properties = box().connect()
    assert reason == 0
    if broker.name == "edge":
        told = properties.json()
        assert (told["MaximumQoS"], told["RetainAvailable"], told["SharedSubscriptionAvailable"]) == (1, 0, 0)
        assert told["ReceiveMaximum"] >= 1 and told["MaximumPacketSize"] >= 1 << 16


@pytest.mark.parametrize("qos", [0, 1])
def test_messages_arrive_in_both_directions(box, broker, qos):
    one = box()
    one.connect()
    assert one.subscribe(one.dn()) == [1]
    for payload in [b"", b"hello", bytes(range(256)), b"x" * 100_000]:
        one.client.publish(one.up(), payload, qos=qos).wait_for_publish(60)
        until("the answer", lambda: one.got and one.got[-1].payload == payload)
        assert broker.taken(one.id)[-1] == ("journal", payload)
        assert one.got[-1].topic == one.dn("ack")


def test_a_thousand_messages_are_acknowledged_and_keep_their_order(box, broker):
    one = box()
    one.connect()
    sent = [f"{number}".encode() for number in range(1000)]
    under_way = [one.client.publish(one.up(), payload, qos=1) for payload in sent]
    for message in under_way:
        message.wait_for_publish(60)
        assert message.is_published()
    until("all of them", lambda: len(broker.taken(one.id)) == 1000)
    assert [payload for _, payload in broker.taken(one.id)] == sent


def test_a_second_subscription_and_an_unsubscription(box):
    one = box()
    one.connect()
    assert one.subscribe(one.dn("ack"), one.dn("command")) == [1, 1]
    one.client.unsubscribe([one.dn("ack")])
    assert until("UNSUBACK", lambda: one.dropped)[0] == [0]
    one.client.publish(one.up(), b"unheard", qos=1).wait_for_publish(60)
    # Answered after the one before, whose answer would be here first.
    one.client.publish(one.up("command"), b"heard", qos=1).wait_for_publish(60)
    until("the answer", lambda: one.got)
    assert [(m.topic, m.payload) for m in one.got] == [(one.dn("command"), b"heard")]


def test_overlapping_subscriptions_bring_one_message_or_two_but_no_more(box):
    one = box()
    one.connect()
    one.subscribe(one.dn("ack"), one.dn("#"))
    one.client.publish(one.up(), b"first", qos=1).wait_for_publish(60)
    one.client.publish(one.up(), b"second", qos=1).wait_for_publish(60)
    until("the second", lambda: one.got and one.got[-1].payload == b"second")
    assert 1 <= [m.payload for m in one.got].count(b"first") <= 2


def test_a_will_comes_when_a_connection_is_cut(box, broker):
    one = box()
    one.client.will_set(one.up("presence"), b"gone", qos=1)
    one.connect()
    one.cut()
    until("the will", lambda: ("presence", b"gone") in broker.taken(one.id))


def test_no_will_comes_after_a_goodbye(box, broker):
    one = box()
    one.client.will_set(one.up("presence"), b"gone", qos=1)
    one.connect()
    one.end()
    again = box(id=one.id)
    again.connect()
    again.client.publish(again.up(), b"after", qos=1).wait_for_publish(60)
    until("what was sent", lambda: broker.taken(one.id))
    assert broker.taken(one.id) == [("journal", b"after")]


def test_a_takeover_ends_the_older_connection_with_its_reason(broker, box):
    one = box()
    one.connect()
    again = box(id=one.id)
    assert again.connect()[0] == 0
    reason = until("the end", lambda: one.gone)[0]
    # Debian's mosquitto says nothing.
    assert reason == 0x8E if broker.name == "edge" else reason in (None, 0x8E)
    again.client.publish(again.up(), b"here", qos=1).wait_for_publish(60)


def test_pings_keep_a_connection(box):
    one = box()
    one.connect(keepalive=1)
    until("three pings", lambda: len(one.pings) >= 3)
    assert one.gone == []


def test_properties_of_a_message_are_taken(box, broker):
    one = box()
    one.connect()
    properties = Properties(PacketTypes.PUBLISH)
    properties.UserProperty = [("a", "1"), ("a", "2")]
    properties.PayloadFormatIndicator = 1
    properties.MessageExpiryInterval = 60
    properties.ContentType = "text/plain"
    properties.ResponseTopic = one.dn("ack")
    properties.CorrelationData = b"17"
    one.client.publish(one.up(), b"with properties", qos=1, properties=properties).wait_for_publish(60)
    until("it", lambda: broker.taken(one.id) == [("journal", b"with properties")])


def test_a_window_of_one_is_kept(box):
    one = box()
    properties = Properties(PacketTypes.CONNECT)
    properties.ReceiveMaximum = 1
    one.connect(properties=properties)
    one.subscribe(one.dn())
    for number in range(50):
        one.client.publish(one.up(), f"{number}", qos=1)
    until("all answers", lambda: len(one.got) == 50)
    assert [int(m.payload) for m in one.got] == list(range(50))


def test_a_keep_alive_that_is_too_long_is_replaced(broker, box):
    ours_only(broker)
    _, properties = box().connect(keepalive=65_000)
    assert properties.ServerKeepAlive == 300


def test_no_certificate_no_connection(broker, papers):
    context = ssl.create_default_context(cafile=papers[0] / "root.pem")
    with socket.create_connection(("127.0.0.1", broker.port), timeout=60) as tcp:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            with context.wrap_socket(tcp, server_hostname="localhost") as stream:
                stream.sendall(b"\x10")
                if stream.recv(1) == b"":
                    raise ConnectionError


def test_a_name_that_is_not_the_certificates_is_refused(broker, box):
    ours_only(broker)
    reason, _ = box(client_id="B99999999999").connect()
    assert reason == 0x85


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ({"retain": True}, 0x9A),
        ({"qos": 2}, 0x9B),
        ({"alias": 1}, 0x94),
        ({"payload": b"x" * 300_000}, 0x95),
        ({"topic": "fleet/v1/B00000000000/up/journal"}, 0x87),
        ({"topic": "elsewhere"}, 0x87),
    ],
    ids=["retained", "qos-2", "topic-alias", "too-large", "anothers-topic", "no-topic-of-ours"],
)
def test_what_is_not_offered_ends_the_connection_with_its_reason(broker, box, what, reason):
    ours_only(broker)
    one = box()
    one.connect()
    properties = Properties(PacketTypes.PUBLISH)
    if "alias" in what:
        properties.TopicAlias = what["alias"]
    one.client.publish(
        what.get("topic", one.up()), what.get("payload", b"x"), qos=what.get("qos", 0), retain=what.get("retain", False), properties=properties
    )
    assert until("DISCONNECT", lambda: one.gone)[0] == reason


def test_filters_beyond_a_boxs_own_are_refused_one_by_one(broker, box):
    ours_only(broker)
    one = box()
    one.connect()
    own, shared = one.dn(), f"$share/group/{one.dn()}"
    assert one.subscribe(own, "#", "fleet/v1/+/dn/#", one.up(), shared, "$SYS/#") == [1, 0x87, 0x87, 0x87, 0x9E, 0x87]
    # More than is offered is granted as what is offered.
    assert one.subscribe(own, qos=2) == [1]
