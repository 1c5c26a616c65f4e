//! A box that dies in the middle of a pack: the push that was sending it goes on by itself once the box
//! is back. And what a customer with nothing but the ticket can prove afterwards.

use std::path::Path;
use std::time::Duration;

use longhaul_sim::files::{self, FolderPlan};
use longhaul_sim::lan_box::{Customer, arg};
use longhaul_sim::relay::Relay;
use longhaul_sim::site::{Plan, Site};
use longhaul_sim::system::Stage;
use longhaul_sim::wait::until;
use serde_json::Value;

const VAULT_BYTES: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
/// The shortest file, in bytes.
const SMALLEST: usize = 4_000;
/// Where the pack is interrupted, in bytes, and the files that are surely answered then.
const HELD_AFTER: u64 = 8 * MIB;
const ANSWERED: usize = 500;
/// The files below this folder are the ones whose receipts are looked at.
const PART: &str = "line-001/";
const PART_FILES: u64 = 200;

#[tokio::test(flavor = "multi_thread")]
async fn a_push_outlives_the_boxs_death_in_the_middle_of_a_pack_and_its_ticket_proves_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = Plan {
        vault_bytes: VAULT_BYTES,
        supervised: false,
        ..Plan::default()
    };
    let mut site = Site::stand(folder.path(), plan).await.expect("a site");
    let plan = FolderPlan {
        small: 2_000,
        small_bytes: (SMALLEST, 12_000),
        large_bytes: 0,
        seed: 7,
    };
    let source = site.stage.path("customer");
    let made = files::make(&source, plan).expect("a folder");
    let relay = Relay::to(([127, 0, 0, 1], site.data_port).into())
        .await
        .expect("a line");
    let customer = Customer {
        url: relay.url(),
        ..site.customer()
    };
    // The ticket takes some seconds to reach the box.
    let known = until("the box to know the ticket", Duration::from_mins(1), || {
        customer.json(0, &["ls"])
    });
    known.await.expect("known");

    relay.hold_after(HELD_AFTER);
    let mut push = customer.command(["push", arg(&source), "--json", "--patience=120"]);
    let mut push = push.spawn().expect("started");
    relay.held().await;
    // What arrived before is answered before anything else happens.
    let answered = until("answers", Duration::from_mins(1), || async {
        match customer.remembered("\"done\"") {
            enough if enough >= ANSWERED => Ok(()),
            few => Err(few),
        }
    });
    answered
        .await
        .expect("the box answers while the pack is open");
    site.device.kill().await.expect("killed");
    assert!(
        push.try_wait().expect("asked").is_none(),
        "the push goes on without the box"
    );
    site.start_box().expect("started again");
    relay.release();
    let output = push.wait_with_output().await.expect("ended");

    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["files"].as_array().expect("files").len(), made.len());
    assert_eq!(report["failed"], serde_json::json!([]));
    let bytes = report["bytes"].as_u64().expect("a number");
    let again = relay.sent() - HELD_AFTER;
    let answered = (ANSWERED * SMALLEST) as u64;
    assert!(
        // Headers, TLS and questions come on top.
        again < bytes - answered + MIB,
        "what was answered is not sent again: {again} of {bytes}"
    );
    let back = site.stage.path("back");
    let got = customer.json(0, &["get", PART, arg(&back)]).await;
    got.expect("fetched and compared");

    prove(&site.stage, &customer, &source).await;
    site.stop().await.expect("they stop when asked");
}

/// Fetches receipts with the ticket alone, and compares the folder that was sent.
async fn prove(stage: &Stage, customer: &Customer, source: &Path) {
    // Some seconds after delivery all are sealed by the box and signed by the cloud.
    let receipts = stage.path("receipts");
    let fetched = until("every receipt", Duration::from_mins(2), || async {
        let output = ["receipt", PART, "--output", arg(&receipts)];
        customer.json(0, &output).await.map_err(|e| e.to_string())?;
        let verify = ["verify", arg(&receipts), "--delivered"];
        let done = customer.json(0, &verify).await.map_err(|e| e.to_string())?;
        match done["in_cloud"].as_u64() {
            Some(PART_FILES) => Ok(()),
            _ => Err(done.to_string()),
        }
    });
    fetched.await.expect("countersigned");
    let sent = source.join(PART);
    let (how, prefix) = (format!("--receipt={}", arg(&receipts)), "--prefix=line-001");
    let whole = ["verify", arg(&sent), &how, prefix, "--delivered"];
    let whole = customer.json(0, &whole).await.expect("it holds");
    assert_eq!(whole["failed"], 0);
    let changed = sent.join("shot-000200.seg");
    let mut content = std::fs::read(&changed).expect("there");
    content[100] ^= 1;
    std::fs::write(&changed, content).expect("written");
    let named = ["verify", arg(&sent), &how, prefix];
    let named = customer.json(3, &named).await.expect("it is noticed");
    let files = named["files"].as_array().expect("files").iter();
    let wrong: Vec<&Value> = files.filter(|f| f["verdict"] == "changed").collect();
    assert_eq!(wrong.len(), 1, "{wrong:?}");
}
