//! The agent's mind: events in, effects out. It reads no clock, socket or file.
//!
//! Effects are carried out in their order, and one that stores something has stored it before the
//! next begins: that is how nothing is acted on before it is written down.

pub(crate) mod backoff;
pub mod command;
pub mod ladder;
mod lifecycle;
mod network;
mod orders;
pub mod saved;

use longhaul_protocol::command::{CommandUpdate, RetryScope};
use longhaul_protocol::diag::Code;
use longhaul_protocol::diag::RungReport;
use longhaul_protocol::envelope::{self, Message};
use longhaul_protocol::ids::{BoxId, CommandId, EpochId, SessionId, TicketId};
use longhaul_protocol::journal::{Fact, JournalAck, Outcome};
use longhaul_protocol::network_settings::NetworkSettings;
use longhaul_protocol::presence::{Birth, Death, Presence};
use longhaul_protocol::release::Assignment;
use longhaul_protocol::topic::{Dn, Up};
use longhaul_protocol::twin::{Reported, Slots};
use longhaul_protocol::uplink::{UplinkPolicy, UplinkState};
use longhaul_protocol::value::UnixMillis;
use longhaul_provisioning::trust::Anchors;

use crate::clock::Now;
use crate::journal::Position;
use crate::network::{Keeper, Saved as SavedNetwork};
pub use backoff::Backoff;
use command::Judge;
use ladder::{Boot, Ladder, Observation};
use lifecycle::Lifecycle;
pub use longhaul_bringup::surroundings::Surroundings;
use saved::Saved;

/// What the agent is told once.
#[derive(Clone, Debug)]
pub struct Config {
    pub box_id: BoxId,
    /// The fleet's root: who may sign commands.
    pub anchors: Anchors,
    pub agent_version: String,
    pub os_version: Option<String>,
    pub boot: Boot,
    /// The journal's epoch.
    pub epoch: EpochId,
    /// What this agent can do, by name.
    pub capabilities: Vec<String>,
    /// Whether somebody carries out updates.
    pub can_update: bool,
    /// Why the vault and everything sealed with it stay closed; `None` where they are open.
    pub locked: Option<String>,
    /// What is wrong with the vault, where what lies on the disk is not what was written.
    pub vault_failure: Option<String>,
    /// Whether there is a vault all the same.
    pub vault_open: bool,
    /// Keeps the box's own network settings.
    pub network: Keeper,
}

/// When a certificate holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Validity {
    pub issued: UnixMillis,
    pub expires: UnixMillis,
}

/// With which key the box asks for a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Credential {
    /// The factory's: first contact, and after a long time on a shelf.
    Idevid,
    /// The cloud's: renewal.
    Ldevid,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The agent begins; whether the one before it ended without saying so.
    Started { unclean: bool },
    /// Time has passed.
    Tick,
    /// A cable or an address came or went.
    LinkChanged,
    /// What is around the box, as the probes found it that end next.
    Around(Surroundings),
    /// The probes have ended, at the first rung that fails.
    Walked(Vec<Observation>),
    /// A new certificate is on the disk.
    Enrolled(Validity),
    /// There is no new certificate.
    EnrolFailed { code: Code, evidence: String },
    /// The broker has accepted the session and its subscription.
    SessionUp(SessionId),
    /// The session has ended, or never began.
    SessionDown {
        session: SessionId,
        /// Whether the broker said no, rather than nothing.
        refused: bool,
        evidence: String,
    },
    /// A message of the cloud.
    Message { channel: Dn, payload: Vec<u8> },
    /// The journal has grown or was acknowledged.
    Journal(Position),
    /// A batch was handed to the broker; `None`: there was nothing to send.
    BatchSent { through: Option<u64> },
    /// The tickets' secrets are on the disk, for this version of the desired state.
    CredentialsHeld { version: u64 },
    /// The tickets' secrets could not be had.
    CredentialsFailed { evidence: String },
    /// A command that was handed on has ended.
    CommandEnded { id: CommandId, outcome: Outcome },
    /// Where the data plane can be reached.
    LanUrls(Vec<String>),
    /// What is installed.
    Slots(Slots),
    /// What is in force on the way to the buckets.
    Uplink(UplinkState),
    /// The network settings are in force, or why they are not.
    NetworkApplied(Result<(), String>),
    /// Somebody with the claim code wants these network settings; `None`: what the box was prepared
    /// with.
    NetworkSet(Option<NetworkSettings>),
    /// Somebody was at the box's own page who had not the right to.
    Notice { part: String, text: String },
    /// The agent shall end.
    Stop,
}

/// Where a sample of health goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SampleTo {
    /// To the cloud now.
    Live,
    /// Into the journal, for later.
    Journal,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Store the memory; the next effect waits until it is on the disk.
    Save(Box<Saved>),
    /// Store what is kept and tried of network settings; the next effect waits as well.
    SaveNetwork(Box<SavedNetwork>),
    /// Put network settings in force; answer with [`Event::NetworkApplied`].
    ApplyNetwork {
        /// What is to be in force.
        settings: Box<NetworkSettings>,
        /// What may be in force now.
        instead_of: Box<NetworkSettings>,
    },
    /// Store a fact; the next effect waits until it is on the disk.
    Append(Fact),
    /// The cloud has committed these entries.
    Acknowledge(JournalAck),
    /// Send the oldest entries that are not committed; answer with [`Event::BatchSent`].
    SendBatch,
    /// Publish an encoded message.
    Publish { channel: Up, payload: Vec<u8> },
    /// Climb the ladder; answer with [`Event::Walked`].
    Walk,
    /// Ask for a certificate; answer with [`Event::Enrolled`] or [`Event::EnrolFailed`].
    Enrol(Credential),
    /// Connect to the broker, subscribe; answer with [`Event::SessionUp`] or `SessionDown`.
    Connect { session: SessionId, will: Vec<u8> },
    /// End the session after what was published is sent; no answer.
    Disconnect,
    /// Forget a connection that is being made; no answer.
    Abandon,
    /// Take a sample and send it.
    Sample {
        to: SampleTo,
        certificate_expires: Option<UnixMillis>,
        rungs: Vec<RungReport>,
    },
    /// Use the way to the buckets like this from now on.
    Uplink(Box<UplinkPolicy>),
    /// From now on no other tickets than these may write.
    KeepTickets(Vec<TicketId>),
    /// Fetch the tickets' secrets; answer with [`Event::CredentialsHeld`] or `CredentialsFailed`.
    FetchCredentials,
    /// Hand an update on; answer with [`Event::CommandEnded`]. May be handed on twice.
    Update {
        command: CommandId,
        assignment: Assignment,
    },
    /// Try to deliver objects again; answer with [`Event::CommandEnded`].
    Retry {
        command: CommandId,
        scope: RetryScope,
    },
    /// Erase what a bucket holds; the outcome comes back as [`Event::CommandEnded`].
    EraseBucket {
        /// The command.
        command: CommandId,
        /// The bucket.
        bucket: String,
    },
}

/// A source of jitter and names: a seed and what was drawn from it (`SplitMix64`).
#[derive(Clone, Copy, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Everything drawn follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The agent.
pub struct Agent {
    config: Config,
    judge: Judge,
    saved: Saved,
    ladder: Ladder,
    around: Option<Surroundings>,
    keeper: Keeper,
    life: Lifecycle,
    lan_urls: Vec<String>,
    slots: Slots,
    /// The desired state whose tickets' secrets the box holds; 0 for none.
    credentials_version: u64,
    problems: Vec<String>,
    uplink: Option<UplinkState>,
    identify_until_ms: Option<u64>,
    effects: Vec<Effect>,
}

impl Agent {
    /// An agent with the memory of the one before it.
    pub fn new(
        config: Config,
        saved: Saved,
        certificate: Option<Validity>,
        credentials_version: u64,
        journal: Position,
        now: Now,
        mut dice: Dice,
    ) -> Self {
        let locked = config.locked.clone();
        let held = saved.desired.as_ref().and_then(|d| d.held.clone());
        let mut life = Lifecycle::new(certificate, locked, journal, now, &mut dice);
        life.hold(held);
        Self {
            judge: Judge {
                box_id: config.box_id.clone(),
                anchors: config.anchors.clone(),
            },
            ladder: Ladder::new(Some(config.boot.clone()), now),
            around: None,
            keeper: config.network.clone(),
            life,
            config,
            saved,
            lan_urls: Vec::new(),
            slots: Slots::default(),
            credentials_version,
            problems: Vec::new(),
            uplink: None,
            identify_until_ms: None,
            effects: Vec::new(),
        }
    }

    /// Takes in one event and says what to do about it.
    pub fn handle(&mut self, event: Event, now: Now, mut dice: Dice) -> Vec<Effect> {
        match event {
            Event::Started { unclean } => self.started(unclean, now),
            Event::Tick => {}
            Event::LinkChanged => {
                if self.life.link_changed(now) {
                    self.effects.push(Effect::Abandon);
                }
            }
            Event::Around(around) => self.around(around),
            Event::Walked(seen) => self.walked(seen, now, &mut dice),
            Event::Enrolled(validity) => self.enrolled(validity, now, &mut dice),
            Event::EnrolFailed { code, evidence } => {
                self.enrol_failed(code, evidence, now, &mut dice);
            }
            Event::SessionUp(session) => self.session_up(&session, now),
            Event::SessionDown {
                session,
                refused,
                evidence,
            } => self.session_down(&session, refused, &evidence, now, &mut dice),
            Event::Message { channel, payload } => self.message(channel, &payload, now),
            Event::Journal(position) => self.life.journal(position),
            Event::BatchSent { through } => self.life.batch_sent(through),
            Event::CredentialsHeld { version } => self.credentials_held(version, now),
            Event::CredentialsFailed { evidence } => {
                self.credentials_failed(&evidence, now, &mut dice);
            }
            Event::CommandEnded { id, outcome } => self.end_command(&id, outcome),
            Event::LanUrls(urls) => {
                if self.lan_urls != urls {
                    self.lan_urls = urls;
                    self.report(now);
                }
            }
            Event::Slots(slots) => {
                if self.slots != slots {
                    self.slots = slots;
                    self.report(now);
                }
            }
            Event::Uplink(state) => {
                if self.uplink != Some(state) {
                    self.uplink = Some(state);
                    self.report(now);
                }
            }
            Event::NetworkApplied(result) => self.network_applied(result, now),
            Event::NetworkSet(settings) => self.network_set(settings, now),
            Event::Notice { part, text } => {
                self.effects
                    .push(Effect::Append(Fact::Notice { part, text }));
            }
            Event::Stop => self.stop(now),
        }
        self.pump(now, &mut dice);
        std::mem::take(&mut self.effects)
    }

    /// When to call again with [`Event::Tick`] at the latest, by the steady clock.
    pub fn poll_at_ms(&self, now: Now) -> u64 {
        let life = self.life.poll_at_ms(self.lacks_credentials(), now);
        let own = self.identify_until_ms.into_iter();
        own.chain(self.keeper.poll_at_ms()).fold(life, u64::min)
    }

    /// The ladder.
    pub fn rungs(&self) -> Vec<RungReport> {
        self.ladder.report()
    }

    /// The lowest rung that does not hold.
    pub fn failing(&self) -> Option<Code> {
        self.ladder.failing()
    }

    /// Whether somebody wants to know which box this is.
    pub fn identifying(&self) -> bool {
        self.identify_until_ms.is_some()
    }

    /// What is in force on the way to the buckets.
    pub fn uplink(&self) -> Option<UplinkState> {
        self.uplink
    }

    /// Where the data plane can be reached.
    pub fn lan_urls(&self) -> &[String] {
        &self.lan_urls
    }

    /// When the certificate expires.
    pub fn certificate_expires(&self) -> Option<UnixMillis> {
        self.life.certificate_expires()
    }

    /// What the agent remembers.
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    fn started(&mut self, unclean: bool, now: Now) {
        self.effects.push(Effect::Append(Fact::Started {
            agent_version: self.config.agent_version.clone(),
            boot: self.config.boot.id.clone(),
            unclean,
            since_boot_ms: Some(self.config.boot.lasted_ms(now)),
        }));
        if let Some(text) = self.config.locked.clone() {
            self.effects.push(Effect::Append(Fact::Failure {
                part: "vault".to_owned(),
                text: format!("{}: {text}", Code::STATE_CHANGED),
            }));
        }
        if let Some(text) = self.config.vault_failure.clone() {
            let part = "vault".to_owned();
            self.effects
                .push(Effect::Append(Fact::Failure { part, text }));
        }
        self.network_started(now);
        self.resume_commands();
    }

    fn around(&mut self, around: Surroundings) {
        let before = self.around.replace(around);
        let change = before.zip(self.around.as_ref());
        if let Some(change) = change.and_then(|(before, now)| before.change(now)) {
            self.ladder.changed(change);
        }
    }

    fn observe(&mut self, seen: &[Observation], now: Now) {
        let facts = self.ladder.observe(seen, now);
        self.effects.extend(facts.into_iter().map(Effect::Append));
    }

    fn save(&mut self) {
        self.effects
            .push(Effect::Save(Box::new(self.saved.clone())));
    }

    fn publish<T: Message>(&mut self, channel: Up, body: &T, now: Now) {
        match envelope::encode(body, now.wall) {
            Ok(payload) => self.effects.push(Effect::Publish { channel, payload }),
            // Only a message longer than its limit: losing it is better than losing the session.
            Err(error) => tracing::error!(%error, "message cannot be sent"),
        }
    }

    fn answer(&mut self, update: &CommandUpdate, now: Now) {
        if self.life.is_up() {
            self.publish(Up::Command, update, now);
        }
    }

    fn birth(&mut self, session: &SessionId, now: Now) {
        let birth = Birth {
            session: session.clone(),
            boot: self.config.boot.id.clone(),
            epoch: self.config.epoch.clone(),
            agent_version: self.config.agent_version.clone(),
            os_version: self.config.os_version.clone(),
            capabilities: self.config.capabilities.clone(),
            desired_version: self.saved.desired_version(),
            certificate_expires: self.life.certificate_expires().unwrap_or_default(),
            lan_urls: self.lan_urls.clone(),
            rungs: self.ladder.report(),
        };
        self.publish(Up::Presence, &Presence::Birth(birth), now);
    }

    fn death(session: &SessionId, reason: Option<&str>) -> Presence {
        Presence::Death(Death {
            session: session.clone(),
            reason: reason.map(str::to_owned),
        })
    }

    /// Says what became of the desired state, where somebody listens.
    fn report(&mut self, now: Now) {
        if !self.life.is_up() {
            return;
        }
        let held = self.config.locked.is_none()
            && self.credentials_version >= self.saved.desired_version();
        let tickets = self.saved.desired.iter().flat_map(|d| &d.tickets);
        let reported = Reported {
            desired_version: self.saved.desired_version(),
            telemetry_interval_secs: self.saved.telemetry_interval_secs,
            agent_version: self.config.agent_version.clone(),
            slots: self.slots.clone(),
            tickets: if held {
                tickets.map(|t| t.id.clone()).collect()
            } else {
                Vec::new()
            },
            lan_urls: self.lan_urls.clone(),
            problems: self
                .problems
                .iter()
                .chain(&self.config.locked)
                // An open vault has lost nothing that was promised: that is told once.
                .chain(
                    self.config
                        .vault_failure
                        .iter()
                        .filter(|_| !self.config.vault_open),
                )
                .cloned()
                .collect(),
            uplink: self.uplink,
            network: self.keeper.report(now),
        };
        self.publish(Up::Reported, &reported, now);
    }

    fn sample(&mut self, to: SampleTo) {
        self.effects.push(Effect::Sample {
            to,
            certificate_expires: self.life.certificate_expires(),
            rungs: self.ladder.report(),
        });
    }
}

#[cfg(test)]
mod tests;
