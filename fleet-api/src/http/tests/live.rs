//! Live events, the dashboard's files, the headers of every answer.

use std::sync::Arc;

use ::http::StatusCode;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::json;
use warp::reply::Response;

use super::site::{Auth, Site};
use crate::fleet::FleetEventKind;
use crate::http::dashboard::CSP;
use crate::store::Db;
use crate::store::operators::Role;
use crate::store::testing::{add_box, on_both};

async fn watch(site: &Site, auth: &Auth, path: &str) -> Response {
    let response = site.open("GET", path, auth, None, Bytes::new()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    response
}

/// The next piece that is not a sign of life; `None` at the end.
async fn next(response: &mut Response) -> Option<String> {
    loop {
        let frame = response.frame().await?.expect("a frame");
        let text = String::from_utf8(frame.into_data().expect("data").to_vec()).expect("text");
        if text != ": alive\n\n" {
            return Some(text);
        }
    }
}

on_both! {
    async fn what_happens_is_told_to_whoever_watches(db: Db) {
        let site = Site::on(&db).await;
        let viewer = site.token(Role::Viewer).await;
        let (one, two) = (add_box(&db, 1).await, add_box(&db, 2).await);
        let mut all = watch(&site, &viewer, "/v1/events").await;
        let mut only_two = watch(&site, &viewer, &format!("/v1/events?box_id={two}")).await;
        assert!(next(&mut all).await.expect("a begin").contains("retry:"));
        next(&mut only_two).await.expect("a begin");

        site.people.fleet.tell(Some(&one), FleetEventKind::Offline);
        site.people.fleet.tell(Some(&two), FleetEventKind::BoxRevoked);

        let first = next(&mut all).await.expect("an event");
        let data = first.strip_prefix("data: ").expect("data").trim();
        let event: serde_json::Value = serde_json::from_str(data).expect("JSON");
        assert_eq!((&event["event"], &event["box_id"]), (&json!("offline"), &json!(one.as_str())));
        assert!(next(&mut all).await.expect("an event").contains("box_revoked"));
        assert!(next(&mut only_two).await.expect("an event").contains("box_revoked"));
    }

    async fn watching_ends_at_a_shutdown_and_when_the_token_does(db: Db) {
        let site = Site::on(&db).await;
        let (first, second) = (site.token(Role::Viewer).await, site.token(Role::Viewer).await);
        let admin = site.token(Role::Admin).await;
        let mut revoked = watch(&site, &first, "/v1/events").await;
        let mut stopped = watch(&site, &second, "/v1/events").await;
        next(&mut revoked).await.expect("a begin");
        next(&mut stopped).await.expect("a begin");
        let tokens = site.send("GET", "/v1/tokens", &admin, None).await.json();
        // Both have the same name; the first one made is the one that sorts last.
        let ids: Vec<_> = tokens["items"].as_array().expect("tokens").iter()
            .filter(|t| t["role"] == "viewer").map(|t| t["id"].as_str().expect("an id")).collect();
        let oldest = ids.iter().min().expect("two");
        site.send("DELETE", &format!("/v1/tokens/{oldest}"), &admin, None).await;

        assert_eq!(next(&mut revoked).await, None);
        site.people.stop.cancel();
        assert_eq!(next(&mut stopped).await, None);
    }

    async fn no_more_watch_than_there_is_room_for(db: Db) {
        let site = Site::on(&db).await;
        let viewer = site.token(Role::Viewer).await;
        let room = Arc::clone(&site.people.watchers);
        let taken = room.acquire_many(u32::try_from(room.available_permits()).expect("few")).await.expect("open");

        let answer = site.send("GET", "/v1/events", &viewer, None).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "5"));

        drop(taken);
        watch(&site, &viewer, "/v1/events").await;
    }

    async fn every_answer_is_hardened(db: Db) {
        let site = Site::on(&db).await;
        for path in ["/", "/boxes/TESTB0X00001", "/assets/none.js", "/v1/boxes", "/v1/openapi.json", "/healthz", "/v1/none"] {
            let answer = site.send("GET", path, &Auth::None, None).await;
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
            assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
            assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
            let csp = answer.header("content-security-policy");
            assert!(csp.starts_with("default-src 'none'"), "{path}: {csp}");
            assert!(csp.contains("frame-ancestors 'none'"), "{path}: {csp}");
        }
        let page = site.send("GET", "/", &Auth::None, None).await;
        assert_eq!((page.status.as_u16(), page.header("content-security-policy")), (200, CSP));
        assert!(!CSP.contains("unsafe") && !CSP.contains("http"));
        for path in ["/", "/healthz", "/v1/openapi.json"] {
            let page = site.send("GET", path, &Auth::None, None).await;
            let head = site.send("HEAD", path, &Auth::None, None).await;
            assert_eq!((head.status, head.body.len()), (page.status, 0), "{path}");
            assert_eq!(head.header("content-length"), page.body.len().to_string(), "{path}");
        }
        let missing = site.send("GET", "/assets/none.js", &Auth::None, None).await;
        assert_eq!(missing.status, 404);
        let escape = site.send("GET", "/..%2f..%2fCargo.toml", &Auth::None, None).await;
        assert_eq!(escape.status, 404);
    }
}
