//! Pause, limits and priorities outlive the box that was told of them, and the delivery outlives all of
//! it.

use std::time::{Duration, Instant};

use longhaul_sim::files::{self, FolderPlan};
use longhaul_sim::lan_box::arg;
use longhaul_sim::site::{BUCKET, Plan, Site};
use longhaul_sim::wait::until;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(1);
const MIB: u64 = 1 << 20;
/// What the box may send in a second.
const RATE: u64 = 2 * MIB;
/// Bytes on a full line that TLS, headers and what lay in buffers add to what the limit lets out.
const BESIDE: u64 = 4 * MIB;

fn week(limit: Option<u64>) -> Value {
    json!({ "limits": vec![vec![limit; 24]; 7] })
}

/// What the box, asked at its own console, says of its uplink is `wanted`.
async fn says(site: &Site, what: &str, wanted: &Value) {
    let said = until(what, PATIENCE, || async {
        let status = site.status().await.map_err(|e| e.to_string())?;
        let uplink = &status["lan"]["uplink"];
        let fits = wanted.as_object().expect("an object");
        if fits.iter().all(|(name, value)| uplink[name] == *value) {
            Ok(())
        } else {
            Err(uplink.to_string())
        }
    });
    said.await.expect("the box says so");
}

/// Sets the policy; the box is killed the moment it has said that it applies, and the cloud as well:
/// who comes back knows it from the disk alone. Then the cloud comes back.
async fn set_and_strike(site: &mut Site, policy: &Value, then: &Value) {
    let path = format!("/v1/boxes/{}/uplink", site.box_id);
    site.operator.put(&path, policy).await.expect("taken");
    let applied = until("the box to apply it", PATIENCE, || async {
        let view = site.operator.get(&path).await.map_err(|e| e.to_string())?;
        if view["applied"] == true {
            Ok(())
        } else {
            Err(view.to_string())
        }
    });
    applied.await.expect("applied");
    site.device.kill().await.expect("killed");
    site.cloud.kill().await.expect("killed");
    site.start_box().expect("started again");
    says(site, "the setting after the power cut", then).await;
    site.start_cloud().await.expect("up again");
    site.online().await.expect("online again");
    says(site, "the setting with the cloud", then).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_limited_and_broken_delivery_keeps_its_settings_through_every_kill_and_arrives_once()
 {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = Plan {
        supervised: false,
        line: true,
        ..Plan::default()
    };
    let mut site = Site::stand(folder.path(), plan).await.expect("a site");
    let customer = site.customer();
    let source = site.stage.path("customer");
    let push = ["push", arg(&source), "--json", "--patience=60"];
    let plan = FolderPlan {
        small: 30,
        small_bytes: (0, 40_000),
        large_bytes: 70 * MIB,
        seed: 5,
    };
    let expected = files::make(&source, plan).expect("a folder");

    let paused = json!({ "paused": true });
    set_and_strike(&mut site, &paused, &json!({ "state": "paused" })).await;
    let output = customer.run(push).await.expect("started");
    assert!(
        output.status.success(),
        "files are taken as ever: {output:?}"
    );
    site.strike_box().await.expect("started again");
    says(&site, "the pause", &json!({ "state": "paused" })).await;
    let there = site.operator.objects(BUCKET, "").await.unwrap_or_default();
    assert!(there.is_empty(), "nothing is sent: {there:?}");

    // Paused and limited, with an order of its own: all of it at once, and then the pause ends.
    let limited =
        json!({ "paused": true, "week": week(Some(RATE)), "priorities": { BUCKET: "urgent" } });
    set_and_strike(&mut site, &limited, &json!({ "state": "paused" })).await;
    let line = site.line.as_ref().expect("a line");
    line.hold_after(6 * MIB);
    let resume = format!("/v1/boxes/{}/uplink/resume", site.box_id);
    site.operator.order(&resume).await.expect("resumed");
    // In the middle of a part, the line breaks and the power goes.
    let line = site.line.as_ref().expect("a line");
    tokio::time::timeout(PATIENCE, line.held())
        .await
        .expect("it sends");
    site.device.kill().await.expect("killed");
    let line = site.line.as_ref().expect("a line");
    line.cut().await;
    line.release();
    site.start_box().expect("started again");
    let sends = json!({ "state": "sending", "bytes_per_sec": RATE });
    says(&site, "the limit", &sends).await;
    let wanted = format!("/v1/boxes/{}/uplink", site.box_id);
    let view = site.operator.get(&wanted).await.expect("what is wanted");
    assert_eq!(view["wanted"]["priorities"][BUCKET], "urgent", "{view}");

    // The limit holds on the line itself: so much cannot have gone in less time.
    let line = site.line.as_ref().expect("a line");
    let (began, before) = (Instant::now(), line.sent());
    let gone = until("a quarter of the large file", PATIENCE, || async {
        match line.sent() - before {
            enough if enough >= 16 * MIB => Ok(enough),
            few => Err(few),
        }
    });
    let gone = gone.await.expect("it moves");
    let least = (gone - BESIDE) / RATE;
    assert!(
        began.elapsed() >= Duration::from_secs(least),
        "{gone} bytes in {:?}",
        began.elapsed()
    );

    // The line breaks again and again, and at last nothing limits it.
    line.cut().await;
    let free = json!({ "week": week(None) });
    set_and_strike(
        &mut site,
        &free,
        &json!({ "state": "sending", "bytes_per_sec": null }),
    )
    .await;
    site.line.as_ref().expect("a line").cut().await;
    let whole = [&push[..], &["--wait"]].concat();
    let output = customer.run(whole).await.expect("started");
    assert!(output.status.success(), "everything arrives: {output:?}");

    site.holds_exactly(&expected).await.expect("all unchanged");
    let delivered = once_each(&site).await;
    assert_eq!(delivered, expected.len());
    site.stop().await.expect("they stop when asked");
}

/// How many objects the cloud was told the arrival of; fails if it was told of one twice.
async fn once_each(site: &Site) -> usize {
    let path = format!("/v1/boxes/{}/transfers?limit=1000", site.box_id);
    let page = site.operator.get(&path).await.expect("transfers");
    let items = page["items"].as_array().expect("a list");
    let verified = items.iter().filter(|item| item["state"] == "verified");
    let mut keys: Vec<&str> = verified.filter_map(|item| item["key"].as_str()).collect();
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), count, "{page}");
    count
}
