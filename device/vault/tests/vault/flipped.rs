//! One flipped bit anywhere on the disk: found, named, and never given out as data.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use longhaul_vault::{
    Checksums, Condition, Damage, Error, Metadata, OpenError, PartNumber, Vault, VaultConfig,
};
use parking_lot::Mutex;
use proptest::prelude::*;

use crate::{
    fault_disk::FaultDisk,
    support::{bytes, clock, job, key, put, read_all},
};

fn config() -> VaultConfig {
    VaultConfig {
        // So little that most of the index lies in runs.
        index_bytes: 512,
        ..VaultConfig::new("/vault", 4 << 20).small()
    }
}

fn contents() -> BTreeMap<String, Vec<u8>> {
    let sizes = [0, 1, 300, 512, 513, 8_000, 9_000, 30_000, 70_000];
    (1..)
        .zip(sizes)
        .map(|(seed, size)| (format!("object-{seed}"), bytes(seed, size)))
        .collect()
}

/// A vault with everything in it: a checkpoint, runs, a log behind them, frames, an upload, a deletion.
fn sample() -> &'static (FaultDisk, Vec<(PathBuf, usize)>) {
    static SAMPLE: OnceLock<(FaultDisk, Vec<(PathBuf, usize)>)> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let disk = FaultDisk::default();
        let vault = Vault::open_on(Arc::new(disk.clone()), config(), &key(), clock())
            .expect("the vault opens")
            .0;
        for (at, (name, data)) in contents().into_iter().enumerate() {
            put(&vault, &name, &data);
            if at == 4 {
                vault.checkpoint().expect("a checkpoint");
            }
        }
        put(&vault, "gone", b"gone");
        vault
            .delete(&job(), "gone", Condition::Any)
            .wait()
            .expect("deleted");
        let upload = vault
            .create_upload(&job(), "upload", Metadata::default(), Checksums::new())
            .wait()
            .expect("an upload");
        let number = PartNumber::new(1).expect("in range");
        let mut part = vault.begin_part(&upload, number).expect("a writer");
        part.write(&bytes(99, 20_000)).expect("written");
        part.finish(Checksums::new()).wait().expect("stored");
        drop(vault);
        let image = disk.image();
        let run = |path: &PathBuf| path.starts_with("/vault/index");
        assert!(
            image.paths().iter().any(run),
            "some of the index is on the disk"
        );
        let files = image.paths().into_iter().map(|path| {
            let bytes = image.contents(&path);
            // Behind it there is nothing but space that was set aside.
            let used = bytes.iter().rposition(|byte| *byte != 0);
            (path, used.map_or(0, |at| at + 1))
        });
        let files = files.filter(|(_, used)| *used > 0).collect();
        (image, files)
    })
}

fn flip_and_read(file: usize, place: usize, bit: u8) {
    let (image, files) = sample();
    let (path, used) = &files[file % files.len()];
    let disk = image.image();
    disk.flip(path, place % used, bit);
    let told = Arc::new(Mutex::new(Vec::new()));
    let vault = match Vault::open_on(Arc::new(disk), config(), &key(), clock()) {
        Ok((vault, _)) => vault,
        Err(error @ (OpenError::Damaged { .. } | OpenError::WrongKey { .. })) => {
            let said = error.to_string();
            assert!(said.contains("/vault/"), "{said}");
            return;
        }
        Err(error) => panic!("{}: {error}", path.display()),
    };
    let witness = Arc::clone(&told);
    vault.on_damage(move |damage| witness.lock().push(damage.clone()));
    let mut named = Vec::new();
    for (name, expected) in contents() {
        match vault.get(&job(), &name, None).and_then(read_all) {
            Ok(data) => assert_eq!(data, expected, "{name}: {}", path.display()),
            Err(Error::Damaged(damage)) => {
                assert_eq!(damage.key, name);
                named.push(*damage);
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }
    let index = path.starts_with("/vault/index");
    let in_index = |damage: &Damage| damage.place.starts_with("index, run-");
    assert_eq!(named.iter().any(in_index), index && !named.is_empty());
    // A block of the index holds what is known of many objects.
    assert!(
        named.len() <= 1 || index,
        "one bit lies in one frame: {named:?}"
    );
    // Merging runs in the background may come across it, too, and knows no object.
    let heard: Vec<Damage> = told
        .lock()
        .iter()
        .filter(|d| !d.key.is_empty())
        .cloned()
        .collect();
    assert_eq!(heard, named, "what is damaged is told");
    assert!(vault.get(&job(), "gone", None).is_err());
    let scrubbed = vault.scrub().damaged;
    assert!(scrubbed.len() <= 1, "{scrubbed:?}");
    let scrubbed = |named: &Damage| scrubbed.iter().any(|found| found.place == named.place);
    assert!(named.iter().all(scrubbed));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 3000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_flipped_bit_anywhere_is_named_and_never_returned(
        file: usize,
        place: usize,
        bit in 0..8_u8,
    ) {
        flip_and_read(file, place, bit);
    }
}
