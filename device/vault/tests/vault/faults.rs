//! Faults of the disk that need a story of their own.

use std::{path::Path, sync::Arc};

use longhaul_vault::{
    Checksums, Condition, DeliveryEvent, Error, Metadata, ObjectInfo, RecoveryReport, Vault,
    VaultConfig,
};

use crate::{
    fault_disk::{Fault, FaultDisk},
    support::{bytes, clock, get, job, key, put, try_get, try_put},
};

fn config() -> VaultConfig {
    VaultConfig::new("/vault", 4 << 20).small()
}

fn open(disk: &FaultDisk) -> Vault {
    reopen(disk).0
}

fn reopen(disk: &FaultDisk) -> (Vault, RecoveryReport) {
    Vault::open_on(Arc::new(disk.clone()), config(), &key(), clock()).expect("the vault opens")
}

/// All objects are zeros, so one key used twice with one nonce would give the same ciphertext.
#[test]
fn no_block_of_ciphertext_is_ever_written_twice() {
    let disk = FaultDisk::default();
    disk.watch();
    let zeros = vec![0; 30_000];
    for life in 0..20_u32 {
        let vault = open(&disk);
        for round in 0..12_u32 {
            if round == life % 12 {
                disk.plan(life % 7, Fault::Fail);
            }
            let put = || {
                let mut writer =
                    vault.begin(&job(), &format!("k{}", round % 3), Metadata::default())?;
                writer.write(&zeros)?;
                writer.finish(Checksums::new(), Condition::Any).wait()
            };
            let _ = put();
        }
        let mut piece = life;
        disk.crash(|| {
            piece = piece.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            piece > u32::MAX / 2
        });
    }
    let (written, repeated, rewritten) = disk.repeated();
    assert!(written > 100_000, "{written} blocks were watched");
    assert_eq!((repeated, rewritten), (0, 0));
    // The directory is where the watch looks.
    assert!(
        disk.paths()
            .iter()
            .any(|path| path.starts_with(Path::new("/vault/segments")))
    );
}

#[test]
fn a_sync_that_failed_spoils_the_segment_for_everybody_who_wrote_to_it() {
    let disk = FaultDisk::default();
    let vault = open(&disk);
    let begin = |name| {
        let mut writer = vault
            .begin(&job(), name, Metadata::default())
            .expect("a writer");
        writer.write(&bytes(1, 9000)).expect("written");
        writer
    };
    let (first, second) = (begin("first"), begin("second"));

    // The write of the last frame, then the sync of the segment.
    disk.plan(1, Fault::Fail);
    let refused = first.finish(Checksums::new(), Condition::Any).wait();
    assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
    // The second one's sync would succeed, but its first frame is lost.
    let acknowledged = second
        .finish(Checksums::new(), Condition::Any)
        .wait()
        .is_ok();

    drop(vault);
    disk.crash(|| false);
    let vault = open(&disk);
    assert_eq!(try_get(&vault, "second").is_ok(), acknowledged);
    assert!(!acknowledged);
    put(&vault, "third", &bytes(3, 9000));
    assert_eq!(get(&vault, "third"), bytes(3, 9000));
}

#[test]
fn a_new_log_file_that_half_came_to_be_takes_nothing_back() {
    for calls in 0..8 {
        let disk = FaultDisk::default();
        let vault = open(&disk);
        put(&vault, "before", b"1");
        disk.plan(calls, Fault::Fail);
        let _ = vault.checkpoint();
        disk.heal();
        put(&vault, "after", b"2");
        drop(vault);
        disk.crash(|| true);

        let vault = open(&disk);
        assert_eq!(
            (get(&vault, "before"), get(&vault, "after")),
            (b"1".to_vec(), b"2".to_vec())
        );
    }
}

#[test]
fn a_full_file_system_refuses_writes_loses_nothing_and_serves_reads() {
    let disk = FaultDisk::default();
    let vault = open(&disk);
    put(&vault, "small", b"kept");
    put(&vault, "large", &bytes(1, 50_000));

    disk.plan(0, Fault::Full);
    for size in [10, 90_000] {
        let refused = try_put(&vault, "late", &bytes(2, size));
        assert!(matches!(refused, Err(Error::DiskFull)), "{refused:?}");
    }
    assert_eq!(get(&vault, "small"), b"kept");
    assert_eq!(get(&vault, "large"), bytes(1, 50_000));

    disk.heal();
    put(&vault, "late", &bytes(3, 50_000));
    drop(vault);
    disk.crash(|| false);
    let vault = open(&disk);
    assert_eq!(get(&vault, "large"), bytes(1, 50_000));
    assert_eq!(get(&vault, "late"), bytes(3, 50_000));
}

#[test]
fn on_a_full_file_system_deletions_and_deliveries_are_still_recorded() {
    let disk = FaultDisk::default();
    let vault = open(&disk);
    let version = put(&vault, "k", b"kept").version;
    put(&vault, "gone", b"gone");
    // From here on the file system gives no new space; what was set aside is all there is.
    disk.fill_up(true);
    let event = |round: u32| match round % 2 {
        0 => DeliveryEvent::Started {
            upload: "x".repeat(500),
        },
        _ => DeliveryEvent::Reset,
    };
    // More than the open log file has room for.
    for round in 0..250 {
        vault
            .deliver(version, event(round))
            .wait()
            .expect("recorded");
    }
    assert!(
        vault
            .delete(&job(), "gone", Condition::Any)
            .wait()
            .expect("deleted")
    );
    let refused = try_put(&vault, "late", b"x");
    assert!(matches!(refused, Err(Error::DiskFull)), "{refused:?}");

    disk.fill_up(false);
    put(&vault, "late", b"x");
    drop(vault);
    let vault = open(&disk);
    assert_eq!(get(&vault, "k"), b"kept");
    assert!(matches!(
        try_get(&vault, "gone"),
        Err(Error::NoSuchObject(_))
    ));
}

#[test]
fn recovery_says_what_it_dropped() {
    let disk = FaultDisk::default();
    let vault = open(&disk);
    put(&vault, "kept", b"1");
    // The record is written, the sync fails: its remains lie in the file.
    disk.plan(1, Fault::PowerCut);
    assert!(try_put(&vault, "lost", &bytes(1, 400)).is_err());
    drop(vault);
    // A part of the record survives, sector by sector.
    let mut sectors = 0;
    disk.crash(|| {
        sectors += 1;
        sectors == 1
    });

    let (vault, report) = reopen(&disk);

    assert!(report.dropped_bytes > 0, "{report:?}");
    assert_eq!((report.objects, report.created), (1, false));
    assert_eq!(get(&vault, "kept"), b"1");
    let lost: Result<ObjectInfo, _> = vault.head(&job(), "lost");
    assert!(matches!(lost, Err(Error::NoSuchObject(_))));
}

fn sample() -> FaultDisk {
    let disk = FaultDisk::default();
    let config = VaultConfig {
        // Some of the index is in runs.
        index_bytes: 256,
        ..config()
    };
    let opened = Vault::open_on(Arc::new(disk.clone()), config, &key(), clock());
    let (vault, _) = opened.expect("the vault opens");
    put(&vault, "small", b"some bytes");
    put(&vault, "large", &bytes(1, 30_000));
    put(&vault, "last", b"more bytes");
    drop(vault);
    disk
}

/// Every byte of the parts of the log that count, and some of the nothing behind it.
#[test]
fn a_flipped_bit_in_the_log_is_an_error_or_named_never_other_data() {
    let image = sample();
    for path in image
        .paths()
        .into_iter()
        .filter(|path| path.starts_with("/vault/log"))
    {
        let len = image
            .contents(&path)
            .iter()
            .rposition(|b| *b != 0)
            .map_or(0, |at| at + 100);
        for byte in 0..len {
            let disk = image.image();
            disk.flip(&path, byte, u8::try_from(byte % 8).expect("small"));
            let Ok((vault, _)) = Vault::open_on(Arc::new(disk.clone()), config(), &key(), clock())
            else {
                continue;
            };
            for (name, expected) in [
                ("small", b"some bytes".to_vec()),
                ("large", bytes(1, 30_000)),
                ("last", b"more bytes".to_vec()),
            ] {
                match try_get(&vault, name) {
                    Ok(data) => assert_eq!(data, expected, "{} byte {byte}", path.display()),
                    // Before what a checkpoint covers: found when it is read.
                    Err(Error::Damaged(damage)) => assert_eq!(damage.key, name),
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

#[test]
fn a_flipped_bit_in_a_segment_is_named_and_never_returned() {
    let image = sample();
    let path = Path::new("/vault/segments/segment-00000000");
    let mut named = 0;
    for byte in (0..36_000).step_by(97) {
        let disk = image.image();
        let vault = open(&disk);
        disk.flip(path, byte, 3);
        match try_get(&vault, "large") {
            // Nobody's byte: padding behind a frame.
            Ok(data) => assert_eq!(data, bytes(1, 30_000)),
            Err(Error::Damaged(damage)) => {
                named += 1;
                assert_eq!((&*damage.job, &*damage.key), ("default", "large"));
                let frame = byte / 8192 * 8192;
                assert_eq!(damage.place, format!("segment 0, frame at byte {frame}"));
                assert_eq!(vault.scrub().damaged, vec![*damage]);
            }
            Err(error) => panic!("{error}"),
        }
        assert_eq!(get(&vault, "small"), b"some bytes");
    }
    assert!(named > 250, "{named}");
}

#[test]
fn garbage_in_any_file_is_an_error_and_never_a_panic() {
    let image = sample();
    for path in image.paths() {
        for len in [0, 1, 40, 4096, 70_000] {
            let disk = image.image();
            disk.replace(&path, &bytes(7, len));
            let opened = Vault::open_on(Arc::new(disk.clone()), config(), &key(), clock());
            let segment = path.starts_with("/vault/segments");
            match opened {
                // Space that is set aside has no contents.
                Ok((vault, _)) if path.ends_with("reserve") => {
                    assert_eq!(get(&vault, "large"), bytes(1, 30_000));
                }
                Ok((vault, _)) => {
                    assert!(segment, "{} holds garbage", path.display());
                    assert!(matches!(try_get(&vault, "large"), Err(Error::Damaged(_))));
                    assert_eq!(get(&vault, "small"), b"some bytes");
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}

#[test]
fn a_missing_file_is_an_error() {
    let image = sample();
    for path in image
        .paths()
        .into_iter()
        .filter(|path| !path.ends_with("reserve"))
    {
        let disk = image.image();
        longhaul_vault::disk::Disk::remove(&disk, &path).expect("removed");
        let opened = Vault::open_on(Arc::new(disk.clone()), config(), &key(), clock());
        let Ok((vault, _)) = opened else { continue };
        // Nothing of the log is gone yet, so it says all that the checkpoint said.
        let checkpoint = path.file_name().is_some_and(|name| {
            let name = name.to_string_lossy();
            name.starts_with("checkpoint-")
        });
        assert!(checkpoint, "{}", path.display());
        assert_eq!(get(&vault, "small"), b"some bytes");
        assert_eq!(get(&vault, "large"), bytes(1, 30_000));
        assert_eq!(get(&vault, "last"), b"more bytes");
    }
}

#[test]
fn another_master_key_opens_nothing() {
    let other = zeroize::Zeroizing::new([43; 32]);
    let opened = Vault::open_on(Arc::new(sample()), config(), &other, clock());
    assert!(matches!(
        opened.map(drop),
        Err(longhaul_vault::OpenError::WrongKey { .. })
    ));
}
