//! The customer's library against the intake: small files go by packs, and none is lost.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use longhaul_protocol::ids::ObjectKey;
use longhaul_sdk::{BoxClient, Outcome, Progress, PushOptions, push};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::lan::{BUCKET, Lan, noise};

/// A folder with small files, an empty one, and some that are too long for packs.
fn folder(lan: &Lan, count: usize) -> (PathBuf, BTreeMap<String, Vec<u8>>) {
    let root = lan.dir.path().join("source");
    let mut files: BTreeMap<_, _> = (0..count)
        .map(|n| {
            let seed = u8::try_from(n % 251).unwrap();
            (format!("d{}/f{n} ä.txt", n % 3), noise(n * 37 % 9000, seed))
        })
        .collect();
    files.insert("empty".to_owned(), Vec::new());
    files.insert("middle.bin".to_owned(), noise(700_000, 1));
    files.insert("long.bin".to_owned(), noise(3 << 20, 2));
    for (name, bytes) in &files {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    (root, files)
}

fn options() -> PushOptions {
    PushOptions {
        patience: Duration::from_secs(20),
        state_dir: None,
        ..PushOptions::default()
    }
}

async fn connect(lan: &Lan, address: SocketAddr) -> BoxClient {
    let url = format!("https://{address}");
    BoxClient::connect(&lan.ticket(), Some(&url)).await.unwrap()
}

fn assert_held(lan: &Lan, files: &BTreeMap<String, Vec<u8>>) {
    let job = BUCKET.parse().unwrap();
    for (key, body) in files {
        let info = lan.vault.head(&job, key).unwrap();
        let blake3 = lan.vault.blake3(info.version).unwrap();
        assert_eq!(blake3, *blake3::hash(body).as_bytes(), "{key}");
        assert_eq!(info.size, body.len() as u64, "{key}");
    }
    assert_eq!(lan.vault.stats().objects, files.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_sends_small_files_by_packs_and_long_ones_by_s3() {
    let lan = Lan::start().await;
    let (root, files) = folder(&lan, 500);
    let client = connect(&lan, lan.address).await;
    let progress = Arc::new(Progress::default());

    let report = push(&client, &[root], &options(), &progress).await.unwrap();

    assert!(report.is_complete(), "{:?}", report.failed);
    assert_eq!(report.files.len(), files.len());
    assert_held(&lan, &files);
    let job = BUCKET.parse().unwrap();
    let mut by_packs = 0;
    for file in &report.files {
        assert_eq!(file.outcome, Outcome::Sent);
        let info = lan.vault.head(&job, file.key.as_str()).unwrap();
        assert_eq!(file.etag, info.etag, "{}", file.key);
        assert!(info.metadata.user.contains_key("mtime"), "{}", file.key);
        assert!(info.metadata.content_type.is_some(), "{}", file.key);
        // S3 clients send a checksum, which the box keeps.
        by_packs += usize::from(info.checksums.is_empty());
    }
    assert_eq!(by_packs, files.len() - 1);
    let shown = progress.snapshot();
    assert_eq!(
        (shown.files_on_box, shown.bytes_on_box, shown.bytes_moving),
        (shown.files, shown.bytes, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_is_cut_again_and_again_loses_nothing_and_sends_nothing_twice() {
    let lan = Lan::start().await;
    let (root, files) = folder(&lan, 1500);
    // The first connections ask for the status and list; the packs come after them.
    let (address, cuts) = cutting(lan.address).await;
    let client = connect(&lan, address).await;
    cuts.store(6, Ordering::SeqCst);

    let report = push(&client, &[root], &options(), &Arc::default())
        .await
        .unwrap();

    assert!(report.is_complete(), "{:?}", report.failed);
    assert!(report.retries > 0, "the line was cut");
    assert_held(&lan, &files);
    // One version each: what had arrived before a cut was recognised.
    let pending = lan.vault.pending(None, 10_000);
    assert_eq!(pending.len(), files.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_read_is_reported_and_the_others_arrive() {
    let lan = Lan::start().await;
    let (root, mut files) = folder(&lan, 40);
    let client = connect(&lan, lan.address).await;
    let gone = files.keys().next().unwrap().clone();
    let path = root.join(&gone);
    let pushing = tokio::spawn({
        let root = root.clone();
        async move { push(&client, &[root], &options(), &Arc::default()).await }
    });
    std::fs::remove_file(&path).unwrap();

    let report = pushing.await.unwrap().unwrap();

    let key: ObjectKey = gone.parse().unwrap();
    // It went before the walk, between walk and reading, or after: each has its own answer.
    if report.failed.iter().any(|f| f.key == key) || report.files.iter().all(|f| f.key != key) {
        files.remove(&gone);
    }
    assert_held(&lan, &files);
}

/// Forwards to `target`; a connection that is to be cut lives for some hundred kilobytes.
async fn cutting(target: SocketAddr) -> (SocketAddr, Arc<AtomicI64>) {
    const CUT_AFTER: usize = 300_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cuts = Arc::new(AtomicI64::new(0));
    let counted = Arc::clone(&cuts);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let cuts = Arc::clone(&counted);
            tokio::spawn(async move {
                let far = TcpStream::connect(target).await.unwrap();
                let (mut near_in, mut near_out) = near.into_split();
                let (mut far_in, mut far_out) = far.into_split();
                let back = tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut far_in, &mut near_out).await;
                });
                let mut through = 0;
                let mut buffer = vec![0; 64 << 10];
                while let Ok(read) = near_in.read(&mut buffer).await
                    && read > 0
                {
                    through += read;
                    if through > CUT_AFTER && cuts.fetch_sub(1, Ordering::SeqCst) > 0 {
                        back.abort();
                        return;
                    }
                    if far_out.write_all(&buffer[..read]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, cuts)
}
