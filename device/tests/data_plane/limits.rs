//! Limits, pauses and priorities of the uplink, against a real S3 server. Time is only ever a lower
//! bound here: bytes are counted where they leave.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use longhaul_protocol::uplink::{Priority, UplinkMode, UplinkPolicy, Week};
use longhaul_vault::Delivery;

use crate::lan::noise;
use crate::uplink::{Haul, URGENT};

fn limited(bytes_per_sec: u64) -> UplinkPolicy {
    UplinkPolicy {
        week: Some(Week {
            utc_offset_minutes: 0,
            limits: Box::new([[Some(bytes_per_sec); 24]; 7]),
        }),
        ..UplinkPolicy::default()
    }
}

fn paused() -> UplinkPolicy {
    UplinkPolicy {
        paused: true,
        ..UplinkPolicy::default()
    }
}

fn sent(haul: &Haul) -> u64 {
    haul.line.sent.load(Ordering::Relaxed) as u64
}

/// What the limit allows beside the rate: what is saved up, a piece of each request that is on its
/// way, and headers.
const BESIDE: u64 = 512 << 10;

#[tokio::test]
async fn a_limit_holds_for_parts_singles_and_packs_together() {
    const RATE: u64 = 4 << 20;
    let haul = Haul::new().await;
    haul.wish(limited(RATE));
    let large = noise(11 << 20, 1);
    haul.store("large", &large).await;
    for index in 0..60_u8 {
        haul.store(&format!("small/{index}"), &noise(40_000, index))
            .await;
    }
    let bytes = (11 << 20) + 60 * 40_000;

    let began = Instant::now();
    let running = haul.start_with(|mut config| {
        config.pack_above = Duration::ZERO;
        config
    });
    while haul.vault.stats().pending > 0 {
        // Counted before the time is taken: what goes in between is allowed.
        let sent = sent(&haul);
        let most = RATE * u64::try_from(began.elapsed().as_millis()).unwrap() / 1000 + BESIDE;
        assert!(sent <= most, "{sent} bytes, {most} allowed");
        assert!(began.elapsed() < Duration::from_mins(2));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    running.end().await;
    let least = Duration::from_millis((bytes - BESIDE) * 1000 / RATE);
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
    assert!(haul.in_bucket("large").await == large);
    assert!(!haul.cloud.packs.lock().is_empty(), "some went as a pack");
}

#[tokio::test]
async fn a_pause_holds_in_the_middle_of_a_part_and_its_end_goes_on_there() {
    let haul = Haul::new().await;
    let large = noise(22 << 20, 2);
    haul.store("large", &large).await;
    haul.wish(limited(4 << 20));
    let running = haul.start();
    let parts = |haul: &Haul| match haul.delivery("large") {
        Delivery::InFlight { parts, .. } => parts.len(),
        _ => 0,
    };
    haul.until("a part is done", |haul| parts(haul) >= 1).await;

    haul.wish(paused());
    haul.until("the pause is in force", |haul| {
        haul.in_force().state == UplinkMode::Paused
    })
    .await;
    // What had left already arrives; then nothing more, while files are still taken.
    let mut held = 0;
    while held != sent(&haul) {
        held = sent(&haul);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    haul.store("meanwhile", b"taken").await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(sent(&haul), held, "nothing is sent");
    }
    assert!(parts(&haul) >= 1, "what was begun is kept");
    assert_eq!(haul.delivery("meanwhile"), Delivery::OnBox);
    let begun = haul.cloud.started();

    haul.wish(UplinkPolicy::default());
    haul.until("everything arrives", |haul| haul.vault.stats().pending == 0)
        .await;
    running.end().await;
    assert!(haul.in_bucket("large").await == large);
    assert_eq!(haul.in_bucket("meanwhile").await, b"taken");
    assert_eq!(haul.cloud.aborted.lock().len(), 0, "no upload was given up");
    assert!(haul.cloud.started() <= begun + 2, "the upload went on");
}

#[tokio::test]
async fn a_long_pause_cuts_the_request_off_and_the_upload_stays_open() {
    let haul = Haul::new().await;
    let large = noise(16 << 20, 3);
    haul.store("large", &large).await;
    haul.wish(limited(2 << 20));
    let running = haul.start();
    haul.until("bytes flow", |haul| sent(haul) > 1 << 20).await;

    haul.wish(paused());
    haul.until("the requests are cut off", |haul| {
        haul.line.open.load(Ordering::Relaxed) == 0
    })
    .await;
    haul.wish(UplinkPolicy::default());

    haul.until("it arrives", |haul| {
        haul.delivery("large") == Delivery::Verified
    })
    .await;
    running.end().await;
    assert!(haul.in_bucket("large").await == large);
    assert_eq!(haul.cloud.aborted.lock().len(), 0);
}

#[tokio::test]
async fn an_hour_in_which_nothing_may_go_says_so() {
    let haul = Haul::new().await;
    haul.wish(limited(0));
    haul.store("k", b"bytes").await;
    let running = haul.start();
    haul.until("it waits", |haul| {
        haul.in_force().state == UplinkMode::Waiting
    })
    .await;
    assert_eq!(haul.delivery("k"), Delivery::OnBox);

    haul.wish(limited(1 << 20));
    haul.until("it arrives", |haul| {
        haul.delivery("k") == Delivery::Verified
    })
    .await;
    running.end().await;
    assert_eq!(haul.in_force().bytes_per_sec, Some(1 << 20));
}

#[tokio::test]
async fn an_urgent_bucket_overtakes_what_was_there_before() {
    let haul = Haul::new().await;
    let policy = |rate| {
        let mut policy = limited(rate);
        policy
            .priorities
            .insert(URGENT.to_owned(), Priority::Urgent);
        policy
    };
    haul.wish(policy(4 << 20));
    for index in 0..3_u8 {
        haul.store(&format!("large/{index}"), &noise(16 << 20, index))
            .await;
    }
    for index in 0..100_u8 {
        haul.store(&format!("small/{index}"), &noise(50_000, index))
            .await;
    }
    let running = haul.start();
    haul.until("the others are on their way", |haul| sent(haul) > 1 << 20)
        .await;

    let urgent = noise(6 << 20, 9);
    haul.store_in(URGENT, "large", &urgent).await;
    haul.store_in(URGENT, "small", b"now").await;
    let arrived = |haul: &Haul| {
        let job = URGENT.parse().unwrap();
        ["large", "small"].iter().all(|key| {
            let head = haul.vault.head(&job, key).unwrap();
            head.delivery == Delivery::Verified
        })
    };
    haul.until("the urgent has arrived", arrived).await;

    let behind = haul.vault.stats().pending;
    assert!(behind >= 1, "{behind} of what came before are still to go");
    haul.wish(UplinkPolicy::default());
    haul.until("the others arrive, too", |haul| {
        haul.vault.stats().pending == 0
    })
    .await;
    running.end().await;
}
