//! Updates against a signed repository that a real HTTPS server offers.

use std::fs;
use std::time::Duration;

use longhaul_protocol::journal::Outcome;
use longhaul_protocol::release::{UpdateStatus, UpdateStep as Step};
use longhaul_protocol::value::Digest32;
use tokio_util::sync::CancellationToken;

use super::bench::Bench;
use super::slots::Slot;
use super::state::Update;
use super::updater::{Done, Ended};
use crate::agent::Event;
use crate::disk;
use crate::update::{self, UpdateRequest};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// Runs an agent's updater until it wants to restart, or has told the end of a command.
async fn life(bench: &mut Bench, slot: Slot, version: &str, request: &UpdateRequest) -> Life {
    let (sender, requests) = update::channel();
    sender.send(request.clone()).await.unwrap();
    let stop = CancellationToken::new();
    let updater = bench.updater(slot, version).run(requests, stop.clone());
    let mut running = tokio::spawn(updater);
    let wait = async {
        loop {
            tokio::select! {
                ended = &mut running => {
                    assert_eq!(ended.unwrap().unwrap(), Ended::Restart);
                    return Life::Restart;
                }
                Some(event) = bench.inbox.recv() => {
                    if let Event::CommandEnded { id, outcome } = event {
                        assert_eq!(id, request.command);
                        stop.cancel();
                        (&mut running).await.unwrap().unwrap();
                        return Life::Told(outcome);
                    }
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap()
}

#[derive(Debug)]
enum Life {
    Restart,
    Told(Outcome),
}

impl Life {
    fn reason(self) -> String {
        match self {
            Self::Told(Outcome::Failed { reason }) => reason,
            other => panic!("{other:?}"),
        }
    }
}

fn steps(told: &[UpdateStatus]) -> Vec<Step> {
    let mut steps: Vec<_> = told.iter().map(|s| s.step).collect();
    steps.dedup();
    steps
}

/// A release that is long enough to be fetched in pieces.
fn long() -> Vec<u8> {
    (0..12_000_000_u32)
        .map(|n| (n >> 7).to_le_bytes()[0])
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_release_goes_through_every_step_and_is_committed() {
    let mut bench = Bench::new(0).await;
    let request = bench.sign("2.0", b"two", 0).await;

    let armed = life(&mut bench, Slot::A, "1.0", &request).await;
    assert!(matches!(armed, Life::Restart), "{armed:?}");
    assert_eq!(fs::read(bench.slots.agent(Slot::B)).unwrap(), b"two");
    bench.slots.judge(None).unwrap();
    let end = life(&mut bench, Slot::B, "2.0", &request).await;

    assert!(matches!(end, Life::Told(Outcome::Done { .. })), "{end:?}");
    let all = [
        Step::Assigned,
        Step::Metadata,
        Step::Preflight,
        Step::Download,
        Step::Verify,
        Step::WaitWindow,
        Step::Arm,
        Step::Reboot,
        Step::Committed,
    ];
    let told: Vec<Step> = bench.told().await.iter().map(|s| s.step).collect();
    assert_eq!(told, all, "each once, though another agent went on");
    // What was fetched is not needed any more.
    let left = fs::read_dir(bench.path("ota")).unwrap();
    let left: Vec<_> = left.map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|n| n.to_str().unwrap().contains("image")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_was_rolled_back_says_why_and_is_not_tried_again() {
    let mut bench = Bench::new(0).await;
    let request = bench.sign("2.0", b"two", 0).await;
    life(&mut bench, Slot::A, "1.0", &request).await;
    bench.slots.judge(Some("no such luck".to_owned())).unwrap();

    let end = life(&mut bench, Slot::A, "1.0", &request).await;

    let reason = end.reason();
    assert_eq!(reason, "rolled back: no such luck");
    let told = bench.told().await;
    assert_eq!(told.last().unwrap().step, Step::RolledBack);
    assert_eq!(told.last().unwrap().reason.as_deref(), Some("no such luck"));
    assert_eq!(bench.slots.current().unwrap().unwrap().trial, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_runs_already_is_committed_at_once() {
    let mut bench = Bench::new(0).await;
    let request = bench.sign("1.0", b"one", 0).await;

    let end = life(&mut bench, Slot::A, "1.0", &request).await;

    assert!(matches!(end, Life::Told(Outcome::Done { .. })), "{end:?}");
    let told = bench.told().await;
    assert_eq!(steps(&told), [Step::Assigned, Step::Committed]);
    assert!(told[1].reason.as_ref().unwrap().contains("already runs"));
    assert!(bench.manners.lock().asked.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_is_cut_goes_on_with_the_bytes_that_are_missing() {
    let mut bench = Bench::new(0).await;
    let request = bench.sign("2.0", &long(), 0).await;
    bench.manners.lock().cuts = vec![5_000_000, 1_000_000];

    let armed = life(&mut bench, Slot::A, "1.0", &request).await;

    assert!(matches!(armed, Life::Restart), "{armed:?}");
    assert_eq!(fs::read(bench.slots.agent(Slot::B)).unwrap(), long());
    let ranges = bench.ranges();
    assert_eq!(ranges.len(), 3, "{ranges:?}");
    assert_eq!(ranges[0], None);
    let from = |range: &Option<String>| -> usize {
        let range = range.as_ref().unwrap().strip_prefix("bytes=").unwrap();
        range.strip_suffix('-').unwrap().parse().unwrap()
    };
    let (first, second) = (from(&ranges[1]), from(&ranges[2]));
    assert!((1..=5_000_000).contains(&first), "{ranges:?}");
    assert!(second > first && second <= first + 1_000_000, "{ranges:?}");
    let told = bench.told().await;
    assert!(
        told.iter().any(|s| s.fetched_bytes > Some(4_000_000)),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_killed_goes_on_with_what_is_durable() {
    let mut bench = Bench::new(0).await;
    let request = bench.sign("2.0", &long(), 0).await;
    let image = bench.path(&format!("ota/{}.image", request.assignment.sha256));
    // As the one before left it: five million bytes are known to be durable, and torn ones follow.
    let mut update = Update::new(request.command.clone(), request.assignment.clone());
    update.status.step = Step::Download;
    disk::make_dir(&bench.path("ota")).unwrap();
    disk::write_json(
        &bench.path("ota/update.json"),
        &update.with_fetched(5_000_000),
    )
    .unwrap();
    let mut there = long()[..5_000_000].to_vec();
    there.extend([0; 4096]);
    fs::write(&image, there).unwrap();

    let armed = life(&mut bench, Slot::A, "1.0", &request).await;

    assert!(matches!(armed, Life::Restart), "{armed:?}");
    assert_eq!(bench.ranges(), [Some("bytes=5000000-".to_owned())]);
    assert_eq!(fs::read(bench.slots.agent(Slot::B)).unwrap(), long());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tampered_target_is_refused_with_both_digests() {
    let mut bench = Bench::new(0).await;
    let request = bench.sign("2.0", b"two", 0).await;
    fs::write(bench.in_repository("targets", ".box-2.0"), "owt").unwrap();

    let reason = life(&mut bench, Slot::A, "1.0", &request).await.reason();

    let signed = request.assignment.sha256.to_string();
    assert!(reason.contains(&signed), "{reason}");
    assert_eq!(bench.slots.release(Slot::B).unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_longer_or_shorter_than_signed_or_missing_is_refused() {
    for (there, said) in [(Some("two!"), "longer"), (Some("tw"), "416"), (None, "404")] {
        let mut bench = Bench::new(0).await;
        let request = bench.sign("2.0", b"two", 0).await;
        let target = bench.in_repository("targets", ".box-2.0");
        match there {
            Some(bytes) => fs::write(target, bytes).unwrap(),
            None => fs::remove_file(target).unwrap(),
        }

        let reason = life(&mut bench, Slot::A, "1.0", &request).await.reason();

        assert!(reason.contains(said), "{reason}");
        assert_eq!(bench.slots.release(Slot::B).unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tampered_metadata_are_refused() {
    let mut bench = Bench::new(0).await;
    let request = bench.sign("2.0", b"two", 0).await;
    let targets = bench.in_repository("metadata", ".targets.json");
    let text = fs::read_to_string(&targets).unwrap();
    // Of the same length: neither length nor form gives it away.
    let forged = text.replace("\"2.0\"", "\"2.1\"");
    assert_ne!(text, forged);
    fs::write(&targets, forged).unwrap();

    let reason = life(&mut bench, Slot::A, "1.0", &request).await.reason();

    assert!(reason.contains("release metadata refused"), "{reason}");
    assert!(bench.ranges().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_older_than_those_seen_before_are_refused() {
    let mut bench = Bench::new(0).await;
    let old = bench.sign("2.0", b"two", 0).await;
    let timestamp = bench.path("repo/metadata/timestamp.json");
    let before = fs::read(&timestamp).unwrap();
    let new = bench.sign("3.0", b"three", 0).await;
    let armed = life(&mut bench, Slot::A, "1.0", &new).await;
    assert!(matches!(armed, Life::Restart), "{armed:?}");
    bench.slots.judge(Some("not wanted".to_owned())).unwrap();
    life(&mut bench, Slot::A, "1.0", &new).await.reason();

    fs::write(&timestamp, before).unwrap();
    let reason = life(&mut bench, Slot::A, "1.0", &old).await.reason();

    assert!(reason.contains("release metadata refused"), "{reason}");
    assert!(reason.contains("version"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_metadata_are_refused() {
    let mut bench = Bench::new(30).await;
    let request = bench.sign("2.0", b"two", 30).await;

    let reason = life(&mut bench, Slot::A, "1.0", &request).await.reason();

    assert!(reason.contains("expired"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_of_another_fleet_are_refused() {
    let mut bench = Bench::new(0).await;
    let request = bench.sign("2.0", b"two", 0).await;
    let other = Bench::new(0).await;
    fs::copy(other.path("tuf-root.json"), bench.path("tuf-root.json")).unwrap();

    let reason = life(&mut bench, Slot::A, "1.0", &request).await.reason();

    assert!(reason.contains("release metadata refused"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assignment_that_the_metadata_do_not_bear_out_is_refused() {
    let mut bench = Bench::new(0).await;
    let request = bench.sign("2.0", b"two", 0).await;
    bench.sign("2.1", b"two and a bit", 0).await;
    let change = |change: fn(&mut UpdateRequest)| {
        let mut changed = request.clone();
        change(&mut changed);
        changed
    };
    let changed = [
        change(|r| r.assignment.version = "2.1".to_owned()),
        change(|r| r.assignment.target = "box-2.1".to_owned()),
        change(|r| r.assignment.sha256 = Digest32([7; 32])),
        change(|r| r.assignment.length += 1),
        change(|r| r.assignment.target = "../box-2.0".to_owned()),
        change(|r| r.assignment.target = "box-9".to_owned()),
    ];

    for (n, mut request) in changed.into_iter().enumerate() {
        request.command = format!("c-{n}").parse().unwrap();
        let reason = life(&mut bench, Slot::A, "1.0", &request).await.reason();
        assert!(reason.contains("signed metadata"), "{n}: {reason}");
    }
    assert!(bench.ranges().is_empty());
    assert_eq!(bench.slots.release(Slot::B).unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_without_a_root_to_trust_says_so() {
    let mut bench = Bench::new(0).await;
    let request = bench.sign("2.0", b"two", 0).await;
    fs::remove_file(bench.path("tuf-root.json")).unwrap();

    let reason = life(&mut bench, Slot::A, "1.0", &request).await.reason();

    assert!(reason.contains("tuf-root.json is missing"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_for_which_there_is_no_room_is_not_begun() {
    let mut bench = Bench::new(0).await;
    let mut request = bench.sign("2.0", b"two", 0).await;
    request.assignment.length = u64::MAX / 4;
    let mut update = Update::new(request.command.clone(), request.assignment.clone());
    update.status.step = Step::Preflight;
    disk::make_dir(&bench.path("ota")).unwrap();
    disk::write_json(&bench.path("ota/update.json"), &update).unwrap();

    let reason = life(&mut bench, Slot::A, "1.0", &request).await.reason();

    assert!(reason.contains("are free"), "{reason}");
}

/// Walks an update with a power cut before and after every time that a state is written, and with
/// every step's effect done twice; the supervisor is played by `kept`.
async fn walk_with_cuts(kept: bool) -> (Bench, Vec<Step>) {
    let bench = Bench::new(0).await;
    let request = bench.sign("2.0", b"two", 0).await;
    let stop = CancellationToken::new();
    let file = bench.path("ota/update.json");
    disk::make_dir(&bench.path("ota")).unwrap();
    let mut update = Update::new(request.command, request.assignment);
    let mut seen = Vec::new();
    while !update.status.step.is_terminal() {
        seen.push(update.status.step);
        disk::write_json(&file, &update).unwrap();
        let mut next = None;
        for _ in 0..2 {
            // The machine came back: the supervisor has chosen, a new agent reads its state.
            let current = bench.slots.current().unwrap().unwrap();
            let slot = current.trial.as_ref().map_or(current.active, |t| t.slot);
            let version = if slot == Slot::A { "1.0" } else { "2.0" };
            let on_disk: Update = disk::read_json(&file).unwrap().unwrap();
            if on_disk.status.step == Step::Trial {
                bench
                    .slots
                    .judge((!kept).then(|| "not good".to_owned()))
                    .unwrap();
            }
            match bench
                .updater(slot, version)
                .carry_out(&on_disk, &stop)
                .await
                .unwrap()
            {
                Done::Event(event) => next = on_disk.after(event),
                Done::Ended(ended) => panic!("{ended:?} at {:?}", on_disk.status.step),
            }
        }
        update = next.unwrap();
    }
    seen.push(update.status.step);
    (bench, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_between_all_writes_end_in_committed() {
    let (bench, seen) = walk_with_cuts(true).await;

    assert_eq!(seen.last(), Some(&Step::Committed), "{seen:?}");
    assert_eq!(seen.len(), 10, "{seen:?}");
    let current = bench.slots.current().unwrap().unwrap();
    assert_eq!((current.active, current.trial), (Slot::B, None));
    assert!(bench.slots.sound(Slot::A).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_between_all_writes_end_in_rolled_back() {
    let (bench, seen) = walk_with_cuts(false).await;

    assert_eq!(seen.last(), Some(&Step::RolledBack), "{seen:?}");
    let current = bench.slots.current().unwrap().unwrap();
    assert_eq!((current.active, current.trial), (Slot::A, None));
    assert!(bench.slots.sound(Slot::A).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_instead_of_a_state_is_no_update() {
    let mut bench = Bench::new(0).await;
    let request = bench.sign("2.0", b"two", 0).await;
    disk::make_dir(&bench.path("ota")).unwrap();
    for garbage in ["", "{", "[]", "\u{0}"] {
        fs::write(bench.path("ota/update.json"), garbage).unwrap();
        let mut other = request.clone();
        other.assignment.version = "1.0".to_owned();

        let end = life(&mut bench, Slot::A, "1.0", &other).await;

        assert!(matches!(end, Life::Told(Outcome::Done { .. })), "{end:?}");
    }
}
