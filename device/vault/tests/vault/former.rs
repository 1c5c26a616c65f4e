//! A vault that a release in the field wrote, byte for byte: it opens, and goes on.
//!
//! `LONGHAUL_BLESS=1` writes the newest folder anew, which is right for a new format only: then the
//! folder of the one before stays, under its own name. Format 1 knew no runs.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use longhaul_vault::{
    Checksums, Condition, Delivery, DeliveryEvent, JobId, Metadata, PartNumber, Vault, VaultConfig,
};

use crate::support::{bytes, clock, job, key, read_all};

fn golden(format: u32) -> PathBuf {
    let name = format!("tests/golden/format-{format}");
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn open(dir: &Path) -> Vault {
    let mut config = VaultConfig::new(dir, 1 << 20).small();
    // Small enough to be kept with the source.
    (config.segment_bytes, config.log_bytes) = (32 << 10, 16 << 10);
    // So little that the index is written to the disk.
    config.index_bytes = 256;
    Vault::open(config, &key(), clock())
        .expect("the vault opens")
        .0
}

fn other() -> JobId {
    "other".parse().expect("a job id")
}

fn put(vault: &Vault, job: &JobId, key: &str, data: &[u8]) {
    let user = BTreeMap::from([("colour".to_owned(), "blue".to_owned())]);
    let metadata = Metadata {
        user,
        ..Metadata::default()
    };
    let mut writer = vault.begin(job, key, metadata).expect("a writer");
    writer.write(data).expect("written");
    let stored = writer.finish(Checksums::new(), Condition::Any).wait();
    stored.expect("stored");
}

fn write(dir: &Path) {
    let vault = open(dir);
    vault.create_job(&other()).expect("a job");
    put(&vault, &job(), "in-checkpoint", &bytes(1, 400));
    put(&vault, &job(), "frames", &bytes(2, 12_000));
    vault.checkpoint().expect("a checkpoint");
    put(&vault, &job(), "in-log", &bytes(3, 400));
    put(&vault, &other(), "others", &bytes(4, 5_000));
    let version = vault.head(&job(), "frames").expect("there").version;
    let started = DeliveryEvent::Started { upload: "u".into() };
    vault.deliver(version, started).wait().expect("started");
    let create = vault.create_upload(&job(), "upload", Metadata::default(), Checksums::new());
    let upload = create.wait().expect("an upload");
    let mut part = vault
        .begin_part(&upload, PartNumber::new(1).expect("in range"))
        .expect("a writer");
    part.write(&bytes(5, 300)).expect("written");
    part.finish(Checksums::new()).wait().expect("stored");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

fn get(vault: &Vault, job: &JobId, key: &str) -> Vec<u8> {
    read_all(vault.get(job, key, None).expect("there")).expect("verified")
}

#[test]
fn a_vault_of_the_first_release_opens_and_goes_on() {
    opens_and_goes_on(1);
}

#[test]
fn a_vault_of_a_release_in_the_field_opens_and_goes_on() {
    if std::env::var_os("LONGHAUL_BLESS").is_some() {
        let _ = fs::remove_dir_all(golden(2));
        write(&golden(2));
    }
    let runs = fs::read_dir(golden(2).join("index")).expect("a folder");
    assert!(runs.count() > 0, "some of the index is in runs");
    opens_and_goes_on(2);
}

fn opens_and_goes_on(format: u32) {
    let dir = tempfile::tempdir().expect("a directory");
    copy(&golden(format), dir.path());

    let vault = open(dir.path());

    let check = |vault: &Vault| {
        assert_eq!(get(vault, &job(), "in-checkpoint"), bytes(1, 400));
        assert_eq!(get(vault, &job(), "frames"), bytes(2, 12_000));
        assert_eq!(get(vault, &job(), "in-log"), bytes(3, 400));
        let info = vault.head(&job(), "frames").expect("there");
        assert!(matches!(info.delivery, Delivery::InFlight { ref upload, .. } if upload == "u"));
        assert_eq!(info.metadata.user["colour"], "blue");
        let uploads = vault.uploads(&job(), "", None, 9).expect("a listing").items;
        assert_eq!(uploads.len(), 1);
    };
    check(&vault);
    assert_eq!(get(&vault, &other(), "others"), bytes(4, 5_000));
    assert!(vault.scrub().damaged.is_empty());
    put(&vault, &job(), "new", &bytes(6, 9_000));
    vault.checkpoint().expect("a checkpoint");
    vault.erase_job(&other()).expect("erased");
    drop(vault);
    let vault = open(dir.path());
    check(&vault);
    assert_eq!(get(&vault, &job(), "new"), bytes(6, 9_000));
    assert_eq!(vault.jobs(), [job()]);
}
