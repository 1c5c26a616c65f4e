//! Leaves and roots of receipts.

use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::journal::ObjectVersion;
use longhaul_protocol::receipt::{LeafPlace, RootClaims};
use longhaul_protocol::value::{Digest32, Jws, UnixMillis};

use super::write;
use crate::store::Db;
use crate::store::receipts::{
    ReceiptPlace, receipt_leaf_insert, receipt_leaf_list, receipt_list, receipt_root_insert,
};
use crate::store::testing::{add_box, on_both};

on_both! {
    async fn receipts_are_listed_by_prefix_and_page_once_their_epoch_is_sealed(db: Db) {
        let id = add_box(&db, 1).await;
        let other = add_box(&db, 2).await;
        let epoch = "epoch-1".parse().expect("an epoch");
        let mut tx = write(&db).await;
        for (index, key) in (0..).zip(["a/1", "a/2", "a", "b/é", "a/3", "B"]) {
            let object = ObjectVersion {
                bucket: "survey".into(), key: key.parse().expect("a key"), version: index + 1,
            };
            let place = LeafPlace { epoch: "epoch-1".parse().expect("an epoch"), index, stored: UnixMillis(7) };
            for _ in 0..2 {
                receipt_leaf_insert(&mut tx, &id, &object, 3, Digest32([1; 32]), &place).await.expect("inserts");
            }
        }
        assert_eq!(receipt_list(&mut tx, None, "survey", "", None, None, 9).await.expect("lists"), []);
        let claims = RootClaims {
            v: VERSION, box_id: id.clone(), epoch: "epoch-1".parse().expect("an epoch"),
            root: Digest32([2; 32]), leaves: 6, sealed: UnixMillis(9),
        };
        let jws = Jws("first".into());
        assert!(receipt_root_insert(&mut tx, &claims, &jws).await.expect("inserts"));
        assert!(!receipt_root_insert(&mut tx, &claims, &Jws("second".into())).await.expect("known"));

        let leaves = receipt_leaf_list(&mut tx, &id, &epoch).await.expect("lists");
        assert_eq!(leaves.iter().map(|l| l.place).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(leaves[3].leaf().object.key.as_str(), "b/é");
        let mut keys = Vec::new();
        let mut after: Option<ReceiptPlace> = None;
        loop {
            let page = receipt_list(&mut tx, None, "survey", "a/", Some("a0"), after.as_ref(), 2).await.expect("lists");
            let Some(last) = page.last() else { break };
            assert_eq!((last.jws.as_str(), last.verified), ("first", None));
            after = Some(ReceiptPlace {
                key: last.leaf.object_key.to_string(), box_id: id.to_string(),
                epoch: last.leaf.epoch.clone(), place: last.leaf.place,
            });
            keys.extend(page.into_iter().map(|r| r.leaf.object_key.to_string()));
        }
        assert_eq!(keys, ["a/1", "a/2", "a/3"]);
        let of = async |tx: &mut _, of| receipt_list(tx, Some(of), "survey", "", None, None, 9).await.expect("lists").len();
        assert_eq!(of(&mut tx, &id).await, 6);
        assert_eq!(of(&mut tx, &other).await, 0);
        assert_eq!(receipt_list(&mut tx, None, "other", "", None, None, 9).await.expect("lists"), []);
    }
}
