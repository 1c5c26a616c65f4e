//! Every route that creates answers a repetition as it answered the first request.

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::inventory::InventoryRecord;
use longhaul_protocol::value::{Blob, Digest32};
use longhaul_provisioning::ca::Pki;
use longhaul_provisioning::jws::{Kind, Signer};
use serde_json::{Value, json};

use super::conventions::with;
use super::site::{Auth, Site};
use super::walk::operations;
use crate::store::Db;
use crate::store::boxes::{BoxState, box_set_state};
use crate::store::operators::Role;
use crate::store::testing::{add_box, on_both};

/// A box's record, signed by the factory.
fn record(site: &Site, number: u8) -> Value {
    let now = site.people.clock.now();
    let ek = Digest32([number; 32]);
    let record = InventoryRecord {
        v: longhaul_protocol::envelope::VERSION,
        box_id: BoxId::from_ek_sha256(&ek.0),
        ek_sha256: ek,
        ek_certificate: Blob(vec![1]),
        iak_name: Blob(vec![2]),
        iak_public: Blob(vec![3]),
        idevid_certificate: Blob(vec![4]),
        expected_pcrs: [(7, Digest32([0; 32]))].into(),
        claim_code_sha256: Digest32([0; 32]),
        hardware: "test".to_owned(),
        order: None,
        made_at: now,
    };
    let pki = Pki::open(&site.folder().join("pki")).expect("authorities");
    let factory = pki.issue_record_signer("test", now).expect("a signer");
    let payload = serde_json::to_vec(&record).expect("JSON");
    let signed = Signer::new(&factory)
        .expect("a signer")
        .sign(Kind::Inventory, &payload);
    json!({ "jws": signed.expect("signed") })
}

/// A release that rollouts can name.
fn release(site: &Site, version: &str) {
    let folder = site.folder().join("tuf/metadata");
    std::fs::create_dir_all(&folder).expect("a folder");
    let to = |name: &str| json!({ "meta": { name: { "version": 1 } } });
    let target = json!({
        "length": 1000, "hashes": { "sha256": Digest32([7; 32]).to_string() },
        "custom": { "version": version },
    });
    for (name, signed) in [
        ("timestamp.json", to("snapshot.json")),
        ("1.snapshot.json", to("targets.json")),
        (
            "1.targets.json",
            json!({ "targets": { "agent.bin": target } }),
        ),
    ] {
        let text = json!({ "signatures": [], "signed": signed }).to_string();
        std::fs::write(folder.join(name), text).expect("written");
    }
}

async fn twice(site: &Site, path: &str, auth: &Auth, body: Value) -> Value {
    let key = [("idempotency-key", path)];
    let first = with(site, "POST", path, auth, &key, Some(body.clone())).await;
    let again = with(site, "POST", path, auth, &key, Some(body)).await;
    assert_eq!(first.status, 201, "{path}: {first:?}");
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(again.header("idempotency-replayed"), "true", "{path}");
    first.json()
}

on_both! {
    async fn no_route_that_creates_forgets_its_answer(db: Db) {
        let site = Site::on(&db).await;
        let id = add_box(&db, 1).await;
        let mut tx = db.write().await.expect("begins");
        box_set_state(&mut tx, &id, BoxState::Active, 1).await.expect("sets");
        tx.commit().await.expect("commits");
        release(&site, "2.0.0");
        let admin = site.token(Role::Admin).await;
        let password = "correct horse battery";
        let mut all = vec![
            // The account that answers for what the token proposes.
            ("/v1/operators", json!({ "name": "test", "role": "admin", "password": password })),
            ("/v1/tenants", json!({ "id": "t", "name": "T" })),
            ("/v1/tokens", json!({ "name": "t", "role": "viewer" })),
            ("/v1/orders", json!({ "customer": "C", "bucket": "abc" })),
            ("/v1/alert-channels", json!({ "name": "c", "kind": "email", "target": "a@example.com", "severity": "warning" })),
            ("/v1/boxes/{box_id}/tickets", json!({ "bucket": "abc" })),
            ("/v1/boxes/{box_id}/commands", json!({ "kind": "report_now" })),
            ("/v1/boxes/{box_id}/proposals", json!({ "kind": "erase_bucket", "bucket": "abc", "reason": "R" })),
            ("/v1/rollouts", json!({ "version": "2.0.0", "boxes": [id.as_str()] })),
            ("/v1/inventory", record(&site, 2)),
            ("/v1/bulk-previews", json!({ "filter": "", "command": { "kind": "report_now" } })),
            ("/v1/bulk-commands", Value::Null),
        ];
        let mut preview = Value::Null;
        for (template, body) in &mut all {
            let path = template.replace("{box_id}", id.as_str());
            if *template == "/v1/bulk-commands" {
                *body = json!({ "preview": preview });
            }
            let made = twice(&site, &path, &admin, body.take()).await;
            if *template == "/v1/bulk-previews" {
                preview = made["preview"].clone();
            }
        }
        let mut tried: Vec<_> = all.into_iter().map(|(template, _)| template.to_owned()).collect();
        let mut takes: Vec<_> = operations()
            .into_iter()
            .filter(|operation| {
                let parameters = operation.described["parameters"].as_array();
                parameters.is_some_and(|all| all.iter().any(|p| p["name"] == "Idempotency-Key"))
            })
            .map(|operation| operation.template)
            .collect();
        tried.sort();
        takes.sort();
        assert_eq!(tried, takes);
    }
}
