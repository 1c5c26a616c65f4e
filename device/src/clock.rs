//! The one place that reads the machine's clocks.

use std::sync::OnceLock;
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

/// Both clocks; the steady one counts from the first call.
pub fn now() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    Now {
        mono_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        wall: wall(),
    }
}
