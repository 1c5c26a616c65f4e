//! The bench: a cloud on free ports in its own folder, and boxes whose certificates come from its
//! authorities.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use longhaul_fleet_api::clock::Clock;
use longhaul_fleet_api::cloud::Cloud;
use longhaul_fleet_api::config::Settings;
use longhaul_fleet_api::fleet::{Actor, Fleet};
use longhaul_fleet_api::store::boxes::{BoxState, box_set_state};
use longhaul_protocol::envelope::{self, Envelope, Message, VERSION};
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::inventory::InventoryRecord;
use longhaul_protocol::presence::{Birth, Death, Presence};
use longhaul_protocol::topic::{Dn, Topic, Up, dn_filter};
use longhaul_protocol::twin::{Desired, SignedDesired};
use longhaul_protocol::value::{Blob, Digest32, UnixMillis};
use longhaul_provisioning::ca::Pki;
use longhaul_provisioning::jws::{self, Kind, Signer};
use rcgen::KeyPair;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything on this machine may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn operator() -> Actor {
    Actor("tester".to_owned())
}

/// What travels with every object.
pub fn headers() -> BTreeMap<String, String> {
    let headers = [
        ("cache-control", "max-age=60"),
        ("content-disposition", "attachment; filename=\"a b.txt\""),
        ("content-encoding", "identity"),
        ("content-language", "nb"),
        ("expires", EXPIRES),
    ];
    let owned = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    owned.into()
}

/// When every object expires.
const EXPIRES: &str = "Wed, 21 Oct 2026 07:28:00 GMT";

/// Checks that the bucket keeps [`headers`] with an object.
pub async fn check_headers(bench: &Bench, key: &str) {
    let s3 = crate::objects::client(bench, None);
    let head = s3.head_object().bucket("haul").key(key).send().await;
    let head = head.expect("an object");
    let found = [
        ("cache-control", head.cache_control),
        ("content-disposition", head.content_disposition),
        ("content-encoding", head.content_encoding),
        ("content-language", head.content_language),
        ("expires", head.expires_string),
    ];
    let found: BTreeMap<String, String> = found
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect();
    assert_eq!(found, headers(), "{key}");
    assert_eq!(head.content_type.as_deref(), Some("text/plain"));
    assert_eq!(head.metadata.expect("metadata")["camera"], "seven");
}

/// A running cloud.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub fleet: Fleet,
    pub mqtt_port: u16,
    pub boxes_port: u16,
    pub people_port: u16,
    pub s3_port: u16,
    stop: CancellationToken,
    running: JoinHandle<Result<(), longhaul_fleet_api::cloud::CloudError>>,
}

impl Bench {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory")).await
    }

    pub async fn start_in(dir: tempfile::TempDir) -> Self {
        Self::start_so(dir, |_| ()).await
    }

    /// With these settings beside the usual ones.
    pub async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_so(tempfile::tempdir().expect("a directory"), change).await
    }

    async fn start_so(dir: tempfile::TempDir, change: impl FnOnce(&mut Settings)) -> Self {
        let free = || Some("127.0.0.1:0".parse().expect("an address"));
        let mut settings = Settings {
            data: Some(dir.path().to_owned()),
            listen_people: free(),
            listen_boxes: free(),
            listen_mqtt: free(),
            listen_s3: free(),
            ..Settings::default()
        };
        change(&mut settings);
        let config = settings.complete().expect("a configuration");
        let cloud = Cloud::start(config, Clock::System).await.expect("a cloud");
        let (fleet, addresses) = (cloud.fleet().clone(), cloud.addresses());
        let stop = CancellationToken::new();
        let running = tokio::spawn(cloud.run_until(stop.clone()));
        Self {
            dir,
            fleet,
            mqtt_port: addresses.mqtt.expect("an edge").port(),
            boxes_port: addresses.boxes.expect("a port").port(),
            people_port: addresses.people.expect("a port").port(),
            s3_port: addresses.s3.map_or(0, |address| address.port()),
            stop,
            running,
        }
    }

    /// Stops the cloud in good order and keeps its folder.
    pub async fn stop(self) -> tempfile::TempDir {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.running).await;
        ended
            .expect("in time")
            .expect("no panic")
            .expect("good order");
        self.dir
    }

    pub fn pki(&self) -> Pki {
        Pki::open(&self.dir.path().join("pki")).expect("authorities")
    }

    /// A box in the inventory that has not enrolled.
    pub async fn make(&self, number: u8) -> TestBox {
        let now = self.fleet.now();
        let ek = Digest32([number; 32]);
        let id = BoxId::from_ek_sha256(&ek.0);
        let record = InventoryRecord {
            v: VERSION,
            box_id: id.clone(),
            ek_sha256: ek,
            ek_certificate: Blob(vec![1]),
            iak_name: Blob(vec![2]),
            iak_public: Blob(vec![3]),
            idevid_certificate: Blob(vec![4]),
            expected_pcrs: [(7, Digest32([0; 32]))].into(),
            claim_code_sha256: Digest32([0; 32]),
            hardware: "bench".to_owned(),
            order: None,
            made_at: now,
        };
        let pki = self.pki();
        let factory = pki.issue_record_signer("bench", now).expect("a signer");
        let payload = serde_json::to_vec(&record).expect("JSON");
        let signer = Signer::new(&factory).expect("a signer");
        let record = signer.sign(Kind::Inventory, &payload).expect("signed");
        let imported = self.fleet.inventory_import(&operator(), &record).await;
        assert_eq!(imported.expect("imported"), id);
        TestBox::new(&pki, id, now)
    }

    /// A box as it is after it has enrolled.
    pub async fn enrolled(&self, number: u8) -> TestBox {
        let made = self.make(number).await;
        self.set_state(&made.id, BoxState::Active).await;
        made
    }

    /// Puts a box into a state, as enrolment does.
    pub async fn set_state(&self, id: &BoxId, state: BoxState) {
        let mut tx = self.fleet.db().write().await.expect("a transaction");
        let now = self.fleet.now().0;
        box_set_state(&mut tx, id, state, now).await.expect("set");
        tx.commit().await.expect("committed");
        self.fleet.admitted().set(id, state);
    }

    pub async fn connect(&self, of: &TestBox, session: &str) -> Session {
        Session::open(self, of, session).await
    }

    pub fn https(&self, chain: &[CertificateDer<'static>], key: &KeyPair) -> reqwest::Client {
        reqwest::Client::builder()
            .tls_backend_preconfigured(client_config(&self.pki(), chain, key))
            .timeout(PATIENCE)
            .build()
            .expect("a client")
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.boxes_port)
    }
}

/// A box with keys in software.
pub struct TestBox {
    pub id: BoxId,
    pub key: KeyPair,
    pub idevid: Vec<CertificateDer<'static>>,
    pub ldevid: Vec<CertificateDer<'static>>,
}

impl TestBox {
    fn new(pki: &Pki, id: BoxId, now: UnixMillis) -> Self {
        let key = KeyPair::generate().expect("a key");
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
        Self {
            idevid: pki.issue_idevid(&id, &spki, now).expect("an IDevID"),
            ldevid: pki.issue_ldevid(&id, &spki, 3600, now).expect("an LDevID"),
            id,
            key,
        }
    }
}

fn client_config(
    pki: &Pki,
    chain: &[CertificateDer<'static>],
    key: &KeyPair,
) -> rustls::ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(pki.root().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.to_vec(), key)
        .expect("a client")
}

/// One MQTT session of a box.
pub struct Session {
    id: BoxId,
    name: String,
    client: AsyncClient,
    inbox: mpsc::UnboundedReceiver<(Dn, Vec<u8>)>,
    ended: JoinHandle<()>,
}

impl Session {
    async fn open(bench: &Bench, of: &TestBox, name: &str) -> Self {
        let mut options = MqttOptions::new(of.id.as_str(), "localhost", bench.mqtt_port);
        let tls = client_config(&bench.pki(), &of.ldevid, &of.key);
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls))));
        options.set_clean_start(true);
        options.set_keep_alive(Duration::from_secs(30));
        let death = Presence::Death(Death {
            session: name.parse().expect("a session id"),
            reason: None,
        });
        options.set_last_will(LastWill::new(
            Topic::up(of.id.clone(), Up::Presence).to_string(),
            envelope::encode(&death, UnixMillis(0)).expect("encoded"),
            QoS::AtLeastOnce,
            false,
            None,
        ));
        let (client, mut events) = AsyncClient::new(options, 64);
        client
            .subscribe(dn_filter(&of.id), QoS::AtLeastOnce)
            .await
            .expect("subscribed");
        let (send, inbox) = mpsc::unbounded_channel();
        let (subscribed, is_subscribed) = tokio::sync::oneshot::channel();
        let mut subscribed = Some(subscribed);
        let ended = tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                match event {
                    Event::Incoming(Packet::SubAck(_)) => {
                        if let Some(subscribed) = subscribed.take() {
                            let _ = subscribed.send(());
                        }
                    }
                    Event::Incoming(Packet::Publish(publish)) => {
                        let topic = std::str::from_utf8(&publish.topic).expect("UTF-8");
                        let topic: Topic = topic.parse().expect("a topic");
                        let longhaul_protocol::topic::Channel::Dn(channel) = topic.channel else {
                            panic!("the cloud publishes downwards only");
                        };
                        let _ = send.send((channel, publish.payload.to_vec()));
                    }
                    _ => {}
                }
            }
        });
        tokio::time::timeout(PATIENCE, is_subscribed)
            .await
            .expect("in time")
            .expect("subscribed");
        Self {
            id: of.id.clone(),
            name: name.to_owned(),
            client,
            inbox,
            ended,
        }
    }

    pub async fn birth(&self, desired_version: u64) {
        let birth = Presence::Birth(Birth {
            session: self.name.parse().expect("a session id"),
            boot: "boot-1".parse().expect("a boot id"),
            epoch: "epoch-1".parse().expect("an epoch"),
            agent_version: "1.0.0".to_owned(),
            os_version: None,
            capabilities: vec![],
            desired_version,
            certificate_expires: UnixMillis(0),
            lan_urls: vec!["https://192.168.1.5:9443".to_owned()],
            rungs: vec![],
        });
        self.send(Up::Presence, &birth).await;
    }

    pub async fn send<T: Message>(&self, channel: Up, body: &T) {
        let bytes = envelope::encode(body, UnixMillis(1_700_000_000_000)).expect("encoded");
        self.send_raw(channel, bytes).await;
    }

    pub async fn send_raw(&self, channel: Up, bytes: Vec<u8>) {
        let topic = Topic::up(self.id.clone(), channel).to_string();
        self.client
            .publish(topic, QoS::AtLeastOnce, false, bytes)
            .await
            .expect("published");
    }

    /// The next message on `channel`; others are passed over.
    /// The next desired state, its signature verified.
    pub async fn desired(&mut self, bench: &Bench) -> Desired {
        let signed: SignedDesired = self.next(Dn::Desired).await;
        let anchors = bench.pki().root_anchor().expect("anchors");
        let verified = jws::verify(&signed.jws, Kind::Desired, &anchors, bench.fleet.now());
        serde_json::from_slice(&verified.expect("verified").payload).expect("desired state")
    }

    pub async fn next<T: Message>(&mut self, channel: Dn) -> T {
        let wait = async {
            loop {
                let (got, bytes) = self.inbox.recv().await.expect("connected");
                if got == channel {
                    let Envelope { body, .. } = envelope::decode::<T>(&bytes).expect("decoded");
                    return body;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("in time")
    }

    /// Leaves without a word, as when the power fails.
    pub async fn cut(self) {
        self.ended.abort();
        let _ = self.ended.await;
    }

    /// Waits until the cloud ends the connection.
    pub async fn until_ended(self) {
        tokio::time::timeout(PATIENCE, self.ended)
            .await
            .expect("in time")
            .expect("no panic");
    }
}

/// Asks until the answer is yes.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let asking = async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, asking).await.is_ok(),
        "{what}"
    );
}
