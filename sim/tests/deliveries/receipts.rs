//! Receipts where the customer's network lets the box out and nobody else.

use std::time::Duration;

use longhaul_sim::files::{self, FolderPlan};
use longhaul_sim::lan_box::arg;
use longhaul_sim::site::{Plan, Site};
use longhaul_sim::wait::until;

const PATIENCE: Duration = Duration::from_mins(2);
/// Nobody listens there: what a laptop behind a firewall sees of the cloud.
const NOWHERE: &str = "--cloud=https://127.0.0.1:1";
/// More than one page of receipts by way of the box.
const FILES: usize = 230;

#[tokio::test(flavor = "multi_thread")]
async fn a_laptop_that_does_not_reach_the_cloud_gets_its_receipts_through_the_box() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = Plan {
        supervised: false,
        ..Plan::default()
    };
    let mut site = Site::stand(folder.path(), plan).await.expect("a site");
    let customer = site.customer();
    let source = site.stage.path("customer");
    let plan = FolderPlan {
        small: FILES,
        small_bytes: (1, 4_000),
        large_bytes: 0,
        seed: 31,
    };
    files::make(&source, plan).expect("a folder");
    let pushed = customer
        .run(["push", arg(&source), "--json", "--wait", "--patience=60"])
        .await
        .expect("started");
    assert!(pushed.status.success(), "{pushed:?}");

    let kept = site.stage.path("receipts");
    let receipt = ["receipt", "--output", arg(&kept), NOWHERE];
    let fetched = until("every receipt, countersigned", PATIENCE, || async {
        let said = customer
            .json(0, &receipt)
            .await
            .map_err(|e| e.to_string())?;
        if said["receipts"] != FILES {
            return Err(said.to_string());
        }
        let verify = ["verify", arg(&kept), "--delivered"];
        customer.json(0, &verify).await.map_err(|e| e.to_string())
    });
    fetched.await.expect("fetched through the box");
    let how = format!("--receipt={}", arg(&kept));
    let whole = customer.json(0, &["verify", arg(&source), &how]).await;
    assert_eq!(whole.expect("it holds")["failed"], 0);

    // The box has the receipts from nowhere else, and says so.
    site.cloud.kill().await.expect("killed");
    let output = customer.run(receipt).await.expect("started");
    assert!(!output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot ask the cloud"), "{said}");
    site.start_cloud().await.expect("up again");
    site.stop().await.expect("they stop when asked");
}
