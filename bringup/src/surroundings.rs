//! What is around the box, so that a change of it can be told: compared, never shown.

use std::net::IpAddr;

use longhaul_protocol::diag::Fix;

/// A calendar that moves by more than this against the steady clock was set, in milliseconds.
const CLOCK_SET_MS: i64 = 120_000;

/// What is around the box at one time.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Surroundings {
    /// Interfaces with a carrier.
    pub cables: Vec<String>,
    /// Addresses that mean something beyond one cable, gateways and DNS servers.
    pub addresses: Vec<IpAddr>,
    /// The proxy, as it is shown.
    pub proxy: Option<String>,
    /// How far the calendar is ahead of the steady clock, in milliseconds.
    pub calendar_ms: i64,
}

impl Surroundings {
    /// What has changed since: of several changes, the one that explains the others.
    pub fn change(&self, now: &Self) -> Option<Fix> {
        let moved = self.calendar_ms.saturating_sub(now.calendar_ms);
        if self.cables != now.cables {
            Some(Fix::Cable)
        } else if self.addresses != now.addresses {
            Some(Fix::Address)
        } else if self.proxy != now.proxy || moved.saturating_abs() > CLOCK_SET_MS {
            Some(Fix::Setting)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_has_its_name_and_the_cable_comes_first() {
        let before = Surroundings {
            cables: vec!["eth0".to_owned()],
            addresses: vec!["192.0.2.7".parse().unwrap()],
            proxy: None,
            calendar_ms: 1_000_000,
        };
        let with = |change: fn(&mut Surroundings)| {
            let mut after = before.clone();
            change(&mut after);
            before.change(&after)
        };

        assert_eq!(with(|_| {}), None);
        assert_eq!(with(|s| s.calendar_ms += 60_000), None);
        assert_eq!(with(|s| s.calendar_ms = i64::MIN), Some(Fix::Setting));
        assert_eq!(
            with(|s| s.proxy = Some("proxy:3128".to_owned())),
            Some(Fix::Setting)
        );
        assert_eq!(with(|s| s.addresses.clear()), Some(Fix::Address));
        let unplugged = |s: &mut Surroundings| (s.cables, s.addresses) = Default::default();
        assert_eq!(with(unplugged), Some(Fix::Cable));
    }
}
