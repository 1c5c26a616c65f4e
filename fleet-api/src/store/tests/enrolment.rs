//! Challenges.

use super::write;
use crate::store::Db;
use crate::store::challenges::{ChallengeRow, challenge_insert, challenge_prune, challenge_take};
use crate::store::testing::{add_box, on_both};

on_both! {
    async fn a_challenge_is_answered_once_in_time_and_by_its_box(db: Db) {
        let id = add_box(&db, 1).await;
        let other = add_box(&db, 2).await;
        let row = ChallengeRow {
            challenge_id: "c1".into(), box_id: id.clone(), nonce: vec![0; 32], secret: vec![7; 32],
            detail: "{}".into(), expires: 100, used: None,
        };
        let mut tx = write(&db).await;
        challenge_insert(&mut tx, &row).await.expect("inserts");

        assert_eq!(challenge_take(&mut tx, "c1", &other, 50).await.expect("takes"), None);
        assert_eq!(challenge_take(&mut tx, "c1", &id, 100).await.expect("takes"), None);
        let taken = challenge_take(&mut tx, "c1", &id, 99).await.expect("takes").expect("in time");
        assert_eq!((taken.secret, taken.used), (row.secret, Some(99)));
        assert_eq!(challenge_take(&mut tx, "c1", &id, 99).await.expect("takes"), None);
        assert_eq!(challenge_prune(&mut tx, 101).await.expect("prunes"), 1);
    }

    async fn ten_who_race_for_a_challenge_get_it_once(db: Db) {
        let id = add_box(&db, 1).await;
        let row = ChallengeRow {
            challenge_id: "c1".into(), box_id: id.clone(), nonce: vec![], secret: vec![],
            detail: "{}".into(), expires: 100, used: None,
        };
        let mut tx = write(&db).await;
        challenge_insert(&mut tx, &row).await.expect("inserts");
        tx.commit().await.expect("commits");

        let takers = (0..10).map(|_| async {
            let mut tx = write(&db).await;
            let taken = challenge_take(&mut tx, "c1", &id, 1).await.expect("takes");
            tx.commit().await.expect("commits");
            taken
        });
        let taken = futures::future::join_all(takers).await;

        assert_eq!(taken.into_iter().flatten().count(), 1);
    }
}
