//! Orders, tickets, uploads, objects.

use std::collections::HashSet;

use longhaul_protocol::ids::{BoxId, ObjectKey, PackId, TicketId, UploadId};
use longhaul_protocol::value::Digest32;

use super::{add_ticket, write};
use crate::store::batch::{
    keys_in_packs, objects_there, pack_add, pack_entries_begin, uploads_verified,
};
use crate::store::filter::Filter;
use crate::store::objects::{object_buckets, object_delete, object_get, object_list};
use crate::store::orders::{OrderRow, order_get, order_insert, order_list};
use crate::store::packs::pack_insert;
use crate::store::testing::{add_box, on_both};
use crate::store::tickets::{ticket_list, ticket_list_valid, ticket_revoke};
use crate::store::uploads::{
    UploadRow, UploadState, upload_advance, upload_count, upload_find, upload_get, upload_list,
    upload_restart, upload_start,
};
use crate::store::{Db, Tx};

fn small(
    ticket: &TicketId,
    box_id: &BoxId,
    upload: &str,
    key: &str,
    version: i64,
    state: UploadState,
) -> UploadRow {
    UploadRow {
        upload_id: upload.parse().expect("an id"),
        box_id: box_id.clone(),
        bucket: "b".into(),
        object_key: key.parse().expect("a key"),
        version,
        ticket_id: ticket.clone(),
        s3_upload_id: None,
        bytes: 5,
        blake3: Digest32([7; 32]),
        content_type: None,
        metadata: "{}".into(),
        headers: "{}".into(),
        part_bytes: 0,
        state,
        reason: None,
        created: 1,
        updated: 1,
    }
}

on_both! {
    async fn orders_are_unique_and_paged(db: Db) {
        let row = |id: &str| OrderRow {
            order_id: id.parse().expect("an id"), customer: "ACME".into(), bucket: "b".into(),
            note: String::new(), created_by: "ada".into(), created: 1, tenant_id: None,
        };
        let mut tx = write(&db).await;
        for id in ["b", "A", "a", "_"] {
            assert!(order_insert(&mut tx, &row(id)).await.expect("inserts"));
        }
        assert!(!order_insert(&mut tx, &row("a")).await.expect("taken"));
        let ids: Vec<_> = order_list(&mut tx, None, &Filter::default(), Some(&"A".parse().expect("an id")), 9).await.expect("lists")
            .into_iter().map(|o| o.order_id.to_string()).collect();
        assert_eq!(ids, ["_", "a", "b"]);
        assert_eq!(order_get(&mut tx, &row("a").order_id, None).await.expect("gets"), Some(row("a")));
    }

    async fn a_ticket_ends_when_it_expires_or_is_revoked(db: Db) {
        let id = add_box(&db, 1).await;
        let first = add_ticket(&db, &id, "t1", 100).await;
        let second = add_ticket(&db, &id, "t2", 200).await;
        let mut tx = write(&db).await;
        let valid = async |tx: &mut Tx, now| -> Vec<TicketId> {
            ticket_list_valid(tx, &id, now).await.expect("lists").into_iter().map(|t| t.ticket_id).collect()
        };
        assert_eq!(valid(&mut tx, 99).await, [first, second.clone()]);
        assert_eq!(valid(&mut tx, 100).await, std::slice::from_ref(&second));
        assert!(ticket_revoke(&mut tx, &second, 110).await.expect("revokes"));
        assert!(!ticket_revoke(&mut tx, &second, 111).await.expect("twice"));
        assert!(valid(&mut tx, 120).await.is_empty());
        assert_eq!(ticket_list(&mut tx, &id, None, 10).await.expect("lists").len(), 2);
    }

    async fn asking_twice_for_an_upload_yields_the_same_one(db: Db) {
        let id = add_box(&db, 1).await;
        let ticket = add_ticket(&db, &id, "t1", 100).await;
        let row = |upload: &str| UploadRow {
            upload_id: upload.parse().expect("an id"), box_id: id.clone(), bucket: "b".into(),
            object_key: "dir/ä".parse().expect("a key"), version: 1, ticket_id: ticket.clone(),
            s3_upload_id: Some("s3".into()), bytes: 10, blake3: Digest32([7; 32]), content_type: None,
            metadata: "{}".into(), headers: r#"{"expires":"x"}"#.into(), part_bytes: 8, state: UploadState::Started, reason: None,
            created: 1, updated: 1,
        };
        let u1: UploadId = "u1".parse().expect("an id");
        let mut tx = write(&db).await;
        assert_eq!(upload_start(&mut tx, &row("u1")).await.expect("starts"), (row("u1"), true));
        assert_eq!(upload_start(&mut tx, &row("u2")).await.expect("finds"), (row("u1"), false));
        assert!(upload_advance(&mut tx, &u1, UploadState::Failed, Some("size"), 2).await.expect("fails"));
        assert!(upload_restart(&mut tx, &u1, Some("s3b"), 3).await.expect("restarts"));
        assert!(upload_advance(&mut tx, &u1, UploadState::Verified, None, 4).await.expect("verifies"));
        assert!(!upload_advance(&mut tx, &u1, UploadState::Aborted, None, 5).await.expect("stays"));
        assert!(!upload_restart(&mut tx, &u1, None, 5).await.expect("stays"));
        let got = upload_get(&mut tx, &u1).await.expect("gets").expect("is there");
        assert_eq!((got.state, got.s3_upload_id.as_deref(), got.reason), (UploadState::Verified, Some("s3b"), None));
        assert_eq!(upload_find(&mut tx, &id, "b", &got.object_key, 1).await.expect("finds").map(|u| u.upload_id), Some(u1));
        assert_eq!(upload_list(&mut tx, &id, None, &Filter::default(), None, 5).await.expect("lists").len(), 1);
        assert_eq!(upload_count(&mut tx, &id, None).await.expect("counts"), [("verified".to_owned(), 1, 10)]);
    }

    async fn objects_are_listed_by_prefix_in_byte_order(db: Db) {
        let id = add_box(&db, 1).await;
        let ticket = add_ticket(&db, &id, "t1", 100).await;
        let row = |key: &str, version| small(&ticket, &id, &format!("u{version}-{}", blake3::hash(key.as_bytes()).to_hex().as_str().split_at(8).0), key, version, UploadState::Completing);
        let mut tx = write(&db).await;
        let first: Vec<UploadRow> = ["a_1", "a%1", "A1", "ab", "ä", "z"].into_iter().map(|key| row(key, 2)).collect();
        for rows in [&first[..], &[row("z", 1)], &[row("z", 3)]] {
            for row in rows {
                assert!(upload_start(&mut tx, row).await.expect("starts").1);
            }
        }
        let ids: Vec<&str> = first.iter().map(|row| row.upload_id.as_str()).collect();
        uploads_verified(&mut tx, &ids, 4).await.expect("sets");
        let version = async |tx: &mut Tx| {
            let key: ObjectKey = "z".parse().expect("a key");
            object_get(tx, "b", &key).await.expect("gets").map(|o| (o.version, o.verified))
        };
        let late = row("z", 1);
        uploads_verified(&mut tx, &[late.upload_id.as_str()], 5).await.expect("late");
        assert_eq!(version(&mut tx).await, Some((2, 4)));
        assert_eq!(upload_get(&mut tx, &late.upload_id).await.expect("gets").map(|u| u.state), Some(UploadState::Verified));
        uploads_verified(&mut tx, &[row("z", 3).upload_id.as_str()], 6).await.expect("newer");
        assert_eq!(version(&mut tx).await, Some((3, 6)));
        let there = objects_there(&mut tx, "b", &["z", "Z", "ä", "a_"]).await.expect("looks");
        assert_eq!(there, HashSet::from(["z".to_owned(), "ä".to_owned()]));
        assert!(objects_there(&mut tx, "c", &["z"]).await.expect("looks").is_empty());
        assert!(objects_there(&mut tx, "b", &[]).await.expect("looks").is_empty());
        let names = async |tx: &mut Tx, prefix: &str, after: Option<&str>| -> Vec<String> {
            object_list(tx, "b", prefix, after, 10).await.expect("lists").into_iter().map(|o| o.object_key.to_string()).collect()
        };
        assert_eq!(names(&mut tx, "", None).await, ["A1", "a%1", "a_1", "ab", "z", "ä"]);
        assert_eq!(names(&mut tx, "a", Some("a%1")).await, ["a_1", "ab"]);
        assert_eq!(names(&mut tx, "a_", None).await, ["a_1"]);
        assert!(names(&mut tx, "\0%", None).await.is_empty());
        assert_eq!(object_buckets(&mut tx).await.expect("counts"), [("b".to_owned(), 6, 30)]);
        let key: ObjectKey = "z".parse().expect("a key");
        assert_eq!(object_get(&mut tx, "b", &key).await.expect("gets").map(|o| o.version), Some(3));
        assert!(object_delete(&mut tx, "b", &key).await.expect("deletes"));
        assert!(!object_delete(&mut tx, "b", &key).await.expect("gone"));
    }

    async fn entries_of_a_pack_are_marked_together_and_only_in_their_pack(db: Db) {
        let id = add_box(&db, 1).await;
        let ticket = add_ticket(&db, &id, "t1", 100).await;
        let row = |number, state| small(&ticket, &id, &format!("u{number}"), &format!("k{number}"), 1, state);
        let packs: [PackId; 2] = ["pk1", "pk2"].map(|id| id.parse().expect("an id"));
        let mut tx = write(&db).await;
        for pack in &packs {
            pack_insert(&mut tx, pack, &id, 1).await.expect("inserts");
        }
        let states = [UploadState::Started, UploadState::Completing, UploadState::Aborted, UploadState::Verified, UploadState::Started];
        for (number, state) in (0_u8..).zip(states) {
            assert!(upload_start(&mut tx, &row(number, state)).await.expect("starts").1);
        }
        let all = ["u0", "u1", "u2", "u3", "u4", "u5"];
        pack_add(&mut tx, &packs[0], &all).await.expect("adds");
        pack_add(&mut tx, &packs[1], &["u4"]).await.expect("moves");
        let keys = ["k0", "k1", "k2", "k3", "k4", "k5"];
        let waiting = keys_in_packs(&mut tx, &id, "b", &keys).await.expect("looks");
        assert_eq!(waiting, HashSet::from(["k0", "k1", "k4"].map(str::to_owned)));
        let begun = pack_entries_begin(&mut tx, &packs[0], &all, 7).await.expect("begins");
        assert_eq!(begun, HashSet::from(["u0", "u1"].map(str::to_owned)));
        let u0 = upload_get(&mut tx, &"u0".parse().expect("an id")).await.expect("gets").expect("is there");
        assert_eq!((u0.state, u0.updated), (UploadState::Completing, 7));
    }
}
