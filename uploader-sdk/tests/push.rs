//! Pushing through the public API to a real S3 server behind TLS.

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use longhaul_protocol::lan::Delivery;
use longhaul_protocol::value::UnixMillis;
use longhaul_sdk::delivery::wait_delivered;
use longhaul_sdk::{BoxClient, ConnectError, Outcome, Progress, PushError, PushOptions, Via, push};
use support::faults::CuttingProxy;
use support::{Authority, TestBox, noise, write};

const MIB: usize = 1024 * 1024;

fn options(test_box: &TestBox) -> PushOptions {
    PushOptions {
        part_bytes: 5 * MIB as u64,
        patience: Duration::from_secs(20),
        state_dir: Some(test_box.state_dir()),
        ..PushOptions::default()
    }
}

async fn connect(test_box: &TestBox) -> BoxClient {
    BoxClient::connect(&test_box.ticket, Some(&test_box.url()))
        .await
        .expect("connected")
}

/// A folder with small files, an empty one, odd names, and one that takes four parts.
fn folder(test_box: &TestBox) -> (PathBuf, BTreeMap<String, Vec<u8>>) {
    let root = test_box.dir.path().join("source");
    let mut files = BTreeMap::new();
    for n in 0..40_u8 {
        files.insert(
            format!("d{}/f{n}.bin", n % 3),
            noise(n.into(), 1000 + 37 * usize::from(n)),
        );
    }
    files.insert("empty".to_owned(), Vec::new());
    files.insert("ä ö+&=%.txt".to_owned(), b"odd".to_vec());
    files.insert("large.bin".to_owned(), noise(99, 17 * MIB + 5));
    for (name, bytes) in &files {
        write(&root.join(name), bytes);
    }
    (root, files)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_arrives_byte_for_byte_and_is_hashed() {
    let test_box = TestBox::start().await;
    let (root, files) = folder(&test_box);
    let client = connect(&test_box).await;
    let progress = Arc::new(Progress::default());
    let options = PushOptions {
        prefix: "run 7".to_owned(),
        ..options(&test_box)
    };

    let report = push(&client, &[root], &options, &progress)
        .await
        .expect("pushed");

    assert!(report.is_complete(), "{report:?}");
    assert_eq!(report.files.len(), files.len());
    for file in &report.files {
        let name = file.key.as_str().strip_prefix("run 7/").expect("prefixed");
        assert_eq!(
            test_box.object(file.key.as_str()).as_ref(),
            Some(&files[name]),
            "{name}"
        );
        assert_eq!(
            file.blake3.0,
            *blake3::hash(&files[name]).as_bytes(),
            "{name}"
        );
    }
    let shown = progress.snapshot();
    assert_eq!(
        (shown.files_on_box, shown.bytes_on_box),
        (shown.files, shown.bytes)
    );
    assert_eq!(shown.bytes_moving, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_the_box_has_not_heard_of_is_waited_for_only_while_it_is_new() {
    let mut test_box = TestBox::start().await;
    let (root, files) = folder(&test_box);
    let now = jiff::Timestamp::now().as_millisecond();

    test_box.ticket.issued = Some(UnixMillis(now));
    test_box.seen.unheard.store(3, Ordering::SeqCst);
    let client = connect(&test_box).await;
    let report = push(
        &client,
        std::slice::from_ref(&root),
        &options(&test_box),
        &Arc::default(),
    )
    .await
    .expect("pushed");
    assert_eq!(report.files.len(), files.len());

    test_box.ticket.issued = Some(UnixMillis(now - 3_600_000));
    test_box.seen.unheard.store(1_000, Ordering::SeqCst);
    let client = connect(&test_box).await;
    let refused = push(&client, &[root], &options(&test_box), &Arc::default()).await;
    let refused = refused.expect_err("refused at once");
    assert!(refused.to_string().contains("new one"), "{refused}");
    assert!(test_box.seen.unheard.load(Ordering::SeqCst) > 900);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_push_sends_nothing_and_a_changed_file_alone_is_sent() {
    let test_box = TestBox::start().await;
    let (root, _) = folder(&test_box);
    let client = connect(&test_box).await;
    let progress = Arc::default();
    let paths = [root.clone()];
    push(&client, &paths, &options(&test_box), &progress)
        .await
        .expect("pushed");
    test_box.seen.clear();

    let again = push(&client, &paths, &options(&test_box), &Arc::default())
        .await
        .expect("pushed");
    assert_eq!(test_box.seen.put_bytes.load(Ordering::SeqCst), 0);
    assert!(
        again
            .files
            .iter()
            .all(|f| f.outcome == Outcome::AlreadyThere)
    );
    assert_eq!(again.bytes_sent, 0);

    write(&root.join("d0/f0.bin"), b"changed");
    let third = push(&client, &paths, &options(&test_box), &Arc::default())
        .await
        .expect("pushed");
    assert_eq!(third.bytes_sent, 7);
    assert_eq!(
        test_box.object("d0/f0.bin").as_deref(),
        Some(&b"changed"[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_files_that_were_sent_are_listed_instead_of_asked_for_one_by_one() {
    let test_box = TestBox::start().await;
    let root = test_box.dir.path().join("source");
    for n in 0..150 {
        write(&root.join(format!("f{n}")), b"x");
    }
    let client = connect(&test_box).await;
    let paths = [root];
    push(&client, &paths, &options(&test_box), &Arc::default())
        .await
        .expect("pushed");
    test_box.seen.clear();

    let again = push(&client, &paths, &options(&test_box), &Arc::default())
        .await
        .expect("pushed");

    assert_eq!(again.bytes_sent, 0);
    assert_eq!(again.files.len(), 150);
    assert_eq!(test_box.seen.count(|r| r.contains("list-type=2")), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_moved_is_found_at_the_address_in_the_ticket_or_not_at_all() {
    let mut test_box = TestBox::start().await;
    test_box
        .ticket
        .lan_urls
        .insert(0, "https://127.0.0.1:1".to_owned());

    let client = BoxClient::connect(&test_box.ticket, None)
        .await
        .expect("found");
    test_box.ticket.lan_urls.truncate(1);
    let error = BoxClient::connect(&test_box.ticket, None)
        .await
        .expect_err("moved");

    assert_eq!(client.endpoint().addr, test_box.addr);
    assert_eq!(client.endpoint().via, Via::Ticket);
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_vanished_from_the_box_is_sent_again_whatever_the_journal_says() {
    let test_box = TestBox::start().await;
    let (root, files) = folder(&test_box);
    let client = connect(&test_box).await;
    let paths = [root];
    push(&client, &paths, &options(&test_box), &Arc::default())
        .await
        .expect("pushed");
    let objects = test_box.dir.path().join("objects").join(support::BUCKET);
    std::fs::remove_file(objects.join("d1/f1.bin")).expect("removed");

    let again = push(&client, &paths, &options(&test_box), &Arc::default())
        .await
        .expect("pushed");

    assert_eq!(again.bytes_sent, files["d1/f1.bin"].len() as u64);
    assert_eq!(
        test_box.object("d1/f1.bin").as_ref(),
        Some(&files["d1/f1.bin"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_mid_body_do_not_lose_a_byte() {
    let test_box = TestBox::start().await;
    let (root, files) = folder(&test_box);
    let proxy = CuttingProxy::start(test_box.addr, 8, 200_000).await;
    let given = format!("https://{}", proxy.addr);
    let client = BoxClient::connect(&test_box.ticket, Some(&given))
        .await
        .expect("connected");

    let report = push(&client, &[root], &options(&test_box), &Arc::default())
        .await
        .expect("pushed");

    assert!(report.is_complete(), "{:?}", report.failed);
    assert!(report.retries > 0, "nothing was cut");
    assert!(proxy.cuts_left() < 8);
    for (name, bytes) in &files {
        assert_eq!(test_box.object(name).as_ref(), Some(bytes), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_box_is_asked_again() {
    let test_box = TestBox::start().await;
    let (root, files) = folder(&test_box);
    let client = connect(&test_box).await;
    let options = options(&test_box);
    test_box.seen.busy.store(10, Ordering::SeqCst);

    // On a task of its own, as programs do: the future can be moved between threads.
    let pushing =
        tokio::spawn(async move { push(&client, &[root], &options, &Arc::default()).await });
    let report = pushing.await.expect("not cancelled").expect("pushed");

    assert_eq!(report.files.len(), files.len());
    assert!(report.retries >= 10, "{}", report.retries);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_read_is_sent_again() {
    let test_box = TestBox::start().await;
    let path = test_box.dir.path().join("large");
    write(&path, &noise(1, 30 * MIB));
    let client = connect(&test_box).await;
    let options = PushOptions {
        parts_at_once: 1,
        ..options(&test_box)
    };
    test_box.seen.frozen.store(true, Ordering::SeqCst);
    let seen = Arc::clone(&test_box.seen);
    let changed = noise(2, 30 * MIB);
    let (to_change, bytes) = (path.clone(), changed.clone());
    let meddle = tokio::spawn(async move {
        support::until("an upload", || seen.count(|r| r.contains("uploads")) > 0).await;
        write(&to_change, &bytes);
        seen.frozen.store(false, Ordering::SeqCst);
    });

    let report = push(&client, &[path], &options, &Arc::default())
        .await
        .expect("pushed");

    meddle.await.expect("meddled");
    assert!(report.is_complete(), "{:?}", report.failed);
    assert_eq!(test_box.object("large"), Some(changed.clone()));
    assert_eq!(report.files[0].blake3.0, *blake3::hash(&changed).as_bytes());
    assert_eq!(
        test_box
            .seen
            .count(|r| r.starts_with("DELETE") && r.contains("uploadId")),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_stops_the_push_and_says_what_to_do() {
    let mut test_box = TestBox::start().await;
    let (root, _) = folder(&test_box);
    test_box.ticket.secret_key.0 = "wrong".to_owned();
    let client = connect(&test_box).await;

    let error = push(&client, &[root], &options(&test_box), &Arc::default())
        .await
        .expect_err("refused");

    let PushError::Stopped { report, .. } = &error else {
        panic!("{error}");
    };
    assert!(report.files.is_empty());
    assert!(
        error
            .to_string()
            .contains("ask whoever sent the box for a new one"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_of_another_fleet_or_another_name_gets_nothing() {
    let ours = Authority::new();
    let name = longhaul_protocol::ticket::lan_name(&support::box_id(1));
    let other_name = longhaul_protocol::ticket::lan_name(&support::box_id(2));
    let mut other_fleet = TestBox::start_named(&Authority::new(), vec![name]).await;
    other_fleet.ticket.root_pem = ours.pem.clone();
    let by_ip = TestBox::start_named(&ours, vec![other_name, "127.0.0.1".to_owned()]).await;

    for test_box in [&other_fleet, &by_ip] {
        let error = BoxClient::connect(&test_box.ticket, Some(&test_box.url()))
            .await
            .expect_err("refused");

        assert!(matches!(error, ConnectError::NotTheBox { .. }), "{error}");
        assert_eq!(test_box.seen.count(|_| true), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_when_every_object_is_verified_or_has_failed() {
    let test_box = TestBox::start().await;
    let root = test_box.dir.path().join("source");
    for name in ["a", "b", "gone"] {
        write(&root.join(name), name.as_bytes());
    }
    let client = connect(&test_box).await;
    let progress = Arc::default();
    let mut report = push(&client, &[root], &options(&test_box), &progress)
        .await
        .expect("pushed");
    let failed = Delivery::Failed {
        reason: "the bucket refuses it".to_owned(),
    };
    let states = [("a", Delivery::InFlight), ("b", failed.clone())];
    let states = states.map(|(k, s)| (k.parse().expect("a key"), s));
    *test_box.seen.deliveries.lock().expect("not poisoned") = Some(BTreeMap::from(states));
    let seen = Arc::clone(&test_box.seen);
    tokio::spawn(async move {
        support::until("questions", || seen.count(|r| r.contains("delivery")) > 3).await;
        let mut states = seen.deliveries.lock().expect("not poisoned");
        let states = states.as_mut().expect("fixed");
        states.insert("a".parse().expect("a key"), Delivery::Verified);
    });

    wait_delivered(&client, &mut report, &progress, Duration::from_secs(20))
        .await
        .expect("answered");

    assert_eq!(report.files[0].delivery, Some(Delivery::Verified));
    assert_eq!(report.files[1].delivery, Some(failed));
    assert!(matches!(
        report.files[2].delivery,
        Some(Delivery::Failed { .. })
    ));
    assert!(!report.is_complete());
    assert_eq!(progress.snapshot().files_in_cloud, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_talks_nonsense_ends_the_push_with_an_error() {
    let authority = Authority::new();
    let test_box = TestBox::start_named(&authority, vec!["unused.invalid".to_owned()]).await;
    let name = longhaul_protocol::ticket::lan_name(&support::box_id(1));
    let nonsense = support::faults::nonsense(&authority, name).await;
    let (root, _) = folder(&test_box);
    let given = format!("https://{nonsense}");
    let client = BoxClient::connect(&test_box.ticket, Some(&given))
        .await
        .expect("TLS holds");
    let options = PushOptions {
        patience: Duration::from_secs(1),
        ..options(&test_box)
    };

    let error = push(&client, &[root], &options, &Arc::default())
        .await
        .expect_err("nonsense");

    assert!(matches!(error, PushError::Stopped { .. }), "{error}");
    assert!(client.status().await.is_err());
    assert!(
        client
            .deliveries(&["a".parse().expect("a key")])
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_the_box_has_forgotten_is_begun_again() {
    let test_box = TestBox::start().await;
    let (root, files) = folder(&test_box);
    let client = connect(&test_box).await;
    test_box.seen.lost_uploads.store(1, Ordering::SeqCst);

    let report = push(&client, &[root], &options(&test_box), &Arc::default())
        .await
        .expect("pushed");

    assert!(report.is_complete(), "{:?}", report.failed);
    assert_eq!(
        test_box.object("large.bin").as_ref(),
        Some(&files["large.bin"])
    );
    assert_eq!(
        test_box
            .seen
            .count(|r| r.starts_with("POST") && r.contains("?uploads")),
        2
    );
}
