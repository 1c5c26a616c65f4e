//! Rollouts, as the boxes' journals tell them.

use longhaul_fleet_api::fleet::{FleetErrorKind, NewRollout, RolloutView};
use longhaul_fleet_api::store::boxes::box_get;
use longhaul_protocol::command::{CommandClaims, CommandKind, SignedCommand};
use longhaul_protocol::ids::RolloutId;
use longhaul_protocol::journal::{Fact, JournalAck, JournalBatch, JournalEntry};
use longhaul_protocol::release::{UpdateStatus, UpdateStep};
use longhaul_protocol::topic::{Dn, Up};
use longhaul_protocol::value::UnixMillis;
use longhaul_provisioning::jws::{self, Kind};

use crate::bench::{Bench, eventually, operator};

/// A repository as the factory signs it, as far as the cloud reads it.
fn repository(bench: &Bench) {
    let dir = bench.dir.path().join("tuf/metadata");
    std::fs::create_dir_all(&dir).expect("made");
    let sha = "0f".repeat(32);
    let target = |version: &str| {
        serde_json::json!({
            "length": 1000, "hashes": { "sha256": sha }, "custom": { "version": version },
        })
    };
    let pointer = |name: &str| serde_json::json!({ "meta": { name: { "version": 1 } } });
    for (name, signed) in [
        ("timestamp.json", pointer("snapshot.json")),
        ("1.snapshot.json", pointer("targets.json")),
        (
            "1.targets.json",
            serde_json::json!({ "targets": {
                "agent-2": target("2.0.0"), "again-3": target("3.0.0"), "again-3b": target("3.0.0"),
            } }),
        ),
    ] {
        let text = serde_json::json!({ "signatures": [], "signed": signed }).to_string();
        std::fs::write(dir.join(name), text).expect("written");
    }
}

fn state(view: &RolloutView, at: usize) -> &str {
    &view.boxes[at].state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_box_of_a_rollout_is_followed_to_its_end() {
    let bench = Bench::start().await;
    repository(&bench);
    let (mut here, mut away) = (bench.enrolled(1).await, bench.enrolled(2).await);
    if here.id > away.id {
        std::mem::swap(&mut here, &mut away);
    }
    let mut session = bench.connect(&here, "s-1").await;
    session.birth(0).await;
    eventually("its version is known", async || {
        let mut tx = bench.fleet.db().read().await.expect("a transaction");
        let row = box_get(&mut tx, &here.id).await.expect("read");
        row.expect("a box").agent_version.is_some()
    })
    .await;

    let id = bench
        .fleet
        .rollout_start(
            &operator(),
            NewRollout {
                version: "2.0.0".to_owned(),
                boxes: vec![away.id.clone(), here.id.clone(), here.id.clone()],
                valid_for_secs: 3600,
            },
        )
        .await
        .expect("started");

    let got: SignedCommand = session.next(Dn::Command).await;
    let anchors = bench.pki().root_anchor().expect("anchors");
    let verified = jws::verify(&got.jws, Kind::Command, &anchors, bench.fleet.now());
    let claims: CommandClaims =
        serde_json::from_slice(&verified.expect("verified").payload).expect("claims");
    let CommandKind::Update(assignment) = &claims.command else {
        panic!("an update");
    };
    assert_eq!(
        (assignment.version.as_str(), assignment.length),
        ("2.0.0", 1000)
    );
    assert_eq!(
        (&assignment.rollout, assignment.target.as_str()),
        (&id, "agent-2")
    );
    let view = bench.fleet.rollout_get(&id).await.expect("a view");
    assert_eq!(view.boxes.len(), 2);
    assert_eq!(state(&view, 1), "offline");
    let last = bench.fleet.rollout_last(&away.id).await.expect("a view");
    let last = last.expect("a rollout");
    assert_eq!(
        (&last.id, last.boxes.len(), state(&last, 0)),
        (&id, 1, "offline")
    );

    let steps = [
        (UpdateStep::Assigned, "assigned"),
        (UpdateStep::Download, "download"),
        (UpdateStep::RolledBack, "rolled_back"),
        // What has ended stays ended, whatever comes after.
        (UpdateStep::Trial, "rolled_back"),
    ];
    for (number, (step, expected)) in (1..).zip(steps) {
        let status = UpdateStatus {
            command: claims.id.clone(),
            rollout: id.clone(),
            version: "2.0.0".to_owned(),
            step,
            reason: (step == UpdateStep::RolledBack).then(|| "health check failed".to_owned()),
            fetched_bytes: None,
        };
        let batch = JournalBatch {
            epoch: "epoch-1".parse().expect("an epoch"),
            entries: vec![JournalEntry {
                number,
                at: UnixMillis(0),
                fact: Fact::Update(status),
            }],
        };
        session.send(Up::Journal, &batch).await;
        session.next::<JournalAck>(Dn::Ack).await;
        let view = bench.fleet.rollout_get(&id).await.expect("a view");
        assert_eq!(state(&view, 0), expected);
    }
    let view = bench.fleet.rollout_get(&id).await.expect("a view");
    let failed = &view.boxes[0];
    assert_eq!(failed.reason.as_deref(), Some("health check failed"));
    assert_eq!(failed.step.as_deref(), Some("rolled_back"));
    assert!(failed.version_before.is_some(), "{failed:?}");
    assert_eq!(failed.version_after, failed.version_before, "it is back");

    let command = view.boxes[1].command.clone();
    bench
        .fleet
        .command_cancel(&operator(), &command)
        .await
        .expect("cancelled");
    let view = bench.fleet.rollout_get(&id).await.expect("a view");
    assert_eq!(state(&view, 1), "cancelled");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aborted_rollout_reaches_no_further_box_and_lets_the_others_end() {
    let bench = Bench::start().await;
    repository(&bench);
    let (begun, away) = (bench.enrolled(1).await, bench.enrolled(2).await);
    let mut session = bench.connect(&begun, "s-1").await;
    session.birth(0).await;
    let new = NewRollout {
        version: "2.0.0".to_owned(),
        boxes: vec![begun.id.clone(), away.id.clone()],
        valid_for_secs: 3600,
    };
    let id = bench.fleet.rollout_start(&operator(), new).await;
    let id = id.expect("started");
    session.next::<SignedCommand>(Dn::Command).await;
    let view = bench.fleet.rollout_get(&id).await.expect("a view");
    let command = |of: &longhaul_protocol::ids::BoxId| {
        let found = view.boxes.iter().find(|b| b.box_id == *of);
        found.expect("in it").command.clone()
    };
    let mine = command(&begun.id);
    let report = |number, step| {
        let status = UpdateStatus {
            command: mine.clone(),
            rollout: id.clone(),
            version: "2.0.0".to_owned(),
            step,
            reason: None,
            fetched_bytes: None,
        };
        JournalBatch {
            epoch: "epoch-1".parse().expect("an epoch"),
            entries: vec![JournalEntry {
                number,
                at: UnixMillis(0),
                fact: Fact::Update(status),
            }],
        }
    };
    session
        .send(Up::Journal, &report(1, UpdateStep::Download))
        .await;
    session.next::<JournalAck>(Dn::Ack).await;

    bench
        .fleet
        .rollout_abort(&operator(), &id)
        .await
        .expect("aborted");

    let twice = bench.fleet.rollout_abort(&operator(), &id).await;
    assert_eq!(twice.expect_err("over").kind(), FleetErrorKind::Conflict);
    let mut late = bench.connect(&away, "s-2").await;
    late.birth(0).await;
    let sent = CommandKind::ReportNow;
    bench
        .fleet
        .command_send(&operator(), &away.id, sent.clone(), 60)
        .await
        .expect("sent");
    let first: SignedCommand = late.next(Dn::Command).await;
    let anchors = bench.pki().root_anchor().expect("anchors");
    let verified = jws::verify(&first.jws, Kind::Command, &anchors, bench.fleet.now());
    let claims: CommandClaims =
        serde_json::from_slice(&verified.expect("verified").payload).expect("claims");
    assert_eq!(claims.command, sent, "the update was not sent any more");
    session
        .send(Up::Journal, &report(2, UpdateStep::Committed))
        .await;
    session.next::<JournalAck>(Dn::Ack).await;
    let view = bench.fleet.rollout_get(&id).await.expect("a view");
    assert!(view.aborted_at.is_some());
    for one in &view.boxes {
        if one.box_id == begun.id {
            assert_eq!(one.state, "committed");
        } else {
            assert_eq!(one.state, "cancelled");
            let why = one.reason.as_deref().unwrap_or_default();
            assert!(why.contains("aborted"), "{why}");
        }
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_that_cannot_be_is_refused_whole() {
    let bench = Bench::start().await;
    let of = bench.enrolled(3).await;
    let unknown = longhaul_protocol::ids::BoxId::from_ek_sha256(&[99; 32]);
    let start = async |version: &str, boxes: &[_]| {
        let rollout = NewRollout {
            version: version.to_owned(),
            boxes: boxes.to_vec(),
            valid_for_secs: 60,
        };
        let started = bench.fleet.rollout_start(&operator(), rollout).await;
        started.expect_err("refused").kind()
    };

    assert_eq!(
        start("2.0.0", std::slice::from_ref(&of.id)).await,
        FleetErrorKind::NotFound
    );
    repository(&bench);
    assert_eq!(
        start("9.9.9", std::slice::from_ref(&of.id)).await,
        FleetErrorKind::NotFound
    );
    assert_eq!(
        start("3.0.0", std::slice::from_ref(&of.id)).await,
        FleetErrorKind::Conflict
    );
    assert_eq!(start("2.0.0", &[]).await, FleetErrorKind::Invalid);
    assert_eq!(
        start("2.0.0", &[of.id.clone(), unknown]).await,
        FleetErrorKind::NotFound
    );
    let none: RolloutId = "ro-none".parse().expect("an id");
    let missing = bench.fleet.rollout_get(&none).await.expect_err("none");
    assert_eq!(missing.kind(), FleetErrorKind::NotFound);

    let mut session = bench.connect(&of, "s-1").await;
    session.birth(0).await;
    let sent = CommandKind::ReportNow;
    bench
        .fleet
        .command_send(&operator(), &of.id, sent.clone(), 60)
        .await
        .expect("sent");
    let first: SignedCommand = session.next(Dn::Command).await;
    let anchors = bench.pki().root_anchor().expect("anchors");
    let verified = jws::verify(&first.jws, Kind::Command, &anchors, bench.fleet.now());
    let claims: CommandClaims =
        serde_json::from_slice(&verified.expect("verified").payload).expect("claims");
    assert_eq!(claims.command, sent, "no update was left behind");
    bench.stop().await;
}
