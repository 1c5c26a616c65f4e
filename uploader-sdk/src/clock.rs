//! The only place that reads the wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_smithy_async::time::TimeSource;
use longhaul_protocol::value::UnixMillis;

/// Now, by this computer's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
pub fn system_now() -> SystemTime {
    SystemTime::now()
}

/// Now, in milliseconds.
pub fn now() -> UnixMillis {
    let since = system_now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The box's clock, as told by its `Date` header.
///
/// Requests are signed with the box's time, so that a computer whose clock is wrong can still push.
#[derive(Clone, Copy, Debug, Default)]
pub struct BoxClock {
    ahead: Duration,
    behind: Duration,
}

/// Smaller differences than this are left alone: `Date` has whole seconds and signatures bear minutes.
const TOLERATED: Duration = Duration::from_secs(30);

impl BoxClock {
    /// Measures the box's clock against ours, from a `Date` header (RFC 9110 section 5.6.7).
    pub fn from_date_header(date: &str, ours: SystemTime) -> Option<Self> {
        let theirs = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
        let theirs = SystemTime::from(theirs);
        let (ahead, behind) = match theirs.duration_since(ours) {
            Ok(ahead) => (ahead, Duration::ZERO),
            Err(behind) => (Duration::ZERO, behind.duration()),
        };
        let keep = |d| if d > TOLERATED { d } else { Duration::ZERO };
        Some(Self {
            ahead: keep(ahead),
            behind: keep(behind),
        })
    }
}

impl TimeSource for BoxClock {
    fn now(&self) -> SystemTime {
        system_now() + self.ahead - self.behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_a_day_ahead_is_measured_and_seconds_are_ignored() {
        let ours = UNIX_EPOCH + Duration::from_secs(1_700_000_000);

        let day = BoxClock::from_date_header("Wed, 15 Nov 2023 22:13:20 GMT", ours);
        let close = BoxClock::from_date_header("Tue, 14 Nov 2023 22:13:29 GMT", ours);

        assert_eq!(day.map(|c| c.ahead), Some(Duration::from_hours(24)));
        assert_eq!(close.map(|c| c.ahead), Some(Duration::ZERO));
        assert!(BoxClock::from_date_header("yesterday", ours).is_none());
    }
}
