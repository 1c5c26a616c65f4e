//! What happens to boxes, and who hears of it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::telemetry::{Telemetry, Temperature, VaultFill};
use serde_json::{Value, json};

use super::peers::Peer;
use crate::alerts::address::Reach;
use crate::alerts::deliver::{MAX_ATTEMPTS, Senders, send_due};
use crate::alerts::email::Mailer;
use crate::alerts::trust;
use crate::alerts::watch::look;
use crate::alerts::webhook::Webhooks;
use crate::http::tests::site::{Auth, NOW, Site};
use crate::store::Db;
use crate::store::alerts::{AlertFilter, alert_list};
use crate::store::boxes::{BoxState, box_set_birth, box_set_death, box_set_state};
use crate::store::locks::lock_release;
use crate::store::operators::Role;
use crate::store::telemetry::telemetry_insert;
use crate::store::testing::{add_box, on_both};
use crate::store::tests::birth;

const MINUTE: i64 = 60_000;

/// An active box with a session.
async fn live_box(site: &Site, n: u8) -> BoxId {
    let db = &site.people.db;
    let id = add_box(db, n).await;
    let mut birth = birth("s-1");
    birth.certificate_expires = longhaul_protocol::value::UnixMillis(NOW + 72 * 60 * MINUTE);
    let mut tx = db.write().await.expect("begins");
    box_set_state(&mut tx, &id, BoxState::Active, NOW)
        .await
        .expect("sets");
    assert!(
        box_set_birth(&mut tx, &id, &birth, NOW)
            .await
            .expect("sets")
    );
    tx.commit().await.expect("commits");
    id
}

async fn dies(site: &Site, id: &BoxId) {
    let mut tx = site.people.db.write().await.expect("begins");
    let now = site.people.clock.now().0;
    assert!(box_set_death(&mut tx, id, "s-1", now).await.expect("sets"));
    tx.commit().await.expect("commits");
}

async fn comes_back(site: &Site, id: &BoxId) {
    let mut tx = site.people.db.write().await.expect("begins");
    let now = site.people.clock.now().0;
    assert!(
        box_set_birth(&mut tx, id, &birth("s-1"), now)
            .await
            .expect("sets")
    );
    tx.commit().await.expect("commits");
}

async fn sends(site: &Site, id: &BoxId, celsius: f64, used_bytes: u64) {
    let sample = Telemetry {
        temperatures: vec![Temperature {
            sensor: "cpu".into(),
            celsius,
        }],
        vault: Some(VaultFill {
            capacity_bytes: 100,
            used_bytes,
            ..VaultFill::default()
        }),
        ..Telemetry::default()
    };
    let now = site.people.clock.now().0;
    let mut tx = site.people.db.write().await.expect("begins");
    telemetry_insert(&mut tx, id, now, &sample, now)
        .await
        .expect("inserts");
    tx.commit().await.expect("commits");
}

async fn looks(site: &Site) {
    assert!(look(&site.people.fleet, "w").await.expect("looks"));
}

async fn listed(site: &Site, auth: &Auth, query: &str) -> Vec<Value> {
    let answer = site
        .send("GET", &format!("/v1/alerts{query}"), auth, None)
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["items"].as_array().expect("items").clone()
}

async fn channel(site: &Site, admin: &Auth, kind: &str, target: &str, severity: &str) -> Value {
    let body = json!({ "name": "ops", "kind": kind, "target": target, "severity": severity });
    let made = site
        .send("POST", "/v1/alert-channels", admin, Some(body))
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    made.json()
}

async fn delivered(site: &Site, admin: &Auth, channel: &Value) -> Vec<Value> {
    let id = channel["channel"]["id"].as_str().expect("an id");
    let path = format!("/v1/alert-channels/{id}/deliveries");
    let answer = site.send("GET", &path, admin, None).await;
    answer.json()["items"].as_array().expect("items").clone()
}

fn senders(mail: Option<&Peer>) -> Senders {
    let reach = Reach {
        private: false,
        loopback: true,
    };
    let tls = trust::public().expect("TLS");
    let url = mail.map(|m| format!("smtp://127.0.0.1:{}", m.port));
    let sender = "Longhaul <fleet@cloud.test>";
    Senders {
        mailer: url.map(|url| Mailer::new(&url, sender, Arc::clone(&tls)).expect("a mailer")),
        webhooks: Webhooks::new(reach, tls),
    }
}

on_both! {
    async fn a_box_that_stays_away_opens_one_alert_that_ends_when_it_is_back(db: Db) {
        let site = Site::on(&db).await;
        let operator = site.token(Role::Operator).await;
        let (id, clock) = (live_box(&site, 1).await, &site.people.clock);
        looks(&site).await;
        assert!(listed(&site, &operator, "?state=all").await.is_empty());

        dies(&site, &id).await;
        clock.advance(14 * MINUTE);
        looks(&site).await;
        assert!(listed(&site, &operator, "").await.is_empty(), "not for long enough");
        clock.advance(MINUTE);
        looks(&site).await;
        looks(&site).await;
        let open = listed(&site, &operator, "").await;
        assert_eq!(open.len(), 1, "{open:?}");
        assert_eq!((&open[0]["state"], &open[0]["severity"], &open[0]["text"]), (&json!("open"), &json!("critical"), &json!("offline for 15 min")));
        let boxes = site.send("GET", "/v1/boxes", &operator, None).await.json();
        assert_eq!(boxes["items"][0]["alerts"], 1);

        let path = format!("/v1/alerts/{}", open[0]["id"].as_str().expect("an id"));
        let note = Some(json!({ "note": "calling the site" }));
        let taken = site.send("POST", &format!("{path}/acknowledge"), &operator, note.clone()).await;
        assert_eq!(taken.json()["state"], "acknowledged", "{taken:?}");
        let again = site.token(Role::Admin).await;
        let again = site.send("POST", &format!("{path}/acknowledge"), &again, note.clone()).await;
        assert_eq!(again.json()["acknowledged_by"], "token:test operator");

        comes_back(&site, &id).await;
        looks(&site).await;
        assert_eq!(listed(&site, &operator, "?state=acknowledged").await.len(), 1, "not well for long enough");
        clock.advance(2 * MINUTE);
        looks(&site).await;
        assert!(listed(&site, &operator, "").await.is_empty());
        let alert = site.send("GET", &path, &operator, None).await.json();
        let history: Vec<_> = alert["history"].as_array().expect("steps").iter().map(|s| s["kind"].as_str().expect("a kind").to_owned()).collect();
        assert_eq!(history, ["opened", "acknowledged", "resolved"]);
        assert_eq!(alert["history"][1]["note"], "calling the site");
        let late = site.send("POST", &format!("{path}/acknowledge"), &operator, note).await;
        assert_eq!(late.status, 409, "{late:?}");
        let boxes = site.send("GET", "/v1/boxes", &operator, None).await.json();
        assert_eq!(boxes["items"][0]["alerts"], 0);
    }

    async fn what_swings_around_its_threshold_tells_nobody_twice(db: Db) {
        let site = Site::on(&db).await;
        let (id, clock) = (live_box(&site, 1).await, &site.people.clock);
        let all = AlertFilter::default();
        for n in 0..40 {
            clock.advance(MINUTE);
            sends(&site, &id, if n % 2 == 0 { 90.0 } else { 79.0 }, 0).await;
            looks(&site).await;
        }
        let mut tx = db.read().await.expect("begins");
        assert!(alert_list(&mut tx, &all, None, 10).await.expect("lists").is_empty(), "it was never hot for long");
        drop(tx);
        for n in 0..40 {
            clock.advance(MINUTE);
            sends(&site, &id, if n % 2 == 0 { 90.0 } else { 86.0 }, 0).await;
            looks(&site).await;
        }
        for n in 0..40 {
            clock.advance(MINUTE);
            sends(&site, &id, if n % 2 == 0 { 90.0 } else { 70.0 }, 0).await;
            looks(&site).await;
        }
        let mut tx = db.read().await.expect("begins");
        let found = alert_list(&mut tx, &all, None, 10).await.expect("lists");
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].resolved, None, "it was never cool for long");
    }

    async fn two_processes_do_not_look_at_once_and_one_follows_the_other(db: Db) {
        let site = Site::on(&db).await;
        let (id, fleet, clock) = (live_box(&site, 1).await, &site.people.fleet, &site.people.clock);
        assert!(look(fleet, "a").await.expect("looks"));
        assert!(!look(fleet, "b").await.expect("looks"), "a holds the lock");
        assert!(look(fleet, "a").await.expect("looks"));
        clock.advance(31_000);
        assert!(look(fleet, "b").await.expect("looks"), "a is no more");
        assert!(!look(fleet, "a").await.expect("looks"));
        let mut tx = db.write().await.expect("begins");
        lock_release(&mut tx, "alerts", "b").await.expect("releases");
        tx.commit().await.expect("commits");
        dies(&site, &id).await;
        clock.advance(20 * MINUTE);
        let names = ["c", "d", "e", "f"];
        let looked = futures::future::join_all(names.map(|name| look(fleet, name))).await;
        assert_eq!(looked.into_iter().filter(|l| *l.as_ref().expect("looks")).count(), 1);
        let mut tx = db.read().await.expect("begins");
        assert_eq!(alert_list(&mut tx, &AlertFilter::default(), None, 10).await.expect("lists").len(), 1);
    }

    async fn rules_are_changed_by_administrators_and_what_nobody_looks_at_is_over(db: Db) {
        let site = Site::on(&db).await;
        let admin = site.token(Role::Admin).await;
        let rules = site.send("GET", "/v1/alert-rules", &admin, None).await.json();
        assert_eq!(rules["items"].as_array().expect("items").len(), 7);
        let id = live_box(&site, 1).await;
        let mut rule = json!({ "name": "Full", "kind": "vault_fill_percent", "raise_at": 50, "clear_at": 40,
            "hold_secs": 0, "clear_secs": 0, "severity": "critical", "enabled": true });
        let path = "/v1/alert-rules/half-full";
        assert_eq!(site.send("PUT", path, &admin, Some(rule.clone())).await.status, 200);
        sends(&site, &id, 20.0, 60).await;
        looks(&site).await;
        let open = listed(&site, &admin, "?severity=critical").await;
        assert_eq!((open.len(), &open[0]["text"]), (1, &json!("vault 60.0 % full")));

        rule["clear_at"] = json!(60);
        assert_eq!(site.send("PUT", path, &admin, Some(rule.clone())).await.status, 400);
        let operator = site.token(Role::Operator).await;
        assert_eq!(site.send("DELETE", path, &operator, None).await.status, 403);
        assert_eq!(site.send("DELETE", path, &admin, None).await.status, 204);
        assert_eq!(site.send("DELETE", path, &admin, None).await.status, 404);
        looks(&site).await;
        assert!(listed(&site, &admin, "").await.is_empty());
        assert_eq!(listed(&site, &admin, "?state=resolved").await.len(), 1);
    }

    async fn a_webhook_is_signed_and_sent_until_it_is_taken(db: Db) {
        let site = Site::on(&db).await;
        let admin = site.token(Role::Admin).await;
        let hook = Peer::web(&["302 Found\r\nlocation: http://127.0.0.1:1/", "503 Busy", "200 OK"]).await;
        let target = format!("http://127.0.0.1:{}/hook?token=1", hook.port);
        let made = channel(&site, &admin, "webhook", &target, "critical").await;
        let (id, clock) = (live_box(&site, 1).await, &site.people.clock);
        dies(&site, &id).await;
        clock.advance(16 * MINUTE);
        looks(&site).await;

        let senders = senders(None);
        for waits in 0..3 {
            assert_eq!(send_due(&site.people.fleet, &senders).await.expect("sends"), 1, "attempt {waits}");
            assert_eq!(send_due(&site.people.fleet, &senders).await.expect("sends"), 0, "it is not due yet");
            clock.advance(MINUTE);
        }

        let got = hook.got();
        assert_eq!(got.len(), 3, "no redirect was followed");
        let (head, body) = got[2].split_once("\r\n\r\n").expect("a request");
        assert!(head.starts_with("POST /hook?token=1 "), "{head}");
        let header = |name: &str| head.lines().find_map(|l| l.strip_prefix(&format!("{name}: "))).expect("the header").to_owned();
        let key = made["secret"].as_str().expect("a secret").strip_prefix("whsec_").expect("the standard's prefix");
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &STANDARD.decode(key).expect("base64"));
        let signed = format!("{}.{}.{body}", header("webhook-id"), header("webhook-timestamp"));
        let tag = STANDARD.decode(header("webhook-signature").strip_prefix("v1,").expect("v1")).expect("base64");
        aws_lc_rs::hmac::verify(&key, signed.as_bytes(), &tag).expect("the signature fits");
        let said: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!((&said["type"], &said["data"]["box"]), (&json!("alert.opened"), &json!(id.to_string())));
        assert!(got.iter().all(|g| g.ends_with(body)), "each attempt says the same");
        let all = delivered(&site, &admin, &made).await;
        assert_eq!((&all[0]["state"], &all[0]["attempts"]), (&json!("sent"), &json!(3)));
        let audit = site.send("GET", "/v1/audit", &admin, None).await;
        assert!(!String::from_utf8_lossy(&audit.body).contains("token=1"), "the URL may be a secret");
    }

    async fn mail_is_sent_by_smtp_until_it_is_taken(db: Db) {
        let site = Site::on(&db).await;
        let admin = site.token(Role::Admin).await;
        let server = Peer::mail(1).await;
        let made = channel(&site, &admin, "email", "ops@customer.test", "warning").await;
        let id = live_box(&site, 1).await;
        let path = format!("/v1/boxes/{id}");
        let evil = json!({ "label": "Büro 7" });
        assert_eq!(site.send("PATCH", &path, &admin, Some(evil)).await.status, 200);
        dies(&site, &id).await;
        site.people.clock.advance(16 * MINUTE);
        looks(&site).await;

        let senders = senders(Some(&server));
        assert_eq!(send_due(&site.people.fleet, &senders).await.expect("sends"), 1);
        let all = delivered(&site, &admin, &made).await;
        assert_eq!(all[0]["state"], "waiting");
        assert!(all[0]["reason"].as_str().expect("a reason").contains("come again"), "{all:?}");
        site.people.clock.advance(MINUTE);
        assert_eq!(send_due(&site.people.fleet, &senders).await.expect("sends"), 1);

        let got = server.got();
        assert_eq!(got.len(), 1);
        for part in ["MAIL FROM:<fleet@cloud.test>", "RCPT TO:<ops@customer.test>", "From: Longhaul <fleet@cloud.test>", "Message-ID: <msg-"] {
            assert!(got[0].contains(part), "{part}: {}", got[0]);
        }
        let (head, body) = got[0].split_once("\r\n\r\n").expect("a mail");
        let decode = |text: &str| String::from_utf8(STANDARD.decode(text).expect("base64")).expect("UTF-8");
        let words = head.split("=?UTF-8?B?").skip(1).map(|w| decode(w.split("?=").next().expect("an end")));
        assert_eq!(words.collect::<String>(), "[critical] Box is offline: Büro 7 (opened)");
        let body = decode(&body.replace("\r\n", ""));
        assert!(body.contains("offline for 16 min") && body.contains(id.as_str()), "{body}");
        assert_eq!(delivered(&site, &admin, &made).await[0]["state"], "sent");
    }

    async fn mail_goes_with_a_password_only_through_tls_that_is_verified(db: Db) {
        let site = Site::on(&db).await;
        let admin = site.token(Role::Admin).await;
        let (server, roots) = Peer::secure_mail().await;
        let made = channel(&site, &admin, "email", "ops@customer.test", "warning").await;
        let path = format!("/v1/alert-channels/{}/test", made["channel"]["id"].as_str().expect("an id"));
        assert_eq!(site.send("POST", &path, &admin, None).await.status, 202);
        let url = format!("smtp://user:p%40ss@localhost:{}?tls=required", server.port);
        let with = |tls| Senders {
            mailer: Some(Mailer::new(&url, "fleet@cloud.test", tls).expect("a mailer")),
            ..senders(None)
        };

        let stranger = with(trust::public().expect("TLS"));
        assert_eq!(send_due(&site.people.fleet, &stranger).await.expect("sends"), 1);
        assert!(server.got().is_empty(), "nothing was said to a server that nobody vouches for");
        site.people.clock.advance(MINUTE);
        let known = with(trust::of(roots).expect("TLS"));
        assert_eq!(send_due(&site.people.fleet, &known).await.expect("sends"), 1);

        let all = delivered(&site, &admin, &made).await;
        assert_eq!(all[0]["state"], "sent", "{all:?}");
        let token = STANDARD.encode("\0user\0p@ss");
        assert!(server.got()[0].contains(&format!("AUTH PLAIN {token}")), "{:?}", server.got());
    }

    async fn channels_are_told_what_they_want_and_give_up_in_the_end(db: Db) {
        let site = Site::on(&db).await;
        let admin = site.token(Role::Admin).await;
        // Nobody listens on port 1.
        let severe = channel(&site, &admin, "webhook", "http://127.0.0.1:1/", "critical").await;
        let mild = channel(&site, &admin, "email", "a@b.test", "warning").await;
        let (id, clock) = (live_box(&site, 1).await, &site.people.clock);
        sends(&site, &id, 99.0, 0).await;
        looks(&site).await;
        clock.advance(6 * MINUTE);
        sends(&site, &id, 99.0, 0).await;
        looks(&site).await;
        assert_eq!(delivered(&site, &admin, &severe).await.len(), 0, "heat is only a warning");
        assert_eq!(delivered(&site, &admin, &mild).await.len(), 1);

        let path = format!("/v1/alert-channels/{}", severe["channel"]["id"].as_str().expect("an id"));
        assert_eq!(site.send("POST", &format!("{path}/test"), &admin, None).await.status, 202);
        let senders = senders(None);
        for _ in 0..MAX_ATTEMPTS {
            assert_eq!(send_due(&site.people.fleet, &senders).await.expect("sends"), 2);
            clock.advance(3_600_001);
        }
        assert_eq!(send_due(&site.people.fleet, &senders).await.expect("sends"), 0);
        let failed = &delivered(&site, &admin, &mild).await[0];
        assert_eq!((&failed["state"], &failed["attempts"]), (&json!("failed"), &json!(MAX_ATTEMPTS)));
        assert!(failed["reason"].as_str().expect("a reason").contains("--smtp-url"), "{failed}");
        assert_eq!(delivered(&site, &admin, &severe).await[0]["state"], "failed");

        assert_eq!(site.send("DELETE", &path, &admin, None).await.status, 204);
        assert_eq!(site.send("DELETE", &path, &admin, None).await.status, 404);
        for (kind, target) in [("webhook", "https://10.0.0.1/"), ("webhook", "ftp://a/"), ("email", "nobody"), ("email", "a@b\r\nBcc: c@d")] {
            let body = json!({ "name": "x", "kind": kind, "target": target, "severity": "warning" });
            assert_eq!(site.send("POST", "/v1/alert-channels", &admin, Some(body)).await.status, 400, "{target}");
        }
    }
}
