use std::sync::LazyLock;

use longhaul_protocol::command::{
    CommandClaims, CommandKind, CommandState, Rejection, SignedCommand,
};
use longhaul_protocol::diag::Rung;
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::journal::JournalBatch;
use longhaul_protocol::release::Assignment;
use longhaul_protocol::twin::{Desired, SignedDesired, TicketRef};
use longhaul_protocol::uplink::{UplinkPolicy, Week};
use longhaul_protocol::value::{Digest32, Jws};
use longhaul_provisioning::ca::Pki;
use longhaul_provisioning::jws::{Kind, Signer};
use proptest::prelude::*;

use super::*;
use crate::network::Keeper;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const HOUR_MS: i64 = 3_600_000;

/// A fleet that is trusted, and one that is not.
struct Fleet {
    anchors: Anchors,
    commander: Signer,
    ticketer: Signer,
}

fn fleet() -> Fleet {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::init(&dir.path().join("pki"), NOW).unwrap();
    let commander = pki.issue_command_signer("ada", 3_600, NOW).unwrap();
    let ticketer = pki.issue_statement_signer("cloud", 3_600, NOW).unwrap();
    Fleet {
        anchors: pki.root_anchor().unwrap(),
        commander: Signer::new(&commander).unwrap(),
        ticketer: Signer::new(&ticketer).unwrap(),
    }
}

static OURS: LazyLock<Fleet> = LazyLock::new(fleet);
static OTHERS: LazyLock<Fleet> = LazyLock::new(fleet);

fn box_id() -> BoxId {
    "0123456789AB".parse().unwrap()
}

fn at(mono_ms: u64) -> Now {
    Now {
        mono_ms: 0,
        wall: NOW,
    }
    .after_millis(mono_ms)
}

fn config() -> Config {
    Config {
        box_id: box_id(),
        anchors: OURS.anchors.clone(),
        agent_version: "1.0.0".to_owned(),
        os_version: None,
        boot: Boot {
            id: "boot".parse().unwrap(),
            before_ms: 9_000,
        },
        epoch: "epoch".parse().unwrap(),
        capabilities: Vec::new(),
        can_update: true,
        locked: None,
        vault_failure: None,
        vault_open: true,
        network: Keeper::default(),
    }
}

fn validity() -> Validity {
    Validity {
        issued: NOW,
        expires: NOW.plus_millis(72 * HOUR_MS),
    }
}

fn agent_with(saved: Saved, certificate: Option<Validity>) -> Agent {
    Agent::new(
        config(),
        saved,
        certificate,
        0,
        Position::default(),
        at(0),
        Dice::new(1),
    )
}

/// An agent whose session is up.
fn connected(saved: Saved) -> Agent {
    let mut agent = agent_with(saved, Some(validity()));
    let effects = agent.handle(Event::Started { unclean: false }, at(0), Dice::new(1));
    let session = effects.iter().find_map(|e| match e {
        Effect::Connect { session, .. } => Some(session.clone()),
        _ => None,
    });
    let session = session.expect("connects at once");
    agent.handle(Event::SessionUp(session), at(1), Dice::new(2));
    agent
}

fn claims(id: &str, counter: u64, command: CommandKind) -> CommandClaims {
    CommandClaims {
        v: VERSION,
        id: id.parse().unwrap(),
        box_id: box_id(),
        counter,
        not_before: NOW.plus_secs(-10),
        expires: NOW.plus_secs(600),
        issued_by: "ada".to_owned(),
        approved_by: None,
        command,
    }
}

fn message(jws: Jws) -> Event {
    Event::Message {
        channel: Dn::Command,
        payload: envelope::encode(
            &SignedCommand {
                jws,
                traceparent: None,
            },
            NOW,
        )
        .unwrap(),
    }
}

fn signed(claims: &CommandClaims) -> Event {
    let payload = serde_json::to_vec(claims).unwrap();
    message(OURS.commander.sign(Kind::Command, &payload).unwrap())
}

fn states(effects: &[Effect]) -> Vec<CommandState> {
    let updates = effects.iter().filter_map(|e| match e {
        Effect::Publish {
            channel: Up::Command,
            payload,
        } => Some(envelope::decode::<CommandUpdate>(payload).unwrap().body),
        _ => None,
    });
    updates.map(|u| u.state).collect()
}

fn rejection(effects: &[Effect]) -> Option<Rejection> {
    match states(effects).as_slice() {
        [CommandState::Rejected { reason, .. }] => Some(*reason),
        _ => None,
    }
}

fn results(effects: &[Effect]) -> Vec<(CommandId, Outcome)> {
    let results = effects.iter().filter_map(|e| match e {
        Effect::Append(Fact::CommandResult { id, outcome }) => Some((id.clone(), outcome.clone())),
        _ => None,
    });
    results.collect()
}

fn interval(seconds: u16) -> CommandKind {
    CommandKind::SetTelemetryInterval { seconds }
}

#[test]
fn a_command_is_stored_before_it_is_answered_and_carried_out() {
    let mut agent = connected(Saved::default());

    let effects = agent.handle(signed(&claims("c1", 1, interval(5))), at(2), Dice::new(3));

    let Effect::Save(first) = &effects[0] else {
        panic!("stored first: {effects:?}");
    };
    assert_eq!(first.counter, 1);
    assert_eq!(first.unfinished().count(), 1);
    assert_eq!(states(&effects), [CommandState::Accepted]);
    assert_eq!(results(&effects).len(), 1);
    assert_eq!(agent.saved().telemetry_interval_secs, 5);
    assert_eq!(agent.saved().unfinished().count(), 0);
}

#[test]
fn what_is_not_a_command_for_this_box_now_is_refused_with_its_reason() {
    let good = claims("c1", 7, CommandKind::ReportNow);
    let payload = |c: &CommandClaims| serde_json::to_vec(c).unwrap();
    let with = |change: fn(&mut CommandClaims)| {
        let mut changed = good.clone();
        change(&mut changed);
        signed(&changed)
    };
    let sign = |signer: &Signer, kind| message(signer.sign(kind, &payload(&good)).unwrap());
    let altered = {
        let Jws(text) = OURS.commander.sign(Kind::Command, &payload(&good)).unwrap();
        let (head, _) = text.rsplit_once('.').unwrap();
        message(Jws(format!("{head}.{}", "A".repeat(86))))
    };
    let raw = |bytes: &[u8]| Event::Message {
        channel: Dn::Command,
        payload: bytes.to_vec(),
    };
    let unknown_kind = {
        let mut value = serde_json::to_value(&good).unwrap();
        value["command"]["kind"] = "make_coffee".into();
        let bytes = serde_json::to_vec(&value).unwrap();
        message(OURS.commander.sign(Kind::Command, &bytes).unwrap())
    };
    let table = [
        ("garbage", raw(b"\xff\x00garbage"), Rejection::Malformed),
        ("empty", raw(b""), Rejection::Malformed),
        (
            "not a JWS",
            message(Jws("x".to_owned())),
            Rejection::Unsigned,
        ),
        ("signature altered", altered, Rejection::Unsigned),
        (
            "other fleet",
            sign(&OTHERS.commander, Kind::Command),
            Rejection::Unsigned,
        ),
        (
            "signer of tickets",
            sign(&OURS.ticketer, Kind::Command),
            Rejection::Unsigned,
        ),
        (
            "desired state",
            sign(&OURS.commander, Kind::Desired),
            Rejection::Unsigned,
        ),
        (
            "other box",
            with(|c| c.box_id = "ZZZZZZZZZZZZ".parse().unwrap()),
            Rejection::WrongBox,
        ),
        (
            "too early",
            with(|c| c.not_before = NOW.plus_secs(60)),
            Rejection::TooEarly,
        ),
        (
            "expired",
            with(|c| c.expires = NOW.plus_secs(-1)),
            Rejection::Expired,
        ),
        ("replayed", with(|c| c.counter = 5), Rejection::Replayed),
        (
            "out of range",
            with(|c| c.command = interval(0)),
            Rejection::Unsupported,
        ),
        ("new version", with(|c| c.v = 9), Rejection::Unsupported),
        ("unknown kind", unknown_kind, Rejection::Unsupported),
    ];
    for (name, event, expected) in table {
        let mut agent = connected(Saved {
            counter: 5,
            ..Saved::default()
        });

        let effects = agent.handle(event, at(2), Dice::new(3));

        assert_eq!(rejection(&effects), Some(expected), "{name}: {effects:?}");
        assert_eq!(results(&effects), [], "{name}");
        assert_eq!(agent.saved().counter, 5, "{name}");
    }
}

#[test]
fn a_counter_is_not_accepted_twice_after_a_restart() {
    let mut agent = connected(Saved::default());
    agent.handle(
        signed(&claims("c1", 3, CommandKind::ReportNow)),
        at(2),
        Dice::new(3),
    );
    let stored = serde_json::to_string(agent.saved()).unwrap();

    let mut agent = connected(serde_json::from_str(&stored).unwrap());

    for counter in [1, 3] {
        let replay = signed(&claims("c2", counter, CommandKind::ReportNow));
        let effects = agent.handle(replay, at(2), Dice::new(3));
        assert_eq!(rejection(&effects), Some(Rejection::Replayed));
    }
    let same_name = signed(&claims("c1", 4, CommandKind::ReportNow));
    let effects = agent.handle(same_name, at(2), Dice::new(3));
    assert_eq!(rejection(&effects), Some(Rejection::Replayed));
}

#[test]
fn a_command_that_was_done_answers_with_its_result_again() {
    let command = claims("c1", 3, interval(5));
    let mut agent = connected(Saved::default());
    let first = agent.handle(signed(&command), at(2), Dice::new(3));
    let mut agent = connected(agent.saved().clone());

    let again = agent.handle(signed(&command), at(3), Dice::new(4));

    assert_eq!(states(&again), [CommandState::Accepted]);
    assert_eq!(results(&again), results(&first));
    assert!(!again.iter().any(|e| matches!(e, Effect::Save(_))));
}

#[test]
fn one_update_at_a_time_is_handed_on_until_it_has_ended() {
    let update = |id: &str, counter| {
        claims(
            id,
            counter,
            CommandKind::Update(Assignment {
                rollout: "r".parse().unwrap(),
                version: "2".to_owned(),
                target: "t".to_owned(),
                sha256: Digest32([0; 32]),
                length: 1,
            }),
        )
    };
    let handed_on = |effects: &[Effect]| {
        let updates = effects
            .iter()
            .filter(|e| matches!(e, Effect::Update { .. }));
        updates.count()
    };
    let mut agent = connected(Saved::default());
    assert_eq!(
        handed_on(&agent.handle(signed(&update("u1", 1)), at(2), Dice::new(3))),
        1
    );

    let second = agent.handle(signed(&update("u2", 2)), at(3), Dice::new(4));
    assert_eq!(rejection(&second), Some(Rejection::Busy));
    let mut agent = agent_with(agent.saved().clone(), Some(validity()));
    let restarted = agent.handle(Event::Started { unclean: true }, at(4), Dice::new(5));
    assert_eq!(handed_on(&restarted), 1);

    let ended = Event::CommandEnded {
        id: "u1".parse().unwrap(),
        outcome: Outcome::Done {
            detail: serde_json::Value::Null,
        },
    };
    assert_eq!(
        results(&agent.handle(ended.clone(), at(5), Dice::new(6))).len(),
        1
    );
    assert_eq!(results(&agent.handle(ended, at(6), Dice::new(7))).len(), 0);
}

fn desired(version: u64, tickets: &[&str]) -> Event {
    let desired = Desired {
        v: VERSION,
        box_id: box_id(),
        version,
        telemetry_interval_secs: 9,
        tickets: tickets
            .iter()
            .map(|id| TicketRef {
                id: id.parse().unwrap(),
                access_key: (*id).to_owned(),
                expires: NOW.plus_secs(60),
            })
            .collect(),
        uplink: UplinkPolicy::default(),
        network: None,
        held: None,
        journey: None,
    };
    signed_desired(&desired)
}

fn signed_desired(desired: &Desired) -> Event {
    let payload = serde_json::to_vec(desired).unwrap();
    let jws = OURS.commander.sign(Kind::Desired, &payload).unwrap();
    Event::Message {
        channel: Dn::Desired,
        payload: envelope::encode(&SignedDesired { jws }, NOW).unwrap(),
    }
}

fn reported(effects: &[Effect]) -> Option<Reported> {
    effects.iter().rev().find_map(|e| match e {
        Effect::Publish {
            channel: Up::Reported,
            payload,
        } => Some(envelope::decode(payload).unwrap().body),
        _ => None,
    })
}

fn wanted(version: u64, uplink: UplinkPolicy) -> Event {
    signed_desired(&Desired {
        v: VERSION,
        box_id: box_id(),
        version,
        telemetry_interval_secs: 9,
        tickets: Vec::new(),
        uplink,
        network: None,
        held: None,
        journey: None,
    })
}

fn paused() -> UplinkPolicy {
    UplinkPolicy {
        paused: true,
        ..UplinkPolicy::default()
    }
}

#[test]
fn a_pause_is_written_down_before_it_is_acted_on_and_reported_when_in_force() {
    let mut agent = connected(Saved::default());

    let effects = agent.handle(wanted(4, paused()), at(2), Dice::new(3));

    let saved = effects.iter().position(|e| match e {
        Effect::Save(saved) => saved.uplink() == paused(),
        _ => false,
    });
    let acted = Effect::Uplink(Box::new(paused()));
    let acted = effects.iter().position(|e| *e == acted);
    assert!(saved.is_some() && saved < acted, "{effects:?}");

    let in_force = paused().state_at(0);
    let effects = agent.handle(Event::Uplink(in_force), at(3), Dice::new(4));
    assert_eq!(reported(&effects).unwrap().uplink, Some(in_force));
    let effects = agent.handle(Event::Uplink(in_force), at(4), Dice::new(5));
    assert_eq!(reported(&effects), None, "nothing new");
}

#[test]
fn a_policy_that_cannot_be_applied_is_reported_and_the_one_before_stays() {
    let mut agent = connected(Saved::default());
    agent.handle(wanted(4, paused()), at(2), Dice::new(3));
    let slow = Week {
        utc_offset_minutes: 0,
        limits: Box::new([[Some(1); 24]; 7]),
    };
    let slow = UplinkPolicy {
        week: Some(slow),
        ..UplinkPolicy::default()
    };

    let effects = agent.handle(wanted(5, slow), at(3), Dice::new(4));

    assert!(effects.contains(&Effect::Uplink(Box::new(paused()))));
    assert_eq!(agent.saved().uplink(), paused());
    let reported = reported(&effects).unwrap();
    assert_eq!(reported.desired_version, 5);
    assert!(reported.problems[0].contains("Monday"), "{reported:?}");
}

#[test]
fn a_new_ticket_is_fetched_and_then_reported() {
    let mut agent = connected(Saved::default());

    let effects = agent.handle(desired(4, &["t1"]), at(2), Dice::new(3));

    assert!(matches!(effects[0], Effect::Save(_)), "{effects:?}");
    assert!(effects.contains(&Effect::KeepTickets(vec!["t1".parse().unwrap()])));
    assert!(effects.contains(&Effect::FetchCredentials));
    assert!(reported(&effects).unwrap().tickets.is_empty());

    let failed = Event::CredentialsFailed {
        evidence: "no route".to_owned(),
    };
    let effects = agent.handle(failed, at(3), Dice::new(4));
    assert!(
        !effects.contains(&Effect::FetchCredentials),
        "only after a pause"
    );
    let later = at(agent.poll_at_ms(at(3)).max(1_100));
    let effects = agent.handle(Event::Tick, later, Dice::new(5));
    assert!(effects.contains(&Effect::FetchCredentials), "{effects:?}");

    let held = agent.handle(Event::CredentialsHeld { version: 4 }, later, Dice::new(6));
    assert_eq!(reported(&held).unwrap().tickets.len(), 1);
    assert_eq!(reported(&held).unwrap().desired_version, 4);
}

#[test]
fn an_older_desired_state_changes_nothing() {
    let mut agent = connected(Saved::default());
    agent.handle(desired(4, &[]), at(2), Dice::new(3));

    for version in [3, 4] {
        let effects = agent.handle(desired(version, &["t1"]), at(3), Dice::new(4));

        assert_eq!(reported(&effects).unwrap().desired_version, 4);
        assert!(
            !effects
                .iter()
                .any(|e| matches!(e, Effect::Save(_) | Effect::FetchCredentials))
        );
    }
}

#[test]
fn a_box_that_lay_on_a_shelf_shows_the_factorys_certificate() {
    let enrols_with = |certificate, now: Now| {
        let mut agent = agent_with(Saved::default(), certificate);
        let effects = agent.handle(Event::Started { unclean: false }, now, Dice::new(1));
        effects.into_iter().find_map(|e| match e {
            Effect::Enrol(credential) => Some(credential),
            _ => None,
        })
    };
    let hours = |h: i64| Now {
        mono_ms: 0,
        wall: NOW.plus_millis(h * HOUR_MS),
    };

    assert_eq!(enrols_with(None, hours(0)), Some(Credential::Idevid));
    assert_eq!(enrols_with(Some(validity()), hours(1)), None);
    assert_eq!(
        enrols_with(Some(validity()), hours(41)),
        Some(Credential::Ldevid)
    );
    assert_eq!(
        enrols_with(Some(validity()), hours(2000)),
        Some(Credential::Idevid)
    );
}

#[test]
fn a_closed_vault_is_told_and_its_box_asks_for_a_certificate_at_once_and_for_no_tickets() {
    let locked = Some("the vault stays closed: PCR 7".to_owned());
    let saved = Saved {
        desired: Some(Desired {
            v: VERSION,
            box_id: box_id(),
            version: 3,
            telemetry_interval_secs: 60,
            tickets: Vec::new(),
            uplink: UplinkPolicy::default(),
            network: None,
            held: None,
            journey: None,
        }),
        ..Saved::default()
    };
    let config = Config { locked, ..config() };
    let position = Position::default();
    let mut agent = Agent::new(
        config,
        saved,
        Some(validity()),
        0,
        position,
        at(0),
        Dice::new(1),
    );

    let effects = agent.handle(Event::Started { unclean: false }, at(0), Dice::new(1));
    let refused = Event::EnrolFailed {
        code: Code::STATE_CHANGED,
        evidence: "PCR 7 is not accepted".to_owned(),
    };
    agent.handle(refused, at(1), Dice::new(2));
    let below = Rung::ALL[..8].iter().map(|rung| Observation::ok(*rung, ""));
    agent.handle(Event::Walked(below.collect()), at(2), Dice::new(3));

    let told = |e: &Effect| {
        matches!(e, Effect::Append(Fact::Failure { part, text })
        if part == "vault" && text.starts_with("LH-905: the vault stays closed"))
    };
    assert!(effects.iter().any(told), "{effects:?}");
    assert!(effects.contains(&Effect::Enrol(Credential::Ldevid)));
    assert!(!effects.contains(&Effect::FetchCredentials));
    assert_eq!(agent.failing(), Some(Code::STATE_CHANGED));
    let mut rungs = agent.rungs().into_iter();
    let rung = rungs.find(|r| r.rung == Rung::Enrolled).unwrap();
    assert_eq!(
        rung.evidence,
        "the vault stays closed: PCR 7; the cloud: PCR 7 is not accepted"
    );
}

#[test]
fn a_failed_session_is_explained_after_the_rungs_below_were_climbed() {
    let mut agent = agent_with(Saved::default(), Some(validity()));
    let effects = agent.handle(Event::Started { unclean: false }, at(0), Dice::new(1));
    let session = effects.iter().find_map(|e| match e {
        Effect::Connect { session, .. } => Some(session.clone()),
        _ => None,
    });
    let lower = || -> Vec<Observation> {
        let rungs = Rung::ALL.into_iter().take_while(|r| *r < Rung::Enrolled);
        rungs.map(|r| Observation::ok(r, "fine")).collect()
    };
    let down = Event::SessionDown {
        session: session.unwrap(),
        refused: false,
        evidence: "connection refused".to_owned(),
    };
    let effects = agent.handle(down, at(5), Dice::new(2));
    let rung_facts = |effects: &[Effect]| {
        let facts = effects.iter().filter_map(|e| match e {
            Effect::Append(Fact::Rung { code, .. }) => Some(*code),
            _ => None,
        });
        facts.collect::<Vec<_>>()
    };
    assert_eq!(rung_facts(&effects), [], "nothing is blamed yet");
    agent.handle(Event::Walked(lower()), at(6), Dice::new(3));

    assert_eq!(agent.failing(), Some(Code::BROKER_BLOCKED));
    let unplugged = vec![Observation::failed(Code::NO_CABLE, "eth0")];
    let effects = agent.handle(Event::Walked(unplugged), at(7), Dice::new(4));
    assert_eq!(rung_facts(&effects), [Some(Code::NO_CABLE)]);
}

#[test]
fn a_link_that_changes_forgets_the_connection_that_was_being_made() {
    let mut agent = agent_with(Saved::default(), Some(validity()));
    agent.handle(Event::Started { unclean: false }, at(0), Dice::new(1));

    let effects = agent.handle(Event::LinkChanged, at(5), Dice::new(2));

    let abandons = effects.iter().position(|e| *e == Effect::Abandon);
    let connects = |e: &Effect| matches!(e, Effect::Connect { .. });
    let connects = effects.iter().position(connects);
    assert!(abandons.is_some() && abandons < connects, "{effects:?}");
}

#[test]
fn a_session_ends_with_its_cable_and_comes_back_with_it_at_once() {
    let mut agent = connected(Saved::default());
    let unplugged = vec![Observation::failed(Code::NO_CABLE, "eth0")];
    let lower = Rung::ALL.into_iter().take_while(|r| *r < Rung::Enrolled);
    let lower = lower.map(|r| Observation::ok(r, "fine")).collect();

    let cut = agent.handle(Event::Walked(unplugged), at(100), Dice::new(3));
    let failing = agent.failing();
    let back = agent.handle(Event::Walked(lower), at(101), Dice::new(4));

    assert!(cut.contains(&Effect::Abandon), "{cut:?}");
    assert_eq!(failing, Some(Code::NO_CABLE));
    let connects = |e: &Effect| matches!(e, Effect::Connect { .. });
    assert!(back.iter().any(connects), "{back:?}");
    assert_eq!(agent.failing(), Some(Code::BROKER_LOST));
}

#[test]
fn a_stopping_agent_says_goodbye_and_starts_nothing() {
    let mut agent = connected(Saved::default());

    let effects = agent.handle(Event::Stop, at(5), Dice::new(2));

    let [
        Effect::Publish {
            channel: Up::Presence,
            payload,
        },
        Effect::Disconnect,
    ] = effects.as_slice()
    else {
        panic!("{effects:?}");
    };
    let presence = envelope::decode::<Presence>(payload).unwrap().body;
    assert!(matches!(
        presence,
        Presence::Death(Death {
            reason: Some(_),
            ..
        })
    ));
    assert!(
        agent
            .handle(Event::Tick, at(9_999_999), Dice::new(3))
            .is_empty()
    );
}

/// A cloud, a network and a journal, all of which may fail at any time.
#[derive(Default)]
struct World {
    position: Position,
    session: Option<SessionId>,
    up: bool,
    in_broker: Vec<u64>,
    committed: u64,
}

#[derive(Clone, Copy, Debug)]
enum Chance {
    Append,
    Connect,
    Lose,
    Commit,
    LoseBatch,
    Acknowledge,
    Wait(u32),
    Link,
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        Just(Chance::Append),
        Just(Chance::Connect),
        Just(Chance::Lose),
        Just(Chance::Commit),
        Just(Chance::LoseBatch),
        Just(Chance::Acknowledge),
        (1..400_000_u32).prop_map(Chance::Wait),
        Just(Chance::Link),
    ]
}

impl World {
    fn settle(&mut self, agent: &mut Agent, effects: Vec<Effect>, now: Now) {
        for effect in effects {
            match effect {
                Effect::Connect { session, .. } => self.session = Some(session),
                Effect::Append(_) => self.position.last += 1,
                Effect::SendBatch => {
                    assert!(self.up, "a batch is sent only while the session is up");
                    let through = self.position.last.min(self.position.acked + 256);
                    self.in_broker.push(through);
                    let sent = Event::BatchSent {
                        through: Some(through),
                    };
                    let more = agent.handle(sent, now, Dice::new(7));
                    self.settle(agent, more, now);
                }
                _ => {}
            }
        }
    }

    fn event(&mut self, chance: Chance) -> Option<Event> {
        match chance {
            Chance::Append => self.position.last += 1,
            Chance::Connect if !self.up => {
                self.up = self.session.is_some();
                return self.session.clone().map(Event::SessionUp);
            }
            Chance::Lose => {
                self.up = false;
                self.in_broker.clear();
                return self.session.take().map(|session| Event::SessionDown {
                    session,
                    refused: false,
                    evidence: "lost".to_owned(),
                });
            }
            Chance::Commit => {
                if let Some(through) = self.in_broker.pop() {
                    self.committed = self.committed.max(through);
                }
            }
            Chance::LoseBatch => self.in_broker.clear(),
            Chance::Acknowledge => self.position.acked = self.committed,
            Chance::Link => return Some(Event::LinkChanged),
            Chance::Wait(_) | Chance::Connect => return Some(Event::Tick),
        }
        Some(Event::Journal(self.position))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// However sessions, batches and acknowledgements are lost: when the world calms down,
    /// everything that was written is committed, and two batches are never in flight at once.
    #[test]
    fn no_event_order_loses_a_journal_entry(chances in proptest::collection::vec(chance(), 0..60)) {
        let mut world = World::default();
        let certificate = Validity {
            issued: NOW,
            expires: NOW.plus_millis(i64::MAX / 4),
        };
        let mut agent = agent_with(Saved::default(), Some(certificate));
        let mut now = at(0);
        let effects = agent.handle(Event::Started { unclean: false }, now, Dice::new(1));
        world.settle(&mut agent, effects, now);
        for (n, chance) in (0..).zip(chances) {
            if let Chance::Wait(ms) = chance {
                now = now.after_millis(u64::from(ms));
            }
            let Some(event) = world.event(chance) else { continue };
            let effects = agent.handle(event, now, Dice::new(n));
            let batches = effects.iter().filter(|e| **e == Effect::SendBatch).count();
            prop_assert!(batches <= 1);
            world.settle(&mut agent, effects, now);
        }
        for n in 0..400 {
            if world.position.acked == world.position.last {
                break;
            }
            now = now.after_millis(60_000);
            for chance in [Chance::Wait(0), Chance::Connect, Chance::Commit, Chance::Acknowledge] {
                if let Some(event) = world.event(chance) {
                    let effects = agent.handle(event, now, Dice::new(n));
                    world.settle(&mut agent, effects, now);
                }
            }
        }
        prop_assert_eq!(world.position.acked, world.position.last);
    }

    #[test]
    fn garbage_from_the_broker_changes_nothing(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut agent = connected(Saved::default());
        for channel in Dn::ALL {
            let event = Event::Message { channel, payload: bytes.clone() };
            let effects = agent.handle(event, at(5), Dice::new(1));
            let is_store = |e: &Effect| matches!(e, Effect::Save(_) | Effect::Append(_));
            prop_assert!(!effects.iter().any(is_store));
        }
    }

    #[test]
    fn an_agent_is_never_asked_to_wake_for_nothing(waits in proptest::collection::vec(0..100_000_u64, 1..20)) {
        let mut agent = agent_with(Saved::default(), Some(validity()));
        let mut now = at(0);
        agent.handle(Event::Started { unclean: false }, now, Dice::new(1));
        for wait in waits {
            now = now.after_millis(wait);
            agent.handle(Event::Tick, now, Dice::new(wait));
            prop_assert!(agent.poll_at_ms(now) > now.mono_ms);
        }
    }
}

/// The wire's own limit is what the journal's batches are cut to.
#[test]
fn the_longest_batch_is_below_the_longest_packet() {
    const { assert!(JournalBatch::MAX_BYTES < 128 * 1024) };
}
