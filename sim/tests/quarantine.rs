//! A box whose machine is in another state: quarantined by its own evidence, closed, and still heard.

use std::time::Duration;

use longhaul_provisioning::tpm::Tpm;
use longhaul_sim::files::{self, FolderPlan};
use longhaul_sim::site::{BUCKET, Plan, Site};
use longhaul_sim::system::Stage;
use longhaul_sim::wait::until;

const PATIENCE: Duration = Duration::from_mins(1);

async fn push(stage: &Stage, name: &str, arguments: &[&str]) -> Result<String, String> {
    let mut all = vec![
        "push".to_owned(),
        format!("--ticket={}", stage.path("ticket.json").display()),
        "--json".to_owned(),
        stage.path("customer").display().to_string(),
    ];
    all.extend(arguments.iter().map(ToString::to_string));
    let ran = stage.run(name, "longhaul", all).await;
    ran.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_state_of_the_machine_closes_the_box_until_it_is_back_and_released() {
    let folder = tempfile::tempdir().expect("a folder");
    let site = Site::stand(folder.path(), Plan::default()).await;
    let mut site = site.expect("a site");
    let (stage, operator) = (site.stage.clone(), site.operator.clone());
    let id = site.box_id.clone();
    let plan = FolderPlan {
        small: 5,
        small_bytes: (100, 4_000),
        large_bytes: 1 << 20,
        seed: 1,
    };
    let made = files::make(&stage.path("customer"), plan).expect("a folder");
    push(&stage, "push-before", &["--wait", "--patience=60"])
        .await
        .expect("delivered");

    // Other firmware is measured: the box runs something else from here on.
    site.device.end().await.expect("stopped");
    let at = site.tcti.clone();
    let extended = tokio::task::spawn_blocking(move || Tpm::open(&at)?.extend(7, [0x66; 32]));
    extended.await.expect("ran").expect("extended");
    let before = operator.box_detail(&id).await.expect("the box");
    let before = before["server_time"].as_i64().expect("a time");
    site.start_box().expect("started");

    let detail = until("the quarantine, and reports from it", PATIENCE, || {
        let alive = site.device.check().map_err(|e| e.to_string());
        async {
            alive?;
            let detail = operator.box_detail(&id).await.map_err(|e| e.to_string())?;
            let fresh = |field: &str| detail[field].as_i64() > Some(before);
            let held = detail["box"]["state"] == "quarantined" && detail["box"]["online"] == true;
            if held && fresh("telemetry_at") && fresh("reported_at") {
                Ok(detail)
            } else {
                Err(detail.to_string())
            }
        }
    })
    .await
    .expect("quarantined, connected and reporting");
    let problems = detail["reported"]["problems"].to_string();
    assert!(problems.contains("the vault stays closed"), "{problems}");
    assert!(problems.contains("PCR 7"), "{problems}");
    let folder_of_box = stage.path("box").display().to_string();
    let status = stage
        .run(
            "status",
            "longhaul-box",
            ["--state", &folder_of_box, "status", "--json"],
        )
        .await
        .expect("the box answers at its console");
    assert!(status.contains("LH-905"), "{status}");
    let timeline = format!("/v1/boxes/{id}/timeline?limit=100");
    until("the fact of it in the timeline", PATIENCE, || async {
        let page = operator.get(&timeline).await.map_err(|e| e.to_string())?;
        let text = page.to_string();
        let told = text.contains("LH-905: the vault stays closed");
        if told { Ok(()) } else { Err(text) }
    })
    .await
    .expect("the journal is heard");

    let refused = operator.ticket(&id, BUCKET).await.expect_err("no ticket");
    assert!(refused.to_string().contains("quarantined"), "{refused}");
    let refused = push(&stage, "push-closed", &["--patience=1"]).await;
    assert!(
        refused.is_err(),
        "nobody listens for customers: {refused:?}"
    );

    // The machine is as it was after a restart; an operator has looked, and lets it back in.
    site.device.end().await.expect("stopped");
    site.tpm.kill().await.expect("switched off");
    (site.tpm, site.tcti) = stage.software_tpm().await.expect("switched on");
    operator
        .order(&format!("/v1/boxes/{id}/release"))
        .await
        .expect("released");
    site.start_box().expect("started");
    site.online().await.expect("online");
    let more = files::make(&stage.path("customer/more"), FolderPlan { seed: 2, ..plan });
    push(&stage, "push-after", &["--wait", "--patience=60"])
        .await
        .expect("what was closed is open: old files are known and new ones delivered");

    let expected = made.into_iter().chain(
        more.expect("a folder")
            .into_iter()
            .map(|(name, digest)| (format!("more/{name}"), digest)),
    );
    for (name, digest) in expected {
        let there = operator.object_digest(BUCKET, &name).await.expect("there");
        assert_eq!(there, digest, "{name}");
    }
    site.stop().await.expect("they stop when asked");
}
