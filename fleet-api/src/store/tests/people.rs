//! Operators, tokens, audit, settings.

use super::write;
use crate::store::Db;
use crate::store::api_tokens::{
    ApiTokenRow, api_token_find, api_token_insert, api_token_list, api_token_revoke,
};
use crate::store::audit::{AuditEntry, audit_append, audit_list, audit_verify};
use crate::store::filter::Filter;
use crate::store::operators::{
    OperatorRow, Role, operator_count_admins, operator_delete, operator_insert, operator_list,
    operator_update, session_delete, session_delete_of, session_get, session_insert, session_prune,
};
use crate::store::settings::{setting_get, setting_set};
use crate::store::testing::on_both;

on_both! {
    async fn sessions_and_tokens_end(db: Db) {
        let row = OperatorRow { name: "ada".into(), password_hash: "x".into(), role: Role::Admin, created: 1, tenant_id: None };
        let mut tx = write(&db).await;
        assert!(operator_insert(&mut tx, &row).await.expect("inserts"));
        assert!(!operator_insert(&mut tx, &row).await.expect("taken"));
        assert_eq!(operator_count_admins(&mut tx).await.expect("counts"), 1);
        for (hash, expires) in [("h1", 100), ("h2", 100), ("h3", 10)] {
            session_insert(&mut tx, hash, "ada", 1, expires).await.expect("inserts");
        }
        assert!(operator_update(&mut tx, "ada", Some(Role::Viewer), None).await.expect("updates"));
        let session = session_get(&mut tx, "h1", 99).await.expect("gets").expect("in time");
        assert_eq!((session.operator.as_str(), session.role), ("ada", Role::Viewer));
        assert_eq!(session_get(&mut tx, "h1", 100).await.expect("gets"), None);
        assert_eq!(session_prune(&mut tx, 10).await.expect("prunes"), 1);
        assert!(session_delete(&mut tx, "h1").await.expect("deletes"));
        assert!(operator_delete(&mut tx, "ada").await.expect("deletes"));
        assert_eq!(session_get(&mut tx, "h2", 1).await.expect("gets"), None);
        assert_eq!(session_delete_of(&mut tx, "ada").await.expect("none"), 0);
        assert!(operator_list(&mut tx).await.expect("lists").is_empty());

        let token = ApiTokenRow { token_id: "t".into(), name: "ci".into(), role: Role::Operator, owner: None,
            created_by: "ada".into(), created: 1, expires: Some(100), revoked: None, tenant_id: None };
        api_token_insert(&mut tx, "hash", &token).await.expect("inserts");
        assert_eq!(api_token_find(&mut tx, "hash", 99).await.expect("finds"), Some(token));
        assert_eq!(api_token_find(&mut tx, "hash", 100).await.expect("finds"), None);
        assert!(api_token_revoke(&mut tx, "t", None, 50).await.expect("revokes"));
        assert_eq!(api_token_find(&mut tx, "hash", 60).await.expect("finds"), None);
        assert_eq!(api_token_list(&mut tx, None).await.expect("lists").len(), 1);
    }

    async fn the_audit_shows_what_was_altered(db: Db) {
        let detail = serde_json::json!({"label": "a"});
        let entry = AuditEntry { actor: "ada", action: "box.label", subject: "B", detail: &detail };
        let writers = (0..5).map(|n| {
            let db = db.clone();
            async move {
                let mut tx = write(&db).await;
                audit_append(&mut tx, entry, n).await.expect("appends");
                tx.commit().await.expect("commits");
            }
        });
        futures::future::join_all(writers).await;
        let mut tx = write(&db).await;
        assert_eq!(audit_verify(&mut tx).await.expect("follows"), None);
        assert_eq!(audit_list(&mut tx, &Filter::default(), Some(3), 10).await.expect("lists").len(), 2);

        execute!(&mut tx, "UPDATE audit SET actor = 'eve' WHERE number = 3").expect("alters");
        assert_eq!(audit_verify(&mut tx).await.expect("follows"), Some(3));
        execute!(&mut tx, "UPDATE audit SET actor = 'ada' WHERE number = 3").expect("alters");
        execute!(&mut tx, "DELETE FROM audit WHERE number = 5").expect("cuts");
        assert_eq!(audit_verify(&mut tx).await.expect("follows"), Some(5));
    }

    async fn settings_are_replaced(db: Db) {
        let mut tx = write(&db).await;
        assert_eq!(setting_get(&mut tx, "a").await.expect("gets"), None);
        setting_set(&mut tx, "a", "1").await.expect("sets");
        setting_set(&mut tx, "a", "2").await.expect("sets");
        assert_eq!(setting_get(&mut tx, "a").await.expect("gets").as_deref(), Some("2"));
    }
}
