//! How boxes come online, as the people's port tells it.

use longhaul_protocol::diag::Code;
use longhaul_protocol::ids::BoxId;
use serde_json::{Value, json};

use super::site::{Auth, Site};
use crate::http::cursor;
use crate::store::Db;
use crate::store::bring_up::{
    BootRow, FailureRow, StoredCode, bring_up_boot_set, bring_up_failure_set,
};
use crate::store::operators::Role;
use crate::store::testing::{add_box, on_both};

/// A boot of a box that began so long ago, and what failed in it.
async fn tell(site: &Site, box_id: &BoxId, boot: &str, ago_ms: i64, failed: &[(Code, i64)]) {
    let began = site.people.clock.now().0 - ago_ms;
    let row = BootRow {
        box_id: box_id.clone(),
        boot_id: boot.parse().expect("an id"),
        began,
        release: "1.2.0".into(),
        power_to_start_ms: 9_000,
        start_to_online_ms: Some(11_000),
        reached: 10,
        last_ms: 20_000,
    };
    let mut tx = site.people.db.write().await.expect("begins");
    bring_up_boot_set(&mut tx, &row).await.expect("sets");
    for (number, (code, held_up_ms)) in (1..).zip(failed) {
        let failure = FailureRow {
            box_id: box_id.clone(),
            epoch: boot.parse().expect("an id"),
            number,
            boot_id: row.boot_id.clone(),
            code: StoredCode(*code),
            evidence: "seen".into(),
            release: row.release.clone(),
            began,
            since_boot_ms: 9_000,
            held_up_ms: *held_up_ms,
            lasted_ms: Some(*held_up_ms),
            fix: Some("cable".into()),
        };
        bring_up_failure_set(&mut tx, &failure).await.expect("sets");
    }
    tx.commit().await.expect("commits");
}

async fn ask(site: &Site, auth: &Auth, query: &str) -> Value {
    let path = format!("/v1/insights/bring-up{query}");
    let answer = site.send("GET", &path, auth, None).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

fn boxes_at(report: &Value, step: &str) -> Option<i64> {
    let steps = report["funnel"].as_array().expect("a funnel");
    steps.iter().find(|s| s["step"] == step)?["boxes"].as_i64()
}

on_both! {
    async fn what_holds_boxes_up_is_told_by_cause_page_by_page(db: Db) {
        let site = Site::on(&db).await;
        let viewer = site.token(Role::Viewer).await;
        let (one, two) = (add_box(&db, 1).await, add_box(&db, 2).await);
        let day = 86_400_000;
        tell(&site, &one, "b-1", day, &[(Code::NO_CABLE, 500), (Code::CAPTIVE_PORTAL, 3_000)]).await;
        tell(&site, &two, "b-2", 2 * day, &[(Code::NO_CABLE, 700)]).await;
        tell(&site, &two, "b-old", 40 * day, &[(Code::CLOCK_WRONG, 9_000)]).await;

        let report = ask(&site, &viewer, "?group=release").await;
        let items = report["items"].as_array().expect("items");
        assert_eq!(items.len(), 2, "what is older than 30 days is left out: {report}");
        assert_eq!(items[0]["code"], "LH-503");
        assert_eq!((&items[0]["rung"], &items[0]["group"]), (&json!("proxy"), &json!("1.2.0")));
        assert_eq!((&items[1]["failures"], &items[1]["boxes"]), (&json!(2), &json!(2)));
        assert_eq!((&items[1]["held_up_ms"], &items[1]["longest_ms"]), (&json!(1200), &json!(700)));
        assert_eq!(items[1]["fixes"]["cable"], 2);
        assert_eq!(report["times"], json!({ "boots": 2, "online": 2, "median_ms": 20_000, "p90_ms": 20_000, "slowest_ms": 20_000 }));
        assert_eq!((boxes_at(&report, "powered"), boxes_at(&report, "online"), boxes_at(&report, "claimed")), (Some(2), Some(2), Some(0)));

        let mut codes = Vec::new();
        let mut query = "?limit=1&from=1".to_owned();
        loop {
            let page = ask(&site, &viewer, &query).await;
            codes.extend(page["items"].as_array().expect("items").iter().map(|i| i["code"].clone()));
            let Some(next) = page["next"].as_str() else { break };
            query = format!("?limit=1&from=1&cursor={next}");
        }
        assert_eq!(codes, ["LH-601", "LH-503", "LH-101"]);
    }

    async fn boots_are_listed_with_their_failures_newest_first(db: Db) {
        let site = Site::on(&db).await;
        let viewer = site.token(Role::Viewer).await;
        let (one, two) = (add_box(&db, 1).await, add_box(&db, 2).await);
        tell(&site, &one, "b-1", 1_000, &[(Code::NO_CABLE, 500)]).await;
        tell(&site, &two, "b-2", 2_000, &[]).await;
        tell(&site, &two, "b-3", 3_000, &[(Code::DNS_SILENT, 1), (Code::NO_CABLE, 2)]).await;

        let first = ask(&site, &viewer, "/boots?limit=2").await;
        let next = first["next"].as_str().expect("more");
        let rest = ask(&site, &viewer, &format!("/boots?limit=2&cursor={next}")).await;
        let of_two = ask(&site, &viewer, &format!("/boots?box_id={two}")).await;

        let names = |page: &Value| page["items"].as_array().expect("items").iter().map(|i| i["boot"].clone()).collect::<Vec<_>>();
        assert_eq!((names(&first), names(&rest)), (vec![json!("b-1"), json!("b-2")], vec![json!("b-3")]));
        assert_eq!(names(&of_two), ["b-2", "b-3"]);
        let boot = &first["items"][0];
        assert_eq!((&boot["power_to_online_ms"], &boot["reached"]), (&json!(20_000), &json!("broker")));
        assert_eq!(boot["failures"][0]["code"], "LH-101");
        assert_eq!(first["items"][1]["failures"], json!([]));
        assert_eq!(rest["items"][0]["failures"].as_array().map(Vec::len), Some(2));
    }

    async fn a_tenants_report_counts_its_own_boxes_only(db: Db) {
        let site = Site::on(&db).await;
        let admin = site.token(Role::Admin).await;
        let (one, two) = (add_box(&db, 1).await, add_box(&db, 2).await);
        for tenant in ["tenant-a", "tenant-b"] {
            let made = json!({ "id": tenant, "name": tenant });
            assert_eq!(site.send("POST", "/v1/tenants", &admin, Some(made)).await.status, 201);
        }
        let given = Some(json!({ "tenant": "tenant-a" }));
        assert_eq!(site.send("PUT", &format!("/v1/boxes/{one}/tenant"), &admin, given).await.status, 200);
        tell(&site, &one, "b-1", 1_000, &[(Code::NO_CABLE, 500)]).await;
        tell(&site, &two, "b-2", 1_000, &[(Code::NO_CABLE, 500)]).await;
        let ours = site.token_of(Role::Customer, Some("tenant-a")).await;
        let theirs = site.token_of(Role::Customer, Some("tenant-b")).await;

        let (ours, theirs) = (ask(&site, &ours, "").await, ask(&site, &theirs, "").await);

        assert_eq!(boxes_at(&ask(&site, &admin, "").await, "powered"), Some(2));
        assert_eq!((boxes_at(&ours, "powered"), boxes_at(&ours, "claimed")), (Some(1), Some(1)));
        assert_eq!((&ours["items"][0]["failures"], &ours["times"]["boots"]), (&json!(1), &json!(1)));
        assert_eq!((boxes_at(&theirs, "powered"), &theirs["items"]), (Some(0), &json!([])));
    }

    async fn a_time_that_is_none_is_refused(db: Db) {
        let site = Site::on(&db).await;
        let viewer = site.token(Role::Viewer).await;
        for query in ["?from=5&to=5", "?from=-1", "?from=9&to=1", "?group=colour", "?limit=0", "?cursor=x", "?from=x", "?to=99999999999999999999"] {
            for path in ["", "/boots"] {
                let path = format!("/v1/insights/bring-up{path}{query}");
                assert_eq!(site.send("GET", &path, &viewer, None).await.status, 400, "{path}");
            }
        }
        let Ok(cursor) = cursor::encode(&(9, "\0", "\0")) else { panic!("encodes") };
        let odd = format!("?from=0&to={}&cursor={cursor}", i64::MAX);
        for path in ["", "/boots"] {
            assert_eq!(ask(&site, &viewer, &format!("{path}{odd}")).await["items"], json!([]));
        }
    }
}
