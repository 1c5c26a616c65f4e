//! The uplink against a real S3 server, through a line that cuts connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::lan::{Authority, BUCKET, noise, open_journal, open_receipts, open_vault};
use crate::wan::{Line, PART_BYTES, STAGING, TestCloud, bucket_server, tls_front};
use longhaul_device::clock::{self, Now};
use longhaul_device::intake::Arrivals;
use longhaul_device::journal::JournalHandle;
use longhaul_device::receipts::Receipts;
use longhaul_device::uplink::{self, Retrier, StoreTls, UplinkConfig, UplinkError, UplinkParts};
use longhaul_protocol::command::RetryScope;
use longhaul_protocol::journal::Fact;
use longhaul_protocol::uplink::{UplinkPolicy, UplinkState};
use longhaul_protocol::upload::StoreTrust;
use longhaul_vault::{
    Checksums, Condition, Delivery, DeliveryEvent, Metadata, Vault, VaultConfig, Version,
};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A second bucket.
pub const URGENT: &str = "urgent-1";

pub struct Haul {
    pub vault: Vault,
    journal: JournalHandle,
    arrivals: Arrivals,
    pub cloud: Arc<TestCloud>,
    pub line: Line,
    tls: StoreTls,
    retrier: Retrier,
    receipts: Receipts,
    policy: watch::Sender<UplinkPolicy>,
    in_force: watch::Sender<UplinkState>,
    /// The bucket's server, past the line.
    pub server: SocketAddr,
    dir: TempDir,
}

pub struct Running {
    stop: CancellationToken,
    pub task: JoinHandle<Result<(), UplinkError>>,
}

impl Haul {
    pub async fn new() -> Self {
        Self::with(|vault| vault).await
    }

    pub async fn with(vault: impl FnOnce(VaultConfig) -> VaultConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bucket = dir.path().join("s3");
        std::fs::create_dir_all(bucket.join(BUCKET)).unwrap();
        std::fs::create_dir_all(bucket.join(URGENT)).unwrap();
        std::fs::create_dir_all(bucket.join(STAGING)).unwrap();
        let server = bucket_server(&bucket).await;
        let line = Line::default();
        let through = line.lay(server).await;
        let vault = open_vault(dir.path(), vault);
        Self {
            tls: StoreTls {
                proxy: longhaul_device::proxy::ProxySetting::none(),
                fleet: Authority::new().client_tls(),
                public: Authority::new().client_tls(),
            },
            retrier: Retrier::new(vault.clone()),
            receipts: open_receipts(dir.path()),
            vault,
            journal: open_journal(dir.path()),
            arrivals: Arrivals::default(),
            policy: watch::Sender::default(),
            in_force: watch::Sender::default(),
            cloud: TestCloud::new(server, through),
            line,
            server,
            dir,
        }
    }

    /// How the way to the bucket is to be used from now on.
    pub fn wish(&self, policy: UplinkPolicy) {
        self.policy.send_replace(policy);
    }

    /// What is in force.
    pub fn in_force(&self) -> UplinkState {
        *self.in_force.borrow()
    }

    pub async fn store(&self, key: &str, bytes: &[u8]) -> Version {
        self.store_in(BUCKET, key, bytes).await
    }

    pub async fn store_in(&self, bucket: &str, key: &str, bytes: &[u8]) -> Version {
        let job = bucket.parse().unwrap();
        self.vault.create_job(&job).unwrap();
        let metadata = Metadata {
            headers: [
                ("longhaul-ticket", "ticket-1"),
                ("cache-control", "no-store"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
            ..Metadata::default()
        };
        let mut writer = self.vault.begin(&job, key, metadata).unwrap();
        writer.write(bytes).unwrap();
        let info = writer
            .finish(Checksums::new(), Condition::Any)
            .await
            .unwrap();
        self.arrivals.ring();
        info.version
    }

    /// Deletes an object on the box, as its owner does.
    pub async fn delete(&self, key: &str) {
        let job = BUCKET.parse().unwrap();
        let gone = self.vault.delete(&job, key, Condition::Any).await;
        assert!(gone.unwrap(), "{key} was there");
        self.arrivals.ring();
    }

    pub fn start(&self) -> Running {
        self.start_with(|config| config)
    }

    /// With this clock on the box.
    pub fn start_at(&self, clock: fn() -> Now) -> Running {
        self.start_so(clock, |config| config)
    }

    pub fn start_with(&self, change: impl FnOnce(UplinkConfig) -> UplinkConfig) -> Running {
        self.start_so(clock::now, change)
    }

    fn start_so(
        &self,
        clock: fn() -> Now,
        change: impl FnOnce(UplinkConfig) -> UplinkConfig,
    ) -> Running {
        let state = self.dir.path().join("uplink");
        std::fs::create_dir_all(&state).unwrap();
        let parts = UplinkParts {
            vault: self.vault.clone(),
            cloud: self.cloud.clone(),
            journal: self.journal.clone(),
            tls: self.tls.clone(),
            retrier: self.retrier.clone(),
            holds: uplink::Holds::default(),
            receipts: self.receipts.clone(),
            arrivals: self.arrivals.clone(),
            policy: self.policy.subscribe(),
            state: self.in_force.clone(),
            clock,
        };
        let stop = CancellationToken::new();
        let config = change(UplinkConfig::new(state));
        let task = tokio::spawn(uplink::run(config, parts, stop.clone()));
        Running { stop, task }
    }

    pub fn delivery(&self, key: &str) -> Delivery {
        let job = BUCKET.parse().unwrap();
        self.vault.head(&job, key).unwrap().delivery
    }

    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..6000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it never came to pass that {what}");
    }

    pub async fn in_bucket(&self, key: &str) -> Vec<u8> {
        let got = self
            .cloud
            .bucket
            .get_object()
            .bucket(BUCKET)
            .key(key)
            .send()
            .await;
        got.unwrap().body.collect().await.unwrap().to_vec()
    }

    /// The names of everything there, in order.
    pub async fn keys_in_bucket(&self) -> Vec<String> {
        let list = self.cloud.bucket.list_objects_v2().bucket(BUCKET);
        let found = list.send().await.unwrap().contents.unwrap_or_default();
        found.into_iter().filter_map(|object| object.key).collect()
    }

    pub async fn facts(&self) -> Vec<Fact> {
        let batch = self.journal.batch().await.unwrap();
        let entries = batch.map(|batch| batch.entries).unwrap_or_default();
        entries.into_iter().map(|entry| entry.fact).collect()
    }
}

impl Running {
    pub async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_retry_of_very_many_objects_finds_every_one_of_them() {
    const MANY: usize = 2_300;
    let haul = Haul::new().await;
    let keys: Vec<String> = (0..MANY).map(|n| format!("f{n:05}")).collect();
    for some in keys.chunks(200) {
        let stored = some.iter().map(|key| async {
            let version = haul.store(key, b"bytes").await;
            let reason = "gone wrong".to_owned();
            let failed = DeliveryEvent::Failed { reason };
            haul.vault.deliver(version, failed).await.unwrap();
        });
        futures::future::join_all(stored).await;
    }
    haul.store("fine", b"bytes").await;
    assert_eq!(haul.vault.stats().pending, 1);

    let found = haul.retrier.retry(RetryScope::All).await.unwrap();

    assert_eq!(found, MANY as u64);
    assert_eq!(haul.vault.stats().pending, MANY as u64 + 1);
}

#[tokio::test]
async fn everything_arrives_byte_for_byte_over_a_line_that_is_cut() {
    let haul = Haul::new().await;
    haul.line.cuts.store(4, Ordering::Relaxed);
    haul.cloud.failures.store(2, Ordering::Relaxed);
    let running = haul.start();
    let large = noise(13 << 20, 1);
    haul.store("large", &large).await;
    for index in 0..40_u8 {
        haul.store(
            &format!("small/{index}"),
            &noise(usize::from(index) * 997, index),
        )
        .await;
    }

    haul.until("nothing is pending", |haul| haul.vault.stats().pending == 0)
        .await;

    running.end().await;
    assert!(haul.in_bucket("large").await == large);
    for index in 0..40_u8 {
        let bytes = haul.in_bucket(&format!("small/{index}")).await;
        assert_eq!(bytes, noise(usize::from(index) * 997, index));
        assert_eq!(haul.delivery(&format!("small/{index}")), Delivery::Verified);
    }
    let facts = haul.facts().await;
    let stored = facts
        .iter()
        .filter(|f| matches!(f, Fact::Stored { .. }))
        .count();
    let delivered = facts
        .iter()
        .filter(|f| matches!(f, Fact::Delivered { .. }))
        .count();
    assert_eq!((stored, delivered), (41, 41));
}

#[tokio::test]
async fn what_the_client_said_beside_the_bytes_goes_along_and_nothing_else() {
    let haul = Haul::new().await;
    haul.store("k", b"bytes").await;

    let running = haul.start();
    haul.until("it arrives", |haul| haul.vault.stats().pending == 0)
        .await;
    running.end().await;

    let asked = haul.cloud.asked("k").expect("the cloud heard of it");
    let expected = [("cache-control".to_owned(), "no-store".to_owned())];
    assert_eq!(asked.headers, expected.into());
}

#[tokio::test]
async fn a_killed_uplink_does_not_send_finished_parts_again() {
    let haul = Haul::new().await;
    let bytes = noise(60 << 20, 2);
    haul.store("large", &bytes).await;
    let done = |haul: &Haul| match haul.delivery("large") {
        Delivery::InFlight { parts, .. } => parts.into_keys().collect(),
        _ => Vec::new(),
    };
    let running = haul.start();
    haul.until("some parts are done", |haul| done(haul).len() >= 3)
        .await;
    running.task.abort();
    let _ = running.task.await;
    let finished = done(&haul);
    let sent = haul.line.sent.load(Ordering::Relaxed);
    haul.cloud.signed.lock().clear();

    let running = haul.start();
    haul.until("nothing is pending", |haul| haul.vault.stats().pending == 0)
        .await;
    running.end().await;

    let again = haul.cloud.signed.lock().clone();
    assert!(
        finished.iter().all(|n| !again.contains(n)),
        "{finished:?} {again:?}"
    );
    let total = u64::try_from(haul.line.sent.load(Ordering::Relaxed) - sent).unwrap();
    let missing = u64::try_from(12 - finished.len()).unwrap();
    assert!(
        total < (missing + 1) * PART_BYTES,
        "{total} for {missing} parts"
    );
    assert!(haul.in_bucket("large").await == bytes);
    let facts = haul.facts().await;
    let stored = facts
        .iter()
        .filter(|f| matches!(f, Fact::Stored { .. }))
        .count();
    assert_eq!(stored, 1, "the recorder knows how far it came");
}

#[tokio::test]
async fn an_object_overwritten_on_its_way_arrives_as_the_new_one() {
    let haul = Haul::new().await;
    let old = haul.store("k", &noise(40 << 20, 3)).await;
    let running = haul.start();
    haul.until("it is on its way", |haul| {
        matches!(haul.delivery("k"), Delivery::InFlight { .. })
    })
    .await;

    let new = noise(11 << 20, 4);
    haul.store("k", &new).await;

    haul.until("the new one is verified", |haul| {
        haul.delivery("k") == Delivery::Verified
    })
    .await;
    haul.until("the old one is forgotten", |haul| {
        haul.vault.abandoned().is_empty()
    })
    .await;
    running.end().await;
    assert!(haul.in_bucket("k").await == new);
    let aborted = haul.cloud.aborted.lock().clone();
    assert!(
        aborted.iter().any(|id| id.as_str() == format!("up-{old}")),
        "{aborted:?}"
    );
    let facts = haul.facts().await;
    let delivered = facts
        .iter()
        .filter(|f| matches!(f, Fact::Delivered { .. }))
        .count();
    assert_eq!(delivered, 1);
}

#[tokio::test]
async fn a_refused_object_fails_for_good_and_holds_nobody_up() {
    let haul = Haul::new().await;
    haul.cloud.refused.lock().push("bad".to_owned());
    haul.store("bad", b"x").await;
    haul.store("good", b"y").await;

    let running = haul.start();
    haul.until("nothing is pending", |haul| haul.vault.stats().pending == 0)
        .await;
    running.end().await;

    let Delivery::Failed { reason } = haul.delivery("bad") else {
        panic!("{:?}", haul.delivery("bad"));
    };
    assert_eq!(reason, "not in this bucket");
    assert_eq!(haul.delivery("good"), Delivery::Verified);
    let facts = haul.facts().await;
    assert!(
        facts
            .iter()
            .any(|f| matches!(f, Fact::DeliveryFailed { .. }))
    );
}

#[tokio::test]
async fn a_completion_that_finds_other_bytes_starts_over() {
    let haul = Haul::new().await;
    haul.cloud.restarts.store(1, Ordering::Relaxed);
    let bytes = noise(6 << 20, 5);
    haul.store("k", &bytes).await;

    let running = haul.start();
    haul.until("it is verified", |haul| {
        haul.delivery("k") == Delivery::Verified
    })
    .await;
    running.end().await;

    assert_eq!(*haul.cloud.signed.lock(), [1, 2, 1, 2]);
    assert!(haul.in_bucket("k").await == bytes);
}

#[tokio::test]
async fn bytes_stay_until_space_is_needed_and_then_the_oldest_go_first() {
    let haul = Haul::with(|vault| {
        let mut vault = vault.small();
        vault.capacity_bytes = 4 << 20;
        vault
    })
    .await;
    for index in 0..20_u8 {
        haul.store(&format!("{index:02}"), &noise(100_000, index))
            .await;
    }
    let resident = |haul: &Haul| {
        let page = haul
            .vault
            .list(&BUCKET.parse().unwrap(), "", None, 100)
            .unwrap();
        let held = page.items.into_iter().filter(|info| info.resident);
        held.map(|info| info.key).collect::<Vec<_>>()
    };

    let roomy = haul.start_with(|config| UplinkConfig {
        release_above_percent: 90,
        ..config
    });
    haul.until("nothing is pending", |haul| haul.vault.stats().pending == 0)
        .await;
    roomy.end().await;
    assert_eq!(resident(&haul).len(), 20);
    let used = haul.vault.stats().used_bytes * 100 / (4 << 20);
    let tight = haul.start_with(|config| UplinkConfig {
        release_above_percent: u8::try_from(used).unwrap() - 5,
        ..config
    });
    haul.until("something is released", |haul| resident(haul).len() < 20)
        .await;
    tight.end().await;

    let held = resident(&haul);
    let oldest_gone = 20 - held.len();
    assert_eq!(held.first(), Some(&format!("{oldest_gone:02}")), "{held:?}");
    assert_eq!(haul.in_bucket("00").await, noise(100_000, 0));
}

#[tokio::test]
async fn what_was_given_up_goes_again_when_an_operator_says_so() {
    let haul = Haul::new().await;
    for key in ["bad-1", "bad-2"] {
        haul.cloud.refused.lock().push(key.to_owned());
        haul.store(key, b"x").await;
    }
    let running = haul.start();
    haul.until("both have failed", |haul| haul.vault.stats().pending == 0)
        .await;
    let object = |key: &str| RetryScope::Object {
        bucket: BUCKET.to_owned(),
        key: key.parse().unwrap(),
    };
    let elsewhere = RetryScope::Bucket {
        bucket: "elsewhere".to_owned(),
    };
    assert_eq!(haul.retrier.retry(elsewhere).await.unwrap(), 0);
    assert_eq!(haul.retrier.retry(object("missing")).await.unwrap(), 0);

    haul.cloud.refused.lock().clear();
    assert_eq!(haul.retrier.retry(object("bad-1")).await.unwrap(), 1);
    haul.until("one has arrived", |haul| {
        haul.delivery("bad-1") == Delivery::Verified
    })
    .await;
    assert!(matches!(haul.delivery("bad-2"), Delivery::Failed { .. }));
    assert_eq!(haul.retrier.retry(RetryScope::All).await.unwrap(), 1);
    haul.until("the other has arrived", |haul| {
        haul.delivery("bad-2") == Delivery::Verified
    })
    .await;
    assert_eq!(haul.retrier.retry(RetryScope::All).await.unwrap(), 0);
    running.end().await;
}

#[tokio::test]
async fn a_store_is_believed_only_as_the_cloud_vouches_for_it() {
    let mut haul = Haul::new().await;
    let (fleet, public) = (Authority::new(), Authority::new());
    haul.tls = StoreTls {
        proxy: longhaul_device::proxy::ProxySetting::none(),
        fleet: fleet.client_tls(),
        public: public.client_tls(),
    };
    let bucket = haul.dir.path().join("s3");
    let server = bucket_server(&bucket).await;
    let cases = [
        (&fleet, StoreTrust::Fleet, StoreTrust::Public),
        (&public, StoreTrust::Public, StoreTrust::Fleet),
    ];
    for (number, (authority, right, wrong)) in cases.into_iter().enumerate() {
        let front = tls_front(authority.loopback(), server).await;
        haul.cloud = TestCloud::at(server, &format!("https://{front}"));
        *haul.cloud.trust.lock() = wrong;
        let (key, large) = (format!("small-{number}"), format!("large-{number}"));
        haul.store(&key, b"bytes").await;
        haul.store(&large, &noise(6 << 20, 1)).await;

        let running = haul.start();
        haul.until("the wrong authority was asked", |haul| {
            haul.cloud.started() >= 4
        })
        .await;
        assert_eq!(haul.vault.stats().pending, 2, "nothing went out");
        *haul.cloud.trust.lock() = right;

        haul.until("everything arrives", |haul| haul.vault.stats().pending == 0)
            .await;
        assert_eq!(haul.in_bucket(&key).await, b"bytes");
        assert_eq!(haul.delivery(&large), Delivery::Verified);
        running.end().await;
    }
}
