//! Commands and rollouts.

use longhaul_protocol::ids::CommandId;
use longhaul_protocol::value::Digest32;

use super::{add_command, write};
use crate::store::boxes::box_next_counter;
use crate::store::commands::{
    CommandNews, CommandState, command_advance, command_expire, command_get, command_list,
    command_list_open,
};
use crate::store::filter::Filter;
use crate::store::releases::{release_get, release_list, release_set};
use crate::store::rollouts::{
    RolloutBoxState, RolloutNews, rollout_abort, rollout_box_advance, rollout_box_insert,
    rollout_box_list, rollout_get, rollout_insert, rollout_list,
};
use crate::store::testing::{add_box, box_id, on_both};
use crate::store::{Db, Tx};

on_both! {
    async fn a_command_that_has_ended_never_changes_again(db: Db) {
        let id = add_box(&db, 1).await;
        let news = CommandNews::default();
        for last in CommandState::ALL.iter().filter(|s| s.is_terminal()) {
            let command = add_command(&db, &id, &format!("c-{last}"), 100, 1).await;
            let mut tx = write(&db).await;
            assert!(command_advance(&mut tx, &command, *last, news, 2).await.expect("advances"), "{last}");
            for next in CommandState::ALL {
                assert!(!command_advance(&mut tx, &command, *next, news, 3).await.expect("stays"), "{last} {next}");
            }
            tx.commit().await.expect("commits");
        }
    }

    async fn a_command_only_moves_forward(db: Db) {
        let id = add_box(&db, 1).await;
        let command = add_command(&db, &id, "c1", 100, 1).await;
        let mut tx = write(&db).await;
        let none = CommandNews::default();
        let half = CommandNews { percent: Some(50), progress: Some("half\0"), ..none };
        let done = CommandNews { result: Some("{}"), ..none };

        assert!(command_advance(&mut tx, &command, CommandState::Sent, none, 2).await.expect("sent"));
        assert!(!command_advance(&mut tx, &command, CommandState::Sent, none, 3).await.expect("again"));
        assert!(!command_advance(&mut tx, &command, CommandState::Queued, none, 3).await.expect("back"));
        assert!(command_advance(&mut tx, &command, CommandState::Accepted, none, 4).await.expect("accepted"));
        assert!(!command_advance(&mut tx, &command, CommandState::Cancelled, none, 5).await.expect("late"));
        assert!(!command_advance(&mut tx, &command, CommandState::Sent, none, 5).await.expect("resent"));
        assert!(command_advance(&mut tx, &command, CommandState::Accepted, half, 6).await.expect("progress"));
        assert!(command_advance(&mut tx, &command, CommandState::Done, done, 7).await.expect("done"));

        let row = command_get(&mut tx, &command).await.expect("gets").expect("is there");
        assert_eq!((row.state, row.percent, row.result.as_deref()), (CommandState::Done, Some(50), Some("{}")));
        assert_eq!((row.counter, row.updated, row.progress.as_deref()), (1, 7, Some("half\u{fffd}")));
    }

    async fn commands_are_sent_in_order_until_they_expire(db: Db) {
        let id = add_box(&db, 1).await;
        let first = add_command(&db, &id, "z", 100, 1).await;
        let second = add_command(&db, &id, "a", 200, 2).await;
        let third = add_command(&db, &id, "m", 100, 3).await;
        let mut tx = write(&db).await;
        command_advance(&mut tx, &third, CommandState::Accepted, CommandNews::default(), 4).await.expect("accepted");
        let open = async |tx: &mut Tx, now| -> Vec<CommandId> {
            command_list_open(tx, &id, now).await.expect("lists").into_iter().map(|c| c.command_id).collect()
        };

        assert_eq!(open(&mut tx, 50).await, [first.clone(), second.clone(), third.clone()]);
        assert_eq!(open(&mut tx, 100).await, std::slice::from_ref(&second));
        assert_eq!(command_expire(&mut tx, 1000, 99).await.expect("expires"), []);
        assert_eq!(command_expire(&mut tx, 1000, 100).await.expect("expires"), [(first, id.clone())]);
        assert_eq!(command_expire(&mut tx, 30, 131).await.expect("expires"), [(third.clone(), id.clone())]);
        let row = command_get(&mut tx, &third).await.expect("gets").expect("is there");
        assert_eq!(row.reason.as_deref(), Some("the box began and never came back"));
        let newest = command_list(&mut tx, &id, &Filter::default(), None, 2).await.expect("lists");
        assert_eq!(newest[0].command_id, third);
        let older = command_list(&mut tx, &id, &Filter::default(), Some((newest[1].created, newest[1].command_id.as_str())), 5).await.expect("lists");
        assert_eq!(older.len(), 1);
        assert_eq!(box_next_counter(&mut tx, &box_id(9), 0).await.expect("draws"), None);
    }

    async fn a_rollout_keeps_how_each_box_ended(db: Db) {
        let id = add_box(&db, 1).await;
        let assignment = longhaul_protocol::release::Assignment {
            rollout: "r1".parse().expect("an id"), version: "1.1".into(), target: "t".into(),
            sha256: Digest32([1; 32]), length: 10,
        };
        let mut tx = write(&db).await;
        rollout_insert(&mut tx, &assignment, "ada", 1).await.expect("inserts");
        assert!(rollout_box_insert(&mut tx, &assignment.rollout, &id, Some("c1"), 1).await.expect("inserts"));
        assert!(!rollout_box_insert(&mut tx, &assignment.rollout, &id, None, 1).await.expect("twice"));
        let mut advance = async |state, step, reason| {
            let news = RolloutNews { state, step, reason };
            rollout_box_advance(&mut tx, &assignment.rollout, &id, news, 2).await.expect("advances")
        };
        assert!(advance(RolloutBoxState::Running, Some("trial"), None).await);
        assert!(advance(RolloutBoxState::RolledBack, None, Some("check failed")).await);
        assert!(!advance(RolloutBoxState::Committed, None, None).await);
        let boxes = rollout_box_list(&mut tx, &assignment.rollout).await.expect("lists");
        assert_eq!((boxes[0].state, boxes[0].step.as_deref(), boxes[0].reason.as_deref()),
            (RolloutBoxState::RolledBack, Some("trial"), Some("check failed")));
        assert!(rollout_abort(&mut tx, &assignment.rollout, "ada", 3).await.expect("aborts"));
        assert!(!rollout_abort(&mut tx, &assignment.rollout, "bob", 4).await.expect("twice"));
        let row = rollout_get(&mut tx, &assignment.rollout).await.expect("gets").expect("is there");
        assert_eq!((row.aborted, row.aborted_by.as_deref()), (Some(3), Some("ada")));
        assert_eq!(rollout_list(&mut tx, 5).await.expect("lists"), [row]);
        let huge = release_set(&mut tx, "t", "1", &Digest32([1; 32]), u64::MAX, 1).await;
        assert!(huge.is_err());
        release_set(&mut tx, "t", "1", &Digest32([1; 32]), 5, 1).await.expect("sets");
        release_set(&mut tx, "t", "1", &Digest32([2; 32]), 6, 2).await.expect("sets again");
        let release = release_get(&mut tx, "t").await.expect("gets").expect("is there");
        assert_eq!((release.length, release.created), (6, 1));
        assert_eq!(release_list(&mut tx).await.expect("lists"), [release]);
    }
}
