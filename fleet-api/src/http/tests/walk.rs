//! Every route of the description, by callers who may and callers who may not.

use serde_json::Value;

use super::site::{Auth, Site};
use crate::http::routes;
use crate::store::Db;
use crate::store::operators::Role;
use crate::store::testing::on_both;

/// One operation of the description.
pub struct Operation {
    /// Its method, upper case.
    pub method: String,
    /// Its path, as the description has it.
    pub template: String,
    /// What it takes, if not nothing.
    pub role: Option<Role>,
    /// Its name.
    pub id: String,
    /// The operation.
    pub described: Value,
}

impl Operation {
    /// The path with every part replaced by something that no row has.
    pub fn path(&self) -> String {
        self.template
            .replace("{box_id}", "00000000000Z")
            .replace("{bucket}", "no-bucket")
            .replace("{key}", "a/b.txt")
            .replace(['{', '}'], "x")
    }
}

/// Every operation of the description.
pub fn operations() -> Vec<Operation> {
    let api = serde_json::to_value(routes::api().openapi()).expect("encodes");
    let mut all = Vec::new();
    for (path, item) in api["paths"].as_object().expect("paths") {
        for (method, described) in item.as_object().expect("operations") {
            let role = described["security"][0]["session"][0].as_str();
            all.push(Operation {
                method: method.to_uppercase(),
                template: path.clone(),
                id: described["operationId"]
                    .as_str()
                    .expect("a name")
                    .to_owned(),
                role: role.map(|r| r.parse().expect("a role")),
                described: described.clone(),
            });
        }
    }
    assert!(all.len() > 40, "{}", all.len());
    all
}

on_both! {
    async fn only_what_leads_to_a_log_in_is_open_to_all(db: Db) {
        let site = Site::on(&db).await;
        let mut open = Vec::new();
        for operation in operations() {
            let path = operation.path();
            for auth in [Auth::None, Auth::Token("lh_guess".into()), Auth::Cookie("__Host-longhaul-session=guess".into())] {
                let answer = site.send(&operation.method, &path, &auth, None).await;
                if operation.role.is_some() {
                    assert_eq!(answer.status, 401, "{} {path} {auth:?}", operation.method);
                    assert_eq!(answer.header("content-type"), "application/problem+json");
                }
            }
            if operation.role.is_none() {
                open.push(format!("{} {path}", operation.method));
            }
        }
        assert_eq!(open, [
            "GET /healthz", "GET /v1/openapi.json", "POST /v1/session", "GET /v1/session/oidc",
            "GET /v1/session/oidc/callback", "GET /v1/session/ways",
        ]);
    }

    async fn a_viewer_may_look_at_everything_and_change_nothing(db: Db) {
        let site = Site::on(&db).await;
        let viewer = site.token(Role::Viewer).await;
        let operator = site.token(Role::Operator).await;
        for operation in operations() {
            let path = operation.path();
            let name = format!("{} {path}", operation.method);
            let Some(role) = operation.role else { continue };
            if path == "/v1/events" { continue; }
            for (auth, has) in [(&viewer, Role::Viewer), (&operator, Role::Operator)] {
                let status = site.send(&operation.method, &path, auth, None).await.status;
                assert_eq!(status == 403, !has.includes(role), "{name} by {has}: {status}");
                assert_ne!(status, 401, "{name}");
            }
            let changes = operation.method != "GET" && !path.starts_with("/v1/session") && !path.starts_with("/v1/me");
            assert!(!changes || role != Role::Viewer, "{name} changes something and a viewer may");
        }
    }
}
