//! Puts the parts together, watches over them, and ends them in order.

mod data_plane;
mod driver;
mod enrolment;
mod lan_keeper;
mod links;
mod machine;
mod network;
mod offline;
mod recovery;
mod store;
mod supervisor;
mod tickets;
mod updates;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use longhaul_protocol::diag::Code;
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::lan::LanStatus;
use longhaul_provisioning::trust::Anchors;
use longhaul_vault::Vault;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::agent::saved::Saved;
use crate::agent::{self, Agent, Dice};
use crate::chip::{Chip, ChipError};
use crate::cloud::{self, CloudClient, CloudError, CloudIdentity};
use crate::config::Config;
use crate::console::{self, ConsoleError, Status};
use crate::disk::{self, DiskError};
use crate::identity::IdentityFile;
use crate::indicator;
use crate::journal::{self, JournalError, JournalHandle};
use crate::lan;
use crate::led::Led;
use crate::network::Keeper;
use crate::offline::Shown;
use crate::offline::pending::Requests;
use crate::ota::slots::Slot;
use crate::ota::supervise::EXIT_RESTART;
use crate::page;
use crate::papers::{Papers, PapersError};
use crate::proxy::ProxySetting;
use crate::rungs::{self, Climber, Lookout, TlsProbe};
use crate::sealed::{MasterKey, SealError};
use crate::status::StatusSource;
use crate::telemetry::Sampler;
use crate::update::{self, AgentHandle};
use crate::uplink;
use crate::vault_key::VaultKeyError;
use data_plane::DataPlane;
use driver::Driver;
use enrolment::Enrolment;
use offline::Register;
use store::Store;
use supervisor::Supervisor;
use tickets::Tickets;
use updates::Updates;

/// Exit code where the TPM does not do its part.
pub const EXIT_TPM: u8 = 3;
/// How long parts may take to end.
const GRACE: Duration = Duration::from_secs(20);
/// Events that wait for the agent at the most.
const EVENTS: usize = 256;

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The factory's papers cannot be used.
    #[error("the factory's papers are unusable")]
    Papers(#[from] PapersError),
    /// The TPM does not do its part.
    #[error(transparent)]
    Chip(#[from] ChipError),
    /// The state directory belongs to an agent that runs.
    #[error("another agent runs with state directory {0}")]
    AlreadyRunning(PathBuf),
    /// A state file failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What only this box can open could not be.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The journal failed; the next start repairs it.
    #[error("the journal failed")]
    Journal(#[from] JournalError),
    /// The vault could not be opened.
    #[error("the vault cannot be opened")]
    Vault(#[from] VaultKeyError),
    /// The HTTPS client could not be made.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// TLS could not be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// The console failed.
    #[error(transparent)]
    Console(#[from] ConsoleError),
    /// Customers cannot be listened to.
    #[error("the data plane cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A part ended although nobody asked it to.
    #[error("{0} ended by itself")]
    Ended(&'static str),
    /// A part failed.
    #[error("{part} failed")]
    Part {
        /// Which part.
        part: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A part has a defect.
    #[error("{0} panicked")]
    Panicked(&'static str),
    /// An update is armed: the supervisor shall start it.
    #[error("restarting into the release that is armed")]
    Restart,
    /// Parts did not end in time.
    #[error("still running after the grace period: {0}")]
    Stuck(String),
}

impl RunError {
    /// The process's exit code: 2 the papers, 3 the TPM, 4 another agent runs, 75 an update is armed,
    /// 1 anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Papers(_) => 2,
            Self::Chip(_)
            | Self::Seal(SealError::Chip(_))
            | Self::Vault(VaultKeyError::Chip(_)) => EXIT_TPM,
            Self::AlreadyRunning(_) => 4,
            Self::Restart => EXIT_RESTART,
            _ => 1,
        }
    }
}

/// What to run with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The state directory.
    pub state: PathBuf,
    /// The machine's settings.
    pub config: Config,
    /// The version of the agent, as releases count.
    pub agent_version: String,
    /// The slot that it runs from, where a supervisor started it; without one it takes no updates.
    pub slot: Option<Slot>,
}

impl Options {
    /// Where the factory's papers lie.
    pub fn factory_dir(&self) -> PathBuf {
        let dir = self.config.factory_dir.clone();
        dir.unwrap_or_else(|| self.state.join("factory"))
    }
}

/// Runs the box until `shutdown`, and returns when every part has ended.
pub async fn run(
    options: Options,
    chip: Arc<dyn Chip>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let state = options.state.clone();
    let run_dir = state.join("run");
    disk::make_dir(&run_dir)?;
    let _lock = machine::lock(&run_dir)?;
    offline::reset_where_asked(&state)?;
    let unclean = machine::begin(&run_dir)?;
    let started = Parts::assemble(&options, chip, &shutdown).await;
    let ended = match started {
        Ok(parts) => Box::pin(parts.run(unclean, shutdown)).await,
        Err(error) => Err(error),
    };
    if matches!(ended, Ok(()) | Err(RunError::Restart)) {
        machine::end(&run_dir)?;
    }
    ended
}

/// Everything that was opened, and the tasks over it.
struct Parts {
    driver: Driver,
    supervisor: Supervisor,
    /// Absent where it stays closed.
    vault: Option<Vault>,
    journal: journal::JournalThread,
}

impl Parts {
    #[expect(
        clippy::too_many_lines,
        reason = "what a box is made of, one part after the other"
    )]
    async fn assemble(
        options: &Options,
        chip: Arc<dyn Chip>,
        shutdown: &CancellationToken,
    ) -> Result<Self, RunError> {
        let state = options.state.as_path();
        let papers = Papers::load(&options.factory_dir())?;
        let (box_id, anchors) = (papers.config.box_id.clone(), papers.anchors.clone());
        let to_depot = papers.config.recovery_key.clone();
        let (events, inbox) = mpsc::channel(EVENTS);
        let (keeper, desk, network) = network::open(options, &papers, &events);
        let proxy = ProxySetting::open(state, papers.config.hints.proxy.as_deref());
        let (cloud_identity, cloud) = cloud::channel(proxy.clone());
        let asks = (cloud_identity, cloud.clone());
        let (key, enrolment) = identify(state, papers, &chip, asks, &proxy).await?;
        let (master, locked) = unless_locked(key)?;
        let (journal, journal_thread) = open_journal(options)?;
        let mut store = store::open(options, master.as_ref(), chip).await?;
        store.recoverable(to_depot, &box_id, &journal).await;
        let vault = store.vault.clone();
        let tickets = |key: &Arc<_>| Tickets::open(state, Arc::clone(key), cloud.clone());
        let tickets = master.as_ref().map(tickets).map(Arc::new);
        let (saved_path, saved) = remembered(state)?;
        let (policy, follow_policy) = watch::channel(saved.uplink());
        let (update_sender, update_requests) = update::channel();
        let agent = Agent::new(
            agent_config(options, &box_id, anchors, &journal, locked, &store, keeper),
            saved,
            enrolment.current().map(|c| c.validity()),
            tickets.as_ref().map_or(0, |t| t.store().version()),
            *journal.position().borrow(),
            crate::clock::now(),
            Dice::new(rand::random()),
        );
        let first = first_status(options, box_id, &agent, vault.as_ref());
        let (lan_status, status_source) = StatusSource::channel(first.clone());
        let (console_status, console_source) = watch::channel(first_console(first));
        let climber = climber(&enrolment, &proxy)?;
        let (lan_identity, lan_tls) = lan::channel()?;
        let (bound, bound_source) = watch::channel(None);

        let mut supervisor = Supervisor::new(shutdown.clone(), GRACE);
        let register = Register {
            enrolment: &enrolment,
            key: master,
            tickets: tickets.clone(),
            journal: &journal,
            events: &events,
            status: &console_source,
        };
        let keep = (cloud.clone(), lan_identity);
        let (given, offline) = register.spawn(options, keep, &mut supervisor);
        watch_links(&mut supervisor, &events, &bound_source, &proxy);
        let desk = desk.with_answers(given);
        indicate(options, &mut supervisor, &console_source, desk);
        serve_console(&mut supervisor, state, console_source);
        store.watch(&journal, &mut supervisor);
        let retrier = vault.clone().map(uplink::Retrier::new);
        if let (Some(vault), Some(tickets), Some(retrier)) = (&vault, &tickets, &retrier) {
            let data = DataPlane {
                vault: vault.clone(),
                retrier: retrier.clone(),
                journal: journal.clone(),
                credentials: tickets.store(),
                cloud: cloud.clone(),
                enrolment: Arc::clone(&enrolment),
                tls: lan_tls,
                status: status_source,
                policy: follow_policy,
                events: events.clone(),
                proxy,
            };
            data.spawn(options, bound, &mut supervisor, shutdown)
                .await?;
        }
        Updates {
            cloud: cloud.clone(),
            journal: journal.clone(),
            agent: AgentHandle::new(events.clone()),
            requests: update_requests,
            bound: bound_source,
        }
        .spawn(options, &mut supervisor);

        let driver = Driver {
            agent,
            events,
            inbox,
            saved_path,
            network,
            journal,
            enrolment,
            tickets,
            climber: Arc::new(climber),
            keep_alive: Duration::from_secs(options.config.keep_alive_secs.get().into()),
            sampler: Arc::new(Mutex::new(Sampler::new(state.to_owned()))),
            meter: vault.clone().map(machine::Meter),
            updates: options.slot.map(|_| update_sender),
            retrier,
            eraser: store.eraser.map(Arc::new),
            uplink: policy,
            lan_status,
            console: console_status,
            offline,
            tasks: JoinSet::new(),
            session: None,
            failed_sessions: 0,
            came_up: false,
        };
        Ok(Self {
            driver,
            supervisor,
            vault,
            journal: journal_thread,
        })
    }

    /// The data plane and its helpers end first, then the agent says goodbye, then the files close.
    async fn run(self, unclean: bool, shutdown: CancellationToken) -> Result<(), RunError> {
        let agent_stop = CancellationToken::new();
        let driver = self.driver.run(unclean, agent_stop.clone());
        let mut supervisor = self.supervisor;
        let helpers = async {
            let ended = supervisor.watch().await;
            shutdown.cancel();
            let drained = supervisor.drain().await;
            agent_stop.cancel();
            ended.and(drained)
        };
        let driver = async {
            let ended = driver.await;
            // Early only by an error: then everything else ends, too.
            shutdown.cancel();
            ended
        };
        let (helpers, driver) = tokio::join!(helpers, driver);
        let vault = self.vault;
        blocking("closing the vault", move || {
            if let Some(vault) = vault {
                vault.close();
            }
            Ok::<_, RunError>(())
        })
        .await?;
        let journal = self.journal;
        let closed = blocking("closing the journal", move || {
            journal.join().map_err(RunError::from)
        })
        .await;
        driver.and(helpers).and(closed)
    }
}

/// What the agent before this one remembered, and where.
fn remembered(state: &Path) -> Result<(PathBuf, Saved), DiskError> {
    let path = state.join("agent.json");
    let saved = disk::read_json(&path)?.unwrap_or_default();
    Ok((path, saved))
}

fn watch_links(
    supervisor: &mut Supervisor,
    events: &mpsc::Sender<agent::Event>,
    bound: &watch::Receiver<Option<SocketAddr>>,
    proxy: &ProxySetting,
) {
    let (events, bound, proxy) = (events.clone(), bound.clone(), proxy.clone());
    supervisor.spawn("the link watcher", |stop| async move {
        links::watch(events, bound, proxy, stop).await;
        Ok(())
    });
}

/// What shows the box's state, beside its console and the LAN: lamp and page.
fn indicate(
    options: &Options,
    supervisor: &mut Supervisor,
    status: &watch::Receiver<Status>,
    desk: page::Desk,
) {
    light_led(options, supervisor, status);
    serve_page(options, supervisor, status.clone(), desk);
}

/// The box's lamp, where it has one.
fn light_led(options: &Options, supervisor: &mut Supervisor, status: &watch::Receiver<Status>) {
    let Some(name) = &options.config.status_led else {
        return;
    };
    let (led, status) = (Led::new(name), status.clone());
    supervisor.spawn("the LED", move |stop| async move {
        indicator::follow(led, status, stop).await;
        Ok(())
    });
}

/// The box's own page; a box whose port is taken does without it.
fn serve_page(
    options: &Options,
    supervisor: &mut Supervisor,
    status: watch::Receiver<Status>,
    desk: page::Desk,
) {
    let Some(address) = options.config.page_listen else {
        return;
    };
    let marker = options.state.join("run").join("page.json");
    supervisor.spawn("the page", move |stop| async move {
        match page::listen(address).await {
            Ok(listener) => {
                // Port 0 takes any: then this is where it says which.
                let bound = listener.local_addr().unwrap_or(address);
                let url = format!("http://{bound}");
                disk::write_json(&marker, &serde_json::json!({ "url": url }))?;
                tracing::info!(url, "the page is served");
                page::serve(listener, status, desk, stop).await;
            }
            Err(error) => {
                tracing::warn!(%address, %error, "the page is not served");
                stop.cancelled().await;
            }
        }
        Ok(())
    });
}

fn serve_console(supervisor: &mut Supervisor, state: &Path, status: watch::Receiver<Status>) {
    let socket = console::socket_path(state);
    supervisor.spawn("the console", |stop| async move {
        Ok(console::serve(socket, status, stop).await?)
    });
}

/// What the box says of itself before anything has happened.
fn first_status(
    options: &Options,
    box_id: BoxId,
    agent: &Agent,
    vault: Option<&Vault>,
) -> LanStatus {
    LanStatus {
        v: VERSION,
        box_id,
        agent_version: options.agent_version.clone(),
        rungs: agent.rungs(),
        vault: vault.map(machine::fill).unwrap_or_default(),
        identifying: false,
        uplink: None,
        capabilities: Vec::new(),
        network: None,
    }
}

fn first_console(lan: LanStatus) -> Status {
    Status {
        lan,
        lan_urls: Vec::new(),
        certificate_expires: None,
        telemetry_interval_secs: 0,
        desired_version: 0,
        command_counter: 0,
        journal: journal::Position::default(),
        tickets: 0,
        offline: Shown::default(),
        guide: None,
    }
}

fn agent_config(
    options: &Options,
    box_id: &BoxId,
    anchors: Anchors,
    journal: &JournalHandle,
    locked: Option<String>,
    store: &Store,
    network: Keeper,
) -> agent::Config {
    agent::Config {
        box_id: box_id.clone(),
        anchors,
        agent_version: options.agent_version.clone(),
        os_version: machine::os_version(),
        boot: machine::boot(crate::clock::now()),
        epoch: journal.epoch().clone(),
        capabilities: options
            .slot
            .map(|_| "update".to_owned())
            .into_iter()
            .collect(),
        can_update: options.slot.is_some(),
        locked,
        vault_failure: store.failure.clone(),
        vault_open: store.vault.is_some(),
        network,
    }
}

fn open_journal(
    options: &Options,
) -> Result<(JournalHandle, journal::JournalThread), JournalError> {
    let dir = options.state.join("journal");
    let limit = options.config.journal_max_bytes.get();
    journal::open(&dir, limit, machine::fresh_epoch(), crate::clock::wall)
}

/// What climbs the ladder.
fn climber(enrolment: &Enrolment, proxy: &ProxySetting) -> Result<Climber, RunError> {
    let tls = TlsProbe::new(enrolment.roots(), enrolment.idevid_resolver()?)?;
    // Beacons are read over plain HTTP; the client wants a TLS configuration all the same.
    let http = data_plane::store_tls(enrolment.roots())?;
    let (hints, anchors) = enrolment.outside();
    let lookout = Lookout::new(hints, anchors, proxy, http)
        .inspect_err(|error| tracing::error!(%error, "nothing is looked at outside the cloud"))
        .ok();
    Ok(Climber::new(tls, lookout, proxy.clone()))
}

/// What only the TPM can open or prove: the master key, which may stay closed, and who the box is.
async fn identify(
    state: &Path,
    papers: Papers,
    chip: &Arc<dyn Chip>,
    (identity, cloud): (CloudIdentity, CloudClient),
    proxy: &ProxySetting,
) -> Result<(Result<MasterKey, SealError>, Arc<Enrolment>), RunError> {
    let (state, chip) = (state.to_owned(), Arc::clone(chip));
    let (file, proxy) = (IdentityFile::in_state(&state), proxy.clone());
    blocking("the TPM", move || {
        let key = MasterKey::open(&state, &*chip, papers.sealing_pcrs());
        let requests = Requests::open(&state);
        let enrolment = Enrolment::new(papers, chip, file, identity, cloud, proxy, requests)?;
        Ok::<_, RunError>((key, Arc::new(enrolment)))
    })
    .await
}

/// A machine in another state runs without everything that its key opens: it enrols and reports, so
/// that somebody looks at it. Any other failure ends the agent.
fn unless_locked(
    opened: Result<MasterKey, SealError>,
) -> Result<(Option<Arc<MasterKey>>, Option<String>), SealError> {
    match opened {
        Ok(master) => Ok((Some(Arc::new(master)), None)),
        Err(error @ SealError::StateChanged(_)) => {
            tracing::error!(code = %Code::STATE_CHANGED, %error, "no data plane");
            Ok((None, Some(error.to_string())))
        }
        Err(error) => Err(error),
    }
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static, E: From<RunError> + Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(RunError::Panicked(what).into()),
    }
}

/// Where customers on the LAN can reach what listens at `bound`.
fn lan_urls(bound: SocketAddr) -> Vec<String> {
    let addresses = if bound.ip().is_unspecified() {
        rungs::lan_addresses()
    } else {
        vec![bound.ip()]
    };
    let urls = addresses
        .into_iter()
        .filter(|a| a.is_ipv4() || bound.is_ipv6())
        .map(|address| format!("https://{}", SocketAddr::new(address, bound.port())));
    urls.take(MAX_URLS).collect()
}

/// Addresses that are told to the cloud at the most.
const MAX_URLS: usize = 16;

/// Reads the marker that says where the data plane listens.
pub fn ready_path(state: &Path) -> PathBuf {
    state.join("run").join("ready.json")
}
