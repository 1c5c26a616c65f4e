//! Figures for Prometheus.

use super::site::{Auth, Site};
use crate::store::Db;
use crate::store::operators::Role;
use crate::store::testing::{add_box, on_both};

on_both! {
    async fn figures_are_for_those_who_may_look_and_count_what_there_is(db: Db) {
        let site = Site::on(&db).await;
        add_box(&db, 1).await;
        add_box(&db, 2).await;
        assert_eq!(site.send("GET", "/metrics", &Auth::None, None).await.status, 401);
        let viewer = site.token(Role::Viewer).await;
        assert_eq!(site.send("GET", "/v1/boxes/TESTB0X00009", &viewer, None).await.status, 404);

        let answer = site.send("GET", "/metrics", &viewer, None).await;

        assert_eq!(answer.status, 200);
        assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
        let text = String::from_utf8(answer.body.to_vec()).expect("text");
        for line in [
            "longhaul_boxes{state=\"inventoried\",online=\"false\"} 2",
            "longhaul_http_requests_total{operation=\"boxGet\",status=\"404\"} 1",
            "longhaul_http_requests_total{operation=\"metricsGet\",status=\"401\"} 1",
            "longhaul_http_request_seconds_count{operation=\"boxGet\"} 1",
            "longhaul_journal_entries_total 0",
            "longhaul_edge_connected 0",
            "longhaul_edge_messages_up_total 0",
            "longhaul_alerts{severity=\"critical\",state=\"open\"} 0",
            "longhaul_uploads{state=\"verified\"} 0",
            "longhaul_commands{state=\"queued\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    async fn a_stranger_makes_no_more_figures(db: Db) {
        let site = Site::on(&db).await;
        let viewer = site.token(Role::Viewer).await;
        for n in 0..50 {
            site.send("GET", &format!("/v1/nothing/{n}"), &Auth::None, None).await;
            site.send("GET", &format!("/v1/boxes/{n}"), &Auth::None, None).await;
        }
        let text = site.send("GET", "/metrics", &viewer, None).await;
        let text = String::from_utf8_lossy(&text.body).into_owned();
        let lines = text.lines().filter(|l| l.starts_with("longhaul_http_requests_total"));
        assert_eq!(lines.count(), 2, "{text}");
        assert!(text.contains("longhaul_http_requests_total{operation=\"none\",status=\"404\"} 50"), "{text}");
    }
}
