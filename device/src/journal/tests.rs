use std::fs;

use longhaul_protocol::envelope;
use longhaul_protocol::journal::{Fact, MAX_BATCH_ENTRIES};
use longhaul_protocol::value::UnixMillis;
use proptest::prelude::*;

use super::log::Log;
use super::*;

const MAX: u64 = 1024 * 1024;
const NOW: UnixMillis = UnixMillis(1_000);

fn fact(text: &str) -> Fact {
    Fact::Failure {
        part: "test".to_owned(),
        text: text.to_owned(),
    }
}

fn texts(log: &Log) -> Vec<String> {
    let batch = log.batch_after(None).unwrap();
    let entries = batch.map(|b| b.entries).unwrap_or_default();
    entries
        .into_iter()
        .map(|e| match e.fact {
            Fact::Failure { text, .. } => text,
            other => panic!("unexpected {other:?}"),
        })
        .collect()
}

fn open(dir: &Path, fresh: &str) -> Log {
    Log::open(dir, MAX, fresh.parse().unwrap(), NOW).unwrap()
}

fn append(log: &mut Log, text: &str) -> u64 {
    log.append(vec![fact(text)], NOW)
        .unwrap()
        .remove(0)
        .unwrap()
}

#[test]
fn entries_survive_a_restart_and_are_forgotten_when_committed() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), "one");
    for text in ["a", "b", "c"] {
        append(&mut log, text);
    }
    log.acknowledge(1).unwrap();
    drop(log);

    let mut log = open(dir.path(), "two");

    assert_eq!(log.epoch().as_str(), "one");
    assert_eq!(texts(&log), ["b", "c"]);
    assert_eq!(append(&mut log, "d"), 4);
    log.acknowledge(4).unwrap();
    assert_eq!(texts(&log), [""; 0]);
}

#[test]
fn a_result_that_still_waits_is_not_written_a_second_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), "one");
    let result = |id: &str| Fact::CommandResult {
        id: id.parse().unwrap(),
        outcome: longhaul_protocol::journal::Outcome::Failed {
            reason: "no room".to_owned(),
        },
    };
    let told = |log: &mut Log, id: &str| {
        let written = log.append(vec![result(id)], NOW).unwrap().remove(0);
        written.unwrap()
    };
    append(&mut log, "before");
    assert_eq!((told(&mut log, "c1"), told(&mut log, "c2")), (2, 3));
    assert_eq!(told(&mut log, "c1"), 2, "the cloud asks at every birth");
    drop(log);

    let mut log = open(dir.path(), "two");
    assert_eq!(told(&mut log, "c2"), 3, "also by another agent");
    assert_eq!(log.position().last, 3);
    log.acknowledge(2).unwrap();
    assert_eq!(
        told(&mut log, "c1"),
        4,
        "it was committed, and got lost there"
    );
    assert_eq!(told(&mut log, "c2"), 3);
}

#[test]
fn an_acknowledgement_of_what_was_never_written_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), "one");
    append(&mut log, "a");

    log.acknowledge(2).unwrap();
    log.acknowledge(u64::MAX).unwrap();

    assert_eq!(texts(&log), ["a"]);
}

#[test]
fn a_committed_journal_is_rewritten_and_keeps_counting() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), 64 * MAX, "one".parse().unwrap(), NOW).unwrap();
    let big = "x".repeat(40_000);
    let facts = (0..150).map(|_| fact(&big)).collect();
    log.append(facts, NOW).unwrap();
    let before = fs::metadata(dir.path().join("journal.log")).unwrap().len();

    log.acknowledge(149).unwrap();

    let after = fs::metadata(dir.path().join("journal.log")).unwrap().len();
    assert!(after < before / 100, "{after} of {before}");
    assert_eq!(append(&mut log, "next"), 151);
    drop(log);
    let log = open(dir.path(), "two");
    assert_eq!(texts(&log), [big.as_str(), "next"]);
    assert_eq!(
        log.position(),
        Position {
            last: 151,
            acked: 149
        }
    );
}

#[test]
fn a_batch_fits_its_message() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), "one");
    for size in [10, 30_000, 29_000, 28_000, 45_000] {
        append(&mut log, &"\u{e4}".repeat(size / 2));
    }
    for _ in 0..3 {
        log.append((0..200).map(|i| fact(&i.to_string())).collect(), NOW)
            .unwrap();
    }

    let mut numbers = Vec::new();
    while let Some(batch) = log.batch_after(None).unwrap() {
        assert!(batch.entries.len() <= MAX_BATCH_ENTRIES);
        envelope::encode(&batch, NOW).expect("fits its message");
        numbers.extend(batch.entries.iter().map(|e| e.number));
        log.acknowledge(*numbers.last().unwrap()).unwrap();
    }

    assert_eq!(numbers, (1..=605).collect::<Vec<_>>());
}

#[test]
fn a_full_journal_refuses_telemetry_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), 40_000, "one".parse().unwrap(), NOW).unwrap();
    append(&mut log, &"x".repeat(12_000));
    let sample = || Fact::Telemetry(Box::default());

    let full = log.append(vec![sample(), fact("still fits")], NOW).unwrap();

    assert!(matches!(full[0], Err(JournalError::Full { .. })));
    assert_eq!(*full[1].as_ref().unwrap(), 2);
    let full = log.append(vec![fact(&"x".repeat(30_000))], NOW).unwrap();
    assert!(matches!(full[0], Err(JournalError::Full { .. })));
}

#[test]
fn a_fact_longer_than_a_message_is_refused_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), "one");

    let results = log
        .append(vec![fact(&"x".repeat(50_000)), fact("b")], NOW)
        .unwrap();

    assert!(matches!(results[0], Err(JournalError::TooLong { .. })));
    assert_eq!(*results[1].as_ref().unwrap(), 1);
}

#[test]
fn a_newer_file_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    let header = br#"{"format":2,"epoch":"e","first":1}"#;
    record::write(&mut bytes, record::Kind::Header, header);
    fs::write(dir.path().join("journal.log"), &bytes).unwrap();

    let opened = Log::open(dir.path(), MAX, "one".parse().unwrap(), NOW);

    assert!(matches!(
        opened.err(),
        Some(JournalError::UnknownFormat { format: 2 })
    ));
    assert_eq!(fs::read(dir.path().join("journal.log")).unwrap(), bytes);
}

#[tokio::test]
async fn callers_share_one_journal() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, thread) = super::open(dir.path(), MAX, "one".parse().unwrap(), || NOW).unwrap();
    let appends = (0..50).map(|i| {
        let handle = handle.clone();
        tokio::spawn(async move { handle.append(fact(&i.to_string())).await.unwrap() })
    });

    let mut numbers = Vec::new();
    for append in appends.collect::<Vec<_>>() {
        numbers.push(append.await.unwrap());
    }

    numbers.sort_unstable();
    assert_eq!(numbers, (1..=50).collect::<Vec<_>>());
    let ack = |epoch: &str, through| JournalAck {
        epoch: epoch.parse().unwrap(),
        through,
    };
    handle.acknowledge(&ack("other", 50)).await.unwrap();
    handle.acknowledge(&ack("one", 20)).await.unwrap();
    assert_eq!(handle.batch().await.unwrap().unwrap().entries[0].number, 21);
    let behind = |number| handle.batch_after(Some(number));
    assert_eq!(behind(30).await.unwrap().unwrap().entries[0].number, 31);
    let committed = behind(3).await.unwrap().unwrap();
    assert_eq!(
        committed.entries[0].number, 21,
        "the cloud has those before"
    );
    assert_eq!(behind(50).await.unwrap(), None);
    let position = *handle.position().borrow();
    assert_eq!(
        position,
        Position {
            last: 50,
            acked: 20
        }
    );
    drop(handle);
    thread.join().unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Append(u8),
    Ack(u8),
    Restart,
    Tear(u16),
    Flip(prop::sample::Index, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..5_u8).prop_map(Step::Append),
        3 => any::<u8>().prop_map(Step::Ack),
        2 => Just(Step::Restart),
        1 => (1..200_u16).prop_map(Step::Tear),
        1 => (any::<prop::sample::Index>(), 0..8_u8).prop_map(|(i, b)| Step::Flip(i, b)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A torn write behind the last sync costs nothing; a flipped bit costs at most the one
    /// entry that it hits, never silently and never by giving a known number another meaning.
    #[test]
    fn no_order_of_events_loses_an_entry(steps in proptest::collection::vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.log");
        let mut lives = 0;
        let mut log = open(dir.path(), "life-0");
        let mut expected: Vec<String> = Vec::new();
        let mut count = 0_u32;
        for step in steps {
            match step {
                Step::Append(n) => {
                    for _ in 0..n {
                        count += 1;
                        append(&mut log, &count.to_string());
                        expected.push(count.to_string());
                    }
                }
                Step::Ack(share) => {
                    let open = expected.len() * usize::from(share) / 255;
                    let through = log.position().acked + open as u64;
                    log.acknowledge(through).unwrap();
                    expected.drain(..open);
                }
                Step::Restart => {
                    let epoch = log.epoch().clone();
                    drop(log);
                    lives += 1;
                    log = open(dir.path(), &format!("life-{lives}"));
                    prop_assert_eq!(log.epoch(), &epoch);
                }
                Step::Tear(bytes) => {
                    // A write that a power cut ended early: the start of a record and no more.
                    let mut torn = Vec::new();
                    record::write(&mut torn, record::Kind::Entry, &[b' '; 200]);
                    let mut file = fs::read(&path).unwrap();
                    file.extend(&torn[..usize::from(bytes)]);
                    drop(log);
                    fs::write(&path, file).unwrap();
                    lives += 1;
                    log = open(dir.path(), &format!("life-{lives}"));
                }
                Step::Flip(at, bit) => {
                    let epoch = log.epoch().clone();
                    drop(log);
                    let mut file = fs::read(&path).unwrap();
                    let at = at.index(file.len());
                    file[at] ^= 1 << bit;
                    fs::write(&path, file).unwrap();
                    lives += 1;
                    log = open(dir.path(), &format!("life-{lives}"));
                    prop_assert_ne!(log.epoch(), &epoch);
                    let kept = texts(&log);
                    let lost = expected.iter().filter(|t| !kept.contains(t)).count();
                    prop_assert!(lost <= 1, "{} of {}", lost, expected.len());
                    prop_assert!(kept.last().is_some_and(|t| t.contains("damaged")));
                    expected = kept;
                }
            }
            let kept = texts(&log);
            prop_assert_eq!(&kept[..], &expected[..kept.len()]);
            prop_assert_eq!(log.position().last - log.position().acked, expected.len() as u64);
        }
    }
}
