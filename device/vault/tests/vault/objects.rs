//! Objects: put, get, head, list, overwrite, delete; and the same after a restart.

use crate::support::{self, bytes, get, job, open, put, read_all, try_get};
use longhaul_vault::{Checksums, Condition, Error, Metadata, Version};

/// Inline, just inline, just not, one frame, some frames, several segments.
const SIZES: [usize; 9] = [0, 1, 512, 513, 8176, 8177, 40_000, 65_536, 300_000];

#[test]
fn objects_of_every_size_come_back_byte_for_byte_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    for size in SIZES {
        let info = put(&vault, &format!("o{size}"), &bytes(size as u64, size));
        assert_eq!(info.size, size as u64);
        assert_eq!(
            info.blake3,
            Some(*blake3::hash(&bytes(size as u64, size)).as_bytes())
        );
        assert!(info.resident);
    }
    for size in SIZES {
        assert_eq!(
            get(&vault, &format!("o{size}")),
            bytes(size as u64, size),
            "{size}"
        );
    }
    let before = vault.list(&job(), "", None, 100).expect("a listing");
    drop(vault);

    let vault = open(dir.path());
    for size in SIZES {
        assert_eq!(
            get(&vault, &format!("o{size}")),
            bytes(size as u64, size),
            "{size}"
        );
    }
    assert_eq!(
        vault.list(&job(), "", None, 100).expect("a listing"),
        before
    );
}

#[test]
fn a_range_gives_exactly_its_bytes_across_frames() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    let data = bytes(1, 100_000);
    put(&vault, "big", &data);
    put(&vault, "small", &data[..300]);
    for (start, end) in [
        (0, 1),
        (8175, 8178),
        (0, 100_000),
        (99_999, 200_000),
        (5000, 70_000),
    ] {
        let reader = vault.get(&job(), "big", Some(start..end)).expect("a range");
        let end = end.min(100_000);
        let expected =
            &data[usize::try_from(start).expect("small")..usize::try_from(end).expect("small")];
        assert_eq!(
            read_all(reader).expect("verified"),
            expected,
            "{start}..{end}"
        );
    }
    let reader = vault.get(&job(), "small", Some(10..20)).expect("a range");
    assert_eq!(read_all(reader).expect("verified"), &data[10..20]);
    for (start, end) in [(100_000, 100_001), (5, 5)] {
        let refused = vault.get(&job(), "big", Some(start..end)).map(drop);
        assert!(matches!(refused, Err(Error::InvalidRange { .. })));
    }
}

#[test]
fn a_reader_keeps_the_version_it_opened_while_it_is_replaced_and_its_space_reused() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    let old = put(&vault, "k", &bytes(1, 60_000));
    let reader = vault.get(&job(), "k", None).expect("a reader");

    let mut newest = old.version;
    // More than the vault's capacity altogether: space is taken back, but not that of the reader.
    for round in 2..120 {
        let info = put(&vault, "k", &bytes(round, 60_000));
        assert!(info.version > newest, "versions grow");
        newest = info.version;
    }

    assert_eq!(read_all(reader).expect("verified"), bytes(1, 60_000));
    assert_eq!(get(&vault, "k"), bytes(119, 60_000));
    assert!(matches!(
        vault.get_version(old.version, None),
        Err(Error::NoSuchVersion(_))
    ));
}

#[test]
fn versions_grow_across_restarts() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut last = Version(0);
    for round in 0..5 {
        let vault = open(dir.path());
        let info = put(&vault, "k", &bytes(round, 700));
        assert!(info.version > last);
        last = info.version;
        if round == 2 {
            vault.checkpoint().expect("a checkpoint");
        }
    }
}

#[test]
fn metadata_and_checksums_come_back_as_given() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    let metadata = Metadata {
        content_type: Some("text/plain".into()),
        user: [("a".to_owned(), "ä".to_owned())].into(),
        headers: [("cache-control".to_owned(), "no-store".to_owned())].into(),
    };
    let checksums = Checksums::from([("crc32c".to_owned(), "AAAAAA==".to_owned())]);
    let mut writer = vault
        .begin(&job(), "k", metadata.clone())
        .expect("a writer");
    writer.write(b"hello").expect("written");
    assert_eq!(writer.digests().size, 5);
    let info = writer
        .finish(checksums.clone(), Condition::Any)
        .wait()
        .expect("stored");
    assert!(
        info.etag.len() == 34 && info.etag.ends_with("-1"),
        "{}",
        info.etag
    );
    vault.checkpoint().expect("a checkpoint");
    drop(vault);

    let found = open(dir.path()).head(&job(), "k").expect("found");

    assert_eq!(found, info);
    assert_eq!((found.metadata, found.checksums), (metadata, checksums));
}

#[test]
fn conditions_are_judged_when_the_write_happens() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    let write = |condition| {
        let mut writer = vault.begin(&job(), "k", Metadata::default())?;
        writer.write(&bytes(3, 1000))?;
        writer.finish(Checksums::new(), condition).wait()
    };
    let failed = |result| matches!(result, Err(Error::PreconditionFailed(_)));
    assert!(failed(write(Condition::Present)));
    let first = write(Condition::Absent).expect("absent");
    assert!(failed(write(Condition::Absent)));
    assert!(failed(write(Condition::Etag("other".into()))));
    let second = write(Condition::Etag(first.etag)).expect("the same etag");
    assert!(failed(write(Condition::Version(first.version))));
    write(Condition::Version(second.version)).expect("the same version");

    let racers: Vec<_> = (0..8)
        .map(|_| {
            vault
                .begin(&job(), "race", Metadata::default())
                .expect("a writer")
        })
        .collect();
    let commits: Vec<_> = racers
        .into_iter()
        .map(|w| w.finish(Checksums::new(), Condition::Absent))
        .collect();
    let won = commits
        .into_iter()
        .filter_map(|commit| commit.wait().ok())
        .count();
    assert_eq!(won, 1, "exactly one of several writers creates the object");
}

#[test]
fn deleting_says_whether_there_was_something() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    put(&vault, "k", &bytes(1, 9000));
    assert!(
        vault
            .delete(&job(), "k", Condition::Any)
            .wait()
            .expect("deleted")
    );
    assert!(
        !vault
            .delete(&job(), "k", Condition::Any)
            .wait()
            .expect("nothing to delete")
    );
    assert!(matches!(try_get(&vault, "k"), Err(Error::NoSuchObject(_))));
    drop(vault);
    assert!(matches!(
        try_get(&open(dir.path()), "k"),
        Err(Error::NoSuchObject(_))
    ));
}

#[test]
fn a_listing_goes_on_where_the_last_page_ended() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    for name in ["a", "b/1", "b/2", "b/3", "b0", "c", "ä"] {
        put(&vault, name, b"x");
    }
    let page = |prefix: &str, after: Option<&str>, limit| {
        let page = vault.list(&job(), prefix, after, limit).expect("a page");
        (
            page.items
                .into_iter()
                .map(|info| info.key)
                .collect::<Vec<_>>(),
            page.more,
        )
    };
    assert_eq!(
        page("b/", None, 2),
        (vec!["b/1".into(), "b/2".into()], true)
    );
    assert_eq!(page("b/", Some("b/2"), 2), (vec!["b/3".into()], false));
    assert_eq!(page("b/", Some("a"), 1), (vec!["b/1".into()], true));
    assert_eq!(page("b/", Some("b/\u{10ffff}"), 9), (vec![], false));
    assert_eq!(page("", None, 99).0.len(), 7);
    assert_eq!(page("zz", None, 99), (vec![], false));
}

#[test]
fn an_unfinished_object_leaves_no_trace() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    let mut writer = vault
        .begin(&job(), "k", Metadata::default())
        .expect("a writer");
    writer.write(&bytes(1, 50_000)).expect("written");
    drop(writer);
    assert!(matches!(try_get(&vault, "k"), Err(Error::NoSuchObject(_))));
    drop(vault);
    let vault = open(dir.path());
    assert!(matches!(try_get(&vault, "k"), Err(Error::NoSuchObject(_))));
    assert_eq!(vault.stats().objects, 0);
}

#[test]
fn a_second_opener_is_refused_while_the_vault_is_open() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    let second = longhaul_vault::Vault::open(
        support::config(dir.path()),
        &support::key(),
        support::clock(),
    );
    assert!(matches!(
        second.map(drop),
        Err(longhaul_vault::OpenError::InUse { .. })
    ));
    drop(vault);
    open(dir.path());
}

#[test]
fn a_closed_vault_says_so_and_has_lost_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    put(&vault, "k", b"kept");
    vault.close();
    assert!(matches!(
        support::try_put(&vault, "l", b"late"),
        Err(Error::Closed)
    ));
    drop(vault);
    assert_eq!(get(&open(dir.path()), "k"), b"kept");
}

#[test]
fn keys_that_cannot_be_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    assert!(matches!(
        support::try_put(&vault, "", b""),
        Err(Error::EmptyKey)
    ));
    let long = "x".repeat(2000);
    assert!(matches!(
        support::try_put(&vault, &long, b""),
        Err(Error::TooLong { .. })
    ));
}
