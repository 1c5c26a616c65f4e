//! Two operators erase a bucket on a box that is in the middle of delivering it.

use std::time::Duration;

use longhaul_sim::files::{self, FolderPlan};
use longhaul_sim::operator::Operator;
use longhaul_sim::system::{Programs, Stage, online};
use longhaul_sim::wait::until;
use serde_json::{Value, json};

const GOING: &str = "survey";
const STAYING: &str = "harbour";
const PATIENCE: Duration = Duration::from_mins(1);
const PASSWORD: &str = "a long enough password";

/// `longhaul COMMAND --ticket=BUCKET.json --json ..`, what it printed last as JSON.
async fn customer(stage: &Stage, command: &str, bucket: &str, more: &[String]) -> Value {
    let mut all = vec![
        command.to_owned(),
        format!(
            "--ticket={}",
            stage.path(&format!("{bucket}.json")).display()
        ),
        "--json".to_owned(),
    ];
    all.extend_from_slice(more);
    let said = stage.run(command, "longhaul", all).await.expect(command);
    let last = said
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str(line).ok());
    last.or_else(|| serde_json::from_str(&said).ok())
        .expect("JSON")
}

async fn keys(stage: &Stage, bucket: &str) -> Vec<String> {
    let listed = customer(stage, "ls", bucket, &[]).await;
    let objects = listed["objects"].as_array().expect("objects");
    let key = |object: &Value| object["key"].as_str().expect("a key").to_owned();
    objects.iter().map(key).collect()
}

/// States of a bucket's transfers, as operators see them.
async fn states(operator: &Operator, id: &str, bucket: &str) -> Result<Vec<String>, String> {
    let path = format!("/v1/boxes/{id}/transfers?limit=1000");
    let page = operator.get(&path).await.map_err(|e| e.to_string())?;
    let items = page["items"].as_array().ok_or("no items")?;
    let of = items.iter().filter(|item| item["bucket"] == bucket);
    Ok(of
        .map(|item| item["state"].as_str().unwrap_or_default().to_owned())
        .collect())
}

/// One operator alone cannot; two can, and the cloud then shows no delivery that never ends.
async fn erase(stage: &Stage, (ada, bob): (&Operator, &Operator), id: &str, files: usize) {
    let erase = json!({ "kind": "erase_bucket", "bucket": GOING });
    let alone = ada.post(&format!("/v1/boxes/{id}/commands"), &erase).await;
    assert!(alone.is_err(), "one person is not enough: {alone:?}");
    let body = json!({ "kind": "erase_bucket", "bucket": GOING, "reason": "the survey is over" });
    let proposal = ada
        .post(&format!("/v1/boxes/{id}/proposals"), &body)
        .await
        .expect("proposed");
    let approve = format!(
        "/v1/proposals/{}/approve",
        proposal["id"].as_str().expect("an id")
    );
    ada.order(&approve)
        .await
        .expect_err("nobody approves their own");
    assert_eq!(
        keys(stage, GOING).await.len(),
        files,
        "nothing has happened yet"
    );
    bob.order(&approve).await.expect("approved");
    let approved = approve.trim_end_matches("/approve");
    let approved = ada.get(approved).await.expect("read");
    let command = format!(
        "/v1/commands/{}",
        approved["sent"].as_str().expect("a command")
    );

    let ended = until("the box's answer", PATIENCE, || async {
        let command = ada.get(&command).await.map_err(|e| e.to_string())?;
        if command["state"] == "done" {
            Ok(command)
        } else {
            Err(command.to_string())
        }
    });
    let ended = ended.await.expect("done");
    assert_eq!(ended["result"]["objects"], files);
    let names = (
        &ended["proposal"]["proposed_by"],
        &ended["proposal"]["approved_by"],
    );
    assert_eq!(names, (&json!("ada"), &json!("bob")));
    assert!(keys(stage, GOING).await.is_empty(), "gone from the box");
    assert_eq!(
        keys(stage, STAYING).await.len(),
        files,
        "others are untouched"
    );
    until("no delivery that never ends", PATIENCE, || async {
        let found = states(ada, id, GOING).await?;
        let over = |state: &String| matches!(state.as_str(), "aborted" | "verified");
        if found.iter().all(over) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await
    .expect("the cloud settles them");
    let timeline = ada
        .get(&format!("/v1/boxes/{id}/timeline?limit=1000"))
        .await
        .expect("read");
    let facts = timeline["items"].as_array().expect("items").iter();
    assert_eq!(
        facts.filter(|item| item["kind"] == "erased").count(),
        1,
        "one fact for a bucket"
    );
}

/// The bucket takes new files, and they are delivered.
async fn deliver(stage: &Stage, ada: &Operator, id: &str, plan: FolderPlan) {
    // The ticket still lets the customer in: what comes now is new, and is delivered.
    let free = json!({ "paused": false, "priorities": {} });
    ada.put(&format!("/v1/boxes/{id}/uplink"), &free)
        .await
        .expect("free");
    let again =
        files::make(&stage.path("again"), FolderPlan { seed: 6, ..plan }).expect("a folder");
    let more = [
        stage.path("again").display().to_string(),
        "--wait".to_owned(),
        "--patience=60".to_owned(),
    ];
    customer(stage, "push", GOING, &more).await;
    for (name, digest) in again {
        let there = ada.object_digest(GOING, &name).await.expect("there");
        assert_eq!(there, digest, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_operators_erase_is_gone_from_the_box_and_open_nowhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let stage = Stage::new(folder.path(), Programs::find().expect("built")).expect("a stage");
    let (cloud, ready) = stage.cloud(None).await.expect("a cloud");
    let (name, password) = stage.first_admin().expect("an administrator");
    let log_in = async |name: &str, password: &str| {
        Operator::log_in(&ready.people_url, &ready.root_pem, name, password).await
    };
    let admin = log_in(&name, &password).await.expect("logged in");
    for name in ["ada", "bob"] {
        let body = json!({ "name": name, "role": "operator", "password": PASSWORD });
        admin.post("/v1/operators", &body).await.expect("made");
    }
    let ada = log_in("ada", PASSWORD).await.expect("logged in");
    let bob = log_in("bob", PASSWORD).await.expect("logged in");
    let (_tpm, tcti) = stage.software_tpm().await.expect("a TPM");
    let id = stage.make_box(&ready, &tcti, None).await.expect("a box");
    stage.import(&ada, &id).await.expect("imported");
    let mut running = stage.start_box(&tcti, 512 << 20, 0).expect("started");
    online(&ada, &id, &mut running).await.expect("online");
    for bucket in [GOING, STAYING] {
        let ticket = ada.ticket(&id, bucket).await.expect("a ticket");
        std::fs::write(stage.path(&format!("{bucket}.json")), ticket).expect("written");
    }
    let plan = FolderPlan {
        small: 3,
        small_bytes: (100, 4_000),
        large_bytes: 6 << 20,
        seed: 5,
    };
    let made = files::make(&stage.path("customer"), plan).expect("a folder");
    let source = stage.path("customer").display().to_string();
    // So slow that the large file is on its way for minutes.
    let slow = json!({ "paused": false, "priorities": {},
        "week": { "utc_offset_minutes": 0, "limits": vec![vec![16_384; 24]; 7] } });
    ada.put(&format!("/v1/boxes/{id}/uplink"), &slow)
        .await
        .expect("limited");
    for bucket in [GOING, STAYING] {
        customer(&stage, "push", bucket, std::slice::from_ref(&source)).await;
        assert_eq!(keys(&stage, bucket).await.len(), made.len());
    }
    until("a delivery under way", PATIENCE, || async {
        let found = states(&ada, &id, GOING).await?;
        if found.iter().any(|s| s == "started") {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await
    .expect("it begins");

    let two = (&ada, &bob);
    erase(&stage, two, &id, made.len()).await;
    let audit = admin.get("/v1/audit?limit=1000").await.expect("read");
    let said = |action: &str| {
        audit["items"]
            .as_array()
            .expect("items")
            .iter()
            .any(|e| e["action"] == action)
    };
    assert!(
        said("proposal.make") && said("proposal.approve") && said("command.end"),
        "{audit}"
    );
    deliver(&stage, &ada, &id, plan).await;
    let whole = [source, "--wait".to_owned(), "--patience=60".to_owned()];
    customer(&stage, "push", STAYING, &whole).await;
    for (name, digest) in made {
        let there = ada.object_digest(STAYING, &name).await.expect("there");
        assert_eq!(there, digest, "{name}");
    }
    running.stop().await.expect("the box stops when asked");
    cloud.stop().await.expect("the cloud stops when asked");
}
