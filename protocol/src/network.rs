//! What a customer says of their network before a box is shipped: an order's questionnaire.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::ids::OrderId;
use crate::inventory::StaticNetwork;
use crate::value::UnixMillis;

/// DNS servers of a static network at the most.
pub const MAX_DNS: usize = 4;
/// Ways out at the most.
pub const MAX_EGRESS: usize = 32;
/// The longest name of a host, in bytes (RFC 1035 section 2.3.4).
const MAX_HOST: usize = 253;

/// The answers; what is absent was not answered.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkAnswers {
    /// How the box gets its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Addressing>,
    /// The VLAN that the box's port is in, where frames are tagged: 1 to 4094; 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// The HTTP proxy, `http://host:port`; empty for none. Its log-in is set on the box: an order is
    /// no place for a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// Whether the network asks for 802.1X.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dot1x: Option<bool>,
    /// Where the box may connect to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<Egress>>,
}

/// How a box gets its address.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Addressing {
    /// The network gives it one.
    Dhcp,
    /// It is given here.
    Static(StaticNetwork),
}

/// A way out that is open: to one host, or to any.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// Name or address; `*` for any.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// An answer that cannot be.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct BadAnswer {
    /// Which one.
    pub field: &'static str,
    /// What it has to be.
    pub rule: String,
}

fn bad(field: &'static str, rule: impl Into<String>) -> BadAnswer {
    BadAnswer {
        field,
        rule: rule.into(),
    }
}

impl NetworkAnswers {
    /// The questions, as the answers are called.
    pub const FIELDS: [&'static str; 5] = ["address", "vlan", "proxy", "dot1x", "egress"];

    /// Whether nothing is answered.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether each answer can be.
    ///
    /// # Errors
    ///
    /// The first that cannot.
    pub fn check(&self) -> Result<(), BadAnswer> {
        if let Some(Addressing::Static(network)) = &self.address {
            check_static(network)?;
        }
        if self.vlan.is_some_and(|vlan| vlan > 4094) {
            return Err(bad("vlan", "1 to 4094, or 0 for none"));
        }
        if let Some(proxy) = self.proxy.as_deref().filter(|proxy| !proxy.is_empty()) {
            check_proxy(proxy)?;
        }
        if let Some(egress) = &self.egress {
            if egress.len() > MAX_EGRESS {
                return Err(bad("egress", format!("{MAX_EGRESS} ways out at the most")));
            }
            for Egress { host, port } in egress {
                if *port == 0 || !(host == "*" || is_host(host)) {
                    return Err(bad("egress", "a host, or *, and a port from 1 to 65535"));
                }
            }
        }
        Ok(())
    }
}

fn check_static(network: &StaticNetwork) -> Result<(), BadAnswer> {
    let own = network.address;
    let bits = if own.is_ipv4() { 32 } else { 128 };
    let usable = |address: IpAddr| {
        !(address.is_loopback() || address.is_multicast() || address.is_unspecified())
    };
    if !usable(own) {
        return Err(bad("address", format!("{own} is no address of a box")));
    }
    if !(1..=bits).contains(&network.prefix_len) {
        return Err(bad("address", format!("prefix_len is 1 to {bits}")));
    }
    if let Some(gateway) = network.gateway {
        if !usable(gateway) || gateway == own {
            return Err(bad("address", format!("{gateway} is no gateway for {own}")));
        }
        let link_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if !link_local && !same_network(own, gateway, network.prefix_len) {
            let rule = format!(
                "{gateway} is not in the network of {own}/{}",
                network.prefix_len
            );
            return Err(bad("address", rule));
        }
    }
    if network.dns.len() > MAX_DNS || network.dns.iter().any(|dns| !usable(*dns)) {
        return Err(bad(
            "address",
            format!("dns has {MAX_DNS} servers at the most"),
        ));
    }
    Ok(())
}

fn same_network(own: IpAddr, other: IpAddr, prefix_len: u8) -> bool {
    match (own, other) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let shift = 32 - u32::from(prefix_len.min(32));
            (a.to_bits() ^ b.to_bits()).checked_shr(shift).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let shift = 128 - u32::from(prefix_len.min(128));
            (a.to_bits() ^ b.to_bits()).checked_shr(shift).unwrap_or(0) == 0
        }
        _ => false,
    }
}

fn check_proxy(text: &str) -> Result<(), BadAnswer> {
    let rule = || {
        bad(
            "proxy",
            "http://host:port, without a log-in: that is set on the box",
        )
    };
    let rest = text.strip_prefix("http://").ok_or_else(rule)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = rest.rsplit_once(':').ok_or_else(rule)?;
    let host = host
        .strip_prefix('[')
        .map_or(Some(host), |inner| inner.strip_suffix(']'))
        .ok_or_else(rule)?;
    let port: u16 = port.parse().map_err(|_| rule())?;
    if port == 0 || !is_host(host) {
        return Err(rule());
    }
    Ok(())
}

/// Whether a text is a host's name or address.
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    text.parse::<IpAddr>().is_ok() || (text.len() <= MAX_HOST && text.split('.').all(label))
}

/// An order for the factory; signed as a JWS by the cloud.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct OrderFile {
    /// Version of this format; see [`crate::envelope::VERSION`].
    pub v: u16,
    /// The order.
    pub order: OrderId,
    /// What is known of the customer's network.
    #[serde(default)]
    pub network: NetworkAnswers,
    /// When it was downloaded.
    pub made_at: UnixMillis,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(address: &str, prefix_len: u8, gateway: Option<&str>) -> NetworkAnswers {
        let parse = |text: &str| text.parse().expect("an address");
        NetworkAnswers {
            address: Some(Addressing::Static(StaticNetwork {
                address: parse(address),
                prefix_len,
                gateway: gateway.map(parse),
                dns: Vec::new(),
            })),
            ..NetworkAnswers::default()
        }
    }

    fn proxy(text: &str) -> NetworkAnswers {
        NetworkAnswers {
            proxy: Some(text.to_owned()),
            ..NetworkAnswers::default()
        }
    }

    #[test]
    fn answers_that_can_be_are_taken() {
        let good = [
            NetworkAnswers::default(),
            fixed("192.0.2.7", 24, Some("192.0.2.1")),
            fixed("192.0.2.7", 32, None),
            fixed("2001:db8::7", 64, Some("fe80::1")),
            proxy(""),
            proxy("http://proxy.example:3128"),
            proxy("http://[2001:db8::1]:3128/"),
        ];
        for answers in good {
            assert_eq!(answers.check(), Ok(()), "{answers:?}");
        }
    }

    #[test]
    fn answers_that_cannot_be_are_refused_by_name() {
        let egress = |host: &str, port| NetworkAnswers {
            egress: Some(vec![Egress {
                host: host.to_owned(),
                port,
            }]),
            ..NetworkAnswers::default()
        };
        let vlan = |vlan| NetworkAnswers {
            vlan: Some(vlan),
            ..NetworkAnswers::default()
        };
        let many = NetworkAnswers {
            egress: Some(vec![
                Egress {
                    host: "*".to_owned(),
                    port: 443
                };
                MAX_EGRESS + 1
            ]),
            ..NetworkAnswers::default()
        };
        let refused = [
            (fixed("127.0.0.1", 8, None), "address"),
            (fixed("192.0.2.7", 0, None), "address"),
            (fixed("192.0.2.7", 33, None), "address"),
            (fixed("192.0.2.7", 24, Some("192.0.3.1")), "address"),
            (fixed("192.0.2.7", 24, Some("192.0.2.7")), "address"),
            (fixed("192.0.2.7", 24, Some("2001:db8::1")), "address"),
            (vlan(4095), "vlan"),
            (proxy("proxy:3128"), "proxy"),
            (proxy("http://ada:secret@proxy:3128"), "proxy"),
            (proxy("http://proxy"), "proxy"),
            (proxy("http://[::1:3128"), "proxy"),
            (proxy("http://a b:1"), "proxy"),
            (egress("", 443), "egress"),
            (egress("a b", 443), "egress"),
            (egress("*", 0), "egress"),
            (many, "egress"),
        ];
        for (answers, field) in refused {
            assert_eq!(
                answers.check().map_err(|e| e.field),
                Err(field),
                "{answers:?}"
            );
        }
    }
}
