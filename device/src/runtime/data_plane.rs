//! Starts the data plane: intake, uplink and the announcement on the LAN.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use longhaul_protocol::uplink::UplinkPolicy;
use longhaul_vault::Vault;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::driver;
use super::enrolment::Enrolment;
use super::supervisor::Supervisor;
use super::{Options, RunError, blocking};
use crate::agent::Event;
use crate::clock;
use crate::cloud::CloudClient;
use crate::credentials::CredentialStore;
use crate::discovery;
use crate::disk;
use crate::intake::{self, Arrivals, IntakeConfig, IntakeParts, Oddities};
use crate::journal::JournalHandle;
use crate::lan::LanTls;
use crate::proxy::ProxySetting;
use crate::receipts::{Receipts, Sealer};
use crate::status::StatusSource;
use crate::uplink::{self, Holds, Retrier, StoreTls, UplinkConfig, UplinkParts};

/// What the data plane works with.
pub(super) struct DataPlane {
    pub vault: Vault,
    pub retrier: Retrier,
    pub journal: JournalHandle,
    pub credentials: CredentialStore,
    pub cloud: CloudClient,
    /// The box's key, and the fleet's roots: the object store of a cloud in one process is certified
    /// by them.
    pub enrolment: Arc<Enrolment>,
    pub tls: LanTls,
    pub status: StatusSource,
    /// How the way to the buckets is to be used.
    pub policy: watch::Receiver<UplinkPolicy>,
    /// Told what is in force.
    pub events: mpsc::Sender<Event>,
    pub proxy: ProxySetting,
}

impl DataPlane {
    /// Listens, tells `bound` where, and starts the tasks.
    pub async fn spawn(
        self,
        options: &Options,
        bound: watch::Sender<Option<SocketAddr>>,
        supervisor: &mut Supervisor,
        shutdown: &CancellationToken,
    ) -> Result<(), RunError> {
        let address = options.config.data_listen;
        let arrivals = Arrivals::default();
        let oddities = Oddities::default();
        let holds = Holds::default();
        let parts = IntakeParts {
            vault: self.vault.clone(),
            credentials: self.credentials,
            tls: self.tls,
            status: self.status.clone(),
            arrivals: arrivals.clone(),
            clock: Arc::new(|| clock::wall().0),
            proofs: Some(Arc::new(self.cloud.clone())),
            oddities: oddities.clone(),
            holds: holds.clone(),
        };
        let (address, serve) =
            intake::serve(IntakeConfig::new(address), parts, shutdown.child_token())
                .await
                .map_err(|source| RunError::Listen { address, source })?;
        tracing::info!(%address, "customers can push");
        bound.send_replace(Some(address));
        supervisor.spawn("the intake", |_| async move {
            serve.await;
            // Who follows the address does so until the end.
            drop(bound);
            Ok(())
        });

        let journal = self.journal.clone();
        supervisor.spawn("the witness of names", |stop| async move {
            oddities.tell(journal, stop).await.map_err(RunError::from)
        });

        let receipts = open_receipts(&options.state).await?;
        let (sealing, journal) = (receipts.clone(), self.journal.clone());
        let sealer: Arc<dyn Sealer> = self.enrolment.clone();
        supervisor.spawn("the receipts", |stop| async move {
            let ended = sealing.run(sealer, journal, stop).await;
            ended.map_err(|error| RunError::Part {
                part: "the receipts",
                source: Box::new(error),
            })
        });

        let state = options.state.join("uplink");
        disk::make_dir(&state)?;
        let (in_force, follow) = watch::channel(self.policy.borrow().state_at(0));
        let parts = UplinkParts {
            vault: self.vault,
            cloud: Arc::new(self.cloud),
            journal: self.journal,
            tls: StoreTls {
                fleet: store_tls(self.enrolment.roots())?,
                public: store_tls(public_roots())?,
                proxy: self.proxy,
            },
            retrier: self.retrier,
            holds,
            receipts,
            arrivals,
            policy: self.policy,
            state: in_force,
            clock: clock::agreed,
        };
        let events = self.events;
        supervisor.spawn("the uplink's watch", |stop| async move {
            driver::watch_uplink(events, follow, stop).await;
            Ok(())
        });
        supervisor.spawn("the uplink", |stop| async move {
            uplink::run(UplinkConfig::new(state), parts, stop)
                .await
                .map_err(|error| RunError::Part {
                    part: "the uplink",
                    source: Box::new(error),
                })
        });

        if options.config.mdns {
            let status = self.status;
            supervisor.spawn("the announcement", |stop| async move {
                // A network without multicast must not keep anybody from pushing.
                if let Err(error) = discovery::run(address, status, stop.clone()).await {
                    tracing::warn!(error = %crate::cloud::chain(&error), "the box is not announced");
                    stop.cancelled().await;
                }
                Ok(())
            });
        }
        Ok(())
    }
}

async fn open_receipts(state: &Path) -> Result<Receipts, RunError> {
    let dir = state.join("receipts");
    blocking("opening the receipts", move || {
        Ok(Receipts::open(
            &dir,
            super::machine::fresh_epoch,
            clock::wall,
        )?)
    })
    .await
}

/// The authorities that this machine's system trusts, for object stores that the cloud calls
/// public. Without any, such a store is not reached, and the delivery says so.
fn public_roots() -> rustls::RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "an authority of the system cannot be read");
    }
    let mut roots = rustls::RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        tracing::warn!("the system trusts no public authority: install ca-certificates");
    }
    roots
}

/// The cloud's time, as far as it was heard.
#[derive(Debug)]
struct AgreedTime;

impl TimeProvider for AgreedTime {
    fn current_time(&self) -> Option<UnixTime> {
        let millis = u64::try_from(clock::agreed().wall.0).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(millis)))
    }
}

/// TLS towards the object store: no client certificate, because its URLs are signed.
pub(super) fn store_tls(roots: rustls::RootCertStore) -> Result<rustls::ClientConfig, RunError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // By the cloud's time where it is known: a box whose clock is wrong must still deliver.
    Ok(
        rustls::ClientConfig::builder_with_details(provider, Arc::new(AgreedTime))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}
