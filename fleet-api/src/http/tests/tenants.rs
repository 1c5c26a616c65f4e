//! Tenants see what is theirs and nothing else: every route of the description, one by one.

use serde_json::{Value, json};

use super::site::{Answer, Auth, Site};
use super::walk::operations;
use crate::store::Db;
use crate::store::boxes::{BoxState, box_set_state};
use crate::store::bring_up::{BootRow, bring_up_boot_set};
use crate::store::operators::Role;
use crate::store::testing::{add_box, on_both};

/// A tenant and one of everything that it has.
struct World {
    tenant: &'static str,
    customer: Auth,
    box_id: String,
    order: String,
    bucket: String,
    ticket: String,
    token: String,
}

impl World {
    async fn of(site: &Site, tenant: &'static str, n: u8) -> Self {
        let admin = site.token(Role::Admin).await;
        let made = json!({ "id": tenant, "name": format!("Company {n}") });
        assert_eq!(
            site.send("POST", "/v1/tenants", &admin, Some(made))
                .await
                .status,
            201
        );
        let box_id = add_box(&site.people.db, n).await;
        let mut tx = site.people.db.write().await.expect("begins");
        box_set_state(&mut tx, &box_id, BoxState::Active, 1)
            .await
            .expect("sets");
        let boot = BootRow {
            box_id: box_id.clone(),
            boot_id: "boot-1".parse().expect("an id"),
            began: site.people.clock.now().0 - 1,
            release: "1.0.0".into(),
            power_to_start_ms: 9_000,
            start_to_online_ms: None,
            reached: 3,
            last_ms: 9_000,
        };
        bring_up_boot_set(&mut tx, &boot).await.expect("sets");
        tx.commit().await.expect("commits");
        let given = json!({ "tenant": tenant });
        let path = format!("/v1/boxes/{box_id}/tenant");
        assert_eq!(
            site.send("PUT", &path, &admin, Some(given)).await.status,
            200
        );
        let (order, bucket) = (format!("order-{n}"), format!("bucket-{n}"));
        let body = json!({ "id": order, "customer": "C", "bucket": bucket, "tenant": tenant });
        assert_eq!(
            site.send("POST", "/v1/orders", &admin, Some(body))
                .await
                .status,
            201
        );
        let body = json!({ "bucket": bucket, "order": order });
        let path = format!("/v1/boxes/{box_id}/tickets");
        let ticket = site.send("POST", &path, &admin, Some(body)).await;
        assert_eq!(ticket.status, 201, "{ticket:?}");
        let body = json!({ "name": "theirs", "role": "customer", "tenant": tenant });
        let token = site.send("POST", "/v1/tokens", &admin, Some(body)).await;
        assert_eq!(token.status, 201, "{token:?}");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        Self {
            tenant,
            customer: site.token_of(Role::Customer, Some(tenant)).await,
            box_id: box_id.to_string(),
            order,
            bucket,
            ticket: text(&ticket.json()["id"]),
            token: text(&token.json()["token"]["id"]),
        }
    }

    /// Every name that nobody else may learn.
    fn names(&self) -> [&str; 6] {
        [
            self.tenant,
            &self.box_id,
            &self.order,
            &self.bucket,
            &self.ticket,
            &self.token,
        ]
    }
}

/// What a customer may do with a route.
enum Decision {
    /// Nothing.
    Staff,
    /// It says nothing of any tenant, or of the caller alone.
    Open,
    /// It lists what is theirs.
    List,
    /// It is about one thing, at this path with this body: another's is none.
    One(String, Option<Value>),
    /// It makes something; tested on its own.
    Makes,
}

/// Every route has to be decided on here.
fn decision(id: &str, world: &World) -> Decision {
    let World {
        box_id,
        order,
        bucket,
        ticket,
        token,
        ..
    } = world;
    let one = |path: String| Decision::One(path, None);
    match id {
        "healthz" | "openapiGet" | "logInWays" | "ssoBegin" | "ssoFinish" | "sessionCreate"
        | "sessionDelete" | "meGet" | "myPasswordSet" | "codeList"
        // Counts alone, of what is theirs: insights.rs looks at them.
        | "bringUpReport" => Decision::Open,
        "boxList" | "bringUpBoots" | "orderList" | "ticketListAll" | "bucketList" | "tokenList" => {
            Decision::List
        }
        "boxGet" => one(format!("/v1/boxes/{box_id}")),
        "transferList" => one(format!("/v1/boxes/{box_id}/transfers")),
        "ticketList" => one(format!("/v1/boxes/{box_id}/tickets")),
        "ticketCreate" => Decision::One(
            format!("/v1/boxes/{box_id}/tickets"),
            Some(json!({ "bucket": bucket })),
        ),
        "ticketDownload" => one(format!("/v1/tickets/{ticket}/download")),
        "ticketRevoke" => one(format!("/v1/tickets/{ticket}")),
        "orderNetworkGet" => one(format!("/v1/orders/{order}/network")),
        "orderNetworkSet" => Decision::One(
            format!("/v1/orders/{order}/network"),
            Some(json!({ "vlan": 7 })),
        ),
        "probeTicketMake" => {
            Decision::One(format!("/v1/orders/{order}/probe-tickets"), Some(json!({})))
        }
        "probeReportList" => one(format!("/v1/orders/{order}/probe-reports")),
        "orderGet" => one(format!("/v1/orders/{order}")),
        "objectList" => one(format!("/v1/objects?bucket={bucket}")),
        "objectGet" => one(format!("/v1/objects/{bucket}/a.txt")),
        "receiptList" => one(format!("/v1/receipts?bucket={bucket}")),
        "tokenRevoke" => one(format!("/v1/tokens/{token}")),
        // What a report is refused for depends on whose it is: order_networks.rs looks at it, and
        // offline.rs at what boxes without a line say.
        "tokenCreate" | "probeReportAdd" | "offlineAnswerMake" | "offlineJournalAdd" => {
            Decision::Makes
        }
        "operatorGet" | "alertRuleGet" | "alertAcknowledge" | "alertChannelCreate"
        | "alertChannelDelete" | "alertChannelList" | "alertChannelTest" | "alertDeliveryList"
        | "alertGet" | "alertList" | "alertRuleDelete" | "alertRuleList" | "alertRuleSet"
        | "auditList" | "boxQuarantine" | "boxRelease" | "boxRevoke" | "boxSummary"
        | "boxTenantSet" | "boxUpdate" | "commandCancel" | "commandCreate" | "commandGet"
        | "commandList" | "eventList" | "inventoryImport" | "metricsGet" | "objectDelete"
        | "operatorCreate" | "operatorDelete" | "operatorList" | "operatorUpdate"
        | "orderCreate" | "orderFileGet" | "releaseList" | "rolloutAbort" | "rolloutCreate" | "rolloutGet"
        | "rolloutList" | "telemetryList" | "tenantBucketSet" | "tenantCreate" | "tenantGet"
        | "tenantList" | "timelineList" | "uplinkGet" | "uplinkPause" | "uplinkResume"
        | "uplinkSet" | "networkGet" | "networkSet" | "networkReset" | "destinationGet"
        | "destinationProbe" | "vaultKeyGet" | "proposalCreate" | "proposalList"
        | "proposalGet" | "proposalApprove" | "proposalRefuse" | "proposalWithdraw"
        | "commandKindList" | "bulkPreviewCreate" | "bulkCreate" | "bulkList" | "bulkGet"
        | "bulkBoxList" | "bulkCancel" => Decision::Staff,
        _ => panic!("{id} is new: decide what customers may do with it, and say so here"),
    }
}

on_both! {
    async fn no_route_shows_a_tenant_what_is_anothers(db: Db) {
        let site = Site::on(&db).await;
        let (ours, theirs) = (World::of(&site, "tenant-a", 1).await, World::of(&site, "tenant-b", 2).await);
        // What ends something comes last.
        let mut all = operations();
        all.sort_by_key(|operation| operation.method == "DELETE");
        for operation in all {
            let name = format!("{} ({} {})", operation.id, operation.method, operation.template);
            let send = async |auth: &Auth, path: &str, body: Option<Value>| site.send(&operation.method, path, auth, body).await;
            match decision(&operation.id, &ours) {
                Decision::Staff => {
                    let answer = send(&theirs.customer, &operation.path(), None).await;
                    assert_eq!(answer.status, 403, "{name}");
                }
                Decision::Open => {
                    let answer = send(&theirs.customer, &operation.path(), None).await;
                    assert_ne!(answer.status, 403, "{name}");
                    let text = String::from_utf8_lossy(&answer.body).into_owned();
                    assert!(ours.names().iter().all(|n| !text.contains(n)), "{name}: {text}");
                }
                Decision::List => {
                    let others = send(&theirs.customer, &operation.template, None).await;
                    let text = String::from_utf8_lossy(&others.body).into_owned();
                    assert_eq!(others.status, 200, "{name}: {text}");
                    assert!(ours.names().iter().all(|n| !text.contains(n)), "{name}: {text}");
                    let own = send(&ours.customer, &operation.template, None).await;
                    let text = String::from_utf8_lossy(&own.body).into_owned();
                    assert!(ours.names().iter().any(|n| text.contains(n)), "{name}: {text}");
                }
                Decision::One(path, body) => {
                    let others = send(&theirs.customer, &path, body.clone()).await;
                    let text = String::from_utf8_lossy(&others.body).into_owned();
                    assert_eq!(others.status, 404, "{name}: {text}");
                    // 503 is the object store that is not there.
                    let own = send(&ours.customer, &path, body).await;
                    assert!(own.status.is_success() || own.status == 503, "{name}: {own:?}");
                }
                Decision::Makes => {}
            }
        }
    }

    async fn what_is_anothers_is_refused_as_what_does_not_exist(db: Db) {
        let site = Site::on(&db).await;
        let (ours, theirs) = (World::of(&site, "tenant-a", 1).await, World::of(&site, "tenant-b", 2).await);
        let pairs = [
            (format!("/v1/boxes/{}", ours.box_id), "/v1/boxes/TESTB0X00077".to_owned(), ours.box_id.as_str(), "TESTB0X00077"),
            (format!("/v1/orders/{}", ours.order), "/v1/orders/none".to_owned(), ours.order.as_str(), "none"),
            (format!("/v1/objects?bucket={}", ours.bucket), "/v1/objects?bucket=none".to_owned(), ours.bucket.as_str(), "none"),
        ];
        for (foreign, absent, foreign_name, absent_name) in pairs {
            let foreign = site.send("GET", &foreign, &theirs.customer, None).await;
            let absent = site.send("GET", &absent, &theirs.customer, None).await;
            let text = |answer: &Answer, name| String::from_utf8_lossy(&answer.body).replace(name, "NAME");
            assert_eq!((foreign.status, text(&foreign, foreign_name)), (absent.status, text(&absent, absent_name)));
        }
    }

    async fn customers_make_what_is_their_tenants_and_nothing_else(db: Db) {
        let site = Site::on(&db).await;
        let (ours, theirs) = (World::of(&site, "tenant-a", 1).await, World::of(&site, "tenant-b", 2).await);
        let admin = site.token(Role::Admin).await;
        for body in [json!({ "name": "x", "role": "viewer" }), json!({ "name": "x", "role": "admin" }), json!({ "name": "x", "role": "customer", "tenant": "tenant-b" })] {
            assert_eq!(site.send("POST", "/v1/tokens", &ours.customer, Some(body)).await.status, 403);
        }
        let body = json!({ "name": "x", "role": "customer" });
        let made = site.send("POST", "/v1/tokens", &ours.customer, Some(body)).await;
        assert_eq!(made.json()["token"]["tenant"], "tenant-a", "{made:?}");
        let made = Auth::Token(made.json()["secret"].as_str().expect("a secret").to_owned());
        assert_eq!(site.send("GET", "/v1/me", &made, None).await.json()["tenant"], "tenant-a");
        assert_eq!(site.send("GET", &format!("/v1/boxes/{}", theirs.box_id), &made, None).await.status, 404);

        let path = format!("/v1/boxes/{}/tickets", ours.box_id);
        for bucket in [theirs.bucket.as_str(), "nobodys"] {
            let answer = site.send("POST", &path, &ours.customer, Some(json!({ "bucket": bucket }))).await;
            assert_eq!(answer.status, 409, "{bucket} is not theirs");
        }
        let body = json!({ "bucket": ours.bucket, "order": theirs.order });
        assert_eq!(site.send("POST", &path, &ours.customer, Some(body.clone())).await.status, 404);
        assert_eq!(site.send("POST", &path, &admin, Some(body)).await.status, 409);
    }

    async fn buckets_and_boxes_are_one_tenants_at_a_time(db: Db) {
        let site = Site::on(&db).await;
        let (ours, theirs) = (World::of(&site, "tenant-a", 1).await, World::of(&site, "tenant-b", 2).await);
        let admin = site.token(Role::Admin).await;
        let order = |bucket: &str, tenant: Option<&str>| Some(json!({ "customer": "C", "bucket": bucket, "tenant": tenant }));
        assert_eq!(site.send("POST", "/v1/orders", &admin, order(&ours.bucket, Some("tenant-b"))).await.status, 409);
        assert_eq!(site.send("POST", "/v1/orders", &admin, order(&ours.bucket, None)).await.status, 409);
        assert_eq!(site.send("POST", "/v1/orders", &admin, order("x-1", Some("nobody"))).await.status, 409);

        assert_eq!(site.send("POST", "/v1/orders", &admin, order("old", None)).await.status, 201);
        let path = |tenant: &str, bucket: &str| format!("/v1/tenants/{tenant}/buckets/{bucket}");
        assert_eq!(site.send("GET", "/v1/objects?bucket=old", &ours.customer, None).await.status, 404);
        assert_eq!(site.send("PUT", &path("tenant-a", "old"), &admin, None).await.status, 204);
        assert_ne!(site.send("GET", "/v1/objects?bucket=old", &ours.customer, None).await.status, 404);
        assert_eq!(site.send("GET", "/v1/orders", &ours.customer, None).await.json()["items"].as_array().expect("items").len(), 2);
        assert_eq!(site.send("PUT", &path("tenant-b", "old"), &admin, None).await.status, 409);
        assert_eq!(site.send("PUT", &path("nobody", "new"), &admin, None).await.status, 404);

        let give = format!("/v1/boxes/{}/tenant", ours.box_id);
        let given = Some(json!({ "tenant": "tenant-b" }));
        assert_eq!(site.send("PUT", &give, &admin, given.clone()).await.status, 409, "their ticket is valid");
        assert_eq!(site.send("DELETE", &format!("/v1/tickets/{}", ours.ticket), &ours.customer, None).await.status, 204);
        assert_eq!(site.send("PUT", &give, &admin, given).await.status, 200);
        assert_eq!(site.send("PUT", &give, &admin, Some(json!({ "tenant": "nobody" }))).await.status, 409);
        let path = format!("/v1/boxes/{}", ours.box_id);
        assert_eq!(site.send("GET", &path, &ours.customer, None).await.status, 404);
        assert_eq!(site.send("GET", &path, &theirs.customer, None).await.status, 200);
        let listed = site.send("GET", &format!("{path}/tickets"), &theirs.customer, None).await;
        assert_eq!(listed.json()["items"], json!([]), "the tickets of whoever had it before stay theirs");
    }

    async fn a_customer_has_a_tenant_and_nobody_else_has(db: Db) {
        let site = Site::on(&db).await;
        World::of(&site, "tenant-a", 1).await;
        let admin = site.token(Role::Admin).await;
        let operator = |name: &str, role: &str, tenant: Option<&str>| {
            Some(json!({ "name": name, "role": role, "tenant": tenant, "password": "correct horse battery" }))
        };
        for (role, tenant, status) in [("customer", None, 400), ("customer", Some("nobody"), 409), ("viewer", Some("tenant-a"), 400)] {
            assert_eq!(site.send("POST", "/v1/operators", &admin, operator("eve", role, tenant)).await.status, status, "{role}");
        }
        assert_eq!(site.send("POST", "/v1/operators", &admin, operator("carl", "customer", Some("tenant-a"))).await.status, 201);
        let carl = Auth::of(&site.log_in("carl", "correct horse battery").await);
        assert_eq!(site.send("GET", "/v1/me", &carl, None).await.json()["role"], "customer");
        let grown = Some(json!({ "role": "viewer" }));
        assert_eq!(site.send("PATCH", "/v1/operators/carl", &admin, grown).await.status, 409);
        for (role, tenant) in [(Role::Customer, None), (Role::Admin, Some("tenant-a"))] {
            let odd = site.token_of(role, tenant).await;
            assert_eq!(site.send("GET", "/v1/boxes", &odd, None).await.status, 401, "{role} {tenant:?}");
        }
    }
}
