//! Climbing the ladder: where does the way from the cable to the cloud end, and why?
//!
//! The way up to the cloud, the neighbours on the wire and, where the cloud does not answer, what
//! lies outside are probed at the same time, each with a deadline. A cloud that answers proves
//! everything below it, on machines and networks of any shape; [`judge`] decides, and does no IO.

mod cloud;
mod dial;
mod judge;
mod links;
mod local;
mod neighbour;
mod outside;
mod resolve;

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use longhaul_protocol::diag::Code;
use longhaul_protocol::inventory::CloudEndpoint;
use longhaul_protocol::value::UnixMillis;
use parking_lot::Mutex;

use crate::clock::{self, Now};
use crate::observation::Observation;
use crate::proxy::{Proxy, ProxySetting};
use crate::surroundings::Surroundings;
pub use cloud::TlsProbe;
use dial::Dial;
use judge::{SLOW, Seen, Way, is_private, judge, lower};
pub use links::LinkNews;
pub use local::{Neighbours, Network, lan_addresses};
pub use outside::Lookout;
use outside::Outside;
pub use resolve::servers as dns_servers;

/// The whole climb takes no longer.
const CLIMB: Duration = Duration::from_millis(9_500);
/// A resolver, and a connection, may take so long before they count as silent; beyond [`SLOW`] they
/// count as slow.
const STEP: Duration = Duration::from_secs(6);
/// A cloud that has answered by then leaves no reason to look around.
const PATIENCE: Duration = Duration::from_millis(1200);
/// Endpoints that are tried at the most.
const MAX_ENDPOINTS: usize = 8;
/// How long the way is still waited for once a lower rung is known not to hold.
const AFTER_LOWER: Duration = Duration::from_secs(1);

/// What climbs.
pub struct Climber {
    pub tls: TlsProbe,
    /// Absent where nothing outside is known.
    pub lookout: Option<Lookout>,
    pub proxy: ProxySetting,
    /// Private addresses at which the cloud has proven itself: there, it is where it should be.
    proven: Mutex<HashSet<IpAddr>>,
}

impl Climber {
    /// Climbs with these probes.
    pub fn new(tls: TlsProbe, lookout: Option<Lookout>, proxy: ProxySetting) -> Self {
        Self {
            tls,
            lookout,
            proxy,
            proven: Mutex::default(),
        }
    }

    /// As [`Self::climb`], with what was around the machine when it was seen.
    pub async fn climb_around(
        &self,
        endpoints: &[CloudEndpoint],
    ) -> (Surroundings, Vec<Observation>) {
        let (network, now) = (Network::read(), clock::now());
        let before = self.around(&network, now);
        let seen = self.climb_on(&network, endpoints, now.wall).await;
        // What ends a failure may come while the probes are under way; what begins one, before.
        let around = if seen.iter().all(|o| o.code.is_none()) {
            self.around(&Network::read(), clock::now())
        } else {
            before
        };
        (around, seen)
    }

    /// Finds the first rung that does not hold; observations end there.
    pub async fn climb(&self, endpoints: &[CloudEndpoint], now: UnixMillis) -> Vec<Observation> {
        self.climb_on(&Network::read(), endpoints, now).await
    }

    async fn climb_on(
        &self,
        network: &Network,
        endpoints: &[CloudEndpoint],
        now: UnixMillis,
    ) -> Vec<Observation> {
        if endpoints.is_empty() {
            return vec![Observation::failed(
                Code::NO_IDENTITY,
                "the configuration names no cloud endpoint",
            )];
        }
        let proxy = self.proxy.current();
        let shown = proxy.as_ref().map(ToString::to_string);
        let target = Mutex::new(None);
        let way = self
            .best_way(endpoints, proxy.as_ref(), &target, now)
            .shared();
        let neighbours = network.ask_neighbours().shared();
        let verdict = |neighbours: &Neighbours, way: Option<&Way>, outside: Option<&Outside>| {
            judge(&Seen {
                network,
                neighbours,
                way,
                target: *target.lock(),
                outside,
                proxy: shown.as_deref(),
                lied: way.is_some_and(|way| self.lied(way)),
            })
        };
        let both = futures::future::join(way.clone(), neighbours.clone());
        if let Ok((way @ Way::Up { .. }, neighbours)) = tokio::time::timeout(PATIENCE, both).await {
            return verdict(&neighbours, Some(&way), None);
        }
        let outside = self.look(now);
        let rest = futures::future::join(way.clone(), outside);
        let neighbours = async {
            let neighbours = neighbours.await;
            let below = lower(network, &neighbours, *target.lock());
            let holds = neighbours.conflict.is_none() && below.iter().all(|o| o.code.is_none());
            (neighbours, if holds { CLIMB } else { AFTER_LOWER })
        };
        let mut rest = std::pin::pin!(rest);
        let mut neighbours = std::pin::pin!(neighbours);
        let (neighbours, (way, outside)) = tokio::select! {
            (neighbours, limit) = &mut neighbours => {
                match tokio::time::timeout(limit, &mut rest).await {
                    Ok(rest) => (neighbours, rest),
                    Err(_) if limit == AFTER_LOWER => return verdict(&neighbours, None, None),
                    Err(_) => (neighbours, rest.await),
                }
            }
            rest = &mut rest => (neighbours.await.0, rest),
        };
        verdict(&neighbours, Some(&way), outside.as_ref())
    }

    fn around(&self, network: &Network, now: Now) -> Surroundings {
        let (cables, mut addresses) = network.marks();
        addresses.extend(resolve::servers());
        let mono_ms = i64::try_from(now.mono_ms).unwrap_or(i64::MAX);
        Surroundings {
            cables,
            addresses,
            proxy: self.proxy.current().map(|proxy| proxy.to_string()),
            calendar_ms: now.wall.0.saturating_sub(mono_ms),
        }
    }

    async fn look(&self, now: UnixMillis) -> Option<Outside> {
        match &self.lookout {
            Some(lookout) => Some(lookout.look(now).await),
            None => None,
        }
    }

    /// Whether the resolver's answer cannot be the cloud.
    fn lied(&self, way: &Way) -> bool {
        let (Way::Tcp { found, .. } | Way::Tls { found, .. }) = way else {
            return false;
        };
        let proven = self.proven.lock();
        let private = |a: &IpAddr| is_private(*a) && !proven.contains(a);
        found.by_name && self.proxy.current().is_none() && found.addresses.iter().all(private)
    }

    /// The way of the endpoint that came furthest.
    async fn best_way(
        &self,
        endpoints: &[CloudEndpoint],
        proxy: Option<&Proxy>,
        target: &Mutex<Option<IpAddr>>,
        now: UnixMillis,
    ) -> Way {
        let ways = endpoints.iter().take(MAX_ENDPOINTS);
        let ways = ways.map(|endpoint| self.try_out(endpoint, proxy, target, now));
        let ways = futures::future::join_all(ways).await;
        let best = ways
            .into_iter()
            .reduce(|a, b| if b.height() > a.height() { b } else { a });
        best.unwrap_or_else(|| Way::Resolve(Observation::failed(Code::DNS_NO_NAME, "no endpoint")))
    }

    async fn try_out(
        &self,
        endpoint: &CloudEndpoint,
        proxy: Option<&Proxy>,
        target: &Mutex<Option<IpAddr>>,
        now: UnixMillis,
    ) -> Way {
        let end = Instant::now() + CLIMB;
        let rest = || STEP.min(end.saturating_duration_since(Instant::now()));
        let host = proxy.map_or(&endpoint.host, |proxy| &proxy.host);
        let found = match resolve::resolve(host, STEP).await {
            Ok(found) => found,
            Err(failure) => return Way::Resolve(failure),
        };
        *target.lock() = found.addresses.first().copied();
        let dial = Dial {
            endpoint,
            proxy,
            addresses: &found.addresses,
        };
        let begun = Instant::now();
        let stream = match dial.open(rest(), None).await {
            Ok(stream) => stream,
            Err(failure) => return Way::Tcp { found, failure },
        };
        let connected = begun.elapsed();
        let ends = stream
            .local_addr()
            .and_then(|l| Ok((l.ip(), stream.peer_addr()?.ip())));
        let Ok((local, peer)) = ends else {
            let failure =
                Observation::failed(Code::TCP_UNREACHABLE, "the connection was gone at once");
            return Way::Tcp { found, failure };
        };
        match self.tls.prove(&dial, stream, SLOW, rest()).await {
            Ok(shaken) => {
                if is_private(peer) && proxy.is_none() {
                    self.proven.lock().insert(peer);
                }
                Way::Up {
                    found,
                    local,
                    peer,
                    connected,
                    shaken,
                }
            }
            Err(failure) => {
                let clock = self.tls.compare_clocks(&dial, &failure, now, SLOW).await;
                Way::Tls {
                    local,
                    failure,
                    clock,
                    found,
                }
            }
        }
    }
}

/// A connection to the HTTPS port of `endpoint`, through `proxy` where there is one.
pub async fn connect_to(
    endpoint: &CloudEndpoint,
    proxy: Option<&Proxy>,
    limit: Duration,
) -> Result<tokio::net::TcpStream, Observation> {
    let host = proxy.map_or(&endpoint.host, |proxy| &proxy.host);
    let found = resolve::resolve(host, limit).await?;
    let dial = Dial {
        endpoint,
        proxy,
        addresses: &found.addresses,
    };
    dial.open(limit, None).await
}

/// The addresses of a name; none where it has none, or nobody says.
pub async fn addresses_of(host: &str, limit: Duration) -> Vec<IpAddr> {
    let found = resolve::resolve(host, limit).await;
    found.map(|found| found.addresses).unwrap_or_default()
}

#[cfg(test)]
mod tests;
