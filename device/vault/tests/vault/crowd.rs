//! Many at once, on a vault that is nearly full all the time.

use std::{collections::BTreeMap, thread};

use longhaul_vault::{Checksums, Condition, Error, Metadata, PartNumber, Vault};

use crate::support::{bytes, get, job, open, read_all, try_put};

const TURNS: u64 = 120;

fn put_in_parts(vault: &Vault, key: &str, data: &[u8]) -> Result<(), Error> {
    let created = vault.create_upload(&job(), key, Metadata::default(), Checksums::new());
    let upload = created.wait()?;
    let written = (|| {
        let mut parts = Vec::new();
        for (number, piece) in (1..).zip(data.chunks(30_000)) {
            let number = PartNumber::new(number).expect("in range");
            let mut writer = vault.begin_part(&upload, number)?;
            writer.write(piece)?;
            parts.push((number, writer.finish(Checksums::new()).wait()?.etag));
        }
        let done = vault.complete_upload(&upload, parts, Checksums::new(), Condition::Any);
        done.wait().map(drop)
    })();
    if written.is_err() {
        vault.abort_upload(&upload).wait()?;
    }
    written
}

/// Writes, overwrites, reads and deletes objects of its own; gives what it left behind.
fn one(vault: &Vault, who: u64) -> BTreeMap<String, u64> {
    let mut mine: BTreeMap<String, u64> = BTreeMap::new();
    let sizes = [300, 9000, 20_000, 45_000, 70_000, 100_000];
    let size_of = |seed: u64| sizes[usize::try_from(seed % 6).expect("small")];
    let mut held = None;
    for turn in 0..TURNS {
        let seed = turn * 7919 + who * 104_729;
        let key = format!("{who}-{}", seed % 17);
        let data = bytes(seed, size_of(seed));
        let written = if turn % 3 == 0 {
            put_in_parts(vault, &key, &data)
        } else {
            try_put(vault, &key, &data).map(drop)
        };
        match written {
            Ok(()) => drop(mine.insert(key.clone(), seed)),
            Err(Error::SlowDown | Error::DiskFull) => {
                // Every third goes, so that holes are left.
                let gone: Vec<_> = mine.keys().step_by(3).cloned().collect();
                for key in gone {
                    vault
                        .delete(&job(), &key, Condition::Any)
                        .wait()
                        .expect("deleted");
                    mine.remove(&key);
                }
            }
            Err(error) => panic!("{error}"),
        }
        if let Some((reader, seed)) = held.take_if(|_| turn % 5 == 0) {
            assert_eq!(
                read_all(reader).expect("verified"),
                bytes(seed, size_of(seed))
            );
        }
        if let Some((key, seed)) = mine.iter().nth(usize::try_from(seed % 7).expect("small")) {
            assert_eq!(get(vault, key), bytes(*seed, size_of(*seed)), "{key}");
            let reader = vault.get(&job(), key, None).expect("a reader");
            held.get_or_insert((reader, *seed));
        }
    }
    mine
}

#[test]
fn a_crowd_on_a_nearly_full_vault_finds_everything_as_it_left_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    let left: Vec<_> = thread::scope(|scope| {
        let vault = &vault;
        let threads: Vec<_> = (0..6)
            .map(|who| scope.spawn(move || one(vault, who)))
            .collect();
        let checkpoints = scope.spawn(move || {
            for _ in 0..20 {
                vault.checkpoint().expect("a checkpoint");
                assert!(vault.scrub().damaged.is_empty());
            }
        });
        let left = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect();
        checkpoints.join().expect("no panic");
        left
    });
    let sizes = [300, 9000, 20_000, 45_000, 70_000, 100_000];
    let check = |vault: &Vault| {
        for (key, seed) in left.iter().flatten() {
            let size = sizes[usize::try_from(seed % 6).expect("small")];
            assert_eq!(get(vault, key), bytes(*seed, size), "{key}");
        }
        let objects: usize = left.iter().map(BTreeMap::len).sum();
        assert_eq!(vault.stats().objects, objects as u64);
        assert_eq!(vault.stats().uploads, 0);
    };
    check(&vault);
    drop(vault);
    check(&open(dir.path()));
}
