//! Climbing the ladder: where does the way from the cable to the cloud end, and why?
//!
//! The upper rungs are tried first: a cloud that answers proves everything below it, on machines
//! and networks of any shape. Only when it does not answer is the way searched from the cable up.

mod cloud;
mod local;
mod resolve;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use longhaul_protocol::diag::Rung;
use longhaul_protocol::inventory::CloudEndpoint;
use longhaul_protocol::value::UnixMillis;

use crate::agent::ladder::Observation;
pub use cloud::TlsProbe;
pub use local::{Network, lan_addresses};

/// No single probe takes longer; three follow each other at the most.
const PROBE: Duration = Duration::from_secs(3);

/// Finds the first rung that does not hold; observations end there.
pub async fn climb(
    endpoints: &[CloudEndpoint],
    tls: &Arc<TlsProbe>,
    now: UnixMillis,
) -> Vec<Observation> {
    let ways = endpoints
        .iter()
        .map(|endpoint| Way::try_out(endpoint, tls, now));
    let ways = futures::future::join_all(ways).await;
    let best = ways
        .into_iter()
        .reduce(|a, b| if b.height() > a.height() { b } else { a });
    let Some(way) = best else {
        return vec![Observation::failed(
            longhaul_protocol::diag::Code::NO_IDENTITY,
            "the configuration names no cloud endpoint",
        )];
    };
    let network = Network::read();
    match way {
        Way::Resolve(failure) => below(&network, None, failure).await,
        Way::Tcp { addresses, failure } => {
            let target = addresses.first().copied();
            below(&network, target, failure).await
        }
        Way::Tls {
            local,
            failure,
            clock,
        } => {
            let mut seen = network.proven(local);
            match clock {
                Some(clock) => seen.push(clock),
                None => seen.push(Observation::ok(
                    Rung::Clock,
                    "not compared: the server's certificate was not accepted",
                )),
            }
            seen.push(Observation::ok(Rung::CloudTcp, "connected"));
            seen.push(failure);
            cut(seen)
        }
        Way::Up { local, peer } => {
            let mut seen = network.proven(local);
            seen.push(Observation::ok(
                Rung::Clock,
                "the server's certificate is valid by the box's clock",
            ));
            seen.push(Observation::ok(
                Rung::CloudTcp,
                format!("connected to {peer}"),
            ));
            seen.push(Observation::ok(
                Rung::CloudTls,
                "the server's certificate chains to the fleet root",
            ));
            seen
        }
    }
}

/// The cloud did not answer: the first rung from below that does not hold is the reason, or
/// `failure` where all of them do.
async fn below(
    network: &Network,
    target: Option<IpAddr>,
    failure: Observation,
) -> Vec<Observation> {
    let mut seen = vec![network.link(target), network.address(target)];
    if seen.iter().all(|o| o.code.is_none()) {
        seen.push(network.gateway(target).await);
    }
    if failure.rung > Rung::Dns {
        seen.push(Observation::ok(Rung::Dns, "the cloud's name resolves"));
        seen.push(Observation::ok(Rung::Proxy, "none is configured"));
        seen.push(Observation::ok(Rung::Clock, "not compared yet"));
    }
    seen.push(failure);
    cut(seen)
}

/// Everything up to and including the first rung that fails, in the ladder's order.
fn cut(mut seen: Vec<Observation>) -> Vec<Observation> {
    seen.sort_by_key(|o| o.rung);
    if let Some(first) = seen.iter().position(|o| o.code.is_some()) {
        seen.truncate(first + 1);
    }
    seen
}

/// How far one endpoint could be reached.
enum Way {
    Resolve(Observation),
    Tcp {
        addresses: Vec<IpAddr>,
        failure: Observation,
    },
    Tls {
        local: IpAddr,
        failure: Observation,
        /// Where the certificate's dates were the reason: what the server's clock says.
        clock: Option<Observation>,
    },
    Up {
        local: IpAddr,
        peer: IpAddr,
    },
}

impl Way {
    fn height(&self) -> u8 {
        match self {
            Self::Resolve(_) => 0,
            Self::Tcp { .. } => 1,
            Self::Tls { .. } => 2,
            Self::Up { .. } => 3,
        }
    }

    async fn try_out(endpoint: &CloudEndpoint, tls: &Arc<TlsProbe>, now: UnixMillis) -> Self {
        let addresses = match resolve::resolve(&endpoint.host, PROBE).await {
            Ok(addresses) => addresses,
            Err(failure) => return Self::Resolve(failure),
        };
        let stream = match cloud::connect(&addresses, endpoint.https_port, PROBE).await {
            Ok(stream) => stream,
            Err(failure) => return Self::Tcp { addresses, failure },
        };
        let ends = stream
            .local_addr()
            .and_then(|l| Ok((l, stream.peer_addr()?)));
        let Ok((local, peer)) = ends.map(|(l, p)| (l.ip(), p.ip())) else {
            let failure = Observation::failed(
                longhaul_protocol::diag::Code::TCP_UNREACHABLE,
                "the connection was gone at once",
            );
            return Self::Tcp { addresses, failure };
        };
        match tls.handshake(&endpoint.host, stream, PROBE).await {
            Ok(()) => Self::Up { local, peer },
            Err(failure) => {
                let clock = tls
                    .compare_clocks(endpoint, &addresses, &failure, now, PROBE)
                    .await;
                Self::Tls {
                    local,
                    failure,
                    clock,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
