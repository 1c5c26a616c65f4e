//! The form for network settings: its fields, and what they mean.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use longhaul_protocol::network_settings::{FixedAddress, NetworkSettings};

use crate::proxy::Proxy;

/// Every field that is taken, and nothing else.
const FIELDS: [&str; 11] = [
    "how", "address", "mask", "gateway", "address6", "gateway6", "dns", "vlan", "proxy", "claim",
    "token",
];

/// What somebody sent.
#[derive(Clone, Debug, Default)]
pub struct Form(BTreeMap<&'static str, String>);

/// What is wrong with which field.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wrong {
    /// Which field.
    pub field: &'static str,
    /// What to do about it.
    pub text: String,
}

impl Form {
    /// Reads the body of a request; fields that are not of the form are left out.
    pub fn parse(body: &[u8]) -> Self {
        let pairs = url::form_urlencoded::parse(body);
        let known = pairs.filter_map(|(name, value): (Cow<'_, str>, Cow<'_, str>)| {
            let field = FIELDS.into_iter().find(|field| *field == name)?;
            Some((field, value.trim().to_owned()))
        });
        Self(known.collect())
    }

    /// A form that shows what is in force.
    pub fn of(settings: &NetworkSettings, prepared: bool) -> Self {
        let mut form = Self::default();
        let how = match (prepared, settings.addresses.is_empty()) {
            (true, _) => "prepared",
            (false, true) => "dhcp",
            (false, false) => "fixed",
        };
        form.0.insert("how", how.to_owned());
        for fixed in &settings.addresses {
            let gateway = fixed.gateway.map(|g| g.to_string()).unwrap_or_default();
            if fixed.address.is_ipv4() {
                form.0.insert("address", fixed.address.to_string());
                form.0.insert("mask", fixed.prefix_len.to_string());
                form.0.insert("gateway", gateway);
            } else {
                let address = format!("{}/{}", fixed.address, fixed.prefix_len);
                form.0.insert("address6", address);
                form.0.insert("gateway6", gateway);
            }
        }
        let dns: Vec<_> = settings.dns.iter().map(ToString::to_string).collect();
        form.0.insert("dns", dns.join(", "));
        let vlan = settings.vlan.map(|vlan| vlan.to_string());
        form.0.insert("vlan", vlan.unwrap_or_default());
        form
    }

    /// What a field holds; empty where it was not sent.
    pub fn get(&self, field: &str) -> &str {
        self.0.get(field).map_or("", String::as_str)
    }

    /// The settings that are wanted; `None` for those that the box was prepared with.
    ///
    /// # Errors
    ///
    /// Every field that is wrong.
    pub fn settings(&self) -> Result<Option<NetworkSettings>, Vec<Wrong>> {
        let mut wrong = Vec::new();
        let mut settings = NetworkSettings::default();
        match self.get("how") {
            "prepared"
                if ["dns", "vlan", "proxy"]
                    .iter()
                    .all(|field| self.get(field).is_empty()) =>
            {
                return Ok(None);
            }
            "prepared" => say(
                &mut wrong,
                "how",
                "As the box was prepared means everything: choose another, or leave DNS servers, VLAN and proxy empty.",
            ),
            "dhcp" => {}
            "fixed" => self.addresses(&mut settings, &mut wrong),
            _ => say(
                &mut wrong,
                "how",
                "Choose where the box gets its address from.",
            ),
        }
        let servers = self.get("dns").split([',', ' ', ';']);
        for server in servers.filter(|text| !text.is_empty()) {
            match server.parse() {
                Ok(server) => settings.dns.push(server),
                Err(_) => say(
                    &mut wrong,
                    "dns",
                    "Write addresses such as 192.168.1.1, with commas between them.",
                ),
            }
        }
        match self.get("vlan") {
            "" => {}
            text => match text.parse() {
                Ok(vlan) => settings.vlan = Some(vlan),
                Err(_) => say(
                    &mut wrong,
                    "vlan",
                    "Write a number from 1 to 4094, or nothing.",
                ),
            },
        }
        match self.get("proxy") {
            "" => {}
            "none" => settings.proxy = Some(String::new()),
            text if text.parse::<Proxy>().is_ok() => settings.proxy = Some(text.to_owned()),
            _ => say(
                &mut wrong,
                "proxy",
                "Write it as http://proxy.example:3128, with user:password@ before the name where it wants a log-in.",
            ),
        }
        if wrong.is_empty()
            && let Err(error) = settings.check()
        {
            use longhaul_protocol::network_settings::NetworkError as E;
            let field = match error {
                E::Dns(_) | E::TooManyDns(_) => "dns",
                E::Vlan(_) => "vlan",
                E::Proxy => "proxy",
                E::Gateway(gateway, _) if gateway.is_ipv6() => "gateway6",
                E::Gateway(..) => "gateway",
                E::Address(ip) | E::Prefix(_, ip) | E::Edge(ip) if ip.is_ipv6() => "address6",
                _ => "address",
            };
            say(&mut wrong, field, &format!("This cannot be: {error}."));
        }
        if wrong.is_empty() {
            Ok(Some(settings))
        } else {
            Err(wrong)
        }
    }

    fn addresses(&self, settings: &mut NetworkSettings, wrong: &mut Vec<Wrong>) {
        let (address, address6) = (self.get("address"), self.get("address6"));
        if address.is_empty() && address6.is_empty() {
            say(
                wrong,
                "address",
                "Write the address that the box shall have, such as 192.168.1.40.",
            );
        }
        if !address.is_empty() {
            let v4 = address.parse::<std::net::Ipv4Addr>();
            if v4.is_err() {
                say(
                    wrong,
                    "address",
                    "Write four numbers with dots, such as 192.168.1.40.",
                );
            }
            let prefix = prefix_of(self.get("mask"));
            if prefix.is_none() {
                say(wrong, "mask", "Write it as 255.255.255.0, or as 24.");
            }
            let gateway = self.gateway("gateway", wrong);
            if let (Ok(v4), Some(prefix_len)) = (v4, prefix) {
                settings.addresses.push(FixedAddress {
                    address: IpAddr::V4(v4),
                    prefix_len,
                    gateway,
                });
            }
        }
        if !address6.is_empty() {
            let parts = address6.split_once('/');
            let v6 = parts.and_then(|(address, prefix)| {
                Some((
                    address.parse::<std::net::Ipv6Addr>().ok()?,
                    prefix.parse().ok()?,
                ))
            });
            let gateway = self.gateway("gateway6", wrong);
            match v6 {
                Some((v6, prefix_len)) => settings.addresses.push(FixedAddress {
                    address: IpAddr::V6(v6),
                    prefix_len,
                    gateway,
                }),
                None => say(
                    wrong,
                    "address6",
                    "Write it with its prefix, such as 2001:db8::40/64.",
                ),
            }
        }
    }

    fn gateway(&self, field: &'static str, wrong: &mut Vec<Wrong>) -> Option<IpAddr> {
        let text = self.get(field);
        if text.is_empty() {
            return None;
        }
        let parsed = text.parse().ok();
        if parsed.is_none() {
            say(
                wrong,
                field,
                "Write the router's address, such as 192.168.1.1, or nothing.",
            );
        }
        parsed
    }
}

fn say(wrong: &mut Vec<Wrong>, field: &'static str, text: &str) {
    wrong.push(Wrong {
        field,
        text: text.to_owned(),
    });
}

/// The length of a prefix, from `24`, `/24` or `255.255.255.0`.
fn prefix_of(text: &str) -> Option<u8> {
    if let Ok(mask) = text.parse::<std::net::Ipv4Addr>() {
        let bits = mask.to_bits();
        let ones = bits.leading_ones();
        let whole = bits.checked_shl(ones).unwrap_or(0) == 0;
        return u8::try_from(ones).ok().filter(|_| whole);
    }
    text.strip_prefix('/').unwrap_or(text).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wrong(body: &str) -> Vec<&'static str> {
        let wrong = Form::parse(body.as_bytes()).settings().unwrap_err();
        wrong.into_iter().map(|wrong| wrong.field).collect()
    }

    #[test]
    fn a_person_writes_addresses_as_they_know_them() {
        let form = Form::parse(
            b"how=fixed&address=192.168.1.40+&mask=255.255.255.0&gateway=192.168.1.1\
              &dns=192.168.1.1%2C+9.9.9.9&vlan=7&proxy=none&address6=&other=x",
        );

        let settings = form.settings().unwrap().unwrap();

        assert_eq!(
            settings.to_string(),
            "192.168.1.40/24, gateway 192.168.1.1, DNS 192.168.1.1, DNS 9.9.9.9, VLAN 7, no proxy"
        );
        let shown = Form::of(&settings, false);
        assert_eq!(shown.get("how"), "fixed");
        assert_eq!(shown.get("mask"), "24");
        assert_eq!(Form::parse(b"how=prepared&address=x").settings(), Ok(None));
        let dhcp = Form::parse(b"how=dhcp&address=ignored").settings();
        assert_eq!(dhcp, Ok(Some(NetworkSettings::default())));
    }

    #[test]
    fn every_field_that_is_wrong_is_named() {
        assert_eq!(wrong("how=prepared&proxy=http://p:1"), ["how"]);
        assert_eq!(wrong("how=fixed"), ["address"]);
        assert_eq!(wrong(""), ["how"]);
        assert_eq!(
            wrong("how=fixed&address=1.2.3&mask=255.0.255.0&gateway=x&dns=y&vlan=z&proxy=w"),
            ["address", "mask", "gateway", "dns", "vlan", "proxy"]
        );
        let base = "how=fixed&address=192.168.1.40&mask=24";
        assert_eq!(wrong(&format!("{base}&gateway=192.168.2.1")), ["gateway"]);
        assert_eq!(wrong("how=fixed&address=192.168.1.0&mask=24"), ["address"]);
        assert_eq!(wrong("how=fixed&address6=2001:db8::1"), ["address6"]);
        assert_eq!(wrong("how=dhcp&vlan=9999"), ["vlan"]);
    }

    proptest! {
        #[test]
        fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Form::parse(&body).settings();
        }

        #[test]
        fn no_form_panics(how in "fixed|dhcp", a in ".{0,40}", m in ".{0,20}", g in ".{0,40}") {
            let mut body = url::form_urlencoded::Serializer::new(String::new());
            for (name, value) in [("how", &how), ("address", &a), ("address6", &a), ("mask", &m), ("gateway", &g), ("gateway6", &g), ("dns", &g), ("vlan", &m)] {
                body.append_pair(name, value);
            }
            if let Ok(Some(settings)) = Form::parse(body.finish().as_bytes()).settings() {
                prop_assert!(settings.check().is_ok());
            }
        }
    }
}
