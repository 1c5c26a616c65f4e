//! The cloud in one process, or a process's part of it: starts every part, watches them, stops them in
//! order.
//!
//! A part that ends before it is told to ends the process with its error: whoever supervises the
//! process starts it anew, and everything that was acknowledged is on disk.

mod data;
mod echo;
mod keep;
mod parts;
mod sessions;
mod tasks;
pub(crate) mod telemetry;
mod turn;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use longhaul_broker::Edge;
use longhaul_protocol::backbone::EdgeId;
use longhaul_protocol::inventory::CloudEndpoint;
use longhaul_protocol::upload::StoreTrust;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use data::DataError;
pub use tasks::TaskError;

use crate::auth;
use crate::clock::Clock;
use crate::config::{Config, Role};
use crate::fleet::{Admitted, Fleet, FleetParts, Line};
use crate::identity::{CloudIdentity, IdentityError};
use crate::listen::Listen;
use crate::objects::bucket::{BucketError, BucketTarget, Buckets};
use crate::objects::disk::{DiskError, DiskStore};
use crate::objects::s3;
use crate::store::boxes::box_disconnect_all;
use crate::store::seal::{SealError, SealKey};
use crate::store::{Db, StoreError};
use data::DataDir;
use tasks::Tasks;

/// Connections to the object store at once.
const S3: usize = 8192;

/// Why the cloud did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloudError {
    /// The data folder is unusable.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The cloud has no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The database is unusable.
    #[error("the database is unusable")]
    Store(#[from] StoreError),
    /// Secrets cannot be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The object store on this machine is unusable.
    #[error("the object store is unusable")]
    Disk(#[from] DiskError),
    /// The object store cannot be talked to.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// A port could not be opened.
    #[error(
        "failed to listen on {address}: is another program there? choose another with {option}"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The option that changes it.
        option: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The backbone cannot be used.
    #[error(transparent)]
    Bus(#[from] longhaul_broker::BusError),
    /// Traces cannot be exported.
    #[error("traces cannot be exported")]
    Traces(#[from] crate::traces::ExportError),
    /// The backbone's certificates cannot be used.
    #[error("the backbone's certificates are unusable")]
    BusIdentity(#[from] longhaul_provisioning::ca::CaError),
    /// The MQTT edge did not start.
    #[error("the MQTT edge did not start")]
    Edge(#[from] longhaul_broker::StartError),
    /// A port could not be set up.
    #[error("the boxes' port could not be set up: {0}")]
    BoxesPort(#[from] crate::boxes_port::Refusal),
    /// The first administrator could not be made.
    #[error(transparent)]
    FirstAdmin(#[from] auth::FirstAdminError),
    /// What a killed process was at could not be taken up.
    #[error("packs could not be taken up")]
    Unpack(#[from] crate::fleet::FleetError),
    /// Mail cannot be sent.
    #[error("--smtp-url or --smtp-from is wrong")]
    Mail(#[from] crate::alerts::email::MailError),
    /// The provider that people log in by cannot be talked to.
    #[error("log-in by a provider cannot be set up")]
    Sso(#[from] crate::sso::provider::ProviderError),
    /// TLS towards those who are told of alerts cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// A part ended early.
    #[error(transparent)]
    Task(#[from] TaskError),
}

/// A cloud that runs.
pub struct Cloud {
    fleet: Fleet,
    addresses: Addresses,
    data: DataDir,
    disk: Option<DiskStore>,
    tasks: Tasks,
    first_admin: Option<(String, String)>,
    ready: Vec<u8>,
}

/// Where the parts listen.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// The people's port, if this process has it.
    pub people: Option<SocketAddr>,
    /// The boxes' port, if this process has it.
    pub boxes: Option<SocketAddr>,
    /// The MQTT port, if this process has it.
    pub mqtt: Option<SocketAddr>,
    /// The built-in object store, if it is used.
    pub s3: Option<SocketAddr>,
}

impl Cloud {
    /// Starts everything that is this process's part; once it returns, every port is open.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, CloudError> {
        let data = DataDir::open(&config.data)?;
        if config.role != Role::All {
            data.expect_shared()?;
        }
        let identity = CloudIdentity::open(data.path(), config.server_names(), clock.now())?;
        let identity = Arc::new(identity);
        let root_path = data.write_root(&identity.pki().root_pem())?;
        let db = match &config.database {
            Some(url) => Db::open_postgres(url).await?,
            None => Db::open_sqlite(&data.path().join("cloud.db")).await?,
        };
        let seal = SealKey::load_or_create(&data.path().join("seal.key"))?;
        let id = EdgeId(uuid::Uuid::now_v7().as_u128());
        let bus = match &config.backbone {
            Some(backbone) => Some(parts::bus(backbone, config.role, id).await?),
            None => None,
        };

        let mut tasks = Tasks::default();
        let people = if config.role.has_api() {
            Some(open(config.listen_people, "--listen-people").await?)
        } else {
            None
        };
        let boxes = if config.role.has_edge() {
            Some(open(config.listen_boxes, "--listen-boxes").await?)
        } else {
            None
        };
        let (target, disk, s3) =
            object_store(&config, &data, &identity, &clock, &mut tasks).await?;
        let region = target.region.clone();
        let buckets = Buckets::new(&target)?;

        // Before the edge opens: a box that is refused once stays away for a while.
        let admitted = Arc::new(Admitted::load(&db).await?);
        if !db.is_shared() {
            // No other process serves boxes, so none is connected.
            let mut tx = db.write().await?;
            box_disconnect_all(&mut tx, clock.now().0).await?;
            tx.commit().await?;
        }
        let joined = parts::join(&config, &identity, &admitted, &tasks, bus.clone(), id).await?;
        let addresses = Addresses {
            people: people.as_ref().map(|l| local(l, config.listen_people)),
            boxes: boxes.as_ref().map(|l| local(l, config.listen_boxes)),
            mqtt: joined.edge.as_ref().map(Edge::local_addr),
            s3,
        };
        let people_port = addresses.people.unwrap_or(config.listen_people).port();
        let fleet = Fleet::new(FleetParts {
            people_url: format!("https://{}:{people_port}", config.url_host()),
            db,
            clock,
            identity: Arc::clone(&identity),
            seal,
            line: Line::new(joined.edge.clone(), bus, id),
            admitted,
            buckets,
            region,
            tuf_dir: data.path().join("tuf"),
            endpoints: endpoints(&config, &addresses),
            reach: config.notify.reach,
            traced: config.otlp.is_some(),
        });
        let first_admin = if config.role.has_api() {
            auth::first_admin(fleet.db(), fleet.now().0).await?
        } else {
            None
        };
        parts::between(&fleet, joined, boxes, &mut tasks).await?;
        if let Some(people) = people {
            parts::people(&fleet, &config, people, &mut tasks).await?;
        }
        if config.role.has_work() {
            parts::work(&fleet, &config, &mut tasks).await?;
        }
        let kept = fleet.clone();
        tasks.front("certificates", |stop| keep::renew(kept, stop));

        let ready = data.ready(&config, &addresses, &root_path)?;
        let shown = |address: Option<SocketAddr>| address.map(|a| a.to_string());
        tracing::info!(
            role = %config.role,
            people = shown(addresses.people),
            boxes = shown(addresses.boxes),
            mqtt = shown(addresses.mqtt),
            s3 = shown(addresses.s3),
            "the cloud is up"
        );
        Ok(Self {
            fleet,
            addresses,
            data,
            disk,
            tasks,
            first_admin,
            ready,
        })
    }

    /// The administrator that this start made: name and password, known nowhere else.
    pub const fn take_first_admin(&mut self) -> Option<(String, String)> {
        self.first_admin.take()
    }

    /// The handle on the fleet.
    pub const fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Where the parts listen.
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Says in the data folder that every port is open, runs until `stop`, then drains and stops in order.
    ///
    /// # Errors
    ///
    /// [`CloudError`] names the part that ended early, or did not end in time.
    pub async fn run_until(mut self, stop: CancellationToken) -> Result<(), CloudError> {
        let ended = self.watch(&stop).await;
        self.data.remove_ready();
        if let Err(error) = &ended {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "a part ended early"
            );
        }
        let stopped = self.tasks.stop().await;
        self.fleet.db().close().await;
        if let Some(disk) = &self.disk {
            disk.close().await;
        }
        ended?;
        stopped?;
        Ok(())
    }
}

impl Cloud {
    async fn watch(&mut self, stop: &CancellationToken) -> Result<(), CloudError> {
        self.data.write_ready(&self.ready)?;
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            early = self.tasks.ended_early() => Err(early.into()),
        }
    }
}

async fn open(address: SocketAddr, option: &'static str) -> Result<TcpListener, CloudError> {
    // Tokio sets SO_REUSEADDR: a start right after a kill finds the port free.
    TcpListener::bind(address)
        .await
        .map_err(|source| CloudError::Listen {
            address,
            option,
            source,
        })
}

fn local(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

fn shown(
    identity: &Arc<CloudIdentity>,
    which: fn(&crate::identity::TlsConfigs) -> &Arc<rustls::ServerConfig>,
) -> crate::listen::TlsSource {
    let identity = Arc::clone(identity);
    Arc::new(move || Arc::clone(which(&identity.tls())))
}

/// The object store: somebody else's, or our own, which starts to be served here.
async fn object_store(
    config: &Config,
    data: &DataDir,
    identity: &Arc<CloudIdentity>,
    clock: &Clock,
    tasks: &mut Tasks,
) -> Result<(BucketTarget, Option<DiskStore>, Option<SocketAddr>), CloudError> {
    if let Some(remote) = &config.remote_store {
        let target = BucketTarget {
            endpoint: remote.endpoint.clone(),
            region: remote.region.clone(),
            access_key: remote.access_key.clone(),
            secret_key: remote.secret_key.clone(),
            root_pem: match remote.trust {
                StoreTrust::Fleet => Some(identity.pki().root_pem()),
                StoreTrust::Public => None,
            },
            trust: remote.trust,
            staging: remote.staging.clone(),
        };
        return Ok((target, None, None));
    }
    let keys = data.s3_keys()?;
    let disk = DiskStore::open(&data.path().join("objects")).await?;
    let listener = open(config.listen_s3, "--listen-s3").await?;
    let address = local(&listener, config.listen_s3);
    let listen = Listen {
        listener,
        tls: shown(identity, |tls| &tls.s3),
        max_connections: S3,
        mqtt: None,
        strangers: None,
    };
    let service = s3::service(
        disk.clone(),
        clock.clone(),
        &keys.access_key,
        &keys.secret_key,
    );
    tasks.back("object store", |stop| listen.serve(service, stop));
    let target = BucketTarget {
        endpoint: Some(format!("https://{}:{}", config.url_host(), address.port())),
        region: "us-east-1".to_owned(),
        access_key: keys.access_key,
        secret_key: keys.secret_key,
        root_pem: Some(identity.pki().root_pem()),
        trust: StoreTrust::Fleet,
        staging: None,
    };
    Ok((target, Some(disk), Some(address)))
}

fn endpoints(config: &Config, addresses: &Addresses) -> Vec<CloudEndpoint> {
    vec![CloudEndpoint {
        host: config.host().to_owned(),
        https_port: addresses.boxes.unwrap_or(config.listen_boxes).port(),
        mqtt_port: addresses.mqtt.unwrap_or(config.listen_mqtt).port(),
    }]
}

/// Where the ready file is in a data folder.
pub fn ready_path(data: &std::path::Path) -> PathBuf {
    data.join(data::READY)
}
