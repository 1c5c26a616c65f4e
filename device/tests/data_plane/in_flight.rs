//! Objects that their owner deletes while they are on their way: never half of one in the bucket, never
//! one that comes back, and nothing is promised of what was not taken.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;
use longhaul_protocol::journal::Fact;
use longhaul_vault::Version;

use crate::faults::{haul, proxy::Fault};
use crate::lan::{BUCKET, noise};
use crate::uplink::Haul;

const PAUSE: Duration = Duration::from_millis(500);

/// What the cloud was told of a version, in order.
async fn told(haul: &Haul, version: Version) -> Vec<&'static str> {
    let facts = haul.facts().await;
    let of = facts.iter().filter_map(|fact| {
        let (object, word) = match fact {
            Fact::Stored { object, .. } => (object, "stored"),
            Fact::Deleted { object } => (object, "deleted"),
            Fact::Delivered { object, .. } => (object, "delivered"),
            Fact::DeliveryFailed { object, .. } => (object, "failed"),
            _ => return None,
        };
        (object.version == version.0).then_some(word)
    });
    of.collect()
}

async fn until_told(haul: &Haul, versions: &[Version]) {
    for _ in 0..6000 {
        let mut all = true;
        for version in versions {
            all &= told(haul, *version).await.contains(&"deleted");
        }
        if all {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("a deletion was not told");
}

#[tokio::test]
async fn what_is_deleted_while_its_parts_are_on_their_way_never_comes_to_the_bucket() {
    let (haul, proxy) = haul().await;
    proxy.befall(Method::PUT, "/doomed", usize::MAX, Fault::Delay(PAUSE));
    let doomed = haul.store("doomed", &noise(12 << 20, 1)).await;
    let stays = noise(12 << 20, 2);
    haul.store("stays", &stays).await;
    let running = haul.start();
    haul.until("parts are on their way", |_| {
        proxy.count(&Method::PUT, "/doomed") > 0
    })
    .await;

    haul.delete("doomed").await;

    until_told(&haul, &[doomed]).await;
    haul.until("nothing is pending, nothing open", |haul| {
        haul.vault.stats().pending == 0 && haul.vault.abandoned().is_empty()
    })
    .await;
    assert!(haul.in_bucket("stays").await == stays);
    assert_eq!(haul.keys_in_bucket().await, ["stays"], "not half of it");
    assert_eq!(told(&haul, doomed).await, ["stored", "deleted"]);
    let aborted = haul.cloud.aborted.lock().clone();
    assert!(!aborted.is_empty(), "nobody pays for the parts");

    // The same name is free again, and what comes under it is the new one.
    proxy.rules.lock().clear();
    let new = noise(7 << 20, 3);
    haul.store("doomed", &new).await;
    haul.until("everything arrives", |haul| haul.vault.stats().pending == 0)
        .await;
    running.end().await;
    assert!(haul.in_bucket("doomed").await == new);
}

#[tokio::test]
async fn what_is_deleted_between_its_last_byte_and_its_completion_is_not_completed() {
    let (haul, proxy) = haul().await;
    let doomed = haul.store("doomed", &noise(12 << 20, 1)).await;
    haul.cloud.mute.store(true, Ordering::Relaxed);
    let running = haul.start();
    haul.until(
        "every byte is there, and the cloud does not hear of it",
        |haul| {
            let asked = haul.cloud.unheard.load(Ordering::Relaxed);
            asked > 0 && proxy.count(&Method::PUT, "/doomed") >= 3
        },
    )
    .await;

    haul.delete("doomed").await;
    until_told(&haul, &[doomed]).await;
    haul.cloud.mute.store(false, Ordering::Relaxed);

    haul.until("it is given up", |haul| {
        !haul.cloud.aborted.lock().is_empty() && haul.vault.abandoned().is_empty()
    })
    .await;
    let stays = noise(10_000, 4);
    haul.store("stays", &stays).await;
    haul.until("everything arrives", |haul| haul.vault.stats().pending == 0)
        .await;
    running.end().await;
    assert_eq!(
        haul.keys_in_bucket().await,
        ["stays"],
        "it did not come back"
    );
    assert_eq!(told(&haul, doomed).await, ["stored", "deleted"]);
}

#[tokio::test]
async fn what_is_deleted_while_its_pack_is_on_the_way_stays_out_of_the_bucket() {
    let (haul, proxy) = haul().await;
    proxy.befall(Method::PUT, "/pk-", 1, Fault::Delay(PAUSE));
    let mut versions = Vec::new();
    for index in 0..40_u8 {
        let key = format!("f{index:02}");
        versions.push(haul.store(&key, &noise(1000, index)).await);
    }
    let running = haul.start_with(|mut config| {
        config.pack_above = Duration::ZERO;
        config
    });
    haul.until("a pack is on its way", |_| {
        proxy.count(&Method::PUT, "/pk-") > 0
    })
    .await;

    for index in 0..20 {
        haul.delete(&format!("f{index:02}")).await;
    }

    until_told(&haul, &versions[..20]).await;
    haul.until("everything arrives", |haul| {
        haul.vault.stats().pending == 0 && haul.vault.abandoned().is_empty()
    })
    .await;
    running.end().await;
    let kept: Vec<String> = (20..40).map(|index| format!("f{index:02}")).collect();
    assert_eq!(haul.keys_in_bucket().await, kept);
    for version in &versions[..20] {
        assert_eq!(told(&haul, *version).await, ["stored", "deleted"]);
    }
    for (index, version) in (20..40_u8).zip(&versions[20..]) {
        let key = format!("f{index:02}");
        assert!(haul.in_bucket(&key).await == noise(1000, index));
        assert_eq!(told(&haul, *version).await, ["stored", "delivered"]);
    }
}

#[tokio::test]
async fn nothing_is_promised_of_what_was_begun_and_not_taken() {
    let haul = Haul::new().await;
    let job = BUCKET.parse().unwrap();
    haul.store("taken", b"taken").await;
    {
        let metadata = longhaul_vault::Metadata::default();
        let mut writer = haul.vault.begin(&job, "cut", metadata).unwrap();
        writer.write(&noise(100_000, 1)).unwrap();
    }
    let running = haul.start();
    haul.until("nothing is pending", |haul| haul.vault.stats().pending == 0)
        .await;
    running.end().await;

    let facts = haul.facts().await;
    let leaves = facts.iter().filter_map(|fact| match fact {
        Fact::Stored {
            object, receipt, ..
        } => Some((object.key.as_str(), receipt.is_some())),
        _ => None,
    });
    assert_eq!(leaves.collect::<Vec<_>>(), [("taken", true)]);
    assert_eq!(haul.keys_in_bucket().await, ["taken"]);
}
