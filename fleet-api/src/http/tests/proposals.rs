//! What takes something away for good takes two people, by whatever route.

use serde_json::{Value, json};

use super::site::{Answer, Auth, NOW, Site};
use super::walk::operations;
use crate::auth::password;
use crate::store::Db;
use crate::store::boxes::{BoxState, box_set_state};
use crate::store::commands::{CommandNews, CommandState, command_advance};
use crate::store::operators::{OperatorRow, Role, operator_insert};
use crate::store::testing::{add_box, on_both};

const PASSWORD: &str = "correct horse battery";

/// A box that takes commands, and people with sessions.
struct World {
    site: Site,
    box_id: String,
}

impl World {
    async fn on(db: &Db) -> Self {
        let site = Site::on(db).await;
        let box_id = add_box(db, 1).await;
        let mut tx = db.write().await.expect("begins");
        box_set_state(&mut tx, &box_id, BoxState::Active, 1)
            .await
            .expect("sets");
        tx.commit().await.expect("commits");
        Self {
            site,
            box_id: box_id.to_string(),
        }
    }

    async fn person(&self, name: &str, role: Role) -> Auth {
        let row = OperatorRow {
            name: name.to_owned(),
            password_hash: password::hash(PASSWORD.to_owned()).await.expect("hashes"),
            role,
            created: 1,
            tenant_id: None,
        };
        let mut tx = self.site.people.db.write().await.expect("begins");
        assert!(operator_insert(&mut tx, &row).await.expect("inserts"));
        tx.commit().await.expect("commits");
        Auth::of(&self.site.log_in(name, PASSWORD).await)
    }

    async fn propose(&self, who: &Auth) -> Answer {
        let body = json!({
            "kind": "erase_bucket", "bucket": "survey", "reason": "the contract has ended",
        });
        let path = format!("/v1/boxes/{}/proposals", self.box_id);
        self.site.send("POST", &path, who, Some(body)).await
    }

    async fn proposed(&self, who: &Auth) -> String {
        let made = self.propose(who).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.json()["id"].as_str().expect("an id").to_owned()
    }

    async fn decide(&self, who: &Auth, id: &str, what: &str) -> Answer {
        let path = format!("/v1/proposals/{id}/{what}");
        let body = (what == "refuse").then(|| json!({ "note": "not yet" }));
        self.site.send("POST", &path, who, body).await
    }

    async fn commands(&self, who: &Auth) -> Vec<Value> {
        let path = format!("/v1/boxes/{}/commands", self.box_id);
        let listed = self.site.send("GET", &path, who, None).await.json();
        listed["items"].as_array().expect("items").clone()
    }

    async fn audit(&self, who: &Auth) -> Vec<Value> {
        let listed = self.site.send("GET", "/v1/audit", who, None).await.json();
        listed["items"].as_array().expect("items").clone()
    }
}

on_both! {
    async fn a_second_person_approves_and_both_stand_in_the_audit_and_the_history(db: Db) {
        let world = World::on(&db).await;
        let (ada, bob) = (world.person("ada", Role::Operator).await, world.person("bob", Role::Admin).await);
        let id = world.proposed(&ada).await;
        assert!(world.commands(&ada).await.is_empty(), "nothing is signed yet");
        let open = world.site.send("GET", &format!("/v1/proposals?state=open&box_id={}", world.box_id), &bob, None).await.json();
        assert_eq!(open["items"][0]["id"], id.as_str());

        let approved = world.decide(&bob, &id, "approve").await;

        assert_eq!(approved.status, 200, "{approved:?}");
        assert_eq!((&approved.json()["state"], &approved.json()["decided_by"]), (&json!("approved"), &json!("bob")));
        let commands = world.commands(&ada).await;
        assert_eq!(commands.len(), 1);
        assert_eq!(commands[0]["command"], json!({ "kind": "erase_bucket", "bucket": "survey" }));
        let agreed = &commands[0]["proposal"];
        assert_eq!((&agreed["proposed_by"], &agreed["approved_by"], &agreed["reason"]), (&json!("ada"), &json!("bob"), &json!("the contract has ended")));
        let id_of = commands[0]["id"].as_str().expect("an id").parse().expect("parses");
        let mut tx = db.write().await.expect("begins");
        let row = crate::store::commands::command_get(&mut tx, &id_of).await.expect("gets").expect("is there");
        let news = CommandNews { result: Some("{\"objects\":3}"), ..CommandNews::default() };
        assert!(command_advance(&mut tx, &id_of, CommandState::Done, news, NOW).await.expect("ends"));
        crate::fleet::command_end(&mut tx, &row, CommandState::Done, news, NOW).await.expect("noted");
        tx.commit().await.expect("commits");
        let audit = world.audit(&bob).await;
        let said = |action: &str| audit.iter().find(|e| e["action"] == action).unwrap_or_else(|| panic!("{action}: {audit:?}"));
        assert_eq!(said("proposal.make")["actor"], "ada");
        assert_eq!(said("proposal.make")["detail"]["reason"], "the contract has ended");
        assert_eq!(said("proposal.approve")["actor"], "bob");
        assert_eq!(said("proposal.approve")["detail"]["proposer"], "ada");
        assert_eq!(said("command.end")["detail"]["result"]["objects"], 3);
        assert_eq!(world.decide(&bob, &id, "approve").await.status, 409, "once");
        assert_eq!(world.commands(&ada).await.len(), 1);
    }

    async fn nobody_is_two_people(db: Db) {
        let world = World::on(&db).await;
        let (ada, bob) = (world.person("ada", Role::Admin).await, world.person("bob", Role::Operator).await);
        let token = async |by: &Auth| {
            let body = json!({ "name": "script", "role": "admin" });
            let made = world.site.send("POST", "/v1/tokens", by, Some(body)).await;
            assert_eq!(made.status, 201, "{made:?}");
            Auth::Token(made.json()["secret"].as_str().expect("a secret").to_owned())
        };
        let of_ada = token(&ada).await;
        let of_that = token(&of_ada).await;
        let id = world.proposed(&of_ada).await;
        for same in [&ada, &of_ada, &of_that] {
            assert_eq!(world.decide(same, &id, "approve").await.status, 403);
            assert_eq!(world.decide(same, &id, "refuse").await.status, 403);
        }
        assert_eq!(world.decide(&bob, &id, "withdraw").await.status, 403, "it is not theirs");
        let nobodys = world.site.token(Role::Admin).await;
        assert_eq!(world.propose(&nobodys).await.status, 403, "nobody answers for it");
        assert_eq!(world.decide(&nobodys, &id, "approve").await.status, 403);
        assert!(world.commands(&ada).await.is_empty());
        assert_eq!(world.decide(&of_that, &id, "withdraw").await.status, 200);
        assert_eq!(world.decide(&bob, &id, "approve").await.status, 409);
        assert!(world.commands(&ada).await.is_empty());
    }

    async fn whoever_may_no_longer_counts_no_longer(db: Db) {
        let world = World::on(&db).await;
        let (ada, bob) = (world.person("ada", Role::Operator).await, world.person("bob", Role::Admin).await);
        let id = world.proposed(&ada).await;
        let viewer = Some(json!({ "role": "viewer" }));
        assert_eq!(world.site.send("PATCH", "/v1/operators/ada", &bob, viewer).await.status, 200);
        assert_eq!(world.decide(&bob, &id, "approve").await.status, 403);
        assert_eq!(world.site.send("DELETE", "/v1/operators/ada", &bob, None).await.status, 204);
        assert_eq!(world.decide(&bob, &id, "approve").await.status, 403);
        assert!(world.commands(&bob).await.is_empty());
    }

    async fn what_nobody_decides_in_time_ends(db: Db) {
        let world = World::on(&db).await;
        let (ada, bob) = (world.person("ada", Role::Operator).await, world.person("bob", Role::Operator).await);
        let (late, refused) = (world.proposed(&ada).await, world.proposed(&ada).await);
        assert_eq!(world.decide(&bob, &refused, "refuse").await.json()["note"], "not yet");
        // Sessions last half as long as a proposal waits.
        world.site.people.clock.advance(86_400_000);
        let bob = Auth::of(&world.site.log_in("bob", PASSWORD).await);
        assert_eq!(world.decide(&bob, &late, "approve").await.status, 409, "also before anybody has looked");

        world.site.people.fleet.proposals_expire().await.expect("ends");

        let state = async |id: &str| world.site.send("GET", &format!("/v1/proposals/{id}"), &bob, None).await.json()["state"].clone();
        assert_eq!((state(&late).await, state(&refused).await), (json!("expired"), json!("refused")));
        assert!(world.commands(&bob).await.is_empty());
    }

    async fn no_route_sends_what_takes_two_people(db: Db) {
        let world = World::on(&db).await;
        let eve = world.person("eve", Role::Admin).await;
        let id = world.proposed(&eve).await;
        let bodies = [
            json!({ "kind": "erase_bucket", "bucket": "survey" }),
            json!({ "kind": "erase_bucket", "bucket": "survey", "reason": "because", "approved_by": "bob" }),
            json!({ "kind": "erase_bucket", "bucket": "survey", "reason": "because" }),
            json!({ "command": { "kind": "erase_bucket", "bucket": "survey" }, "filter": "state:active", "reason": "because" }),
        ];
        for operation in operations() {
            if operation.method == "GET" || operation.method == "DELETE" { continue; }
            let path = operation.template.replace("{box_id}", &world.box_id).replace("{proposal_id}", &id);
            let path = path.replace("{bucket}", "survey").replace(['{', '}'], "x");
            // Whoever is thrown out gets no commands, which would prove nothing.
            if path.ends_with("/revoke") || path.ends_with("/quarantine") || path.starts_with("/v1/me/") { continue; }
            for body in bodies.iter().cloned().map(Some).chain([None]) {
                world.site.send(&operation.method, &path, &eve, body).await;
            }
        }
        let erasing: Vec<_> = world.commands(&eve).await.into_iter().filter(|c| c["kind"] == "erase_bucket").collect();
        assert!(erasing.is_empty(), "{erasing:?}");
        let kinds = world.site.send("GET", "/v1/command-kinds", &eve, None).await.json();
        let two = kinds["items"].as_array().expect("kinds").iter().filter(|k| k["way"] == "two_people");
        assert_eq!(two.map(|k| k["kind"].clone()).collect::<Vec<_>>(), ["erase_bucket"], "another one needs a body above");
    }

    async fn an_argument_that_does_not_fit_is_pointed_at(db: Db) {
        let world = World::on(&db).await;
        let ada = world.person("ada", Role::Operator).await;
        let path = format!("/v1/boxes/{}/commands", world.box_id);
        for (body, pointer) in [
            (json!({ "kind": "identify", "seconds": 0 }), "#/seconds"),
            (json!({ "kind": "identify", "seconds": 5, "expires_in_secs": 0 }), "#/expires_in_secs"),
            (json!({ "kind": "retry", "key": "a" }), "#/bucket"),
            (json!({ "kind": "report_now", "a/b": 1 }), "#/a~1b"),
            (json!({ "kind": "wipe" }), "#/kind"),
        ] {
            let answer = world.site.send("POST", &path, &ada, Some(body.clone())).await;
            assert_eq!(answer.status, 400, "{body}");
            assert_eq!(answer.json()["errors"][0]["pointer"], pointer, "{body} {answer:?}");
        }
    }
}
