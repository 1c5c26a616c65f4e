//! The one place that reads the machine's clock; everything else is told the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use longhaul_protocol::value::UnixMillis;

/// Tells the time. Clones of a manual clock share their hands.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// Stands still until it is set.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands at `now` until [`Clock::advance`] moves it.
    pub fn manual(now: UnixMillis) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(now.0)))
    }

    /// The time now.
    pub fn now(&self) -> UnixMillis {
        match self {
            Self::System => now(),
            Self::Manual(at) => UnixMillis(at.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock forward; the machine's clock takes no orders.
    pub fn advance(&self, millis: i64) {
        if let Self::Manual(at) = self {
            at.fetch_add(millis, Ordering::SeqCst);
        }
    }
}

/// The machine's clock; a clock before 1970 reads as 0.
#[expect(
    clippy::disallowed_methods,
    reason = "the one runtime that reads the clock"
)]
fn now() -> UnixMillis {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
