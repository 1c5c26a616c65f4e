//! What people see of the fleet, checked against the description.

use longhaul_protocol::journal::{Fact, JournalEntry};
use longhaul_protocol::presence::Birth;
use longhaul_protocol::telemetry::{Telemetry, VaultFill};
use longhaul_protocol::value::UnixMillis;
use serde_json::{Value, json};

use super::schema::check;
use super::site::{Answer, Auth, NOW, Site};
use super::walk::operations;
use crate::http::routes;
use crate::store::Db;
use crate::store::boxes::{BoxState, box_set_birth, box_set_state};
use crate::store::journal::journal_commit;
use crate::store::operators::Role;
use crate::store::presence::{PresenceKind, presence_insert};
use crate::store::telemetry::telemetry_insert;
use crate::store::testing::{add_box, on_both};
use crate::store::twins::{ReportedRow, reported_set};

/// Checks that an answer is what the description says of this operation.
fn check_answer(template: &str, method: &str, answer: &Answer) {
    let api = serde_json::to_value(routes::api().openapi()).expect("encodes");
    let all = operations();
    let operation = all
        .iter()
        .find(|o| o.template == template && o.method == method)
        .expect("is described");
    let responses = &operation.described["responses"];
    let described = match &responses[answer.status.as_str()] {
        Value::Null => &responses["default"],
        described => described,
    };
    let described = match described["$ref"].as_str() {
        Some(to) => api.pointer(&to[1..]).expect("a response"),
        None => described,
    };
    let content = described["content"].as_object();
    let Some(content) = content.filter(|c| !c.is_empty()) else {
        assert!(answer.body.is_empty(), "{method} {template}: {answer:?}");
        return;
    };
    let schema = &content[answer.header("content-type")]["schema"];
    check(&api, schema, &answer.json(), "").unwrap_or_else(|e| panic!("{method} {template}: {e}"));
}

async fn seed(db: &Db, n: u8) -> String {
    let id = add_box(db, n).await;
    let birth: Birth = serde_json::from_value(json!({
        "session": "s1", "boot": "b1", "epoch": "e1", "agent_version": "1.0.0",
        "capabilities": ["identify"], "desired_version": 0, "certificate_expires": NOW + 1000,
        "lan_urls": ["https://10.0.0.2:9443"],
        "rungs": [{ "rung": "address", "status": "failed", "code": "LH-201", "evidence": "eth0", "since": 5 }],
    })).expect("a birth");
    let mut tx = db.write().await.expect("begins");
    box_set_state(&mut tx, &id, BoxState::Active, NOW)
        .await
        .expect("sets");
    box_set_birth(&mut tx, &id, &birth, NOW)
        .await
        .expect("sets");
    presence_insert(&mut tx, &id, PresenceKind::Birth, "s1", "{}", NOW)
        .await
        .expect("inserts");
    let vault = Some(VaultFill {
        used_bytes: 7,
        ..VaultFill::default()
    });
    let sample = Telemetry {
        load_1m: 0.5,
        vault,
        ..Telemetry::default()
    };
    telemetry_insert(&mut tx, &id, NOW - 1000, &sample, NOW)
        .await
        .expect("inserts");
    let reported = json!({
        "desired_version": 0, "telemetry_interval_secs": 60, "agent_version": "1.0.0", "slots": { "active": "a" },
    });
    let row = ReportedRow {
        box_id: id.clone(),
        desired_version: 0,
        detail: reported.to_string(),
        updated: NOW,
    };
    reported_set(&mut tx, &row).await.expect("sets");
    let entries: Vec<_> = (1..=5)
        .map(|number| JournalEntry {
            number,
            at: UnixMillis(7),
            fact: Fact::Failure {
                part: "disk".into(),
                text: "slow".into(),
            },
        })
        .collect();
    let epoch = "e1".parse().expect("an id");
    journal_commit(&mut tx, &id, &epoch, &entries, NOW + 1)
        .await
        .expect("commits");
    tx.commit().await.expect("commits");
    id.to_string()
}

on_both! {
    async fn a_box_is_shown_as_it_was_last_known(db: Db) {
        let site = Site::on(&db).await;
        let viewer = site.token(Role::Viewer).await;
        let id = seed(&db, 1).await;
        let get = async |path: &str| site.send("GET", path, &viewer, None).await;

        let list = get("/v1/boxes?online=true&state=active&q=bench").await;
        check_answer("/v1/boxes", "GET", &list);
        let row = &list.json()["items"][0];
        assert_eq!((&row["id"], &row["online"], &row["rungs"][0]["title"]), (&json!(id), &json!(true), &json!("no address")));
        assert_eq!(list.json()["server_time"], NOW);
        assert_eq!((&row["telemetry_at"], &row["vault"]["used_bytes"]), (&json!(NOW - 1000), &json!(7)));
        assert_eq!(row["telemetry_interval_secs"], 60);
        assert!(get("/v1/boxes?online=false").await.json()["items"].as_array().expect("rows").is_empty());

        let one = get(&format!("/v1/boxes/{id}")).await;
        check_answer("/v1/boxes/{box_id}", "GET", &one);
        assert_eq!(one.json()["telemetry"]["load_1m"], 0.5);

        let series = get(&format!("/v1/boxes/{id}/telemetry?limit=10")).await;
        check_answer("/v1/boxes/{box_id}/telemetry", "GET", &series);
        assert_eq!(series.json()["items"].as_array().expect("points").len(), 1);

        for (template, path) in [
            ("/v1/summary", "/v1/summary".to_owned()),
            ("/v1/codes", "/v1/codes".to_owned()),
            ("/healthz", "/healthz".to_owned()),
            ("/v1/audit", "/v1/audit".to_owned()),
            ("/v1/boxes/{box_id}/transfers", format!("/v1/boxes/{id}/transfers")),
            ("/v1/boxes/{box_id}/tickets", format!("/v1/boxes/{id}/tickets")),
            ("/v1/boxes/{box_id}/commands", format!("/v1/boxes/{id}/commands")),
            ("/v1/rollouts", "/v1/rollouts".to_owned()),
            ("/v1/tickets", "/v1/tickets".to_owned()),
            ("/v1/boxes/{box_id}", "/v1/boxes/0000000000ZZ".to_owned()),
            ("/v1/buckets", "/v1/buckets".to_owned()),
        ] {
            check_answer(template, "GET", &get(&path).await);
        }
    }

    async fn lists_are_paged_without_loss(db: Db) {
        let site = Site::on(&db).await;
        let viewer = site.token(Role::Viewer).await;
        let id = seed(&db, 1).await;
        for n in 2..=5 { add_box(&db, n).await; }
        for (path, total) in [("/v1/boxes".to_owned(), 5), (format!("/v1/boxes/{id}/timeline"), 6)] {
            let (mut seen, mut cursor) = (Vec::new(), String::new());
            loop {
                let page = site.send("GET", &format!("{path}?limit=2{cursor}"), &viewer, None).await.json();
                seen.extend(page["items"].as_array().expect("rows").clone());
                let Some(next) = page["next"].as_str() else { break };
                cursor = format!("&cursor={next}");
            }
            assert_eq!(seen.len(), total, "{path}");
            for (i, row) in seen.iter().enumerate() {
                assert!(!seen[..i].contains(row), "{path}: twice {row}");
            }
        }
        let timeline = site.send("GET", &format!("/v1/boxes/{id}/timeline"), &viewer, None).await;
        check_answer("/v1/boxes/{box_id}/timeline", "GET", &timeline);
        let numbers: Vec<_> = timeline.json()["items"].as_array().expect("rows").iter()
            .map(|r| r["number"].as_i64().expect("a number")).collect();
        assert_eq!(numbers, [5, 4, 3, 2, 1, 0]);
    }

    async fn what_an_operator_writes_stays_and_is_in_the_audit(db: Db) {
        let site = Site::on(&db).await;
        let operator = site.token(Role::Operator).await;
        let id = seed(&db, 1).await;
        let send = async |method: &str, path: &str, body: Value| -> Answer {
            site.send(method, path, &operator, Some(body)).await
        };

        let path = format!("/v1/boxes/{id}");
        let labelled = send("PATCH", &path, json!({ "label": "Dock 1" })).await;
        check_answer("/v1/boxes/{box_id}", "PATCH", &labelled);
        let sited = send("PATCH", &path, json!({ "site": "Ulm" })).await.json();
        assert_eq!((&sited["label"], &sited["site"]), (&json!("Dock 1"), &json!("Ulm")));

        let order = json!({ "id": "o-1", "customer": "ACME", "bucket": "acme-data" });
        let made = send("POST", "/v1/orders", order.clone()).await;
        check_answer("/v1/orders", "POST", &made);
        assert_eq!(made.status, 201);
        assert_eq!(send("POST", "/v1/orders", order).await.status, 409);
        let got = site.send("GET", "/v1/orders/o-1", &operator, None).await;
        assert_eq!(got.json(), made.json());
        check_answer("/v1/orders", "GET", &site.send("GET", "/v1/orders", &operator, None).await);

        let audit = site.send("GET", "/v1/audit", &operator, None).await;
        check_answer("/v1/audit", "GET", &audit);
        let actions: Vec<_> = audit.json()["items"].as_array().expect("rows").iter()
            .map(|r| r["action"].as_str().expect("an action").to_owned()).collect();
        assert_eq!(actions, ["order.create", "box.update", "box.update"]);
    }

    async fn a_command_is_signed_listed_and_taken_back(db: Db) {
        let site = Site::on(&db).await;
        let operator = site.token(Role::Operator).await;
        let id = seed(&db, 1).await;
        let body = json!({ "kind": "identify", "seconds": 10, "expires_in_secs": 60 });

        let made = site.send("POST", &format!("/v1/boxes/{id}/commands"), &operator, Some(body)).await;
        check_answer("/v1/boxes/{box_id}/commands", "POST", &made);
        let made = made.json();
        assert_eq!((&made["state"], &made["command"]["seconds"]), (&json!("queued"), &json!(10)));
        let path = format!("/v1/commands/{}", made["id"].as_str().expect("an id"));
        check_answer("/v1/commands/{command_id}", "GET", &site.send("GET", &path, &operator, None).await);

        let taken_back = site.send("POST", &format!("{path}/cancel"), &operator, None).await;
        check_answer("/v1/commands/{command_id}/cancel", "POST", &taken_back);
        assert_eq!(taken_back.json()["state"], "cancelled");
        assert_eq!(site.send("POST", &format!("{path}/cancel"), &operator, None).await.status, 409);
        let list = site.send("GET", &format!("/v1/boxes/{id}/commands"), &operator, None).await.json();
        assert_eq!(list["items"].as_array().expect("rows").len(), 1);
    }

    async fn a_ticket_is_shown_without_its_secret_and_downloaded_with_it(db: Db) {
        let site = Site::on(&db).await;
        let operator = site.token(Role::Operator).await;
        let id = seed(&db, 1).await;
        let tickets = format!("/v1/boxes/{id}/tickets");

        let made = site.send("POST", &tickets, &operator, Some(json!({ "bucket": "acme-data" }))).await;
        check_answer("/v1/boxes/{box_id}/tickets", "POST", &made);
        let ticket = made.json()["id"].as_str().expect("an id").to_owned();
        let file = site.send("GET", &format!("/v1/tickets/{ticket}/download"), &operator, None).await;

        let parsed: longhaul_protocol::ticket::Ticket = serde_json::from_slice(&file.body).expect("a ticket");
        assert!(file.header("content-disposition").starts_with("attachment; filename*=UTF-8''longhaul%2D"));
        let secret = parsed.secret_key.0;
        assert!(secret.len() >= 32);
        let listed = site.send("GET", &tickets, &operator, None).await;
        for shown in [&made.body, &listed.body] {
            assert!(!String::from_utf8_lossy(shown).contains(&secret));
        }
        assert_eq!(site.send("DELETE", &format!("/v1/tickets/{ticket}"), &operator, None).await.status, 204);
        let listed = site.send("GET", &tickets, &operator, None).await.json();
        assert_eq!(listed["items"][0]["revoked"], NOW);
    }

    async fn a_ticket_fetches_the_receipts_of_its_bucket_also_when_it_has_ended_and_nothing_else(db: Db) {
        let site = Site::on(&db).await;
        let operator = site.token(Role::Operator).await;
        let id = seed(&db, 1).await;
        let wanted = json!({ "bucket": "acme-data", "expires_in_secs": 60 });
        let made = site.send("POST", &format!("/v1/boxes/{id}/tickets"), &operator, Some(wanted)).await;
        let name = made.json()["id"].as_str().expect("an id").to_owned();
        let file = site.send("GET", &format!("/v1/tickets/{name}/download"), &operator, None).await;
        let ticket: longhaul_protocol::ticket::Ticket = serde_json::from_slice(&file.body).expect("a ticket");
        assert_eq!(ticket.cloud_url.as_deref(), Some("https://cloud.example:8443"));
        let pair = |secret: &str| Auth::Basic(format!("{}:{secret}", ticket.access_key));
        let right = pair(&ticket.secret_key.0);
        let get = async |path: &str, auth: &Auth| site.send("GET", path, auth, None).await.status;
        let receipts = "/v1/receipts?bucket=acme-data";

        site.people.clock.advance(100_000);

        assert_eq!(get(receipts, &right).await, 200);
        assert_eq!(get("/v1/receipts?bucket=other-data", &right).await, 403);
        for elsewhere in ["/v1/boxes", "/v1/tickets", "/v1/objects?bucket=acme-data"] {
            assert_eq!(get(elsewhere, &right).await, 401, "{elsewhere}");
        }
        for wrong in [pair("guess"), pair(""), Auth::Basic("nobody:x".into()), Auth::Basic("\0".into())] {
            assert_eq!(get(receipts, &wrong).await, 401, "{wrong:?}");
        }
        site.people.clock.advance(367 * 86_400_000);
        assert_eq!(get(receipts, &right).await, 401, "not for ever");
        site.people.clock.advance(-366 * 86_400_000);
        assert_eq!(get(receipts, &right).await, 200);
        assert_eq!(site.send("DELETE", &format!("/v1/tickets/{name}"), &operator, None).await.status, 204);
        assert_eq!(get(receipts, &right).await, 401, "it was revoked");
    }

    async fn tickets_of_all_boxes_are_listed_by_order_and_in_pages(db: Db) {
        let site = Site::on(&db).await;
        let operator = site.token(Role::Operator).await;
        let (one, two) = (seed(&db, 1).await, seed(&db, 2).await);
        let order = json!({ "id": "o-1", "customer": "ACME", "bucket": "acme-data" });
        assert_eq!(site.send("POST", "/v1/orders", &operator, Some(order)).await.status, 201);
        for (box_id, order) in [(&one, Some("o-1")), (&two, Some("o-1")), (&two, None)] {
            let body = json!({ "bucket": "acme-data", "order": order });
            let made = site.send("POST", &format!("/v1/boxes/{box_id}/tickets"), &operator, Some(body)).await;
            assert_eq!(made.status, 201, "{made:?}");
        }
        let get = async |query: &str| site.send("GET", &format!("/v1/tickets?{query}"), &operator, None).await;

        let all = get("").await;
        check_answer("/v1/tickets", "GET", &all);
        assert_eq!(all.json()["items"].as_array().expect("rows").len(), 3);
        let first = get("order=o-1&limit=1").await.json();
        let cursor = first["next"].as_str().expect("a second page");
        let second = get(&format!("order=o-1&limit=1&cursor={cursor}")).await.json();
        let boxes = [&first, &second].map(|p| p["items"][0]["box_id"].as_str().expect("a box").to_owned());
        assert!(boxes.contains(&one) && boxes.contains(&two), "{boxes:?}");
        let none = get("order=o-2").await.json();
        assert!(none["items"].as_array().expect("rows").is_empty());
    }

    async fn an_operator_holds_a_box_back_and_lets_it_in_again(db: Db) {
        let site = Site::on(&db).await;
        let operator = site.token(Role::Operator).await;
        let id = seed(&db, 1).await;
        let post = async |what: &str| site.send("POST", &format!("/v1/boxes/{id}/{what}"), &operator, None).await.status;
        let state = async || site.send("GET", &format!("/v1/boxes/{id}"), &operator, None).await.json()["box"]["state"].clone();

        assert_eq!(post("quarantine").await, 204);
        assert_eq!(state().await, "quarantined");
        assert_eq!(post("quarantine").await, 409);
        let body = Some(json!({ "kind": "report_now" }));
        let command = site.send("POST", &format!("/v1/boxes/{id}/commands"), &operator, body).await;
        assert_eq!(command.status, 409, "{command:?}");
        assert_eq!(post("release").await, 204);
        assert_eq!(state().await, "active");
        assert_eq!(post("revoke").await, 204);
        assert_eq!(post("quarantine").await, 409);
    }

    async fn a_revoked_box_is_shown_as_such_and_gets_no_commands(db: Db) {
        let site = Site::on(&db).await;
        let operator = site.token(Role::Operator).await;
        let id = seed(&db, 1).await;

        let revoked = site.send("POST", &format!("/v1/boxes/{id}/revoke"), &operator, None).await;
        assert_eq!(revoked.status, 204, "{revoked:?}");

        let one = site.send("GET", &format!("/v1/boxes/{id}"), &operator, None).await.json();
        assert_eq!(one["box"]["state"], "revoked");
        let body = Some(json!({ "kind": "report_now" }));
        let command = site.send("POST", &format!("/v1/boxes/{id}/commands"), &operator, body).await;
        assert_eq!(command.status, 409, "{command:?}");
    }
}
