//! A box whose clock jumps while it delivers: its own time says nothing about the cloud's URLs, and when
//! the hour of the week is another one, only the limits follow.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use longhaul_device::clock::{self, Now};
use longhaul_protocol::uplink::{UplinkMode, UplinkPolicy, Week};
use longhaul_protocol::value::UnixMillis;

use crate::faults::{haul, proxy::Fault};
use crate::lan::noise;
use crate::uplink::Haul;
use crate::wan::PART_BYTES;

const DAY: i64 = 86_400_000;
/// How far the box's clock is off, in milliseconds, and how often it was looked at.
static OFF: AtomicI64 = AtomicI64::new(0);
static LOOKS: AtomicU64 = AtomicU64::new(0);

fn jumping() -> Now {
    LOOKS.fetch_add(1, Ordering::Relaxed);
    let now = clock::now();
    let wall = UnixMillis(now.wall.0 + OFF.load(Ordering::Relaxed));
    Now { wall, ..now }
}

/// Noon, so many days from now: whenever this runs, the day does not end meanwhile.
fn jump(days: i64) {
    let now = clock::now().wall.0;
    let noon = (now.div_euclid(DAY) + days) * DAY + DAY / 2;
    OFF.store(noon - now, Ordering::Relaxed);
}

#[tokio::test]
async fn a_clock_that_jumps_days_ahead_and_back_neither_stops_a_delivery_nor_makes_it_spin() {
    let (haul, proxy) = haul().await;
    let slow = Fault::Delay(Duration::from_millis(400));
    proxy.befall(Method::PUT, "/large", usize::MAX, slow);
    let large = noise(60 << 20, 1);
    haul.store("large", &large).await;
    jump(0);
    // Three days ahead, nothing may be sent. 1970 began on a Thursday.
    let ahead = clock::now().wall.0.div_euclid(DAY) + 3;
    let closed = usize::try_from((ahead + 3).rem_euclid(7)).unwrap();
    haul.wish(UplinkPolicy {
        week: Some(Week {
            utc_offset_minutes: 0,
            limits: Box::new(std::array::from_fn(|day| {
                [(day == closed).then_some(0); 24]
            })),
        }),
        ..UplinkPolicy::default()
    });
    let running = haul.start_at(jumping);
    let parts = |count: usize| {
        let proxy = &proxy;
        move |_: &Haul| proxy.count(&Method::PUT, "/large") >= count
    };
    haul.until("the first parts are on their way", parts(1))
        .await;

    jump(3);
    haul.until("the closed day counts", |haul| {
        haul.in_force().state == UplinkMode::Waiting
    })
    .await;
    jump(-3);
    haul.until("another day counts", |haul| {
        haul.in_force().state == UplinkMode::Sending
    })
    .await;
    haul.until("it goes on", parts(3)).await;
    for days in [4, -4, 400, -20_000, 40_000, 0] {
        jump(days);
        tokio::task::yield_now().await;
    }
    jump(1);
    haul.until("everything arrives", |haul| haul.vault.stats().pending == 0)
        .await;
    running.end().await;

    assert!(haul.in_bucket("large").await == large);
    let parts = large.len().div_ceil(usize::try_from(PART_BYTES).unwrap());
    let sent = proxy.count(&Method::PUT, "/large");
    // What was on its way when the day closed may have been cut off; nothing else goes twice, as it
    // would if a URL were held for expired, or used when it is.
    assert!(sent <= parts + 16, "{sent} requests for {parts} parts");
    let looks = LOOKS.load(Ordering::Relaxed);
    assert!(looks < 20_000, "it looked at its clock {looks} times");
}
