//! An index that is larger than the memory it gets: most of it lies in runs, which are merged.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use longhaul_vault::{
    Checksums, Condition, DeliveryEvent, Error, JobId, Metadata, Vault, VaultConfig, Version,
};

use crate::{
    fault_disk::{Fault, FaultDisk},
    support::{bytes, clock, job, key, read_all},
};

fn config() -> VaultConfig {
    VaultConfig {
        index_bytes: 4 << 10,
        ..VaultConfig::new("/vault", 16 << 20).small()
    }
}

fn open(disk: &FaultDisk) -> Vault {
    Vault::open_on(Arc::new(disk.clone()), config(), &key(), clock())
        .expect("the vault opens")
        .0
}

fn put(vault: &Vault, job: &JobId, key: &str, data: &[u8]) -> Version {
    let mut writer = vault
        .begin(job, key, Metadata::default())
        .expect("a writer");
    writer.write(data).expect("written");
    let stored = writer.finish(Checksums::new(), Condition::Any).wait();
    stored.expect("stored").version
}

fn runs(disk: &FaultDisk) -> Vec<std::path::PathBuf> {
    let paths = disk.paths().into_iter();
    paths
        .filter(|path| path.starts_with("/vault/index"))
        .collect()
}

/// A name that sorts elsewhere than its number does.
fn name(number: u64) -> String {
    format!("{}/file-{number}", number * 7919 % 13)
}

/// What is listed, page by page.
fn listed(vault: &Vault, job: &JobId, prefix: &str) -> Vec<(String, Version)> {
    let mut all = Vec::new();
    loop {
        let after = all.last().map(|(name, _): &(String, _)| name.clone());
        let page = vault.list(job, prefix, after.as_deref(), 37);
        let page = page.expect("a page");
        assert!(page.items.len() == 37 || !page.more);
        all.extend(page.items.into_iter().map(|info| (info.key, info.version)));
        if !page.more {
            return all;
        }
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one life, told in order")]
fn what_is_in_runs_is_found_listed_changed_and_forgotten_like_everything_else() {
    let disk = FaultDisk::default();
    let mut vault = open(&disk);
    let other: JobId = "other".parse().expect("a job id");
    vault.create_job(&other).expect("a job");
    let mut expected: BTreeMap<String, (Version, u64)> = BTreeMap::new();
    let (mut pending, mut deleted) = (BTreeSet::new(), BTreeSet::new());
    let mut verified: BTreeSet<Version> = BTreeSet::new();
    for number in 0..1500_u64 {
        let name = name(number % 700);
        if number % 11 == 10 {
            let gone = expected.remove(&name);
            let commit = vault.delete(&job(), &name, Condition::Any);
            assert_eq!(commit.wait().expect("deleted"), gone.is_some());
            if let Some((version, _)) = gone {
                pending.remove(&version);
                verified.remove(&version);
                deleted.insert(version);
            }
            continue;
        }
        let version = put(&vault, &job(), &name, &bytes(number, 50));
        pending.insert(version);
        if let Some((old, _)) = expected.insert(name, (version, number)) {
            pending.remove(&old);
            verified.remove(&old);
        }
        if number % 5 == 0 {
            put(&vault, &other, &format!("other-{number}"), b"other");
        }
        // The oldest that waits, which left memory long ago.
        if let Some(first) = pending.first().copied().filter(|_| number % 3 == 0) {
            let delivered = vault.deliver(first, DeliveryEvent::Delivered);
            delivered.wait().expect("delivered");
            let compared = vault.deliver(first, DeliveryEvent::Verified);
            compared.wait().expect("verified");
            pending.remove(&first);
            if number % 2 == 0 {
                verified.insert(first);
            } else {
                let released = vault.deliver(first, DeliveryEvent::Released);
                released.wait().expect("released");
            }
        }
        if number == 1000 {
            drop(vault);
            disk.crash(|| false);
            vault = open(&disk);
        }
    }
    assert!(!runs(&disk).is_empty());
    let check = |vault: &Vault| {
        let all = expected.iter().map(|(name, (v, _))| (name.clone(), *v));
        assert_eq!(listed(vault, &job(), ""), all.collect::<Vec<_>>());
        let some = expected.iter().filter(|(name, _)| name.starts_with("1/"));
        let some: Vec<_> = some.map(|(name, (v, _))| (name.clone(), *v)).collect();
        assert_eq!(listed(vault, &job(), "1/"), some);
        for (name, (version, number)) in &expected {
            let info = vault.head_version(*version).expect("there");
            assert_eq!((&info.key, info.size), (name, 50));
            match vault.get(&job(), name, None) {
                Ok(reader) => {
                    assert_eq!(read_all(reader).expect("verified"), bytes(*number, 50));
                }
                Err(Error::Released(_)) => assert!(!info.resident),
                Err(error) => panic!("{error}"),
            }
        }
        let releasable = vault.releasable(None, 9999).into_iter();
        assert!(releasable.eq(verified.iter().map(|version| (*version, 50))));
        for version in &deleted {
            let gone = vault.head_version(*version);
            assert!(matches!(gone, Err(Error::NoSuchVersion(_))), "{gone:?}");
        }
        let mut waiting = Vec::new();
        loop {
            let more = vault.pending(waiting.last().copied(), 41);
            if more.is_empty() {
                break;
            }
            waiting.extend(more.into_iter().map(|pending| pending.version));
        }
        let of_other = vault.list(&other, "", None, 9999).expect("a listing").items;
        let of_other = of_other.into_iter().map(|info| info.version);
        let all: BTreeSet<_> = of_other.chain(pending.iter().copied()).collect();
        assert!(waiting.iter().eq(&all));
        let told = vault.deletions(9999).into_iter().map(|gone| gone.version);
        assert!(told.eq(deleted.iter().copied()));
        assert_eq!(vault.stats().pending, all.len() as u64);
    };
    check(&vault);
    drop(vault);
    disk.crash(|| false);
    let vault = open(&disk);
    check(&vault);
    assert!(vault.scrub().damaged.is_empty());
    for version in &deleted {
        vault.forget_deletion(*version).wait().expect("forgotten");
    }
    assert!(vault.deletions(9).is_empty());
    let wrong = Condition::Version(Version(1));
    let name = expected.keys().next().expect("some");
    let refused = vault.delete(&job(), name, wrong).wait();
    assert!(matches!(refused, Err(Error::PreconditionFailed(_))));
}

#[test]
fn a_job_that_is_erased_takes_its_runs_with_it_and_gives_its_space_back() {
    let disk = FaultDisk::default();
    let vault = open(&disk);
    let secret: JobId = "secret".parse().expect("a job id");
    vault.create_job(&secret).expect("a job");
    for number in 0..300 {
        put(&vault, &secret, &name(number), &bytes(number, 9000));
        put(&vault, &job(), &name(number), b"kept");
    }
    vault.checkpoint().expect("a checkpoint");
    let (before, run_files) = (vault.stats(), runs(&disk).len());
    let keyring = disk.image().contents(Path::new("/vault/keyring"));

    vault.erase_job(&secret).expect("erased");

    let after = vault.stats();
    assert_eq!(after.objects, 300);
    assert_eq!(after.object_bytes, 300 * 4);
    assert!(
        after.used_bytes + 300 * 9000 <= before.used_bytes,
        "{after:?}"
    );
    assert!(runs(&disk).len() < run_files);
    drop(vault);
    assert_ne!(disk.contents(Path::new("/vault/keyring")), keyring);
    for contents in disk.everything() {
        assert!(!contents.windows(6).any(|window| window == b"/file-"));
    }
    let vault = open(&disk);
    assert_eq!(vault.stats().objects, 300);
    assert_eq!(vault.stats().object_bytes, 300 * 4);
    for number in 0..300 {
        let reader = vault.get(&job(), &name(number), None).expect("there");
        assert_eq!(read_all(reader).expect("verified"), b"kept");
    }
    assert!(vault.scrub().damaged.is_empty());
}

#[test]
fn bytes_that_are_read_stay_although_their_object_left_memory_and_is_deleted() {
    let disk = FaultDisk::default();
    let config = VaultConfig {
        capacity_bytes: 2 << 20,
        ..config()
    };
    let open = || Vault::open_on(Arc::new(disk.clone()), config.clone(), &key(), clock());
    let (vault, _) = open().expect("the vault opens");
    put(&vault, &job(), "read", &bytes(1, 60_000));
    vault.checkpoint().expect("a checkpoint");
    drop(vault);
    let (vault, _) = open().expect("the vault opens");
    let mut reader = vault.get(&job(), "read", None).expect("there");
    let first = reader.next_chunk().expect("verified").expect("some");
    let deleted = vault.delete(&job(), "read", Condition::Any).wait();
    assert!(deleted.expect("deleted"));

    // As much as there is room for, over and over.
    for number in 0..100 {
        let name = format!("churn-{}", number % 5);
        put(&vault, &job(), &name, &bytes(number, 60_000));
    }

    let rest = read_all(reader).expect("verified");
    assert_eq!([&first[..], &rest].concat(), bytes(1, 60_000));
}

#[test]
fn a_run_that_no_checkpoint_names_is_removed() {
    let disk = FaultDisk::default();
    let vault = open(&disk);
    for number in 0..100 {
        put(&vault, &job(), &name(number), b"x");
    }
    drop(vault);
    let stray = Path::new("/vault/index/run-0000ffff");
    let file = longhaul_vault::disk::Disk::open(&disk, stray, longhaul_vault::disk::Access::Create);
    file.expect("made")
        .write_at(b"half a run", 0)
        .expect("written");

    let vault = open(&disk);

    assert!(!disk.paths().iter().any(|path| path == stray));
    assert_eq!(listed(&vault, &job(), "").len(), 100);
}

#[test]
fn a_flush_or_a_merge_that_fails_anywhere_loses_nothing() {
    for calls in 0..40 {
        for fault in [Fault::Fail, Fault::Torn, Fault::PowerCut] {
            let disk = FaultDisk::default();
            let vault = open(&disk);
            let mut acknowledged = BTreeMap::new();
            for number in 0..60 {
                if number == 25 {
                    disk.plan(calls, fault);
                }
                let name = name(number % 50);
                let stored =
                    vault
                        .begin(&job(), &name, Metadata::default())
                        .and_then(|mut writer| {
                            writer.write(&bytes(number, 40))?;
                            writer.finish(Checksums::new(), Condition::Any).wait()
                        });
                match stored {
                    Ok(_) => drop(acknowledged.insert(name, Some(number))),
                    // It may be there or not.
                    Err(_) => drop(acknowledged.insert(name, None)),
                }
            }
            drop(vault);
            let mut piece = calls;
            disk.crash(|| {
                piece = piece.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                piece > u32::MAX / 2
            });

            let vault = open(&disk);

            for (name, number) in acknowledged {
                let Some(number) = number else { continue };
                let reader = vault.get(&job(), &name, None).expect("there");
                assert_eq!(read_all(reader).expect("verified"), bytes(number, 40));
            }
        }
    }
}
