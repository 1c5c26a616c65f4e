//! Small objects that travel to the bucket as packs, over a line that cuts connections.

use std::sync::atomic::Ordering;
use std::time::Duration;

use longhaul_device::uplink::UplinkConfig;
use longhaul_vault::Delivery;

use crate::lan::noise;
use crate::uplink::Haul;

/// Packs always pay.
fn packed(mut config: UplinkConfig) -> UplinkConfig {
    config.pack_above = Duration::ZERO;
    config
}

fn body(index: usize) -> Vec<u8> {
    let seed = u8::try_from(index % 251).unwrap();
    noise(index * 61 % 9000, seed)
}

#[tokio::test]
async fn small_objects_arrive_in_packs_byte_for_byte_over_a_line_that_is_cut() {
    let haul = Haul::new().await;
    haul.line.cuts.store(2, Ordering::Relaxed);
    haul.cloud.unpacking.store(1, Ordering::Relaxed);
    for index in 0..300 {
        haul.store(&format!("small/{index}"), &body(index)).await;
    }
    let large = noise(6 << 20, 9);
    haul.store("large", &large).await;
    haul.cloud.refused.lock().push("small/7".to_owned());

    let running = haul.start_with(packed);
    haul.until("nothing is pending", |haul| haul.vault.stats().pending == 0)
        .await;

    running.end().await;
    assert!(haul.in_bucket("large").await == large);
    for index in (0..300).filter(|index| *index != 7) {
        let key = format!("small/{index}");
        assert_eq!(haul.in_bucket(&key).await, body(index), "{key}");
        assert_eq!(haul.delivery(&key), Delivery::Verified);
    }
    assert!(matches!(haul.delivery("small/7"), Delivery::Failed { .. }));
    let carried: usize = haul.cloud.packs.lock().values().map(Vec::len).sum();
    assert!(carried >= 299, "{carried} travelled in packs");
}

#[tokio::test]
async fn an_object_that_changes_while_its_pack_is_on_the_way_is_never_mixed() {
    let haul = Haul::new().await;
    for index in 0..50 {
        haul.store(&format!("f{index}"), &body(index)).await;
    }
    // The pack is in the cloud, and is not taken apart yet.
    haul.cloud.unpacking.store(i64::MAX, Ordering::Relaxed);
    let running = haul.start_with(packed);
    haul.until("the pack is in the cloud", |haul| {
        haul.delivery("f0") == Delivery::InCloud
    })
    .await;
    haul.store("f0", b"the new content").await;
    haul.store("f1", &body(1)).await;
    let job = crate::lan::BUCKET.parse().unwrap();
    haul.vault
        .delete(&job, "f2", longhaul_vault::Condition::Any)
        .await
        .unwrap();
    assert_eq!(haul.delivery("f0"), Delivery::OnBox);

    haul.cloud.unpacking.store(0, Ordering::Relaxed);
    haul.until("nothing is pending", |haul| haul.vault.stats().pending == 0)
        .await;

    running.end().await;
    assert_eq!(haul.in_bucket("f0").await, b"the new content");
    assert_eq!(haul.delivery("f0"), Delivery::Verified);
    for index in (1..50).filter(|index| *index != 2) {
        let key = format!("f{index}");
        assert_eq!(haul.in_bucket(&key).await, body(index), "{key}");
        assert_eq!(haul.delivery(&key), Delivery::Verified, "{key}");
    }
}

#[tokio::test]
async fn a_box_that_dies_with_a_pack_on_the_way_delivers_everything_afterwards() {
    let haul = Haul::new().await;
    for index in 0..100 {
        haul.store(&format!("f{index}"), &body(index)).await;
    }
    haul.cloud.unpacking.store(i64::MAX, Ordering::Relaxed);
    let running = haul.start_with(packed);
    haul.until("the pack is in the cloud", |haul| {
        haul.delivery("f99") == Delivery::InCloud
    })
    .await;
    running.task.abort();
    let _ = running.task.await;

    haul.cloud.unpacking.store(0, Ordering::Relaxed);
    let running = haul.start_with(packed);
    haul.until("nothing is pending", |haul| haul.vault.stats().pending == 0)
        .await;

    running.end().await;
    for index in 0..100 {
        let key = format!("f{index}");
        assert_eq!(haul.in_bucket(&key).await, body(index), "{key}");
        assert_eq!(haul.delivery(&key), Delivery::Verified, "{key}");
    }
}

#[tokio::test]
async fn on_a_short_line_objects_go_one_by_one() {
    let haul = Haul::new().await;
    for index in 0..100 {
        haul.store(&format!("f{index}"), &body(index)).await;
    }

    let running = haul.start_with(|mut config| {
        config.pack_above = Duration::from_mins(1);
        config
    });
    haul.until("nothing is pending", |haul| haul.vault.stats().pending == 0)
        .await;

    running.end().await;
    assert!(haul.cloud.packs.lock().is_empty());
}
