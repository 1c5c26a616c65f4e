//! Journal, telemetry, timeline.

use longhaul_protocol::ids::EpochId;
use longhaul_protocol::telemetry::{Telemetry, VaultFill};

use super::{add_command, entries, write};
use crate::store::Db;
use crate::store::journal::{JournalCommit, journal_commit, journal_through};
use crate::store::presence::{PresenceKind, presence_insert};
use crate::store::telemetry::{Series, telemetry_insert, telemetry_latest, telemetry_series};
use crate::store::testing::{add_box, box_id, on_both};
use crate::store::timeline::{TimelineRow, TimelineSource, timeline_list};

on_both! {
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

        let drawn = telemetry_series(&mut tx, &id, (0, 999), 2).await.expect("draws");

        assert_eq!((drawn.series, drawn.step), (Series::Samples, 500));
        let points = drawn.points;
        assert_eq!(points.iter().map(|p| (p.at, p.samples)).collect::<Vec<_>>(), [(0, 50), (500, 50)]);
        assert!((points[0].load_1m - 24.5).abs() < 1e-9);
        assert_eq!((points[0].vault_used_bytes, points[1].vault_used_bytes), (None, Some(10.0)));
        let (at, json) = telemetry_latest(&mut tx, &id).await.expect("reads").expect("is there");
        assert_eq!(at, 990);
        assert!(json.contains("\"load_1m\":99.0"), "{json}");
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
}
