//! What goes wrong between the cloud and the object store.

use std::time::Duration;

use http::{Method, StatusCode};
use longhaul_protocol::ids::UploadId;
use longhaul_protocol::upload::{
    AbortUploads, BucketRefused, BucketState, CompleteResult, CompleteUploads, PartUrls,
    PartUrlsRequest, StartResult, StartUploads, Started,
};

use crate::bench::{Bench, eventually, headers, operator};
use crate::delivery::{Uplink, done};
use crate::objects;

#[expect(dead_code, reason = "the box's tests use more of it")]
#[path = "../../../device/tests/support/faults.rs"]
mod proxy;

use proxy::Fault;
pub use proxy::Faults;

/// A cloud whose object store is another one's, behind a proxy.
async fn behind_a_proxy(store: &Bench) -> (Bench, std::sync::Arc<Faults>) {
    let http = crate::people::https(store);
    let target = format!("https://localhost:{}", store.s3_port);
    let faults = Faults::before(target, http).await;
    let keys = std::fs::read(store.dir.path().join("s3-keys.json")).expect("keys");
    let keys: serde_json::Value = serde_json::from_slice(&keys).expect("JSON");
    let text = |name: &str| keys[name].as_str().map(str::to_owned);
    let url = faults.url();
    let bench = Bench::start_with(|settings| {
        settings.s3_endpoint = Some(url);
        settings.s3_region = Some("us-east-1".to_owned());
        settings.s3_access_key = text("access_key");
        settings.s3_secret_key = text("secret_key");
    })
    .await;
    (bench, faults)
}

/// Sends every part of an object of two parts.
async fn send(uplink: &Uplink<'_>, upload: &UploadId, bytes: &[u8]) -> Vec<String> {
    let request = PartUrlsRequest {
        upload: upload.clone(),
        parts: vec![1, 2],
    };
    let urls: PartUrls = uplink.post("/v1/box/uploads/parts", &request).await;
    let mut etags = Vec::new();
    for (put, part) in urls.puts.iter().zip(bytes.chunks(16 << 20)) {
        etags.push(uplink.put(put, part.to_vec()).await);
    }
    etags
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_whose_answer_is_lost_is_found_to_have_happened() {
    let store = Bench::start().await;
    let (bench, faults) = behind_a_proxy(&store).await;
    let of = bench.enrolled(1).await;
    let uplink = Uplink::new(&bench, &of).await;
    let bytes = vec![7; 17 << 20];
    let object = uplink.object("big", 1, &bytes);
    let StartResult::Multipart { upload, .. } = uplink.start(object.clone()).await else {
        panic!("parts");
    };
    let etags = send(&uplink, &upload, &bytes).await;
    // The first is carried out, and whoever asks again is told that there is no such upload.
    faults.befall(Method::POST, "uploadId=", 1, Fault::LoseAnswer);
    faults.befall(
        Method::POST,
        "uploadId=",
        1,
        Fault::Answer(StatusCode::SERVICE_UNAVAILABLE, "", vec![]),
    );
    // Then it is read back, over a line that fails.
    faults.befall(Method::GET, "/big", 1, Fault::TruncateAnswer);
    faults.befall(Method::GET, "/big", 1, Fault::Cut);
    faults.befall(
        Method::GET,
        "/big",
        1,
        Fault::Delay(Duration::from_millis(100)),
    );

    let mut result = None;
    for _ in 0..20 {
        let request = CompleteUploads {
            uploads: vec![done(&upload, etags.clone())],
        };
        result = uplink.try_complete(&request).await;
        if result.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    assert_eq!(result, Some(CompleteResult::Verified));
    assert!(uplink.read("big").await == bytes, "byte for byte");
    assert_eq!(uplink.start(object).await, StartResult::Verified { upload });
    bench.stop().await;
    store.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_nobody_will_finish_are_gone_from_the_bucket() {
    let bench = Bench::start().await;
    let of = bench.enrolled(1).await;
    let uplink = Uplink::new(&bench, &of).await;
    let bytes = vec![7; 17 << 20];
    let (given_up, open) = (
        uplink.object("given-up", 1, &bytes),
        uplink.object("open", 2, &bytes),
    );
    assert_eq!(open.headers, headers());
    let StartResult::Multipart { upload, .. } = uplink.start(given_up).await else {
        panic!("parts");
    };
    let StartResult::Multipart { .. } = uplink.start(open).await else {
        panic!("parts");
    };
    let s3 = objects::client(&bench, None);
    // Begun by a process that died before it could write that down.
    let orphan = s3.create_multipart_upload().bucket("haul").key("orphan");
    orphan.send().await.expect("begun");
    let keys = async || {
        let list = s3.list_multipart_uploads().bucket("haul").send().await;
        let uploads = list.expect("a list").uploads.unwrap_or_default();
        let keys = uploads.into_iter().filter_map(|upload| upload.key);
        keys.filter(|key| !key.starts_with('.')).collect::<Vec<_>>()
    };
    assert_eq!(keys().await, ["given-up", "open", "orphan"]);

    let abort = AbortUploads {
        uploads: vec![upload],
    };
    let url = bench.url("/v1/box/uploads/abort");
    let aborted = uplink.https.post(url).json(&abort).send().await;
    assert_eq!(aborted.expect("an answer").status(), 204);
    assert_eq!(keys().await, ["open", "orphan"]);

    bench.fleet.orphans_free(3_600_000).await.expect("looked");
    assert_eq!(keys().await, ["open", "orphan"], "it may be a moment old");
    bench.fleet.orphans_free(0).await.expect("looked");
    assert_eq!(keys().await, ["open"]);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_is_tried_out_over_the_line_that_there_is() {
    let store = Bench::start().await;
    let (bench, faults) = behind_a_proxy(&store).await;
    for bucket in ["denied", "elsewhere", "skewed"] {
        let made = objects::client(&store, None).create_bucket().bucket(bucket);
        made.send().await.expect("made");
    }
    let denied = "<Error><Code>AccessDenied</Code><Message>by policy</Message></Error>";
    faults.befall(
        Method::PUT,
        "/denied/.longhaul-probe/",
        usize::MAX,
        Fault::Answer(StatusCode::FORBIDDEN, denied, vec![]),
    );
    let moved = "<Error><Code>PermanentRedirect</Code><Message>use eu-north-1</Message></Error>";
    faults.befall(
        Method::PUT,
        "/elsewhere/.longhaul-probe/",
        usize::MAX,
        Fault::Answer(StatusCode::MOVED_PERMANENTLY, moved, vec![]),
    );
    let skewed = "<Error><Code>RequestTimeTooSkewed</Code><Message>15 minutes</Message></Error>";
    faults.befall(
        Method::PUT,
        "/skewed/.longhaul-probe/",
        usize::MAX,
        Fault::Answer(StatusCode::FORBIDDEN, skewed, vec![]),
    );

    for (bucket, says) in [
        ("denied", "may not put an object in bucket denied"),
        ("elsewhere", "another region"),
        ("skewed", "clock"),
    ] {
        let probed = bench.fleet.destination_probe(&operator(), bucket).await;
        let probed = probed.expect("tried out");
        assert!(!probed.usable);
        let problems = probed.abilities.problems.join("; ");
        assert!(problems.contains(says), "{bucket}: {problems}");
    }
    let probed = bench.fleet.destination_probe(&operator(), "fine").await;
    assert!(probed.expect("tried out").usable);
    bench.stop().await;
    store.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn withdrawn_access_to_one_bucket_holds_its_objects_and_nobody_elses_until_it_is_back() {
    let store = Bench::start().await;
    let (bench, faults) = behind_a_proxy(&store).await;
    let of = bench.enrolled(1).await;
    let uplink = Uplink::new(&bench, &of).await;
    let beside = Uplink::to(&bench, &of, "beside").await;
    let object = uplink.object("sent", 1, b"hello");
    let StartResult::Single { upload, put } = uplink.start(object).await else {
        panic!("one piece");
    };
    uplink.put(&put, b"hello".to_vec()).await;
    let probed = bench.fleet.destination_probe(&operator(), "haul").await;
    assert!(probed.expect("tried out").usable);

    let denied = "<Error><Code>AccessDenied</Code><Message>by policy</Message></Error>";
    for method in [Method::PUT, Method::GET, Method::POST] {
        let fault = Fault::Answer(StatusCode::FORBIDDEN, denied, vec![]);
        faults.befall(method, "/haul", usize::MAX, fault);
    }
    let completed = uplink.complete(done(&upload, vec![])).await;
    assert!(
        matches!(completed, CompleteResult::Later { .. }),
        "{completed:?}"
    );
    let refused = BucketRefused {
        bucket: "haul".to_owned(),
        reason: "the object store answered 403".to_owned(),
    };
    eventually(
        "the bucket is tried out and found to be refused",
        async || {
            let state: BucketState = uplink.post("/v1/box/buckets/refused", &refused).await;
            state
                .held
                .is_some_and(|why| why.contains("may not put an object in bucket haul"))
        },
    )
    .await;
    let both = StartUploads {
        objects: vec![
            uplink.object("next", 2, b"next"),
            beside.object("a", 3, b"a"),
        ],
        conditions: false,
    };
    let started: Started = uplink.post("/v1/box/uploads/start", &both).await;
    assert!(
        matches!(started.uploads[0], StartResult::Later { .. }),
        "{started:?}"
    );
    let StartResult::Single { upload: other, put } = &started.uploads[1] else {
        panic!("another bucket is not held: {started:?}");
    };
    beside.put(put, b"a".to_vec()).await;
    let completed = beside.complete(done(other, vec![])).await;
    assert_eq!(completed, CompleteResult::Verified);
    let found = bench.fleet.destination("haul").await.expect("known");
    assert!(!found.usable && found.abilities.denied, "{found:?}");
    assert!(
        found
            .abilities
            .notes
            .iter()
            .any(|note| note.contains("wait")),
        "{found:?}"
    );
    let unknown = BucketRefused {
        bucket: "nobodys".to_owned(),
        reason: String::new(),
    };
    let url = bench.url("/v1/box/buckets/refused");
    let answer = uplink.https.post(url).json(&unknown).send().await;
    assert_eq!(
        answer.expect("an answer").status(),
        404,
        "it is not asked for others"
    );

    faults.rules.lock().clear();
    let probed = bench.fleet.destination_probe(&operator(), "haul").await;
    assert!(probed.expect("tried out").usable);
    let completed = uplink.complete(done(&upload, vec![])).await;
    assert_eq!(
        completed,
        CompleteResult::Verified,
        "nothing was sent twice"
    );
    let next = uplink.start(uplink.object("next", 2, b"next")).await;
    assert!(matches!(next, StartResult::Single { .. }), "{next:?}");
    bench.stop().await;
    store.stop().await;
}
