//! A box's journey with a cloud on PostgreSQL, which is killed on the way; at its end a receipt
//! proves offline what arrived.

#[path = "../../fleet-api/src/store/testing/postgres.rs"]
mod cluster;

use std::time::Duration;

use cluster::Cluster;
use longhaul_sim::files::{self, FolderPlan};
use longhaul_sim::operator::Operator;
use longhaul_sim::process::Process;
use longhaul_sim::system::{CloudReady, Programs, Stage, online};
use longhaul_sim::wait::until;
use serde_json::{Value, json};

const BUCKET: &str = "survey";
const LIMIT: Duration = Duration::from_mins(1);

/// The cloud, as soon as its database answers.
async fn cloud(stage: &Stage, ports: Option<[u16; 4]>) -> (Process, CloudReady) {
    let started = until("a cloud on PostgreSQL", LIMIT, || async {
        stage.cloud(ports).await.map_err(|e| e.to_string())
    });
    started.await.expect("up")
}

async fn telemetry(operator: &Operator, id: &str) -> usize {
    let path = format!("/v1/boxes/{id}/telemetry");
    let series = until("telemetry", LIMIT, || async {
        let series = operator.get(&path).await.map_err(|e| e.to_string())?;
        let count = series["items"].as_array().map_or(0, Vec::len);
        if count > 0 {
            Ok(count)
        } else {
            Err(series.to_string())
        }
    });
    series.await.expect("arrives")
}

/// A repository as far as the cloud reads it: boxes verify its signatures, and this one gets none.
fn offer_release(stage: &Stage) {
    let dir = stage.path("cloud/tuf/metadata");
    std::fs::create_dir_all(&dir).expect("made");
    let pointer = |name: &str| json!({ "meta": { name: { "version": 1 } } });
    let target = json!({
        "length": 1000, "hashes": { "sha256": "0f".repeat(32) }, "custom": { "version": "2.0.0" },
    });
    for (name, signed) in [
        ("timestamp.json", pointer("snapshot.json")),
        ("1.snapshot.json", pointer("targets.json")),
        (
            "1.targets.json",
            json!({ "targets": { "agent-2": target } }),
        ),
    ] {
        let text = json!({ "signatures": [], "signed": signed }).to_string();
        std::fs::write(dir.join(name), text).expect("written");
    }
}

async fn receipts(stage: &Stage, operator: &Operator, ready: &CloudReady, expected: usize) {
    let token = operator
        .post(
            "/v1/tokens",
            &json!({ "name": "receipts", "role": "viewer" }),
        )
        .await
        .expect("a token");
    let token = token["secret"].as_str().expect("its secret").to_owned();
    let sealed = until("every receipt", LIMIT, || async {
        let path = format!("/v1/receipts?bucket={BUCKET}&limit=1000");
        let page = operator.get(&path).await.map_err(|e| e.to_string())?;
        let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
        let signed = items.iter().filter(|i| {
            let receipt: Value =
                serde_json::from_str(i.as_str().unwrap_or_default()).unwrap_or_default();
            receipt["delivery"].is_string()
        });
        if signed.count() == expected {
            Ok(())
        } else {
            Err(page.to_string())
        }
    });
    sealed.await.expect("sealed and countersigned");
    let file = stage.path("receipts.txt");
    let (output, root) = (file.display(), ready.root_pem.display());
    let arguments = [
        "receipt".to_owned(),
        format!("--bucket={BUCKET}"),
        format!("--output={output}"),
        format!("--cloud={}", ready.people_url),
        format!("--token={token}"),
        format!("--root={root}"),
    ];
    stage
        .run("receipt", "longhaul", arguments)
        .await
        .expect("fetched");
    let verify = async |name: &str| {
        let arguments = [
            "verify".to_owned(),
            stage.path("customer").display().to_string(),
            format!("--receipt={output}"),
            format!("--root={root}"),
            "--delivered".to_owned(),
        ];
        stage
            .run(name, "longhaul", arguments)
            .await
            .map_err(|e| e.to_string())
    };
    verify("verify")
        .await
        .expect("every file is what was taken");

    let changed = stage.path("customer/line-000/shot-000001.seg");
    std::fs::write(&changed, b"altered").expect("written");
    std::fs::remove_file(stage.path("customer/line-000/shot-000002.seg")).expect("removed");
    let named = verify("verify-altered").await.expect_err("it is noticed");
    assert!(
        named.contains("changed") && named.contains("shot-000001.seg"),
        "{named}"
    );
    assert!(
        named.contains("missing") && named.contains("shot-000002.seg"),
        "{named}"
    );
    let forged = std::fs::read_to_string(&file).expect("read");
    let forged = forged.replacen("\"bytes\":", "\"bytes\":1", 1);
    std::fs::write(&file, forged).expect("written");
    let named = verify("verify-forged").await.expect_err("it is noticed");
    assert!(named.contains("line 1"), "{named}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journey_holds_on_postgresql_through_a_kill_of_the_cloud() {
    let database = Cluster::start();
    let folder = tempfile::tempdir().expect("a folder");
    let mut stage = Stage::new(folder.path(), Programs::find().expect("built")).expect("a stage");
    stage.database = Some(database.url());
    let (mut running, ready) = cloud(&stage, None).await;
    let (name, password) = stage.first_admin().expect("an administrator");
    let operator = Operator::log_in(&ready.people_url, &ready.root_pem, &name, &password)
        .await
        .expect("logged in");
    let (_tpm, tcti) = stage.software_tpm().await.expect("a TPM");
    let id = stage.make_box(&ready, &tcti, None).await.expect("a box");
    stage.import(&operator, &id).await.expect("imported");
    let mut hardware = stage.start_box(&tcti, 1 << 30, 0).expect("started");
    online(&operator, &id, &mut hardware)
        .await
        .expect("enrolled and online");
    let report = json!({ "kind": "report_now" });
    operator.command(&id, &report).await.expect("a result");
    assert!(telemetry(&operator, &id).await > 0);
    let ticket = operator.ticket(&id, BUCKET).await.expect("a ticket");
    std::fs::write(stage.path("ticket.json"), ticket).expect("written");
    let plan = FolderPlan {
        small: 40,
        small_bytes: (100, 40_000),
        large_bytes: 20 << 20,
        seed: 7,
    };
    let expected = files::make(&stage.path("customer"), plan).expect("a folder");
    let push = [
        "push".to_owned(),
        format!("--ticket={}", stage.path("ticket.json").display()),
        "--wait".to_owned(),
        stage.path("customer").display().to_string(),
    ];

    let strike = async {
        let begun = until("the first object in the cloud", LIMIT, || async {
            match operator.objects(BUCKET, "").await {
                Ok(objects) if !objects.is_empty() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        begun.await.expect("delivery begins");
        running.kill().await.expect("killed");
        running = cloud(&stage, Some(ready.ports())).await.0;
    };
    let (pushed, ()) = tokio::join!(stage.run("push", "longhaul", push), strike);

    pushed.expect("delivered in spite of it");
    for (name, digest) in &expected {
        let there = operator.object_digest(BUCKET, name).await.expect("there");
        assert_eq!(there, *digest, "{name}");
    }
    online(&operator, &id, &mut hardware)
        .await
        .expect("online again");
    let retry = json!({ "kind": "retry" });
    let done = operator.command(&id, &retry).await.expect("a result");
    assert_eq!(done["result"]["objects"], 0, "{done}");
    offer_release(&stage);
    let rollout = json!({ "version": "2.0.0", "boxes": [id] });
    let rollout = operator
        .post("/v1/rollouts", &rollout)
        .await
        .expect("created");
    assert_eq!(rollout["boxes"][0]["box_id"], id.as_str(), "{rollout}");
    let audit = operator.get("/v1/audit").await.expect("an audit");
    assert!(
        audit["items"]
            .as_array()
            .is_some_and(|items| items.len() > 5),
        "{audit}"
    );
    receipts(&stage, &operator, &ready, expected.len()).await;
    hardware.stop().await.expect("the box stops when asked");
    running.stop().await.expect("the cloud stops when asked");
}
