//! A box whose TPM is lost: the depot opens its disk, and nobody else does.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use longhaul_sim::files::{self, FolderPlan};
use longhaul_sim::site::{BUCKET, Plan, Site};
use longhaul_sim::system::{Stage, SystemError};
use longhaul_sim::wait::until;

const PATIENCE: Duration = Duration::from_mins(1);

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

/// Decrypts a wrapped key into `out`.
async fn unwrap(stage: &Stage, private: &str, wrapped: &str, out: &str) -> Result<(), SystemError> {
    let at = |option: &str, name: &str| format!("--{option}={}", stage.path(name).display());
    let arguments = [
        "recovery-key".to_owned(),
        "unwrap".to_owned(),
        at("private", private),
        at("wrapped", wrapped),
        at("out", out),
    ];
    let ran = stage.run("unwrap", "longhaul-factory", arguments).await;
    ran.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_whose_tpm_is_lost_is_read_whole_at_the_depot_and_nowhere_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let site = Site::stand(folder.path(), Plan::default()).await;
    let Site {
        stage,
        operator,
        cloud,
        mut tpm,
        box_id: id,
        mut device,
        ..
    } = site.expect("a site");
    let plan = FolderPlan {
        small: 20,
        small_bytes: (0, 40_000),
        large_bytes: 5 << 20,
        seed: 3,
    };
    let made = files::make(&stage.path("customer"), plan).expect("a folder");
    let push = [
        "push".to_owned(),
        format!("--ticket={}", stage.path("ticket.json").display()),
        "--json".to_owned(),
        stage.path("customer").display().to_string(),
    ];
    stage
        .run("push", "longhaul", push)
        .await
        .expect("on the box");
    let path = format!("/v1/boxes/{id}/vault-key");
    let wrapped = until("the wrapped key in the cloud", PATIENCE, || async {
        operator.get(&path).await.map_err(|e| e.to_string())
    });
    let wrapped = wrapped.await.expect("it arrives");
    fs::write(stage.path("cloud.json"), wrapped["wrapped"].to_string()).expect("written");

    // The power fails, and the chip with everything in it is no more.
    device.kill().await.expect("killed");
    tpm.kill().await.expect("killed");
    fs::remove_dir_all(stage.path("tpm")).expect("removed");
    copy(&stage.path("box/vault"), &stage.path("depot"));

    let private = "recovery/private.pem";
    unwrap(&stage, private, "cloud.json", "from-cloud.pem")
        .await
        .expect("by what the cloud keeps");
    unwrap(&stage, private, "depot/recovery.json", "vault.pem")
        .await
        .expect("by what lies on the disk");
    let read = |name: &str| fs::read(stage.path(name)).expect("a key");
    assert_eq!(read("from-cloud.pem"), read("vault.pem"));
    let rescue = |key: &str| {
        let at = |option: &str, name: &str| format!("--{option}={}", stage.path(name).display());
        let all = [at("vault", "depot"), at("key", key), at("to", "rescued")];
        std::iter::once("rescue".to_owned()).chain(all)
    };
    let said = stage
        .run("rescue", "longhaul-box", rescue("vault.pem"))
        .await
        .expect("everything is whole");
    assert!(said.contains(&format!("{} objects", made.len())), "{said}");
    for (name, digest) in &made {
        let file = File::open(stage.path("rescued").join(BUCKET).join(name)).expect("rescued");
        assert_eq!(files::digest(file).expect("read"), *digest, "{name}");
    }

    // Who runs the cloud has everything but this key.
    let other = [
        "recovery-key".to_owned(),
        "create".to_owned(),
        format!("--private={}", stage.path("other.pem").display()),
        format!("--public={}", stage.path("other-public.pem").display()),
    ];
    stage
        .run("other", "longhaul-factory", other)
        .await
        .expect("another key");
    let refused = unwrap(&stage, "other.pem", "cloud.json", "nothing.pem").await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(!stage.path("nothing.pem").exists());
    let zeros = format!("{}=", "A".repeat(43));
    let tag = "LONGHAUL VAULT KEY-----";
    let pem = format!("-----BEGIN {tag}\n{zeros}\n-----END {tag}\n");
    fs::write(stage.path("zero.pem"), pem).expect("written");
    let refused = stage
        .run("rescue-wrong", "longhaul-box", rescue("zero.pem"))
        .await;
    assert!(refused.is_err(), "another key opens nothing");
    cloud.stop().await.expect("the cloud stops when asked");
}
