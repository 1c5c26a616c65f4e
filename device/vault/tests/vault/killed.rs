//! A process that is killed at any moment, again and again, on a real disk.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use longhaul_vault::{
    Checksums, Condition, DeliveryEvent, Error, Metadata, PartNumber, Vault, VaultConfig,
};

use crate::support::{bytes, clock, job, key, read_all};

const DIRECTORY: &str = "LONGHAUL_VAULT_CHILD";
const ROUND: &str = "LONGHAUL_VAULT_ROUND";
const WRITERS: u64 = 3;
const NAMES: u64 = 4;

fn open(dir: &Path) -> Vault {
    let config = VaultConfig {
        index_bytes: 2 << 10,
        ..VaultConfig::new(dir, 64 << 20).small()
    };
    Vault::open(config, &key(), clock())
        .expect("a vault opens after a kill")
        .0
}

/// Not a test of its own: what the killed process does.
#[test]
fn child() {
    let (Some(dir), Ok(round)) = (std::env::var_os(DIRECTORY), std::env::var(ROUND)) else {
        return;
    };
    let round: u64 = round.parse().expect("a number");
    let vault = open(Path::new(&dir));
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let vault = vault.clone();
            scope.spawn(move || {
                for turn in 0.. {
                    // What it is about to write, then that it was acknowledged.
                    let seed = (round << 32) | (turn << 8) | writer;
                    let name = format!("{writer}-{}", turn % NAMES);
                    println!("try {name} {seed}");
                    if write(&vault, &name, seed).is_ok() {
                        println!("ack {name} {seed}");
                    }
                }
            });
        }
    });
}

/// Size and way of writing follow from the seed.
fn data_of(seed: u64) -> Option<Vec<u8>> {
    let sizes = [0, 10, 500, 600, 9000, 50_000, 120_000];
    let which = usize::try_from(seed / 256 % 9).expect("small");
    sizes.get(which).map(|size| bytes(seed, *size))
}

fn write(vault: &Vault, name: &str, seed: u64) -> Result<(), Error> {
    match data_of(seed) {
        Some(data) if seed.is_multiple_of(2) => {
            let mut writer = vault.begin(&job(), name, Metadata::default())?;
            writer.write(&data)?;
            let info = writer.finish(Checksums::new(), Condition::Any).wait()?;
            let started = DeliveryEvent::Started {
                upload: seed.to_string(),
            };
            vault.deliver(info.version, started).wait()
        }
        Some(data) => {
            let commit = vault.create_upload(&job(), name, Metadata::default(), Checksums::new());
            let upload = commit.wait()?;
            let mut parts = Vec::new();
            for (number, piece) in (1..).zip(data.chunks(30_000).chain([&[][..]])) {
                let number = PartNumber::new(number).expect("in range");
                let mut writer = vault.begin_part(&upload, number)?;
                writer.write(piece)?;
                parts.push((number, writer.finish(Checksums::new()).wait()?.etag));
            }
            let done = vault.complete_upload(&upload, parts, Checksums::new(), Condition::Any);
            done.wait().map(drop)
        }
        None => {
            let current = vault.head(&job(), name).ok();
            vault.delete(&job(), name, Condition::Any).wait()?;
            if let Some(info) = current {
                println!("del {name} {}", info.version.0);
            }
            Ok(())
        }
    }
}

/// What a name may hold: what was acknowledged last, or anything tried since.
type Expected = BTreeMap<String, Vec<Option<u64>>>;

/// Runs the child until it has acknowledged `acks` operations and `pause` has passed, kills it,
/// and notes what it said.
fn run_and_kill(
    dir: &Path,
    round: u64,
    acks: usize,
    pause: Duration,
    expected: &mut Expected,
    deleted: &mut Vec<u64>,
) {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args([
            "--exact",
            "killed::child",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DIRECTORY, dir)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the child starts");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let mut acknowledged = 0;
    for line in output.lines().map_while(Result::ok) {
        // The last line may be cut off; and the test harness talks, too.
        let mut words = line.rsplit("... ").next().unwrap_or_default().split(' ');
        let (Some(what), Some(name), Some(seed)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let Ok(seed) = seed.parse::<u64>() else {
            continue;
        };
        let outcome = data_of(seed).map(|_| seed);
        match what {
            "try" => expected
                .entry(name.to_owned())
                .or_insert_with(|| vec![None])
                .push(outcome),
            "del" => deleted.push(seed),
            "ack" => {
                acknowledged += 1;
                expected.insert(name.to_owned(), vec![outcome]);
                if acknowledged == acks {
                    // The pause is the experiment: it puts the kill at another moment each round.
                    thread::sleep(pause);
                    child.kill().expect("killed");
                }
            }
            _ => {}
        }
    }
    child.wait().expect("it is gone");
    assert!(
        acknowledged >= acks,
        "the child acknowledged only {acknowledged} operations"
    );
}

fn check(dir: &Path, expected: &mut Expected, deleted: &mut Vec<u64>) {
    let vault = open(dir);
    let told: Vec<_> = vault.deletions(usize::MAX);
    for version in deleted.drain(..) {
        assert!(
            told.iter().any(|gone| gone.version.0 == version),
            "the deletion of {version} was acknowledged and is forgotten"
        );
    }
    for gone in told {
        let forgotten = vault.forget_deletion(gone.version).wait();
        forgotten.expect("forgotten");
    }
    for (name, possible) in expected.iter_mut() {
        let found = match vault.get(&job(), name, None) {
            Ok(reader) => Some(read_all(reader).expect("verified")),
            Err(Error::NoSuchObject(_)) => None,
            Err(error) => panic!("{error}"),
        };
        let matching = possible
            .iter()
            .position(|seed| seed.and_then(data_of) == found);
        let matching = matching.unwrap_or_else(|| panic!("{name} holds none of {possible:?}"));
        *possible = vec![possible[matching]];
    }
    let listed = vault
        .list(&job(), "", None, 999)
        .expect("a listing")
        .items
        .len();
    assert_eq!(
        listed,
        expected
            .values()
            .filter(|possible| possible[0].is_some())
            .count()
    );
    for upload in vault
        .uploads(&job(), "", None, 999)
        .expect("a listing")
        .items
    {
        vault.abort_upload(&upload.id).wait().expect("aborted");
    }
    let scrub = vault.scrub();
    assert!(scrub.damaged.is_empty(), "{:?}", scrub.damaged);
}

#[test]
fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    if std::env::var_os(DIRECTORY).is_some() {
        return;
    }
    let rounds = std::env::var("LONGHAUL_VAULT_KILLS")
        .ok()
        .and_then(|n| n.parse().ok());
    let dir = tempfile::tempdir().expect("a directory");
    let (mut expected, mut deleted) = (Expected::new(), Vec::new());
    for round in 0..rounds.unwrap_or(50_u64) {
        let acks = usize::try_from(1 + round * 7 % 23).expect("small");
        let pause = Duration::from_micros(round * 7919 % 5000);
        run_and_kill(dir.path(), round, acks, pause, &mut expected, &mut deleted);
        check(dir.path(), &mut expected, &mut deleted);
    }
    assert!(expected.len() > 5, "{}", expected.len());
}
