//! What boxes say over MQTT and what the cloud makes of it.

use std::time::{Duration, Instant};

use longhaul_fleet_api::fleet::{FleetErrorKind, NewTicket};
use longhaul_fleet_api::store::audit::audit_list;
use longhaul_fleet_api::store::boxes::box_get;
use longhaul_fleet_api::store::commands::{CommandState as Stored, command_get};
use longhaul_fleet_api::store::filter::Filter;
use longhaul_protocol::command::{
    CommandClaims, CommandKind, CommandState, CommandUpdate, SignedCommand,
};
use longhaul_protocol::ids::{BoxId, CommandId};
use longhaul_protocol::journal::{Fact, JournalAck, JournalBatch, JournalEntry, Outcome};
use longhaul_protocol::topic::{Dn, Up};
use longhaul_protocol::twin::{Desired, SignedDesired};
use longhaul_protocol::value::{Jws, UnixMillis};
use longhaul_provisioning::jws::{self, Kind};
use serde::de::DeserializeOwned;

use crate::bench::{Bench, eventually, operator};

fn claims<T: DeserializeOwned>(bench: &Bench, jws: &Jws, kind: Kind) -> T {
    let anchors = bench.pki().root_anchor().expect("anchors");
    let verified = jws::verify(jws, kind, &anchors, bench.fleet.now()).expect("verified");
    serde_json::from_slice(&verified.payload).expect("claims")
}

fn batch(first: u64, facts: Vec<Fact>) -> JournalBatch {
    let entry = |(number, fact)| JournalEntry {
        number,
        at: UnixMillis(1_700_000_000_000),
        fact,
    };
    JournalBatch {
        epoch: "epoch-1".parse().expect("an epoch"),
        entries: (first..).zip(facts).map(entry).collect(),
    }
}

fn failure(text: &str) -> Fact {
    Fact::Failure {
        part: "bench".to_owned(),
        text: text.to_owned(),
    }
}

async fn stored(bench: &Bench, id: &CommandId) -> Stored {
    let mut tx = bench.fleet.db().read().await.expect("a transaction");
    command_get(&mut tx, id)
        .await
        .expect("read")
        .expect("a command")
        .state
}

async fn is_connected(bench: &Bench, id: &BoxId) -> bool {
    let mut tx = bench.fleet.db().read().await.expect("a transaction");
    box_get(&mut tx, id)
        .await
        .expect("read")
        .expect("a box")
        .connected
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_sent_again_at_every_birth_until_it_has_ended() {
    let bench = Bench::start().await;
    let of = bench.enrolled(1).await;
    let kind = CommandKind::Identify { seconds: 5 };
    let id = bench
        .fleet
        .command_send(&operator(), &of.id, kind.clone(), 600)
        .await
        .expect("sent");
    assert_eq!(stored(&bench, &id).await, Stored::Queued);

    let mut first = bench.connect(&of, "s-1").await;
    first.birth(0).await;
    let got: SignedCommand = first.next(Dn::Command).await;
    let got: CommandClaims = claims(&bench, &got.jws, Kind::Command);
    assert_eq!((&got.id, &got.box_id, &got.command), (&id, &of.id, &kind));
    first.cut().await;

    let mut second = bench.connect(&of, "s-2").await;
    second.birth(0).await;
    let again: SignedCommand = second.next(Dn::Command).await;
    let again: CommandClaims = claims(&bench, &again.jws, Kind::Command);
    assert_eq!(again, got);
    let accepted = CommandUpdate {
        id: Some(id.clone()),
        state: CommandState::Accepted,
    };
    second.send(Up::Command, &accepted).await;
    let outcome = Outcome::Done {
        detail: serde_json::json!({ "blinked": 5 }),
    };
    let result = Fact::CommandResult {
        id: id.clone(),
        outcome,
    };
    second.send(Up::Journal, &batch(1, vec![result])).await;
    let ack: JournalAck = second.next(Dn::Ack).await;
    assert_eq!(ack.through, 1);
    assert_eq!(stored(&bench, &id).await, Stored::Done);
    second.cut().await;

    let other = bench
        .fleet
        .command_send(&operator(), &of.id, CommandKind::ReportNow, 600)
        .await
        .expect("sent");
    let mut third = bench.connect(&of, "s-3").await;
    third.birth(0).await;
    let next: SignedCommand = third.next(Dn::Command).await;
    let next: CommandClaims = claims(&bench, &next.jws, Kind::Command);
    assert_eq!(next.id, other, "what has ended is not sent again");
    assert!(next.counter > got.counter);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_batch_that_comes_twice_counts_once_and_outlives_the_process() {
    let bench = Bench::start().await;
    let of = bench.enrolled(2).await;
    let mut session = bench.connect(&of, "s-1").await;
    session.birth(0).await;

    let first = batch(1, vec![failure("a"), failure("b")]);
    session.send(Up::Journal, &first).await;
    assert_eq!(session.next::<JournalAck>(Dn::Ack).await.through, 2);
    session.send(Up::Journal, &first).await;
    assert_eq!(session.next::<JournalAck>(Dn::Ack).await.through, 2);
    let overlapping = batch(2, vec![failure("b"), failure("c")]);
    session.send(Up::Journal, &overlapping).await;
    assert_eq!(session.next::<JournalAck>(Dn::Ack).await.through, 3);
    session.cut().await;
    let dir = bench.stop().await;

    let bench = Bench::start_in(dir).await;
    let mut session = bench.connect(&of, "s-2").await;
    session.birth(0).await;
    session
        .send(Up::Journal, &batch(1, vec![failure("a")]))
        .await;
    assert_eq!(
        session.next::<JournalAck>(Dn::Ack).await.through,
        3,
        "what was acknowledged outlives the process"
    );
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_that_has_lost_its_past_takes_a_journal_up_where_it_is() {
    let bench = Bench::start().await;
    let of = bench.enrolled(8).await;
    let mut session = bench.connect(&of, "s-1").await;
    session.birth(0).await;

    session
        .send(Up::Journal, &batch(500, vec![failure("a")]))
        .await;

    assert_eq!(session.next::<JournalAck>(Dn::Ack).await.through, 500);
    let mut tx = bench.fleet.db().read().await.expect("a transaction");
    let audit = audit_list(&mut tx, &Filter::default(), None, 10)
        .await
        .expect("read");
    let lost = audit
        .iter()
        .find(|row| row.action == "journal.lost")
        .expect("taken down");
    assert!(lost.detail.contains("\"from\":1") && lost.detail.contains("\"to\":499"));
    drop(tx);
    let mut disorder = batch(501, vec![failure("b"), failure("c")]);
    disorder.entries[1].number = 700;
    session.send(Up::Journal, &disorder).await;
    assert_eq!(session.next::<JournalAck>(Dn::Ack).await.through, 500);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_box_is_cut_off_within_a_second_and_stays_out() {
    let bench = Bench::start().await;
    let of = bench.enrolled(3).await;
    let session = bench.connect(&of, "s-1").await;
    session.birth(0).await;
    eventually("online", || is_connected(&bench, &of.id)).await;

    let begun = Instant::now();
    bench
        .fleet
        .box_revoke(&operator(), &of.id)
        .await
        .expect("revoked");
    session.until_ended().await;

    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    eventually("offline", || async { !is_connected(&bench, &of.id).await }).await;
    let refused = bench
        .fleet
        .command_send(&operator(), &of.id, CommandKind::ReportNow, 60)
        .await;
    assert_eq!(
        refused.expect_err("refused").kind(),
        FleetErrorKind::Conflict
    );
    let https = bench.https(&of.ldevid, &of.key);
    let answer = https
        .get(bench.url("/v1/box/credentials"))
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 403);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_will_that_comes_late_does_not_take_the_new_session_offline() {
    let bench = Bench::start().await;
    let of = bench.enrolled(4).await;
    let first = bench.connect(&of, "s-1").await;
    first.birth(0).await;
    let mut second = bench.connect(&of, "s-2").await;
    second.birth(0).await;

    // Anything that is acknowledged after the takeover says that the will was seen before.
    second
        .send(Up::Journal, &batch(1, vec![failure("a")]))
        .await;
    second.next::<JournalAck>(Dn::Ack).await;

    assert!(is_connected(&bench, &of.id).await);
    second.cut().await;
    eventually("offline", || async { !is_connected(&bench, &of.id).await }).await;
    drop(first);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_is_refused_and_harms_nobody() {
    let bench = Bench::start().await;
    let of = bench.enrolled(5).await;
    let mut session = bench.connect(&of, "s-1").await;
    session.birth(0).await;

    for channel in Up::ALL {
        for bytes in [
            &b""[..],
            b"{}",
            b"\xff\xfe",
            b"{\"v\":9,\"sent\":1,\"body\":{}}",
            b"[[[[[",
        ] {
            session.send_raw(channel, bytes.to_vec()).await;
        }
    }
    let unknown = CommandUpdate {
        id: Some("no-such-command".parse().expect("an id")),
        state: CommandState::Accepted,
    };
    session.send(Up::Command, &unknown).await;
    session
        .send(Up::Journal, &batch(1, vec![failure("a\u{0}b")]))
        .await;

    assert_eq!(session.next::<JournalAck>(Dn::Ack).await.through, 1);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn desired_state_follows_tickets_and_is_sent_where_it_differs() {
    let bench = Bench::start().await;
    let of = bench.enrolled(6).await;
    let mut session = bench.connect(&of, "s-1").await;
    session.birth(0).await;
    eventually("online", || is_connected(&bench, &of.id)).await;

    let new = NewTicket {
        box_id: of.id.clone(),
        order: None,
        bucket: "haul".to_owned(),
        valid_for_secs: 3600,
    };
    let ticket = bench
        .fleet
        .ticket_create(&operator(), new)
        .await
        .expect("a ticket");
    let desired: SignedDesired = session.next(Dn::Desired).await;
    let desired: Desired = claims(&bench, &desired.jws, Kind::Desired);
    assert_eq!(desired.tickets.len(), 1);
    assert_eq!(desired.tickets[0].access_key, ticket.access_key);
    let https = bench.https(&of.ldevid, &of.key);
    let answer = https
        .get(bench.url("/v1/box/credentials"))
        .send()
        .await
        .expect("an answer");
    let text = answer.text().await.expect("a body");
    assert!(
        text.contains(&ticket.secret_key.0),
        "the secret travels over HTTPS only"
    );

    bench
        .fleet
        .ticket_revoke(&operator(), &ticket.id)
        .await
        .expect("revoked");
    let revoked: SignedDesired = session.next(Dn::Desired).await;
    let revoked: Desired = claims(&bench, &revoked.jws, Kind::Desired);
    assert!(revoked.version > desired.version && revoked.tickets.is_empty());
    session.cut().await;

    let up_to_date = bench.connect(&of, "s-2").await;
    up_to_date.birth(revoked.version).await;
    up_to_date.cut().await;
    let mut behind = bench.connect(&of, "s-3").await;
    behind.birth(desired.version).await;
    let again: SignedDesired = behind.next(Dn::Desired).await;
    let again: Desired = claims(&bench, &again.jws, Kind::Desired);
    assert_eq!(again, revoked);
    bench.stop().await;
}
