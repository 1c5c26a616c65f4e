//! Which state of a machine is accepted: the factory's, until a release takes its place.

use std::path::PathBuf;
use std::time::Duration;

use longhaul_provisioning::tpm::Tpm;
use longhaul_sim::releases::{Contents, runs};
use longhaul_sim::site::{BUCKET, Plan, Site};
use longhaul_sim::wait::until;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(1);

/// Switches the machine off, in order but for the box, and on; then measures something else into PCR 7, if it shall.
async fn boot(site: &mut Site, measured: Option<[u8; 32]>) {
    let _ = site.device.kill().await;
    let at = site.tcti.clone();
    let off = tokio::task::spawn_blocking(move || Tpm::open(&at)?.shut_down());
    off.await.expect("ran").expect("shut down");
    site.tpm.kill().await.expect("switched off");
    (site.tpm, site.tcti) = site.stage.software_tpm().await.expect("switched on");
    if let Some(digest) = measured {
        let at = site.tcti.clone();
        let extended = tokio::task::spawn_blocking(move || Tpm::open(&at)?.extend(7, digest));
        extended.await.expect("ran").expect("extended");
    }
}

/// The state that the machine is in, in a file as a release brings it.
async fn state(site: &Site) -> (PathBuf, Value) {
    let arguments = ["pcrs", "--pcrs=7", "--tpm", &site.tcti];
    let said = site.stage.run("pcrs", "longhaul-factory", arguments).await;
    let said = said.expect("the state");
    let path = site.stage.path("states.json");
    std::fs::write(&path, &said).expect("written");
    let states: Value = serde_json::from_str(&said).expect("JSON");
    (path, states[0]["pcrs"]["7"].clone())
}

/// What the cloud knows of the box, once `is` holds of it.
async fn detail(site: &Site, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let found = until(what, PATIENCE, || async {
        let detail = site.operator.box_detail(&site.box_id).await;
        let detail = detail.map_err(|e| e.to_string())?;
        if is(&detail) {
            Ok(detail)
        } else {
            Err(detail.to_string())
        }
    });
    found.await.expect(what)
}

/// Waits until a new certificate would end later than one that was there `before`: they end at
/// whole seconds.
async fn a_second_after(site: &Site, before: &Value) {
    let time = |d: &Value| d["server_time"].as_i64().unwrap_or(0);
    detail(site, "another second", |d| time(d) >= time(before) + 1000).await;
}

fn held(detail: &Value) -> bool {
    detail["box"]["state"] == "quarantined" && detail["box"]["online"] == true
}

fn codes(detail: &Value) -> Vec<&str> {
    let rungs = detail["box"]["rungs"].as_array().expect("rungs").iter();
    rungs.filter_map(|rung| rung["code"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_is_accepted_with_the_release_that_brings_it_and_the_one_before_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = Plan {
        releases: true,
        ..Plan::default()
    };
    let mut site = Site::stand(folder.path(), plan).await.expect("a site");
    let before = detail(&site, "a certificate", |d| {
        d["box"]["certificate_expires"].is_i64()
    })
    .await;
    let expires = |d: &Value| d["box"]["certificate_expires"].as_i64().unwrap_or(0);

    a_second_after(&site, &before).await;

    // Nobody has signed this state: the box may talk, and no more.
    boot(&mut site, Some([0x66; 32])).await;
    let (states, measured) = state(&site).await;
    site.start_box().expect("started");
    let shown = detail(&site, "the quarantine", |d| {
        held(d) && expires(d) > expires(&before) && d["reported"]["tickets"] == json!([])
    })
    .await;
    let why = &shown["quarantine"];
    assert_eq!(why["held_by"], "enrolment");
    assert_eq!(why["differs"].as_array().map(Vec::len), Some(1), "{why}");
    assert_eq!(why["differs"][0]["pcr"], 7);
    assert_eq!(why["differs"][0]["found"], measured);
    assert_ne!(why["differs"][0]["expected"], measured);
    assert!(why["reason"].to_string().contains("Secure Boot"), "{why}");
    assert!(codes(&shown).contains(&"LH-905"), "{shown}");
    let refused = site.operator.ticket(&site.box_id, BUCKET).await;
    assert!(refused.is_err(), "no tickets: {refused:?}");

    // It stays so whoever dies, and the box comes back by the certificate that it got.
    site.cloud.kill().await.expect("killed");
    site.start_cloud().await.expect("started");
    site.strike_box().await.expect("struck");
    let start = site.operator.box_detail(&site.box_id).await.expect("read");
    let start = start["server_time"].as_i64().expect("a time");
    detail(&site, "the quarantine again", |d| {
        held(d) && d["reported_at"].as_i64() > Some(start)
    })
    .await;

    // As the factory saw it, the box proves itself, and an operator lets it in.
    boot(&mut site, None).await;
    std::fs::remove_file(site.stage.path("box/ldevid.json")).expect("removed");
    site.start_box().expect("started");
    let shown = detail(&site, "an accepted quote", |d| {
        held(d) && d["quarantine"]["accepted"].is_i64() && codes(d).contains(&"LH-906")
    })
    .await;
    assert!(!codes(&shown).contains(&"LH-905"), "its vault is open");
    let release = format!("/v1/boxes/{}/release", site.box_id);
    site.operator.order(&release).await.expect("released");
    detail(&site, "its tickets back", |d| {
        let tickets = d["reported"]["tickets"].as_array().map(Vec::len);
        d["quarantine"].is_null() && tickets == Some(1) && codes(d).is_empty()
    })
    .await;

    // The fleet signs the state with a release, and assigns that.
    let stage = site.stage.clone();
    stage
        .sign_release_with("2.0.0", Contents::Good, Some(&states))
        .await
        .expect("signed");
    let body = json!({ "version": "2.0.0", "boxes": [site.box_id] });
    let started = site.operator.post("/v1/rollouts", &body).await;
    started.expect("assigned");
    runs(&site.operator, &site.box_id, "2.0.0")
        .await
        .expect("it runs");
    detail(&site, "the release committed", |d| {
        d["update"]["state"] == "committed"
    })
    .await;
    let before = site.operator.box_detail(&site.box_id).await.expect("read");
    a_second_after(&site, &before).await;
    boot(&mut site, Some([0x66; 32])).await;
    site.start_box().expect("started");
    let shown = detail(&site, "a certificate in the release's state", |d| {
        d["box"]["online"] == true && expires(d) > expires(&before)
    })
    .await;
    assert_eq!(shown["box"]["state"], "active", "{shown}");

    // What the factory saw is an old state now.
    boot(&mut site, None).await;
    std::fs::remove_file(site.stage.path("box/ldevid.json")).expect("removed");
    site.start_box().expect("started");
    let shown = detail(&site, "the old state refused", held).await;
    assert_eq!(shown["quarantine"]["differs"][0]["expected"], measured);
    site.stop().await.expect("they stop when asked");
}
