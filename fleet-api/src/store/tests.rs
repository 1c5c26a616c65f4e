//! Every table family on both databases.

use longhaul_protocol::ids::{BoxId, CommandId, EpochId, ObjectKey, TicketId, UploadId};
use longhaul_protocol::journal::{Fact, JournalEntry};
use longhaul_protocol::presence::Birth;
use longhaul_protocol::telemetry::{Telemetry, VaultFill};
use longhaul_protocol::value::{Digest32, Jws, UnixMillis};

use super::api_tokens::{
    ApiTokenRow, api_token_find, api_token_insert, api_token_list, api_token_revoke,
};
use super::audit::{AuditEntry, audit_append, audit_list, audit_verify};
use super::boxes::*;
use super::challenges::{ChallengeRow, challenge_insert, challenge_prune, challenge_take};
use super::commands::*;
use super::journal::{JournalCommit, journal_commit, journal_through};
use super::objects::{
    ObjectRow, object_buckets, object_delete, object_get, object_list, object_set,
};
use super::operators::*;
use super::orders::{OrderRow, order_get, order_insert, order_list};
use super::presence::{PresenceKind, presence_insert};
use super::releases::{release_get, release_list, release_set};
use super::rollouts::*;
use super::settings::{setting_get, setting_set};
use super::telemetry::{telemetry_insert, telemetry_latest, telemetry_prune, telemetry_series};
use super::testing::{add_box, box_id, on_both};
use super::tickets::*;
use super::timeline::{TimelineRow, TimelineSource, timeline_list};
use super::twins::{DesiredRow, ReportedRow, desired_get, desired_set, reported_get, reported_set};
use super::uploads::*;
use super::{Db, Tx};

async fn write(db: &Db) -> Tx {
    db.write().await.expect("begins")
}

fn birth(session: &str) -> Birth {
    Birth {
        session: session.parse().expect("an id"),
        boot: "boot-1".parse().expect("an id"),
        epoch: "epoch-1".parse().expect("an id"),
        agent_version: "1.0\0".into(),
        os_version: None,
        capabilities: vec!["identify".into()],
        desired_version: 3,
        certificate_expires: UnixMillis(9000),
        lan_urls: vec!["https://10.0.0.2:443".into()],
        rungs: Vec::new(),
    }
}

fn entries(numbers: impl IntoIterator<Item = u64>) -> Vec<JournalEntry> {
    numbers
        .into_iter()
        .map(|number| JournalEntry {
            number,
            at: UnixMillis(500),
            fact: Fact::Failure {
                part: "disk".into(),
                text: format!("entry {number} with a \0"),
            },
        })
        .collect()
}

async fn add_command(db: &Db, box_id: &BoxId, id: &str, expires: i64, now: i64) -> CommandId {
    let command_id: CommandId = id.parse().expect("an id");
    let mut tx = write(db).await;
    let counter = box_next_counter(&mut tx, box_id)
        .await
        .expect("draws")
        .expect("the box exists");
    let new = NewCommand {
        command_id: &command_id,
        box_id,
        counter,
        kind: "report_now",
        detail: r#"{"kind":"report_now"}"#,
        jws: "jws",
        created_by: "ada",
        not_before: now,
        expires,
        rollout_id: None,
    };
    command_insert(&mut tx, &new, now).await.expect("inserts");
    tx.commit().await.expect("commits");
    command_id
}

async fn add_ticket(db: &Db, box_id: &BoxId, id: &str, expires: i64) -> TicketId {
    let row = TicketRow {
        ticket_id: id.parse().expect("an id"),
        box_id: box_id.clone(),
        order_id: None,
        bucket: "bucket".into(),
        access_key: format!("AK{id}"),
        secret_sealed: vec![0, 1, 255],
        created_by: "ada".into(),
        created: 1,
        expires,
        revoked: None,
    };
    let mut tx = write(db).await;
    ticket_insert(&mut tx, &row).await.expect("inserts");
    assert_eq!(
        ticket_get(&mut tx, &row.ticket_id).await.expect("gets"),
        Some(row.clone())
    );
    tx.commit().await.expect("commits");
    row.ticket_id
}

on_both! {
    async fn a_box_is_imported_once_and_renewed_by_a_later_record(db: Db) {
        let id = add_box(&db, 1).await;
        let mut tx = write(&db).await;
        let old = box_get(&mut tx, &id).await.expect("gets").expect("is there");
        let jws = Jws("later".into());
        let mut new = NewBox {
            box_id: &id,
            order: None,
            hardware: "new",
            inventory_jws: &jws,
            ek_sha256: &Digest32([1; 32]),
            iak_name: &[1],
            made_at: old.made_at,
        };

        assert!(!box_import(&mut tx, &new, 3000).await.expect("as old"));
        new.made_at += 1;
        assert!(box_import(&mut tx, &new, 3000).await.expect("later"));

        let row = box_get(&mut tx, &id).await.expect("gets").expect("is there");
        assert_eq!((row.hardware.as_str(), row.iak_name.as_str()), ("new", "01"));
        assert_eq!((old.state, old.connected, old.label.as_str()), (BoxState::Inventoried, false, ""));
    }

    async fn two_boxes_cannot_share_an_endorsement_key(db: Db) {
        add_box(&db, 1).await;
        let id = box_id(2);
        let jws = Jws("record".into());
        let new = NewBox {
            box_id: &id, order: None, hardware: "", inventory_jws: &jws,
            ek_sha256: &Digest32([1; 32]), iak_name: &[], made_at: 1,
        };
        let mut tx = write(&db).await;

        let error = box_import(&mut tx, &new, 1).await.expect_err("refused");

        assert!(error.is_duplicate(), "{error:?}");
    }

    async fn revocation_is_for_ever(db: Db) {
        let id = add_box(&db, 1).await;
        let mut tx = write(&db).await;
        for (state, changed) in [
            (BoxState::Active, true), (BoxState::Active, false), (BoxState::Quarantined, true),
            (BoxState::Revoked, true), (BoxState::Active, false),
        ] {
            assert_eq!(box_set_state(&mut tx, &id, state, 5).await.expect("sets"), changed, "{state}");
        }
        assert!(!box_set_state(&mut tx, &box_id(9), BoxState::Active, 5).await.expect("sets"));
    }

    async fn a_stale_will_does_not_end_the_session_after_it(db: Db) {
        let id = add_box(&db, 1).await;
        let mut tx = write(&db).await;
        assert!(box_set_birth(&mut tx, &id, &birth("s1"), 10).await.expect("birth"));
        assert!(box_set_birth(&mut tx, &id, &birth("s2"), 20).await.expect("birth"));

        assert!(!box_set_death(&mut tx, &id, "s1", 30).await.expect("stale"));
        let row = box_get(&mut tx, &id).await.expect("gets").expect("is there");
        assert!(row.connected);
        assert_eq!(row.lan_urls(), ["https://10.0.0.2:443"]);
        assert_eq!(row.applied_version, 3);
        assert_eq!(row.agent_version.as_deref(), Some("1.0\u{fffd}"));

        assert!(box_set_death(&mut tx, &id, "s2", 40).await.expect("death"));
        assert!(!box_set_death(&mut tx, &id, "s2", 50).await.expect("twice"));
        let row = box_get(&mut tx, &id).await.expect("gets").expect("is there");
        assert_eq!((row.connected, row.connected_since, row.last_seen), (false, Some(40), Some(20)));
        assert_eq!(box_disconnect_all(&mut tx, 60).await.expect("none left"), 0);
    }

    async fn boxes_are_found_by_state_session_and_text(db: Db) {
        for n in 1..=5 { add_box(&db, n).await; }
        let mut tx = write(&db).await;
        box_set_birth(&mut tx, &box_id(2), &birth("s"), 10).await.expect("birth");
        box_set_state(&mut tx, &box_id(2), BoxState::Active, 10).await.expect("sets");
        box_set_label(&mut tx, &box_id(3), Some("Dock_A 100%"), None, 10).await.expect("sets");
        box_set_label(&mut tx, &box_id(3), None, Some("Ulm"), 11).await.expect("sets");
        let find = async |tx: &mut Tx, filter: BoxFilter| -> Vec<BoxId> {
            box_list(tx, &filter, None, 10).await.expect("lists").into_iter().map(|b| b.box_id).collect()
        };
        let text = |t: &str| BoxFilter { text: Some(t.into()), ..BoxFilter::default() };

        assert_eq!(find(&mut tx, BoxFilter { online: Some(true), ..BoxFilter::default() }).await, [box_id(2)]);
        assert_eq!(find(&mut tx, BoxFilter { online: Some(false), ..BoxFilter::default() }).await.len(), 4);
        assert_eq!(find(&mut tx, BoxFilter { state: Some(BoxState::Active), ..BoxFilter::default() }).await, [box_id(2)]);
        assert_eq!(find(&mut tx, text("dock_a 100%")).await, [box_id(3)]);
        assert_eq!(find(&mut tx, text("DOCK")).await, [box_id(3)]);
        assert_eq!(find(&mut tx, text("ulm")).await, [box_id(3)]);
        assert_eq!(find(&mut tx, text("00005")).await, [box_id(5)]);
        assert!(find(&mut tx, text("dock%a")).await.is_empty());
        assert!(find(&mut tx, text("\0\\")).await.is_empty());
        let page = box_list(&mut tx, &BoxFilter::default(), Some(&box_id(3)), 1).await.expect("lists");
        assert_eq!(page[0].box_id, box_id(4));
        assert_eq!(
            box_count(&mut tx).await.expect("counts"),
            [("active".to_owned(), true, 1), ("inventoried".to_owned(), false, 4)]
        );
    }

    async fn a_challenge_is_answered_once_in_time_and_by_its_box(db: Db) {
        let id = add_box(&db, 1).await;
        let other = add_box(&db, 2).await;
        let row = ChallengeRow {
            challenge_id: "c1".into(), box_id: id.clone(), nonce: vec![0; 32], secret: vec![7; 32],
            detail: "{}".into(), expires: 100, used: None,
        };
        let mut tx = write(&db).await;
        challenge_insert(&mut tx, &row).await.expect("inserts");

        assert_eq!(challenge_take(&mut tx, "c1", &other, 50).await.expect("takes"), None);
        assert_eq!(challenge_take(&mut tx, "c1", &id, 100).await.expect("takes"), None);
        let taken = challenge_take(&mut tx, "c1", &id, 99).await.expect("takes").expect("in time");
        assert_eq!((taken.secret, taken.used), (row.secret, Some(99)));
        assert_eq!(challenge_take(&mut tx, "c1", &id, 99).await.expect("takes"), None);
        assert_eq!(challenge_prune(&mut tx, 101).await.expect("prunes"), 1);
    }

    async fn ten_who_race_for_a_challenge_get_it_once(db: Db) {
        let id = add_box(&db, 1).await;
        let row = ChallengeRow {
            challenge_id: "c1".into(), box_id: id.clone(), nonce: vec![], secret: vec![],
            detail: "{}".into(), expires: 100, used: None,
        };
        let mut tx = write(&db).await;
        challenge_insert(&mut tx, &row).await.expect("inserts");
        tx.commit().await.expect("commits");

        let takers = (0..10).map(|_| async {
            let mut tx = write(&db).await;
            let taken = challenge_take(&mut tx, "c1", &id, 1).await.expect("takes");
            tx.commit().await.expect("commits");
            taken
        });
        let taken = futures::future::join_all(takers).await;

        assert_eq!(taken.into_iter().flatten().count(), 1);
    }

    async fn the_journal_takes_each_entry_once_and_refuses_gaps(db: Db) {
        let id = add_box(&db, 1).await;
        let epoch: EpochId = "epoch-1".parse().expect("an id");
        let mut tx = write(&db).await;
        let mut commit = async |numbers: Vec<u64>| {
            journal_commit(&mut tx, &id, &epoch, &entries(numbers), 9).await.expect("answers")
        };

        assert_eq!(commit(vec![2]).await, JournalCommit::Gap { through: 0 });
        assert_eq!(commit(vec![0, 1]).await, JournalCommit::Gap { through: 0 });
        assert_eq!(commit((1..=300).collect()).await, JournalCommit::Committed { through: 300, known: 0 });
        assert_eq!(commit(vec![300, 301]).await, JournalCommit::Committed { through: 301, known: 1 });
        assert_eq!(commit(vec![1, 2]).await, JournalCommit::Committed { through: 301, known: 2 });
        assert_eq!(commit(vec![]).await, JournalCommit::Committed { through: 301, known: 0 });
        assert_eq!(commit(vec![302, 304]).await, JournalCommit::Gap { through: 301 });
        assert_eq!(commit(vec![303]).await, JournalCommit::Gap { through: 301 });
        assert_eq!(commit(vec![u64::MAX, 0]).await, JournalCommit::Gap { through: 301 });
        assert_eq!(journal_through(&mut tx, &id, &epoch).await.expect("reads"), 301);
        let wiped: EpochId = "epoch-2".parse().expect("an id");
        assert_eq!(journal_through(&mut tx, &id, &wiped).await.expect("reads"), 0);
        assert_eq!(
            journal_commit(&mut tx, &id, &wiped, &entries([1]), 9).await.expect("answers"),
            JournalCommit::Committed { through: 1, known: 0 }
        );
    }

    async fn a_batch_that_is_not_committed_leaves_nothing(db: Db) {
        let id = add_box(&db, 1).await;
        let epoch: EpochId = "epoch-1".parse().expect("an id");
        let mut tx = write(&db).await;
        journal_commit(&mut tx, &id, &epoch, &entries(1..=3), 9).await.expect("answers");
        drop(tx);

        let mut tx = write(&db).await;
        assert_eq!(journal_through(&mut tx, &id, &epoch).await.expect("reads"), 0);
        let unknown = journal_commit(&mut tx, &box_id(9), &epoch, &entries([1]), 9).await;
        assert!(unknown.expect_err("no such box").is_missing_reference());
    }

    async fn the_same_batch_from_two_processes_is_applied_once(db: Db) {
        let id = add_box(&db, 1).await;
        let epoch: EpochId = "epoch-1".parse().expect("an id");
        let batch = entries(1..=50);
        let both = (0..2).map(|_| async {
            let mut tx = write(&db).await;
            let done = journal_commit(&mut tx, &id, &epoch, &batch, 9).await.expect("answers");
            tx.commit().await.expect("commits");
            done
        });

        let mut done = futures::future::join_all(both).await;

        done.sort_by_key(|d| matches!(d, JournalCommit::Committed { known: 50, .. }));
        assert_eq!(done, [
            JournalCommit::Committed { through: 50, known: 0 },
            JournalCommit::Committed { through: 50, known: 50 },
        ]);
    }

    async fn a_command_that_has_ended_never_changes_again(db: Db) {
        let id = add_box(&db, 1).await;
        let news = CommandNews::default();
        for last in CommandState::ALL.iter().filter(|s| s.is_terminal()) {
            let command = add_command(&db, &id, &format!("c-{last}"), 100, 1).await;
            let mut tx = write(&db).await;
            assert!(command_advance(&mut tx, &command, *last, news, 2).await.expect("advances"), "{last}");
            for next in CommandState::ALL {
                assert!(!command_advance(&mut tx, &command, *next, news, 3).await.expect("stays"), "{last} {next}");
            }
            tx.commit().await.expect("commits");
        }
    }

    async fn a_command_only_moves_forward(db: Db) {
        let id = add_box(&db, 1).await;
        let command = add_command(&db, &id, "c1", 100, 1).await;
        let mut tx = write(&db).await;
        let none = CommandNews::default();
        let half = CommandNews { percent: Some(50), progress: Some("half\0"), ..none };
        let done = CommandNews { result: Some("{}"), ..none };

        assert!(command_advance(&mut tx, &command, CommandState::Sent, none, 2).await.expect("sent"));
        assert!(!command_advance(&mut tx, &command, CommandState::Sent, none, 3).await.expect("again"));
        assert!(!command_advance(&mut tx, &command, CommandState::Queued, none, 3).await.expect("back"));
        assert!(command_advance(&mut tx, &command, CommandState::Accepted, none, 4).await.expect("accepted"));
        assert!(!command_advance(&mut tx, &command, CommandState::Cancelled, none, 5).await.expect("late"));
        assert!(!command_advance(&mut tx, &command, CommandState::Sent, none, 5).await.expect("resent"));
        assert!(command_advance(&mut tx, &command, CommandState::Accepted, half, 6).await.expect("progress"));
        assert!(command_advance(&mut tx, &command, CommandState::Done, done, 7).await.expect("done"));

        let row = command_get(&mut tx, &command).await.expect("gets").expect("is there");
        assert_eq!((row.state, row.percent, row.result.as_deref()), (CommandState::Done, Some(50), Some("{}")));
        assert_eq!((row.counter, row.updated, row.progress.as_deref()), (1, 7, Some("half\u{fffd}")));
    }

    async fn commands_are_sent_in_order_until_they_expire(db: Db) {
        let id = add_box(&db, 1).await;
        let first = add_command(&db, &id, "z", 100, 1).await;
        let second = add_command(&db, &id, "a", 200, 2).await;
        let third = add_command(&db, &id, "m", 100, 3).await;
        let mut tx = write(&db).await;
        command_advance(&mut tx, &third, CommandState::Accepted, CommandNews::default(), 4).await.expect("accepted");
        let open = async |tx: &mut Tx, now| -> Vec<CommandId> {
            command_list_open(tx, &id, now).await.expect("lists").into_iter().map(|c| c.command_id).collect()
        };

        assert_eq!(open(&mut tx, 50).await, [first.clone(), second.clone(), third.clone()]);
        assert_eq!(open(&mut tx, 100).await, std::slice::from_ref(&second));
        assert_eq!(command_expire(&mut tx, 1000, 99).await.expect("expires"), []);
        assert_eq!(command_expire(&mut tx, 1000, 100).await.expect("expires"), [(first, id.clone())]);
        assert_eq!(command_expire(&mut tx, 30, 131).await.expect("expires"), [(third.clone(), id.clone())]);
        let row = command_get(&mut tx, &third).await.expect("gets").expect("is there");
        assert_eq!(row.reason.as_deref(), Some("the box began and never came back"));
        let newest = command_list(&mut tx, &id, None, 2).await.expect("lists");
        assert_eq!(newest[0].command_id, third);
        let older = command_list(&mut tx, &id, Some((newest[1].created, newest[1].command_id.as_str())), 5).await.expect("lists");
        assert_eq!(older.len(), 1);
        assert_eq!(box_next_counter(&mut tx, &box_id(9)).await.expect("draws"), None);
    }

    async fn telemetry_is_stored_once_and_thinned_out(db: Db) {
        let id = add_box(&db, 1).await;
        let mut tx = write(&db).await;
        for at in 0..100 {
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let sample = Telemetry {
                load_1m: at as f64,
                memory_total_bytes: u64::MAX,
                vault: (at >= 50).then_some(VaultFill { used_bytes: 10, ..VaultFill::default() }),
                ..Telemetry::default()
            };
            assert!(telemetry_insert(&mut tx, &id, at * 10, &sample, 5000).await.expect("inserts"));
            assert!(!telemetry_insert(&mut tx, &id, at * 10, &sample, 5000).await.expect("twice"));
        }
        let absurd = Telemetry { load_1m: f64::NAN, ..Telemetry::default() };
        assert!(telemetry_insert(&mut tx, &id, i64::MIN, &absurd, 5000).await.expect("inserts"));

        let points = telemetry_series(&mut tx, &id, 0, 1000, 500).await.expect("draws");

        assert_eq!(points.iter().map(|p| (p.at, p.samples)).collect::<Vec<_>>(), [(0, 50), (500, 50)]);
        assert!((points[0].load_1m - 24.5).abs() < 1e-9);
        assert_eq!((points[0].vault_used_bytes, points[1].vault_used_bytes), (None, Some(10.0)));
        let (at, json) = telemetry_latest(&mut tx, &id).await.expect("reads").expect("is there");
        assert_eq!(at, 990);
        assert!(json.contains("\"load_1m\":99.0"), "{json}");
        assert_eq!(telemetry_prune(&mut tx, 5001).await.expect("prunes"), 101);
    }

    async fn the_timeline_is_in_the_order_of_causes(db: Db) {
        let id = add_box(&db, 1).await;
        let epoch: EpochId = "epoch-1".parse().expect("an id");
        add_command(&db, &id, "c1", 100, 10).await;
        let mut tx = write(&db).await;
        presence_insert(&mut tx, &id, PresenceKind::Birth, "s1", "{}", 10).await.expect("inserts");
        journal_commit(&mut tx, &id, &epoch, &entries(1..=12), 10).await.expect("commits");
        presence_insert(&mut tx, &id, PresenceKind::Death, "s1", "{}", 20).await.expect("inserts");

        let mut all = Vec::new();
        loop {
            let place = all.last().map(TimelineRow::place);
            let page = timeline_list(&mut tx, &id, place.as_ref(), 4).await.expect("lists");
            if page.is_empty() { break; }
            all.extend(page);
        }

        assert_eq!(all.len(), 15);
        assert_eq!((all[0].source(), all[0].kind.as_str()), (TimelineSource::Presence, "death"));
        assert_eq!(all[1..13].iter().map(|r| r.number).collect::<Vec<_>>(), (1..=12).rev().collect::<Vec<_>>());
        assert_eq!(all[13].source(), TimelineSource::Presence);
        assert_eq!((all[14].source(), all[14].state.as_deref()), (TimelineSource::Command, Some("queued")));
    }

    async fn state_documents_only_get_newer(db: Db) {
        let id = add_box(&db, 1).await;
        let mut tx = write(&db).await;
        let desired = |version| DesiredRow {
            box_id: id.clone(), version, detail: "{}".into(), jws: "jws".into(), updated: version,
        };
        assert_eq!(box_next_desired(&mut tx, &id).await.expect("draws"), Some(1));
        assert!(desired_set(&mut tx, &desired(2)).await.expect("sets"));
        assert!(!desired_set(&mut tx, &desired(1)).await.expect("older"));
        assert_eq!(desired_get(&mut tx, &id).await.expect("gets"), Some(desired(2)));
        let reported = ReportedRow { box_id: id.clone(), desired_version: 2, detail: "{}".into(), updated: 5 };
        reported_set(&mut tx, &reported).await.expect("sets");
        reported_set(&mut tx, &reported).await.expect("sets again");
        assert_eq!(reported_get(&mut tx, &id).await.expect("gets"), Some(reported));
        assert!(box_set_applied(&mut tx, &id, 2, "1.1", &[], 6).await.expect("sets"));
        assert!(box_set_seen(&mut tx, &id, None, 7).await.expect("sets"));
        assert!(box_set_certificate(&mut tx, &id, "ab", 9, 8).await.expect("sets"));
        let row = box_get(&mut tx, &id).await.expect("gets").expect("is there");
        assert_eq!((row.applied_version, row.last_seen, row.certificate_expires), (2, Some(7), Some(9)));
    }

    async fn orders_are_unique_and_paged(db: Db) {
        let row = |id: &str| OrderRow {
            order_id: id.parse().expect("an id"), customer: "ACME".into(), bucket: "b".into(),
            note: String::new(), created_by: "ada".into(), created: 1,
        };
        let mut tx = write(&db).await;
        for id in ["b", "A", "a", "_"] {
            assert!(order_insert(&mut tx, &row(id)).await.expect("inserts"));
        }
        assert!(!order_insert(&mut tx, &row("a")).await.expect("taken"));
        let ids: Vec<_> = order_list(&mut tx, Some(&"A".parse().expect("an id")), 9).await.expect("lists")
            .into_iter().map(|o| o.order_id.to_string()).collect();
        assert_eq!(ids, ["_", "a", "b"]);
        assert_eq!(order_get(&mut tx, &row("a").order_id).await.expect("gets"), Some(row("a")));
    }

    async fn a_ticket_ends_when_it_expires_or_is_revoked(db: Db) {
        let id = add_box(&db, 1).await;
        let first = add_ticket(&db, &id, "t1", 100).await;
        let second = add_ticket(&db, &id, "t2", 200).await;
        let mut tx = write(&db).await;
        let valid = async |tx: &mut Tx, now| -> Vec<TicketId> {
            ticket_list_valid(tx, &id, now).await.expect("lists").into_iter().map(|t| t.ticket_id).collect()
        };
        assert_eq!(valid(&mut tx, 99).await, [first, second.clone()]);
        assert_eq!(valid(&mut tx, 100).await, std::slice::from_ref(&second));
        assert!(ticket_revoke(&mut tx, &second, 110).await.expect("revokes"));
        assert!(!ticket_revoke(&mut tx, &second, 111).await.expect("twice"));
        assert!(valid(&mut tx, 120).await.is_empty());
        assert_eq!(ticket_list(&mut tx, &id, 10).await.expect("lists").len(), 2);
    }

    async fn asking_twice_for_an_upload_yields_the_same_one(db: Db) {
        let id = add_box(&db, 1).await;
        let ticket = add_ticket(&db, &id, "t1", 100).await;
        let row = |upload: &str| UploadRow {
            upload_id: upload.parse().expect("an id"), box_id: id.clone(), bucket: "b".into(),
            object_key: "dir/ä".parse().expect("a key"), version: 1, ticket_id: ticket.clone(),
            s3_upload_id: Some("s3".into()), bytes: 10, blake3: Digest32([7; 32]), content_type: None,
            metadata: "{}".into(), part_bytes: 8, state: UploadState::Started, reason: None,
            created: 1, updated: 1,
        };
        let u1: UploadId = "u1".parse().expect("an id");
        let mut tx = write(&db).await;
        assert_eq!(upload_start(&mut tx, &row("u1")).await.expect("starts"), (row("u1"), true));
        assert_eq!(upload_start(&mut tx, &row("u2")).await.expect("finds"), (row("u1"), false));
        assert!(upload_advance(&mut tx, &u1, UploadState::Failed, Some("size"), 2).await.expect("fails"));
        assert!(upload_restart(&mut tx, &u1, Some("s3b"), 3).await.expect("restarts"));
        assert!(upload_advance(&mut tx, &u1, UploadState::Verified, None, 4).await.expect("verifies"));
        assert!(!upload_advance(&mut tx, &u1, UploadState::Aborted, None, 5).await.expect("stays"));
        assert!(!upload_restart(&mut tx, &u1, None, 5).await.expect("stays"));
        let got = upload_get(&mut tx, &u1).await.expect("gets").expect("is there");
        assert_eq!((got.state, got.s3_upload_id.as_deref(), got.reason), (UploadState::Verified, Some("s3b"), None));
        assert_eq!(upload_find(&mut tx, &id, "b", &got.object_key, 1).await.expect("finds").map(|u| u.upload_id), Some(u1));
        assert_eq!(upload_list(&mut tx, &id, None, 5).await.expect("lists").len(), 1);
        assert_eq!(upload_count(&mut tx, &id).await.expect("counts"), [("verified".to_owned(), 1, 10)]);
    }

    async fn objects_are_listed_by_prefix_in_byte_order(db: Db) {
        let id = add_box(&db, 1).await;
        let row = |key: &str, version| ObjectRow {
            bucket: "b".into(), object_key: key.parse().expect("a key"), box_id: id.clone(), version,
            bytes: 5, blake3: Digest32([7; 32]), content_type: None, upload_id: "u".into(), verified: 1,
        };
        let mut tx = write(&db).await;
        for key in ["a_1", "a%1", "A1", "ab", "ä", "z"] {
            assert!(object_set(&mut tx, &row(key, 2)).await.expect("sets"));
        }
        assert!(!object_set(&mut tx, &row("z", 1)).await.expect("late"));
        assert!(object_set(&mut tx, &row("z", 3)).await.expect("newer"));
        let names = async |tx: &mut Tx, prefix: &str, after: Option<&str>| -> Vec<String> {
            object_list(tx, "b", prefix, after, 10).await.expect("lists").into_iter().map(|o| o.object_key.to_string()).collect()
        };
        assert_eq!(names(&mut tx, "", None).await, ["A1", "a%1", "a_1", "ab", "z", "ä"]);
        assert_eq!(names(&mut tx, "a", Some("a%1")).await, ["a_1", "ab"]);
        assert_eq!(names(&mut tx, "a_", None).await, ["a_1"]);
        assert!(names(&mut tx, "\0%", None).await.is_empty());
        assert_eq!(object_buckets(&mut tx).await.expect("counts"), [("b".to_owned(), 6, 30)]);
        let key: ObjectKey = "z".parse().expect("a key");
        assert_eq!(object_get(&mut tx, "b", &key).await.expect("gets").map(|o| o.version), Some(3));
        assert!(object_delete(&mut tx, "b", &key).await.expect("deletes"));
        assert!(!object_delete(&mut tx, "b", &key).await.expect("gone"));
    }

    async fn a_rollout_keeps_how_each_box_ended(db: Db) {
        let id = add_box(&db, 1).await;
        let assignment = longhaul_protocol::release::Assignment {
            rollout: "r1".parse().expect("an id"), version: "1.1".into(), target: "t".into(),
            sha256: Digest32([1; 32]), length: 10,
        };
        let mut tx = write(&db).await;
        rollout_insert(&mut tx, &assignment, "ada", 1).await.expect("inserts");
        assert!(rollout_box_insert(&mut tx, &assignment.rollout, &id, Some("c1"), 1).await.expect("inserts"));
        assert!(!rollout_box_insert(&mut tx, &assignment.rollout, &id, None, 1).await.expect("twice"));
        let mut advance = async |state, step, reason| {
            rollout_box_advance(&mut tx, &assignment.rollout, &id, state, step, reason, 2).await.expect("advances")
        };
        assert!(advance(RolloutBoxState::Running, Some("trial"), None).await);
        assert!(advance(RolloutBoxState::RolledBack, None, Some("check failed")).await);
        assert!(!advance(RolloutBoxState::Committed, None, None).await);
        let boxes = rollout_box_list(&mut tx, &assignment.rollout).await.expect("lists");
        assert_eq!((boxes[0].state, boxes[0].step.as_deref(), boxes[0].reason.as_deref()),
            (RolloutBoxState::RolledBack, Some("trial"), Some("check failed")));
        let row = rollout_get(&mut tx, &assignment.rollout).await.expect("gets").expect("is there");
        assert_eq!(rollout_list(&mut tx, 5).await.expect("lists"), [row]);
        let huge = release_set(&mut tx, "t", "1", &Digest32([1; 32]), u64::MAX, 1).await;
        assert!(huge.is_err());
        release_set(&mut tx, "t", "1", &Digest32([1; 32]), 5, 1).await.expect("sets");
        release_set(&mut tx, "t", "1", &Digest32([2; 32]), 6, 2).await.expect("sets again");
        let release = release_get(&mut tx, "t").await.expect("gets").expect("is there");
        assert_eq!((release.length, release.created), (6, 1));
        assert_eq!(release_list(&mut tx).await.expect("lists"), [release]);
    }

    async fn sessions_and_tokens_end(db: Db) {
        let row = OperatorRow { name: "ada".into(), password_hash: "x".into(), role: Role::Admin, created: 1 };
        let mut tx = write(&db).await;
        assert!(operator_insert(&mut tx, &row).await.expect("inserts"));
        assert!(!operator_insert(&mut tx, &row).await.expect("taken"));
        assert_eq!(operator_count_admins(&mut tx).await.expect("counts"), 1);
        for (hash, expires) in [("h1", 100), ("h2", 100), ("h3", 10)] {
            session_insert(&mut tx, hash, "ada", 1, expires).await.expect("inserts");
        }
        assert!(operator_update(&mut tx, "ada", Some(Role::Viewer), None).await.expect("updates"));
        let session = session_get(&mut tx, "h1", 99).await.expect("gets").expect("in time");
        assert_eq!((session.operator.as_str(), session.role), ("ada", Role::Viewer));
        assert_eq!(session_get(&mut tx, "h1", 100).await.expect("gets"), None);
        assert_eq!(session_prune(&mut tx, 10).await.expect("prunes"), 1);
        assert!(session_delete(&mut tx, "h1").await.expect("deletes"));
        assert!(operator_delete(&mut tx, "ada").await.expect("deletes"));
        assert_eq!(session_get(&mut tx, "h2", 1).await.expect("gets"), None);
        assert_eq!(session_delete_of(&mut tx, "ada").await.expect("none"), 0);
        assert!(operator_list(&mut tx).await.expect("lists").is_empty());

        let token = ApiTokenRow { token_id: "t".into(), name: "ci".into(), role: Role::Operator,
            created_by: "ada".into(), created: 1, expires: Some(100), revoked: None };
        api_token_insert(&mut tx, "hash", &token).await.expect("inserts");
        assert_eq!(api_token_find(&mut tx, "hash", 99).await.expect("finds"), Some(token));
        assert_eq!(api_token_find(&mut tx, "hash", 100).await.expect("finds"), None);
        assert!(api_token_revoke(&mut tx, "t", 50).await.expect("revokes"));
        assert_eq!(api_token_find(&mut tx, "hash", 60).await.expect("finds"), None);
        assert_eq!(api_token_list(&mut tx).await.expect("lists").len(), 1);
    }

    async fn the_audit_shows_what_was_altered(db: Db) {
        let detail = serde_json::json!({"label": "a"});
        let entry = AuditEntry { actor: "ada", action: "box.label", subject: "B", detail: &detail };
        let writers = (0..5).map(|n| {
            let db = db.clone();
            async move {
                let mut tx = write(&db).await;
                audit_append(&mut tx, entry, n).await.expect("appends");
                tx.commit().await.expect("commits");
            }
        });
        futures::future::join_all(writers).await;
        let mut tx = write(&db).await;
        assert_eq!(audit_verify(&mut tx).await.expect("follows"), None);
        assert_eq!(audit_list(&mut tx, Some(3), 10).await.expect("lists").len(), 2);

        execute!(&mut tx, "UPDATE audit SET actor = 'eve' WHERE number = 3").expect("alters");
        assert_eq!(audit_verify(&mut tx).await.expect("follows"), Some(3));
        execute!(&mut tx, "UPDATE audit SET actor = 'ada' WHERE number = 3").expect("alters");
        execute!(&mut tx, "DELETE FROM audit WHERE number = 5").expect("cuts");
        assert_eq!(audit_verify(&mut tx).await.expect("follows"), Some(5));
    }

    async fn settings_are_replaced(db: Db) {
        let mut tx = write(&db).await;
        assert_eq!(setting_get(&mut tx, "a").await.expect("gets"), None);
        setting_set(&mut tx, "a", "1").await.expect("sets");
        setting_set(&mut tx, "a", "2").await.expect("sets");
        assert_eq!(setting_get(&mut tx, "a").await.expect("gets").as_deref(), Some("2"));
    }
}

#[tokio::test]
async fn a_reader_cannot_write() {
    for on in [
        super::testing::sqlite().await,
        super::testing::postgres().await,
    ] {
        let mut tx = on.db.read().await.expect("begins");
        assert!(setting_set(&mut tx, "a", "1").await.is_err());
    }
}

/// Table, column, type and whether it may be absent.
type Column = (String, String, String, bool);

#[tokio::test]
async fn both_databases_have_the_same_schema() {
    let lite = super::testing::sqlite().await;
    let postgres = super::testing::postgres().await;
    let mut tx = lite.db.read().await.expect("begins");
    let mut of_lite: Vec<Column> = fetch!(
        all,
        &mut tx,
        Column,
        "SELECT m.name, c.name, c.type, c.\"notnull\" = 0 FROM sqlite_master m, \
         pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name NOT LIKE '\\_sqlx%' ESCAPE '\\' \
         AND m.name NOT LIKE 'sqlite%'"
    )
    .expect("reads");
    let mut tx = postgres.db.read().await.expect("begins");
    let mut of_postgres: Vec<Column> = fetch!(
        all,
        &mut tx,
        Column,
        "SELECT CAST(table_name AS TEXT), CAST(column_name AS TEXT), upper(data_type), \
         is_nullable = 'YES' FROM information_schema.columns \
         WHERE table_schema = 'public' AND table_name NOT LIKE '\\_sqlx%'"
    )
    .expect("reads");
    for column in &mut of_postgres {
        if column.2 == "BYTEA" {
            column.2 = "BLOB".into();
        }
    }
    of_lite.sort();
    of_postgres.sort();
    assert!(of_lite.len() > 100, "{}", of_lite.len());
    assert_eq!(of_lite, of_postgres);
}
