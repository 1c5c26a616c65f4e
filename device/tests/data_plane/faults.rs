//! Whatever the line and the store do: what is sent arrives once, whole, or fails for good with a
//! reason that the customer sees.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Method, StatusCode};
use longhaul_device::clock::{self, Now};
use longhaul_protocol::journal::Fact;
use longhaul_protocol::value::UnixMillis;
use longhaul_vault::Delivery;

use crate::lan::{Authority, noise};
use crate::uplink::Haul;
use crate::wan::TestCloud;

#[path = "../support/faults.rs"]
pub mod proxy;

use proxy::{Fault, Faults};

const SLOW_DOWN: &str = "<Error><Code>SlowDown</Code></Error>";

pub async fn haul() -> (Haul, Arc<Faults>) {
    let mut haul = Haul::new().await;
    let server = format!("http://{}", haul.server);
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(Authority::new().client_tls())
        .build();
    let faults = Faults::before(server, http.unwrap()).await;
    haul.cloud = TestCloud::at(haul.server, &faults.url());
    (haul, faults)
}

async fn delivered(haul: &Haul, key: &str) -> usize {
    let facts = haul.facts().await;
    let of =
        |fact: &Fact| matches!(fact, Fact::Delivered { object, .. } if object.key.as_str() == key);
    facts.iter().filter(|fact| of(fact)).count()
}

#[tokio::test]
async fn what_the_line_and_the_store_do_for_a_while_keeps_nothing_from_arriving_once() {
    let status = |status, retry| {
        let headers = if retry {
            vec![("retry-after", "1")]
        } else {
            vec![]
        };
        Fault::Answer(status, SLOW_DOWN, headers)
    };
    let faults = [
        Fault::Cut,
        Fault::Delay(Duration::from_millis(200)),
        status(StatusCode::INTERNAL_SERVER_ERROR, false),
        status(StatusCode::SERVICE_UNAVAILABLE, true),
        status(StatusCode::TOO_MANY_REQUESTS, true),
        Fault::TruncateAnswer,
        Fault::LoseAnswer,
    ];
    let (haul, proxy) = haul().await;
    let mut expected = Vec::new();
    for (index, fault) in (0_u8..).zip(faults) {
        // One that travels in one piece, and a part of one that does not.
        let names: [&'static str; 2] = [
            Box::leak(format!("small-{index}").into_boxed_str()),
            Box::leak(format!("large-{index}").into_boxed_str()),
        ];
        for (name, size) in names.into_iter().zip([10_000, 6 << 20]) {
            proxy.befall(Method::PUT, name, 2, fault.clone());
            let bytes = noise(size, index);
            haul.store(name, &bytes).await;
            expected.push((name, bytes));
        }
    }

    let running = haul.start();
    haul.until("everything arrives", |haul| haul.vault.stats().pending == 0)
        .await;
    running.end().await;

    for (name, bytes) in expected {
        assert!(haul.in_bucket(name).await == bytes, "{name}");
        assert_eq!(haul.delivery(name), Delivery::Verified, "{name}");
        assert_eq!(delivered(&haul, name).await, 1, "{name}");
    }
    // A fault that harms nothing befalls only the one request that there is.
    assert!(proxy.rules.lock().iter().all(|rule| rule.times < 2));
}

#[tokio::test]
async fn a_store_that_asks_for_a_pause_gets_it() {
    let (haul, proxy) = haul().await;
    let busy = Fault::Answer(
        StatusCode::SERVICE_UNAVAILABLE,
        SLOW_DOWN,
        vec![("retry-after", "3")],
    );
    proxy.befall(Method::PUT, "/k", 1, busy);
    haul.store("k", b"bytes").await;

    let running = haul.start();
    haul.until("it arrives", |haul| {
        haul.delivery("k") == Delivery::Verified
    })
    .await;
    running.end().await;

    let seen = proxy.seen.lock().clone();
    let puts: Vec<_> = seen.iter().filter(|s| s.method == Method::PUT).collect();
    assert_eq!(puts.len(), 2, "{puts:?}");
    assert!(puts[1].at - puts[0].at >= Duration::from_secs(3));
}

#[tokio::test]
async fn what_the_store_will_never_take_fails_with_its_reason() {
    let refused = "<Error><Code>EntityTooLarge</Code><Message>not here</Message></Error>";
    let denied = "<Error><Code>AccessDenied</Code><Message>by policy</Message></Error>";
    let (haul, proxy) = haul().await;
    for (name, size, status, text) in [
        ("bad-small", 10_000, StatusCode::BAD_REQUEST, refused),
        ("bad-large", 6 << 20, StatusCode::BAD_REQUEST, refused),
        ("denied-small", 10_000, StatusCode::FORBIDDEN, denied),
        ("denied-large", 6 << 20, StatusCode::FORBIDDEN, denied),
    ] {
        proxy.befall(
            Method::PUT,
            name,
            usize::MAX,
            Fault::Answer(status, text, vec![]),
        );
        haul.store(name, &noise(size, 1)).await;
    }
    haul.store("good", b"bytes").await;

    let running = haul.start();
    haul.until("nothing is pending", |haul| haul.vault.stats().pending == 0)
        .await;
    running.end().await;

    assert_eq!(haul.delivery("good"), Delivery::Verified);
    for (name, says) in [
        ("bad-small", "EntityTooLarge"),
        ("bad-large", "EntityTooLarge"),
        ("denied-small", "by policy"),
        ("denied-large", "by policy"),
    ] {
        let Delivery::Failed { reason } = haul.delivery(name) else {
            panic!("{name}: {:?}", haul.delivery(name));
        };
        assert!(reason.contains(says), "{name}: {reason}");
    }
    assert_eq!(proxy.count(&Method::PUT, "bad-small"), 1, "not tried again");
    assert!(
        proxy.count(&Method::PUT, "denied-small") > 1,
        "a fresh URL is tried"
    );
    let aborted = haul.cloud.aborted.lock().len();
    assert!(aborted >= 4, "{aborted}: nobody pays for the parts");
}

#[tokio::test]
async fn a_bucket_that_denies_everything_holds_its_objects_is_told_once_and_goes_on() {
    let denied = "<Error><Code>AccessDenied</Code><Message>by policy</Message></Error>";
    let (haul, proxy) = haul().await;
    let names = [("small", 10_000), ("other", 10), ("large", 6 << 20)];
    for (name, size) in names {
        let fault = Fault::Answer(StatusCode::FORBIDDEN, denied, vec![]);
        proxy.befall(Method::PUT, name, usize::MAX, fault);
        haul.store(name, &noise(size, 1)).await;
    }
    *haul.cloud.held.lock() = Some("access was withdrawn".to_owned());

    let running = haul.start();
    haul.until("the box asks about each of them", |haul| {
        haul.cloud.refusals.load(Ordering::Relaxed) >= names.len()
    })
    .await;
    for (name, _) in names {
        assert!(haul.delivery(name).is_pending(), "{name} waits");
    }
    let kept = haul.cloud.aborted.lock().len();
    assert_eq!(kept, 0, "what was begun is kept");
    *haul.cloud.held.lock() = None;
    proxy.rules.lock().clear();
    haul.until("nothing is pending", |haul| haul.vault.stats().pending == 0)
        .await;
    running.end().await;

    for (name, size) in names {
        assert_eq!(haul.delivery(name), Delivery::Verified, "{name}");
        assert!(haul.in_bucket(name).await == noise(size, 1), "{name}");
    }
    let facts = haul.facts().await;
    let told = facts.iter().filter(
        |fact| matches!(fact, Fact::Notice { text, .. } if text.contains("access was withdrawn")),
    );
    assert_eq!(told.count(), 1, "{facts:?}");
}

#[tokio::test]
async fn a_url_that_is_too_old_and_an_upload_that_is_gone_begin_anew() {
    let expired = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
    let lost = "<Error><Code>NoSuchUpload</Code></Error>";
    let (haul, proxy) = haul().await;
    for name in ["small", "large"] {
        let fault = Fault::Answer(StatusCode::FORBIDDEN, expired, vec![]);
        proxy.befall(Method::PUT, name, 1, fault);
    }
    let fault = Fault::Answer(StatusCode::NOT_FOUND, lost, vec![]);
    proxy.befall(Method::PUT, "gone", 1, fault);
    let bytes = noise(6 << 20, 3);
    haul.store("small", b"bytes").await;
    haul.store("large", &bytes).await;
    let gone = haul.store("gone", &bytes).await;

    let running = haul.start();
    haul.until("everything arrives", |haul| haul.vault.stats().pending == 0)
        .await;
    running.end().await;

    for name in ["small", "large", "gone"] {
        assert_eq!(haul.delivery(name), Delivery::Verified, "{name}");
    }
    assert!(haul.in_bucket("gone").await == bytes);
    let aborted = haul.cloud.aborted.lock().clone();
    assert!(!aborted.is_empty());
    assert!(
        aborted.iter().all(|id| id.as_str() == format!("up-{gone}")),
        "{aborted:?}"
    );
}

#[tokio::test]
async fn a_refused_pack_goes_again_with_a_fresh_url() {
    let expired = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
    let (haul, proxy) = haul().await;
    let fault = Fault::Answer(StatusCode::FORBIDDEN, expired, vec![]);
    proxy.befall(Method::PUT, "/staging/", 1, fault);
    for index in 0..50_u8 {
        haul.store(&format!("f{index}"), &noise(1000, index)).await;
    }

    let running = haul.start_with(|mut config| {
        config.pack_above = Duration::ZERO;
        config
    });
    haul.until("everything arrives", |haul| haul.vault.stats().pending == 0)
        .await;
    running.end().await;

    assert!(
        haul.cloud.packs.lock().len() >= 2,
        "packs were not given up"
    );
    assert_eq!(proxy.count(&Method::PUT, "/f"), 0, "none went alone");
    for index in 0..50_u8 {
        assert_eq!(
            haul.in_bucket(&format!("f{index}")).await,
            noise(1000, index)
        );
    }
}

#[tokio::test]
async fn a_box_whose_clock_is_decades_off_delivers() {
    const DECADES: i64 = 30 * 365 * 86_400_000;
    fn behind() -> Now {
        skewed(-DECADES)
    }
    fn ahead() -> Now {
        skewed(DECADES)
    }
    fn skewed(by: i64) -> Now {
        let now = clock::now();
        let wall = UnixMillis(now.wall.0 + by);
        Now { wall, ..now }
    }
    for clock in [behind as fn() -> Now, ahead] {
        let haul = Haul::new().await;
        let large = noise(6 << 20, 5);
        haul.store("large", &large).await;
        haul.store("small", b"bytes").await;

        let running = haul.start_at(clock);
        haul.until("everything arrives", |haul| haul.vault.stats().pending == 0)
            .await;
        running.end().await;

        assert!(haul.in_bucket("large").await == large);
        assert_eq!(haul.in_bucket("small").await, b"bytes");
    }
}

#[tokio::test]
async fn a_send_that_is_tried_again_never_mixes_what_changed_meanwhile() {
    let (haul, proxy) = haul().await;
    proxy.befall(Method::PUT, "/single", 1, Fault::LoseAnswer);
    proxy.befall(Method::PUT, "/parts", 3, Fault::Cut);
    let (old, new) = (noise(12 << 20, 1), noise(12 << 20, 2));
    haul.store("single", b"old bytes").await;
    haul.store("parts", &old).await;
    let running = haul.start();
    haul.until("both were tried", |_| {
        proxy.count(&Method::PUT, "/single") >= 1 && proxy.count(&Method::PUT, "/parts") >= 3
    })
    .await;

    haul.store("single", b"new and longer bytes").await;
    haul.store("parts", &new).await;

    haul.until("everything arrives", |haul| haul.vault.stats().pending == 0)
        .await;
    running.end().await;
    assert_eq!(haul.in_bucket("single").await, b"new and longer bytes");
    assert!(haul.in_bucket("parts").await == new);
    for key in ["single", "parts"] {
        assert_eq!(haul.delivery(key), Delivery::Verified, "{key}");
    }
}
