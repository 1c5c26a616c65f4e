//! Boxes with keys in software that speak the real protocol, and come back when they are cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use longhaul_protocol::envelope::{self, Envelope, Message};
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::journal::{Fact, JournalAck, JournalBatch, JournalEntry};
use longhaul_protocol::presence::{Birth, Death, Presence};
use longhaul_protocol::topic::{Channel, Dn, Topic, Up, dn_filter};
use longhaul_protocol::value::UnixMillis;
use longhaul_provisioning::ca::Pki;
use rcgen::{KeyPair, PublicKeyData as _};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;

use crate::system::now;

/// Entries in one batch.
const BATCH: u64 = 5;
/// A batch that is not acknowledged is sent again after this.
const AGAIN: Duration = Duration::from_secs(1);

static SESSIONS: AtomicU64 = AtomicU64::new(1);

#[derive(Clone)]
pub struct LightBox {
    pub id: BoxId,
    tls: Arc<rustls::ClientConfig>,
    pub chain: Vec<CertificateDer<'static>>,
    pub key: Arc<KeyPair>,
}

fn roots(pki: &Pki) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(pki.root().clone()).expect("a root");
    roots
}

fn builder() -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
}

/// A client of the people's port.
pub fn https(pki: &Pki) -> reqwest::Client {
    let tls = builder().with_root_certificates(roots(pki));
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.with_no_client_auth())
        .timeout(crate::PATIENCE)
        .build()
        .expect("a client")
}

impl LightBox {
    pub fn new(pki: &Pki, id: BoxId) -> Self {
        let key = KeyPair::generate().expect("a key");
        let spki = key.subject_public_key_info();
        let chain = pki.issue_ldevid(&id, &spki, 3600, now()).expect("issued");
        let der = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let tls = builder()
            .with_root_certificates(roots(pki))
            .with_client_auth_cert(chain.clone(), der)
            .expect("a client");
        Self {
            id,
            tls: Arc::new(tls),
            chain,
            key: Arc::new(key),
        }
    }

    /// A session at an edge: subscribed, and its birth sent.
    pub async fn connect(&self, port: u16) -> Option<Session> {
        let name = format!("s-{}", SESSIONS.fetch_add(1, Ordering::Relaxed));
        let mut options = MqttOptions::new(self.id.as_str(), "localhost", port);
        let tls = TlsConfiguration::Rustls(Arc::clone(&self.tls));
        options.set_transport(Transport::Tls(tls));
        options.set_clean_start(true);
        options.set_keep_alive(Duration::from_secs(5));
        let death = Presence::Death(Death {
            session: name.parse().expect("a session id"),
            reason: None,
        });
        let topic = Topic::up(self.id.clone(), Up::Presence).to_string();
        let will = encoded(&death);
        options.set_last_will(LastWill::new(topic, will, QoS::AtLeastOnce, false, None));
        let (client, events) = AsyncClient::new(options, 64);
        let mut session = Session {
            id: self.id.clone(),
            client,
            events,
        };
        let filter = dn_filter(&self.id);
        let asked = session.client.subscribe(filter, QoS::AtLeastOnce).await;
        asked.expect("queued");
        let subscribed = async {
            loop {
                match session.events.poll().await {
                    Ok(Event::Incoming(Packet::SubAck(_))) => return true,
                    Ok(_) => {}
                    Err(_) => return false,
                }
            }
        };
        let limit = Duration::from_secs(10);
        if !matches!(tokio::time::timeout(limit, subscribed).await, Ok(true)) {
            return None;
        }
        let birth = Presence::Birth(Birth {
            session: name.parse().expect("a session id"),
            boot: "boot-1".parse().expect("a boot id"),
            epoch: "epoch-1".parse().expect("an epoch"),
            agent_version: "1.0.0".to_owned(),
            os_version: None,
            capabilities: vec![],
            desired_version: 0,
            certificate_expires: UnixMillis(0),
            lan_urls: vec![],
            rungs: vec![],
        });
        session.send(Up::Presence, &birth).await;
        // Nothing leaves unless somebody asks for what comes.
        let taken = async {
            loop {
                match session.events.poll().await {
                    Ok(Event::Incoming(Packet::PubAck(_))) => return true,
                    Ok(_) => {}
                    Err(_) => return false,
                }
            }
        };
        let taken = tokio::time::timeout(limit, taken).await;
        matches!(taken, Ok(true)).then_some(session)
    }
}

fn encoded<T: Message>(body: &T) -> Vec<u8> {
    envelope::encode(body, now()).expect("encoded")
}

pub struct Session {
    id: BoxId,
    client: AsyncClient,
    events: EventLoop,
}

impl Session {
    pub async fn send<T: Message>(&mut self, channel: Up, body: &T) {
        let topic = Topic::up(self.id.clone(), channel).to_string();
        let sent = self
            .client
            .publish(topic, QoS::AtLeastOnce, false, encoded(body));
        sent.await.expect("queued");
    }

    /// The next message of the cloud; `None` once the connection has ended.
    pub async fn next(&mut self) -> Option<(Dn, Vec<u8>)> {
        loop {
            match self.events.poll().await {
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let topic = std::str::from_utf8(&publish.topic).expect("UTF-8");
                    let topic: Topic = topic.parse().expect("a topic");
                    let Channel::Dn(channel) = topic.channel else {
                        panic!("the cloud publishes downwards only");
                    };
                    return Some((channel, publish.payload.to_vec()));
                }
                Ok(Event::Incoming(Packet::Disconnect(_))) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Waits until the cloud ends the connection.
    pub async fn until_ended(mut self) -> Duration {
        let begun = Instant::now();
        let ended = async { while self.next().await.is_some() {} };
        let in_time = tokio::time::timeout(crate::PATIENCE, ended).await;
        in_time.expect("the connection ends");
        begun.elapsed()
    }
}

/// A box that writes its journal to the cloud for as long as it is left to.
#[derive(Clone)]
pub struct Hauler {
    pub of: LightBox,
    pub acked: Arc<AtomicU64>,
}

impl Hauler {
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Acquire)
    }

    /// Connects to any of the edges, again and again; sends one batch after the other.
    pub async fn haul(self, ports: Vec<u16>, stop: CancellationToken) {
        let running = async {
            for turn in 0_usize.. {
                let port = ports[turn % ports.len()];
                if let Some(session) = self.of.connect(port).await {
                    self.session(session).await;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        stop.run_until_cancelled(running).await;
    }

    async fn session(&self, mut session: Session) {
        loop {
            let first = self.acked() + 1;
            let entries = (first..first + BATCH).map(|number| JournalEntry {
                number,
                at: now(),
                fact: Fact::Failure {
                    part: "test".to_owned(),
                    text: format!("entry {number}"),
                },
            });
            let batch = JournalBatch {
                epoch: "epoch-1".parse().expect("an epoch"),
                entries: entries.collect(),
            };
            session.send(Up::Journal, &batch).await;
            let sent = Instant::now();
            while self.acked() < first {
                let left = AGAIN.saturating_sub(sent.elapsed());
                match tokio::time::timeout(left, session.next()).await {
                    Ok(Some((Dn::Ack, bytes))) => {
                        let ack: Envelope<JournalAck> = envelope::decode(&bytes).expect("decoded");
                        self.acked.fetch_max(ack.body.through, Ordering::AcqRel);
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => return,
                    Err(_) => break,
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
