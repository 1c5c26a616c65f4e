//! A command's trace, from the request to the collector.

use std::sync::Arc;

use longhaul_protocol::ids::{BoxId, CommandId};
use serde_json::{Value, json};

use super::{Exporter, export_due, own_trace, told};
use crate::alerts::tests::peers::Peer;
use crate::alerts::trust;
use crate::http::tests::site::{NOW, Site};
use crate::store::Db;
use crate::store::boxes::{BoxState, box_set_state};
use crate::store::command_traces::trace_get;
use crate::store::commands::{CommandNews, CommandState, command_advance};
use crate::store::operators::Role;
use crate::store::testing::{add_box, on_both};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

async fn active(db: &Db) -> BoxId {
    let id = add_box(db, 1).await;
    let mut tx = db.write().await.expect("begins");
    box_set_state(&mut tx, &id, BoxState::Active, NOW)
        .await
        .expect("sets");
    tx.commit().await.expect("commits");
    id
}

/// Asks for a command over HTTP.
async fn asked(site: &Site, id: &BoxId, traceparent: Option<&str>) -> CommandId {
    let operator = site.token(Role::Operator).await;
    let body = json!({ "kind": "report_now", "expires_in_secs": 600 });
    let path = format!("/v1/boxes/{id}/commands");
    let headers: Vec<_> = traceparent
        .map(|text| ("traceparent", text))
        .into_iter()
        .collect();
    let made = site
        .send_with("POST", &path, &operator, &body, &headers)
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    made.json()["id"]
        .as_str()
        .expect("an id")
        .parse()
        .expect("an id")
}

async fn goes(site: &Site, id: &CommandId, state: CommandState) {
    site.people.clock.advance(1_000);
    let mut tx = site.people.db.write().await.expect("begins");
    let now = site.people.clock.now().0;
    assert!(
        command_advance(&mut tx, id, state, CommandNews::default(), now)
            .await
            .expect("moves")
    );
    tx.commit().await.expect("commits");
}

/// The spans of a request to a collector.
fn spans(request: &str) -> Vec<Value> {
    let (head, body) = request.split_once("\r\n\r\n").expect("a request");
    assert!(head.starts_with("POST /v1/traces "), "{head}");
    let body: Value = serde_json::from_str(body).expect("JSON");
    let resource = &body["resourceSpans"][0];
    assert_eq!(
        resource["resource"]["attributes"][0]["value"]["stringValue"],
        "longhaul-cloud"
    );
    resource["scopeSpans"][0]["spans"]
        .as_array()
        .expect("spans")
        .clone()
}

fn exporter(peer: &Peer) -> Exporter {
    let tls: Arc<_> = trust::public().expect("TLS");
    Exporter::new(&format!("http://127.0.0.1:{}/", peer.port), &tls).expect("an exporter")
}

on_both! {
    async fn a_commands_trace_goes_on_from_its_callers_and_is_exported_once(db: Db) {
        let site = Site::on(&db).await;
        let id = active(&db).await;
        let peer = Peer::web(&["503 Service Unavailable", "200 OK"]).await;
        let exporter = exporter(&peer);
        let command = asked(&site, &id, Some(&format!("00-{TRACE}-{PARENT}-01"))).await;
        let mut tx = db.read().await.expect("begins");
        assert_eq!(trace_get(&mut tx, &command).await.expect("reads").as_deref(), Some(TRACE));
        drop(tx);
        for state in [CommandState::Sent, CommandState::Accepted] {
            goes(&site, &command, state).await;
        }
        assert_eq!(export_due(&site.people.fleet, &exporter).await.expect("looks"), 0);
        goes(&site, &command, CommandState::Done).await;

        assert!(export_due(&site.people.fleet, &exporter).await.is_err(), "the collector is away");
        assert_eq!(export_due(&site.people.fleet, &exporter).await.expect("exports"), 1);
        assert_eq!(export_due(&site.people.fleet, &exporter).await.expect("looks"), 0);

        let got = spans(&peer.got()[1]);
        let names: Vec<_> = got.iter().map(|s| s["name"].as_str().expect("a name")).collect();
        assert_eq!(names, ["command report_now", "request", "wait for the box", "send to the box", "carry out on the box"]);
        assert!(got.iter().all(|s| s["traceId"] == TRACE));
        assert_eq!((&got[0]["parentSpanId"], &got[0]["status"]["code"]), (&json!(PARENT), &json!(1)));
        assert!(got[1..].iter().all(|s| s["parentSpanId"] == got[0]["spanId"]));
        let times = |span: &Value| [&span["startTimeUnixNano"], &span["endTimeUnixNano"]].map(|t| t.as_str().expect("text").to_owned());
        let at = |seconds: i64| format!("{}000000", NOW + seconds * 1000);
        assert_eq!(times(&got[0]), [at(0), at(3)]);
        assert_eq!(times(&got[3]), [at(1), at(2)]);
        assert_eq!(times(&got[4]), [at(2), at(3)]);
        let told = told(&command, TRACE).expect("a trace");
        assert_eq!(told.to_string(), format!("00-{TRACE}-{}-01", got[3]["spanId"].as_str().expect("an id")));
    }

    async fn a_caller_without_a_trace_gets_one_and_one_that_records_none_gets_none(db: Db) {
        let site = Site::on(&db).await;
        let id = active(&db).await;
        let own = asked(&site, &id, None).await;
        let broken = asked(&site, &id, Some("nonsense")).await;
        let unwanted = asked(&site, &id, Some(&format!("00-{TRACE}-{PARENT}-00"))).await;

        let mut tx = db.read().await.expect("begins");
        assert_eq!(trace_get(&mut tx, &own).await.expect("reads"), Some(own_trace(&own)));
        assert_eq!(trace_get(&mut tx, &broken).await.expect("reads"), Some(own_trace(&broken)));
        assert_eq!(trace_get(&mut tx, &unwanted).await.expect("reads"), None);
    }
}
