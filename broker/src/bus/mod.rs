//! A process's connection to a NATS cluster that stands between edges and the rest of the cloud.
//!
//! It holds no truth, and a publish that it took is not delivery: whatever is lost here comes
//! again, from a box's journal or from the database (`docs/adr/0018`). What is refused or dropped
//! is counted and said.

mod events;
mod incoming;

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, ServerAddr};
use bytes::Bytes;
use futures::StreamExt as _;
use longhaul_protocol::backbone::{self as wire, Call, Down};
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::topic::Dn;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::{mpsc, watch};

use crate::backbone::BackboneError;
pub use events::BusStats;
use events::Watched;
pub use incoming::Inflow;

/// Messages that wait to be written; more are dropped, and come again.
const WAITING: usize = 16 * 1024;
/// Messages of one subscription that wait to be taken; more are dropped by the client, which says so.
pub(crate) const SUBSCRIPTION: usize = 8 * 1024;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A server that is silent for two of these is left for another.
const PING: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const FLUSH_LIMIT: Duration = Duration::from_secs(3);

/// How to reach the cluster, and as whom.
pub struct BusConfig {
    /// `nats://host:port` of each server.
    pub servers: Vec<String>,
    /// The role's certificate chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// Whose certificates servers must have.
    pub roots: Vec<CertificateDer<'static>>,
    /// What the servers call this connection in their logs; no two processes should have one name.
    pub name: String,
}

/// Why the cluster cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// An address is none.
    #[error("not the address of a NATS server: {0:?}; an example: nats://nats-1.example.com:4222")]
    Address(String),
    /// The certificates cannot be used.
    #[error("the backbone's certificates cannot be used")]
    Tls(#[from] rustls::Error),
    /// No server let this process in.
    #[error("no NATS server lets this process in")]
    Connect(#[from] async_nats::ConnectError),
    /// A subscription could not be made.
    #[error("failed to subscribe at the NATS cluster")]
    Subscribe(#[from] async_nats::SubscribeError),
    /// No server answered in time.
    #[error("the NATS cluster does not answer")]
    Silent,
}

/// A connection to the cluster; clones are the same one.
#[derive(Clone, Debug)]
pub struct Bus {
    client: Client,
    out: mpsc::Sender<(String, Bytes)>,
    watched: Arc<Watched>,
}

impl Bus {
    /// Connects; a refused log-in is an error, not a reason to try for ever.
    ///
    /// # Errors
    ///
    /// [`BusError`] says what is wrong.
    pub async fn connect(config: BusConfig) -> Result<Self, BusError> {
        let mut servers = Vec::with_capacity(config.servers.len());
        for server in &config.servers {
            let parsed = server.parse::<ServerAddr>();
            servers.push(parsed.map_err(|_| BusError::Address(server.clone()))?);
        }
        let watched = Arc::new(Watched::default());
        let seen = Arc::clone(&watched);
        let client = ConnectOptions::new()
            .tls_client_config(tls(config.chain, config.key, config.roots)?)
            .require_tls(true)
            .name(&config.name)
            .custom_inbox_prefix(format!("_INBOX.{}", config.name))
            // A server that is not on the list has no name to check its certificate by.
            .ignore_discovered_servers()
            .connection_timeout(CONNECT_LIMIT)
            .ping_interval(PING)
            .subscription_capacity(SUBSCRIPTION)
            .reconnect_delay_callback(|attempts| {
                let doubled = 20 << u32::try_from(attempts.min(10)).unwrap_or(10);
                Duration::from_millis(doubled).min(LONGEST_PAUSE)
            })
            .event_callback(move |event| {
                let seen = Arc::clone(&seen);
                async move { seen.take(&event) }
            })
            .connect(servers)
            .await?;
        let (out, waiting) = mpsc::channel(WAITING);
        tokio::spawn(write(client.clone(), waiting, Arc::clone(&watched)));
        Ok(Self {
            client,
            out,
            watched,
        })
    }

    /// Waits until something is wrong that no reconnect mends, such as a missing permission.
    pub async fn failed(&self) -> BackboneError {
        self.watched.failed().await
    }

    /// What went wrong so far.
    pub fn stats(&self) -> BusStats {
        self.watched.stats()
    }

    /// Sends a message to a box, wherever it is connected. It may be lost.
    pub fn forward(&self, box_id: &BoxId, channel: Dn, payload: &[u8]) {
        let frame = Down::Forward(channel, payload).frame();
        self.post(wire::dn_subject(box_id), frame);
    }

    /// Asks the edge that holds a box to look into the database. It may be lost.
    pub fn call(&self, box_id: &BoxId, call: Call) {
        self.post(wire::dn_subject(box_id), Down::Call(call).frame());
    }

    /// Tells every process that boxes were put into another state. It may be lost.
    pub fn tell_states(&self) {
        self.post(wire::STATES.to_owned(), Vec::new());
    }

    /// Tells every process's live views. It may be lost.
    pub fn tell_event(&self, event: Vec<u8>) {
        self.post(wire::EVENTS.to_owned(), event);
    }

    /// Rings at each [`Bus::tell_states`] of any process.
    ///
    /// # Errors
    ///
    /// [`BusError`] if it cannot be subscribed.
    pub async fn states(&self) -> Result<watch::Receiver<u64>, BusError> {
        let mut rings = self.subscribe(wire::STATES).await?;
        let (count, seen) = watch::channel(0);
        tokio::spawn(async move {
            while rings.next().await.is_some() {
                count.send_modify(|n| *n += 1);
                if count.is_closed() {
                    return;
                }
            }
        });
        Ok(seen)
    }

    /// What other processes, and this one, told by [`Bus::tell_event`].
    ///
    /// # Errors
    ///
    /// [`BusError`] if it cannot be subscribed.
    pub async fn events(&self) -> Result<impl futures::Stream<Item = Bytes> + use<>, BusError> {
        let events = self.subscribe(wire::EVENTS).await?;
        Ok(events.map(|message| message.payload))
    }

    /// Subscribes, and waits until the server has heard of it.
    pub(crate) async fn subscribe(
        &self,
        subject: &str,
    ) -> Result<async_nats::Subscriber, BusError> {
        let made = self.client.subscribe(subject.to_owned()).await?;
        self.flush().await?;
        Ok(made)
    }

    pub(crate) async fn flush(&self) -> Result<(), BusError> {
        match tokio::time::timeout(FLUSH_LIMIT, self.client.flush()).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(BusError::Silent),
        }
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn watched(&self) -> &Watched {
        &self.watched
    }

    pub(crate) fn post(&self, subject: String, payload: Vec<u8>) {
        if self.out.try_send((subject, payload.into())).is_err() {
            self.watched.dropped();
        }
    }
}

async fn write(
    client: Client,
    mut waiting: mpsc::Receiver<(String, Bytes)>,
    watched: Arc<Watched>,
) {
    while let Some((subject, payload)) = waiting.recv().await {
        if client.publish(subject, payload).await.is_err() {
            watched.dropped();
        }
    }
}

fn tls(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Vec<CertificateDer<'static>>,
) -> Result<ClientConfig, BusError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(store)
        .with_client_auth_cert(chain, key)?)
}
