//! Uplink: carries what lies in the vault to the bucket, and keeps on until it is there.
//!
//! Data moves one way: `vault -> recorder -> planner -> effects (cloud, object store) -> vault`.
//! The [`plan::Planner`] is pure: it decides which versions go next and how long to wait after a
//! failure. The runtime in [`deliver`] carries that out and tells it what came of it.
//!
//! Truth is the vault's delivery state, made durable before it is built upon: a killed box resumes
//! with the parts that the store has acknowledged. A version is delivered only after the recorder
//! has written its [`Stored`](longhaul_protocol::journal::Fact::Stored) fact, and two versions of
//! one key are never on their way at the same time, so the bucket never mixes them.

mod begin;
mod carry;
pub mod cloud;
mod deliver;
mod holds;
mod meter;
mod pace;
mod pack;
pub mod plan;
mod record;
mod release;
mod retry;
mod send;
mod settle;
mod throttle;
mod transmit;
mod turns;
mod unsent;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use longhaul_protocol::uplink::{UplinkPolicy, UplinkState};
use longhaul_vault::Vault;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Now;
use crate::disk::DiskError;
use crate::intake::Arrivals;
use crate::journal::{JournalError, JournalHandle};
use crate::proxy::ProxySetting;
use crate::receipts::{Receipts, ReceiptsError};
use cloud::Cloud;
use throttle::Throttle;

pub use holds::Holds;
pub use retry::Retrier;

/// How the uplink behaves.
#[derive(Clone, Debug)]
pub struct UplinkConfig {
    /// Where it keeps how far the recorder has come.
    pub state: PathBuf,
    /// Objects that go in one request: so many at a time.
    pub singles: NonZeroUsize,
    /// Objects that go in parts: so many at a time.
    pub multiparts: NonZeroUsize,
    /// Parts of all objects: so many at a time to begin with. One more for each round that goes
    /// well, half as many when the way or the store fails some.
    pub parts: NonZeroUsize,
    /// Parts of all objects: never more at a time.
    pub most_parts: NonZeroUsize,
    /// Small objects travel as packs where the store's bare answer takes this long; zero: always.
    pub pack_above: Duration,
    /// Longest time in which the object store takes no byte and says nothing.
    pub stall_limit: Duration,
    /// Bytes of delivered objects are released when the vault is fuller than this, in percent.
    pub release_above_percent: u8,
}

impl UplinkConfig {
    /// The usual limits, with its state in `state`.
    pub fn new(state: impl Into<PathBuf>) -> Self {
        const fn count(n: usize) -> NonZeroUsize {
            NonZeroUsize::new(n).expect("not zero")
        }
        Self {
            state: state.into(),
            singles: count(32),
            multiparts: count(2),
            parts: count(4),
            most_parts: count(16),
            pack_above: Duration::from_millis(20),
            stall_limit: Duration::from_mins(3),
            release_above_percent: 70,
        }
    }
}

/// What the uplink works with.
#[derive(Clone)]
pub struct UplinkParts {
    /// Where the objects are.
    pub vault: Vault,
    /// Who hands out presigned URLs.
    pub cloud: Arc<dyn Cloud>,
    /// Where facts for the cloud are written down.
    pub journal: JournalHandle,
    /// Where each object gets its leaf before the cloud hears of it.
    pub receipts: Receipts,
    /// Trust in the object store: it needs no client certificate, its URLs are presigned.
    pub tls: StoreTls,
    /// Rung when an operator wants failed objects tried again.
    pub retrier: Retrier,
    /// Told which buckets refuse everybody.
    pub holds: Holds,
    /// Rung by the intake.
    pub arrivals: Arrivals,
    /// How the way to the buckets is to be used; may change at any time.
    pub policy: watch::Receiver<UplinkPolicy>,
    /// Told what is in force.
    pub state: watch::Sender<UplinkState>,
    /// Both clocks; the hour of the week is taken from its calendar.
    pub clock: fn() -> Now,
}

/// Whom the uplink believes that it talks to the object store; the cloud says with each URL which of
/// them counts.
#[derive(Clone)]
pub struct StoreTls {
    /// Trusts the fleet's root alone.
    pub fleet: rustls::ClientConfig,
    /// Trusts the public authorities alone.
    pub public: rustls::ClientConfig,
    /// The customer's proxy, through which the store is reached where one is set.
    pub proxy: ProxySetting,
}

/// Why the uplink ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UplinkError {
    /// The HTTP client could not be made.
    #[error("failed to make an HTTP client for the object store")]
    Client(#[source] reqwest::Error),
    /// A fact could not be written down.
    #[error("failed to write down what became of an object")]
    Journal(#[from] JournalError),
    /// How far the recorder has come could not be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A leaf could not be kept.
    #[error("failed to keep an object's leaf for its receipt")]
    Receipts(#[from] ReceiptsError),
    /// The vault failed for another reason than a version that is gone.
    #[error("the vault failed")]
    Vault(#[from] longhaul_vault::Error),
}

/// Records and delivers until `stop` is cancelled; ends early only by an error.
pub async fn run(
    config: UplinkConfig,
    parts: UplinkParts,
    stop: CancellationToken,
) -> Result<(), UplinkError> {
    let store = send::Store::new(&parts.tls, config.stall_limit)?;
    let (through, follow) = watch::channel(longhaul_vault::Version(0));
    let recorder = record::run(&config, &parts, through, stop.clone());
    let wanted = parts.policy.borrow().clone();
    let throttle = Throttle::new(
        wanted,
        parts.holds.clone(),
        parts.state.clone(),
        parts.clock,
    );
    let limits = async {
        throttle.run(parts.policy.clone(), stop.clone()).await;
        Ok(())
    };
    let delivery = deliver::run(
        &config,
        &parts,
        store,
        throttle.clone(),
        follow,
        stop.clone(),
    );
    let release = release::run(&config, parts.vault.clone(), stop.clone());
    tokio::try_join!(recorder, delivery, release, limits)?;
    Ok(())
}
