//! Packs over HTTPS: entries, answers, cuts and hostile streams.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use longhaul_protocol::pack::{
    EntryHeader, MAX_HEADER_BYTES, PACKS_PATH, PackLine, StopCode, begin, end, entry,
};
use longhaul_protocol::value::Digest32;
use longhaul_vault::JobId;
use reqwest::StatusCode;
use tokio::sync::mpsc;

use crate::lan::{BUCKET, Lan, SECRET, https, noise};

fn header(key: &str, body: &[u8]) -> EntryHeader {
    EntryHeader {
        key: key.to_owned(),
        bytes: body.len() as u64,
        blake3: Digest32(*blake3::hash(body).as_bytes()),
        content_type: Some("text/plain".to_owned()),
        metadata: [("mtime".to_owned(), "12.000000034".to_owned())].into(),
    }
}

fn framed(header: &EntryHeader, body: &[u8]) -> Vec<u8> {
    let mut bytes = entry(header).unwrap();
    bytes.extend(body);
    bytes
}

fn pack<'a>(files: impl IntoIterator<Item = (&'a String, &'a Vec<u8>)>) -> Vec<u8> {
    let mut bytes = begin();
    for (key, body) in files {
        bytes.extend(framed(&header(key, body), body));
    }
    bytes.extend(end());
    bytes
}

/// Small ones for the log, some longer ones for segments, an empty one.
fn files(count: usize) -> BTreeMap<String, Vec<u8>> {
    let length = |n: usize| {
        if n.is_multiple_of(50) {
            90_000
        } else {
            n % 5000
        }
    };
    (0..count)
        .map(|n| {
            let seed = u8::try_from(n % 251).unwrap();
            (format!("d{}/f{n:05} ä", n % 7), noise(length(n), seed))
        })
        .collect()
}

/// HTTP/1.1, as the command speaks it; `https` speaks HTTP/2.
fn http1(lan: &Lan) -> reqwest::Client {
    let mut tls = lan.authority.client_tls();
    tls.alpn_protocols.clear();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .build()
        .unwrap()
}

fn request(lan: &Lan, client: &reqwest::Client) -> reqwest::RequestBuilder {
    client
        .post(format!("{}{PACKS_PATH}/{BUCKET}", lan.url()))
        .basic_auth("ACTIVE", Some(SECRET))
}

fn lines(text: &[u8]) -> Vec<PackLine> {
    let lines = text.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

async fn post(lan: &Lan, bytes: Vec<u8>) -> Vec<PackLine> {
    let answer = request(lan, &https(lan)).body(bytes).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    lines(&answer.bytes().await.unwrap())
}

/// A pack whose pieces the test sends one by one, and the lines as they come.
struct Open {
    pieces: mpsc::Sender<Result<Bytes, std::io::Error>>,
    answer: reqwest::Response,
    held: Vec<u8>,
}

impl Open {
    async fn start(lan: &Lan, client: &reqwest::Client) -> Self {
        let (pieces, body) = mpsc::channel::<Result<Bytes, std::io::Error>>(64);
        let body =
            futures::stream::unfold(body, |mut body| async { Some((body.recv().await?, body)) });
        let body = reqwest::Body::wrap_stream(body);
        let answer = request(lan, client).body(body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        Self {
            pieces,
            answer,
            held: Vec::new(),
        }
    }

    async fn send(&self, bytes: Vec<u8>) {
        let _ = self.pieces.send(Ok(bytes.into())).await;
    }

    /// The next line; `None` at the end, or where the connection was cut.
    async fn line(&mut self) -> Option<PackLine> {
        loop {
            if let Some(end) = self.held.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.held.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let chunk = self.answer.chunk().await.ok().flatten()?;
            self.held.extend(chunk);
        }
    }
}

fn job() -> JobId {
    BUCKET.parse().unwrap()
}

fn read(lan: &Lan, key: &str) -> Option<Vec<u8>> {
    let mut reader = lan.vault.get(&job(), key, None).ok()?;
    let mut bytes = Vec::new();
    while let Some(chunk) = reader.next_chunk().unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    Some(bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_files_in_one_request_are_ordinary_objects() {
    let lan = Lan::start().await;
    let files = files(3000);

    let lines = post(&lan, pack(&files)).await;

    assert_eq!(lines.len(), files.len() + 1);
    assert_eq!(lines.last(), Some(&PackLine::End { entries: 3000 }));
    for (at, (line, (key, body))) in (1..).zip(lines.iter().zip(&files)) {
        let PackLine::Stored {
            entry,
            version,
            etag,
            ..
        } = line
        else {
            panic!("{line:?}");
        };
        let info = lan.vault.head(&job(), key).unwrap();
        assert_eq!(
            (*entry, *version, etag),
            (at, info.version.0, &info.etag),
            "{key}"
        );
        assert_eq!(info.size, body.len() as u64);
        assert_eq!(info.blake3, Some(*blake3::hash(body).as_bytes()));
    }
    let (key, body) = files.iter().next_back().unwrap();
    let get = lan.client().get_object().bucket(BUCKET).key(key);
    let object = get.send().await.unwrap();
    assert_eq!(object.content_type(), Some("text/plain"));
    assert_eq!(object.metadata().unwrap()["mtime"], "12.000000034");
    assert_eq!(
        object.body.collect().await.unwrap().to_vec(),
        *body,
        "byte for byte"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_entry_does_not_spoil_the_others() {
    let lan = Lan::start().await;
    let mut lying = header("lying", b"hello");
    lying.blake3 = Digest32([9; 32]);
    let mut heavy = header("heavy", b"x");
    heavy.metadata.insert("a".to_owned(), "x".repeat(3000));
    let mut header_breaker = header("breaks", b"x");
    header_breaker.content_type = Some("a\r\nb: c".to_owned());
    let entries: Vec<(EntryHeader, &[u8])> = vec![
        (header("good", b"one"), b"one"),
        (lying, b"hello"),
        (header("../../etc/passwd", b"x"), b"x"),
        (header(&"k".repeat(2000), b"x"), b"x"),
        (header("", b""), b""),
        (heavy, b"x"),
        (header_breaker, b"x"),
        (header("good", b"two"), b"two"),
        (header("last", b"three"), b"three"),
    ];
    let mut bytes = begin();
    for (header, body) in &entries {
        bytes.extend(framed(header, body));
    }
    bytes.extend(end());

    let lines = post(&lan, bytes).await;

    let kinds: String = lines
        .iter()
        .map(|line| match line {
            PackLine::Stored { .. } => 's',
            PackLine::Refused { .. } => 'r',
            PackLine::Damaged { .. } => 'd',
            PackLine::End { .. } => 'e',
            PackLine::Stopped { .. } => 'x',
        })
        .collect();
    assert_eq!(kinds, "sdrrrrrrse", "{lines:?}");
    assert_eq!(read(&lan, "good").as_deref(), Some(&b"one"[..]));
    assert_eq!(read(&lan, "last").as_deref(), Some(&b"three"[..]));
    assert_eq!(read(&lan, "lying"), None);
    assert_eq!(lan.vault.stats().objects, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_come_while_the_pack_is_still_being_sent() {
    let lan = Lan::start().await;
    for client in [http1(&lan), https(&lan)] {
        let mut open = Open::start(&lan, &client).await;
        open.send(begin()).await;
        for entry in 1..=5 {
            let (key, body) = (format!("k{entry}"), noise(100, entry));
            open.send(framed(&header(&key, &body), &body)).await;

            let line = open.line().await.expect("a line");

            assert!(
                matches!(line, PackLine::Stored { entry: e, .. } if e == u64::from(entry)),
                "{line:?}"
            );
        }
        open.send(end().to_vec()).await;
        let Open {
            pieces,
            answer,
            held,
        } = open;
        drop(pieces);
        let mut rest = held;
        rest.extend(answer.bytes().await.unwrap());
        assert_eq!(lines(&rest), [PackLine::End { entries: 5 }]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_that_was_cut_is_sent_again_and_nothing_is_lost_or_stored_twice() {
    let lan = Lan::start().await;
    let files = files(300);
    let whole = pack(&files);
    let mut answered: BTreeMap<u64, u64> = BTreeMap::new();
    let client = http1(&lan);
    for tenth in [3, 5, 7, 9] {
        let mut open = Open::start(&lan, &client).await;
        for piece in whole[..whole.len() * tenth / 10].chunks(10_000) {
            open.send(piece.to_vec()).await;
        }
        // Cut in the middle of an entry, without a word, after some answers.
        let cut = std::io::Error::other("cut by the test");
        let mut heard = 0;
        while heard < 10 * tenth {
            let Some(PackLine::Stored { entry, version, .. }) = open.line().await else {
                panic!("a stored entry");
            };
            heard += 1;
            let before = answered.insert(entry, version);
            assert!(before.is_none_or(|b| b == version), "entry {entry} is new");
        }
        open.pieces.send(Err(cut)).await.unwrap();
    }

    let lines = post(&lan, whole).await;

    assert_eq!(lines.last(), Some(&PackLine::End { entries: 300 }));
    for (line, key) in lines.iter().zip(files.keys()) {
        let PackLine::Stored { entry, version, .. } = line else {
            panic!("{line:?}");
        };
        assert!(answered.get(entry).is_none_or(|before| before == version));
        assert_eq!(read(&lan, key).as_ref(), Some(&files[key]), "{key}");
    }
    assert_eq!(lan.vault.stats().objects, 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_a_box_that_dies() {
    let lan = Lan::start().await;
    let files = files(400);
    let mut open = Open::start(&lan, &http1(&lan)).await;
    let whole = pack(&files);
    open.send(whole[..whole.len() / 2].to_vec()).await;
    let mut answered = Vec::new();
    while answered.len() < 50 {
        let Some(PackLine::Stored { entry, .. }) = open.line().await else {
            panic!("a stored entry");
        };
        answered.push(usize::try_from(entry).unwrap() - 1);
    }
    // What a killed process leaves behind is what lies on the disk at this moment.
    let copy = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(lan.dir.path().join("vault"))
        .arg(copy.path())
        .status();
    assert!(copied.unwrap().success());
    lan.task.abort();

    let vault = crate::lan::open_vault(copy.path(), |vault| vault);

    let keys: Vec<_> = files.keys().collect();
    for at in answered {
        let info = vault.head(&job(), keys[at]).unwrap();
        let want = blake3::hash(&files[keys[at]]);
        assert_eq!(vault.blake3(info.version).unwrap(), *want.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_streams_are_stopped_with_a_reason() {
    let lan = Lan::start().await;
    let good = framed(&header("good", b"one"), b"one");
    let with = |tail: &[u8]| [&begin()[..], &good, tail].concat();
    let giant = EntryHeader {
        bytes: u64::MAX,
        ..header("giant", b"")
    };
    let long = u32::try_from(MAX_HEADER_BYTES + 1).unwrap().to_be_bytes();
    let streams: Vec<(Vec<u8>, &str)> = vec![
        (b"PK\x03\x04 a zip".to_vec(), "not a pack"),
        (Vec::new(), "ends in the middle"),
        (with(&[0, 0]), "ends in the middle"),
        (with(&long), "bytes long"),
        (with(&[0xff; 4]), "bytes long"),
        (with(&framed(&giant, b"")), "bytes long"),
        (with(&[0, 0, 0, 2, b'{', b'x']), "malformed header"),
        (with(&[&end()[..], b"more"].concat()), "after the end"),
    ];
    for (stream, why) in streams {
        let lines = post(&lan, stream).await;

        let Some(PackLine::Stopped { code, reason }) = lines.last() else {
            panic!("{lines:?}");
        };
        assert_eq!(*code, StopCode::Malformed, "{reason}");
        assert!(reason.contains(why), "{reason:?} says {why:?}");
    }
    assert_eq!(read(&lan, "good").as_deref(), Some(&b"one"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_creeps_is_cut_off_while_others_go_on() {
    let limit = Duration::from_millis(600);
    let lan = Lan::with(
        |vault| vault,
        |mut intake| {
            intake.stall_limit = limit;
            intake
        },
    )
    .await;
    let client = http1(&lan);
    let mut slow = Open::start(&lan, &client).await;
    slow.send([&begin()[..], &16_000_u32.to_be_bytes()].concat())
        .await;
    let drip = slow.pieces.clone();
    let dripping = tokio::spawn(async move {
        // One byte now and then is never silent and never done.
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while drip.send(Ok(Bytes::from_static(b" "))).await.is_ok() {
            ticks.tick().await;
        }
    });
    let files = files(50);
    let others = post(&lan, pack(&files)).await;
    assert_eq!(others.last(), Some(&PackLine::End { entries: 50 }));

    let last = slow.line().await;

    assert!(
        matches!(
            last,
            Some(PackLine::Stopped {
                code: StopCode::Stalled,
                ..
            })
        ),
        "{last:?}"
    );
    dripping.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_vault_stops_the_pack_and_says_what_to_do() {
    let lan = Lan::with(
        |mut vault| {
            vault.capacity_bytes = 4 << 20;
            vault.small()
        },
        |intake| intake,
    )
    .await;
    let files: BTreeMap<_, _> = (0..100)
        .map(|n| (format!("f{n:03}"), noise(100_000, n)))
        .collect();

    let lines = post(&lan, pack(&files)).await;

    let (last, stored) = lines.split_last().unwrap();
    assert!(
        matches!(
            last,
            PackLine::Stopped {
                code: StopCode::SlowDown | StopCode::Full,
                ..
            }
        ),
        "{last:?}"
    );
    assert!(!stored.is_empty());
    for (line, (key, body)) in stored.iter().zip(&files) {
        assert!(matches!(line, PackLine::Stored { .. }), "{line:?}");
        assert_eq!(read(&lan, key).as_ref(), Some(body), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_ticket_of_the_bucket_opens_it() {
    let lan = Lan::start().await;
    let client = https(&lan);
    let url = |bucket: &str| format!("{}{PACKS_PATH}/{bucket}", lan.url());
    let body = pack(&files(1));
    let cases = [
        (BUCKET, "ACTIVE", "wrong", StatusCode::UNAUTHORIZED),
        (BUCKET, "NOBODY", SECRET, StatusCode::UNAUTHORIZED),
        (BUCKET, "ENDED", SECRET, StatusCode::UNAUTHORIZED),
        ("other", "ACTIVE", SECRET, StatusCode::FORBIDDEN),
        ("", "ACTIVE", SECRET, StatusCode::FORBIDDEN),
    ];
    for (bucket, key, secret, want) in cases {
        let request = client.post(url(bucket)).basic_auth(key, Some(secret));
        let answer = request.body(body.clone()).send().await.unwrap();
        assert_eq!(answer.status(), want, "{bucket} {key}");
    }
    let unsigned = client.post(url(BUCKET)).body(body).send().await.unwrap();
    assert_eq!(unsigned.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(lan.vault.stats().objects, 0);
}
