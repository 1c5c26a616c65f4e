//! A box's own network settings: what somebody wants, and what became of it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::inventory::{BoxConfig, StaticNetwork};

/// DNS servers at the most.
pub const MAX_DNS: usize = 4;
/// The longest address of a proxy, in bytes.
pub const MAX_PROXY: usize = 1024;
/// The highest number of a VLAN (IEEE 802.1Q).
pub const MAX_VLAN: u16 = 4094;

/// A box's own network settings, always all of them. What is absent is left to the network: addresses
/// come by DHCP or announcements, names are looked up where those say.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSettings {
    /// Fixed addresses: one of each family at the most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<FixedAddress>,
    /// DNS servers, [`MAX_DNS`] at the most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// The VLAN that everything goes through, tagged; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// The customer's HTTP proxy, `http://[user:password@]host:port`; empty: none, whatever the
    /// box was prepared with; absent: what it was prepared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
}

/// One fixed address.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FixedAddress {
    /// The address.
    pub address: IpAddr,
    /// Length of the network's prefix in bits.
    pub prefix_len: u8,
    /// The gateway; absent: what is not on this network is not reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// A change of the settings that the cloud wants. A box tries each once, whatever becomes of it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NetworkWish {
    /// Rises with every change.
    pub change: u64,
    /// What is wanted; absent: what the box was prepared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<NetworkSettings>,
}

/// Who changed the settings.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkBy {
    /// An operator, through the desired state.
    Cloud,
    /// Somebody with the claim code, on the box's own page.
    Page,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkState {
    /// In force; goes back by itself where the cloud is not reached in time.
    Trial,
    /// In force for good: the cloud was reached with it.
    Kept,
    /// The settings before it are in force again.
    RolledBack,
    /// It was never in force.
    Refused,
}

/// The last change of a box's network settings.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NetworkReport {
    /// The number of the cloud's change; 0 for one that was made at the box.
    pub change: u64,
    /// Who made it.
    pub by: NetworkBy,
    /// What became of it.
    pub state: NetworkState,
    /// What it asked for, without the proxy's password; absent: what the box was prepared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<NetworkSettings>,
    /// Why it is not in force; empty where it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// How long a trial still has, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_secs: Option<u64>,
}

/// A rule that settings break.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// Two addresses of a family.
    #[error("more than one {0} address")]
    Doubled(&'static str),
    /// No address that a machine can have.
    #[error("{0} is no address that a box can have")]
    Address(IpAddr),
    /// A prefix that is none.
    #[error("a prefix of {0} bits does not fit {1}")]
    Prefix(u8, IpAddr),
    /// The first or last address of the network, which belong to nobody.
    #[error("{0} is the network's own or its broadcast address")]
    Edge(IpAddr),
    /// A gateway that cannot be reached.
    #[error("the gateway {0} is not a neighbour of {1}")]
    Gateway(IpAddr, IpAddr),
    /// Too many DNS servers.
    #[error("{0} DNS servers; at most {MAX_DNS}")]
    TooManyDns(usize),
    /// Not an address of a server.
    #[error("{0} is no address of a DNS server")]
    Dns(IpAddr),
    /// No VLAN has that number.
    #[error("VLAN {0}; 1 to {MAX_VLAN}")]
    Vlan(u16),
    /// Not a proxy.
    #[error("not a proxy: expected http://[user:password@]host:port")]
    Proxy,
}

impl NetworkSettings {
    /// What a box was prepared with. Its proxy stands elsewhere: the settings leave it as it is.
    #[must_use]
    pub fn prepared(config: &BoxConfig) -> Self {
        let fixed = |network: &StaticNetwork| Self {
            addresses: vec![FixedAddress {
                address: network.address,
                prefix_len: network.prefix_len,
                gateway: network.gateway,
            }],
            dns: network.dns.clone(),
            ..Self::default()
        };
        let prepared = config.static_network.as_ref().map(fixed);
        Self {
            // An order's answer is 0 where frames are not tagged.
            vlan: config.vlan.filter(|vlan| *vlan != 0),
            ..prepared.unwrap_or_default()
        }
    }

    /// Whether they say anything of addresses, names or VLAN: whether the machine is touched.
    #[must_use]
    pub fn touches_machine(&self) -> bool {
        !self.addresses.is_empty() || !self.dns.is_empty() || self.vlan.is_some()
    }

    /// Checks what the types leave open.
    ///
    /// # Errors
    ///
    /// The first [`NetworkError`].
    pub fn check(&self) -> Result<(), NetworkError> {
        for (family, v4) in [("IPv4", true), ("IPv6", false)] {
            let of = self.addresses.iter();
            if of.filter(|a| a.address.is_ipv4() == v4).count() > 1 {
                return Err(NetworkError::Doubled(family));
            }
        }
        self.addresses.iter().try_for_each(FixedAddress::check)?;
        if self.dns.len() > MAX_DNS {
            return Err(NetworkError::TooManyDns(self.dns.len()));
        }
        if let Some(dns) = self.dns.iter().find(|dns| !is_host(**dns)) {
            return Err(NetworkError::Dns(*dns));
        }
        match self.vlan {
            Some(vlan) if !(1..=MAX_VLAN).contains(&vlan) => return Err(NetworkError::Vlan(vlan)),
            _ => {}
        }
        match &self.proxy {
            Some(proxy) if !proxy.is_empty() && !is_proxy(proxy) => Err(NetworkError::Proxy),
            _ => Ok(()),
        }
    }

    /// The same without the proxy's log-in, to be shown.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        let proxy = self
            .proxy
            .as_ref()
            .map(|proxy| match proxy.rsplit_once('@') {
                Some((_, host)) => format!("http://{host}"),
                None => proxy.clone(),
            });
        Self {
            proxy,
            ..self.clone()
        }
    }
}

/// What a person reads.
impl std::fmt::Display for NetworkSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        for fixed in &self.addresses {
            parts.push(format!("{}/{}", fixed.address, fixed.prefix_len));
            parts.extend(fixed.gateway.map(|gateway| format!("gateway {gateway}")));
        }
        if parts.is_empty() {
            parts.push("addresses by DHCP".to_owned());
        }
        parts.extend(self.dns.iter().map(|dns| format!("DNS {dns}")));
        parts.extend(self.vlan.map(|vlan| format!("VLAN {vlan}")));
        match self.without_secrets().proxy.as_deref() {
            Some("") => parts.push("no proxy".to_owned()),
            Some(proxy) => parts.push(format!("proxy {proxy}")),
            None => {}
        }
        f.write_str(&parts.join(", "))
    }
}

impl FixedAddress {
    fn check(&self) -> Result<(), NetworkError> {
        let Self {
            address,
            prefix_len,
            gateway,
        } = *self;
        if !is_host(address) {
            return Err(NetworkError::Address(address));
        }
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if !(1..=bits).contains(&prefix_len) {
            return Err(NetworkError::Prefix(prefix_len, address));
        }
        if is_edge(address, prefix_len) {
            return Err(NetworkError::Edge(address));
        }
        match gateway {
            Some(gateway) if !self.reaches(gateway) => Err(NetworkError::Gateway(gateway, address)),
            _ => Ok(()),
        }
    }

    fn reaches(&self, gateway: IpAddr) -> bool {
        if gateway == self.address {
            return false;
        }
        match (self.address, gateway) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differs = own.to_bits() ^ other.to_bits();
                is_host(gateway)
                    && !is_edge(gateway, self.prefix_len)
                    && differs.leading_zeros() >= u32::from(self.prefix_len)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differs = own.to_bits() ^ other.to_bits();
                let near = differs.leading_zeros() >= u32::from(self.prefix_len);
                other.is_unicast_link_local() || (is_host(gateway) && near)
            }
            _ => false,
        }
    }
}

/// Whether a machine can have the address, and others reach it there.
fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            let reserved = first == 0 || first >= 240;
            let near = v4.is_loopback() || v4.is_link_local();
            !reserved && !near && !v4.is_multicast()
        }
        IpAddr::V6(v6) => {
            let mapped = v6.to_ipv4_mapped().is_some() || v6.is_unspecified();
            let near = v6.is_loopback() || v6.is_unicast_link_local();
            !mapped && !near && !v6.is_multicast()
        }
    }
}

/// Whether it is the first or the last address of an IPv4 network, where that has such (RFC 3021).
fn is_edge(address: IpAddr, prefix_len: u8) -> bool {
    let IpAddr::V4(v4) = address else {
        return false;
    };
    if prefix_len > 30 {
        return false;
    }
    let host = u32::MAX >> prefix_len;
    let own = v4.to_bits() & host;
    own == 0 || own == host
}

/// Whether the text has the form of a proxy; whoever uses it parses it whole.
fn is_proxy(text: &str) -> bool {
    let host = text.strip_prefix("http://").map(|rest| {
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        rest.rsplit_once('@').map_or(rest, |(_, host)| host)
    });
    text.len() <= MAX_PROXY
        && text.bytes().all(|b| b.is_ascii_graphic())
        && host.is_some_and(|host| {
            !host.is_empty() && !host.starts_with(':') && !host.contains(['/', '?', '#'])
        })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn fixed(address: &str, prefix_len: u8, gateway: Option<&str>) -> NetworkSettings {
        NetworkSettings {
            addresses: vec![FixedAddress {
                address: address.parse().expect("an address"),
                prefix_len,
                gateway: gateway.map(|text| text.parse().expect("an address")),
            }],
            ..NetworkSettings::default()
        }
    }

    #[test]
    fn settings_that_a_box_can_have_pass() {
        for (address, prefix, gateway) in [
            ("192.0.2.7", 24, Some("192.0.2.1")),
            ("10.1.2.3", 8, None),
            ("192.0.2.0", 31, Some("192.0.2.1")),
            ("192.0.2.9", 32, None),
            ("2001:db8::7", 64, Some("2001:db8::1")),
            ("2001:db8::7", 64, Some("fe80::1")),
            ("fd00::7", 48, None),
        ] {
            let settings = fixed(address, prefix, gateway);
            assert_eq!(settings.check(), Ok(()), "{settings}");
        }
        assert_eq!(NetworkSettings::default().check(), Ok(()));
    }

    #[test]
    fn garbage_addresses_are_refused() {
        for (address, prefix, gateway) in [
            ("0.0.0.0", 24, None),
            ("127.0.0.1", 8, None),
            ("224.0.0.1", 4, None),
            ("255.255.255.255", 32, None),
            ("169.254.3.4", 16, None),
            ("192.0.2.7", 0, None),
            ("192.0.2.7", 33, None),
            ("192.0.2.0", 24, None),
            ("192.0.2.255", 24, None),
            ("192.0.2.7", 24, Some("192.0.2.7")),
            ("192.0.2.7", 24, Some("192.0.3.1")),
            ("192.0.2.7", 24, Some("192.0.2.255")),
            ("192.0.2.7", 24, Some("2001:db8::1")),
            ("192.0.2.7", 32, Some("192.0.2.1")),
            ("::", 64, None),
            ("::1", 128, None),
            ("fe80::1", 64, None),
            ("ff02::1", 64, None),
            ("::ffff:192.0.2.7", 96, None),
            ("2001:db8::7", 129, None),
            ("2001:db8::7", 64, Some("2001:db8:1::1")),
        ] {
            let settings = fixed(address, prefix, gateway);
            assert!(settings.check().is_err(), "{settings}");
        }
        let with = |change: fn(&mut NetworkSettings)| {
            let mut settings = NetworkSettings::default();
            change(&mut settings);
            settings
        };
        for settings in [
            with(|s| s.vlan = Some(0)),
            with(|s| s.vlan = Some(4095)),
            with(|s| s.dns = vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)]),
            with(|s| s.dns = vec![IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53)); MAX_DNS + 1]),
            with(|s| s.proxy = Some("proxy:3128".to_owned())),
            with(|s| s.proxy = Some("http://".to_owned())),
            with(|s| s.proxy = Some("http://a b".to_owned())),
            with(|s| s.proxy = Some("http://p\r\nx: y".to_owned())),
            with(|s| s.proxy = Some(format!("http://{}", "p".repeat(MAX_PROXY)))),
            with(|s| {
                let one = fixed("192.0.2.7", 24, None).addresses;
                s.addresses = [one.clone(), one].concat();
            }),
        ] {
            assert!(settings.check().is_err(), "{settings:?}");
        }
        for text in [
            r#"{"addresses":[{"address":"192.0.2.256","prefix_len":24}]}"#,
            r#"{"addresses":[{"address":"192.0.2.7; reboot","prefix_len":24}]}"#,
            r#"{"vlan":70000}"#,
            r#"{"gateway":"192.0.2.1"}"#,
        ] {
            let read = serde_json::from_str::<NetworkSettings>(text);
            assert!(read.is_err(), "{text}");
        }
    }

    #[test]
    fn a_proxys_password_is_not_shown() {
        let mut settings = fixed("192.0.2.7", 24, Some("192.0.2.1"));
        settings.vlan = Some(7);
        settings.proxy = Some("http://ada:love@lace@proxy.example:3128".to_owned());

        assert_eq!(settings.check(), Ok(()));
        assert_eq!(
            settings.to_string(),
            "192.0.2.7/24, gateway 192.0.2.1, VLAN 7, proxy http://proxy.example:3128"
        );
    }
}
