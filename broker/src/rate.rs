//! How fast one box may send.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// A token bucket that may go into debt: whatever has arrived is taken, and the debt says how
/// long to wait before reading more. So nothing is dropped and a sender is merely slowed.
#[derive(Clone, Debug)]
pub struct Bucket {
    level: f64,
    burst: f64,
    per_second: f64,
    at: Instant,
}

impl Bucket {
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32, now: Instant) -> Self {
        Self {
            level: f64::from(burst.get()),
            burst: f64::from(burst.get()),
            per_second: f64::from(per_second.get()),
            at: now,
        }
    }

    /// Takes `amount` and says how long to wait for the level to be positive again.
    pub fn take(&mut self, amount: u32, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.level = (self.level + passed * self.per_second).min(self.burst) - f64::from(amount);
        Duration::from_secs_f64((-self.level / self.per_second).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_the_rest_is_paid_for_in_time() {
        let start = Instant::now();
        let n = |n| NonZeroU32::new(n).expect("not zero");
        let mut bucket = Bucket::new(n(10), n(5), start);

        for _ in 0..5 {
            assert_eq!(bucket.take(1, start), Duration::ZERO);
        }
        assert_eq!(bucket.take(1, start), Duration::from_millis(100));
        let later = start + Duration::from_millis(200);
        assert_eq!(bucket.take(1, later), Duration::ZERO);
        let much_later = start + Duration::from_hours(1);
        assert_eq!(bucket.take(6, much_later), Duration::from_millis(100));
    }
}
