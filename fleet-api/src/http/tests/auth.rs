//! Logging in, tokens, roles.

use serde_json::json;

use super::site::{Auth, NOW, Site};
use crate::auth::{SESSION_SECS, first_admin};
use crate::store::Db;
use crate::store::audit::audit_verify;
use crate::store::operators::Role;
use crate::store::testing::on_both;

const PASSWORD: &str = "correct horse battery";

async fn add_operator(site: &Site, name: &str, role: &str) {
    let admin = site.token(Role::Admin).await;
    let body = json!({ "name": name, "role": role, "password": PASSWORD });
    let made = site.send("POST", "/v1/operators", &admin, Some(body)).await;
    assert_eq!(made.status, 201, "{made:?}");
}

on_both! {
    async fn the_first_administrator_is_made_once_and_can_log_in(db: Db) {
        let site = Site::on(&db).await;

        let (name, password) = first_admin(&db, NOW).await.expect("makes").expect("is the first");
        assert_eq!(first_admin(&db, NOW).await.expect("looks"), None);

        let log_in = site.log_in(&name, &password).await;
        assert_eq!(log_in.status, 201);
        let me = site.send("GET", "/v1/me", &Auth::of(&log_in), None).await;
        assert_eq!(me.json(), json!({ "name": "admin", "role": "admin" }));
    }

    async fn a_session_is_a_strict_cookie_and_ends_by_log_out_or_time(db: Db) {
        let site = Site::on(&db).await;
        add_operator(&site, "ada", "viewer").await;
        let first = site.log_in("ada", PASSWORD).await;
        for part in ["__Host-longhaul-session=", "Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
            assert!(first.header("set-cookie").contains(part), "{part}");
        }
        let (first, second) = (Auth::of(&first), Auth::of(&site.log_in("ada", PASSWORD).await));

        assert_eq!(site.send("DELETE", "/v1/session", &first, None).await.status, 204);
        assert_eq!(site.send("GET", "/v1/me", &first, None).await.status, 401);
        assert_eq!(site.send("GET", "/v1/me", &second, None).await.status, 200);
        site.people.clock.advance(SESSION_SECS * 1000);
        assert_eq!(site.send("GET", "/v1/me", &second, None).await.status, 401);
    }

    async fn guessing_a_password_is_slowed_down_and_says_nothing_about_names(db: Db) {
        let site = Site::on(&db).await;
        add_operator(&site, "ada", "viewer").await;
        let mut refused = Vec::new();
        for name in ["ada", "nobody", "\0"] {
            let answer = site.log_in(name, "wrong").await;
            assert_eq!(answer.status, 401, "{name:?}");
            assert_eq!(answer.header("set-cookie"), "");
            refused.push(answer.json());
        }
        assert!(refused.iter().all(|r| *r == refused[0]), "{refused:?}");
        for _ in 0..4 {
            site.log_in("ada", "wrong").await;
        }

        let answer = site.log_in("ada", PASSWORD).await;

        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, "300"));
        site.people.clock.advance(301_000);
        assert_eq!(site.log_in("ada", PASSWORD).await.status, 201);
    }

    async fn a_foreign_site_cannot_use_the_cookie(db: Db) {
        let site = Site::on(&db).await;
        add_operator(&site, "ada", "admin").await;
        let Auth::Cookie(cookie) = Auth::of(&site.log_in("ada", PASSWORD).await) else {
            unreachable!("a log-in gives a cookie")
        };
        let body = json!({ "id": "o1", "customer": "c", "bucket": "bucket" });

        let bare = Auth::BareCookie(cookie.clone());
        assert_eq!(site.send("POST", "/v1/orders", &bare, Some(body.clone())).await.status, 403);
        assert_eq!(site.send("GET", "/v1/orders", &bare, None).await.status, 200);
        let form = site
            .send_bytes("POST", "/v1/orders", &Auth::Cookie(cookie.clone()), Some("text/plain"), body.to_string().into())
            .await;
        assert_eq!(form.status, 415);
        let dashboard = Auth::Cookie(cookie);
        assert_eq!(site.send("POST", "/v1/orders", &dashboard, Some(body)).await.status, 201);
    }

    async fn a_token_is_shown_once_and_ends(db: Db) {
        let site = Site::on(&db).await;
        let admin = site.token(Role::Admin).await;
        let body = json!({ "name": "ci", "role": "viewer", "expires_in_secs": 60 });
        let made = site.send("POST", "/v1/tokens", &admin, Some(body)).await.json();
        let secret = made["secret"].as_str().expect("a secret");
        let token = Auth::Token(secret.to_owned());

        assert_eq!(site.send("GET", "/v1/boxes", &token, None).await.status, 200);
        let listed = site.send("GET", "/v1/tokens", &admin, None).await;
        assert!(!String::from_utf8_lossy(&listed.body).contains(secret));
        site.people.clock.advance(60_000);
        assert_eq!(site.send("GET", "/v1/boxes", &token, None).await.status, 401);

        let body = json!({ "name": "ci", "role": "viewer" });
        let made = site.send("POST", "/v1/tokens", &admin, Some(body)).await.json();
        let token = Auth::Token(made["secret"].as_str().expect("a secret").to_owned());
        let path = format!("/v1/tokens/{}", made["token"]["id"].as_str().expect("an id"));
        assert_eq!(site.send("DELETE", &path, &admin, None).await.status, 204);
        assert_eq!(site.send("DELETE", &path, &admin, None).await.status, 404);
        assert_eq!(site.send("GET", "/v1/boxes", &token, None).await.status, 401);
    }

    async fn the_last_administrator_stays(db: Db) {
        let site = Site::on(&db).await;
        add_operator(&site, "ada", "admin").await;
        let admin = site.token(Role::Admin).await;

        let demoted = site.send("PATCH", "/v1/operators/ada", &admin, Some(json!({ "role": "viewer" }))).await;
        assert_eq!(demoted.status, 409, "{demoted:?}");
        assert_eq!(site.send("DELETE", "/v1/operators/ada", &admin, None).await.status, 409);

        add_operator(&site, "bob", "admin").await;
        let session = Auth::of(&site.log_in("ada", PASSWORD).await);
        assert_eq!(site.send("DELETE", "/v1/operators/ada", &admin, None).await.status, 204);
        assert_eq!(site.send("GET", "/v1/me", &session, None).await.status, 401);
        assert_eq!(site.send("DELETE", "/v1/operators/ada", &admin, None).await.status, 404);
        let mut tx = db.read().await.expect("begins");
        assert_eq!(audit_verify(&mut tx).await.expect("follows"), None);
    }

    async fn a_new_password_ends_the_sessions_of_the_old_one(db: Db) {
        let site = Site::on(&db).await;
        add_operator(&site, "ada", "viewer").await;
        let session = Auth::of(&site.log_in("ada", PASSWORD).await);
        let change = |old: &str, new: &str| Some(json!({ "old": old, "new": new }));
        let path = "/v1/me/password";

        assert_eq!(site.send("POST", path, &session, change("wrong", "a new long password")).await.status, 403);
        assert_eq!(site.send("POST", path, &session, change(PASSWORD, "short")).await.status, 400);
        assert_eq!(site.send("POST", path, &session, change(PASSWORD, "a new long password")).await.status, 204);
        assert_eq!(site.send("GET", "/v1/me", &session, None).await.status, 401);
        assert_eq!(site.log_in("ada", PASSWORD).await.status, 401);
        assert_eq!(site.log_in("ada", "a new long password").await.status, 201);
    }
}
