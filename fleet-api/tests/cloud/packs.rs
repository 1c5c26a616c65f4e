//! Packs from a box: sent as one, taken apart into ordinary objects.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use longhaul_fleet_api::fleet::{NewTicket, ReceiptQuery};
use longhaul_fleet_api::store::receipts::{receipt_leaf_insert, receipt_root_insert};
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::{EpochId, ObjectKey, PackId, TicketId};
use longhaul_protocol::journal::ObjectVersion;
use longhaul_protocol::pack::{EntryHeader, begin, end, entry};
use longhaul_protocol::receipt::{Leaf, LeafPlace, RootClaims};
use longhaul_protocol::upload::{
    CompleteResult, PackCompleted, PackSent, PackStarted, PresignedPut, StartPack, StartResult,
    StartUploads, Started, UploadObject,
};
use longhaul_protocol::value::{Digest32, Jws, UnixMillis};
use longhaul_provisioning::receipt::tree::{Tree, leaf_hash};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bench::{Bench, PATIENCE, TestBox, check_headers, headers, operator};
use crate::faults::Faults;

async fn ticket(bench: &Bench, of: &TestBox) -> TicketId {
    let new = NewTicket {
        box_id: of.id.clone(),
        order: None,
        bucket: "haul".to_owned(),
        valid_for_secs: 3600,
    };
    let ticket = bench.fleet.ticket_create(&operator(), new).await;
    ticket.expect("a ticket").id
}

/// A box's way to the cloud.
struct Line {
    https: reqwest::Client,
    port: u16,
    ticket: TicketId,
}

impl Line {
    async fn new(bench: &Bench, of: &TestBox) -> Self {
        Self {
            https: bench.https(&of.ldevid, &of.key),
            port: bench.boxes_port,
            ticket: ticket(bench, of).await,
        }
    }

    fn object(&self, key: &str, version: u64, bytes: &[u8]) -> UploadObject {
        UploadObject {
            object: ObjectVersion {
                bucket: "haul".to_owned(),
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

    async fn ask<T: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        body: &T,
    ) -> Result<A, reqwest::Error> {
        let url = format!("https://localhost:{}{path}", self.port);
        let answer = self.https.post(url).json(body).send().await?;
        answer.error_for_status()?.json().await
    }

    async fn start(&self, objects: Vec<UploadObject>) -> PackStarted {
        let request = StartPack { objects };
        let started = self.ask("/v1/box/packs/start", &request).await;
        started.expect("started")
    }

    async fn put(&self, put: &PresignedPut, bytes: Vec<u8>) {
        let mut request = self.https.put(&put.url).body(bytes);
        for (name, value) in &put.headers {
            request = request.header(name, value);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
    }

    async fn sent(&self, pack: &PackId) -> Result<PackCompleted, reqwest::Error> {
        let request = PackSent { pack: pack.clone() };
        self.ask("/v1/box/packs/sent", &request).await
    }
}

fn pack<'a>(entries: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut bytes = begin();
    for (key, body) in entries {
        let header = EntryHeader {
            key: key.to_owned(),
            bytes: body.len() as u64,
            blake3: Digest32(*blake3::hash(body).as_bytes()),
            content_type: None,
            metadata: std::collections::BTreeMap::new(),
        };
        bytes.extend(entry(&header).expect("a short header"));
        bytes.extend(body);
    }
    bytes.extend(end());
    bytes
}

async fn read(bench: &Bench, key: &str) -> Option<Vec<u8>> {
    let key: ObjectKey = key.parse().expect("a key");
    let open = bench.fleet.object_open("haul", &key).await.ok()?;
    let chunks: Vec<_> = open.body.try_collect().await.expect("read");
    Some(chunks.concat())
}

/// Keys of the objects whose receipts the cloud signs, once the box has sealed all of them.
async fn countersigned(bench: &Bench, of: &TestBox, objects: &[UploadObject]) -> Vec<String> {
    let epoch: EpochId = "epoch-1".parse().expect("an epoch");
    let mut tx = bench.fleet.db().write().await.expect("a transaction");
    let mut hashes = Vec::new();
    for (index, of_object) in (0..).zip(objects) {
        let leaf = Leaf {
            object: of_object.object.clone(),
            bytes: of_object.bytes,
            blake3: of_object.blake3,
            stored: UnixMillis(7),
        };
        hashes.push(leaf_hash(&leaf).expect("hashes"));
        let place = LeafPlace {
            epoch: epoch.clone(),
            index,
            stored: leaf.stored,
        };
        let inserted = receipt_leaf_insert(
            &mut tx,
            &of.id,
            &leaf.object,
            leaf.bytes,
            leaf.blake3,
            &place,
        );
        inserted.await.expect("inserted");
    }
    let claims = RootClaims {
        v: VERSION,
        box_id: of.id.clone(),
        epoch,
        root: Tree::new(hashes).root().expect("leaves"),
        leaves: objects.len() as u64,
        sealed: UnixMillis(9),
    };
    // Whether the box's signature holds is asked when a root arrives and by whoever verifies.
    let root = Jws("signed".to_owned());
    receipt_root_insert(&mut tx, &claims, &root)
        .await
        .expect("inserted");
    tx.commit().await.expect("committed");
    let query = ReceiptQuery {
        box_id: None,
        bucket: "haul".to_owned(),
        prefix: String::new(),
        after: None,
        limit: 10,
    };
    let page = bench.fleet.receipts_list(&query).await.expect("listed");
    assert_eq!(page.receipts.len(), objects.len());
    let signed = page.receipts.into_iter().filter(|r| r.delivery.is_some());
    signed.map(|r| r.leaf.object.key.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_becomes_ordinary_objects_and_what_is_wrong_in_it_begins_anew() {
    let bench = Bench::start().await;
    let of = bench.enrolled(1).await;
    let line = Line::new(&bench, &of).await;
    let objects = vec![
        line.object("a/ä b.txt", 1, b"one"),
        line.object("empty", 2, b""),
        line.object("altered", 3, b"three"),
        line.object("left-out", 4, b"four"),
    ];
    let started = line.start(objects.clone()).await;
    let uploads: Vec<_> = started
        .uploads
        .iter()
        .map(|result| match result {
            StartResult::Packed { upload } => upload.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    let bytes = pack([
        ("a/ä b.txt", &b"one"[..]),
        ("empty", b""),
        ("altered", b"thRee"),
        ("not-announced", b"x"),
    ]);
    line.put(&started.put, bytes).await;

    let PackCompleted::Unpacked { uploads: results } =
        line.sent(&started.pack).await.expect("an answer")
    else {
        panic!("taken apart");
    };

    assert_eq!(results[&uploads[0]], CompleteResult::Verified);
    assert_eq!(results[&uploads[1]], CompleteResult::Verified);
    for wrong in &uploads[2..] {
        let result = &results[wrong];
        assert!(
            matches!(result, CompleteResult::Restart { .. }),
            "{result:?}"
        );
    }
    assert_eq!(
        read(&bench, "a/ä b.txt").await.as_deref(),
        Some(&b"one"[..])
    );
    check_headers(&bench, "a/ä b.txt").await;
    assert_eq!(read(&bench, "empty").await.as_deref(), Some(&b""[..]));
    for absent in ["altered", "left-out", "not-announced"] {
        assert_eq!(read(&bench, absent).await, None, "{absent}");
    }
    let again = line.sent(&started.pack).await.expect("an answer");
    assert!(matches!(again, PackCompleted::Unpacked { .. }), "harmless");
    assert_eq!(
        countersigned(&bench, &of, &objects).await,
        ["a/ä b.txt", "empty"],
        "what came in a pack is compared like everything else"
    );
    let started = line.start(objects).await;
    let (verified, packed) = started.uploads.split_at(2);
    assert!(
        verified
            .iter()
            .all(|r| matches!(r, StartResult::Verified { .. }))
    );
    assert!(
        packed
            .iter()
            .all(|r| matches!(r, StartResult::Packed { .. }))
    );
    let buckets = bench.fleet.buckets_list().await.expect("buckets");
    assert_eq!(buckets, ["haul"], "nobody sees where packs arrive");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_version_is_not_overtaken_by_an_older_one_in_a_pack() {
    let bench = Bench::start().await;
    let of = bench.enrolled(2).await;
    let line = Line::new(&bench, &of).await;
    let started = line.start(vec![line.object("a", 1, b"old")]).await;
    line.put(&started.put, pack([("a", &b"old"[..])])).await;

    let request = StartUploads {
        objects: vec![line.object("a", 2, b"new")],
        conditions: true,
    };
    let newer: Started = line
        .ask("/v1/box/uploads/start", &request)
        .await
        .expect("an answer");
    let StartResult::Single { put, .. } = &newer.uploads[0] else {
        panic!("{newer:?}");
    };
    line.put(put, b"new".to_vec()).await;
    let unpacked = line.sent(&started.pack).await.expect("an answer");

    let PackCompleted::Unpacked { uploads } = unpacked else {
        panic!("{unpacked:?}");
    };
    assert!(
        uploads
            .values()
            .all(|r| matches!(r, CompleteResult::Restart { .. })),
        "{uploads:?}"
    );
    assert_eq!(read(&bench, "a").await.as_deref(), Some(&b"new"[..]));
    bench.stop().await;
}

/// A child that does not outlive the test.
struct Running(Child);

impl Running {
    /// Starts the program on `data`; yields the port for boxes.
    fn start(data: &std::path::Path) -> (Self, u16) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul-cloud"));
        command.arg("--data").arg(data);
        command.args(["--listen-s3", "127.0.0.1:0"]);
        for port in ["people", "boxes", "mqtt"] {
            command.arg(format!("--listen-{port}")).arg("127.0.0.1:0");
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = Self(command.spawn().expect("started"));
        let begun = Instant::now();
        loop {
            let ready = std::fs::read(data.join("ready.json")).unwrap_or_default();
            let ready: serde_json::Value = serde_json::from_slice(&ready).unwrap_or_default();
            if ready["pid"] == child.0.id() {
                let port = ready["boxes_port"].as_u64();
                let port = port.and_then(|p| u16::try_from(p).ok()).expect("a port");
                return (child, port);
            }
            assert!(begun.elapsed() < PATIENCE, "not ready in time");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_that_is_killed_while_it_takes_a_pack_apart_finishes_it_afterwards() {
    let bench = Bench::start().await;
    let of = bench.enrolled(3).await;
    let mut line = Line::new(&bench, &of).await;
    let dir = bench.stop().await;
    let files: Vec<(String, Vec<u8>)> = (0..400_u16)
        .map(|n| (format!("f{n}"), n.to_be_bytes().repeat(usize::from(n) * 7)))
        .collect();
    let (cloud, port) = Running::start(dir.path());
    line.port = port;
    let objects = (1..)
        .zip(&files)
        .map(|(version, (key, body))| line.object(key, version, body));
    let started = line.start(objects.collect()).await;
    let entries = files.iter().map(|(key, body)| (key.as_str(), &body[..]));
    line.put(&started.put, pack(entries)).await;

    // Killed at other moments each time; the last one may work in peace.
    let mut cloud = Some(cloud);
    for round in 1..=4_u32 {
        let asked = line.sent(&started.pack);
        let _ = tokio::time::timeout(round * Duration::from_millis(60), asked).await;
        drop(cloud.take());
        let (next, port) = Running::start(dir.path());
        (cloud, line.port) = (Some(next), port);
    }
    let begun = Instant::now();
    let results = loop {
        match line.sent(&started.pack).await.expect("an answer") {
            PackCompleted::Unpacked { uploads } => break uploads,
            other => assert!(begun.elapsed() < PATIENCE, "{other:?}"),
        }
    };
    drop(cloud);

    assert_eq!(results.len(), files.len());
    assert!(results.values().all(|r| *r == CompleteResult::Verified));
    let bench = Bench::start_in(dir).await;
    for (key, body) in &files {
        assert_eq!(read(&bench, key).await.as_ref(), Some(body), "{key}");
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packs_wait_below_the_prefix_that_was_set_and_what_is_not_ours_there_stays() {
    let store = Bench::start().await;
    let keys = std::fs::read(store.dir.path().join("s3-keys.json")).expect("keys");
    let keys: serde_json::Value = serde_json::from_slice(&keys).expect("JSON");
    let text = |name: &str| keys[name].as_str().map(str::to_owned);
    // Its certificate chains to the other fleet's root: a proxy in the clear stands before it.
    let target = format!("https://localhost:{}", store.s3_port);
    let faults = Faults::before(target, crate::people::https(&store)).await;
    let bench = Bench::start_with(|settings| {
        settings.s3_endpoint = Some(faults.url());
        settings.s3_access_key = text("access_key");
        settings.s3_secret_key = text("secret_key");
        settings.s3_staging = Some("ours-alone/packs".to_owned());
    })
    .await;
    let of = bench.enrolled(1).await;
    let line = Line::new(&bench, &of).await;
    let s3 = crate::objects::client(&store, None);
    s3.create_bucket()
        .bucket("ours-alone")
        .send()
        .await
        .expect("made");
    for key in ["packs/not-a-pack", "elsewhere"] {
        let put = s3.put_object().bucket("ours-alone").key(key);
        put.body(b"somebody's".to_vec().into())
            .send()
            .await
            .expect("put");
    }
    let objects = vec![line.object("a", 1, b"one"), line.object("b", 2, b"two")];

    let started = line.start(objects).await;
    let place = format!("/ours-alone/packs/{}?", started.pack);
    assert!(started.put.url.contains(&place), "{}", started.put.url);
    line.put(&started.put, pack([("a", &b"one"[..]), ("b", b"two")]))
        .await;
    let unpacked = line.sent(&started.pack).await.expect("an answer");

    let PackCompleted::Unpacked { uploads } = unpacked else {
        panic!("taken apart: {unpacked:?}");
    };
    assert!(
        uploads.values().all(|r| *r == CompleteResult::Verified),
        "{uploads:?}"
    );
    longhaul_fleet_api::unpack::sweep(&bench.fleet)
        .await
        .expect("swept");
    let left = s3
        .list_objects_v2()
        .bucket("ours-alone")
        .send()
        .await
        .expect("a list");
    let left: Vec<_> = left.contents().iter().filter_map(|o| o.key()).collect();
    assert_eq!(left, ["elsewhere", "packs/not-a-pack"]);
    let shown = bench.fleet.buckets_list().await.expect("a list");
    assert!(!shown.contains(&"ours-alone".to_owned()), "{shown:?}");
    let named = NewTicket {
        box_id: of.id.clone(),
        order: None,
        bucket: "ours-alone".to_owned(),
        valid_for_secs: 3600,
    };
    let refused = bench.fleet.ticket_create(&operator(), named).await;
    assert!(
        refused
            .expect_err("refused")
            .to_string()
            .contains("reserved")
    );
    bench.stop().await;
    store.stop().await;
}
