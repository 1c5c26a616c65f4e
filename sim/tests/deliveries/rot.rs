//! A byte that changes on the box's disk is found, named, told once, and never delivered.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use longhaul_sim::files::{self, FolderPlan};
use longhaul_sim::lan_box::arg;
use longhaul_sim::site::{Plan, Site};
use longhaul_sim::wait::until;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(1);
/// The object that is damaged, and how long it is.
const ROTTEN: &str = "volume.raw";
const LONG: u64 = 5 << 20;

/// Changes one bit in the first block behind `at` that was written.
fn flip(path: &Path, mut at: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("a file");
    let mut block = vec![0; 4096];
    loop {
        let read = file.read_at(&mut block, at).expect("read");
        assert!(read > 100, "nothing was written to {}", path.display());
        if block.iter().any(|byte| *byte != 0) {
            break;
        }
        at += 4096;
    }
    file.write_all_at(&[block[100] ^ 1], at + 100)
        .expect("written");
    file.sync_all().expect("on the disk");
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// The segment that holds bytes: of those made ahead, one.
fn written_segment(vault: &Path) -> PathBuf {
    let holds = |path: &PathBuf| {
        let file = File::open(path).expect("a segment");
        let mut bytes = vec![0; 1 << 20];
        file.read_exact_at(&mut bytes, 64 << 10).is_ok() && bytes.iter().any(|byte| *byte != 0)
    };
    let mut written = files_in(&vault.join("segments"));
    written.retain(holds);
    assert_eq!(written.len(), 1, "one object lies in segments: {written:?}");
    written.remove(0)
}

async fn pause(site: &Site, paused: bool) {
    let path = format!("/v1/boxes/{}/uplink", site.box_id);
    let policy = json!({ "paused": paused });
    site.operator.put(&path, &policy).await.expect("taken");
    let applied = until("the box to apply it", PATIENCE, || async {
        let view = site.operator.get(&path).await.map_err(|e| e.to_string())?;
        if view["applied"] == true {
            Ok(())
        } else {
            Err(view.to_string())
        }
    });
    applied.await.expect("applied");
}

/// What the timeline says of the damaged object, in entries of `kind`.
async fn told(site: &Site, kind: &str) -> Vec<Value> {
    let items = site.operator.timeline(&site.box_id, kind).await;
    let mut items = items.expect("a timeline");
    items.retain(|item| item.to_string().contains(ROTTEN));
    items
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_a_segment_is_named_in_the_cloud_once_and_never_delivered() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = Plan {
        supervised: false,
        ..Plan::default()
    };
    let mut site = Site::stand(folder.path(), plan).await.expect("a site");
    let customer = site.customer();
    let source = site.stage.path("customer");
    let plan = FolderPlan {
        small: 10,
        small_bytes: (10, 4_000),
        large_bytes: LONG,
        seed: 11,
    };
    let mut expected = files::make(&source, plan).expect("a folder");
    pause(&site, true).await;
    let pushed = customer
        .run(["push", arg(&source), "--json", "--patience=60"])
        .await;
    let pushed = pushed.expect("started");
    assert!(pushed.status.success(), "{pushed:?}");

    site.device.kill().await.expect("killed");
    flip(&written_segment(&site.stage.path("box/vault")), 64 << 10);
    site.start_box().expect("started again");
    site.online().await.expect("online again");

    // Read by its owner three times, and then by the uplink: never the bytes, and told once.
    let back = site.stage.path("back");
    for _ in 0..3 {
        let got = customer
            .run(["get", ROTTEN, arg(&back), "--patience=1"])
            .await;
        assert!(
            !got.expect("started").status.success(),
            "damaged bytes are not given out"
        );
    }
    pause(&site, false).await;
    let failed = until("the failed delivery", PATIENCE, || async {
        let failed = told(&site, "delivery_failed").await;
        if failed.is_empty() {
            Err("nothing")
        } else {
            Ok(failed)
        }
    });
    let failed = failed.await.expect("the customer sees a reason");
    assert_eq!(failed.len(), 1, "{failed:?}");
    let gone = until("the others", PATIENCE, || async {
        let there = site.operator.objects(longhaul_sim::site::BUCKET, "").await;
        match there.map_err(|e| e.to_string())?.len() {
            10 => Ok(()),
            few => Err(few.to_string()),
        }
    });
    gone.await.expect("the others are delivered");
    let damage = told(&site, "failure").await;
    assert_eq!(damage.len(), 1, "said once: {damage:?}");
    let text = damage[0].to_string();
    assert!(
        text.contains("damaged") && text.contains("segment"),
        "{text}"
    );
    expected.remove(ROTTEN);
    site.holds_exactly(&expected)
        .await
        .expect("nothing else is there");

    // The customer's own file is whole: pushed again, it arrives.
    let path = source.join(ROTTEN);
    let digest = files::digest(File::open(&path).expect("there")).expect("read");
    let again = ["push", arg(&source), "--json", "--wait", "--patience=60"];
    fs::write(source.join("fresh"), b"new").expect("written");
    fs::remove_dir_all(site.stage.path("state")).expect("the customer has forgotten");
    let pushed = customer.run(again).await.expect("started");
    assert!(pushed.status.success(), "{pushed:?}");
    expected.insert(ROTTEN.to_owned(), digest);
    expected.insert("fresh".to_owned(), blake3::hash(b"new"));
    site.holds_exactly(&expected)
        .await
        .expect("whole after all");
    site.stop().await.expect("they stop when asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_the_log_closes_the_vault_and_the_cloud_is_told_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = Plan {
        supervised: false,
        ..Plan::default()
    };
    let mut site = Site::stand(folder.path(), plan).await.expect("a site");
    let customer = site.customer();
    let source = site.stage.path("customer");
    let plan = FolderPlan {
        small: 200,
        small_bytes: (1_000, 4_000),
        large_bytes: 0,
        seed: 12,
    };
    files::make(&source, plan).expect("a folder");
    let pushed = customer
        .run(["push", arg(&source), "--json", "--patience=60"])
        .await;
    assert!(
        pushed.as_ref().is_ok_and(|p| p.status.success()),
        "{pushed:?}"
    );

    site.device.kill().await.expect("killed");
    let mut log = files_in(&site.stage.path("box/vault/log"));
    // Space for when the disk is full, and no part of the log.
    log.retain(|path| !path.ends_with("reserve"));
    let longest = log
        .iter()
        .max_by_key(|path| fs::metadata(path).map_or(0, |m| m.len()));
    flip(longest.expect("a log"), 32 << 10);
    site.start_box().expect("started again");
    site.online().await.expect("online all the same");

    let named = until("the reason in what it reports", PATIENCE, || async {
        let detail = site
            .operator
            .box_detail(&site.box_id)
            .await
            .map_err(|e| e.to_string())?;
        let problems = detail["reported"]["problems"].to_string();
        if problems.contains("the vault cannot be opened") {
            Ok(problems)
        } else {
            Err(problems)
        }
    });
    let named = named.await.expect("said");
    assert!(named.contains("log"), "{named}");
    // It comes by the journal, another way than what the box reports.
    let told = until("the failure in the timeline", PATIENCE, || async {
        let told = site.operator.timeline(&site.box_id, "failure").await;
        let told = told.map_err(|e| e.to_string())?;
        if told.is_empty() {
            Err("nothing".to_owned())
        } else {
            Ok(told)
        }
    });
    let told = told.await.expect("told");
    assert_eq!(told.len(), 1, "said once: {told:?}");
    let refused = customer
        .run(["push", arg(&source), "--json", "--patience=1"])
        .await;
    assert!(
        !refused.expect("started").status.success(),
        "nobody takes files"
    );
    site.stop().await.expect("they stop when asked");
}
