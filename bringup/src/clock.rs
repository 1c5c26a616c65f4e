//! The one place that reads the machine's clocks.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use longhaul_protocol::value::UnixMillis;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Now {
    /// Milliseconds that only ever rise: for deadlines and intervals.
    pub mono_ms: u64,
    /// What the calendar says; may jump when the clock is set.
    pub wall: UnixMillis,
}

impl Now {
    /// Both clocks, `millis` later.
    #[must_use]
    pub fn after_millis(self, millis: u64) -> Self {
        Self {
            mono_ms: self.mono_ms.saturating_add(millis),
            wall: self
                .wall
                .plus_millis(i64::try_from(millis).unwrap_or(i64::MAX)),
        }
    }
}

/// The time of day.
#[expect(
    clippy::disallowed_methods,
    reason = "the crate's one reading of the wall clock"
)]
pub fn wall() -> UnixMillis {
    let since_epoch = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// Clocks that differ by less than this agree, in milliseconds: a date has whole seconds, and an
/// answer takes its time.
const AGREE_MS: i64 = 60_000;

/// How far the cloud's calendar is before this machine's, in milliseconds.
static AHEAD_MS: AtomicI64 = AtomicI64::new(0);

/// The cloud said, over its own TLS, what time it is.
pub fn heard(cloud: UnixMillis) {
    let ahead = ahead(wall(), cloud);
    if AHEAD_MS.swap(ahead, Ordering::Relaxed) == 0 && ahead != 0 {
        tracing::warn!(
            ahead_ms = ahead,
            "the cloud's clock and the box's differ: the cloud's counts for what leaves the box"
        );
    }
}

fn ahead(own: UnixMillis, cloud: UnixMillis) -> i64 {
    let ahead = cloud.0.saturating_sub(own.0);
    if ahead.saturating_abs() < AGREE_MS {
        0
    } else {
        ahead
    }
}

/// Both clocks, the calendar as the cloud has it, where that was heard.
pub fn agreed() -> Now {
    let now = now();
    Now {
        wall: now.wall.plus_millis(AHEAD_MS.load(Ordering::Relaxed)),
        ..now
    }
}

/// Both clocks; the steady one counts from the first call.
pub fn now() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    Now {
        mono_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        wall: wall(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clouds_clock_counts_where_the_boxs_is_wrong() {
        let year = 365 * 86_400_000;
        let own = UnixMillis(40 * year);
        assert_eq!(ahead(own, UnixMillis(56 * year)), 16 * year);
        assert_eq!(ahead(own, UnixMillis(33 * year)), -7 * year);
        assert_eq!(ahead(own, UnixMillis(40 * year + 59_000)), 0);
    }

    #[test]
    fn what_the_cloud_said_moves_the_calendar_and_not_the_steady_clock() {
        heard(wall().plus_millis(10 * 365 * 86_400_000));
        let (own, agreed) = (now(), agreed());
        heard(wall());

        assert!(agreed.wall.millis_since(own.wall) > 9 * 365 * 86_400_000);
        assert!(agreed.mono_ms >= own.mono_ms && agreed.mono_ms < own.mono_ms + 60_000);
    }
}
