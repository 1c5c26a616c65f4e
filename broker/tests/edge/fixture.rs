//! A running edge for one test.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use longhaul_broker::{Admission, Edge, EdgeConfig, Incoming, Refused};
use longhaul_protocol::ids::BoxId;
use rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, soon};
use crate::frames::Connect;
use crate::pki::Pki;

pub const ME: &str = "0123456789AB";
pub const OTHER: &str = "ZZZZZZZZZZZZ";

/// The cloud's list of revoked boxes; one box on which it trips over its own feet; and one that is
/// revoked at the very moment after it was asked for.
#[derive(Default)]
pub struct Guard {
    pub revoked: Mutex<HashSet<BoxId>>,
    pub panics_on: Mutex<Option<BoxId>>,
    pub revokes_next: Mutex<Option<BoxId>>,
}

impl Admission for Guard {
    fn admit(&self, box_id: &BoxId, cert_der: &[u8]) -> Result<(), Refused> {
        assert!(!cert_der.is_empty());
        let trips = self.panics_on.lock().expect("not poisoned").clone();
        assert_ne!(trips.as_ref(), Some(box_id), "a fault in the cloud's list");
        if self.revoked.lock().expect("not poisoned").contains(box_id) {
            return Err(Refused::Revoked);
        }
        let mut next = self.revokes_next.lock().expect("not poisoned");
        if next.as_ref() == Some(box_id) {
            let revoked = next.take();
            self.revoked.lock().expect("not poisoned").extend(revoked);
        }
        Ok(())
    }
}

pub struct Fixture {
    pub pki: Pki,
    pub edge: Edge,
    pub guard: Arc<Guard>,
    pub shutdown: CancellationToken,
    pub tls: Arc<Mutex<Arc<ServerConfig>>>,
}

pub fn many(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).expect("not zero")
}

pub fn box_id(text: &str) -> BoxId {
    text.parse().expect("a box id")
}

pub fn up(box_id: &str, channel: &str) -> String {
    format!("fleet/v1/{box_id}/up/{channel}")
}

pub fn dn(box_id: &str, channel: &str) -> String {
    format!("fleet/v1/{box_id}/dn/{channel}")
}

/// On loopback, without a limit on the rate: what a closed loop can do is not what a box should.
pub fn config() -> EdgeConfig {
    EdgeConfig {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        max_packets_per_second: many(1_000_000),
        packet_burst: many(1_000_000),
        max_bytes_per_second: many(1_000_000_000),
        byte_burst: many(1_000_000_000),
        ..EdgeConfig::default()
    }
}

impl Fixture {
    pub async fn start(config: EdgeConfig) -> (Self, Incoming) {
        let pki = Pki::new();
        let guard = Arc::new(Guard::default());
        let shutdown = CancellationToken::new();
        let tls = Arc::new(Mutex::new(pki.server()));
        let source = Arc::clone(&tls);
        let (edge, incoming) = Edge::start(
            config,
            move || Arc::clone(&source.lock().expect("not poisoned")),
            Arc::clone(&guard) as Arc<dyn Admission>,
            shutdown.clone(),
        )
        .await
        .expect("an edge");
        let fixture = Self {
            pki,
            edge,
            guard,
            shutdown,
            tls,
        };
        (fixture, incoming)
    }

    pub fn address(&self) -> SocketAddr {
        self.edge.local_addr()
    }

    /// Connects a box that follows the rules.
    pub async fn connect(&self, box_id: &str) -> Client {
        self.connect_with(&Connect::new(box_id)).await
    }

    pub async fn connect_with(&self, connect: &Connect<'_>) -> Client {
        let config = self.pki.client(connect.client_id);
        Client::connect(self.address(), config, connect).await
    }

    /// Waits until `condition` holds.
    pub async fn until(&self, condition: impl Fn(&Edge) -> bool) {
        soon(async {
            while !condition(&self.edge) {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        })
        .await;
    }
}
