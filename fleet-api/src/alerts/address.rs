//! Where webhooks may go: whoever may add one must not reach what only the cloud can reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::{Host, Url};

/// Longest URL, in bytes.
const MAX_URL: usize = 2000;

/// Where webhooks may go.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Reach {
    /// Also to private networks, by the operator's own decision.
    pub private: bool,
    /// Also to this machine, and without TLS: for tests.
    pub loopback: bool,
}

/// Why a webhook may not go there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Not a URL that is taken.
    #[error("a webhook's URL is https://host[:port]/path without user name, at most 2000 bytes")]
    Url,
    /// The name does not resolve.
    #[error("{host} does not resolve")]
    Resolve {
        /// The host.
        host: String,
        /// Why.
        source: std::io::Error,
    },
    /// It leads to a place that is not public.
    #[error("{host} leads to {ip}, which is not a public address")]
    Private {
        /// The host.
        host: String,
        /// The address.
        ip: IpAddr,
    },
}

/// Reads a webhook's URL.
pub fn parse(text: &str, reach: Reach) -> Result<Url, AddressError> {
    let url = Url::parse(text).map_err(|_| AddressError::Url)?;
    let plain = reach.loopback && url.scheme() == "http";
    let named = url.username().is_empty() && url.password().is_none();
    if text.len() > MAX_URL || !(url.scheme() == "https" || plain) || !named {
        return Err(AddressError::Url);
    }
    match url.host() {
        Some(Host::Ipv4(ip)) => check(text, ip.into(), reach)?,
        Some(Host::Ipv6(ip)) => check(text, ip.into(), reach)?,
        Some(Host::Domain(name)) if !name.is_empty() => {}
        _ => return Err(AddressError::Url),
    }
    Ok(url)
}

/// Where the URL's host is, every address checked. The request goes to these and to no others: a name
/// that resolves to something else a moment later does not matter.
pub async fn resolve(url: &Url, reach: Reach) -> Result<Vec<SocketAddr>, AddressError> {
    let host = url.host_str().ok_or(AddressError::Url)?;
    let port = url.port_or_known_default().ok_or(AddressError::Url)?;
    // Brackets around an IPv6 address belong to the URL.
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let failed = |source| AddressError::Resolve {
        host: host.to_owned(),
        source,
    };
    let found: Vec<_> = tokio::net::lookup_host((name, port))
        .await
        .map_err(failed)?
        .collect();
    for address in &found {
        check(host, address.ip(), reach)?;
    }
    if found.is_empty() {
        return Err(failed(std::io::ErrorKind::NotFound.into()));
    }
    Ok(found)
}

fn check(host: &str, ip: IpAddr, reach: Reach) -> Result<(), AddressError> {
    let ip = match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    };
    let fits = match place(ip) {
        Place::Public => true,
        Place::Private => reach.private,
        Place::Loopback => reach.loopback,
        Place::Never => false,
    };
    if fits {
        return Ok(());
    }
    Err(AddressError::Private {
        host: host.to_owned(),
        ip,
    })
}

enum Place {
    Public,
    Private,
    Loopback,
    Never,
}

/// By the IANA special-purpose address registries (RFC 6890 and its updates).
fn place(ip: IpAddr) -> Place {
    match ip {
        IpAddr::V4(v4) => place_v4(v4),
        IpAddr::V6(v6) => place_v6(v6),
    }
}

fn place_v4(ip: Ipv4Addr) -> Place {
    match ip.octets() {
        [127, ..] => Place::Loopback,
        // Private networks and carriers' shared space.
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Place::Private,
        // This network, link-local with the clouds' metadata services, protocol assignments,
        // documentation, 6to4 relays, benchmarking, multicast and reserved.
        [0 | 224..=255, ..]
        | [169, 254, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18..=19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Place::Never,
        _ => Place::Public,
    }
}

fn place_v6(ip: Ipv6Addr) -> Place {
    if ip == Ipv6Addr::LOCALHOST {
        return Place::Loopback;
    }
    match ip.segments() {
        [0xfc00..=0xfdff, ..] => Place::Private,
        // Documentation; Teredo and what else is for protocols; 6to4, which hides any IPv4 address.
        [0x2001, 0xdb8 | 0..=0x1ff, ..] | [0x2002 | 0x3fff, ..] => Place::Never,
        // Of the rest only global unicast is in use. NAT64 (64:ff9b::/96) hides IPv4 addresses, too.
        [0x2000..=0x3fff, ..] => Place::Public,
        _ => Place::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_to_public_places_is_taken() {
        let none = Reach::default();
        for good in [
            "https://hooks.example/a?b=c",
            "https://hooks.example:8443",
            "https://1.1.1.1/",
            "https://[2606:4700::1111]/",
        ] {
            assert!(parse(good, none).is_ok(), "{good}");
        }
        for bad in [
            "http://hooks.example/",
            "ftp://hooks.example/",
            "https://user@hooks.example/",
            "https://u:p@hooks.example/",
            "hooks.example",
            "https://",
            "file:///etc/passwd",
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://[::ffff:169.254.169.254]/",
            "https://169.254.169.254/latest/meta-data",
            "https://10.1.2.3/",
            "https://192.168.0.1/",
            "https://172.31.0.1/",
            "https://100.64.0.1/",
            "https://0.0.0.0/",
            "https://[fe80::1]/",
            "https://[fd00::1]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[2002:7f00:1::]/",
            "https://[::]/",
            "https://224.0.0.1/",
        ] {
            assert!(parse(bad, none).is_err(), "{bad}");
        }
        assert!(parse(&format!("https://hooks.example/{}", "x".repeat(2000)), none).is_err());
    }

    #[test]
    fn private_networks_are_an_operators_decision_and_metadata_services_are_not() {
        let reach = Reach {
            private: true,
            loopback: false,
        };
        assert!(parse("https://10.1.2.3/", reach).is_ok());
        assert!(parse("https://[fd00::1]/", reach).is_ok());
        for bad in [
            "https://127.0.0.1/",
            "https://169.254.169.254/",
            "http://10.1.2.3/",
        ] {
            assert!(parse(bad, reach).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_home_is_refused_when_it_is_resolved() {
        let url = parse("https://localhost:1/", Reach::default()).expect("a name may be anything");
        assert!(matches!(
            resolve(&url, Reach::default()).await,
            Err(AddressError::Private { .. })
        ));
        let reach = Reach {
            private: false,
            loopback: true,
        };
        assert!(resolve(&url, reach).await.is_ok());
    }
}
