//! How often whom may try a claim code. Pure: time comes in as an argument.
//!
//! The code has 80 bits, so nobody guesses it; this keeps the journal and the box quiet, and one
//! peer from keeping out another.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// Within this, in milliseconds.
const WINDOW_MS: u64 = 300_000;
/// So often may one peer try, and all together.
const PEER: u32 = 5;
const ALL: u32 = 200;
/// So often is the journal told.
const TOLD: u32 = 10;
/// Peers that are told apart at the most; more than may try together.
const PEERS: usize = ALL as usize;

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    since_ms: u64,
    count: u32,
}

impl Window {
    /// Counts one more, unless that were more than `limit`; else how long to wait.
    fn take(&mut self, limit: u32, now_ms: u64) -> Result<(), u64> {
        if now_ms.saturating_sub(self.since_ms) >= WINDOW_MS {
            *self = Self {
                since_ms: now_ms,
                count: 0,
            };
        }
        if self.count >= limit {
            return Err(self
                .since_ms
                .saturating_add(WINDOW_MS)
                .saturating_sub(now_ms));
        }
        self.count += 1;
        Ok(())
    }
}

/// Who tried how often.
#[derive(Debug, Default)]
pub struct Attempts {
    peers: BTreeMap<IpAddr, Window>,
    all: Window,
    told: Window,
}

impl Attempts {
    /// Counts an attempt before it is looked at, so that many at once are no more than one after the
    /// other.
    ///
    /// # Errors
    ///
    /// How long to wait, in seconds.
    pub fn begin(&mut self, peer: IpAddr, now_ms: u64) -> Result<(), u64> {
        self.peers
            .retain(|_, window| now_ms.saturating_sub(window.since_ms) < WINDOW_MS);
        let wait = |ms: u64| ms.div_ceil(1000).max(1);
        let fresh = Window {
            since_ms: now_ms,
            count: 0,
        };
        let of = place(peer);
        if self.peers.len() >= PEERS && !self.peers.contains_key(&of) {
            return Err(wait(WINDOW_MS));
        }
        let window = self.peers.entry(of).or_insert(fresh);
        window.take(PEER, now_ms).map_err(wait)?;
        self.all.take(ALL, now_ms).map_err(wait)
    }

    /// It was right: whoever has the code is not throttled.
    pub fn right(&mut self, peer: IpAddr) {
        self.peers.remove(&place(peer));
        self.all.count = self.all.count.saturating_sub(1);
    }

    /// It was wrong; whether the journal is told of this one.
    pub fn wrong(&mut self, now_ms: u64) -> bool {
        self.told.take(TOLD, now_ms).is_ok()
    }
}

/// What counts as one peer: who has one IPv6 address of a network has all of them.
fn place(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => {
            let network = v6.to_bits() & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_peer_tries_five_times_and_others_still_may() {
        let mut attempts = Attempts::default();
        let (mallory, ada) = (peer("192.0.2.66"), peer("192.0.2.7"));

        for at in 0..5 {
            assert_eq!(attempts.begin(mallory, at), Ok(()));
        }

        assert_eq!(attempts.begin(mallory, 10_000), Err(290));
        assert_eq!(attempts.begin(peer("::ffff:192.0.2.66"), 10_000), Err(290));
        assert_eq!(attempts.begin(ada, 10_000), Ok(()));
        assert_eq!(attempts.begin(mallory, WINDOW_MS), Ok(()));
    }

    #[test]
    fn many_addresses_are_no_way_around() {
        let mut attempts = Attempts::default();
        let tried = (0..100_000_u32).filter(|n| {
            let address = IpAddr::V6(Ipv6Addr::from_bits(u128::from(*n) << 64));
            attempts.begin(address, 1).is_ok()
        });
        assert_eq!(tried.count(), ALL as usize);
        assert!(attempts.peers.len() <= PEERS);
        // All of one network are one.
        let mut attempts = Attempts::default();
        let tried = (0..100_u32).filter(|n| {
            let address = IpAddr::V6(Ipv6Addr::from_bits(u128::from(*n)));
            attempts.begin(address, 1).is_ok()
        });
        assert_eq!(tried.count(), PEER as usize);
    }

    #[test]
    fn who_has_the_code_is_not_kept_out_and_the_journal_stays_short() {
        let mut attempts = Attempts::default();
        for _ in 0..50 {
            assert_eq!(attempts.begin(peer("192.0.2.7"), 1), Ok(()));
            attempts.right(peer("192.0.2.7"));
        }
        let told = (0..1000).filter(|at| attempts.wrong(*at)).count();
        assert_eq!(told, TOLD as usize);
    }
}
