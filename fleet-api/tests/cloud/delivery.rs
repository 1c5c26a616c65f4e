//! Delivery from a box to the bucket over presigned requests.

use futures::TryStreamExt;
use longhaul_fleet_api::fleet::{NewTicket, ObjectQuery};
use longhaul_protocol::ids::{ObjectKey, TicketId};
use longhaul_protocol::journal::ObjectVersion;
use longhaul_protocol::upload::{
    AbortUploads, CompleteResult, CompleteUpload, CompleteUploads, Completed, PartUrls,
    PartUrlsRequest, PresignedPut, StartResult, StartUploads, Started, UploadObject,
};
use longhaul_protocol::value::Digest32;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bench::{Bench, TestBox, check_headers, headers, operator};

pub struct Uplink<'a> {
    bench: &'a Bench,
    pub https: reqwest::Client,
    ticket: TicketId,
    bucket: String,
}

impl<'a> Uplink<'a> {
    pub async fn new(bench: &'a Bench, of: &TestBox) -> Self {
        Self::to(bench, of, "haul").await
    }

    pub async fn to(bench: &'a Bench, of: &TestBox, bucket: &str) -> Self {
        let new = NewTicket {
            box_id: of.id.clone(),
            order: None,
            bucket: bucket.to_owned(),
            valid_for_secs: 3600,
        };
        let ticket = bench
            .fleet
            .ticket_create(&operator(), new)
            .await
            .expect("a ticket");
        Self {
            bench,
            https: bench.https(&of.ldevid, &of.key),
            ticket: ticket.id,
            bucket: bucket.to_owned(),
        }
    }

    pub fn object(&self, key: &str, version: u64, bytes: &[u8]) -> UploadObject {
        UploadObject {
            object: ObjectVersion {
                bucket: self.bucket.clone(),
                key: key.parse().expect("a key"),
                version,
            },
            ticket: self.ticket.clone(),
            bytes: bytes.len() as u64,
            blake3: Digest32(*blake3::hash(bytes).as_bytes()),
            content_type: Some("text/plain".to_owned()),
            metadata: [("camera".to_owned(), "seven".to_owned())].into(),
            headers: headers(),
        }
    }

    /// Completes one upload; `None` where the cloud cannot say now.
    pub async fn try_complete(&self, request: &CompleteUploads) -> Option<CompleteResult> {
        let url = self.bench.url("/v1/box/uploads/complete");
        let answer = self.https.post(url).json(request).send().await;
        let answer = answer.expect("an answer");
        if answer.status() != 200 {
            return None;
        }
        let mut completed: Completed = answer.json().await.expect("JSON");
        Some(completed.uploads.remove(0))
    }

    pub async fn post<T: Serialize, A: DeserializeOwned>(&self, path: &str, body: &T) -> A {
        let answer = self
            .https
            .post(self.bench.url(path))
            .json(body)
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.expect("JSON")
    }

    pub async fn start(&self, object: UploadObject) -> StartResult {
        let request = StartUploads {
            objects: vec![object],
            conditions: true,
        };
        let mut started: Started = self.post("/v1/box/uploads/start", &request).await;
        started.uploads.remove(0)
    }

    pub async fn complete(&self, upload: CompleteUpload) -> CompleteResult {
        let request = CompleteUploads {
            uploads: vec![upload],
        };
        let mut completed: Completed = self.post("/v1/box/uploads/complete", &request).await;
        completed.uploads.remove(0)
    }

    /// Sends as the box does; says what the store answered.
    pub async fn send(&self, put: &PresignedPut, bytes: Vec<u8>) -> reqwest::Response {
        let mut request = self.https.put(&put.url).body(bytes);
        for (name, value) in &put.headers {
            request = request.header(name, value);
        }
        request.send().await.expect("an answer")
    }

    pub async fn put(&self, put: &PresignedPut, bytes: Vec<u8>) -> String {
        let answer = self.send(put, bytes).await;
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
        answer.headers()["etag"].to_str().expect("text").to_owned()
    }

    pub async fn read(&self, key: &str) -> Vec<u8> {
        let key: ObjectKey = key.parse().expect("a key");
        let open = self
            .bench
            .fleet
            .object_open("haul", &key)
            .await
            .expect("an object");
        let chunks: Vec<_> = open.body.try_collect().await.expect("read");
        chunks.concat()
    }
}

pub fn done(upload: &longhaul_protocol::ids::UploadId, etags: Vec<String>) -> CompleteUpload {
    CompleteUpload {
        upload: upload.clone(),
        etags,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_object_travels_in_one_piece_and_is_compared() {
    let bench = Bench::start().await;
    let of = bench.enrolled(1).await;
    let uplink = Uplink::new(&bench, &of).await;
    let object = uplink.object("notes/a b+c ä.txt", 1, b"hello");

    let StartResult::Single { upload, put } = uplink.start(object.clone()).await else {
        panic!("one piece");
    };
    let StartResult::Single { upload: same, .. } = uplink.start(object.clone()).await else {
        panic!("one piece");
    };
    assert_eq!(upload, same, "asking twice yields the same upload");
    uplink.put(&put, b"hello".to_vec()).await;

    assert_eq!(
        uplink.complete(done(&upload, vec![])).await,
        CompleteResult::Verified
    );
    assert_eq!(
        uplink.complete(done(&upload, vec![])).await,
        CompleteResult::Verified
    );
    assert_eq!(uplink.start(object).await, StartResult::Verified { upload });
    assert_eq!(uplink.read("notes/a b+c ä.txt").await, b"hello");
    check_headers(&bench, "notes/a b+c ä.txt").await;
    let query = ObjectQuery {
        bucket: "haul".to_owned(),
        delimiter: Some("/".to_owned()),
        limit: 10,
        ..ObjectQuery::default()
    };
    let page = bench.fleet.objects_list(&query).await.expect("a page");
    assert_eq!(page.prefixes, ["notes/"]);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_object_travels_in_parts_also_past_a_restart_of_the_cloud() {
    let bench = Bench::start().await;
    let of = bench.enrolled(2).await;
    let bytes = [*b"longhaul", *b"carries "].concat().repeat(1_250_000);
    let uplink = Uplink::new(&bench, &of).await;
    let object = uplink.object("big.bin", 1, &bytes);
    let ticket = uplink.ticket.clone();
    let StartResult::Multipart {
        upload,
        part_bytes,
        parts,
    } = uplink.start(object.clone()).await
    else {
        panic!("parts");
    };
    assert_eq!((part_bytes, parts), (16 << 20, 2));
    let urls = |parts: Vec<u32>| PartUrlsRequest {
        upload: upload.clone(),
        parts,
    };
    let pieces: Vec<Vec<u8>> = bytes.chunks(16 << 20).map(<[u8]>::to_vec).collect();
    let first: PartUrls = uplink.post("/v1/box/uploads/parts", &urls(vec![1])).await;
    let first = uplink.put(&first.puts[0], pieces[0].clone()).await;
    let dir = bench.stop().await;

    let bench = Bench::start_in(dir).await;
    let uplink = Uplink {
        bench: &bench,
        https: bench.https(&of.ldevid, &of.key),
        ticket,
        bucket: "haul".to_owned(),
    };
    let StartResult::Multipart { upload: same, .. } = uplink.start(object.clone()).await else {
        panic!("parts");
    };
    assert_eq!(upload, same);
    let second: PartUrls = uplink.post("/v1/box/uploads/parts", &urls(vec![2])).await;
    let second = uplink.put(&second.puts[0], pieces[1].clone()).await;
    let etags = vec![first, second];

    assert_eq!(
        uplink.complete(done(&upload, etags.clone())).await,
        CompleteResult::Verified
    );
    assert_eq!(
        uplink.complete(done(&upload, etags)).await,
        CompleteResult::Verified
    );
    assert!(uplink.read("big.bin").await == bytes, "byte for byte");
    check_headers(&bench, "big.bin").await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_bytes_than_announced_are_never_called_verified() {
    let bench = Bench::start().await;
    let of = bench.enrolled(3).await;
    let uplink = Uplink::new(&bench, &of).await;
    let object = uplink.object("a", 1, b"hello");
    let StartResult::Single { upload, put } = uplink.start(object.clone()).await else {
        panic!("one piece");
    };

    let nothing = uplink.complete(done(&upload, vec![])).await;
    assert!(
        matches!(nothing, CompleteResult::Restart { .. }),
        "{nothing:?}"
    );
    let StartResult::Single { .. } = uplink.start(object.clone()).await else {
        panic!("begins anew");
    };
    uplink.put(&put, b"hellO".to_vec()).await;
    let altered = uplink.complete(done(&upload, vec![])).await;
    assert!(
        matches!(altered, CompleteResult::Restart { .. }),
        "{altered:?}"
    );

    let StartResult::Single { upload: again, put } = uplink.start(object).await else {
        panic!("begins anew");
    };
    uplink.put(&put, b"hello".to_vec()).await;
    assert_eq!(
        uplink.complete(done(&again, vec![])).await,
        CompleteResult::Verified
    );
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_bucket_or_ticket_allows_is_refused_for_good() {
    let bench = Bench::start().await;
    let (of, other) = (bench.enrolled(4).await, bench.enrolled(5).await);
    let uplink = Uplink::new(&bench, &of).await;
    let stranger = Uplink::new(&bench, &other).await;

    let mut elsewhere = uplink.object("a", 1, b"x");
    elsewhere.object.bucket = "other-bucket".to_owned();
    let mut unholdable = uplink.object("a", 2, b"x");
    unholdable.object.bucket = "Not_A_Bucket".to_owned();
    let mut huge = uplink.object("a", 3, b"x");
    huge.bytes = 1 << 50;
    let mut header = uplink.object("a", 4, b"x");
    header.metadata.insert("bad name".to_owned(), String::new());
    let mut secret = uplink.object("a", 6, b"x");
    let grant = ("x-amz-acl".to_owned(), "public-read".to_owned());
    secret.headers.extend([grant]);
    let mut borrowed = uplink.object("a", 5, b"x");
    borrowed.ticket = stranger.ticket.clone();
    for object in [elsewhere, unholdable, huge, header, secret, borrowed] {
        let result = uplink.start(object.clone()).await;
        assert!(
            matches!(result, StartResult::Refused { .. }),
            "{object:?}: {result:?}"
        );
    }

    let StartResult::Single { upload, .. } = uplink.start(uplink.object("b", 1, b"x")).await else {
        panic!("one piece");
    };
    let changed = uplink.start(uplink.object("b", 1, b"y")).await;
    assert!(
        matches!(changed, StartResult::Refused { .. }),
        "{changed:?}"
    );
    let theirs = stranger.complete(done(&upload, vec![])).await;
    assert!(
        matches!(theirs, CompleteResult::Restart { .. }),
        "{theirs:?}"
    );
    let abort = AbortUploads {
        uploads: vec![upload.clone()],
    };
    let url = bench.url("/v1/box/uploads/abort");
    let aborted = uplink
        .https
        .post(url)
        .json(&abort)
        .send()
        .await
        .expect("an answer");
    assert_eq!(aborted.status(), 204);
    let gone = uplink.complete(done(&upload, vec![])).await;
    assert!(matches!(gone, CompleteResult::Restart { .. }), "{gone:?}");
    bench.stop().await;
}
