//! The lower rungs, from what the kernel says: link, address, gateway.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use longhaul_protocol::diag::{Code, Rung};
use longhaul_protocol::probe::InterfaceSeen;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::LinkAddr;

use super::neighbour::{self, Question};
use crate::observation::Observation;

/// Addresses that neighbours are asked about at the most.
const MAX_ASKED: usize = 8;
/// How long a gateway may take to answer neighbour discovery.
const NEIGHBOUR: Duration = Duration::from_secs(1);
/// Any closed port does: the datagram only makes the kernel look for the neighbour.
const DISCARD_PORT: u16 = 9;

#[derive(Clone, Debug, Eq, PartialEq)]
struct Interface {
    name: String,
    carrier: bool,
    loopback: bool,
    addresses: Vec<(IpAddr, u8)>,
    /// An address that the kernel found somebody else to have (RFC 4862 section 5.4).
    taken: Option<Ipv6Addr>,
    link: Option<LinkAddr>,
}

/// A default route.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Gateway {
    address: IpAddr,
    interface: String,
}

/// What neighbours on the wire say.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Neighbours {
    /// Somebody else has the box's address.
    pub conflict: Option<String>,
    /// Whether the gateway answers; `None` where it was not asked.
    pub gateway: Option<bool>,
}

/// The machine's network as the kernel shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Network {
    interfaces: Vec<Interface>,
    gateway: Option<Gateway>,
}

impl Network {
    /// Looks at the machine.
    pub fn read() -> Self {
        Self {
            interfaces: interfaces(
                &std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default(),
            ),
            gateway: default_gateway(
                &std::fs::read_to_string("/proc/net/route").unwrap_or_default(),
                &std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default(),
            ),
        }
    }

    /// A machine as it should be: a cable, an address, a gateway.
    #[cfg(test)]
    pub(super) fn example() -> Self {
        tests::network(true, &[("192.0.2.7", 24)], Some("192.0.2.1"))
    }

    /// Whether a cable is plugged in.
    pub fn has_carrier(&self) -> bool {
        self.interfaces.iter().any(|i| !i.loopback && i.carrier)
    }

    /// Interfaces that have a carrier, as a report shows them.
    pub fn seen(&self) -> Vec<InterfaceSeen> {
        let plugged = self.interfaces.iter().filter(|i| !i.loopback && i.carrier);
        let seen = plugged.map(|i| {
            let mtu = std::fs::read_to_string(format!("/sys/class/net/{}/mtu", i.name));
            let addresses = i
                .addresses
                .iter()
                .map(|(a, prefix)| format!("{a}/{prefix}"));
            InterfaceSeen {
                name: i.name.clone(),
                addresses: addresses.collect(),
                mtu: mtu.ok().and_then(|text| text.trim().parse().ok()),
            }
        });
        seen.collect()
    }

    /// The default gateway.
    pub fn gateway_address(&self) -> Option<IpAddr> {
        self.gateway.as_ref().map(|gateway| gateway.address)
    }

    /// Whether there is an IPv6 address that means something beyond one cable.
    pub fn has_global_v6(&self) -> bool {
        let outer = self.interfaces.iter().filter(|i| !i.loopback);
        let mut addresses = outer.flat_map(|i| &i.addresses);
        addresses.any(|(a, _)| a.is_ipv6() && !is_link_local(*a))
    }

    /// Interfaces with a carrier; addresses that mean something beyond one cable, and the gateway.
    pub fn marks(&self) -> (Vec<String>, Vec<IpAddr>) {
        let plugged = self.interfaces.iter().filter(|i| !i.loopback && i.carrier);
        let mut cables: Vec<_> = plugged.clone().map(|i| i.name.clone()).collect();
        cables.sort_unstable();
        let addresses = plugged.flat_map(|i| &i.addresses).map(|(a, _)| *a);
        let mut addresses: Vec<_> = addresses.filter(|a| !is_link_local(*a)).collect();
        addresses.sort_unstable();
        addresses.extend(self.gateway.as_ref().map(|gateway| gateway.address));
        (cables, addresses)
    }

    /// The lower rungs of a way that was gone from `local` to the cloud: they hold.
    pub(super) fn proven(&self, local: IpAddr) -> [Observation; 3] {
        let through = self.interfaces.iter().find(|i| i.has(local));
        let name = through.map_or("unknown", |i| i.name.as_str());
        let (link, gateway) = if local.is_loopback() {
            (
                "the cloud is on this machine".to_owned(),
                "not needed".to_owned(),
            )
        } else {
            let gateway = match &self.gateway {
                Some(gateway) => format!("default route by {}", gateway.address),
                None => "not needed".to_owned(),
            };
            (format!("through {name}"), gateway)
        };
        [
            Observation::ok(Rung::Link, link),
            Observation::ok(Rung::Address, format!("{local} on {name}")),
            Observation::ok(Rung::Gateway, gateway),
        ]
    }

    /// Asks on the wire: does anybody else have the box's addresses, and is the gateway there?
    pub async fn ask_neighbours(&self) -> Neighbours {
        let (conflict, gateway) = tokio::join!(self.conflict(), self.gateway_answers());
        Neighbours { conflict, gateway }
    }

    async fn conflict(&self) -> Option<String> {
        let plugged = self.interfaces.iter().filter(|i| !i.loopback && i.carrier);
        if let Some((name, taken)) = plugged
            .clone()
            .find_map(|i| i.taken.map(|taken| (&i.name, taken)))
        {
            return Some(format!("somebody else on {name} has {taken}"));
        }
        let asked = plugged.flat_map(|i| {
            let v4 = i.addresses.iter().filter_map(|(address, _)| match address {
                IpAddr::V4(v4) => Some(*v4),
                IpAddr::V6(_) => None,
            });
            v4.filter_map(|own| i.link.map(|link| (own, link)))
        });
        let asked = asked.take(MAX_ASKED).map(|(own, link)| async move {
            let answer = neighbour::ask(&link, Question::Mine { own }).await;
            let mac = answer.ok()??;
            let mac = neighbour::show(mac);
            Some(format!("{own} is also the address of {mac}"))
        });
        let answers = futures::future::join_all(asked).await;
        answers.into_iter().flatten().next()
    }

    async fn gateway_answers(&self) -> Option<bool> {
        let gateway = self.gateway.as_ref()?;
        let interface = self
            .interfaces
            .iter()
            .find(|i| i.name == gateway.interface)?;
        let own = interface.speaks_to(gateway.address);
        if let (Some(link), Some(own)) = (&interface.link, own) {
            let neighbour = gateway.address;
            if let Ok(answer) = neighbour::ask(link, Question::WhoHas { neighbour, own }).await {
                return Some(answer.is_some());
            }
        }
        // Without the right to look at frames, the kernel's memory has to do.
        match gateway.address {
            IpAddr::V4(v4) => Some(answers(v4).await),
            IpAddr::V6(_) => None,
        }
    }

    pub(super) fn link(&self, target: Option<IpAddr>) -> Observation {
        if target.is_some_and(|t| t.is_loopback()) {
            return Observation::ok(Rung::Link, "the cloud is on this machine");
        }
        let outer = || self.interfaces.iter().filter(|i| !i.loopback);
        if let Some(up) = outer().find(|i| i.carrier) {
            return Observation::ok(Rung::Link, format!("{} has a carrier", up.name));
        }
        let names: Vec<_> = outer().map(|i| i.name.as_str()).collect();
        if names.is_empty() {
            Observation::failed(Code::NO_INTERFACE, "the kernel shows only loopback")
        } else {
            Observation::failed(
                Code::NO_CABLE,
                format!("no carrier on {}", names.join(", ")),
            )
        }
    }

    pub(super) fn address(&self, target: Option<IpAddr>) -> Observation {
        if target.is_some_and(|t| t.is_loopback()) {
            return Observation::ok(Rung::Address, "loopback");
        }
        let outer = self.interfaces.iter().filter(|i| !i.loopback && i.carrier);
        let addresses: Vec<_> = outer.flat_map(|i| &i.addresses).map(|(a, _)| *a).collect();
        if let Some(global) = addresses.iter().find(|a| !is_link_local(**a)) {
            return Observation::ok(Rung::Address, global.to_string());
        }
        match addresses.first() {
            Some(local) => Observation::failed(Code::LINK_LOCAL_ONLY, format!("only {local}")),
            None => Observation::failed(Code::NO_ADDRESS, "carrier, but no address"),
        }
    }

    pub(super) fn gateway(&self, target: Option<IpAddr>, answers: Option<bool>) -> Observation {
        if let Some(target) = target
            && (target.is_loopback() || self.interfaces.iter().any(|i| i.reaches(target)))
        {
            return Observation::ok(Rung::Gateway, format!("not needed to reach {target}"));
        }
        let Some(Gateway { address, interface }) = &self.gateway else {
            return Observation::failed(Code::NO_GATEWAY, "no default route");
        };
        match answers {
            Some(true) => Observation::ok(Rung::Gateway, format!("{address} answers")),
            None => Observation::ok(Rung::Gateway, format!("default route by {address}")),
            Some(false) => Observation::failed(
                Code::GATEWAY_SILENT,
                format!("{address} on {interface} does not answer"),
            ),
        }
    }
}

impl Interface {
    /// The own address from which a neighbour is asked.
    fn speaks_to(&self, neighbour: IpAddr) -> Option<IpAddr> {
        let own = self.addresses.iter();
        let near = own.clone().find(|(a, p)| same_network(*a, neighbour, *p));
        let any = own
            .clone()
            .find(|(a, _)| a.is_ipv4() == neighbour.is_ipv4());
        near.or(any).map(|(address, _)| *address)
    }

    fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|(a, _)| *a == address)
    }

    fn reaches(&self, target: IpAddr) -> bool {
        self.addresses
            .iter()
            .any(|(own, prefix)| same_network(*own, target, *prefix))
    }
}

/// Addresses at which customers on the LAN may reach the box. Link-local IPv6 is left out: it
/// means nothing without the reader's own interface.
pub fn lan_addresses() -> Vec<IpAddr> {
    let network = Network::read();
    let of = |loopback| {
        let interfaces = network
            .interfaces
            .iter()
            .filter(move |i| i.loopback == loopback);
        let addresses = interfaces.flat_map(|i| &i.addresses).map(|(a, _)| *a);
        addresses
            .filter(|a| !matches!(a, IpAddr::V6(_) if is_link_local(*a)))
            .collect::<Vec<_>>()
    };
    // Loopback counts where there is nothing else, or the client is on the same machine.
    let mut addresses = of(false);
    addresses.extend(of(true));
    addresses
}

fn interfaces(if_inet6: &str) -> Vec<Interface> {
    let mut found: Vec<Interface> = Vec::new();
    let Ok(addresses) = nix::ifaddrs::getifaddrs() else {
        return found;
    };
    for entry in addresses {
        let name = entry.interface_name;
        let known = found.iter().position(|i| i.name == name);
        let index = known.unwrap_or_else(|| {
            found.push(Interface {
                // Up, and the driver sees the other end.
                carrier: entry.flags.contains(InterfaceFlags::IFF_RUNNING),
                loopback: entry.flags.contains(InterfaceFlags::IFF_LOOPBACK),
                addresses: Vec::new(),
                taken: taken(if_inet6, &name),
                link: None,
                name,
            });
            found.len() - 1
        });
        let address = entry.address.as_ref().and_then(ip_of);
        let mask = entry.netmask.as_ref().and_then(ip_of);
        if let Some(address) = address {
            let prefix = mask.map_or(0, prefix_len);
            found[index].addresses.push((address, prefix));
        }
        let link = entry.address.as_ref().and_then(|a| a.as_link_addr());
        if let Some(link) = link.filter(|link| link.halen() == 6) {
            found[index].link = Some(*link);
        }
    }
    // The kernel lists in the order in which addresses came.
    for interface in &mut found {
        interface.addresses.sort_unstable();
    }
    found
}

/// An address of `interface` in `/proc/net/if_inet6` for which duplicate address detection failed.
fn taken(if_inet6: &str, interface: &str) -> Option<Ipv6Addr> {
    /// `IFA_F_DADFAILED` of `linux/if_addr.h`.
    const FAILED: u8 = 0x08;
    if_inet6.lines().find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let (address, flags, name) = (fields.first()?, fields.get(4)?, fields.get(5)?);
        let bits = u128::from_str_radix(address, 16).ok()?;
        let failed = u8::from_str_radix(flags, 16).ok()? & FAILED != 0;
        (failed && *name == interface).then(|| Ipv6Addr::from_bits(bits))
    })
}

fn ip_of(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(IpAddr::V4(v4.ip()));
    }
    address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()))
}

fn prefix_len(mask: IpAddr) -> u8 {
    let ones = match mask {
        IpAddr::V4(v4) => v4.to_bits().leading_ones(),
        IpAddr::V6(v6) => v6.to_bits().leading_ones(),
    };
    u8::try_from(ones).unwrap_or(0)
}

fn same_network(own: IpAddr, other: IpAddr, prefix: u8) -> bool {
    // A prefix of nothing or of a single host says nothing about neighbours.
    match (own, other) {
        (IpAddr::V4(a), IpAddr::V4(b)) if (1..=32).contains(&prefix) => {
            (a.to_bits() ^ b.to_bits()) >> (32 - prefix) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) if (1..=128).contains(&prefix) => {
            (a.to_bits() ^ b.to_bits()) >> (128 - prefix) == 0
        }
        _ => false,
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// The gateway of the default route in `/proc/net/route`, else of `/proc/net/ipv6_route`.
fn default_gateway(route: &str, ipv6_route: &str) -> Option<Gateway> {
    let v4 = route.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let (destination, gateway, mask) = (fields.get(1)?, fields.get(2)?, fields.get(7)?);
        if *destination != "00000000" || *mask != "00000000" || *gateway == "00000000" {
            return None;
        }
        // The kernel prints the address as it lies in memory.
        let bytes = u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes();
        Some(Gateway {
            address: IpAddr::V4(Ipv4Addr::from(bytes)),
            interface: (*fields.first()?).to_owned(),
        })
    });
    v4.or_else(|| {
        ipv6_route.lines().find_map(|line| {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            let (destination, prefix, gateway) = (fields.first()?, fields.get(1)?, fields.get(4)?);
            let default = destination.bytes().all(|b| b == b'0') && *prefix == "00";
            let bits = u128::from_str_radix(gateway, 16).ok()?;
            (default && bits != 0).then(|| Gateway {
                address: IpAddr::V6(Ipv6Addr::from_bits(bits)),
                interface: fields.get(9).copied().unwrap_or_default().to_owned(),
            })
        })
    })
}

/// Whether a neighbour answers ARP.
async fn answers(gateway: Ipv4Addr) -> bool {
    if let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) {
        let _ = socket.send_to(&[0], SocketAddr::from((gateway, DISCARD_PORT)));
    }
    let complete = || {
        let table = std::fs::read_to_string("/proc/net/arp").unwrap_or_default();
        in_arp_table(&table, gateway)
    };
    tokio::time::timeout(NEIGHBOUR, async {
        while !complete() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .is_ok()
}

fn in_arp_table(table: &str, neighbour: Ipv4Addr) -> bool {
    let neighbour = neighbour.to_string();
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_ascii_whitespace();
        let address = fields.next();
        let flags = fields.nth(1);
        address == Some(&neighbour) && flags.is_some_and(|f| f != "0x0")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(super) fn network(
        carrier: bool,
        addresses: &[(&str, u8)],
        gateway: Option<&str>,
    ) -> Network {
        let addresses = addresses.iter().map(|(a, p)| (a.parse().unwrap(), *p));
        Network {
            interfaces: vec![Interface {
                name: "eth0".to_owned(),
                carrier,
                loopback: false,
                addresses: addresses.collect(),
                taken: None,
                link: None,
            }],
            gateway: gateway.map(|address| Gateway {
                address: address.parse().unwrap(),
                interface: "eth0".to_owned(),
            }),
        }
    }

    #[test]
    fn each_missing_piece_has_its_code() {
        let code = |o: Observation| o.code;
        let bare = Network {
            interfaces: Vec::new(),
            gateway: None,
        };
        let unplugged = network(false, &[], None);
        let silent = network(true, &[], None);
        let made_up = network(true, &[("169.254.1.2", 16), ("fe80::1", 64)], None);
        let trapped = network(true, &[("192.0.2.7", 24)], None);

        assert_eq!(code(bare.link(None)), Some(Code::NO_INTERFACE));
        assert_eq!(code(unplugged.link(None)), Some(Code::NO_CABLE));
        assert_eq!(code(silent.link(None)), None);
        assert_eq!(code(silent.address(None)), Some(Code::NO_ADDRESS));
        assert_eq!(code(made_up.address(None)), Some(Code::LINK_LOCAL_ONLY));
        assert_eq!(code(trapped.address(None)), None);
        assert_eq!(code(trapped.gateway(None, None)), Some(Code::NO_GATEWAY));
        let neighbour = Some("192.0.2.9".parse().unwrap());
        assert_eq!(code(trapped.gateway(neighbour, None)), None);
        let routed = network(true, &[("192.0.2.7", 24)], Some("192.0.2.1"));
        assert_eq!(code(routed.gateway(None, Some(true))), None);
        assert_eq!(
            code(routed.gateway(None, Some(false))),
            Some(Code::GATEWAY_SILENT)
        );
    }

    #[test]
    fn a_cloud_on_this_machine_needs_no_cable() {
        let unplugged = network(false, &[], None);
        let loopback = Some("127.0.0.1".parse().unwrap());

        assert_eq!(unplugged.link(loopback).code, None);
        assert_eq!(unplugged.address(loopback).code, None);
    }

    #[test]
    fn the_default_route_is_read_from_the_kernels_tables() {
        let v4 = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
                  eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0\n\
                  eth0 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n";
        let v6 = format!(
            "{:032} 00 {:032} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth0\n",
            0, 0
        );

        let at = |gateway: Option<Gateway>| {
            let gateway = gateway.unwrap();
            (gateway.address.to_string(), gateway.interface)
        };

        assert_eq!(
            at(default_gateway(v4, "")),
            ("192.0.2.1".into(), "eth0".into())
        );
        assert_eq!(
            at(default_gateway("", &v6)),
            ("fe80::1".into(), "eth0".into())
        );
        assert_eq!(default_gateway("x\ny z", "garbage"), None);
    }

    #[test]
    fn an_address_that_somebody_else_has_is_read_from_the_kernels_table() {
        let table = "fe800000000000000000000000000001 02 40 20 80     eth0\n\
                     20010db8000000000000000000000007 02 40 00 48     eth0\n";

        assert_eq!(taken(table, "eth0"), Some("2001:db8::7".parse().unwrap()));
        assert_eq!(taken(table, "eth1"), None);
        assert_eq!(taken("garbage x", "eth0"), None);
    }

    #[test]
    fn an_incomplete_neighbour_does_not_answer() {
        let table = "IP address HW type Flags HW address Mask Device\n\
                     192.0.2.1 0x1 0x0 00:00:00:00:00:00 * eth0\n\
                     192.0.2.2 0x1 0x2 02:00:00:00:00:01 * eth0\n";

        assert!(!in_arp_table(table, "192.0.2.1".parse().unwrap()));
        assert!(in_arp_table(table, "192.0.2.2".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn no_table_panics(a in ".*", b in ".*") {
            let _ = default_gateway(&a, &b);
            let _ = taken(&a, &b);
            let _ = in_arp_table(&a, Ipv4Addr::LOCALHOST);
        }
    }
}
