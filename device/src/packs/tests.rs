//! Streams that are not what they should be, at the decoder's side.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use longhaul_protocol::pack::{EntryHeader, PackLine, begin, end, entry};
use longhaul_protocol::value::Digest32;
use longhaul_vault::{JobId, Vault, VaultConfig};
use proptest::prelude::*;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::entries::{Entries, Place, Told};
use crate::intake::Oddities;
use crate::intake::spellings::Spellings;

/// One vault for all cases: what they leave in it is not in their way.
static VAULT: LazyLock<(Vault, tempfile::TempDir)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = VaultConfig::new(dir.path(), 256 << 20).small();
    config.direct_io = false;
    let (vault, _) = Vault::open(config, &Zeroizing::new([7; 32]), Arc::new(|| 1)).expect("opened");
    (vault, dir)
});

/// What the names in it are, whatever their case.
static SPELLINGS: LazyLock<Spellings> = LazyLock::new(|| Spellings::new(Oddities::default()));

fn pack(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = begin();
    for (key, body) in files {
        let header = EntryHeader {
            key: key.clone(),
            bytes: body.len() as u64,
            blake3: Digest32(*blake3::hash(body).as_bytes()),
            content_type: None,
            metadata: [("mtime".to_owned(), "1".to_owned())].into(),
        };
        bytes.extend(entry(&header).expect("a short header"));
        bytes.extend(body);
    }
    bytes.extend(end());
    bytes
}

fn place(job: &JobId) -> Place {
    Place {
        vault: VAULT.0.clone(),
        job: job.clone(),
        ticket: "t-1".to_owned(),
        spellings: SPELLINGS.clone(),
    }
}

/// Takes a stream that arrives in pieces; yields the lines that a client would read.
fn take(stream: &[u8], piece: usize) -> Vec<PackLine> {
    let job: JobId = "haul-1".parse().expect("a job");
    let (tell, mut told) = mpsc::channel(1024);
    let (pieces, arriving) = mpsc::channel(1024);
    for piece in stream.chunks(piece.max(stream.len() / 1000 + 1)) {
        pieces
            .try_send(Ok(vec![Bytes::copy_from_slice(piece)]))
            .expect("room");
    }
    drop(pieces);
    Entries::new(place(&job), tell).take(arriving);
    let mut lines = Vec::new();
    while let Ok(told) = told.try_recv() {
        lines.extend(told.into_iter().map(|told| match told {
            Told::Line(line) => line,
            Told::Written(mut written) => {
                let ended = futures::executor::block_on(&mut written.commit);
                written.line(ended, &VAULT.0, &job)
            }
        }));
    }
    lines
}

fn entry_of(line: &PackLine) -> Option<u64> {
    match line {
        PackLine::Stored { entry, .. }
        | PackLine::Refused { entry, .. }
        | PackLine::Damaged { entry } => Some(*entry),
        PackLine::End { .. } | PackLine::Stopped { .. } => None,
    }
}

fn files() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    // Longer ones go to segments, shorter ones to the log.
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        prop::collection::vec(any::<u8>(), 600..3000),
    ];
    prop::collection::vec(("[a-c]{1,4}", body), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_entry_of_an_honest_pack_is_answered_and_held(files in files(), piece in 1_usize..300) {
        let lines = take(&pack(&files), piece);

        prop_assert_eq!(lines.len(), files.len() + 1);
        let end = PackLine::End { entries: files.len() as u64 };
        prop_assert_eq!(lines.last(), Some(&end));
        for (at, (line, (key, body))) in (1..).zip(lines.iter().zip(&files)) {
            prop_assert_eq!(entry_of(line), Some(at));
            let first = files.iter().position(|(k, _)| k == key) == usize::try_from(at - 1).ok();
            prop_assert_eq!(matches!(line, PackLine::Stored { .. }), first);
            if first {
                let info = VAULT.0.head(&"haul-1".parse().expect("a job"), key).expect("held");
                prop_assert_eq!(info.blake3, Some(*blake3::hash(body).as_bytes()));
            }
        }
    }

    #[test]
    fn whatever_happens_to_a_pack_on_its_way_nothing_false_is_stored(
        files in files(),
        piece in 1_usize..300,
        cut in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..), 0..4),
    ) {
        let mut stream = pack(&files);
        for (at, bits) in flips {
            let at = at.index(stream.len());
            stream[at] ^= bits;
        }
        stream.truncate(cut.index(stream.len() + 1));

        let lines = take(&stream, piece);

        let (last, answered) = lines.split_last().expect("always a last line");
        prop_assert!(entry_of(last).is_none());
        for (at, line) in (1..).zip(answered) {
            prop_assert_eq!(entry_of(line), Some(at));
            if let PackLine::Stored { version, .. } = line {
                let info = VAULT.0.head_version(longhaul_vault::Version(*version));
                let blake3 = info.expect("held").blake3.expect("hashed");
                // The body is one that was sent: a flipped bit in it is noticed, or was undone.
                let sent = files.iter().any(|(_, body)| *blake3::hash(body).as_bytes() == blake3);
                prop_assert!(sent, "entry {at}");
            }
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), piece in 1_usize..64) {
        let lines = take(&bytes, piece);
        let stopped = matches!(lines.last(), Some(PackLine::Stopped { .. }));
        prop_assert!(stopped);
        let mut stream = begin();
        stream.extend(&bytes);
        prop_assert!(!take(&stream, piece).is_empty());
    }
}

#[test]
fn a_name_that_looks_like_another_is_refused_also_within_one_pack() {
    let composed = "Caf\u{e9}.txt".to_owned();
    let decomposed = "Cafe\u{301}.txt".to_owned();
    let both = [
        (composed, b"one".to_vec()),
        (decomposed.clone(), b"two".to_vec()),
    ];

    let together = take(&pack(&both), 64);
    let later = take(&pack(&both[1..]), 64);

    assert!(
        matches!(together[0], PackLine::Stored { .. }),
        "{together:?}"
    );
    for refused in [&together[1], &later[0]] {
        let PackLine::Refused { reason, .. } = refused else {
            panic!("{refused:?}");
        };
        assert!(reason.contains("looks the same"), "{reason}");
    }
}

#[test]
fn a_name_that_differs_in_case_alone_is_stored_with_a_notice() {
    let file = |name: &str| (name.to_owned(), name.as_bytes().to_vec());
    let there = [file("Case/Held.txt")];
    take(&pack(&there), 64);

    let lines = take(
        &pack(&[
            file("case/held.TXT"),
            file("Case/Held.txt"),
            file("Case/one"),
            file("case/ONE"),
        ]),
        64,
    );

    let notices: Vec<Option<&str>> = lines
        .iter()
        .filter_map(|line| match line {
            PackLine::Stored { notice, .. } => Some(notice.as_deref()),
            _ => None,
        })
        .collect();
    assert_eq!(notices.len(), 4, "{lines:?}");
    assert!(
        notices[0].is_some_and(|n| n.contains("\"Case/Held.txt\"")),
        "{notices:?}"
    );
    assert_eq!(notices[1], None, "it is the one that is there");
    assert_eq!(notices[2], None);
    // The box may hold the other one by now, or not yet.
    assert!(
        notices[3].is_some_and(|n| n.contains("\"Case/one\"") || n.contains("of this pack")),
        "{notices:?}"
    );
}

#[test]
fn of_two_packs_that_bring_the_same_at_the_same_time_one_stores_it() {
    let job: JobId = "haul-twice".parse().expect("a job");
    let body = vec![7; 2000];
    let whole = pack(&[("k".to_owned(), body)]);
    // All but the end of the entry, so that both have begun it before either ends it.
    let (begun, rest) = whole.split_at(whole.len() - 100);
    let one = |version: &std::sync::Barrier| {
        let (tell, mut told) = mpsc::channel(8);
        let (pieces, arriving) = mpsc::channel(8);
        let entries = Entries::new(place(&job), tell);
        std::thread::scope(|scope| {
            let taking = scope.spawn(move || entries.take(arriving));
            for piece in [begun, b"", b""] {
                let sent = pieces.blocking_send(Ok(vec![Bytes::copy_from_slice(piece)]));
                sent.expect("taken");
            }
            while pieces.capacity() < pieces.max_capacity() {
                std::thread::yield_now();
            }
            version.wait();
            let sent = pieces.blocking_send(Ok(vec![Bytes::copy_from_slice(rest)]));
            sent.expect("taken");
            drop(pieces);
            taking.join().expect("taken");
        });
        let told = told.blocking_recv().into_iter().flatten().next();
        let Some(Told::Written(mut written)) = told else {
            panic!("written");
        };
        let ended = futures::executor::block_on(&mut written.commit);
        written.line(ended, &VAULT.0, &job)
    };
    let barrier = std::sync::Barrier::new(2);

    let (first, second) = std::thread::scope(|scope| {
        let other = scope.spawn(|| one(&barrier));
        (one(&barrier), other.join().expect("no panic"))
    });

    assert!(matches!(first, PackLine::Stored { .. }), "{first:?}");
    assert_eq!(first, second);
}
