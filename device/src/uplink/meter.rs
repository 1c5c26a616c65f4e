//! How many bytes may be sent when: one token bucket under all that leaves for the buckets. Pure:
//! the clocks come in.

use longhaul_protocol::uplink::{Rate, UplinkPolicy, UplinkState};

use crate::clock::Now;

/// What was not used is kept for so long, in milliseconds.
const BURST_MS: u64 = 250;
/// Bytes that are let through at a time.
const LARGEST_PIECE: u64 = 64 << 10;
const SMALLEST_PIECE: u64 = 4 << 10;
/// Pieces in a second, at least, where the rate is low: the store must see that something comes.
const PIECES_PER_SEC: u64 = 4;
/// A request gets so many bytes per second at least, or it waits for others to end.
const STREAM_RATE: u64 = 32 << 10;
/// Requests at a time where nothing limits them.
const STREAMS: usize = 4096;

/// What becomes of bytes that want to go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Leave {
    /// They may.
    Go,
    /// Not before this moment of the steady clock, in milliseconds.
    Wait(u64),
    /// Not until the policy or the hour changes.
    Held,
}

/// Gives bytes leave by the policy in force.
#[derive(Debug)]
pub(super) struct Meter {
    policy: UplinkPolicy,
    rate: Rate,
    /// Bytes that may go at once, in thousandths; below zero while what went is paid off.
    credit: i128,
    at_ms: u64,
}

impl Meter {
    /// By this policy from now on.
    pub fn new(policy: UplinkPolicy, now: Now) -> Self {
        Self {
            rate: policy.rate_at(now.wall.0),
            policy,
            credit: 0,
            at_ms: now.mono_ms,
        }
    }

    /// By another policy from now on.
    pub fn set(&mut self, policy: UplinkPolicy, now: Now) {
        self.settle(now);
        self.policy = policy;
        self.settle(now);
    }

    /// What is in force.
    pub fn state(&self, now: Now) -> UplinkState {
        self.policy.state_at(now.wall.0)
    }

    /// How urgent a bucket is.
    pub fn policy(&self) -> &UplinkPolicy {
        &self.policy
    }

    /// Asks for leave for `bytes`, at most [`Meter::piece`].
    pub fn take(&mut self, bytes: u64, now: Now) -> Leave {
        self.settle(now);
        match self.rate {
            Rate::Unlimited => Leave::Go,
            Rate::Held => Leave::Held,
            // Whoever finds any credit may go, and the next one waits until that is paid off: a
            // piece that is longer than the credit gets through, too.
            Rate::Limited(_) if self.credit > 0 => {
                self.credit -= i128::from(bytes) * 1000;
                Leave::Go
            }
            Rate::Limited(rate) => {
                let missing = (1 - self.credit).unsigned_abs();
                let wait = missing.div_ceil(u128::from(rate.max(1)));
                Leave::Wait(now.mono_ms.saturating_add(u64::try_from(wait).unwrap_or(1)))
            }
        }
    }

    /// The longest piece that should ask at once, in bytes.
    pub fn piece(&self) -> usize {
        let piece = match self.rate {
            Rate::Unlimited => return usize::MAX,
            Rate::Held => SMALLEST_PIECE,
            Rate::Limited(rate) => (rate / PIECES_PER_SEC).clamp(SMALLEST_PIECE, LARGEST_PIECE),
        };
        usize::try_from(piece).unwrap_or(usize::MAX)
    }

    /// Requests that may send at a time: with more, each would seem to stand still.
    pub fn streams(&mut self, now: Now) -> usize {
        self.settle(now);
        match self.rate {
            Rate::Unlimited => STREAMS,
            Rate::Held => 0,
            Rate::Limited(rate) => {
                let streams = usize::try_from(rate / STREAM_RATE).unwrap_or(STREAMS);
                streams.clamp(1, STREAMS)
            }
        }
    }

    /// Counts what has come in since, and looks at the hour anew.
    fn settle(&mut self, now: Now) {
        let elapsed = now.mono_ms.saturating_sub(self.at_ms);
        self.at_ms = self.at_ms.max(now.mono_ms);
        if let Rate::Limited(rate) = self.rate {
            let rate = i128::from(rate);
            self.credit = self
                .credit
                .saturating_add(rate * i128::from(elapsed))
                .min(rate * i128::from(BURST_MS));
        }
        let rate = self.policy.rate_at(now.wall.0);
        if rate != self.rate {
            // Nothing is saved up, and nothing owed, from another hour.
            self.credit = 0;
            self.rate = rate;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longhaul_protocol::uplink::{MIN_RATE, Week};
    use longhaul_protocol::value::UnixMillis;
    use proptest::prelude::*;

    fn at(mono_ms: u64, wall_ms: i64) -> Now {
        Now {
            mono_ms,
            wall: UnixMillis(wall_ms),
        }
    }

    fn limited(rate: impl Fn(usize) -> Option<u64>) -> UplinkPolicy {
        UplinkPolicy {
            week: Some(Week {
                utc_offset_minutes: 0,
                limits: Box::new(std::array::from_fn(|day| {
                    std::array::from_fn(|hour| rate(day * 24 + hour))
                })),
            }),
            ..UplinkPolicy::default()
        }
    }

    /// Asks as often as allowed until `end_ms`; says how much went.
    fn greedy(meter: &mut Meter, from_ms: u64, end_ms: u64) -> u64 {
        let (mut now, mut sent) = (from_ms, 0);
        while now < end_ms {
            let piece = meter.piece().min(1 << 16) as u64;
            match meter.take(piece, at(now, 0)) {
                Leave::Go => sent += piece,
                Leave::Wait(until) => {
                    assert!(until > now, "time passes");
                    now = until;
                }
                Leave::Held => return sent,
            }
        }
        sent
    }

    #[test]
    fn a_limit_is_used_up_and_kept() {
        let rate = 1 << 20;
        let mut meter = Meter::new(limited(|_| Some(rate)), at(0, 0));

        let sent = greedy(&mut meter, 0, 60_000);

        let want = 60 * rate;
        assert!(
            (want * 99 / 100..=want * 101 / 100).contains(&sent),
            "{sent}"
        );
    }

    #[test]
    fn the_hour_changes_the_limit_and_midnight_may_hold() {
        let hour = 3_600_000;
        let mut meter = Meter::new(
            limited(|hour| match hour % 24 {
                0 => Some(0),
                1 => Some(MIN_RATE),
                _ => None,
            }),
            at(0, 0),
        );
        assert_eq!(meter.take(4096, at(0, 0)), Leave::Held);
        assert_eq!(meter.streams(at(1, 1)), 0);
        assert!(matches!(meter.take(4096, at(2, hour)), Leave::Wait(_)));
        assert_eq!(meter.take(4096, at(3, hour)), Leave::Go);
        assert!(matches!(meter.take(4096, at(3, hour)), Leave::Wait(_)));
        assert_eq!(meter.take(1 << 30, at(4, 2 * hour)), Leave::Go);
        assert_eq!(meter.take(1 << 30, at(4, 2 * hour)), Leave::Go);
    }

    #[test]
    fn a_pause_holds_and_its_end_lets_go() {
        let mut meter = Meter::new(UplinkPolicy::default(), at(0, 0));
        assert_eq!(meter.take(1 << 20, at(0, 0)), Leave::Go);
        let paused = UplinkPolicy {
            paused: true,
            ..UplinkPolicy::default()
        };

        meter.set(paused, at(1, 0));
        assert_eq!(meter.take(1, at(u64::MAX, i64::MAX)), Leave::Held);
        meter.set(UplinkPolicy::default(), at(2, 0));
        assert_eq!(meter.take(1 << 20, at(3, 0)), Leave::Go);
    }

    proptest! {
        #[test]
        fn however_it_is_asked_no_more_goes_than_the_limit_allows(
            rate in MIN_RATE..1_u64 << 32,
            asks in prop::collection::vec((0_u64..3_000, 1_u64..=LARGEST_PIECE, any::<i64>()), 1..400),
        ) {
            let mut meter = Meter::new(limited(|_| Some(rate)), at(0, 0));
            let (mut now, mut sent) = (0, 0);
            for (pause, bytes, wall) in asks {
                now += pause;
                // However the wall clock jumps: the limit is the same at every hour.
                if meter.take(bytes, at(now, wall)) == Leave::Go {
                    sent += bytes;
                }
                let most = rate * (now + BURST_MS) / 1000 + LARGEST_PIECE;
                prop_assert!(sent <= most, "{sent} of {most} after {now} ms");
            }
        }

        #[test]
        fn who_waits_as_told_is_let_through(rate in MIN_RATE..1_u64 << 32, piece in 1_u64..=LARGEST_PIECE) {
            let mut meter = Meter::new(limited(|_| Some(rate)), at(0, 0));
            let mut now = 0;
            for _ in 0..50 {
                while let Leave::Wait(until) = meter.take(piece, at(now, 0)) {
                    prop_assert!(until > now);
                    prop_assert!(until - now <= 1 + 1000 * piece / rate + 1);
                    now = until;
                }
            }
        }
    }
}
