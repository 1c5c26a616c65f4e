//! The filter grammar on every list that has it.

use serde_json::{Value, json};

use super::site::{Auth, Site};
use super::walk::operations;
use crate::store::Db;
use crate::store::boxes::{BoxState, box_set_state};
use crate::store::operators::Role;
use crate::store::testing::{add_box, on_both};

async fn active(db: &Db, n: u8) -> String {
    let id = add_box(db, n).await;
    let mut tx = db.write().await.expect("begins");
    box_set_state(&mut tx, &id, BoxState::Active, 1)
        .await
        .expect("sets");
    tx.commit().await.expect("commits");
    id.to_string()
}

fn escaped(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

async fn found(site: &Site, path: &str, auth: &Auth, filter: &str) -> Vec<Value> {
    let url = format!("{path}?filter={}", escaped(filter));
    let answer = site.send("GET", &url, auth, None).await;
    assert_eq!(answer.status, 200, "{url}: {answer:?}");
    answer.json()["items"].as_array().expect("items").clone()
}

on_both! {
    async fn a_filter_that_does_not_fit_is_pointed_at_on_every_list_that_has_one(db: Db) {
        let site = Site::on(&db).await;
        let id = active(&db, 1).await;
        let admin = site.token(Role::Admin).await;
        let mut lists = Vec::new();
        for operation in operations() {
            let parameters = operation.described["parameters"].as_array().cloned().unwrap_or_default();
            let Some(filter) = parameters.iter().find(|p| p["name"] == "filter") else { continue };
            let says = filter["description"].as_str().expect("a description");
            assert!(says.contains("Fields: `id` (text)") || operation.id == "auditList", "{}: {says}", operation.id);
            let path = operation.template.replace("{box_id}", &id).replace("{channel_id}", "none");
            let answer = site.send("GET", &format!("{path}?filter=surprise:1"), &admin, None).await;
            assert_eq!(answer.status, 400, "{path}: {answer:?}");
            let fault = &answer.json()["errors"][0];
            assert_eq!((&fault["parameter"], &fault["position"]), (&json!("filter"), &json!(0)), "{path}");
            lists.push(operation.id);
        }
        assert_eq!(lists, [
            "alertDeliveryList", "alertList", "auditList", "boxList", "commandList", "transferList", "orderList",
            "proposalList", "ticketListAll",
        ]);
    }

    async fn every_field_of_every_list_can_be_asked_for(db: Db) {
        let site = Site::on(&db).await;
        let id = active(&db, 1).await;
        let admin = site.token(Role::Admin).await;
        let channel = json!({ "name": "c", "kind": "email", "target": "a@example.com", "severity": "warning" });
        let channel = site.send("POST", "/v1/alert-channels", &admin, Some(channel)).await;
        let channel = channel.json()["channel"]["id"].as_str().expect("an id").to_owned();
        for operation in operations() {
            let parameters = operation.described["parameters"].as_array().cloned().unwrap_or_default();
            let Some(filter) = parameters.iter().find(|p| p["name"] == "filter") else { continue };
            let path = operation.template.replace("{box_id}", &id).replace("{channel_id}", &channel);
            let says = filter["description"].as_str().expect("a description");
            let fields = says.split("Fields: ").nth(1).expect("fields");
            for field in fields.split("), ") {
                let (name, holds) = field.trim_matches(['`', '.', ')']).split_once("` (").expect("a field");
                let asked = match holds.split([' ', ':']).next() {
                    Some("text") => format!("{name}:x or not {name}~\"a b\""),
                    Some("true") => format!("{name}:true"),
                    Some("number") => format!("{name}>=3 or {name}:1"),
                    Some("time") => format!("{name}>6h and {name}<=17"),
                    word => format!("{name}:{}", word.expect("a word")),
                };
                found(&site, &path, &admin, &asked).await;
            }
        }
    }

    async fn lists_find_what_is_asked_for(db: Db) {
        let site = Site::on(&db).await;
        let id = active(&db, 1).await;
        let admin = site.token(Role::Admin).await;
        for (order, customer, bucket) in [("o-1", "Northern Survey", "survey"), ("o-2", "Acme", "acme")] {
            let body = json!({ "id": order, "customer": customer, "bucket": bucket });
            assert_eq!(site.send("POST", "/v1/orders", &admin, Some(body)).await.status, 201);
            let body = json!({ "bucket": bucket, "order": order, "expires_in_secs": 600 });
            assert_eq!(site.send("POST", &format!("/v1/boxes/{id}/tickets"), &admin, Some(body)).await.status, 201);
        }
        let commands = format!("/v1/boxes/{id}/commands");
        for body in [json!({ "kind": "report_now" }), json!({ "kind": "identify", "seconds": 5 })] {
            assert_eq!(site.send("POST", &commands, &admin, Some(body)).await.status, 201);
        }
        for (path, filter, field, value) in [
            ("/v1/orders", "customer~north", "id", json!("o-1")),
            ("/v1/orders", "not bucket:survey and created>=1h", "id", json!("o-2")),
            ("/v1/tickets", "order:o-2", "bucket", json!("acme")),
            ("/v1/tickets", "bucket:survey and not revoked>0", "order", json!("o-1")),
            (commands.as_str(), "kind:identify and state:queued", "kind", json!("identify")),
            ("/v1/audit", "action:order.create and subject:o-1", "subject", json!("o-1")),
        ] {
            let rows = found(&site, path, &admin, filter).await;
            assert_eq!(rows.len(), 1, "{path} {filter}: {rows:?}");
            assert_eq!(rows[0][field], value, "{path} {filter}");
        }
        assert_eq!(found(&site, "/v1/orders", &admin, "created<1h").await, Vec::<Value>::new());
    }

    async fn pages_of_what_a_filter_finds_meet_without_a_gap(db: Db) {
        let site = Site::on(&db).await;
        let id = active(&db, 1).await;
        let admin = site.token(Role::Admin).await;
        let path = format!("/v1/boxes/{id}/commands");
        for n in 0..12 {
            // Some at the same time.
            if n % 3 == 0 { site.people.clock.advance(1); }
            let body = if n % 2 == 0 { json!({ "kind": "report_now" }) } else { json!({ "kind": "identify", "seconds": 5 }) };
            assert_eq!(site.send("POST", &path, &admin, Some(body)).await.status, 201);
        }
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = site.send("GET", &format!("{path}?filter=kind:identify&limit=2{cursor}"), &admin, None).await.json();
            let rows = page["items"].as_array().expect("items");
            assert!(rows.iter().all(|row| row["kind"] == "identify"), "{page}");
            seen.extend(rows.iter().map(|row| row["id"].to_string()));
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 6);
    }

    async fn no_filter_widens_what_a_customer_sees(db: Db) {
        let site = Site::on(&db).await;
        let admin = site.token(Role::Admin).await;
        for (n, tenant) in [(1, "tenant-a"), (2, "tenant-b")] {
            let id = active(&db, n).await;
            let made = json!({ "id": tenant, "name": tenant });
            assert_eq!(site.send("POST", "/v1/tenants", &admin, Some(made)).await.status, 201);
            let given = json!({ "tenant": tenant });
            assert_eq!(site.send("PUT", &format!("/v1/boxes/{id}/tenant"), &admin, Some(given)).await.status, 200);
            let (order, bucket) = (format!("order-{n}"), format!("bucket-{n}"));
            let body = json!({ "id": order, "customer": "C", "bucket": bucket, "tenant": tenant });
            assert_eq!(site.send("POST", "/v1/orders", &admin, Some(body)).await.status, 201);
            let body = json!({ "bucket": bucket, "order": order });
            assert_eq!(site.send("POST", &format!("/v1/boxes/{id}/tickets"), &admin, Some(body)).await.status, 201);
        }
        let customer = site.token_of(Role::Customer, Some("tenant-a")).await;
        for path in ["/v1/orders", "/v1/tickets", "/v1/boxes"] {
            for filter in ["tenant:tenant-b", "tenant:tenant-b or tenant:tenant-a", "not tenant:tenant-a", "id~\"\" or not id:x"] {
                let rows = found(&site, path, &customer, filter).await;
                assert!(rows.iter().all(|row| row["tenant"] == "tenant-a"), "{path} {filter}: {rows:?}");
            }
        }
    }
}
