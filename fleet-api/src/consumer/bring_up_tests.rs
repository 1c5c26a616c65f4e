use longhaul_protocol::journal::JournalBatch;
use proptest::prelude::*;

use super::*;
use crate::store::Db;
use crate::store::bring_up::report::{
    BringUpGroup, CauseRow, Reached, Span, bring_up_boots, bring_up_causes, bring_up_failures,
    bring_up_reached, bring_up_times,
};
use crate::store::journal::{JournalCommit, journal_commit};
use crate::store::testing::{add_box, on_both};

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const ALL: Span<'static> = Span {
    from: 0,
    to: i64::MAX,
    tenant: None,
};

fn epoch() -> EpochId {
    "epoch-1".parse().expect("an id")
}

fn start(boot: &str, since_boot_ms: u64) -> Fact {
    Fact::Started {
        agent_version: "1.0.0".into(),
        boot: boot.parse().expect("an id"),
        unclean: false,
        since_boot_ms: Some(since_boot_ms),
    }
}

fn step(boot: &str, since_boot_ms: u64, code: Result<Rung, Code>, fix: Option<Fix>) -> Fact {
    Fact::Rung {
        rung: code.unwrap_or_else(|code| code.entry().rung),
        code: code.err(),
        evidence: "seen\0".repeat(300),
        lasted_ms: 0,
        boot: Some(boot.parse().expect("an id")),
        since_boot_ms: Some(since_boot_ms),
        fix,
    }
}

/// Takes in facts as the consumer does, `first` being the first one's number.
async fn take(db: &Db, box_id: &BoxId, first: u64, facts: Vec<Fact>) {
    let entry = |(number, fact)| JournalEntry {
        number,
        at: NOW.plus_millis(-60_000),
        fact,
    };
    let batch = JournalBatch {
        epoch: epoch(),
        entries: (first..).zip(facts).map(entry).collect(),
    };
    let mut tx = db.write().await.expect("begins");
    let done = journal_commit(&mut tx, box_id, &batch.epoch, &batch.entries, NOW.0);
    let JournalCommit::Committed { known, .. } = done.await.expect("commits") else {
        panic!("a gap");
    };
    for entry in &batch.entries[known..] {
        started(&mut tx, box_id, entry, NOW).await.expect("folds");
        rung(&mut tx, box_id, &batch.epoch, entry, NOW)
            .await
            .expect("folds");
    }
    tx.commit().await.expect("commits");
}

/// A cable that comes late, a DNS server that lies, the power that goes, and all is well.
fn story() -> Vec<Fact> {
    vec![
        start("b-1", 9_000),
        step("b-1", 10_000, Err(Code::NO_CABLE), None),
        step("b-1", 40_000, Ok(Rung::Link), Some(Fix::Cable)),
        step("b-1", 40_000, Ok(Rung::Address), None),
        step("b-1", 40_000, Ok(Rung::Gateway), None),
        step("b-1", 41_000, Err(Code::DNS_PRIVATE), None),
        start("b-2", 8_000),
        step("b-2", 9_000, Ok(Rung::Link), None),
        step("b-2", 9_000, Err(Code::DNS_PRIVATE), None),
        step("b-2", 19_000, Ok(Rung::Dns), Some(Fix::OtherSide)),
        step("b-2", 20_000, Ok(Rung::Broker), None),
        step("b-2", 80_000, Err(Code::BROKER_LOST), None),
        step("b-2", 81_000, Err(Code::NO_CABLE), None),
        step("b-2", 91_000, Ok(Rung::Link), Some(Fix::Cable)),
        step("b-2", 94_000, Ok(Rung::Broker), Some(Fix::Cable)),
    ]
}

on_both! {
    async fn a_journal_becomes_boots_failures_and_what_fixed_them(db: Db) {
        let id = add_box(&db, 1).await;
        // However often a batch comes, and wherever it was cut: each entry counts once.
        take(&db, &id, 1, story()[..5].to_vec()).await;
        take(&db, &id, 1, story()[..9].to_vec()).await;
        take(&db, &id, 1, story()).await;
        take(&db, &id, 1, story()).await;

        let mut tx = db.read().await.expect("begins");
        let boots = bring_up_boots(&mut tx, ALL, Some(&id), None, 10).await.expect("reads");
        let failures = bring_up_failures(&mut tx, ALL, None).await.expect("reads");
        let times: Vec<_> = boots.iter().map(|b| (
            b.boot.boot_id.as_str(), b.boot.power_to_start_ms, b.boot.start_to_online_ms, b.boot.reached,
        )).collect();
        assert_eq!(times, [("b-2", 8_000, Some(12_000), 10), ("b-1", 9_000, None, 3)]);
        let told: Vec<_> = failures.iter().map(|f| (
            f.code.0, f.boot_id.as_str(), f.lasted_ms, f.held_up_ms, f.fix.as_deref().unwrap_or("lasts"),
        )).collect();
        assert_eq!(told, [
            (Code::NO_CABLE, "b-1", Some(30_000), 30_000, "cable"),
            // It went on after the power came back: by the calendar, which stands still here.
            (Code::DNS_PRIVATE, "b-1", Some(11_000), 11_000, "other_side"),
            (Code::BROKER_LOST, "b-2", Some(14_000), 4_000, "cable"),
            (Code::NO_CABLE, "b-2", Some(10_000), 10_000, "cable"),
        ]);
        assert!(failures[0].evidence.chars().count() == 400 && !failures[0].evidence.contains('\0'));
    }

    async fn a_fleet_is_reported_by_step_and_cause(db: Db) {
        let (one, two) = (add_box(&db, 1).await, add_box(&db, 2).await);
        take(&db, &one, 1, story()).await;
        take(&db, &two, 1, vec![
            start("b-9", 5_000),
            step("b-9", 6_000, Err(Code::NO_CABLE), None),
            step("b-9", 7_000, Ok(Rung::Link), None),
        ]).await;

        let mut tx = db.read().await.expect("begins");
        let reached = bring_up_reached(&mut tx, ALL).await.expect("reads");
        let causes = bring_up_causes(&mut tx, ALL, Some(BringUpGroup::Hardware), None, 2).await.expect("reads");
        let last = causes.last().expect("two");
        let code = last.code.0.to_string();
        let after = Some((last.held_up_ms, last.name.as_str(), code.as_str()));
        let rest = bring_up_causes(&mut tx, ALL, Some(BringUpGroup::Hardware), after, 2).await.expect("reads");
        let mut times = bring_up_times(&mut tx, ALL).await.expect("reads");
        times.sort_unstable();
        assert_eq!(times, [None, None, Some(20_000)]);
        let far = |reached| Reached { reached, boxes: 1, claimed: 0, sending: 0 };
        assert_eq!(reached, [far(1), far(10)]);
        let counts = |c: &CauseRow| (c.code.0, c.failures, c.boxes, c.held_up_ms, c.longest_ms, c.cable, c.restart, c.lasting);
        assert_eq!(causes.iter().chain(&rest).map(counts).collect::<Vec<_>>(), [
            (Code::NO_CABLE, 3, 2, 41_000, 30_000, 2, 1, 0),
            (Code::DNS_PRIVATE, 1, 1, 11_000, 11_000, 0, 0, 0),
            (Code::BROKER_LOST, 1, 1, 4_000, 4_000, 1, 0, 0),
        ]);
        assert!(causes.iter().all(|c| c.name == "bench"));
        let nobodys: crate::store::tenants::TenantId = "nobody".parse().expect("an id");
        let theirs = Span { tenant: Some(&nobodys), ..ALL };
        assert_eq!(bring_up_causes(&mut tx, theirs, None, None, 9).await.expect("reads"), []);
        assert_eq!(bring_up_reached(&mut tx, theirs).await.expect("reads"), []);
        assert_eq!(bring_up_boots(&mut tx, theirs, None, None, 9).await.expect("reads"), []);
        assert_eq!(bring_up_failures(&mut tx, theirs, None).await.expect("reads"), []);
        assert_eq!(bring_up_times(&mut tx, theirs).await.expect("reads"), []);
    }

    async fn what_has_no_steady_clock_or_lies_about_it_is_survived(db: Db) {
        let id = add_box(&db, 1).await;
        let old = Fact::Started {
            agent_version: "0.1".into(), boot: "b-0".parse().expect("an id"), unclean: true, since_boot_ms: None,
        };
        take(&db, &id, 1, vec![
            old,
            step("b-0", 1, Err(Code::NO_CABLE), None),
            start("b-1", u64::MAX),
            step("b-1", 0, Err(Code::NO_CABLE), Some(Fix::Cable)),
            step("b-1", u64::MAX, Ok(Rung::Link), None),
            step("b-1", 5, Ok(Rung::Broker), None),
        ]).await;

        let mut tx = db.read().await.expect("begins");
        let boots = bring_up_boots(&mut tx, ALL, None, None, 9).await.expect("reads");
        assert_eq!(boots.len(), 1);
        assert_eq!(boots[0].boot.start_to_online_ms, Some(0));
    }
}

fn boot_row() -> BootRow {
    BootRow {
        box_id: "0123456789AB".parse().expect("an id"),
        boot_id: "b".parse().expect("an id"),
        began: 0,
        release: String::new(),
        power_to_start_ms: 0,
        start_to_online_ms: None,
        reached: 0,
        last_ms: 0,
    }
}

proptest! {
    /// Whatever a box says in whatever order: at most one failure of a rung lasts, and no moment is
    /// held against two.
    #[test]
    fn no_moment_is_counted_twice(
        facts in proptest::collection::vec((0..longhaul_protocol::diag::CODES.len(), any::<bool>(), 0_i64..5_000), 0..60),
    ) {
        let (epoch, boot_id) = (epoch(), "b".parse().expect("an id"));
        let (mut boot, mut all, mut time) = (boot_row(), std::collections::BTreeMap::new(), 0);
        for (number, (index, holds, wait)) in (1..).zip(facts) {
            time += wait;
            let entry = &longhaul_protocol::diag::CODES[index];
            let code: Code = format!("LH-{}", entry.number).parse().expect("a code");
            let told = Told {
                epoch: &epoch,
                number,
                at: UnixMillis(time),
                boot_id: &boot_id,
                since_boot_ms: time,
                rung: entry.rung,
                code: (!holds).then_some(code),
                evidence: "",
                fix: None,
            };
            let open = all.values().filter(|f: &&FailureRow| f.lasted_ms.is_none()).cloned().collect();
            let (next, changed) = fold(boot, open, &told);
            boot = next;
            all.extend(changed.into_iter().map(|row| (row.number, row)));
        }
        let held: i64 = all.values().map(|row| row.held_up_ms).sum();
        prop_assert!(held <= time);
        let mut lasting: Vec<_> = all.values().filter(|row| row.lasted_ms.is_none()).map(rung_of).collect();
        let count = lasting.len();
        lasting.dedup();
        lasting.sort_unstable();
        lasting.dedup();
        prop_assert_eq!(lasting.len(), count);
        for row in all.values() {
            prop_assert!(row.lasted_ms.is_none_or(|lasted| row.held_up_ms <= lasted));
            prop_assert_eq!(row.lasted_ms.is_some(), row.fix.is_some());
        }
    }
}
