//! Delivery: every step durable, nothing mixed, space given back only when it is safe.

use longhaul_vault::{Condition, Delivery, DeliveryEvent as Event, Error, Vault, Version};

use crate::support::{bytes, job, open, put, read_all, try_get};

fn deliver(vault: &Vault, version: Version, event: Event) {
    vault
        .deliver(version, event)
        .wait()
        .expect("the event fits");
}

fn started(upload: &str) -> Event {
    Event::Started {
        upload: upload.into(),
    }
}

fn part(number: u32) -> Event {
    Event::PartDone {
        number,
        etag: format!("etag-{number}"),
    }
}

#[test]
fn every_step_survives_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let version = put(&open(dir.path()), "k", &bytes(1, 9000)).version;
    let steps = [
        started("u1"),
        part(1),
        part(2),
        Event::Delivered,
        Event::Verified,
    ];
    let mut expected = Delivery::OnBox;
    for (at, event) in steps.into_iter().enumerate() {
        let vault = open(dir.path());
        assert_eq!(
            vault.head_version(version).expect("there").delivery,
            expected
        );
        let pending = vault.pending(None, 9);
        assert_eq!(
            pending.iter().map(|p| p.version).collect::<Vec<_>>(),
            [version]
        );
        deliver(&vault, version, event.clone());
        expected.step(event).expect("the event fits");
        if at == 2 {
            vault.checkpoint().expect("a checkpoint");
        }
    }
    let vault = open(dir.path());
    assert_eq!(
        vault.head_version(version).expect("there").delivery,
        Delivery::Verified
    );
    assert!(vault.pending(None, 9).is_empty());
}

#[test]
fn versions_are_delivered_in_the_order_they_were_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    for name in ["c", "a", "b", "a"] {
        put(&vault, name, b"x");
    }
    let names = |after, limit| {
        vault
            .pending(after, limit)
            .into_iter()
            .map(|p| p.key)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(None, 9), ["c", "b", "a"]);
    assert_eq!(names(None, 1), ["c"]);
    let first = vault.pending(None, 1)[0].version;
    assert_eq!(names(Some(first), 9), ["b", "a"]);
    let stats = vault.stats();
    assert_eq!(
        (stats.pending, stats.pending_bytes, stats.objects),
        (3, 3, 3)
    );
}

#[test]
fn an_object_overwritten_in_flight_is_never_mixed_with_its_successor() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    let old = put(&vault, "k", &bytes(1, 20_000)).version;
    deliver(&vault, old, started("u1"));
    let mut reader = vault.get_version(old, None).expect("a reader");
    let mut delivered = reader
        .next_chunk()
        .expect("verified")
        .expect("some")
        .to_vec();

    let new = put(&vault, "k", &bytes(2, 20_000)).version;

    // What is being read stays the old version; what is said about it is refused.
    delivered.extend(read_all(reader).expect("verified"));
    assert_eq!(delivered, bytes(1, 20_000));
    for event in [part(1), Event::Delivered, Event::Verified, Event::Released] {
        let refused = vault.deliver(old, event).wait();
        assert!(
            matches!(refused, Err(Error::NoSuchVersion(_))),
            "{refused:?}"
        );
    }
    assert_eq!(
        vault.head_version(new).expect("there").delivery,
        Delivery::OnBox
    );
    assert_eq!(vault.pending(None, 9).len(), 1);

    // The cloud's half of the old upload is remembered until somebody has cleared it up.
    drop(vault);
    let vault = open(dir.path());
    vault.checkpoint().expect("a checkpoint");
    drop(vault);
    let vault = open(dir.path());
    let abandoned = vault.abandoned();
    assert_eq!(abandoned.len(), 1);
    assert_eq!((abandoned[0].version, &*abandoned[0].upload), (old, "u1"));
    vault.forget_abandoned(old, "u1").wait().expect("forgotten");
    drop(vault);
    assert!(open(dir.path()).abandoned().is_empty());
}

#[test]
fn an_upload_that_failed_deleted_or_began_anew_is_abandoned_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    let version = put(&vault, "k", b"x").version;
    deliver(&vault, version, started("u1"));
    deliver(
        &vault,
        version,
        Event::Failed {
            reason: "403".into(),
        },
    );
    assert_eq!((vault.stats().failed, vault.stats().pending), (1, 0));
    deliver(&vault, version, Event::Reset);
    assert_eq!((vault.stats().failed, vault.stats().pending), (0, 1));
    deliver(&vault, version, started("u2"));
    deliver(&vault, version, Event::Reset);
    deliver(&vault, version, started("u3"));
    vault
        .delete(&job(), "k", Condition::Any)
        .wait()
        .expect("deleted");
    let uploads: Vec<_> = vault.abandoned().into_iter().map(|a| a.upload).collect();
    assert_eq!(uploads, ["u1", "u2", "u3"]);
}

#[test]
fn released_bytes_make_room_and_leave_their_record() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    let mut last = None;
    // Several times what the vault can hold.
    for round in 0..150 {
        let info = put(&vault, &format!("k{round}"), &bytes(round, 60_000));
        for event in [
            started("u"),
            part(1),
            Event::Delivered,
            Event::Verified,
            Event::Released,
        ] {
            deliver(&vault, info.version, event);
        }
        last = Some(info);
    }
    let info = last.expect("some");
    assert!(matches!(
        try_get(&vault, &info.key),
        Err(Error::Released(_))
    ));
    let head = vault.head(&job(), &info.key).expect("its record");
    assert_eq!(
        (head.resident, head.blake3, head.size),
        (false, info.blake3, 60_000)
    );
    drop(vault);
    let vault = open(dir.path());
    assert_eq!(vault.head(&job(), &info.key).expect("its record"), head);
    assert_eq!(
        vault
            .list(&job(), "", None, 999)
            .expect("a listing")
            .items
            .len(),
        150
    );
}

#[test]
fn an_event_that_means_nothing_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    let version = put(&vault, "k", b"x").version;
    for event in [part(1), Event::Verified, Event::Released] {
        let refused = vault.deliver(version, event).wait();
        assert!(
            matches!(refused, Err(Error::InvalidTransition(_))),
            "{refused:?}"
        );
    }
    let long = Event::Failed {
        reason: "x".repeat(10_000),
    };
    assert!(matches!(
        vault.deliver(version, long).wait(),
        Err(Error::TooLong { .. })
    ));
    assert_eq!(
        vault.head_version(version).expect("there").delivery,
        Delivery::OnBox
    );
}

#[test]
fn a_deletion_is_told_until_it_is_forgotten_over_restarts_and_checkpoints() {
    let dir = tempfile::tempdir().expect("a directory");
    let vault = open(dir.path());
    let first = put(&vault, "a", b"x").version;
    let overwritten = put(&vault, "b", b"x").version;
    let second = put(&vault, "b", b"y").version;
    for name in ["a", "b", "never"] {
        let deleted = vault.delete(&job(), name, Condition::Any).wait();
        assert_eq!(deleted.expect("deleted"), name != "never");
    }
    drop(vault);
    let vault = open(dir.path());
    vault.checkpoint().expect("a checkpoint");
    drop(vault);

    let vault = open(dir.path());
    let told = vault.deletions(9);
    let told: Vec<_> = told.iter().map(|d| (d.key.as_str(), d.version)).collect();
    assert_eq!(told, [("a", first), ("b", second)]);
    assert!(told.iter().all(|(_, version)| *version != overwritten));
    assert_eq!(vault.deletions(1).len(), 1);
    vault.forget_deletion(first).wait().expect("forgotten");
    vault
        .forget_deletion(first)
        .wait()
        .expect("forgotten already");
    drop(vault);

    let vault = open(dir.path());
    assert_eq!(vault.deletions(9).len(), 1);
    vault.erase_job(&job()).expect("erased");
    assert!(vault.deletions(9).is_empty(), "names go with their job");
}
