//! Jobs: a key and a name space each; erasing the key erases the job.

use std::{path::Path, sync::Arc};

use longhaul_vault::{
    Checksums, Condition, DeliveryEvent, Error, JobId, Metadata, Vault, VaultConfig,
};

use crate::{
    fault_disk::{Fault, FaultDisk},
    support::{bytes, clock, job, key, read_all},
};

fn open(disk: &FaultDisk) -> Vault {
    let config = VaultConfig::new("/vault", 4 << 20).small();
    Vault::open_on(Arc::new(disk.clone()), config, &key(), clock())
        .expect("the vault opens")
        .0
}

fn named(name: &str) -> JobId {
    name.parse().expect("a job id")
}

fn put(vault: &Vault, job: &JobId, key: &str, data: &[u8]) -> longhaul_vault::ObjectInfo {
    let mut writer = vault
        .begin(job, key, Metadata::default())
        .expect("a writer");
    writer.write(data).expect("written");
    writer
        .finish(Checksums::new(), Condition::Any)
        .wait()
        .expect("stored")
}

fn get(vault: &Vault, job: &JobId, key: &str) -> Result<Vec<u8>, Error> {
    read_all(vault.get(job, key, None)?)
}

#[test]
fn jobs_do_not_see_each_other() {
    let disk = FaultDisk::default();
    let vault = open(&disk);
    let other = named("other");
    assert!(matches!(get(&vault, &other, "k"), Err(Error::NoSuchJob(_))));
    vault.create_job(&other).expect("a job");
    vault.create_job(&other).expect("the same job");
    put(&vault, &job(), "k", b"one");
    put(&vault, &other, "k", b"two");
    drop(vault);
    let vault = open(&disk);
    assert_eq!(vault.jobs(), [job(), other.clone()]);
    assert_eq!(get(&vault, &job(), "k").expect("there"), b"one");
    assert_eq!(get(&vault, &other, "k").expect("there"), b"two");
    assert_eq!(
        vault
            .list(&other, "", None, 9)
            .expect("a listing")
            .items
            .len(),
        1
    );
}

/// The thief has the disk, and the master key too.
#[test]
fn an_erased_job_is_noise_for_whoever_has_the_disk_and_the_master_key() {
    let disk = FaultDisk::default();
    let vault = open(&disk);
    let secret = named("secret");
    vault.create_job(&secret).expect("a job");
    put(&vault, &job(), "kept", &bytes(1, 30_000));
    put(
        &vault,
        &secret,
        "confidential-small",
        b"a very recognisable text",
    );
    put(
        &vault,
        &secret,
        "confidential-large",
        &b"a very recognisable text".repeat(2000),
    );
    let before = disk.image();
    let keyring = before.contents(Path::new("/vault/keyring"));
    assert_eq!(
        get(&open(&before), &secret, "confidential-small")
            .expect("there")
            .len(),
        24
    );

    vault.erase_job(&secret).expect("erased");

    assert!(matches!(
        get(&vault, &secret, "confidential-small"),
        Err(Error::NoSuchJob(_))
    ));
    assert!(matches!(
        vault.begin(&secret, "k", Metadata::default()),
        Err(Error::NoSuchJob(_))
    ));
    drop(vault);
    // The sealed key is nowhere, not even in files that were removed.
    for contents in disk.everything() {
        assert!(
            !contents
                .windows(32)
                .any(|w| w == &keyring[keyring.len() - 32..])
        );
        for text in [&b"confidential"[..], b"recognisable"] {
            assert!(!contents.windows(text.len()).any(|window| window == text));
        }
    }
    let vault = open(&disk);
    assert_eq!(vault.jobs(), [job()]);
    assert_eq!(
        get(&vault, &job(), "kept").expect("there"),
        bytes(1, 30_000)
    );
    // A new job of the same name has another key: it does not bring anything back.
    vault.create_job(&secret).expect("a job");
    assert!(matches!(
        get(&vault, &secret, "confidential-small"),
        Err(Error::NoSuchObject(_))
    ));
    drop(vault);
    let vault = open(&disk);
    vault.checkpoint().expect("a checkpoint");
    assert_eq!(
        vault
            .list(&secret, "", None, 9)
            .expect("a listing")
            .items
            .len(),
        0
    );
    assert!(vault.scrub().damaged.is_empty());
}

#[test]
fn what_was_under_way_in_an_erased_job_ends() {
    let disk = FaultDisk::default();
    let vault = open(&disk);
    let secret = named("secret");
    vault.create_job(&secret).expect("a job");
    let version = put(&vault, &secret, "k", &bytes(1, 30_000)).version;
    let started = DeliveryEvent::Started { upload: "u".into() };
    vault.deliver(version, started).wait().expect("started");
    let mut reader = vault.get(&secret, "k", None).expect("a reader");
    let mut writer = vault
        .begin(&secret, "l", Metadata::default())
        .expect("a writer");
    writer.write(&bytes(2, 30_000)).expect("written");

    vault.erase_job(&secret).expect("erased");

    assert!(matches!(reader.next_chunk(), Err(Error::NoSuchJob(_))));
    let refused = writer.finish(Checksums::new(), Condition::Any).wait();
    assert!(matches!(refused, Err(Error::NoSuchJob(_))), "{refused:?}");
    assert!(vault.pending(None, 9).is_empty());
    assert!(vault.abandoned().is_empty());
    assert_eq!(vault.stats().objects, 0);
}

#[test]
fn an_erasure_that_is_interrupted_anywhere_is_done_or_not_and_hurts_nobody_else() {
    for calls in 0..10 {
        for fault in [Fault::Fail, Fault::Torn, Fault::PowerCut] {
            let disk = FaultDisk::default();
            let vault = open(&disk);
            let secret = named("secret");
            vault.create_job(&secret).expect("a job");
            put(&vault, &secret, "k", b"secret");
            put(&vault, &job(), "kept", b"kept");
            disk.plan(calls, fault);
            let erased = vault.erase_job(&secret).is_ok();
            // Without a crash the vault goes on, and its answers and its disk agree.
            let mut acknowledged = false;
            if fault != Fault::PowerCut {
                disk.heal();
                let writer = vault.begin(&secret, "late", Metadata::default());
                acknowledged =
                    writer.is_ok_and(|w| w.finish(Checksums::new(), Condition::Any).wait().is_ok());
                assert!(!(erased && acknowledged));
            }
            drop(vault);
            let mut piece = calls;
            disk.crash(|| {
                piece = piece.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                piece > u32::MAX / 2
            });

            let vault = open(&disk);

            assert_eq!(get(&vault, &job(), "kept").expect("there"), b"kept");
            let found = get(&vault, &secret, "k");
            match &found {
                Ok(data) => assert!(!erased && data == b"secret"),
                Err(error) => {
                    assert!(matches!(error, Error::NoSuchJob(_)), "{error}");
                    assert!(
                        !acknowledged,
                        "{calls} {fault:?}: an acknowledged object is gone"
                    );
                }
            }
        }
    }
}
