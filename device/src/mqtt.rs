//! One MQTT session: connected, subscribed, and gone at the first error. When to try again is the
//! agent's to decide.

use std::sync::Arc;
use std::time::Duration;

use longhaul_protocol::ids::{BoxId, SessionId};
use longhaul_protocol::inventory::CloudEndpoint;
use longhaul_protocol::topic::{Channel, Topic, Up, dn_filter};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, Publish, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ConnectionError, Event as Mqtt, EventLoop, MqttOptions};
use rumqttc::{Outgoing, TlsConfiguration, Transport};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::agent::Event;
use crate::cloud::chain;
use crate::proxy::Proxy;

/// Messages that wait for the network at the most.
const QUEUE: usize = 64;
/// The longest packet that the box takes, in bytes: the largest message, its topic, some room.
const MAX_PACKET: u32 = 128 * 1024;

/// What a session needs.
pub struct Params {
    pub box_id: BoxId,
    pub session: SessionId,
    pub endpoint: CloudEndpoint,
    pub tls: Arc<rustls::ClientConfig>,
    /// TCP port of the endpoint: the broker's own, or the one that it shares with HTTPS.
    pub port: u16,
    pub proxy: Option<Proxy>,
    /// Longest silence before a ping.
    pub keep_alive: Duration,
    /// A connection that takes longer to make has failed.
    pub connect_limit: Duration,
    /// The encoded will.
    pub will: Vec<u8>,
}

/// A session that is being made or is up.
pub struct Session {
    box_id: BoxId,
    client: AsyncClient,
    task: JoinHandle<()>,
}

impl Session {
    /// Begins to connect. `events` hears of the subscription's acceptance, of every message, and
    /// of the end, unless it was asked for.
    pub fn open(params: Params, events: mpsc::Sender<Event>) -> Self {
        let Params {
            box_id,
            session,
            endpoint,
            tls,
            port,
            proxy,
            keep_alive,
            connect_limit,
            will,
        } = params;
        let mut options = MqttOptions::new(box_id.as_str(), endpoint.host, port);
        let presence = Topic::up(box_id.clone(), Up::Presence).to_string();
        options
            .set_transport(Transport::Tls(TlsConfiguration::Rustls(tls)))
            .set_keep_alive(keep_alive)
            .set_connection_timeout(connect_limit.as_secs())
            .set_clean_start(true)
            .set_max_packet_size(Some(MAX_PACKET))
            .set_last_will(LastWill::new(presence, will, QoS::AtLeastOnce, false, None));
        if let Some(proxy) = proxy {
            options.set_proxy(rumqttc::Proxy {
                ty: rumqttc::ProxyType::Http,
                auth: match proxy.login {
                    Some((username, password)) => rumqttc::ProxyAuth::Basic { username, password },
                    None => rumqttc::ProxyAuth::None,
                },
                addr: proxy.host,
                port: proxy.port,
            });
        }
        let (client, event_loop) = AsyncClient::new(options, QUEUE);
        let runner = Runner {
            box_id: box_id.clone(),
            session,
            client: client.clone(),
            event_loop,
            events,
        };
        Self {
            box_id,
            client,
            task: tokio::spawn(runner.run()),
        }
    }

    /// Hands a message to the session; false where it cannot take one. What must not be lost is in
    /// the journal.
    pub fn publish(&self, channel: Up, payload: Vec<u8>) -> bool {
        let quality = match channel {
            Up::Telemetry | Up::Log => QoS::AtMostOnce,
            Up::Presence | Up::Journal | Up::Reported | Up::Command => QoS::AtLeastOnce,
        };
        let topic = Topic::up(self.box_id.clone(), channel).to_string();
        self.client
            .try_publish(topic, quality, false, payload)
            .inspect_err(|error| tracing::warn!(?channel, %error, "message dropped"))
            .is_ok()
    }

    /// Says goodbye after what was published, and waits for it no longer than `grace`.
    pub async fn close(mut self, grace: Duration) {
        let asked = self.client.try_disconnect().is_ok();
        if !asked || tokio::time::timeout(grace, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Runner {
    box_id: BoxId,
    session: SessionId,
    client: AsyncClient,
    event_loop: EventLoop,
    events: mpsc::Sender<Event>,
}

/// Why a session's loop ends.
enum End {
    /// The agent asked for it, or is gone.
    Asked,
    Failed {
        refused: bool,
        evidence: String,
    },
}

impl Runner {
    async fn run(mut self) {
        let end = loop {
            let event = match self.event_loop.poll().await {
                Ok(Mqtt::Outgoing(Outgoing::Disconnect)) => break End::Asked,
                Ok(Mqtt::Outgoing(_)) => continue,
                Ok(Mqtt::Incoming(packet)) => self.incoming(packet),
                Err(error) => break failed(&error),
            };
            match event {
                Ok(Some(event)) => {
                    if self.events.send(event).await.is_err() {
                        break End::Asked;
                    }
                }
                Ok(None) => {}
                Err(end) => break end,
            }
        };
        if let End::Failed { refused, evidence } = end {
            let event = Event::SessionDown {
                session: self.session,
                refused,
                evidence,
            };
            // Only fails where the agent is gone, too.
            let _ = self.events.send(event).await;
        }
    }

    fn incoming(&self, packet: Packet) -> Result<Option<Event>, End> {
        match packet {
            Packet::ConnAck(_) => {
                // First the subscription: the cloud answers a birth with all that is open.
                let filter = dn_filter(&self.box_id);
                self.client
                    .try_subscribe(filter, QoS::AtLeastOnce)
                    .map_err(|e| End::Failed {
                        refused: false,
                        evidence: e.to_string(),
                    })?;
                Ok(None)
            }
            Packet::SubAck(ack) => match ack.return_codes.first() {
                Some(SubscribeReasonCode::Success(_)) => {
                    Ok(Some(Event::SessionUp(self.session.clone())))
                }
                other => Err(End::Failed {
                    refused: true,
                    evidence: format!("subscription refused: {other:?}"),
                }),
            },
            Packet::Publish(publish) => Ok(self.message(&publish)),
            Packet::Disconnect(disconnect) => Err(End::Failed {
                refused: false,
                evidence: format!("the broker ended the session: {:?}", disconnect.reason_code),
            }),
            _ => Ok(None),
        }
    }

    fn message(&self, publish: &Publish) -> Option<Event> {
        let topic = std::str::from_utf8(&publish.topic).ok()?;
        match topic.parse::<Topic>() {
            Ok(Topic {
                box_id,
                channel: Channel::Dn(channel),
            }) if box_id == self.box_id => Some(Event::Message {
                channel,
                payload: publish.payload.to_vec(),
            }),
            _ => {
                tracing::warn!(topic, "message on a topic that is not this box's");
                None
            }
        }
    }
}

fn failed(error: &ConnectionError) -> End {
    let evidence = chain(error);
    let refused = match error {
        ConnectionError::ConnectionRefused(_) => true,
        // A server that refuses a client's certificate says so in a TLS alert.
        ConnectionError::Io(_) | ConnectionError::Tls(_) | ConnectionError::MqttState(_) => {
            evidence.contains("received fatal alert")
        }
        _ => false,
    };
    End::Failed { refused, evidence }
}
