//! From what the probes saw to the first rung that does not hold. Pure: everything seen comes in.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use longhaul_protocol::beacon::{Beacon, BeaconState};
use longhaul_protocol::diag::{Code, Rung};

use super::local::{Neighbours, Network};
use super::outside::{BeaconSeen, Outside};
use super::resolve::Found;
use crate::observation::Observation;

/// A rung that takes longer holds, and is a reason to complain.
pub const SLOW: Duration = Duration::from_secs(3);

/// How far one endpoint could be reached.
#[derive(Clone, Debug)]
pub enum Way {
    /// No address of the endpoint, or of the proxy.
    Resolve(Observation),
    /// No connection, or none through the proxy.
    Tcp { found: Found, failure: Observation },
    /// No handshake.
    Tls {
        found: Found,
        local: IpAddr,
        failure: Observation,
        /// Where the certificate's dates were the reason: what the server's clock says.
        clock: Option<Observation>,
    },
    /// The cloud has proven itself.
    Up {
        found: Found,
        local: IpAddr,
        peer: IpAddr,
        connected: Duration,
        shaken: Duration,
    },
}

impl Way {
    /// The further, the better.
    pub fn height(&self) -> u8 {
        match self {
            Self::Resolve(_) => 0,
            Self::Tcp { .. } => 1,
            Self::Tls { .. } => 2,
            Self::Up { .. } => 3,
        }
    }
}

/// Everything that was seen on one climb.
pub struct Seen<'a> {
    pub network: &'a Network,
    pub neighbours: &'a Neighbours,
    /// `None` where it was not waited for, because a lower rung does not hold.
    pub way: Option<&'a Way>,
    /// Where the way leads, as far as the resolver has said.
    pub target: Option<IpAddr>,
    /// `None` where there was no reason to look.
    pub outside: Option<&'a Outside>,
    /// The proxy that is set.
    pub proxy: Option<&'a str>,
    /// Whether the answer of the resolver can be no cloud: a private address that never proved to
    /// be one.
    pub lied: bool,
}

/// Rungs that were seen; one that fails is not seen otherwise later.
#[derive(Default)]
struct Rungs(BTreeMap<Rung, Observation>);

impl Rungs {
    fn put(&mut self, seen: Observation) {
        let known = self.0.get(&seen.rung);
        if known.is_none_or(|known| known.code.is_none()) {
            self.0.insert(seen.rung, seen);
        }
    }

    fn holds(&mut self, rung: Rung, evidence: impl Into<String>) {
        self.put(Observation::ok(rung, evidence));
    }

    /// Everything up to and including the first rung that fails, in the ladder's order.
    fn cut(self) -> Vec<Observation> {
        let mut seen: Vec<_> = self.0.into_values().collect();
        if let Some(first) = seen.iter().position(|o| o.code.is_some()) {
            seen.truncate(first + 1);
        }
        seen
    }
}

/// The rungs from the cable up, to the first that does not hold.
pub fn judge(seen: &Seen<'_>) -> Vec<Observation> {
    let mut rungs = Rungs::default();
    if let Some(conflict) = &seen.neighbours.conflict {
        rungs.put(Observation::failed(Code::ADDRESS_CONFLICT, conflict));
    }
    match seen.way {
        Some(way @ (Way::Up { found, local, .. } | Way::Tls { found, local, .. })) => {
            seen.network
                .proven(*local)
                .into_iter()
                .for_each(|o| rungs.put(o));
            resolved(&mut rungs, found);
            connected(&mut rungs, seen, way);
        }
        other => {
            for o in lower(seen.network, seen.neighbours, seen.target) {
                rungs.put(o);
            }
            match other {
                Some(Way::Tcp { found, failure }) => {
                    resolved(&mut rungs, found);
                    not_connected(&mut rungs, seen, failure);
                }
                Some(Way::Resolve(failure)) => rungs.put(failure.clone()),
                _ => {}
            }
        }
    }
    rungs.cut()
}

/// Link, address and gateway, as the kernel and the neighbours show them.
pub fn lower(
    network: &Network,
    neighbours: &Neighbours,
    target: Option<IpAddr>,
) -> [Observation; 3] {
    [
        network.link(target),
        network.address(target),
        network.gateway(target, neighbours.gateway),
    ]
}

fn resolved(rungs: &mut Rungs, found: &Found) {
    let took = found.took.as_secs_f32();
    if found.took > SLOW {
        rungs.put(Observation::failed(
            Code::DNS_SLOW,
            format!("an answer took {took:.1} s"),
        ));
    } else {
        rungs.holds(Rung::Dns, "the cloud's name resolves");
    }
}

fn proxy(rungs: &mut Rungs, seen: &Seen<'_>) {
    match seen.proxy {
        Some(proxy) => rungs.holds(Rung::Proxy, format!("through {proxy}")),
        None => rungs.holds(Rung::Proxy, "none is set"),
    }
}

fn connected(rungs: &mut Rungs, seen: &Seen<'_>, way: &Way) {
    match way {
        Way::Up {
            peer,
            connected,
            shaken,
            ..
        } => {
            proxy(rungs, seen);
            rungs.holds(
                Rung::Clock,
                "the server's certificate is valid by the box's clock",
            );
            let (tcp, tls) = (connected.as_secs_f32(), shaken.as_secs_f32());
            let evidence = format!("connected to {peer} in {tcp:.1} s, handshake in {tls:.1} s");
            if *connected > SLOW || *shaken > SLOW {
                rungs.put(Observation::failed(Code::LINE_POOR, evidence));
            } else {
                rungs.holds(Rung::CloudTcp, evidence);
            }
            rungs.holds(
                Rung::CloudTls,
                "the server's certificate chains to the fleet root",
            );
        }
        Way::Tls { failure, clock, .. } => {
            let wrong_clock = clock.as_ref().filter(|clock| clock.code.is_some());
            match (wrong_clock, elsewhere(seen)) {
                (Some(clock), _) => rungs.put(clock.clone()),
                (None, Some(found)) => rungs.put(found),
                (None, None) => {}
            }
            proxy(rungs, seen);
            match clock {
                Some(clock) => rungs.put(clock.clone()),
                None => rungs.holds(
                    Rung::Clock,
                    "not compared: the server's certificate was not accepted",
                ),
            }
            if let (Code::TLS_FAILED, Some(beacon)) = (code(failure), trouble(seen)) {
                rungs.put(cloud_down(beacon, failure));
            }
            rungs.put(failure.clone());
            rungs.holds(Rung::CloudTcp, "connected");
        }
        Way::Resolve(_) | Way::Tcp { .. } => {}
    }
}

fn not_connected(rungs: &mut Rungs, seen: &Seen<'_>, failure: &Observation) {
    if let Some(found) = elsewhere(seen) {
        rungs.put(found);
    } else if let Some(beacon) = trouble(seen) {
        rungs.put(cloud_down(beacon, failure));
    } else if shut_in(seen, failure) {
        rungs.put(Observation::failed(Code::NOTHING_OUT, &failure.evidence));
    }
    if failure.rung > Rung::Proxy {
        proxy(rungs, seen);
        rungs.holds(Rung::Clock, "not compared yet");
    }
    let mut failure = failure.clone();
    match seen.outside {
        Some(Outside {
            beacon: BeaconSeen::Said(_),
            ..
        }) => failure.evidence += "; the status beacon says that the cloud is well",
        Some(Outside {
            reached: Some(other),
            ..
        }) => {
            failure.evidence += "; can be reached: ";
            failure.evidence += other;
        }
        _ => {}
    }
    rungs.put(failure);
}

/// Somebody else stands where the cloud should: a portal, or whatever the resolver names.
fn elsewhere(seen: &Seen<'_>) -> Option<Observation> {
    if let Some(Outside {
        beacon: BeaconSeen::Portal { evidence },
        ..
    }) = seen.outside
    {
        return Some(Observation::failed(Code::CAPTIVE_PORTAL, evidence));
    }
    let (Way::Tcp { found, .. } | Way::Tls { found, .. }) = seen.way? else {
        return None;
    };
    seen.lied.then(|| {
        let all: Vec<_> = found.addresses.iter().map(ToString::to_string).collect();
        Observation::failed(Code::DNS_PRIVATE, all.join(", "))
    })
}

/// What the beacon says, if it reports trouble.
fn trouble<'a>(seen: &Seen<'a>) -> Option<&'a Beacon> {
    match seen.outside {
        Some(Outside {
            beacon: BeaconSeen::Said(beacon),
            ..
        }) if beacon.state == BeaconState::Trouble => Some(beacon),
        _ => None,
    }
}

fn cloud_down(beacon: &Beacon, failure: &Observation) -> Observation {
    let evidence = format!("the status beacon: {}; {}", beacon.text, failure.evidence);
    Observation::failed(Code::CLOUD_DOWN, evidence)
}

/// Whether nothing at all gets out, as far as anybody was asked.
fn shut_in(seen: &Seen<'_>, failure: &Observation) -> bool {
    let alone = seen.outside.is_some_and(|outside| {
        outside.asked && outside.reached.is_none() && outside.beacon == BeaconSeen::Silent
    });
    alone && seen.proxy.is_none() && matches!(code(failure), Code::TCP_TIMEOUT | Code::TCP_REFUSED)
}

/// The code of a failure.
fn code(failure: &Observation) -> Code {
    failure.code.unwrap_or(Code::TLS_FAILED)
}

/// Whether an address means something only inside a network.
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified()
        }
        IpAddr::V6(v6) => {
            v6.is_unique_local()
                || v6.is_unicast_link_local()
                || v6.is_loopback()
                || v6.is_unspecified()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longhaul_protocol::value::UnixMillis;

    fn found() -> Found {
        Found {
            addresses: vec!["203.0.113.10".parse().unwrap()],
            took: Duration::from_millis(5),
            by_name: true,
        }
    }

    fn tcp(code: Code) -> Way {
        Way::Tcp {
            found: found(),
            failure: Observation::failed(code, "seen"),
        }
    }

    fn tls(code: Code, clock: Option<Observation>) -> Way {
        Way::Tls {
            found: found(),
            local: "192.0.2.7".parse().unwrap(),
            failure: Observation::failed(code, "seen"),
            clock,
        }
    }

    fn up(connected_ms: u64, shaken_ms: u64) -> Way {
        Way::Up {
            found: found(),
            local: "192.0.2.7".parse().unwrap(),
            peer: "203.0.113.10".parse().unwrap(),
            connected: Duration::from_millis(connected_ms),
            shaken: Duration::from_millis(shaken_ms),
        }
    }

    fn said(state: BeaconState) -> BeaconSeen {
        BeaconSeen::Said(Beacon {
            v: 1,
            state,
            text: "storage is being repaired".to_owned(),
            made_at: UnixMillis(0),
            expires: UnixMillis(1),
        })
    }

    fn outside(beacon: BeaconSeen, reached: bool) -> Outside {
        Outside {
            beacon,
            reached: reached.then(|| "one.example:443".to_owned()),
            asked: true,
        }
    }

    fn portal() -> BeaconSeen {
        BeaconSeen::Portal {
            evidence: "led to a log-in page".to_owned(),
        }
    }

    struct Case {
        way: Way,
        outside: Option<Outside>,
        lied: bool,
        neighbours: Neighbours,
    }

    impl Case {
        fn of(way: Way) -> Self {
            Self {
                way,
                outside: None,
                lied: false,
                neighbours: Neighbours {
                    conflict: None,
                    gateway: Some(true),
                },
            }
        }

        fn with(way: Way, beacon: BeaconSeen, reached: bool) -> Self {
            Self {
                outside: Some(outside(beacon, reached)),
                ..Self::of(way)
            }
        }

        fn code(&self) -> Option<Code> {
            let network = Network::example();
            let seen = judge(&Seen {
                network: &network,
                neighbours: &self.neighbours,
                way: Some(&self.way),
                target: Some("203.0.113.10".parse().unwrap()),
                outside: self.outside.as_ref(),
                proxy: None,
                lied: self.lied,
            });
            let rungs: Vec<_> = seen.iter().map(|o| o.rung).collect();
            assert_eq!(rungs, Rung::ALL[..rungs.len()], "no rung is skipped");
            assert!(seen.iter().all(|o| !o.evidence.is_empty()), "{seen:?}");
            let (last, below) = seen.split_last().unwrap();
            assert!(below.iter().all(|o| o.code.is_none()), "{seen:?}");
            last.code
        }
    }

    #[test]
    fn our_side_is_told_from_the_customers() {
        let (silent, well, bad) = (
            BeaconSeen::Silent,
            said(BeaconState::Well),
            said(BeaconState::Trouble),
        );
        let timeout = || tcp(Code::TCP_TIMEOUT);
        let cases = [
            (Case::of(timeout()), Code::TCP_TIMEOUT),
            (
                Case::with(timeout(), silent.clone(), false),
                Code::NOTHING_OUT,
            ),
            (
                Case::with(timeout(), silent.clone(), true),
                Code::TCP_TIMEOUT,
            ),
            (Case::with(timeout(), well.clone(), true), Code::TCP_TIMEOUT),
            (Case::with(timeout(), bad.clone(), true), Code::CLOUD_DOWN),
            (
                Case::with(tcp(Code::TCP_REFUSED), bad.clone(), false),
                Code::CLOUD_DOWN,
            ),
            (
                Case::with(tcp(Code::TCP_REFUSED), well, false),
                Code::TCP_REFUSED,
            ),
            (
                Case::with(tcp(Code::TCP_UNREACHABLE), silent.clone(), false),
                Code::TCP_UNREACHABLE,
            ),
            (
                Case::with(tls(Code::TLS_FAILED, None), bad.clone(), true),
                Code::CLOUD_DOWN,
            ),
            (
                Case::with(tls(Code::TLS_UNTRUSTED, None), bad, true),
                Code::TLS_UNTRUSTED,
            ),
            (
                Case::with(tls(Code::PATH_MTU, None), silent, true),
                Code::PATH_MTU,
            ),
        ];
        for (case, code) in cases {
            assert_eq!(case.code(), Some(code));
        }
    }

    #[test]
    fn whoever_answers_in_place_of_the_cloud_is_named() {
        let untrusted = || tls(Code::TLS_UNTRUSTED, None);
        let lied = |way| Case {
            lied: true,
            ..Case::of(way)
        };

        assert_eq!(
            Case::with(untrusted(), portal(), false).code(),
            Some(Code::CAPTIVE_PORTAL)
        );
        assert_eq!(
            Case::with(tcp(Code::TCP_TIMEOUT), portal(), false).code(),
            Some(Code::CAPTIVE_PORTAL)
        );
        assert_eq!(lied(untrusted()).code(), Some(Code::DNS_PRIVATE));
        assert_eq!(lied(tcp(Code::TCP_REFUSED)).code(), Some(Code::DNS_PRIVATE));
        // A private cloud that has proven itself is where it should be.
        assert_eq!(lied(up(1, 1)).code(), None);
    }

    #[test]
    fn a_wrong_clock_is_told_from_a_wrong_certificate() {
        let fast = Observation::failed(Code::CLOCK_WRONG, "3 y fast");
        let right = Observation::ok(Rung::Clock, "agrees");

        let ours = Case::of(tls(Code::TLS_EXPIRED, Some(fast)));
        let theirs = Case::of(tls(Code::TLS_EXPIRED, Some(right)));

        assert_eq!(ours.code(), Some(Code::CLOCK_WRONG));
        assert_eq!(theirs.code(), Some(Code::TLS_EXPIRED));
    }

    #[test]
    fn what_holds_slowly_is_said() {
        let slow_dns = |way: Way| match way {
            Way::Up {
                local,
                peer,
                connected,
                shaken,
                found,
            } => Way::Up {
                local,
                peer,
                connected,
                shaken,
                found: Found {
                    took: Duration::from_secs(4),
                    ..found
                },
            },
            other => other,
        };

        assert_eq!(Case::of(up(20, 40)).code(), None);
        assert_eq!(Case::of(up(3_500, 40)).code(), Some(Code::LINE_POOR));
        assert_eq!(Case::of(up(20, 3_500)).code(), Some(Code::LINE_POOR));
        assert_eq!(Case::of(slow_dns(up(20, 40))).code(), Some(Code::DNS_SLOW));
    }

    #[test]
    fn a_conflict_counts_although_the_cloud_answers_and_a_silent_gateway_does_not() {
        let mut conflict = Case::of(up(20, 40));
        conflict.neighbours.conflict = Some("192.0.2.7 is also the address of x".to_owned());
        let mut silent = Case::of(up(20, 40));
        silent.neighbours.gateway = Some(false);
        let mut cut_off = Case::of(tcp(Code::TCP_TIMEOUT));
        cut_off.neighbours.gateway = Some(false);

        assert_eq!(conflict.code(), Some(Code::ADDRESS_CONFLICT));
        assert_eq!(silent.code(), None);
        assert_eq!(cut_off.code(), Some(Code::GATEWAY_SILENT));
    }
}
