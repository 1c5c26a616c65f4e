//! Boxes without a line: whose they are, and what is no request of theirs.

use std::collections::BTreeMap;

use longhaul_protocol::offline::Request;
use longhaul_protocol::value::{Blob, UnixMillis};
use serde_json::json;

use super::site::{Auth, Site};
use crate::store::Db;
use crate::store::operators::Role;
use crate::store::testing::{add_box, on_both};

/// A request as somebody makes it who has no TPM.
fn request(box_id: &str) -> String {
    let nothing = || Blob(vec![1; 60]);
    let request = Request {
        box_id: box_id.parse().expect("a name"),
        nonce: [0; 16],
        made: UnixMillis(0),
        ek_public: nothing(),
        ldevid_public: nothing(),
        lan_public: nothing(),
        addresses: Vec::new(),
        certify_attest: nothing(),
        certify_signature: nothing(),
        quote_attest: nothing(),
        quote_signature: nothing(),
        pcr_values: BTreeMap::new(),
    };
    request.text()
}

async fn answer(site: &Site, auth: &Auth, request: &str) -> u16 {
    let body = json!({ "request": request });
    let answer = site.send("POST", "/v1/offline/answers", auth, Some(body));
    answer.await.status.as_u16()
}

on_both! {
    async fn a_request_is_answered_for_who_has_the_box_and_by_its_tpm_alone(db: Db) {
        let site = Site::on(&db).await;
        let admin = site.token(Role::Admin).await;
        for tenant in ["acme", "other"] {
            let body = json!({ "id": tenant, "name": tenant });
            let made = site.send("POST", "/v1/tenants", &admin, Some(body)).await;
            assert_eq!(made.status, 201, "{made:?}");
        }
        let id = add_box(&db, 1).await;
        let id = id.as_str();
        let given = json!({ "tenant": "acme" });
        let path = format!("/v1/boxes/{id}/tenant");
        let given = site.send("PUT", &path, &admin, Some(given)).await;
        assert_eq!(given.status, 200, "{given:?}");
        let theirs = site.token_of(Role::Customer, Some("acme")).await;
        let others = site.token_of(Role::Customer, Some("other")).await;
        let viewer = site.token(Role::Viewer).await;

        assert_eq!(answer(&site, &viewer, &request(id)).await, 403);
        assert_eq!(answer(&site, &others, &request(id)).await, 404);
        assert_eq!(answer(&site, &theirs, &request("ZZZZZZZZZZZZ")).await, 404);
        assert_eq!(answer(&site, &theirs, "").await, 400);
        assert_eq!(answer(&site, &theirs, "LH1/nonsense").await, 400);
        for journal in ["", "e30.e30.AA\n{}\n", "\n\n"] {
            let body = json!({ "journal": journal });
            let taken = site.send("POST", "/v1/offline/journals", &theirs, Some(body));
            assert_eq!(taken.await.status, 400, "{journal:?}");
        }
    }
}
