//! When to try again: exponential, with full jitter, so that a fleet does not come back as one.

/// Shortest and longest ceiling of a delay, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    base_ms: u64,
    max_ms: u64,
    failures: u32,
}

/// No retry is sooner than this, in milliseconds.
const FLOOR_MS: u64 = 200;

impl Backoff {
    /// Ceilings from `base_ms`, doubling to `max_ms`.
    pub const fn new(base_ms: u64, max_ms: u64) -> Self {
        Self {
            base_ms,
            max_ms,
            failures: 0,
        }
    }

    /// The delay before the next try, in milliseconds: anything up to the ceiling, which doubles.
    pub fn next(&mut self, entropy: u64) -> u64 {
        let ceiling = self
            .base_ms
            .saturating_mul(1_u64.checked_shl(self.failures).unwrap_or(u64::MAX))
            .clamp(FLOOR_MS + 1, self.max_ms.max(FLOOR_MS + 1));
        self.failures = self.failures.saturating_add(1).min(32);
        FLOOR_MS + entropy % (ceiling - FLOOR_MS)
    }

    /// Things have changed: begin again with the shortest ceiling.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn delays_stay_below_a_ceiling_that_doubles(entropy in any::<u64>(), tries in 1..80_u32) {
            let mut backoff = Backoff::new(1_000, 300_000);
            for n in 0..tries {
                let ceiling = (1_000_u64 << n.min(20)).min(300_000);
                let delay = backoff.next(entropy.rotate_left(n));
                prop_assert!((FLOOR_MS..=ceiling).contains(&delay), "{delay} of {ceiling}");
            }
            backoff.reset();
            prop_assert!(backoff.next(entropy) <= 1_000);
        }
    }
}
