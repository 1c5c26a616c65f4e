//! Intake: the S3 endpoint on the LAN that customers push to.
//!
//! Data moves one way: `socket -> TLS -> HTTP -> (s3s: signature, aws-chunked) -> checksums -> vault`.
//! A `200` is sent only after the vault has made bytes and record durable. Nothing here knows about
//! the cloud: a box that cannot register still takes data.
//!
//! What a stored version means for the cloud is told by [`crate::uplink`], which reads it from the
//! vault; intake only wakes it through [`Arrivals`].

mod access;
mod attributes;
mod body;
mod checksum;
pub(crate) mod claims;
mod copy;
mod deletion;
mod early;
mod error;
mod layout;
mod limits;
mod listing;
mod multipart;
pub(crate) mod names;
mod notice;
mod oddities;
mod proofs;
mod put;
mod read;
mod refuse;
mod request_id;
mod retrieval;
pub(crate) mod room;
mod routes;
mod server;
mod service;
mod snowball;
pub(crate) mod spellings;
mod uploads;
mod versions;
mod whole;
mod words;

#[cfg(feature = "fuzzing")]
pub(crate) use snowball::fuzz_tar;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use longhaul_vault::{Clock, Vault};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::credentials::CredentialStore;
use crate::lan::LanTls;
use crate::status::StatusSource;
use crate::uplink::Holds;

pub use oddities::Oddities;
pub use proofs::Proofs;
pub(crate) use put::TICKET_HEADER;
pub use read::{StreamError, VersionStream};

/// The header in which `GET` and `HEAD` say how far an object has come on its way to the bucket:
/// `on-box`, `in-flight`, `in-cloud`, `verified` or `failed`.
pub const DELIVERY_HEADER: &str = "x-longhaul-delivery";

pub use longhaul_protocol::lan::NOTICE_HEADER;

/// Wakes the uplink when something was stored or deleted.
#[derive(Clone, Debug, Default)]
pub struct Arrivals(Arc<Notify>);

impl Arrivals {
    /// Says that there is something new in the vault.
    pub fn ring(&self) {
        self.0.notify_one();
    }

    /// Resolves after the next ring, or at once if it rang since the last wait.
    pub async fn wait(&self) {
        self.0.notified().await;
    }
}

/// How the endpoint behaves.
#[derive(Clone, Debug)]
pub struct IntakeConfig {
    /// Address to listen on; port 0 takes any.
    pub listen: SocketAddr,
    /// The region that `GetBucketLocation` names.
    pub region: String,
    /// Connections at a time; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Bodies received at a time, over all connections: bounds memory to about 4 MiB each.
    pub max_bodies: usize,
    /// Longest TLS handshake.
    pub handshake_limit: Duration,
    /// Longest wait for a request's headers.
    pub header_limit: Duration,
    /// Longest silence in the middle of a body, in either direction.
    pub stall_limit: Duration,
    /// How long open requests may go on after the stop signal.
    pub drain_limit: Duration,
}

impl IntakeConfig {
    /// The usual limits at `listen`.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            region: "us-east-1".to_owned(),
            max_connections: 512,
            max_bodies: 64,
            handshake_limit: Duration::from_secs(5),
            header_limit: Duration::from_secs(30),
            stall_limit: Duration::from_mins(1),
            drain_limit: Duration::from_secs(10),
        }
    }
}

/// What the endpoint works with.
#[derive(Clone)]
pub struct IntakeParts {
    /// Where objects go.
    pub vault: Vault,
    /// Who may write.
    pub credentials: CredentialStore,
    /// The LAN certificate; handshakes fail while there is none, and a new one is used from the
    /// next connection on.
    pub tls: LanTls,
    /// The box at a glance; the vault's fill is filled in here.
    pub status: StatusSource,
    /// Wakes the uplink.
    pub arrivals: Arrivals,
    /// The wall clock, for tickets that expire.
    pub clock: Clock,
    /// Who has the receipts; absent where nobody can be asked.
    pub proofs: Option<Arc<dyn Proofs>>,
    /// Told what is odd about names.
    pub oddities: Oddities,
    /// Which buckets refuse everybody.
    pub holds: Holds,
}

/// Begins to listen; the returned future serves until `stop` is cancelled, then drains.
pub async fn serve(
    config: IntakeConfig,
    parts: IntakeParts,
    stop: CancellationToken,
) -> io::Result<(SocketAddr, impl Future<Output = ()> + Send + 'static)> {
    let listener = TcpListener::bind(config.listen).await?;
    let address = listener.local_addr()?;
    Ok((address, server::run(listener, config, parts, stop)))
}
