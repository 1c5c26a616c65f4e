"""Two brokers for an independent client: our edge, and mosquitto with the same certificates.

Both answer each message on `fleet/v1/BOX/up/..` with the same payload on `fleet/v1/BOX/dn/ack`, or `../dn/command` where it came on `../up/command`: the
edge by the program behind it, mosquitto by a client that has no certificate and sees everything.
"""

import base64
import json
import os
import pathlib
import socket
import ssl
import subprocess
import time

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

PATIENCE = 60
BOXES = 40


def until(what, condition):
    """Waits for a condition, never for a time."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {PATIENCE} s for {what}")


def start(arguments):
    # It ends with this process, however that ends.
    return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *map(str, arguments)])


class Edge:
    name = "edge"

    def __init__(self, folder):
        self.folder = folder
        program = os.environ["LONGHAUL_INTEROP_EDGE"]
        self.process = start([program, "--folder", folder, "--boxes", BOXES, "--now", int(time.time())])
        until("the edge to listen", (folder / "ready.json").exists)
        self.port = json.loads((folder / "ready.json").read_text())["port"]

    def taken(self, box):
        lines = (self.folder / "taken.jsonl").read_text().splitlines(keepends=True)
        # The last one may be half written.
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [(one["channel"], base64.b64decode(one["payload"])) for one in found if one["box"] == box]

    def end(self):
        self.process.kill()
        self.process.wait()


class Mosquitto:
    name = "mosquitto"

    def __init__(self, folder, papers):
        self.port, tap = free_port(), free_port()
        (folder / "mosquitto.conf").write_text(
            f"user root\npersistence false\nallow_anonymous true\nlistener {self.port} 127.0.0.1\ncafile {papers}/root.pem\n"
            f"certfile {papers}/server.pem\nkeyfile {papers}/server.pem\nrequire_certificate true\ntls_version tlsv1.3\n"
            f"log_type error\nlistener {tap} 127.0.0.1\n"
        )
        self.process = start(["/usr/sbin/mosquitto", "-c", folder / "mosquitto.conf"])
        self.seen = []
        self.tap = paho.Client(CallbackAPIVersion.VERSION2, "tap", protocol=paho.MQTTv5)
        self.tap.on_connect = lambda client, *_: client.subscribe("fleet/v1/+/up/#", 1)
        self.tap.on_message = self.answer
        subscribed = []
        self.tap.on_subscribe = lambda *_: subscribed.append(True)

        def connected():
            try:
                return self.tap.connect("127.0.0.1", tap) == 0
            except OSError:
                return False

        until("mosquitto to listen", connected)
        self.tap.loop_start()
        until("the tap to be open", lambda: subscribed)

    def answer(self, client, _, message):
        _, _, box, _, channel = message.topic.split("/", 4)
        self.seen.append((box, channel, message.payload))
        channel = "command" if channel == "command" else "ack"
        client.publish(f"fleet/v1/{box}/dn/{channel}", message.payload, qos=1)

    def taken(self, box):
        return [(channel, payload) for of, channel, payload in list(self.seen) if of == box]

    def end(self):
        self.tap.loop_stop()
        self.process.kill()
        self.process.wait()


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture(scope="session")
def papers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edge")
    edge = Edge(folder)
    yield folder, edge
    edge.end()


@pytest.fixture(scope="session", params=["edge", "mosquitto"])
def broker(request, papers, tmp_path_factory):
    folder, edge = papers
    if request.param == "edge":
        yield edge
        return
    other = Mosquitto(tmp_path_factory.mktemp("mosquitto"), folder)
    yield other
    other.end()


class Client(paho.Client):
    """Reads the reason of a DISCONNECT also where nothing follows it, which MQTT 5 allows (3.14.2.2.1) and paho 2.1 takes for no reason."""

    said = None

    def _handle_disconnect(self):
        body = bytes(self._in_packet["packet"])
        self.said = body[0] if body else 0
        super()._handle_disconnect()


class Box:
    """A box as paho sees it, with what came back."""

    def __init__(self, broker, folder, id, client_id=None, certificate=True, **options):
        self.id, self.broker = id, broker
        self.got, self.connacks, self.gone, self.granted, self.dropped, self.pings = [], [], [], [], [], []
        self.client = Client(CallbackAPIVersion.VERSION2, client_id or id, protocol=paho.MQTTv5, reconnect_on_failure=False)
        context = ssl.create_default_context(cafile=folder / "root.pem")
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if certificate:
            context.load_cert_chain(folder / f"{id}.pem")
        self.client.tls_set_context(context)
        self.client.max_inflight_messages_set(1000)
        self.client.on_connect = lambda _c, _u, _f, reason, properties: self.connacks.append((reason.value, properties))
        self.client.on_message = lambda _c, _u, message: self.got.append(message)
        # The reason that was said, or none: the connection just ended.
        self.client.on_disconnect = lambda client, *_: self.gone.append(client.said)
        self.client.on_subscribe = lambda _c, _u, _m, reasons, _p: self.granted.append([r.value for r in reasons])
        self.client.on_unsubscribe = lambda _c, _u, _m, reasons, _p: self.dropped.append([r.value for r in reasons])
        self.client.on_log = lambda _c, _u, _l, text: self.pings.append(text) if "PINGRESP" in text else None
        self.options = options

    def up(self, channel="journal"):
        return f"fleet/v1/{self.id}/up/{channel}"

    def dn(self, channel="#"):
        return f"fleet/v1/{self.id}/dn/{channel}"

    def connect(self, keepalive=60, **options):
        self.client.connect("localhost", self.broker.port, keepalive=keepalive, **options)
        self.client.loop_start()
        return until("CONNACK", lambda: self.connacks)[0]

    def subscribe(self, *filters, qos=1):
        count = len(self.granted)
        self.client.subscribe([(filter, paho.SubscribeOptions(qos=qos)) for filter in filters])
        return until("SUBACK", lambda: self.granted[count:])[0]

    def cut(self):
        """The connection ends without a word."""
        self.client.loop_stop()
        self.client.socket().unwrap = None
        self.client.socket().close()

    def end(self):
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def box(broker, papers, request):
    made = []
    # Each test has boxes of its own: what one leaves behind is nobody's.
    numbers = request.config.stash.setdefault(NUMBERS, iter(range(BOXES)))

    def make(**options):
        id = options.pop("id", None) or f"B{next(numbers):011}"
        made.append(Box(broker, papers[0], id, **options))
        return made[-1]

    yield make
    for one in made:
        one.end()


NUMBERS = pytest.StashKey()
