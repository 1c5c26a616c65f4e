//! Every target over its corpus, and over many small changes of it.
//!
//! `LONGHAUL_BLESS=1` writes what a corpus begins with; `LONGHAUL_FUZZ_ROUNDS` says how many changes
//! each target gets.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use longhaul_fuzz::{
    TARGETS, Target, find,
    mutate::{Dice, mutate},
};
use longhaul_protocol::pack;

const ROUNDS: usize = 1500;
/// Longest file of a corpus, in bytes: they are kept with the source.
const MAX_FILE: usize = 16 << 10;

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target)
}

/// The corpus in the order of its names, so that every machine does the same.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<_> = fs::read_dir(folder(target))
        .unwrap_or_else(|error| panic!("{target} has no corpus: {error}"))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).expect("a file");
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}

#[track_caller]
fn run(target: Target, bytes: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))).is_err() {
        let path = std::env::temp_dir().join(format!("longhaul-fuzz-{}", target.name));
        fs::write(&path, bytes).expect("written");
        let kept = path.display();
        panic!(
            "target {} does not take {what}; the bytes are in {kept}",
            target.name
        );
    }
}

#[test]
fn every_target_takes_its_corpus() {
    if std::env::var_os("LONGHAUL_BLESS").is_some() {
        bless();
    }
    for target in TARGETS {
        let corpus = corpus(target.name);
        assert!(!corpus.is_empty(), "{} has an empty corpus", target.name);
        for (path, bytes) in corpus {
            assert!(bytes.len() <= MAX_FILE, "{} is long", path.display());
            run(*target, &bytes, &path.display().to_string());
        }
        run(*target, b"", "nothing");
    }
}

#[test]
fn no_small_change_of_a_corpus_breaks_its_target() {
    let rounds = std::env::var("LONGHAUL_FUZZ_ROUNDS").ok();
    let rounds = rounds.and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    for (seed, target) in (1..).zip(TARGETS) {
        let corpus = corpus(target.name);
        let mut dice = Dice::new(seed);
        for round in 0..rounds {
            let (path, bytes) = &corpus[dice.below(corpus.len())];
            let (_, other) = &corpus[dice.below(corpus.len())];
            let changed = mutate(bytes, other, &mut dice);
            run(
                *target,
                &changed,
                &format!("{}, changed in round {round}", path.display()),
            );
        }
    }
}

#[test]
fn every_folder_of_the_corpus_has_its_target() {
    for entry in fs::read_dir(folder("")).expect("the corpora") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_str().expect("a name");
        assert!(find(name).is_some(), "nobody takes the corpus {name}");
    }
}

fn keep(target: &str, name: &str, bytes: &[u8]) {
    fs::create_dir_all(folder(target)).expect("made");
    fs::write(folder(target).join(name), bytes).expect("written");
}

/// What each corpus begins with: what this program itself writes.
fn bless() {
    let seeds = longhaul_vault::fuzzing::seeds().into_iter();
    let seeds = seeds.chain(longhaul_device::fuzzing::seeds());
    for (target, seeds) in seeds {
        for (number, seed) in (1..).zip(seeds) {
            keep(target, &format!("seed-{number:02}"), &seed);
        }
    }
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/tests/wire");
    for entry in fs::read_dir(samples).expect("samples") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .expect("a name")
            .to_owned();
        let text = fs::read(&path).expect("a sample");
        let said = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        if said(&[
            "presence",
            "telemetry",
            "journal-batch",
            "reported",
            "command-accepted",
            "command-progress",
            "command-rejected",
        ]) {
            keep("up", &name, &text);
        } else if said(&["journal-ack", "signed-command", "signed-desired"]) {
            keep("down", &name, &text);
        } else {
            keep("documents", &name, &text);
        }
        if said(&["command-"]) {
            keep("command", &name, &text);
        }
        if name == "desired" {
            keep("desired", &name, &text);
        }
        if name == "receipt" {
            keep("receipt", &name, &text);
        }
    }
    let header = b"eyJhbGciOiJFZERTQSIsInR5cCI6ImxvbmdoYXVsLWNvbW1hbmQrand0IiwieDVjIjpbIk1BPT0iXX0";
    keep("jws", "shape", &[header, &b".e30.AAAA"[..]].concat());
    keep("names", "plain", "photos/2026/straße.jpg".as_bytes());
    keep("names", "refused", b"a//../b");
    keep("topics", "up", b"fleet/v1/0123456789AB/up/journal");
    keep("topics", "down", b"fleet/v1/0123456789AB/dn/command");
    keep("evidence", "point", &[0x30, 0x59, 0x30, 0x13, 0x06, 0x07]);
    keep("pack", "two-entries", &a_pack());
}

fn a_pack() -> Vec<u8> {
    let mut out = vec![7];
    out.extend(pack::begin());
    for (key, body) in [("a", &b"bytes"[..]), ("b/c", b"")] {
        let json = serde_json::json!({
            "key": key, "bytes": body.len(), "blake3": "00".repeat(32),
        });
        let header: pack::EntryHeader = serde_json::from_value(json).expect("a header");
        out.extend(pack::entry(&header).expect("an entry"));
        out.extend_from_slice(body);
    }
    out.extend([0; 4]);
    out
}
