//! Nothing that a caller sends makes the cloud fail.

use bytes::Bytes;
use serde_json::json;

use super::site::{Auth, Site};
use super::walk::operations;
use crate::store::Db;
use crate::store::operators::Role;
use crate::store::testing::{add_box, on_both};

fn bodies() -> Vec<(&'static str, Bytes)> {
    vec![
        ("nothing", Bytes::new()),
        ("bytes", Bytes::from_static(b"\xff\x00\xfe{\"")),
        ("null", Bytes::from_static(b"null")),
        ("list", Bytes::from_static(b"[]")),
        ("empty", Bytes::from_static(b"{}")),
        ("unknown field", Bytes::from_static(b"{\"surprise\":1}")),
        ("deep", Bytes::from("[".repeat(4000))),
        ("number", Bytes::from_static(b"{\"name\":1e999,\"kind\":\"identify\",\"seconds\":70000}")),
        ("NUL", Bytes::from_static(b"{\"name\":\"\\u0000\",\"label\":\"\\u0000\",\"customer\":\"\\u0000\",\"bucket\":\"\\u0000\"}")),
        ("long", Bytes::from(vec![b' '; 1 << 20])),
    ]
}

/// The object store does not answer in these tests: 503 is the honest answer there.
fn is_fine(status: u16) -> bool {
    status < 500 || status == 503
}

on_both! {
    async fn no_body_makes_it_fail(db: Db) {
        let site = Site::on(&db).await;
        let admin = site.token(Role::Admin).await;
        for operation in operations() {
            if operation.template == "/v1/events" { continue; }
            for (name, body) in bodies() {
                let path = operation.path();
                let auth = if operation.role.is_some() { &admin } else { &Auth::None };
                let answer = site.send_bytes(&operation.method, &path, auth, Some("application/json"), body.clone()).await;
                let what = format!("{} {path} with {name}: {answer:?}", operation.method);
                assert!(is_fine(answer.status.as_u16()), "{what}");
                if answer.status.as_u16() >= 400 {
                    assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
                    assert_eq!(answer.json()["status"], answer.status.as_u16(), "{what}");
                }
                // Lists of boxes and parts of a journal may be long.
                let long = ["/v1/rollouts", "/v1/offline/journals"];
                if name == "long" && !long.contains(&operation.template.as_str()) {
                    assert_eq!(answer.status, 413, "{what}");
                }
            }
        }
    }

    async fn no_path_and_no_query_makes_it_fail(db: Db) {
        let site = Site::on(&db).await;
        add_box(&db, 1).await;
        let admin = site.token(Role::Admin).await;
        let parts = ["%00", "%ff", "..%2f..%2fetc", "%F0%9F%98%80", "-", "TESTB0X00001"];
        let queries = [
            "cursor=%00", "cursor=bnVsbA", "cursor=eyJhIjoxfQ", "cursor=IgAi", "limit=-1", "limit=0",
            "limit=4294967295", "limit=99999999999", "surprise=1", "q=%00", "q=%25_%5C", "online=perhaps",
            "state=gone", "since=-1", "since=9223372036854775807", "until=-9223372036854775808",
            "since=0&until=9223372036854775807&limit=1", "box_id=x", "bucket=%00", "bucket=abc&prefix=%00",
            "bucket=abc&delimiter=", "=&=&&&", "%ff=%ff",
        ];
        for operation in operations() {
            if operation.template == "/v1/events" || operation.method != "GET" { continue; }
            for part in parts {
                let path: String = operation.template.split('/').map(|s| {
                    if s.starts_with('{') { part.to_owned() } else { s.to_owned() }
                }).collect::<Vec<_>>().join("/");
                for query in queries {
                    let url = format!("{path}?{query}");
                    let answer = site.send("GET", &url, &admin, None).await;
                    assert!(is_fine(answer.status.as_u16()), "{url}: {answer:?}");
                }
                if !operation.template.contains('{') { break; }
            }
        }
    }

    async fn what_is_not_there_is_not_there(db: Db) {
        let site = Site::on(&db).await;
        let admin = site.token(Role::Admin).await;
        for (method, path, status) in [
            ("GET", "/v1", 404),
            ("GET", "/v1/", 404),
            ("GET", "/v1/boxes/", 404),
            ("GET", "/v1/boxes/00000000000Z", 404),
            ("GET", "/v1/boxes/lower0case00", 400),
            ("GET", "/v1/boxes/00000000000Z/timeline", 404),
            ("GET", "/v1/commands/none", 404),
            ("GET", "/v1/orders/none", 404),
            ("GET", "/v1/tickets/none/download", 404),
            ("PUT", "/v1/boxes", 405),
            ("TRACE", "/v1/boxes", 405),
            ("POST", "/", 405),
            ("GET", "/v1/objects/UPPER/key", 400),
            ("GET", "/v1/objects/bucket/../key", 400),
        ] {
            let answer = site.send(method, path, &admin, None).await;
            assert_eq!(answer.status.as_u16(), status, "{method} {path}: {answer:?}");
        }
    }

    async fn a_name_that_breaks_the_rule_is_refused(db: Db) {
        let site = Site::on(&db).await;
        let admin = site.token(Role::Admin).await;
        let password = "correct horse battery";
        for (path, body) in [
            ("/v1/operators", json!({ "name": "", "role": "viewer", "password": password })),
            ("/v1/operators", json!({ "name": "a b", "role": "viewer", "password": password })),
            ("/v1/operators", json!({ "name": "a", "role": "owner", "password": password })),
            ("/v1/operators", json!({ "name": "a", "role": "viewer", "password": "short" })),
            ("/v1/operators", json!({ "name": "a", "role": "viewer", "password": "x".repeat(300) })),
            ("/v1/tokens", json!({ "name": "", "role": "viewer" })),
            ("/v1/tokens", json!({ "name": "a\nb", "role": "viewer" })),
            ("/v1/tokens", json!({ "name": "a", "role": "viewer", "expires_in_secs": -1 })),
            ("/v1/orders", json!({ "id": "a/b", "customer": "", "bucket": "bucket" })),
            ("/v1/orders", json!({ "customer": "", "bucket": "Bucket" })),
            ("/v1/orders", json!({ "customer": "", "bucket": "a..b" })),
            ("/v1/orders", json!({ "customer": "x".repeat(201), "bucket": "bucket" })),
            ("/v1/rollouts", json!({ "version": "1", "boxes": [] })),
            ("/v1/rollouts", json!({ "version": "1", "boxes": ["x"] })),
            ("/v1/inventory", json!({ "jws": "a.b.c" })),
            ("/v1/boxes/00000000000Z/commands", json!({ "kind": "identify", "seconds": 0 })),
            ("/v1/boxes/00000000000Z/commands", json!({ "kind": "report_now", "expires_in_secs": 0 })),
            ("/v1/boxes/00000000000Z/commands", json!({ "kind": "wipe" })),
            ("/v1/boxes/00000000000Z/tickets", json!({ "bucket": "bucket", "expires_in_secs": 0 })),
        ] {
            let answer = site.send("POST", path, &admin, Some(body.clone())).await;
            assert_eq!(answer.status, 400, "{path} {body}: {answer:?}");
            assert_ne!(answer.json()["detail"], "", "{path} {body}");
        }
    }
}
