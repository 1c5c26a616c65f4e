//! Buckets are tried out when somebody wants to use them, and what was found out is used.

use longhaul_fleet_api::fleet::FleetErrorKind;
use longhaul_fleet_api::objects::bucket::{BucketTarget, Buckets, Checksums};
use longhaul_protocol::upload::{CompleteResult, StartResult, StoreTrust};

use crate::bench::{Bench, eventually, operator};
use crate::delivery::{Uplink, done};
use crate::objects;

/// The built-in store of a bench, with these keys.
fn target(bench: &Bench, secret: Option<&str>) -> BucketTarget {
    let keys = std::fs::read(bench.dir.path().join("s3-keys.json")).expect("keys");
    let keys: serde_json::Value = serde_json::from_slice(&keys).expect("JSON");
    let text = |name: &str| keys[name].as_str().expect("text").to_owned();
    BucketTarget {
        endpoint: Some(format!("https://localhost:{}", bench.s3_port)),
        region: "us-east-1".to_owned(),
        access_key: text("access_key"),
        secret_key: secret.map_or_else(|| text("secret_key"), str::to_owned),
        root_pem: Some(bench.pki().root_pem()),
        trust: StoreTrust::Fleet,
        staging: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bucket_of_a_new_ticket_is_tried_out_and_nothing_stays_behind() {
    let bench = Bench::start().await;
    let of = bench.enrolled(1).await;
    let unknown = bench.fleet.destination("haul").await.expect_err("unknown");
    assert_eq!(unknown.kind(), FleetErrorKind::NotFound);

    let _uplink = Uplink::new(&bench, &of).await;
    eventually("it was tried out", async || {
        bench.fleet.destination("haul").await.is_ok()
    })
    .await;

    let found = bench.fleet.destination("haul").await.expect("found out");
    let able = &found.abilities;
    assert!(found.usable, "{found:?}");
    assert!(able.put && able.read && able.multipart && able.delete && able.conditional_put);
    assert_eq!(able.checksums, Checksums::Verified);
    let s3 = objects::client(&bench, None);
    let left = s3.list_objects_v2().bucket("haul").send().await;
    assert_eq!(left.expect("a list").key_count, Some(0));
    let begun = s3.list_multipart_uploads().bucket("haul").send().await;
    assert_eq!(begun.expect("a list").uploads.unwrap_or_default(), []);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_destination_is_said_in_words() {
    let bench = Bench::start().await;
    let wrong = Buckets::new(&target(&bench, Some("not the secret"))).expect("a client");
    let found = wrong.probe("haul", "probe-1").await;
    assert!(!found.put);
    assert!(
        found.problems[0].contains("secret key") || found.problems[0].contains("access key"),
        "{found:?}"
    );

    let nowhere = BucketTarget {
        endpoint: Some("https://localhost:1".to_owned()),
        ..target(&bench, None)
    };
    let found = Buckets::new(&nowhere).expect("a client");
    let found = found.probe("haul", "probe-1").await;
    assert!(found.problems[0].contains("cannot be reached"), "{found:?}");

    let actor = operator();
    let probed = bench.fleet.destination_probe(&actor, "Not A Bucket");
    let refused = probed.await.expect_err("refused");
    assert_eq!(refused.kind(), FleetErrorKind::Invalid);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_answer_is_lost_is_not_carried_out_twice() {
    let bench = Bench::start().await;
    let of = bench.enrolled(1).await;
    let uplink = Uplink::new(&bench, &of).await;
    let actor = operator();
    let probed = bench.fleet.destination_probe(&actor, "haul");
    assert!(probed.await.expect("tried out").abilities.conditional_put);
    let object = uplink.object("a", 1, b"hello");
    let StartResult::Single { put, .. } = uplink.start(object.clone()).await else {
        panic!("one piece");
    };
    assert_eq!(uplink.send(&put, b"hello".to_vec()).await.status(), 200);
    let s3 = objects::client(&bench, None);
    let written = async || {
        let head = s3.head_object().bucket("haul").key("a").send().await;
        head.expect("an object").last_modified.expect("a time")
    };
    let first = written().await;

    // The box has not heard of it, and asks again.
    let StartResult::Single { upload, put } = uplink.start(object.clone()).await else {
        panic!("one piece");
    };
    assert_eq!(uplink.send(&put, b"hello".to_vec()).await.status(), 412);
    let completed = uplink.complete(done(&upload, vec![])).await;
    assert_eq!(completed, CompleteResult::Verified);
    assert_eq!(written().await, first);

    // What somebody else has put there is replaced, as ever.
    let there = s3.put_object().bucket("haul").key("b");
    let there = there.body(b"other".to_vec().into()).send().await;
    there.expect("put");
    let object = uplink.object("b", 2, b"hello");
    let StartResult::Single { upload, put } = uplink.start(object.clone()).await else {
        panic!("one piece");
    };
    assert_eq!(uplink.send(&put, b"hello".to_vec()).await.status(), 412);
    let differs = uplink.complete(done(&upload, vec![])).await;
    assert!(matches!(differs, CompleteResult::Restart { .. }));
    let StartResult::Single { upload, put } = uplink.start(object).await else {
        panic!("one piece");
    };
    assert_eq!(uplink.send(&put, b"hello".to_vec()).await.status(), 200);
    let completed = uplink.complete(done(&upload, vec![])).await;
    assert_eq!(completed, CompleteResult::Verified);
    assert_eq!(uplink.read("b").await, b"hello");
    bench.stop().await;
}
