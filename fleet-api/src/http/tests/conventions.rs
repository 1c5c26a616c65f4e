//! What holds for every route: problems, tags, keys.

use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};

use super::site::{Answer, Auth, Site};
use super::walk::operations;
use crate::store::Db;
use crate::store::boxes::{BoxState, box_set_state};
use crate::store::operators::Role;
use crate::store::testing::{add_box, on_both};

/// A request with headers of its own.
pub(super) async fn with(
    site: &Site,
    method: &str,
    path: &str,
    auth: &Auth,
    headers: &[(&'static str, &str)],
    body: Option<Value>,
) -> Answer {
    let Auth::Token(token) = auth else {
        panic!("a token")
    };
    let mut request = ::http::Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {token}"));
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = body.map(|b| b.to_string()).unwrap_or_default();
    site.call(
        request
            .body(Full::new(Bytes::from(body)))
            .expect("a request"),
    )
    .await
}

async fn active_box(db: &Db) -> String {
    let id = add_box(db, 1).await;
    let mut tx = db.write().await.expect("begins");
    box_set_state(&mut tx, &id, BoxState::Active, 1)
        .await
        .expect("sets");
    tx.commit().await.expect("commits");
    id.to_string()
}

on_both! {
    async fn a_creating_request_that_is_sent_twice_makes_one_thing(db: Db) {
        let site = Site::on(&db).await;
        let id = active_box(&db).await;
        let admin = site.token(Role::Admin).await;
        // The account that answers for what the token proposes.
        let account = json!({ "name": "test", "role": "admin", "password": "correct horse battery" });
        assert_eq!(site.send("POST", "/v1/operators", &admin, Some(account)).await.status, 201);
        let count = async |path: &str| site.send("GET", path, &admin, None).await.json()["items"].as_array().map_or(0, Vec::len);
        for (path, list, body, other) in [
            ("/v1/orders".to_owned(), "/v1/orders".to_owned(), json!({ "customer": "C", "bucket": "abc" }), json!({ "customer": "D", "bucket": "abc" })),
            ("/v1/tokens".to_owned(), "/v1/tokens".to_owned(), json!({ "name": "t", "role": "viewer" }), json!({ "name": "u", "role": "viewer" })),
            (format!("/v1/boxes/{id}/commands"), format!("/v1/boxes/{id}/commands"), json!({ "kind": "report_now" }), json!({ "kind": "identify", "seconds": 5 })),
            (format!("/v1/boxes/{id}/tickets"), format!("/v1/boxes/{id}/tickets"), json!({ "bucket": "abc" }), json!({ "bucket": "abd" })),
            ("/v1/tenants".to_owned(), "/v1/tenants".to_owned(), json!({ "id": "t", "name": "T" }), json!({ "id": "u", "name": "U" })),
            ("/v1/operators".to_owned(), "/v1/operators".to_owned(), json!({ "name": "o", "role": "viewer", "password": "correct horse battery" }), json!({ "name": "p", "role": "viewer", "password": "correct horse battery" })),
            ("/v1/alert-channels".to_owned(), "/v1/alert-channels".to_owned(), json!({ "name": "c", "kind": "webhook", "target": "https://hooks.example", "severity": "warning" }), json!({ "name": "d", "kind": "email", "target": "a@example.com", "severity": "warning" })),
            (format!("/v1/boxes/{id}/proposals"), "/v1/proposals".to_owned(), json!({ "kind": "erase_bucket", "bucket": "abc", "reason": "R" }), json!({ "kind": "erase_bucket", "bucket": "abd", "reason": "R" })),
        ] {
            let before = count(&list).await;
            let key = [("idempotency-key", path.as_str())];
            let first = with(&site, "POST", &path, &admin, &key, Some(body.clone())).await;
            let again = with(&site, "POST", &path, &admin, &key, Some(body)).await;
            let another = with(&site, "POST", &path, &admin, &key, Some(other)).await;
            assert_eq!((first.status.as_u16(), again.status.as_u16(), another.status.as_u16()), (201, 201, 422), "{first:?} {again:?} {another:?}");
            assert_eq!(first.body, again.body, "{path}");
            assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), ("", "true"));
            assert_eq!(count(&list).await, before + 1, "{path}");
        }
        let bad = with(&site, "POST", "/v1/orders", &admin, &[("idempotency-key", "a b")], Some(json!({ "customer": "C", "bucket": "abc" }))).await;
        assert_eq!((bad.status.as_u16(), &bad.json()["errors"][0]["parameter"]), (400, &json!("Idempotency-Key")));
    }

    async fn a_bulk_command_that_is_sent_twice_is_one(db: Db) {
        let site = Site::on(&db).await;
        active_box(&db).await;
        let admin = site.token(Role::Admin).await;
        let body = || Some(json!({ "filter": "", "command": { "kind": "report_now" } }));
        let key = [("idempotency-key", "k")];
        let seen = with(&site, "POST", "/v1/bulk-previews", &admin, &key, body()).await;
        let again = with(&site, "POST", "/v1/bulk-previews", &admin, &key, body()).await;
        assert_eq!((seen.status.as_u16(), &seen.body), (201, &again.body), "{seen:?}");
        let bulk = Some(json!({ "preview": seen.json()["preview"] }));
        let key = [("idempotency-key", "l")];
        let first = with(&site, "POST", "/v1/bulk-commands", &admin, &key, bulk.clone()).await;
        let again = with(&site, "POST", "/v1/bulk-commands", &admin, &key, bulk).await;
        assert_eq!((first.status.as_u16(), &first.body), (201, &again.body), "{first:?}");
        assert_eq!(site.send("GET", "/v1/bulk-commands", &admin, None).await.json()["items"].as_array().map(Vec::len), Some(1));
    }

    async fn the_answer_is_written_with_what_it_tells_of(db: Db) {
        let site = Site::on(&db).await;
        let id = active_box(&db).await;
        let admin = site.token(Role::Admin).await;
        let path = format!("/v1/boxes/{id}/commands");
        let key = [("idempotency-key", "k")];
        let first = with(&site, "POST", &path, &admin, &key, Some(json!({ "kind": "report_now" }))).await;
        // The thing moves on; the answer to a repetition does not.
        let cancel = format!("/v1/commands/{}/cancel", first.json()["id"].as_str().expect("an id"));
        assert_eq!(site.send("POST", &cancel, &admin, None).await.status, 200);
        let again = with(&site, "POST", &path, &admin, &key, Some(json!({ "kind": "report_now" }))).await;
        assert_eq!(first.body, again.body);
        // What is undone takes key and answer along.
        let taken = [("idempotency-key", "t")];
        let order = || Some(json!({ "id": "one", "customer": "C", "bucket": "abc" }));
        assert_eq!(site.send("POST", "/v1/orders", &admin, order()).await.status, 201);
        for _ in 0..2 {
            assert_eq!(with(&site, "POST", "/v1/orders", &admin, &taken, order()).await.status, 409);
        }
    }

    async fn a_key_ends_with_its_day_and_belongs_to_its_caller(db: Db) {
        let site = Site::on(&db).await;
        let (admin, operator) = (site.token(Role::Admin).await, site.token(Role::Operator).await);
        let body = || Some(json!({ "customer": "C", "bucket": "abc" }));
        let key = [("idempotency-key", "k")];
        let first = with(&site, "POST", "/v1/orders", &admin, &key, body()).await.json()["id"].clone();
        let others = with(&site, "POST", "/v1/orders", &operator, &key, body()).await.json()["id"].clone();
        assert_ne!(first, others);
        // What failed is not kept.
        let wrong = [("idempotency-key", "w")];
        assert_eq!(with(&site, "POST", "/v1/orders", &admin, &wrong, Some(json!({ "customer": "C", "bucket": "B" }))).await.status, 400);
        assert_eq!(with(&site, "POST", "/v1/orders", &admin, &wrong, body()).await.status, 201);
        site.people.clock.advance(86_400_000);
        let later = with(&site, "POST", "/v1/orders", &admin, &key, body()).await.json()["id"].clone();
        assert_ne!(first, later);
    }

    async fn of_two_with_one_key_at_once_one_makes_it(db: Db) {
        let site = Site::on(&db).await;
        let admin = site.token(Role::Admin).await;
        let key = [("idempotency-key", "race")];
        let one = || with(&site, "POST", "/v1/orders", &admin, &key, Some(json!({ "customer": "C", "bucket": "abc" })));
        let answers = futures::future::join_all((0..8).map(|_| one())).await;
        for answer in &answers {
            assert!(matches!(answer.status.as_u16(), 201 | 409), "{answer:?}");
        }
        assert_eq!(site.send("GET", "/v1/orders", &admin, None).await.json()["items"].as_array().map(Vec::len), Some(1));
        assert_eq!(one().await.status, 201);
    }

    async fn a_number_is_whole_however_it_is_written(db: Db) {
        let site = Site::on(&db).await;
        let id = active_box(&db).await;
        let admin = site.token(Role::Admin).await;
        let path = format!("/v1/boxes/{id}/commands");
        for (path, body, status) in [
            (path.as_str(), "{\"kind\":\"identify\",\"seconds\":5.0,\"expires_in_secs\":6e1}", 201),
            (path.as_str(), "{\"kind\":\"identify\",\"seconds\":5.5}", 400),
            ("/v1/tokens", "{\"name\":\"t\",\"role\":\"viewer\",\"expires_in_secs\":60.0}", 201),
            ("/v1/tokens", "{\"name\":\"t\",\"role\":\"viewer\",\"expires_in_secs\":1e300}", 400),
            ("/v1/tokens", "{\"name\":1.0,\"role\":\"viewer\"}", 400),
        ] {
            let answer = site.send_bytes("POST", path, &admin, Some("application/json"), Bytes::from_static(body.as_bytes())).await;
            assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
        }
    }

    async fn a_tag_that_is_none_is_refused(db: Db) {
        let site = Site::on(&db).await;
        let id = active_box(&db).await;
        let admin = site.token(Role::Admin).await;
        for (tag, status) in [("0", 400), ("\"a", 400), ("W/\"a\"", 412), ("\"a\" , \"b,\",W/\"\"", 412), ("\"a\" \"b\"", 400), ("\"a\",", 400), ("*, \"a\"", 400), ("*", 200)] {
            let answer = with(&site, "PATCH", &format!("/v1/boxes/{id}"), &admin, &[("if-match", tag)], Some(json!({ "label": "a" }))).await;
            assert_eq!(answer.status, status, "{tag}: {answer:?}");
        }
    }

    async fn nobody_overwrites_what_they_did_not_see(db: Db) {
        let site = Site::on(&db).await;
        let id = active_box(&db).await;
        let admin = site.token(Role::Admin).await;
        for (name, role) in [("root", "admin"), ("eve", "viewer")] {
            let operator = json!({ "name": name, "role": role, "password": "correct horse battery" });
            assert_eq!(site.send("POST", "/v1/operators", &admin, Some(operator)).await.status, 201);
        }
        let rule = |raise: f64| json!({ "name": "Disk", "kind": "disk_free_percent", "raise_at": raise, "clear_at": raise + 2.0, "hold_secs": 60, "clear_secs": 60, "severity": "warning", "enabled": true });
        for (read, method, path, first, second) in [
            (format!("/v1/boxes/{id}"), "PATCH", format!("/v1/boxes/{id}"), json!({ "label": "a" }), json!({ "label": "b" })),
            (format!("/v1/boxes/{id}/uplink"), "PUT", format!("/v1/boxes/{id}/uplink"), json!({ "paused": true, "priorities": {} }), json!({ "paused": false, "priorities": {} })),
            (format!("/v1/boxes/{id}/network"), "PUT", format!("/v1/boxes/{id}/network"), json!({ "vlan": 7 }), json!({})),
            ("/v1/operators/eve".to_owned(), "PATCH", "/v1/operators/eve".to_owned(), json!({ "role": "operator" }), json!({ "role": "viewer" })),
            ("/v1/alert-rules/disk-free".to_owned(), "PUT", "/v1/alert-rules/disk-free".to_owned(), rule(5.0), rule(6.0)),
        ] {
            let seen = site.send("GET", &read, &admin, None).await;
            let tag = seen.header("etag").to_owned();
            assert_eq!(tag.len(), 34, "{read}: {seen:?}");
            let changed = with(&site, method, &path, &admin, &[("if-match", &tag)], Some(first)).await;
            assert_eq!(changed.status, 200, "{path}: {changed:?}");
            assert_ne!(changed.header("etag"), tag, "{path}");
            let stale = with(&site, method, &path, &admin, &[("if-match", &tag)], Some(second.clone())).await;
            assert_eq!(stale.status, 412, "{path}: {stale:?}");
            assert_eq!(stale.header("etag"), changed.header("etag"), "{path}");
            assert!(stale.json()["current"].is_object(), "{path}: {stale:?}");
            let now = site.send("GET", &read, &admin, None).await;
            assert_eq!(now.header("etag"), changed.header("etag"), "{path}: nothing was changed");
            let both = format!("\"00\", {}", now.header("etag"));
            assert_eq!(with(&site, method, &path, &admin, &[("if-match", &both)], Some(second)).await.status, 200, "{path}");
        }
        let gone = with(&site, "DELETE", "/v1/operators/eve", &admin, &[("if-match", "\"00\"")], None).await;
        assert_eq!(gone.status, 412);
        assert_eq!(with(&site, "DELETE", "/v1/operators/eve", &admin, &[("if-match", "*")], None).await.status, 204);
    }

    async fn what_a_path_does_not_take_is_said_with_what_it_takes(db: Db) {
        let site = Site::on(&db).await;
        let admin = site.token(Role::Admin).await;
        for operation in operations() {
            let answer = site.send("TRACE", &operation.path(), &admin, None).await;
            assert_eq!(answer.status, 405, "{}", operation.template);
            assert!(answer.header("allow").contains(&operation.method), "{}: {answer:?}", operation.template);
            assert_eq!(answer.header("content-type"), "application/problem+json");
        }
    }
}
