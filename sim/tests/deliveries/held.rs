//! A bucket whose owner withdraws our access while a box delivers there: its objects wait, everybody is
//! told, and nothing else is touched.

use std::time::Duration;

use longhaul_sim::files::{self, FolderPlan};
use longhaul_sim::lan_box::{Customer, arg};
use longhaul_sim::others_store::OthersStore;
use longhaul_sim::site::{BUCKET, Plan, Site};
use longhaul_sim::wait::until;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(2);
const MIB: u64 = 1 << 20;
const OTHER: &str = "beside";

/// What the box says on the LAN of what keeps deliveries waiting.
async fn code(customer: &Customer) -> Result<Value, String> {
    let status = customer.json(0, &["status"]).await;
    let mut status = status.map_err(|e| e.to_string())?;
    Ok(status["uplink"]["code"].take())
}

async fn limit(site: &Site, rate: Option<u64>) {
    let path = format!("/v1/boxes/{}/uplink", site.box_id);
    let policy = json!({ "week": { "limits": vec![vec![rate; 24]; 7] } });
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

/// The customer and the operator hear the same code, each with what is theirs to do.
async fn both_hear(site: &Site, customer: &Customer) {
    let held = until("the code on the LAN", PATIENCE, || async {
        match code(customer).await? {
            Value::String(code) if code == "LH-951" => Ok(()),
            other => Err(other.to_string()),
        }
    });
    held.await.expect("the customer sees it");
    let doctor = customer.json(0, &["doctor"]).await.expect("it pushes");
    assert!(
        doctor.to_string().contains("looks after your bucket"),
        "{doctor}"
    );
    let path = format!("/v1/boxes/{}/uplink", site.box_id);
    let told = until("the code at the operator", PATIENCE, || async {
        let view = site.operator.get(&path).await.map_err(|e| e.to_string())?;
        if view["code"] == "LH-951" {
            Ok(())
        } else {
            Err(view.to_string())
        }
    });
    told.await.expect("the operator sees it");
}

/// Nothing is held any more, and the timeline has both ends of it, once each.
async fn told_once(site: &Site, customer: &Customer) {
    let free = until("the code to be gone", PATIENCE, || async {
        match code(customer).await? {
            Value::Null => Ok(()),
            other => Err(other.to_string()),
        }
    });
    free.await.expect("all is well");
    let notices = until("both ends in the timeline", PATIENCE, || async {
        let notices = site.operator.timeline(&site.box_id, "notice").await;
        let notices = notices.map_err(|e| e.to_string())?;
        let texts: Vec<String> = notices.iter().map(Value::to_string).collect();
        if texts.iter().any(|text| text.contains("go on")) {
            Ok(texts)
        } else {
            Err(format!("{texts:?}"))
        }
    });
    let notices = notices.await.expect("said");
    let codes = notices.iter().filter(|text| text.contains("LH-951"));
    assert_eq!(codes.count(), 1, "said once: {notices:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_shut_during_a_push_is_held_by_its_code_and_delivers_all_when_it_is_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = OthersStore::stand(&folder.path().join("others"))
        .await
        .expect("a store");
    let plan = Plan {
        supervised: false,
        ..Plan::default()
    };
    let site = Site::stand_with(folder.path(), plan, store.settings())
        .await
        .expect("a site");
    let (customer, mut beside) = (site.customer(), site.customer());
    let ticket = site.operator.ticket(&site.box_id, OTHER).await;
    beside.ticket = site.stage.path("beside.json");
    beside.state = site.stage.path("beside-state");
    std::fs::write(&beside.ticket, ticket.expect("a ticket")).expect("written");
    let (source, others) = (site.stage.path("customer"), site.stage.path("beside"));
    let plan = FolderPlan {
        small: 40,
        small_bytes: (1, 40_000),
        large_bytes: 40 * MIB,
        seed: 21,
    };
    let expected = files::make(&source, plan).expect("a folder");
    let plan = FolderPlan {
        large_bytes: 0,
        seed: 22,
        ..plan
    };
    let expected_beside = files::make(&others, plan).expect("a folder");

    // So slow that the large file cannot have left when the door shuts.
    limit(&site, Some(MIB)).await;
    let push = ["push", arg(&source), "--json", "--wait", "--patience=60"];
    let pushing = customer.command(push).spawn().expect("started");
    let some = until("the first objects to arrive", PATIENCE, || async {
        let there = site.operator.objects(BUCKET, "").await;
        match there.map_err(|e| e.to_string())?.len() {
            0 => Err("none"),
            few => Ok(few),
        }
        .map_err(str::to_owned)
    });
    let arrived = some.await.expect("the delivery is under way");
    store.shut(BUCKET);
    limit(&site, None).await;

    both_hear(&site, &customer).await;

    // The other bucket goes on meanwhile.
    let push_beside = ["push", arg(&others), "--json", "--wait", "--patience=60"];
    let output = beside.run(push_beside).await.expect("started");
    assert!(output.status.success(), "{output:?}");
    for (key, digest) in &expected_beside {
        let there = site.operator.object_digest(OTHER, key).await;
        assert_eq!(there.expect("there"), *digest, "{key}");
    }
    let failed = site
        .operator
        .timeline(&site.box_id, "delivery_failed")
        .await;
    assert_eq!(failed.expect("a timeline"), Vec::<Value>::new());
    assert!(arrived < expected.len(), "it was shut in the middle");

    store.open(BUCKET);
    let path = format!("/v1/buckets/{BUCKET}");
    let probe = site.operator.order(&format!("{path}/probe")).await;
    probe.expect("tried out");
    let found = site.operator.get(&format!("{path}/destination")).await;
    let found = found.expect("known");
    assert_eq!(found["usable"], true, "{found}");
    let output = pushing.wait_with_output().await.expect("it ends");
    assert!(output.status.success(), "everything arrives: {output:?}");
    site.holds_exactly(&expected).await.expect("all unchanged");
    told_once(&site, &customer).await;
    site.stop().await.expect("they stop when asked");
}
