//! Slows down whoever guesses passwords. Pure: it is told the time.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Attempts are counted over this long, in milliseconds.
const WINDOW_MS: i64 = 5 * 60 * 1000;
/// Attempts at one name from one address.
const PER_PAIR: u32 = 5;
/// Attempts from one address.
const PER_ADDRESS: u32 = 30;
/// Attempts at one name. Far above what one person needs, so that a stranger cannot lock them out
/// cheaply, and far below what guessing needs.
const PER_NAME: u32 = 100;
/// Counters that are kept; an attacker must not fill the memory.
const MAX_COUNTERS: usize = 50_000;

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Counted {
    Pair(String, Option<IpAddr>),
    Address(Option<IpAddr>),
    Name(String),
}

impl Counted {
    fn limit(&self) -> u32 {
        match self {
            Self::Pair(..) => PER_PAIR,
            Self::Address(_) => PER_ADDRESS,
            Self::Name(_) => PER_NAME,
        }
    }
}

/// Counts attempts to log in.
#[derive(Debug, Default)]
pub struct Throttle {
    counters: BTreeMap<Counted, (u32, i64)>,
}

impl Throttle {
    /// Counts an attempt before it is looked at, so that many at once count as many.
    ///
    /// # Errors
    ///
    /// Seconds to wait, if it is one too many.
    pub fn attempt(&mut self, name: &str, address: Option<IpAddr>, now: i64) -> Result<(), u64> {
        self.count(counted(name, address).into(), now)
    }

    fn count(&mut self, all: Vec<Counted>, now: i64) -> Result<(), u64> {
        self.counters
            .retain(|_, (_, began)| now.saturating_sub(*began) < WINDOW_MS);
        for counted in &all {
            if let Some((count, began)) = self.counters.get(counted)
                && *count >= counted.limit()
            {
                let left_ms = WINDOW_MS - now.saturating_sub(*began);
                return Err(u64::try_from(left_ms.saturating_add(999) / 1000).unwrap_or(1));
            }
        }
        for counted in all {
            if self.counters.len() >= MAX_COUNTERS && !self.counters.contains_key(&counted) {
                continue;
            }
            self.counters.entry(counted).or_insert((0, now)).0 += 1;
        }
        Ok(())
    }

    /// Counts an attempt of nobody known yet, by where it comes from.
    ///
    /// # Errors
    ///
    /// Seconds to wait, if it is one too many.
    pub fn attempt_from(&mut self, address: Option<IpAddr>, now: i64) -> Result<(), u64> {
        self.count(vec![Counted::Address(address)], now)
    }

    /// That attempt was right.
    pub fn succeeded_from(&mut self, address: Option<IpAddr>) {
        if let Some((count, _)) = self.counters.get_mut(&Counted::Address(address)) {
            *count = count.saturating_sub(1);
        }
    }

    /// The attempt was right: it and those before it do not count.
    pub fn succeeded(&mut self, name: &str, address: Option<IpAddr>) {
        for counted in counted(name, address) {
            match &counted {
                Counted::Pair(..) => {
                    self.counters.remove(&counted);
                }
                Counted::Address(_) | Counted::Name(_) => {
                    if let Some((count, _)) = self.counters.get_mut(&counted) {
                        *count = count.saturating_sub(1);
                    }
                }
            }
        }
    }
}

fn counted(name: &str, address: Option<IpAddr>) -> [Counted; 3] {
    let name: String = name.chars().take(64).collect();
    [
        Counted::Pair(name.clone(), address),
        Counted::Address(address),
        Counted::Name(name),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "as the throttle takes it")]
    fn at(n: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, n]))
    }

    #[test]
    fn the_sixth_attempt_waits_and_others_do_not() {
        let mut throttle = Throttle::default();
        for _ in 0..5 {
            throttle.attempt("ada", at(1), 1000).expect("in time");
        }

        assert_eq!(throttle.attempt("ada", at(1), 61_000), Err(240));
        throttle
            .attempt("bob", at(1), 61_000)
            .expect("another name");
        throttle
            .attempt("ada", at(2), 61_000)
            .expect("another address");
        throttle.attempt("ada", at(1), 301_000).expect("later");
    }

    #[test]
    fn one_address_cannot_try_many_names() {
        let mut throttle = Throttle::default();
        for n in 0..PER_ADDRESS {
            throttle
                .attempt(&format!("name{n}"), at(1), 0)
                .expect("in time");
        }

        assert!(throttle.attempt("ada", at(1), 0).is_err());
    }

    #[test]
    fn who_logs_in_is_not_slowed_down() {
        let mut throttle = Throttle::default();
        for _ in 0..1000 {
            throttle.attempt("ada", at(1), 0).expect("in time");
            throttle.succeeded("ada", at(1));
        }
    }
}
