//! The lower rungs, from what the kernel says: link, address, gateway.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use longhaul_protocol::diag::{Code, Rung};
use nix::net::if_::InterfaceFlags;

use crate::agent::ladder::Observation;

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
}

/// The machine's network as the kernel shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Network {
    interfaces: Vec<Interface>,
    gateway: Option<IpAddr>,
}

impl Network {
    /// Looks at the machine.
    pub fn read() -> Self {
        Self {
            interfaces: interfaces(),
            gateway: default_gateway(
                &std::fs::read_to_string("/proc/net/route").unwrap_or_default(),
                &std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default(),
            ),
        }
    }

    /// The lower rungs of a way that was gone from `local` to the cloud: they hold.
    pub(super) fn proven(&self, local: IpAddr) -> Vec<Observation> {
        let through = self.interfaces.iter().find(|i| i.has(local));
        let name = through.map_or("unknown", |i| i.name.as_str());
        let (link, gateway) = if local.is_loopback() {
            (
                "the cloud is on this machine".to_owned(),
                "not needed".to_owned(),
            )
        } else {
            let gateway = match self.gateway {
                Some(gateway) => format!("default route by {gateway}"),
                None => "not needed".to_owned(),
            };
            (format!("through {name}"), gateway)
        };
        vec![
            Observation::ok(Rung::Link, link),
            Observation::ok(Rung::Address, format!("{local} on {name}")),
            Observation::ok(Rung::Gateway, gateway),
            Observation::ok(Rung::Dns, "the cloud's name resolves"),
            Observation::ok(Rung::Proxy, "none is configured"),
        ]
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

    pub(super) async fn gateway(&self, target: Option<IpAddr>) -> Observation {
        if let Some(target) = target
            && (target.is_loopback() || self.interfaces.iter().any(|i| i.reaches(target)))
        {
            return Observation::ok(Rung::Gateway, format!("not needed to reach {target}"));
        }
        let Some(gateway) = self.gateway else {
            return Observation::failed(Code::NO_GATEWAY, "no default route");
        };
        let IpAddr::V4(v4) = gateway else {
            // The kernel's table of IPv6 neighbours is not readable as a file.
            return Observation::ok(Rung::Gateway, format!("default route by {gateway}"));
        };
        if answers(v4).await {
            Observation::ok(Rung::Gateway, format!("{gateway} answers"))
        } else {
            Observation::failed(
                Code::GATEWAY_SILENT,
                format!("{gateway} does not answer ARP"),
            )
        }
    }
}

impl Interface {
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

fn interfaces() -> Vec<Interface> {
    let mut found: Vec<Interface> = Vec::new();
    let Ok(addresses) = nix::ifaddrs::getifaddrs() else {
        return found;
    };
    for entry in addresses {
        let name = entry.interface_name;
        let known = found.iter().position(|i| i.name == name);
        let index = known.unwrap_or_else(|| {
            found.push(Interface {
                carrier: has_carrier(&name),
                loopback: entry.flags.contains(InterfaceFlags::IFF_LOOPBACK),
                addresses: Vec::new(),
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
    }
    found
}

fn ip_of(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(IpAddr::V4(v4.ip()));
    }
    address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()))
}

fn has_carrier(name: &str) -> bool {
    let path = Path::new("/sys/class/net").join(name).join("carrier");
    std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
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
fn default_gateway(route: &str, ipv6_route: &str) -> Option<IpAddr> {
    let v4 = route.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let (destination, gateway, mask) = (fields.get(1)?, fields.get(2)?, fields.get(7)?);
        if *destination != "00000000" || *mask != "00000000" || *gateway == "00000000" {
            return None;
        }
        // The kernel prints the address as it lies in memory.
        let bytes = u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes();
        Some(IpAddr::V4(Ipv4Addr::from(bytes)))
    });
    v4.or_else(|| {
        ipv6_route.lines().find_map(|line| {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            let (destination, prefix, gateway) = (fields.first()?, fields.get(1)?, fields.get(4)?);
            let default = destination.bytes().all(|b| b == b'0') && *prefix == "00";
            let bits = u128::from_str_radix(gateway, 16).ok()?;
            (default && bits != 0).then(|| IpAddr::V6(Ipv6Addr::from_bits(bits)))
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

    fn network(carrier: bool, addresses: &[(&str, u8)], gateway: Option<&str>) -> Network {
        let addresses = addresses.iter().map(|(a, p)| (a.parse().unwrap(), *p));
        Network {
            interfaces: vec![Interface {
                name: "eth0".to_owned(),
                carrier,
                loopback: false,
                addresses: addresses.collect(),
            }],
            gateway: gateway.map(|g| g.parse().unwrap()),
        }
    }

    #[tokio::test]
    async fn each_missing_piece_has_its_code() {
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
        assert_eq!(code(trapped.gateway(None).await), Some(Code::NO_GATEWAY));
        let neighbour = Some("192.0.2.9".parse().unwrap());
        assert_eq!(code(trapped.gateway(neighbour).await), None);
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

        assert_eq!(default_gateway(v4, ""), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(default_gateway("", &v6), Some("fe80::1".parse().unwrap()));
        assert_eq!(default_gateway("x\ny z", "garbage"), None);
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
            let _ = in_arp_table(&a, Ipv4Addr::LOCALHOST);
        }
    }
}
