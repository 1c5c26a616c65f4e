//! When to climb, enrol, connect, send and try again.

use longhaul_protocol::diag::{Code, Rung};
use longhaul_protocol::envelope;
use longhaul_protocol::ids::SessionId;
use longhaul_protocol::journal::Fact;
use longhaul_protocol::topic::Up;
use longhaul_protocol::value::UnixMillis;

use super::backoff::Backoff;
use super::ladder::Observation;
use super::{Agent, Credential, Dice, Effect, SampleTo, Validity};
use crate::clock::Now;
use crate::journal::Position;
use crate::network::Contact;

/// Between two climbs while everything holds.
const WALK_MS: u64 = 300_000;
/// While something does not, at first and at the latest; a link that changes is looked at at once.
const WALK_FAILING_MS: u64 = 5_000;
const WALK_FAILING_MAX_MS: u64 = 30_000;
/// Between two samples in the journal while nobody listens.
const SPOOL_MS: u64 = 600_000;
/// An acknowledgement that takes longer is asked for again, at first and at the latest.
const ACK_MS: u64 = 15_000;
const ACK_MAX_MS: u64 = 300_000;
/// A session that lasted this long was a good one: the next failure is a new one.
const GOOD_SESSION_MS: u64 = 30_000;
/// A certificate younger than this, asked for after a refusal, is not the reason for the next one.
const FRESH_CERTIFICATE_MS: i64 = 60_000;
/// The wall clock may be set meanwhile, so it is looked at again after this long.
const WALL_CHECK_MS: u64 = 60_000;

#[derive(Clone, Debug, Eq, PartialEq)]
enum Session {
    Down,
    Connecting(SessionId),
    Up { id: SessionId, since_ms: u64 },
}

/// Something that is tried until it works.
#[derive(Clone, Debug)]
struct Attempt {
    /// By the steady clock; not before.
    at_ms: u64,
    running: bool,
    backoff: Backoff,
}

impl Attempt {
    fn at(at_ms: u64) -> Self {
        Self {
            at_ms,
            running: false,
            backoff: Backoff::new(1_000, 300_000),
        }
    }

    fn start(&mut self, now: Now) -> bool {
        let due = !self.running && self.at_ms <= now.mono_ms;
        self.running |= due;
        due
    }

    fn failed(&mut self, now: Now, dice: &mut Dice) {
        self.running = false;
        self.at_ms = now.mono_ms + self.backoff.next(dice.draw());
    }

    fn reset(&mut self, now: Now) {
        self.backoff.reset();
        self.at_ms = self.at_ms.min(now.mono_ms);
    }
}

/// A certificate and when to ask for the next one.
#[derive(Clone, Copy, Debug)]
struct Certificate {
    validity: Validity,
    renew: UnixMillis,
}

#[derive(Debug)]
struct InFlight {
    through: Option<u64>,
    until_ms: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Walk {
    Resting,
    Climbing,
    /// Something happened meanwhile: what is seen may be out of date.
    ClimbingTwice,
}

/// Everything that has its time.
#[derive(Debug)]
pub(super) struct Lifecycle {
    certificate: Option<Certificate>,
    /// Why the vault stays closed.
    locked: Option<String>,
    /// Why the cloud holds the box back.
    held: Option<String>,
    enrol: Attempt,
    enrol_failure: Option<Observation>,
    /// The cloud refused the certificate that it issued: show the factory's next.
    idevid_next: bool,
    connect: Attempt,
    session: Session,
    session_failure: Option<Observation>,
    /// Since the last session, the broker has refused one and a new certificate was asked for.
    asked_why: bool,
    walk_at_ms: u64,
    walk: Walk,
    walk_backoff: Backoff,
    telemetry_at_ms: u64,
    spool_at_ms: u64,
    journal: Position,
    in_flight: Option<InFlight>,
    ack_ms: u64,
    credentials: Attempt,
    stopping: bool,
}

impl Lifecycle {
    pub(super) fn new(
        certificate: Option<Validity>,
        locked: Option<String>,
        journal: Position,
        now: Now,
        dice: &mut Dice,
    ) -> Self {
        Self {
            certificate: certificate.map(|validity| Certificate {
                validity,
                // Another state of the machine is the cloud's business at once, not at half life.
                renew: match &locked {
                    Some(_) => now.wall,
                    None => half_life(validity, dice.draw()),
                },
            }),
            locked,
            held: None,
            enrol: Attempt::at(now.mono_ms),
            enrol_failure: None,
            idevid_next: false,
            connect: Attempt::at(now.mono_ms),
            session: Session::Down,
            session_failure: None,
            asked_why: false,
            walk_at_ms: now.mono_ms,
            walk: Walk::Resting,
            walk_backoff: Backoff::new(WALK_FAILING_MS, WALK_FAILING_MAX_MS),
            telemetry_at_ms: now.mono_ms,
            spool_at_ms: now.mono_ms + SPOOL_MS,
            journal,
            in_flight: None,
            ack_ms: ACK_MS,
            credentials: Attempt::at(now.mono_ms),
            stopping: false,
        }
    }

    /// Takes over why the cloud holds the box back; whether that is news.
    pub(super) fn hold(&mut self, held: Option<String>) -> bool {
        let news = self.held != held;
        self.held = held;
        news
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.session, Session::Up { .. })
    }

    pub(super) fn certificate_expires(&self) -> Option<UnixMillis> {
        self.certificate.map(|c| c.validity.expires)
    }

    fn certified(&self, now: Now) -> bool {
        self.certificate
            .is_some_and(|c| now.wall < c.validity.expires)
    }

    fn enrol_wanted(&self, now: Now) -> bool {
        self.certificate.is_none_or(|c| now.wall >= c.renew)
    }

    /// Begins anew with everything that did not work; whether a connection that was being made is
    /// to be forgotten, because it began on another network.
    pub(super) fn link_changed(&mut self, now: Now) -> bool {
        self.try_anew(now);
        self.credentials.reset(now);
        self.walk_backoff.reset();
        self.walk_soon(now);
        let connecting = matches!(self.session, Session::Connecting(_));
        if connecting {
            self.session = Session::Down;
        }
        connecting
    }

    fn try_anew(&mut self, now: Now) {
        self.connect.reset(now);
        self.enrol.reset(now);
    }

    fn walk_soon(&mut self, now: Now) {
        self.walk_at_ms = now.mono_ms;
        if self.walk == Walk::Climbing {
            self.walk = Walk::ClimbingTwice;
        }
    }

    pub(super) fn telemetry_due(&mut self, now: Now) {
        self.telemetry_at_ms = now.mono_ms;
    }

    pub(super) fn journal(&mut self, position: Position) {
        self.journal = position;
        let through = self.in_flight.as_ref().and_then(|b| b.through);
        if through.is_some_and(|through| position.acked >= through) {
            self.in_flight = None;
            self.ack_ms = ACK_MS;
        }
    }

    pub(super) fn batch_sent(&mut self, through: Option<u64>) {
        match (&mut self.in_flight, through) {
            (Some(batch), Some(through)) if through > self.journal.acked => {
                batch.through = Some(through);
            }
            _ => self.in_flight = None,
        }
    }

    pub(super) fn fetch_credentials(&mut self, now: Now) {
        self.credentials.backoff.reset();
        self.credentials.at_ms = now.mono_ms;
    }

    pub(super) fn credentials_held(&mut self) {
        self.credentials.running = false;
        self.credentials.backoff.reset();
    }

    pub(super) fn credentials_failed(&mut self, now: Now, dice: &mut Dice) {
        self.credentials.failed(now, dice);
    }

    /// What is known of the two rungs that the agent climbs itself.
    fn own_rungs(&self, now: Now) -> Vec<Observation> {
        let mut seen = Vec::new();
        let refused = |o: &&Observation| o.code != Some(Code::ENROL_UNAVAILABLE);
        let locked = self.locked.as_ref();
        match (&self.enrol_failure, self.certificate) {
            (failure, _) if locked.is_some() => {
                let evidence = locked
                    .into_iter()
                    .chain(failure.iter().map(|f| &f.evidence));
                let evidence: Vec<_> = evidence.map(String::as_str).collect();
                seen.push(Observation::failed(
                    Code::STATE_CHANGED,
                    evidence.join("; the cloud: "),
                ));
            }
            (Some(failure), _) if refused(&failure) => seen.push(failure.clone()),
            (_, Some(_)) if self.held.is_some() => {
                let why = self.held.clone().unwrap_or_default();
                seen.push(Observation::failed(Code::HELD_BACK, why));
            }
            (_, Some(c)) if self.certified(now) => {
                let hours = c.validity.expires.millis_since(now.wall) / 3_600_000;
                let evidence = format!("certificate holds for {hours} h");
                seen.push(Observation::ok(Rung::Enrolled, evidence));
            }
            (Some(failure), _) => seen.push(failure.clone()),
            (None, _) => {}
        }
        match (&self.session, &self.session_failure) {
            (Session::Up { .. }, _) => seen.push(Observation::ok(Rung::Broker, "session is up")),
            (_, Some(failure)) => seen.push(failure.clone()),
            _ => {}
        }
        seen
    }

    pub(super) fn poll_at_ms(&self, lacks_credentials: bool, now: Now) -> u64 {
        let mut at = now.mono_ms + WALL_CHECK_MS;
        if self.stopping {
            return at;
        }
        let mut consider = |wanted: bool, candidate: u64| {
            if wanted {
                at = at.min(candidate);
            }
        };
        consider(self.walk == Walk::Resting, self.walk_at_ms);
        if let Some(certificate) = self.certificate {
            let left = certificate.renew.millis_since(now.wall);
            consider(left > 0, now.mono_ms + u64::try_from(left).unwrap_or(0));
        }
        consider(
            self.enrol_wanted(now) && !self.enrol.running,
            self.enrol.at_ms,
        );
        consider(
            self.certified(now) && self.session == Session::Down,
            self.connect.at_ms,
        );
        consider(self.is_up(), self.telemetry_at_ms);
        consider(!self.is_up(), self.spool_at_ms);
        if let Some(batch) = &self.in_flight {
            consider(true, batch.until_ms);
        }
        consider(
            lacks_credentials && self.certified(now) && !self.credentials.running,
            self.credentials.at_ms,
        );
        at
    }
}

/// Half way through the certificate's life, give or take a twentieth of it.
fn half_life(validity: Validity, entropy: u64) -> UnixMillis {
    let life = validity.expires.millis_since(validity.issued).max(0);
    let spread = u64::try_from(life / 10).unwrap_or(0).max(1);
    let jitter = i64::try_from(entropy % spread).unwrap_or(0) - life / 20;
    validity.issued.plus_millis(life / 2 + jitter)
}

impl Agent {
    /// Says that the cloud holds the box back, or does so no more.
    pub(super) fn hold(&mut self, held: Option<String>, now: Now) {
        if self.life.hold(held) {
            let seen = self.life.own_rungs(now);
            self.observe(&seen, now);
        }
    }

    /// Starts everything whose time has come.
    pub(super) fn pump(&mut self, now: Now, dice: &mut Dice) {
        if self.identify_until_ms.is_some_and(|at| at <= now.mono_ms) {
            self.identify_until_ms = None;
        }
        if self.life.stopping {
            return;
        }
        self.network_tick(now);
        if self.life.walk == Walk::Resting && self.life.walk_at_ms <= now.mono_ms {
            self.life.walk = Walk::Climbing;
            self.effects.push(Effect::Walk);
        }
        if self.life.enrol_wanted(now) && self.life.enrol.start(now) {
            let renewal = self.life.certified(now) && !self.life.idevid_next;
            self.effects.push(Effect::Enrol(if renewal {
                Credential::Ldevid
            } else {
                Credential::Idevid
            }));
        }
        if self.life.certified(now) && self.life.session == Session::Down {
            self.connect(now, dice);
        }
        if self.lacks_credentials() && self.life.certified(now) && self.life.credentials.start(now)
        {
            self.effects.push(Effect::FetchCredentials);
        }
        if self.life.is_up() {
            self.send(now);
        } else if self.life.spool_at_ms <= now.mono_ms {
            self.life.spool_at_ms = now.mono_ms + SPOOL_MS;
            self.sample(SampleTo::Journal);
        }
    }

    fn connect(&mut self, now: Now, dice: &mut Dice) {
        if self.life.connect.at_ms > now.mono_ms {
            return;
        }
        let name = format!("{:016x}{:016x}", dice.draw(), dice.draw());
        // Hexadecimal digits are always an identifier, so this cannot fail.
        let Ok(session) = name.parse::<SessionId>() else {
            return;
        };
        match envelope::encode(&Self::death(&session, None), now.wall) {
            Ok(will) => {
                self.life.session = Session::Connecting(session.clone());
                self.effects.push(Effect::Connect { session, will });
            }
            Err(error) => tracing::error!(%error, "will cannot be encoded"),
        }
    }

    fn send(&mut self, now: Now) {
        if self.life.telemetry_at_ms <= now.mono_ms {
            let interval = u64::from(self.saved.telemetry_interval_secs) * 1000;
            self.life.telemetry_at_ms = now.mono_ms + interval;
            self.sample(SampleTo::Live);
        }
        if matches!(&self.life.in_flight, Some(b) if b.until_ms <= now.mono_ms) {
            self.life.in_flight = None;
            self.life.ack_ms = (self.life.ack_ms * 2).min(ACK_MAX_MS);
        }
        if self.life.in_flight.is_none() && self.life.journal.last > self.life.journal.acked {
            self.life.in_flight = Some(InFlight {
                through: None,
                until_ms: now.mono_ms + self.life.ack_ms,
            });
            self.effects.push(Effect::SendBatch);
        }
    }

    pub(super) fn walked(&mut self, mut seen: Vec<Observation>, now: Now, dice: &mut Dice) {
        let again = self.life.walk == Walk::ClimbingTwice;
        self.life.walk = Walk::Resting;
        if !again {
            self.network_walked(&seen, now);
        }
        if seen.iter().all(|o| o.code.is_none()) {
            // The way is free again: what had to wait for it waits no longer.
            let below = |code: Code| code.entry().rung < Rung::Enrolled;
            if self.ladder.failing().is_some_and(below) {
                self.life.try_anew(now);
            }
            seen.extend(self.life.own_rungs(now));
        }
        self.observe(&seen, now);
        self.drop_session_without_link(now, dice);
        let wait = match self.ladder.failing() {
            _ if again => 0,
            None => {
                self.life.walk_backoff.reset();
                WALK_MS
            }
            Some(_) => self.life.walk_backoff.next(dice.draw()),
        };
        self.life.walk_at_ms = now.mono_ms + wait;
    }

    /// Without a cable or an address there is no session, whatever TCP still believes.
    fn drop_session_without_link(&mut self, now: Now, dice: &mut Dice) {
        let failing = self.ladder.failing().map(|code| code.entry().rung);
        if let Session::Up { id, .. } = self.life.session.clone()
            && failing.is_some_and(|rung| rung <= Rung::Address)
        {
            self.effects.push(Effect::Abandon);
            self.session_down(&id, false, "the link is gone", now, dice);
        }
    }

    pub(super) fn enrolled(&mut self, validity: Validity, now: Now, dice: &mut Dice) {
        self.life.certificate = Some(Certificate {
            validity,
            renew: half_life(validity, dice.draw()),
        });
        self.life.enrol.running = false;
        self.life.enrol.reset(now);
        self.life.enrol_failure = None;
        self.life.idevid_next = false;
        self.life.connect.reset(now);
        self.effects.push(Effect::Append(Fact::Certificate {
            expires: validity.expires,
        }));
        let seen = self.life.own_rungs(now);
        self.observe(&seen, now);
        // The broker ends a session with its certificate; better now than in the middle of something.
        if self.life.is_up() {
            self.leave("certificate renewed", now);
        }
    }

    /// Ends the session that is there, and forgets one that is being made; the next one begins anew.
    pub(super) fn leave(&mut self, reason: &str, now: Now) {
        match std::mem::replace(&mut self.life.session, Session::Down) {
            Session::Up { id, .. } => {
                let death = Self::death(&id, Some(reason));
                self.publish(Up::Presence, &death, now);
                self.effects.push(Effect::Disconnect);
                self.life.in_flight = None;
            }
            Session::Connecting(_) => self.effects.push(Effect::Abandon),
            Session::Down => {}
        }
    }

    pub(super) fn enrol_failed(&mut self, code: Code, evidence: String, now: Now, dice: &mut Dice) {
        tracing::warn!(%code, evidence, "not enrolled");
        self.life.enrol.failed(now, dice);
        self.life.idevid_next = code != Code::ENROL_UNAVAILABLE;
        self.life.enrol_failure = Some(Observation::failed(code, evidence));
        // What failed may lie lower: climb before blaming the cloud.
        self.life.walk_soon(now);
    }

    pub(super) fn session_up(&mut self, session: &SessionId, now: Now) {
        if self.life.session != Session::Connecting(session.clone()) {
            return;
        }
        tracing::info!(%session, "session is up");
        self.life.session = Session::Up {
            id: session.clone(),
            since_ms: now.mono_ms,
        };
        self.life.session_failure = None;
        self.life.asked_why = false;
        self.life.in_flight = None;
        self.life.ack_ms = ACK_MS;
        self.life.telemetry_due(now);
        let seen = self.life.own_rungs(now);
        self.observe(&seen, now);
        self.birth(session, now);
        self.network_reached(Contact::Session, now);
        self.report(now);
    }

    pub(super) fn session_down(
        &mut self,
        session: &SessionId,
        refused: bool,
        evidence: &str,
        now: Now,
        dice: &mut Dice,
    ) {
        let code = match &self.life.session {
            Session::Up { id, since_ms } if id == session => {
                if now.mono_ms.saturating_sub(*since_ms) >= GOOD_SESSION_MS {
                    self.life.connect.backoff.reset();
                }
                Code::BROKER_LOST
            }
            Session::Connecting(id) if id == session && refused => Code::BROKER_REFUSED,
            Session::Connecting(id) if id == session => Code::BROKER_BLOCKED,
            _ => return,
        };
        tracing::warn!(%session, %code, evidence, "session is down");
        self.life.session = Session::Down;
        self.life.in_flight = None;
        self.life.spool_at_ms = now.mono_ms + SPOOL_MS;
        self.life.connect.failed(now, dice);
        let failure = Observation::failed(code, evidence);
        // One that never came up may have its reason lower; one that was up is gone, whatever for.
        if code == Code::BROKER_LOST {
            self.observe(std::slice::from_ref(&failure), now);
        }
        self.life.session_failure = Some(failure);
        self.life.walk_soon(now);
        // The broker does not say why; asking for a new certificate does: at once, then now and then.
        let age = |c: &Certificate| now.wall.millis_since(c.validity.issued);
        if refused
            && let Some(certificate) = &mut self.life.certificate
            && (!self.life.asked_why || age(certificate) > FRESH_CERTIFICATE_MS)
        {
            certificate.renew = now.wall;
            self.life.asked_why = true;
        }
    }

    pub(super) fn stop(&mut self, now: Now) {
        self.life.stopping = true;
        if let Session::Up { id, .. } = self.life.session.clone() {
            let death = Self::death(&id, Some("agent stops"));
            self.publish(Up::Presence, &death, now);
        }
        self.effects.push(Effect::Disconnect);
        self.life.session = Session::Down;
    }
}
