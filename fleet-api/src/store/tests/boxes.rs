//! Boxes, their sessions and their state documents.

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::value::{Digest32, Jws};

use super::{birth, write};
use crate::store::boxes::{
    BoxFilter, BoxState, NewBox, box_count, box_disconnect_all, box_get, box_import, box_list,
    box_next_desired, box_set_applied, box_set_birth, box_set_certificate, box_set_death,
    box_set_label, box_set_seen, box_set_state,
};
use crate::store::testing::{add_box, box_id, on_both};
use crate::store::twins::{
    DesiredRow, ReportedRow, desired_get, desired_set, reported_get, reported_set,
};
use crate::store::{Db, Tx};

on_both! {
    async fn a_box_is_imported_once_and_renewed_by_a_later_record(db: Db) {
        let id = add_box(&db, 1).await;
        let mut tx = write(&db).await;
        let old = box_get(&mut tx, &id).await.expect("gets").expect("is there");
        let jws = Jws("later".into());
        let mut new = NewBox {
            box_id: &id,
            order: None,
            hardware: "new",
            inventory_jws: &jws,
            ek_sha256: &Digest32([1; 32]),
            iak_name: &[1],
            made_at: old.made_at,
        };

        assert!(!box_import(&mut tx, &new, 3000).await.expect("as old"));
        new.made_at += 1;
        assert!(box_import(&mut tx, &new, 3000).await.expect("later"));

        let row = box_get(&mut tx, &id).await.expect("gets").expect("is there");
        assert_eq!((row.hardware.as_str(), row.iak_name.as_str()), ("new", "01"));
        assert_eq!((old.state, old.connected, old.label.as_str()), (BoxState::Inventoried, false, ""));
    }

    async fn two_boxes_cannot_share_an_endorsement_key(db: Db) {
        add_box(&db, 1).await;
        let id = box_id(2);
        let jws = Jws("record".into());
        let new = NewBox {
            box_id: &id, order: None, hardware: "", inventory_jws: &jws,
            ek_sha256: &Digest32([1; 32]), iak_name: &[], made_at: 1,
        };
        let mut tx = write(&db).await;

        let error = box_import(&mut tx, &new, 1).await.expect_err("refused");

        assert!(error.is_duplicate(), "{error:?}");
    }

    async fn revocation_is_for_ever(db: Db) {
        let id = add_box(&db, 1).await;
        let mut tx = write(&db).await;
        for (state, changed) in [
            (BoxState::Active, true), (BoxState::Active, false), (BoxState::Quarantined, true),
            (BoxState::Revoked, true), (BoxState::Active, false),
        ] {
            assert_eq!(box_set_state(&mut tx, &id, state, 5).await.expect("sets"), changed, "{state}");
        }
        assert!(!box_set_state(&mut tx, &box_id(9), BoxState::Active, 5).await.expect("sets"));
    }

    async fn a_stale_will_does_not_end_the_session_after_it(db: Db) {
        let id = add_box(&db, 1).await;
        let mut tx = write(&db).await;
        assert!(box_set_birth(&mut tx, &id, &birth("s1"), 10).await.expect("birth"));
        assert!(box_set_birth(&mut tx, &id, &birth("s2"), 20).await.expect("birth"));

        assert!(!box_set_death(&mut tx, &id, "s1", 30).await.expect("stale"));
        let row = box_get(&mut tx, &id).await.expect("gets").expect("is there");
        assert!(row.connected);
        assert_eq!(row.lan_urls(), ["https://10.0.0.2:443"]);
        assert_eq!(row.applied_version, 3);
        assert_eq!(row.agent_version.as_deref(), Some("1.0\u{fffd}"));

        assert!(box_set_death(&mut tx, &id, "s2", 40).await.expect("death"));
        assert!(!box_set_death(&mut tx, &id, "s2", 50).await.expect("twice"));
        let row = box_get(&mut tx, &id).await.expect("gets").expect("is there");
        assert_eq!((row.connected, row.connected_since, row.last_seen), (false, Some(40), Some(20)));
        assert_eq!(box_disconnect_all(&mut tx, 60).await.expect("none left"), 0);
    }

    async fn boxes_are_found_by_state_session_and_text(db: Db) {
        for n in 1..=5 { add_box(&db, n).await; }
        let mut tx = write(&db).await;
        box_set_birth(&mut tx, &box_id(2), &birth("s"), 10).await.expect("birth");
        box_set_state(&mut tx, &box_id(2), BoxState::Active, 10).await.expect("sets");
        box_set_label(&mut tx, &box_id(3), Some("Dock_A 100%"), None, 10).await.expect("sets");
        box_set_label(&mut tx, &box_id(3), None, Some("Ulm"), 11).await.expect("sets");
        let find = async |tx: &mut Tx, filter: BoxFilter| -> Vec<BoxId> {
            box_list(tx, &filter, None, 10).await.expect("lists").into_iter().map(|b| b.box_id).collect()
        };
        let text = |t: &str| BoxFilter { text: Some(t.into()), ..BoxFilter::default() };

        assert_eq!(find(&mut tx, BoxFilter { online: Some(true), ..BoxFilter::default() }).await, [box_id(2)]);
        assert_eq!(find(&mut tx, BoxFilter { online: Some(false), ..BoxFilter::default() }).await.len(), 4);
        assert_eq!(find(&mut tx, BoxFilter { state: Some(BoxState::Active), ..BoxFilter::default() }).await, [box_id(2)]);
        assert_eq!(find(&mut tx, text("dock_a 100%")).await, [box_id(3)]);
        assert_eq!(find(&mut tx, text("DOCK")).await, [box_id(3)]);
        assert_eq!(find(&mut tx, text("ulm")).await, [box_id(3)]);
        assert_eq!(find(&mut tx, text("00005")).await, [box_id(5)]);
        assert!(find(&mut tx, text("dock%a")).await.is_empty());
        assert!(find(&mut tx, text("\0\\")).await.is_empty());
        let page = box_list(&mut tx, &BoxFilter::default(), Some(&box_id(3)), 1).await.expect("lists");
        assert_eq!(page[0].box_id, box_id(4));
        assert_eq!(
            box_count(&mut tx).await.expect("counts"),
            [("active".to_owned(), true, 1), ("inventoried".to_owned(), false, 4)]
        );
    }

    async fn state_documents_only_get_newer(db: Db) {
        let id = add_box(&db, 1).await;
        let mut tx = write(&db).await;
        let desired = |version| DesiredRow {
            box_id: id.clone(), version, detail: "{}".into(), jws: "jws".into(), updated: version,
        };
        assert_eq!(box_next_desired(&mut tx, &id, 0).await.expect("draws"), Some(1));
        assert_eq!(box_next_desired(&mut tx, &id, 70).await.expect("draws"), Some(70));
        assert_eq!(box_next_desired(&mut tx, &id, 70).await.expect("draws"), Some(71));
        assert!(desired_set(&mut tx, &desired(2)).await.expect("sets"));
        assert!(!desired_set(&mut tx, &desired(1)).await.expect("older"));
        assert_eq!(desired_get(&mut tx, &id).await.expect("gets"), Some(desired(2)));
        let reported = ReportedRow { box_id: id.clone(), desired_version: 2, detail: "{}".into(), updated: 5 };
        reported_set(&mut tx, &reported).await.expect("sets");
        reported_set(&mut tx, &reported).await.expect("sets again");
        assert_eq!(reported_get(&mut tx, &id).await.expect("gets"), Some(reported));
        assert!(box_set_applied(&mut tx, &id, 2, "1.1", &[], 6).await.expect("sets"));
        assert!(box_set_seen(&mut tx, &id, None, 7).await.expect("sets"));
        assert!(box_set_certificate(&mut tx, &id, "ab", 9, 8).await.expect("sets"));
        let row = box_get(&mut tx, &id).await.expect("gets").expect("is there");
        assert_eq!((row.applied_version, row.last_seen, row.certificate_expires), (2, Some(7), Some(9)));
    }
}
