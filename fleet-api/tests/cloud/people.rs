//! The people's port of a real cloud: what an operator does, and what it does to a box.

use std::sync::Arc;

use longhaul_fleet_api::auth::{password, secret};
use longhaul_fleet_api::store::api_tokens::{ApiTokenRow, api_token_insert};
use longhaul_fleet_api::store::operators::{OperatorRow, Role, operator_insert};
use longhaul_protocol::command::SignedCommand;
use longhaul_protocol::topic::{Dn, Up};
use longhaul_protocol::twin::{Desired, Reported};
use longhaul_protocol::upload::{PresignedPut, StartResult, Started};
use reqwest::{Client, Response, StatusCode};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};

use crate::bench::{Bench, PATIENCE, TestBox, eventually};

/// An operator's program.
struct Operator<'a> {
    bench: &'a Bench,
    https: Client,
    token: String,
}

/// A client that trusts the fleet's root and shows no certificate.
pub fn https(bench: &Bench) -> Client {
    let mut roots = RootCertStore::empty();
    roots.add(bench.pki().root().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(config)
        .timeout(PATIENCE)
        .build()
        .expect("a client")
}

fn url(bench: &Bench, path: &str) -> String {
    format!("https://localhost:{}{path}", bench.people_port)
}

impl<'a> Operator<'a> {
    async fn new(bench: &'a Bench) -> Self {
        let token = secret::new_secret("lh_").expect("random");
        let row = ApiTokenRow {
            token_id: "test".to_owned(),
            name: "test".to_owned(),
            role: Role::Operator,
            created_by: "test".to_owned(),
            created: 0,
            expires: None,
            revoked: None,
            tenant_id: None,
            owner: None,
        };
        let mut tx = bench.fleet.db().write().await.expect("a transaction");
        let hash = secret::hash(&token);
        api_token_insert(&mut tx, &hash, &row)
            .await
            .expect("inserted");
        tx.commit().await.expect("committed");
        Self {
            bench,
            https: https(bench),
            token,
        }
    }

    async fn send(&self, method: &str, path: &str, body: Option<Value>) -> Response {
        let method = method.parse().expect("a method");
        let mut request = self
            .https
            .request(method, url(self.bench, path))
            .bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.expect("an answer")
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.send("GET", path, None).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.json().await.expect("JSON")
    }
}

/// Delivers one small object as the box does.
async fn deliver(bench: &Bench, of: &TestBox, ticket: &str, key: &str, bytes: &[u8]) {
    let box_https = bench.https(&of.ldevid, &of.key);
    let start = json!({ "objects": [{
        "object": { "bucket": "acme-data", "key": key, "version": 1 },
        "ticket": ticket,
        "bytes": bytes.len(),
        "blake3": blake3::hash(bytes).to_hex().to_string(),
        "content_type": "text/html",
    }]});
    let answer = box_https
        .post(bench.url("/v1/box/uploads/start"))
        .json(&start);
    let answer = answer.send().await.expect("an answer");
    let started: Started = answer.json().await.expect("JSON");
    let [StartResult::Single { upload, put }] = started.uploads.as_slice() else {
        panic!("one piece: {started:?}");
    };
    let PresignedPut { url, headers, .. } = put;
    let mut request = box_https.put(url).body(bytes.to_vec());
    for (name, value) in headers {
        request = request.header(name, value);
    }
    assert_eq!(
        request.send().await.expect("an answer").status(),
        StatusCode::OK
    );
    let complete = json!({ "uploads": [{ "upload": upload, "etags": [] }] });
    let answer = box_https
        .post(bench.url("/v1/box/uploads/complete"))
        .json(&complete);
    let done: Value = answer
        .send()
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    assert_eq!(done["uploads"][0]["result"], "verified", "{done}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_reaches_the_box_and_whoever_watches_sees_it() {
    let bench = Bench::start().await;
    let of = bench.enrolled(1).await;
    let operator = Operator::new(&bench).await;
    let mut live = operator.send("GET", "/v1/events", None).await;
    let mut seen =
        String::from_utf8_lossy(&live.chunk().await.expect("live").expect("a begin")).into_owned();
    let mut session = bench.connect(&of, "s-1").await;
    session.birth(0).await;
    let path = format!("/v1/boxes/{}", of.id);
    eventually("the box is online", async || {
        operator.get(&path).await["box"]["online"] == true
    })
    .await;

    let body = json!({ "kind": "identify", "seconds": 5 });
    let made = operator
        .send("POST", &format!("{path}/commands"), Some(body))
        .await;
    assert_eq!(made.status(), StatusCode::CREATED);
    let made: Value = made.json().await.expect("JSON");

    let signed: SignedCommand = session.next(Dn::Command).await;
    assert_eq!(signed.jws.0.split('.').count(), 3);
    let id = made["id"].as_str().expect("an id");
    eventually("it was sent", async || {
        operator.get(&format!("/v1/commands/{id}")).await["state"] == "sent"
    })
    .await;
    while !seen.contains(id) {
        let chunk = live.chunk().await.expect("live").expect("an event");
        seen.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(seen.contains("\"event\":\"online\""), "{seen}");
    let timeline = operator.get(&format!("{path}/timeline")).await;
    let kinds: Vec<_> = timeline["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|i| i["kind"].as_str().expect("a kind"))
        .collect();
    assert_eq!(kinds, ["identify", "birth"]);
    drop(live);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_and_limits_reach_the_box_signed_and_what_is_in_force_comes_back() {
    let bench = Bench::start().await;
    let of = bench.enrolled(1).await;
    let operator = Operator::new(&bench).await;
    let mut session = bench.connect(&of, "s-1").await;
    session.birth(0).await;
    let path = format!("/v1/boxes/{}", of.id);
    eventually("the box is online", async || {
        operator.get(&path).await["box"]["online"] == true
    })
    .await;
    let path = format!("{path}/uplink");
    let untouched = operator.get(&path).await;
    assert_eq!(untouched["wanted"]["paused"], false);
    assert_eq!(untouched["state"], Value::Null);

    let limits = vec![vec![json!(1 << 20); 24]; 7];
    let wanted = json!({
        "paused": false,
        "week": { "utc_offset_minutes": 60, "limits": limits },
        "priorities": { "acme-data": "urgent", "other-data": "normal" },
    });
    let set = operator.send("PUT", &path, Some(wanted.clone())).await;
    assert_eq!(set.status(), StatusCode::OK);
    let paused = operator.send("POST", &format!("{path}/pause"), None).await;
    let paused: Value = paused.json().await.expect("JSON");
    assert_eq!(
        (&paused["wanted"]["paused"], &paused["applied"]),
        (&json!(true), &json!(false))
    );
    let mut desired: Desired = session.desired(&bench).await;
    while !desired.uplink.paused {
        desired = session.desired(&bench).await;
    }
    let week = desired.uplink.week.as_ref().expect("a week");
    assert_eq!(
        (week.utc_offset_minutes, week.limits[6][23]),
        (60, Some(1 << 20))
    );
    assert_eq!(desired.uplink.priorities.len(), 1, "normal is no priority");

    let reported = json!({
        "desired_version": desired.version, "telemetry_interval_secs": 10,
        "agent_version": "1.0.0", "slots": { "active": "a" }, "uplink": { "state": "paused" },
    });
    let reported: Reported = serde_json::from_value(reported).expect("reported state");
    session.send(Up::Reported, &reported).await;
    eventually("the pause is reported", async || {
        let seen = operator.get(&path).await;
        seen["state"] == "paused" && seen["applied"] == true
    })
    .await;

    let resumed = operator.send("POST", &format!("{path}/resume"), None).await;
    let resumed: Value = resumed.json().await.expect("JSON");
    assert_eq!(resumed["wanted"]["week"], wanted["week"], "limits stay");
    assert!(!session.desired(&bench).await.uplink.paused);

    for (body, says) in [
        (
            json!({ "week": { "limits": vec![vec![json!(5); 24]; 7] } }),
            "Monday at 0:00 is 5",
        ),
        (json!({ "week": { "limits": [] } }), "does not fit"),
        (json!({ "pause": true }), "pause"),
        (json!({ "priorities": { "Not A Bucket": "low" } }), "bucket"),
    ] {
        let refused = operator.send("PUT", &path, Some(body)).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
        let refused: Value = refused.json().await.expect("JSON");
        let detail = refused["detail"].as_str().expect("a detail");
        assert!(detail.contains(says), "{detail}");
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivered_object_is_listed_downloaded_and_deleted() {
    let bench = Bench::start().await;
    let of = bench.enrolled(1).await;
    let operator = Operator::new(&bench).await;
    let tickets = format!("/v1/boxes/{}/tickets", of.id);
    let body = json!({ "bucket": "acme-data" });
    let ticket: Value = operator
        .send("POST", &tickets, Some(body))
        .await
        .json()
        .await
        .expect("JSON");
    let bytes = b"<script>alert(1)</script>";
    deliver(
        &bench,
        &of,
        ticket["id"].as_str().expect("an id"),
        "dir/a ä.html",
        bytes,
    )
    .await;

    let folders = operator
        .get("/v1/objects?bucket=acme-data&delimiter=/")
        .await;
    assert_eq!(folders["prefixes"], json!(["dir/"]));
    let list = operator
        .get("/v1/objects?bucket=acme-data&prefix=dir/")
        .await;
    let item = &list["items"][0];
    assert_eq!(
        (&item["key"], &item["bytes"], &item["box_id"]),
        (&json!("dir/a ä.html"), &json!(25), &json!(of.id.as_str()))
    );
    assert_eq!(item["blake3"], blake3::hash(bytes).to_hex().to_string());
    let transfers = operator
        .get(&format!("/v1/boxes/{}/transfers", of.id))
        .await;
    assert_eq!(transfers["items"][0]["state"], "verified");

    let path = "/v1/objects/acme-data/dir/a%20%C3%A4.html";
    let file = operator.send("GET", path, None).await;
    // What a customer calls HTML must not run in an operator's browser.
    let header = |name: &str| file.headers()[name].to_str().expect("text").to_owned();
    assert_eq!(
        header("content-disposition"),
        "attachment; filename*=UTF-8''a%20%C3%A4%2Ehtml"
    );
    assert_eq!(
        header("content-security-policy"),
        "default-src 'none'; sandbox"
    );
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(file.bytes().await.expect("bytes").as_ref(), bytes);

    let deleted = operator.send("DELETE", path, None).await;
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    let gone = operator.send("GET", path, None).await;
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_logs_in_watches_and_is_let_go_at_a_shutdown() {
    let bench = Bench::start().await;
    let row = OperatorRow {
        name: "ada".to_owned(),
        password_hash: password::hash("correct horse battery".to_owned())
            .await
            .expect("hashed"),
        role: Role::Viewer,
        created: 0,
        tenant_id: None,
    };
    let mut tx = bench.fleet.db().write().await.expect("a transaction");
    operator_insert(&mut tx, &row).await.expect("inserted");
    tx.commit().await.expect("committed");
    let browser = https(&bench);
    let log_in = json!({ "name": "ada", "password": "correct horse battery" });

    let answer = browser
        .post(url(&bench, "/v1/session"))
        .json(&log_in)
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), StatusCode::CREATED);
    let cookie = answer.headers()["set-cookie"]
        .to_str()
        .expect("text")
        .split(';')
        .next()
        .expect("a cookie")
        .to_owned();
    let mut live = browser
        .get(url(&bench, "/v1/events"))
        .header("cookie", cookie)
        .send()
        .await
        .expect("an answer");
    assert!(live.chunk().await.expect("live").is_some());

    // Stops in time although someone is watching.
    bench.stop().await;
    while let Ok(Some(_)) = live.chunk().await {}
}
