//! One command for many boxes: seen, then sent to those that were seen.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::site::{Auth, NOW, Site};
use crate::auth::password;
use crate::store::Db;
use crate::store::boxes::{BoxState, box_set_label, box_set_state};
use crate::store::operators::{OperatorRow, Role, operator_insert};
use crate::store::testing::{add_box, on_both};

const PASSWORD: &str = "correct horse battery";

async fn person(site: &Site, name: &str) -> Auth {
    let row = OperatorRow {
        name: name.to_owned(),
        password_hash: password::hash(PASSWORD.to_owned()).await.expect("hashes"),
        role: Role::Operator,
        created: 1,
        tenant_id: None,
    };
    let mut tx = site.people.db.write().await.expect("begins");
    assert!(operator_insert(&mut tx, &row).await.expect("inserts"));
    tx.commit().await.expect("commits");
    Auth::of(&site.log_in(name, PASSWORD).await)
}

/// Boxes 1 to `n`, active, at two sites in turn.
async fn boxes(db: &Db, n: u8) {
    for i in 1..=n {
        let id = add_box(db, i).await;
        let mut tx = db.write().await.expect("begins");
        box_set_state(&mut tx, &id, BoxState::Active, 1)
            .await
            .expect("sets");
        let site = if i % 2 == 0 { "pier" } else { "yard" };
        box_set_label(&mut tx, &id, Some(&format!("box {i}")), Some(site), 1)
            .await
            .expect("labels");
        tx.commit().await.expect("commits");
    }
}

async fn post(site: &Site, who: &Auth, path: &str, body: Value) -> (u16, Value) {
    let answer = site.send("POST", path, who, Some(body)).await;
    (answer.status.as_u16(), answer.json())
}

async fn seen(site: &Site, who: &Auth, filter: &str, command: Value) -> Value {
    let body = json!({ "filter": filter, "command": command });
    let (status, blast) = post(site, who, "/v1/bulk-previews", body).await;
    assert_eq!(status, 201, "{blast}");
    blast
}

async fn get(site: &Site, who: &Auth, path: &str) -> Value {
    site.send("GET", path, who, None).await.json()
}

/// Signs all that waits.
async fn sign(site: &Site) {
    while site.people.fleet.bulk_step().await.expect("signs") {}
}

on_both! {
    async fn what_was_seen_is_what_is_sent(db: Db) {
        let site = Site::on(&db).await;
        boxes(&db, 6).await;
        let ada = person(&site, "ada").await;
        assert!(site.send("POST", "/v1/boxes/TESTB0X00006/quarantine", &ada, None).await.status.is_success());

        let blast = seen(&site, &ada, "site:pier", json!({ "kind": "identify", "seconds": 5 })).await;

        assert_eq!((&blast["boxes"], &blast["quarantined"], &blast["offline"]), (&json!(2), &json!(1), &json!(2)), "{blast}");
        assert_eq!(blast["sites"], json!([{ "site": "pier", "boxes": 2 }]));
        assert_eq!((&blast["takes_two_people"], &blast["active_transfers"]), (&json!(false), &json!(0)));
        let (status, bulk) = post(&site, &ada, "/v1/bulk-commands", json!({ "preview": blast["preview"] })).await;
        assert_eq!((status, &bulk["counts"]), (201, &json!({ "waiting": 2 })), "{bulk}");
        sign(&site).await;
        let path = format!("/v1/bulk-commands/{}", bulk["id"].as_str().expect("an id"));
        let bulk = get(&site, &ada, &path).await;
        assert_eq!((&bulk["state"], &bulk["counts"]), (&json!("sent"), &json!({ "queued": 2 })));
        let page = get(&site, &ada, &format!("{path}/boxes?limit=1")).await;
        assert_eq!(page["items"][0]["box_id"], "TESTB0X00002");
        let rest = get(&site, &ada, &format!("{path}/boxes?cursor={}", page["next"].as_str().expect("more"))).await;
        assert_eq!((&rest["items"][0]["box_id"], rest["items"].as_array().map(Vec::len)), (&json!("TESTB0X00004"), Some(1)));
        let again = post(&site, &ada, "/v1/bulk-commands", json!({ "preview": blast["preview"] })).await;
        assert_eq!(again.0, 404, "a preview is used once");

        assert_eq!(site.send("POST", &format!("{path}/cancel"), &ada, None).await.json()["counts"], json!({ "cancelled": 2 }));
        assert_eq!(site.send("POST", &format!("{path}/cancel"), &ada, None).await.status, 409);
    }

    async fn a_set_that_changed_is_refused_with_the_difference(db: Db) {
        let site = Site::on(&db).await;
        boxes(&db, 4).await;
        let ada = person(&site, "ada").await;
        let blast = seen(&site, &ada, "site:pier", json!({ "kind": "report_now" })).await;
        for (id, place) in [("TESTB0X00001", "pier"), ("TESTB0X00002", "yard")] {
            let body = Some(json!({ "label": "x", "site": place }));
            assert!(site.send("PATCH", &format!("/v1/boxes/{id}"), &ada, body).await.status.is_success());
        }

        let (status, problem) = post(&site, &ada, "/v1/bulk-commands", json!({ "preview": blast["preview"] })).await;

        assert_eq!(status, 409, "{problem}");
        assert_eq!((&problem["added"], &problem["removed"]), (&json!(["TESTB0X00001"]), &json!(["TESTB0X00002"])));
        sign(&site).await;
        assert_eq!(get(&site, &ada, "/v1/boxes/TESTB0X00004/commands").await["items"], json!([]), "nothing was sent");
    }

    async fn what_takes_two_people_takes_them_in_bulk_too(db: Db) {
        let site = Site::on(&db).await;
        boxes(&db, 3).await;
        let (ada, bob) = (person(&site, "ada").await, person(&site, "bob").await);
        let erase = json!({ "kind": "erase_bucket", "bucket": "survey" });
        let erased = async || {
            let mut found = 0;
            for n in 1..=3 {
                let page = get(&site, &bob, &format!("/v1/boxes/TESTB0X0000{n}/commands")).await;
                found += page["items"].as_array().expect("items").len();
            }
            found
        };
        let propose = async || {
            let blast = seen(&site, &ada, "", erase.clone()).await;
            assert_eq!(blast["takes_two_people"], true);
            let body = json!({ "preview": blast["preview"], "reason": "they come home" });
            let (status, bulk) = post(&site, &ada, "/v1/bulk-commands", body).await;
            assert_eq!((status, &bulk["state"]), (201, &json!("proposed")), "{bulk}");
            sign(&site).await;
            let proposal = bulk["proposal"].as_str().expect("a proposal").to_owned();
            (format!("/v1/bulk-commands/{}", bulk["id"].as_str().expect("an id")), format!("/v1/proposals/{proposal}"))
        };
        let blast = seen(&site, &ada, "", erase.clone()).await;
        assert_eq!(post(&site, &ada, "/v1/bulk-commands", json!({ "preview": blast["preview"] })).await.0, 400, "a reason is needed");

        let (bulk, proposal) = propose().await;
        assert_eq!(site.send("POST", &format!("{proposal}/approve"), &ada, None).await.status, 403);
        assert_eq!(erased().await, 0);
        assert_eq!(post(&site, &bob, &format!("{proposal}/refuse"), json!({})).await.0, 200);
        sign(&site).await;
        assert_eq!((erased().await, &get(&site, &ada, &bulk).await["state"]), (0, &json!("refused")));

        let (bulk, proposal) = propose().await;
        assert_eq!(site.send("POST", &format!("{proposal}/approve"), &bob, None).await.status, 200);
        sign(&site).await;
        assert_eq!((erased().await, &get(&site, &ada, &bulk).await["state"]), (3, &json!("sent")));

        let (bulk, proposal) = propose().await;
        assert_eq!(site.send("POST", &format!("{bulk}/cancel"), &ada, None).await.status, 200);
        assert_eq!(site.send("POST", &format!("{proposal}/approve"), &bob, None).await.status, 409);
        let (late, _) = propose().await;
        site.people.clock.advance(86_400_000);
        site.people.fleet.proposals_expire().await.expect("ends");
        sign(&site).await;
        let bob = Auth::of(&site.log_in("bob", PASSWORD).await);
        assert_eq!(get(&site, &bob, &late).await["state"], "refused");
        assert_eq!(site.people.clock.now().0, NOW + 86_400_000);
    }

    async fn a_filter_finds_boxes_and_says_where_it_is_wrong(db: Db) {
        let site = Site::on(&db).await;
        boxes(&db, 5).await;
        let ada = person(&site, "ada").await;
        let found = async |filter: &str| {
            let escaped = utf8_percent_encode(filter, NON_ALPHANUMERIC);
            let page = get(&site, &ada, &format!("/v1/boxes?filter={escaped}")).await;
            page["items"].as_array().unwrap_or_else(|| panic!("{filter}: {page}")).len()
        };
        for (filter, count) in [
            ("", 5), ("site:pier", 2), ("site~PIE", 2), ("not site:pier", 3), ("site:pier or label:\"box 1\"", 3),
            ("state:active and online:false", 5), ("online:true", 0), ("seen>1h", 0), ("not seen>1h", 5),
            ("not (site:pier or site:yard)", 0), ("label~\"%\"", 0), ("version:x", 0), ("not version:x", 5),
        ] {
            assert_eq!(found(filter).await, count, "{filter}");
        }
        let wrong = site.send("GET", "/v1/boxes?filter=site:pier%20and%20colour:red", &ada, None).await;
        let error = &wrong.json()["errors"][0];
        assert_eq!((wrong.status.as_u16(), &error["parameter"], &error["position"]), (400, &json!("filter"), &json!(14)));
        let body = json!({ "filter": "state:gone", "command": { "kind": "report_now" } });
        let (status, problem) = post(&site, &ada, "/v1/bulk-previews", body).await;
        assert_eq!((status, &problem["errors"][0]["pointer"], &problem["errors"][0]["position"]), (400, &json!("#/filter"), &json!(6)));
        let body = json!({ "filter": "", "command": { "kind": "identify", "seconds": 0 } });
        let (status, problem) = post(&site, &ada, "/v1/bulk-previews", body).await;
        assert_eq!((status, &problem["errors"][0]["pointer"]), (400, &json!("#/command/seconds")));
    }
}
