//! Space: watermarks, and taking back what nobody needs.

use std::time::{Duration, Instant};

use longhaul_vault::{Checksums, Condition, Error, Metadata, Vault};

use crate::support::{bytes, get, job, open, put, read_all, try_put};

/// Puts objects of `size` bytes until one is refused; gives the names and the refusal.
fn fill(vault: &Vault, size: usize) -> (Vec<String>, Error) {
    let mut names = Vec::new();
    let refusal = fill_more(vault, size, &mut names);
    (names, refusal)
}

/// The same, but not to a refusal that ends by itself: while runs of the index are merged, old and
/// new ones lie on the disk, which is much of a vault as small as these.
fn fill_past_merges(vault: &Vault, size: usize) -> (Vec<String>, Error) {
    let mut names = Vec::new();
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let refusal = fill_more(vault, size, &mut names);
        if !matches!(refusal, Error::DiskFull) || Instant::now() > deadline {
            return (names, refusal);
        }
        std::thread::yield_now();
    }
}

fn fill_more(vault: &Vault, size: usize, names: &mut Vec<String>) -> Error {
    loop {
        let name = format!("fill-{}", names.len());
        match try_put(vault, &name, &bytes(names.len() as u64, size)) {
            Ok(_) => names.push(name),
            Err(error) => return error,
        }
    }
}

fn delete(vault: &Vault, name: &str) {
    assert!(
        vault
            .delete(&job(), name, Condition::Any)
            .wait()
            .expect("deleted")
    );
}

#[test]
fn at_ninety_percent_new_objects_are_told_to_slow_down_until_there_is_room() {
    for size in [60_000, 400] {
        let dir = tempfile::tempdir().expect("a directory");
        let vault = open(dir.path());
        let (names, refusal) = fill_past_merges(&vault, size);
        assert!(matches!(refusal, Error::SlowDown), "{size}: {refusal}");
        let stats = vault.stats();
        assert!(
            stats.used_bytes * 10 >= stats.capacity_bytes * 9,
            "{stats:?}"
        );
        assert!(stats.used_bytes <= stats.capacity_bytes, "{stats:?}");
        assert!(stats.object_bytes * 3 > stats.capacity_bytes, "{stats:?}");

        for name in &names[..names.len() / 2] {
            delete(&vault, name);
        }

        put(&vault, "late", &bytes(7, size));
        for (seed, name) in (0..).zip(&names).skip(names.len() / 2) {
            assert_eq!(get(&vault, name), bytes(seed, size));
        }
    }
}

#[test]
fn what_an_abandoned_writer_took_is_free_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    let before = vault.stats().used_bytes;
    let mut large = vault
        .begin(&job(), "large", Metadata::default())
        .expect("a writer");
    let refused = loop {
        if let Err(error) = large.write(&bytes(1, 50_000)) {
            break error;
        }
    };
    assert!(matches!(refused, Error::DiskFull), "{refused}");

    drop(large);

    put(&vault, "small", &bytes(2, 60_000));
    assert!(vault.stats().used_bytes < before + 200_000);
}

#[test]
fn at_ninety_five_percent_what_is_being_written_is_refused_and_the_rest_is_served() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    let mut late = vault
        .begin(&job(), "late", Metadata::default())
        .expect("a writer");
    let (names, _) = fill(&vault, 60_000);
    let mut refused = None;
    for _ in 0..100 {
        if let Err(error) = late.write(&bytes(1, 10_000)) {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(Error::DiskFull)), "{refused:?}");
    drop(late);
    for (seed, name) in (0..).zip(&names) {
        assert_eq!(get(&vault, name), bytes(seed, 60_000));
    }
    let stats = vault.stats();
    assert!(stats.used_bytes <= stats.capacity_bytes, "{stats:?}");
    drop(vault);
    let vault = open(dir.path());
    assert_eq!(vault.stats().objects, names.len() as u64);
    for name in &names {
        delete(&vault, name);
    }
    put(&vault, "again", &bytes(1, 60_000));
}

#[test]
fn files_on_disk_stay_within_the_capacity_however_much_passes_through() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    for round in 0..400_u64 {
        put(
            &vault,
            &format!("large-{}", round % 7),
            &bytes(round, 40_000),
        );
        for small in 0..3 {
            put(
                &vault,
                &format!("small-{}", (round * 3 + small) % 50),
                &bytes(round, 500),
            );
        }
    }
    let on_disk: u64 = ["log", "segments"]
        .into_iter()
        .flat_map(|sub| std::fs::read_dir(dir.path().join(sub)).expect("a directory"))
        .map(|entry| entry.expect("an entry").metadata().expect("metadata").len())
        .sum();
    assert!(
        on_disk <= 2 << 20,
        "{on_disk} bytes for some 300 kB of objects"
    );
}

#[test]
fn small_objects_that_live_long_move_out_of_old_log_files() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    put(&vault, "eternal", b"still here");
    let upload = vault
        .create_upload(&job(), "parts", Metadata::default(), Checksums::new())
        .wait()
        .expect("an upload");
    let number = longhaul_vault::PartNumber::new(1).expect("in range");
    let mut part = vault.begin_part(&upload, number).expect("a writer");
    part.write(b"a part").expect("written");
    let part = part.finish(Checksums::new()).wait().expect("a part");
    let reader = vault.get(&job(), "eternal", None).expect("a reader");
    let first = dir.path().join("log/log-00000001");
    assert!(first.exists());
    for round in 0..600 {
        put(&vault, "passing", &bytes(round, 500));
    }
    vault.checkpoint().expect("a checkpoint");
    vault.checkpoint().expect("a checkpoint");
    // Whoever reads from the old place keeps it.
    assert!(first.exists());
    assert_eq!(read_all(reader).expect("verified"), b"still here");
    vault.checkpoint().expect("a checkpoint");
    assert!(!first.exists());

    drop(vault);
    let vault = open(dir.path());
    assert_eq!(get(&vault, "eternal"), b"still here");
    let parts = vec![(number, part.etag)];
    let done = vault.complete_upload(&upload, parts, Checksums::new(), Condition::Any);
    done.wait().expect("completed");
    assert_eq!(get(&vault, "parts"), b"a part");
}

#[test]
fn space_behind_the_last_byte_of_a_segment_is_used_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    for round in 0..5 {
        put(&open(dir.path()), &format!("k{round}"), &bytes(round, 9000));
    }
    let vault = open(dir.path());
    assert_eq!(
        vault.stats().segments,
        1,
        "five objects of three blocks fit one segment"
    );
    for round in 0..5 {
        assert_eq!(get(&vault, &format!("k{round}")), bytes(round, 9000));
    }
}

#[test]
fn dead_space_between_live_objects_is_used_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    let (names, _) = fill(&vault, 16_000);
    let segments = vault.stats().segments;
    for name in names.iter().step_by(2) {
        delete(&vault, name);
    }

    let mut again = Vec::new();
    for seed in 0..names.len() as u64 / 3 {
        let name = format!("again-{seed}");
        put(&vault, &name, &bytes(1000 + seed, 16_000));
        again.push(name);
    }

    let check = |vault: &Vault| {
        for (seed, name) in (0..).zip(&names).skip(1).step_by(2) {
            assert_eq!(get(vault, name), bytes(seed, 16_000));
        }
        for (seed, name) in (1000..).zip(&again) {
            assert_eq!(get(vault, name), bytes(seed, 16_000));
        }
        assert!(vault.scrub().damaged.is_empty());
    };
    check(&vault);
    // The files cannot have grown by as much as was put: four objects fit a segment.
    let stats = vault.stats();
    let files = stats.segments * (64 << 10) + stats.log_bytes;
    assert!(files <= stats.capacity_bytes + (128 << 10), "{stats:?}");
    let grown = (stats.segments - segments) * 4;
    assert!(grown < again.len() as u64 / 2, "{grown} {stats:?}");
    drop(vault);
    let vault = open(dir.path());
    check(&vault);
    vault.checkpoint().expect("a checkpoint");
    drop(vault);
    check(&open(dir.path()));
}

#[test]
fn segment_files_make_way_when_the_log_needs_their_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    let (names, _) = fill(&vault, 60_000);
    for name in &names {
        delete(&vault, name);
    }
    drop(fill(&vault, 400));
    let on_disk: u64 = ["log", "segments"]
        .into_iter()
        .flat_map(|sub| std::fs::read_dir(dir.path().join(sub)).expect("a directory"))
        .map(|entry| entry.expect("an entry").metadata().expect("metadata").len())
        .sum();
    let stats = vault.stats();
    assert!(
        on_disk <= stats.capacity_bytes + (256 << 10),
        "{on_disk} {stats:?}"
    );
    drop(vault);
    assert_eq!(open(dir.path()).stats().objects, stats.objects);
}
