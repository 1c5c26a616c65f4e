//! Group commit: what comes together becomes durable together, and nobody waits for company.

use std::sync::Arc;

use longhaul_vault::{Checksums, Commit, Condition, Metadata, ObjectInfo, Vault, VaultConfig};

use crate::{
    fault_disk::FaultDisk,
    support::{bytes, clock, get, job, key, put},
};

/// Records per sync of the log, at most.
const GROUP: usize = 256;

fn open(disk: &FaultDisk) -> Vault {
    let mut config = VaultConfig::new("/vault", 64 << 20).small();
    // No checkpoint, no run of the index and no second log file takes part.
    config.log_bytes = 4 << 20;
    config.checkpoint_bytes = 32 << 20;
    config.index_bytes = 8 << 20;
    Vault::open_on(Arc::new(disk.clone()), config, &key(), clock())
        .expect("the vault opens")
        .0
}

fn begin_put(vault: &Vault, name: &str, data: &[u8]) -> Commit<ObjectInfo> {
    let mut writer = vault
        .begin(&job(), name, Metadata::default())
        .expect("a writer");
    writer.write(data).expect("written");
    writer.finish(Checksums::new(), Condition::Any)
}

#[test]
fn objects_that_come_during_a_sync_share_the_next_ones_256_to_each() {
    let disk = FaultDisk::default();
    let vault = open(&disk);
    // From here on a segment is open.
    put(&vault, "before", &bytes(2, 9000));
    let start = disk.syncs();

    disk.hold_syncs(true);
    let first = begin_put(&vault, "first", &bytes(0, 100));
    disk.await_syncs(1);
    let count = 2 * GROUP + 88;
    let crowd: Vec<_> = (0..count)
        .map(|n| begin_put(&vault, &format!("{n}"), &bytes(n as u64, 100)))
        .collect();
    // Its frames are synced behind all the others' turn: when that waits, they stand before the log.
    let last = begin_put(&vault, "last", &bytes(1, 9000));
    disk.await_syncs(2);
    assert_eq!(disk.syncs(), start, "nothing is durable yet");
    disk.hold_syncs(false);

    first.wait().expect("stored");
    for pending in crowd {
        pending.wait().expect("stored");
    }
    last.wait().expect("stored");
    let syncs = disk.syncs() - start;
    // One for the first, three for the crowd; the last object comes with those or just after.
    assert!((4..=5).contains(&syncs), "{syncs} syncs");
    for n in [0, GROUP, count - 1] {
        assert_eq!(get(&vault, &format!("{n}")), bytes(n as u64, 100));
    }
}

#[test]
fn an_object_that_comes_alone_is_synced_at_once() {
    let disk = FaultDisk::default();
    let vault = open(&disk);

    for n in 0..20 {
        let before = disk.syncs();
        // Comes back only when it is durable, with nobody else there to fill the group.
        put(&vault, &format!("{n}"), &bytes(n, 100));
        assert_eq!(disk.syncs(), before + 1, "object {n}");
    }
}
