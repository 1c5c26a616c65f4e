//! Orders' networks: what people say, and what a probe's report adds.

use longhaul_protocol::probe::{
    Ipv6, MAX_LIST, Nat, ProbeClaims, ProbeReport, ProbeTicket, SignedReport, WayOut,
};
use longhaul_protocol::value::{Blob, UnixMillis};
use longhaul_provisioning::probe;
use serde_json::{Value, json};

use super::site::{Auth, Site};
use crate::store::Db;
use crate::store::operators::Role;
use crate::store::testing::on_both;

async fn add_order(site: &Site, id: &str) {
    let admin = site.token(Role::Admin).await;
    let body = json!({ "id": id, "customer": "C", "bucket": format!("bucket-{id}") });
    let made = site.send("POST", "/v1/orders", &admin, Some(body)).await;
    assert_eq!(made.status, 201, "{made:?}");
}

async fn ticket_for(site: &Site, auth: &Auth, order: &str) -> (ProbeTicket, ProbeClaims) {
    let path = format!("/v1/orders/{order}/probe-tickets");
    let given = site.send("POST", &path, auth, Some(json!({}))).await;
    assert_eq!(given.status, 200, "{given:?}");
    probe::open(&given.body).expect("a ticket")
}

fn report(claims: &ProbeClaims, proxy: Option<&str>) -> ProbeReport {
    ProbeReport {
        v: 1,
        ticket: claims.id.clone(),
        probe_version: "0.1.0\0".into(),
        at: UnixMillis(0),
        findings: Vec::new(),
        ladder: Vec::new(),
        interfaces: Vec::new(),
        gateway: None,
        dns: Vec::new(),
        nat: Nat::Cone,
        path_mtu: Some(1500),
        proxy: proxy.map(str::to_owned),
        egress: vec![WayOut {
            host: "cloud.example".into(),
            port: 443,
            what: "registration".into(),
            open: true,
            code: None,
        }],
        multicast: None,
        clock_ahead_ms: None,
        line: None,
        ipv6: Ipv6::default(),
    }
}

async fn hand_in(site: &Site, auth: &Auth, order: &str, signed: &SignedReport) -> (u16, Value) {
    let path = format!("/v1/orders/{order}/probe-reports");
    let body = serde_json::to_value(signed).expect("JSON");
    let answer = site.send("POST", &path, auth, Some(body)).await;
    (answer.status.as_u16(), answer.json())
}

on_both! {
    async fn a_report_fills_in_what_nobody_said_and_marks_what_differs(db: Db) {
        let site = Site::on(&db).await;
        let operator = site.token(Role::Operator).await;
        add_order(&site, "o-1").await;
        let (ticket, claims) = ticket_for(&site, &operator, "o-1").await;
        let said = json!({ "proxy": "http://theirs:3128", "vlan": 20, "dot1x": false });
        let set = site.send("PUT", "/v1/orders/o-1/network", &operator, Some(said.clone())).await;
        assert_eq!((set.status.as_u16(), &set.json()["said"]), (200, &said));

        let signed = probe::sign(&ticket, &report(&claims, Some("found:8080"))).expect("signed");
        let (status, network) = hand_in(&site, &operator, "o-1", &signed).await;
        assert_eq!(status, 200, "{network}");
        let twice = hand_in(&site, &operator, "o-1", &signed).await;
        assert_eq!(twice, (200, network.clone()));

        assert_eq!(network["answers"], json!({
            "proxy": "http://theirs:3128", "vlan": 20, "dot1x": false,
            "egress": [{ "host": "cloud.example", "port": 443 }],
        }));
        assert_eq!(network["said"], said);
        assert_eq!(network["found"]["proxy"], "http://found:8080");
        assert_eq!(network["differs"], json!(["proxy"]));
        assert!(network["said_by"]["vlan"]["by"].is_string() && network["said_by"]["egress"].is_null());
        let listed = site.send("GET", "/v1/orders/o-1/probe-reports", &operator, None).await.json();
        assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
        assert_eq!(listed["items"][0]["report"]["nat"], "cone");
        let file = site.send("GET", "/v1/orders/o-1/file", &operator, None).await;
        assert_eq!(file.status, 200);
    }

    async fn what_is_not_this_orders_is_refused(db: Db) {
        let (site, elsewhere) = (Site::on(&db).await, Site::on(&db).await);
        let operator = site.token(Role::Operator).await;
        add_order(&site, "o-1").await;
        add_order(&site, "o-2").await;
        let (ticket, claims) = ticket_for(&site, &operator, "o-1").await;
        let good = probe::sign(&ticket, &report(&claims, None)).expect("signed");
        let status = async |order: &str, signed: &SignedReport| hand_in(&site, &operator, order, signed).await.0;

        assert_eq!(status("o-2", &good).await, 403, "another order's");
        assert_eq!(status("o-9", &good).await, 404, "no such order");
        let altered = SignedReport { report: good.report.replace("cone", "none"), ..good.clone() };
        assert_eq!(status("o-1", &altered).await, 403);
        let unsigned = SignedReport { signature: Blob(vec![0; 64]), ..good.clone() };
        assert_eq!(status("o-1", &unsigned).await, 403);
        let foreign = elsewhere.token(Role::Operator).await;
        let (other, other_claims) = ticket_for(&elsewhere, &foreign, "o-1").await;
        let foreign = probe::sign(&other, &report(&other_claims, None)).expect("signed");
        let same_fleet = other_claims.root_pem == claims.root_pem;
        assert_eq!(status("o-1", &foreign).await, if same_fleet { 200 } else { 403 }, "another fleet's");
        let many = ProbeReport { dns: Vec::new(), egress: vec![report(&claims, None).egress.remove(0); MAX_LIST + 1], ..report(&claims, None) };
        let many = probe::sign(&ticket, &many).expect("signed");
        assert_eq!(status("o-1", &many).await, 400);
        assert_eq!(status("o-1", &good).await, 200);
        for days in [0, 91, u32::MAX] {
            let asked = site.send("POST", "/v1/orders/o-1/probe-tickets", &operator, Some(json!({ "days": days }))).await;
            assert_eq!(asked.status, 400, "{days}");
        }
    }

    async fn answers_that_cannot_be_are_pointed_at(db: Db) {
        let site = Site::on(&db).await;
        let operator = site.token(Role::Operator).await;
        add_order(&site, "o-1").await;
        for (body, pointer) in [
            (json!({ "vlan": 5000 }), "#/vlan"),
            (json!({ "proxy": "http://ada:secret@proxy:1" }), "#/proxy"),
            (json!({ "address": { "kind": "static", "address": "192.0.2.7", "prefix_len": 24, "gateway": "10.0.0.1" } }), "#/address"),
            (json!({ "egress": [{ "host": "", "port": 443 }] }), "#/egress"),
        ] {
            let answer = site.send("PUT", "/v1/orders/o-1/network", &operator, Some(body)).await;
            assert_eq!(answer.status, 400, "{answer:?}");
            assert_eq!(answer.json()["errors"][0]["pointer"], pointer);
        }
        let nothing = site.send("GET", "/v1/orders/o-1/network", &operator, None).await.json();
        assert_eq!((&nothing["answers"], &nothing["report"]), (&json!({}), &Value::Null));
    }
}
