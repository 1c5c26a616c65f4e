//! Erasing a job for good: the vault's key changes with it, and a copy of the old keyring, as a
//! flash drive keeps it in its spare blocks, opens nothing any more.

use std::{io, path::Path, sync::Arc};

use longhaul_vault::{
    Checksums, Condition, Error, JobId, Metadata, OpenError, Rekey, Vault, VaultConfig,
};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::{
    fault_disk::{Fault, FaultDisk},
    support::{bytes, clock, job, key, read_all},
};

/// What keeps the vault's keys: one, and a second while the first is being replaced.
#[derive(Clone)]
struct Chip(Arc<Mutex<Vec<u8>>>);

/// What becomes of a key that the chip is asked to keep.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Done,
    /// It says no, and nothing has changed.
    Refused,
    /// It says no, and has kept it all the same.
    DoneUnheard,
}

impl Chip {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(vec![key()[0]])))
    }

    fn keys(&self) -> Vec<u8> {
        self.0.lock().clone()
    }

    fn rekey(&self, to: u8, turn: Turn) -> Rekey {
        let chip = Arc::clone(&self.0);
        Rekey {
            key: Zeroizing::new([to; 32]),
            keep: Box::new(move || {
                if !matches!(turn, Turn::Refused) {
                    chip.lock().push(to);
                }
                match turn {
                    Turn::Done => Ok(()),
                    _ => Err(io::Error::other("the chip does not answer")),
                }
            }),
        }
    }

    /// Destroys every key but this one.
    fn keep_only(&self, key: u8) {
        *self.0.lock() = vec![key];
    }

    /// Opens the vault with whichever key opens it, and destroys the others.
    fn open(&self, disk: &FaultDisk) -> Vault {
        for key in self.keys() {
            match try_open(disk, key) {
                Ok(vault) => {
                    self.keep_only(key);
                    return vault;
                }
                Err(OpenError::WrongKey { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        panic!("no key in the chip opens the vault");
    }
}

fn try_open(disk: &FaultDisk, key: u8) -> Result<Vault, OpenError> {
    let config = VaultConfig::new("/vault", 4 << 20).small();
    let key = Zeroizing::new([key; 32]);
    Vault::open_on(Arc::new(disk.clone()), config, &key, clock()).map(|(vault, _)| vault)
}

fn secret() -> JobId {
    "secret".parse().expect("a job id")
}

fn put(vault: &Vault, job: &JobId, key: &str, data: &[u8]) -> Result<(), Error> {
    let mut writer = vault.begin(job, key, Metadata::default())?;
    writer.write(data)?;
    writer
        .finish(Checksums::new(), Condition::Any)
        .wait()
        .map(drop)
}

fn get(vault: &Vault, job: &JobId, key: &str) -> Result<Vec<u8>, Error> {
    read_all(vault.get(job, key, None)?)
}

/// A vault of two jobs, each with an object in the log and one in frames, and a checkpoint.
fn two_jobs(chip: &Chip) -> (FaultDisk, Vault) {
    let disk = FaultDisk::default();
    let vault = chip.open(&disk);
    vault.create_job(&secret()).expect("a job");
    for job in [job(), secret()] {
        put(&vault, &job, "small", b"small").expect("stored");
        put(&vault, &job, "large", &bytes(1, 30_000)).expect("stored");
    }
    vault.checkpoint().expect("a checkpoint");
    for job in [job(), secret()] {
        put(&vault, &job, "late", b"late").expect("stored");
    }
    (disk, vault)
}

fn assert_kept(vault: &Vault) {
    assert_eq!(get(vault, &job(), "small").expect("kept"), b"small");
    assert_eq!(get(vault, &job(), "late").expect("kept"), b"late");
    assert_eq!(get(vault, &job(), "large").expect("kept"), bytes(1, 30_000));
}

#[test]
fn an_old_keyring_from_a_spare_block_opens_no_more_after_a_job_was_erased() {
    let chip = Chip::new();
    let (disk, vault) = two_jobs(&chip);
    let spare = disk.image().contents(Path::new("/vault/keyring"));

    vault
        .erase_job_and_rekey(&secret(), chip.rekey(7, Turn::Done))
        .expect("erased");
    chip.keep_only(7);

    assert!(matches!(
        get(&vault, &secret(), "small"),
        Err(Error::NoSuchJob(_))
    ));
    assert_kept(&vault);
    // As after kill -9: no clean end, and what was not synced is gone.
    disk.crash(|| false);
    drop(vault);
    let vault = chip.open(&disk);
    assert_eq!(vault.jobs(), [job()]);
    assert_kept(&vault);
    assert!(vault.scrub().damaged.is_empty());
    drop(vault);
    // The thief has every byte that ever was on the disk, and the chip.
    let thief = disk.image();
    thief.replace(Path::new("/vault/keyring"), &spare);
    let opened = try_open(&thief, 7).map(drop);
    assert!(
        matches!(opened, Err(OpenError::WrongKey { .. })),
        "{opened:?}"
    );
    // With the key that the chip held before it would: that is what had to go.
    let thief = disk.image();
    thief.replace(Path::new("/vault/keyring"), &spare);
    let vault = try_open(&thief, key()[0]).expect("the old key opens the old keyring");
    assert_eq!(get(&vault, &secret(), "small").expect("there"), b"small");
}

#[test]
fn erasing_what_is_not_there_leaves_the_key_alone() {
    let chip = Chip::new();
    let (disk, vault) = two_jobs(&chip);
    let nobody = "nobody".parse().expect("a job id");

    vault
        .erase_job_and_rekey(&nobody, chip.rekey(7, Turn::Done))
        .expect("nothing to do");

    assert_eq!(chip.keys(), [key()[0]]);
    drop(vault);
    assert_eq!(chip.open(&disk).jobs().len(), 2);
}

#[test]
fn a_change_of_the_key_that_is_interrupted_anywhere_is_done_or_not() {
    let turns = [Turn::Done, Turn::Refused, Turn::DoneUnheard];
    let faults = [Fault::Fail, Fault::Torn, Fault::PowerCut];
    for (calls, turn) in (0..10).flat_map(|calls| turns.map(|turn| (calls, turn))) {
        for fault in faults {
            let chip = Chip::new();
            let (disk, vault) = two_jobs(&chip);
            disk.plan(calls, fault);
            let erased = vault
                .erase_job_and_rekey(&secret(), chip.rekey(7, turn))
                .is_ok();
            let mut late = false;
            if fault != Fault::PowerCut {
                disk.heal();
                late = put(&vault, &secret(), "later", b"later").is_ok();
                assert!(!(erased && late));
                vault
                    .create_job(&"third".parse().expect("a job id"))
                    .expect("the vault goes on");
            }
            drop(vault);
            let mut piece = calls;
            disk.crash(|| {
                piece = piece.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                piece > u32::MAX / 2
            });

            let vault = chip.open(&disk);

            assert_kept(&vault);
            match get(&vault, &secret(), "small") {
                Ok(data) => assert!(!erased && data == b"small"),
                Err(error) => {
                    assert!(matches!(error, Error::NoSuchJob(_)), "{error}");
                    assert!(
                        !late,
                        "{calls} {turn:?} {fault:?}: an acknowledged object is gone"
                    );
                }
            }
            // Whatever happened, it can be done now.
            vault
                .erase_job_and_rekey(&secret(), chip.rekey(9, Turn::Done))
                .expect("erased");
            if chip.keys().contains(&9) {
                chip.keep_only(9);
            }
            drop(vault);
            let vault = chip.open(&disk);
            assert_kept(&vault);
            assert!(!vault.jobs().contains(&secret()));
        }
    }
}
