//! Connections that have not finished CONNECT: few enough to bear, shared fairly.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts unfinished handshakes and turns away what would be too many.
///
/// One address may hold at most as many as are still free (the dynamic threshold of Choudhury and
/// Hahne, 1998): alone it gets half of all, and a newcomer from elsewhere always finds room.
#[derive(Debug)]
pub struct HalfOpen {
    limit: usize,
    count: Mutex<Count>,
}

#[derive(Debug, Default)]
struct Count {
    total: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// One unfinished handshake; dropping it frees its place.
#[derive(Debug)]
pub struct Place {
    half_open: Arc<HalfOpen>,
    source: IpAddr,
}

impl HalfOpen {
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            count: Mutex::default(),
        }
    }

    /// Takes a place for a connection from `address`, if there is a fair one.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let source = source(address);
        let mut count = self.count.lock();
        let free = self.limit.saturating_sub(count.total);
        let held = count.by_source.get(&source).copied().unwrap_or(0);
        if held >= free {
            return None;
        }
        count.total += 1;
        count.by_source.insert(source, held + 1);
        Some(Place {
            half_open: Arc::clone(self),
            source,
        })
    }

    pub fn len(&self) -> usize {
        self.count.lock().total
    }
}

/// Whoever has one IPv6 address has the whole /64.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let network = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut count = self.half_open.count.lock();
        count.total = count.total.saturating_sub(1);
        match count.by_source.get_mut(&self.source) {
            Some(held) if *held > 1 => *held -= 1,
            _ => {
                count.by_source.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_address_takes_half_and_leaves_room_for_others() {
        let half_open = Arc::new(HalfOpen::new(100));

        let greedy: Vec<_> = std::iter::from_fn(|| half_open.enter(ip("192.0.2.1"))).collect();
        let other = half_open.enter(ip("192.0.2.2"));

        assert_eq!(greedy.len(), 50);
        assert!(other.is_some());
        drop((greedy, other));
        assert_eq!(half_open.len(), 0);
        assert!(half_open.count.lock().by_source.is_empty());
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let half_open = Arc::new(HalfOpen::new(2));

        let first = half_open.enter(ip("2001:db8::1"));

        assert!(first.is_some());
        assert!(half_open.enter(ip("2001:db8::2")).is_none());
        assert!(half_open.enter(ip("2001:db8:0:1::2")).is_some());
    }
}
