//! A deletion reaches the cloud's journal, whenever the box is killed.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::lan::{Authority, BUCKET, noise, open_journal, open_receipts, open_vault};
use crate::wan::{TestCloud, bucket_server};
use longhaul_device::intake::Arrivals;
use longhaul_device::journal::JournalHandle;
use longhaul_device::uplink::{self, Retrier, StoreTls, UplinkConfig, UplinkParts};
use longhaul_protocol::journal::{Fact, JournalAck};
use longhaul_vault::{Checksums, Condition, Metadata, Vault};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const DIRECTORY: &str = "LONGHAUL_DELETIONS_CHILD";
const ROUNDS: u64 = 6;

/// A box's vault and journal, and the uplink between them.
struct Running {
    vault: Vault,
    journal: JournalHandle,
    arrivals: Arrivals,
    stop: CancellationToken,
    uplink: tokio::task::JoinHandle<Result<(), uplink::UplinkError>>,
}

impl Running {
    async fn start(dir: &Path) -> Self {
        let bucket = dir.join("s3");
        std::fs::create_dir_all(bucket.join(BUCKET)).unwrap();
        std::fs::create_dir_all(dir.join("uplink")).unwrap();
        let server = bucket_server(&bucket).await;
        let (vault, journal) = (open_vault(dir, |vault| vault), open_journal(dir));
        let (arrivals, stop) = (Arrivals::default(), CancellationToken::new());
        let parts = UplinkParts {
            vault: vault.clone(),
            cloud: TestCloud::new(server, server),
            journal: journal.clone(),
            tls: StoreTls {
                proxy: longhaul_device::proxy::ProxySetting::none(),
                fleet: Authority::new().client_tls(),
                public: Authority::new().client_tls(),
            },
            retrier: Retrier::new(vault.clone()),
            holds: uplink::Holds::default(),
            receipts: open_receipts(dir),
            arrivals: arrivals.clone(),
            policy: watch::Sender::default().subscribe(),
            state: watch::Sender::default(),
            clock: longhaul_device::clock::now,
        };
        let config = UplinkConfig::new(dir.join("uplink"));
        let uplink = tokio::spawn(uplink::run(config, parts, stop.clone()));
        Self {
            vault,
            journal,
            arrivals,
            stop,
            uplink,
        }
    }

    /// Stores an object and deletes it, as a customer does; its version.
    async fn store_and_delete(&self, key: &str) -> u64 {
        let job = BUCKET.parse().unwrap();
        self.vault.create_job(&job).unwrap();
        let metadata = Metadata::default();
        let mut writer = self.vault.begin(&job, key, metadata).unwrap();
        writer.write(&noise(100, 1)).unwrap();
        let info = writer.finish(Checksums::new(), Condition::Any);
        let version = info.await.unwrap().version;
        self.arrivals.ring();
        let gone = self.vault.delete(&job, key, Condition::Any).await;
        assert!(gone.unwrap());
        self.arrivals.ring();
        version.0
    }

    /// Takes every fact out of the journal; the versions that were deleted, once for each fact.
    async fn told(&self) -> Vec<u64> {
        let mut versions = Vec::new();
        while let Some(batch) = self.journal.batch().await.unwrap() {
            let through = batch.entries.last().unwrap().number;
            versions.extend(batch.entries.iter().filter_map(|entry| match &entry.fact {
                Fact::Deleted { object } => Some(object.version),
                _ => None,
            }));
            let epoch = batch.epoch;
            let ack = JournalAck { epoch, through };
            self.journal.acknowledge(&ack).await.unwrap();
        }
        versions
    }

    /// Waits until the vault has no deletion left to tell.
    async fn settle(&self) {
        let settled = tokio::time::timeout(Duration::from_secs(30), async {
            while !self.vault.deletions(1).is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        settled.await.expect("every deletion is written down");
    }

    async fn stop(self) {
        self.stop.cancel();
        self.uplink.await.unwrap().unwrap();
        self.vault.close();
    }
}

/// Not a test of its own: what the killed process does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(dir) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let running = Running::start(Path::new(&dir)).await;
    for turn in 0_u64.. {
        let version = running.store_and_delete(&format!("k{}", turn % 5)).await;
        println!("del {version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_deletion_is_told_to_the_cloud_whenever_the_box_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "deletions::child", "--nocapture"])
            .env(DIRECTORY, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut seen = 0;
        for line in output.lines().map_while(Result::ok) {
            // The test harness talks, too, and the last line may be cut off.
            let Some((_, version)) = line.split_once("del ") else {
                continue;
            };
            acknowledged.extend(version.parse::<u64>());
            seen += 1;
            if seen == 3 + round {
                // The pause is the experiment: it puts the kill at another moment each round.
                std::thread::sleep(Duration::from_micros(round * 1_700));
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= 3, "the child deleted {seen} objects only");
    }

    let running = Running::start(dir.path()).await;
    running.settle().await;
    let told: BTreeSet<_> = running.told().await.into_iter().collect();
    running.stop().await;

    let lost: Vec<_> = acknowledged.difference(&told).collect();
    assert!(lost.is_empty(), "deleted and never told: {lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_just_before_the_power_is_cut_is_told_once_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let job = BUCKET.parse().unwrap();
    // The vault has deleted, and nobody has written it down: there is no recorder.
    let vault = open_vault(dir.path(), |vault| vault);
    vault.create_job(&job).unwrap();
    let writer = vault.begin(&job, "k", Metadata::default()).unwrap();
    let version = writer.finish(Checksums::new(), Condition::Any).await;
    let version = version.unwrap().version;
    vault.delete(&job, "k", Condition::Any).await.unwrap();
    vault.close();
    drop(vault);

    for expected in [vec![version.0], Vec::new()] {
        let running = Running::start(dir.path()).await;
        running.settle().await;
        assert_eq!(running.told().await, expected);
        running.stop().await;
    }
}
