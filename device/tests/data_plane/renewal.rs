//! A ticket that ends in the middle of a large file: the push says what to do, the box keeps what it has,
//! and with another ticket for the same bucket the push goes on there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use longhaul_protocol::ticket::{CredentialSet, Ticket};
use longhaul_protocol::value::UnixMillis;
use longhaul_sdk::{BoxClient, Outcome, Progress, PushError, PushOptions, push};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::lan::{BUCKET, Lan, NOW, credential, noise};

const PART: u64 = 5 << 20;
/// The ticket ends when this much is through: two parts and a half.
const THROUGH: u64 = 5 * PART / 2;

/// Forwards to `target`, and turns the clock on before it lets more than [`THROUGH`] pass.
async fn ending(target: SocketAddr, now: Arc<AtomicI64>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let through = Arc::new(AtomicU64::new(0));
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let (through, now) = (Arc::clone(&through), Arc::clone(&now));
            tokio::spawn(async move {
                let far = TcpStream::connect(target).await.unwrap();
                let (mut near_in, mut near_out) = near.into_split();
                let (mut far_in, mut far_out) = far.into_split();
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut far_in, &mut near_out).await;
                });
                let mut buffer = vec![0; 64 << 10];
                while let Ok(read) = near_in.read(&mut buffer).await
                    && read > 0
                {
                    let before = through.fetch_add(read as u64, Ordering::SeqCst);
                    if before < THROUGH && before + read as u64 >= THROUGH {
                        now.store(NOW + 1000, Ordering::SeqCst);
                    }
                    if far_out.write_all(&buffer[..read]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_that_ends_in_the_middle_of_a_file_is_renewed_and_no_finished_part_goes_again() {
    let now = Arc::new(AtomicI64::new(NOW));
    let clock = Arc::clone(&now);
    let time = move || clock.load(Ordering::SeqCst);
    let lan = Lan::at(|vault| vault, |intake| intake, time).await;
    let source = lan.dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    let large = noise(usize::try_from(6 * PART).unwrap() + 1000, 9);
    std::fs::write(source.join("large.bin"), &large).unwrap();
    let options = PushOptions {
        parts_at_once: 1,
        part_bytes: PART,
        patience: Duration::from_secs(20),
        state_dir: Some(lan.dir.path().join("state")),
        ..PushOptions::default()
    };
    let paths = [source];
    let address = ending(lan.address, Arc::clone(&now)).await;
    let url = format!("https://{address}");
    let client = BoxClient::connect(&lan.ticket(), Some(&url)).await.unwrap();

    let stopped = push(&client, &paths, &options, &Arc::default()).await;

    let Err(PushError::Stopped {
        source: why,
        report,
        ..
    }) = stopped
    else {
        panic!("{stopped:?}");
    };
    let why = why.to_string();
    assert!(
        why.contains("expired") && why.contains("ask whoever sent the box"),
        "{why}"
    );
    assert!(
        report.files.is_empty(),
        "nothing is called safe: {report:?}"
    );
    let job = BUCKET.parse().unwrap();
    let open = lan.vault.uploads(&job, "", None, 9).unwrap().items;
    assert_eq!(open.len(), 1, "the box keeps what it has");
    let parts = lan.vault.parts(&open[0].id, None, 99).unwrap().items;
    assert!((2..=3).contains(&parts.len()), "{}", parts.len());

    // Another ticket for the same bucket; the old one has ended.
    let mut renewed = credential("RENEWED", NOW + 5000);
    renewed.ticket = "ticket-2".parse().unwrap();
    let ticket = Ticket {
        id: renewed.ticket.clone(),
        access_key: renewed.access_key.clone(),
        expires: UnixMillis(NOW + 5000),
        ..lan.ticket()
    };
    lan.credentials.replace(CredentialSet {
        desired_version: 2,
        credentials: vec![credential("ACTIVE", NOW + 1000), renewed],
    });
    let client = BoxClient::connect(&ticket, Some(&lan.url())).await.unwrap();
    let report = push(&client, &paths, &options, &Arc::new(Progress::default()))
        .await
        .unwrap();

    assert!(report.is_complete(), "{report:?}");
    let parts_kept = parts.len();
    assert_eq!(report.files[0].outcome, Outcome::Resumed { parts_kept });
    assert_eq!(
        report.bytes_sent,
        large.len() as u64 - parts_kept as u64 * PART
    );
    let info = lan.vault.head(&job, "large.bin").unwrap();
    let there = lan.vault.blake3(info.version).unwrap();
    assert_eq!(there, *blake3::hash(&large).as_bytes());
    assert_eq!(lan.vault.stats().uploads, 0);
}
