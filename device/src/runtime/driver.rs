//! Feeds the agent with events and carries out its effects, in their order.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use longhaul_protocol::command::RetryScope;
use longhaul_protocol::envelope;
use longhaul_protocol::ids::CommandId;
use longhaul_protocol::journal::{Fact, Outcome};
use longhaul_protocol::lan::LanStatus;
use longhaul_protocol::telemetry::VaultFill;
use longhaul_protocol::topic::Up;
use longhaul_protocol::uplink::{UplinkPolicy, UplinkState};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::RunError;
use super::enrolment::Enrolment;
use super::machine::Meter;
use super::network::Network;
use super::store::Eraser;
use super::tickets::Tickets;
use crate::agent::{Agent, Dice, Effect, Event, SampleTo};
use crate::clock;
use crate::console::Status;
use crate::disk;
use crate::journal::{JournalError, JournalHandle};
use crate::mqtt;
use crate::offline::Shown;
use crate::rungs::Climber;
use crate::status::VaultMeter;
use crate::telemetry::Sampler;
use crate::update::UpdateRequest;
use crate::uplink::Retrier;

/// A connection with TLS and a slow TPM takes a second or two; the first is given up sooner, because
/// another port may do.
const CONNECT_FIRST: Duration = Duration::from_secs(6);
const CONNECT: Duration = Duration::from_secs(15);
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// The status on the LAN is never older than this.
const REFRESH: Duration = Duration::from_secs(2);

/// Everything that effects need.
pub(super) struct Driver {
    pub agent: Agent,
    pub events: mpsc::Sender<Event>,
    pub inbox: mpsc::Receiver<Event>,
    pub saved_path: PathBuf,
    pub network: Network,
    pub journal: JournalHandle,
    pub enrolment: Arc<Enrolment>,
    /// Absent, like what follows from it, where the vault stays closed.
    pub tickets: Option<Arc<Tickets>>,
    pub climber: Arc<Climber>,
    pub keep_alive: Duration,
    pub sampler: Arc<Mutex<Sampler>>,
    pub meter: Option<Meter>,
    pub updates: Option<mpsc::Sender<UpdateRequest>>,
    pub retrier: Option<Retrier>,
    pub eraser: Option<Arc<Eraser>>,
    /// How the uplink is to work, for the data plane.
    pub uplink: watch::Sender<UplinkPolicy>,
    pub lan_status: watch::Sender<LanStatus>,
    pub console: watch::Sender<Status>,
    /// How far registration without a line is.
    pub offline: watch::Receiver<Shown>,
    pub tasks: JoinSet<()>,
    pub session: Option<mqtt::Session>,
    /// Sessions that did not come up: the next one tries the next way to a broker.
    pub failed_sessions: usize,
    /// Whether the session that is there did.
    pub came_up: bool,
}

impl Driver {
    /// Runs until told to stop, and then says goodbye.
    pub async fn run(mut self, unclean: bool, shutdown: CancellationToken) -> Result<(), RunError> {
        let mut journal = self.journal.position();
        let mut refresh = tokio::time::interval(REFRESH);
        self.handle(Event::Started { unclean }).await?;
        loop {
            let now = clock::now();
            let wait = self.agent.poll_at_ms(now).saturating_sub(now.mono_ms);
            let event = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(event) = self.inbox.recv() => event,
                changed = journal.changed() => match changed {
                    Ok(()) => Event::Journal(*journal.borrow_and_update()),
                    Err(_) => return Err(RunError::Journal(JournalError::Closed)),
                },
                Some(_) = self.tasks.join_next() => continue,
                _ = refresh.tick() => {
                    self.network.machine.tend();
                    self.show();
                    continue;
                }
                () = tokio::time::sleep(Duration::from_millis(wait)) => Event::Tick,
            };
            self.handle(event).await?;
        }
        self.handle(Event::Stop).await?;
        self.tasks.shutdown().await;
        Ok(())
    }

    async fn handle(&mut self, event: Event) -> Result<(), RunError> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            match event {
                Event::SessionDown { .. } => {
                    self.session = None;
                    // What came up once is tried first again; on another network, the first choice.
                    if !std::mem::take(&mut self.came_up) {
                        self.failed_sessions += 1;
                    }
                }
                Event::SessionUp(_) => self.came_up = true,
                Event::LinkChanged | Event::NetworkApplied(_) => self.failed_sessions = 0,
                _ => {}
            }
            let effects = self
                .agent
                .handle(event, clock::now(), Dice::new(rand::random()));
            for effect in effects {
                events.extend(self.carry_out(effect).await?);
            }
        }
        self.show();
        Ok(())
    }

    async fn carry_out(&mut self, effect: Effect) -> Result<Option<Event>, RunError> {
        match effect {
            Effect::Save(saved) => save(self.saved_path.clone(), saved).await?,
            Effect::SaveNetwork(saved) => save(self.network.path.clone(), saved).await?,
            Effect::ApplyNetwork {
                settings,
                instead_of,
            } => {
                let proxy = &self.climber.proxy;
                let applied = self.network.apply(&settings, &instead_of, proxy).await;
                return Ok(Some(Event::NetworkApplied(applied)));
            }
            Effect::Append(fact) => self.append(fact).await?,
            Effect::Acknowledge(ack) => self.journal.acknowledge(&ack).await?,
            Effect::SendBatch => return self.send_batch().await.map(Some),
            Effect::Publish { channel, payload } => {
                if let Some(session) = &self.session {
                    session.publish(channel, payload);
                }
            }
            Effect::Walk => self.walk(),
            Effect::Enrol(credential) => {
                let (enrolment, events) = (Arc::clone(&self.enrolment), self.events.clone());
                self.tasks.spawn(async move {
                    let _ = events.send(enrolment.enrol(credential).await).await;
                });
            }
            Effect::Connect { session, will } => return Ok(self.connect(session, will)),
            // Dropped without a farewell, which nobody would hear.
            Effect::Abandon => self.session = None,
            Effect::Disconnect => {
                if let Some(session) = self.session.take() {
                    session.close(FAREWELL).await;
                }
            }
            Effect::Sample {
                to,
                certificate_expires,
                rungs,
            } => {
                let mut sample = self.sample().await?;
                sample.certificate_expires = certificate_expires;
                sample.rungs = rungs;
                match (to, envelope::encode(&sample, clock::wall())) {
                    (SampleTo::Journal, _) => {
                        self.append(Fact::Telemetry(Box::new(sample))).await?;
                    }
                    (SampleTo::Live, Ok(payload)) => {
                        if let Some(session) = &self.session {
                            session.publish(Up::Telemetry, payload);
                        }
                    }
                    (SampleTo::Live, Err(error)) => tracing::error!(%error, "sample not sent"),
                }
            }
            Effect::Uplink(policy) => {
                self.uplink.send_replace(*policy);
            }
            Effect::KeepTickets(tickets) => {
                if let Some(held) = &self.tickets {
                    held.keep_only(&tickets).await?;
                }
            }
            Effect::FetchCredentials => {
                if let Some(tickets) = self.tickets.clone() {
                    let events = self.events.clone();
                    self.tasks.spawn(async move {
                        let _ = events.send(tickets.fetch().await).await;
                    });
                }
            }
            Effect::EraseBucket { command, bucket } => self.erase(command, bucket),
            Effect::Retry { command, scope } => self.retry(command, scope),
            Effect::Update {
                command,
                assignment,
            } => {
                let request = UpdateRequest {
                    command,
                    assignment,
                };
                if let Some(updates) = &self.updates
                    && let Err(error) = updates.try_send(request)
                {
                    tracing::error!(%error, "update not handed on; it is at the next start");
                }
            }
        }
        Ok(None)
    }

    fn erase(&mut self, command: CommandId, bucket: String) {
        let (eraser, events) = (self.eraser.clone(), self.events.clone());
        let journal = self.journal.clone();
        self.tasks.spawn(async move {
            let done = match eraser {
                Some(eraser) => {
                    let gone = eraser.erase(bucket.clone()).await;
                    // Before the result: if the power goes between the two, the command is carried
                    // out again and both are said again.
                    if let Ok(objects) = gone {
                        let fact = Fact::Erased { bucket, objects };
                        if let Err(error) = journal.append(fact).await {
                            tracing::error!(%error, "the erasure is not in the journal");
                        }
                    }
                    gone
                }
                None => Err("the vault is closed".to_owned()),
            };
            let outcome = match done {
                Ok(objects) => Outcome::Done {
                    detail: serde_json::json!({ "objects": objects }),
                },
                Err(reason) => Outcome::Failed { reason },
            };
            let id = command;
            let _ = events.send(Event::CommandEnded { id, outcome }).await;
        });
    }

    /// A fact that finds no room is lost, which is said in the log; a journal that fails ends the
    /// agent, so that the next start repairs it.
    async fn append(&self, fact: Fact) -> Result<(), RunError> {
        match self.journal.append(fact).await {
            Ok(_) => Ok(()),
            Err(error @ (JournalError::Full { .. } | JournalError::TooLong { .. })) => {
                tracing::error!(%error, "fact not kept");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn send_batch(&self) -> Result<Event, RunError> {
        let Some(batch) = self.journal.batch().await? else {
            return Ok(Event::BatchSent { through: None });
        };
        let through = batch.entries.last().map(|e| e.number);
        let sent = match envelope::encode(&batch, clock::wall()) {
            Ok(payload) => self
                .session
                .as_ref()
                .is_some_and(|session| session.publish(Up::Journal, payload)),
            Err(error) => {
                tracing::error!(%error, "batch cannot be encoded");
                false
            }
        };
        // One that was not sent counts as sent and lost: it is sent again when its time is up.
        tracing::debug!(?through, sent, "journal batch");
        Ok(Event::BatchSent { through })
    }

    fn retry(&mut self, id: CommandId, scope: RetryScope) {
        let (retrier, events) = (self.retrier.clone(), self.events.clone());
        self.tasks.spawn(async move {
            let reset = match retrier {
                Some(retrier) => retrier.retry(scope).await,
                None => Err(longhaul_vault::Error::Closed),
            };
            let outcome = match reset {
                Ok(objects) => Outcome::Done {
                    detail: serde_json::json!({ "objects": objects }),
                },
                Err(error) => Outcome::Failed {
                    reason: crate::cloud::chain(&error),
                },
            };
            let _ = events.send(Event::CommandEnded { id, outcome }).await;
        });
    }

    fn walk(&mut self) {
        let (endpoints, climber) = (self.enrolment.endpoints(), Arc::clone(&self.climber));
        let events = self.events.clone();
        self.tasks.spawn(async move {
            let (around, seen) = climber.climb_around(&endpoints).await;
            let _ = events.send(Event::Around(around)).await;
            let _ = events.send(Event::Walked(seen)).await;
        });
    }

    fn connect(
        &mut self,
        session: longhaul_protocol::ids::SessionId,
        will: Vec<u8>,
    ) -> Option<Event> {
        let endpoints = self.enrolment.endpoints();
        let tries = self.failed_sessions;
        let endpoint = endpoints.get(tries / 2 % endpoints.len().max(1)).cloned();
        let (Some(tls), Some(endpoint)) = (self.enrolment.mqtt_tls(), endpoint) else {
            return Some(Event::SessionDown {
                session,
                refused: false,
                evidence: "the certificate's key cannot be used".to_owned(),
            });
        };
        let params = mqtt::Params {
            box_id: self.enrolment.box_id().clone(),
            session,
            // Some networks let nothing out but HTTPS: there, its port answers MQTT as well.
            port: if tries.is_multiple_of(2) {
                endpoint.mqtt_port
            } else {
                endpoint.https_port
            },
            endpoint,
            tls,
            proxy: self.climber.proxy.current(),
            keep_alive: self.keep_alive,
            connect_limit: if tries == 0 { CONNECT_FIRST } else { CONNECT },
            will,
        };
        self.session = Some(mqtt::Session::open(params, self.events.clone()));
        None
    }

    async fn sample(&self) -> Result<longhaul_protocol::telemetry::Telemetry, RunError> {
        let sampler = Arc::clone(&self.sampler);
        let mut sample = tokio::task::spawn_blocking(move || sampler.lock().sample())
            .await
            .map_err(|_| RunError::Panicked("sampling"))?;
        sample.vault = self.meter.as_ref().map(VaultMeter::fill);
        Ok(sample)
    }

    /// Shows on the LAN and at the console how things are.
    fn show(&self) {
        let fill = self
            .meter
            .as_ref()
            .map(VaultMeter::fill)
            .unwrap_or_default();
        let lan = self.lan(fill);
        self.lan_status.send_if_modified(|shown| {
            let changed = *shown != lan;
            shown.clone_from(&lan);
            changed
        });
        let saved = self.agent.saved();
        self.console.send_replace(Status {
            lan,
            lan_urls: self.agent.lan_urls().to_vec(),
            certificate_expires: self.agent.certificate_expires(),
            telemetry_interval_secs: saved.telemetry_interval_secs,
            desired_version: saved.desired_version(),
            command_counter: saved.counter,
            journal: *self.journal.position().borrow(),
            tickets: saved.desired.iter().flat_map(|d| &d.tickets).count(),
            offline: self.offline.borrow().clone(),
            guide: saved.desired.as_ref().and_then(|d| d.journey.clone()),
        });
    }

    fn lan(&self, vault: VaultFill) -> LanStatus {
        LanStatus {
            rungs: self.agent.rungs(),
            identifying: self.agent.identifying(),
            capabilities: Vec::new(),
            uplink: self.agent.uplink(),
            network: self.agent.network(clock::now()),
            vault,
            ..self.lan_status.borrow().clone()
        }
    }
}

/// Writes what the next effect waits for.
async fn save<T: Serialize + Send + 'static>(path: PathBuf, what: Box<T>) -> Result<(), RunError> {
    tokio::task::spawn_blocking(move || disk::write_json(&path, &*what))
        .await
        .map_err(|_| RunError::Panicked("saving the agent's memory"))??;
    Ok(())
}

/// Tells the agent what is in force on the way to the buckets.
pub(super) async fn watch_uplink(
    events: mpsc::Sender<Event>,
    mut state: watch::Receiver<UplinkState>,
    shutdown: CancellationToken,
) {
    loop {
        let event = Event::Uplink(*state.borrow_and_update());
        if events.send(event).await.is_err() {
            return;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = state.changed() => {
                if changed.is_err() {
                    shutdown.cancelled().await;
                }
            }
        }
    }
}
