//! The one place that reads the wall clock: certificates end at a date, not after a duration.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long until `unix_secs`; zero if that is past.
#[expect(
    clippy::disallowed_methods,
    reason = "the runtime's one reading of the wall clock"
)]
pub fn until_unix_secs(unix_secs: i64) -> Duration {
    let end = UNIX_EPOCH + Duration::from_secs(u64::try_from(unix_secs).unwrap_or(0));
    end.duration_since(SystemTime::now()).unwrap_or_default()
}
