//! The DNS rung.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use longhaul_protocol::diag::Code;

use crate::observation::Observation;

/// Where the system keeps its resolvers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The addresses of a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// At least one.
    pub addresses: Vec<IpAddr>,
    /// How long it took.
    pub took: Duration,
    /// Whether a resolver was asked, rather than this machine.
    pub by_name: bool,
}

/// The addresses of `host`, or why there are none within `limit`.
pub async fn resolve(host: &str, limit: Duration) -> Result<Found, Observation> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(Found {
            addresses: vec![address],
            took: Duration::ZERO,
            by_name: false,
        });
    }
    let begun = Instant::now();
    let looked_up = tokio::time::timeout(limit, tokio::net::lookup_host((host, 0))).await;
    let failure = |code, evidence: String| Err(Observation::failed(code, evidence));
    match looked_up {
        Ok(Ok(addresses)) => {
            let mut addresses: Vec<_> = addresses.map(|a| a.ip()).collect();
            addresses.dedup();
            if addresses.is_empty() {
                return failure(Code::DNS_NO_NAME, format!("{host} has no address"));
            }
            Ok(Found {
                addresses,
                took: begun.elapsed(),
                by_name: host != "localhost",
            })
        }
        Ok(Err(error)) => {
            let text = error.to_string();
            let code = if !has_resolver(&read_resolv_conf()) {
                Code::NO_RESOLVER
            } else if text.contains("not known") || text.contains("No address associated") {
                Code::DNS_NO_NAME
            } else {
                Code::DNS_SILENT
            };
            failure(code, format!("{host}: {text}"))
        }
        Err(_) if has_resolver(&read_resolv_conf()) => failure(
            Code::DNS_SILENT,
            format!("{host}: no answer within {} s", limit.as_secs()),
        ),
        Err(_) => failure(Code::NO_RESOLVER, format!("{RESOLV_CONF} names no server")),
    }
}

fn read_resolv_conf() -> String {
    std::fs::read_to_string(RESOLV_CONF).unwrap_or_default()
}

/// The DNS servers that the system asks.
pub fn servers() -> Vec<IpAddr> {
    let text = read_resolv_conf();
    let servers = text.lines().filter_map(|line| {
        let server = line.trim().strip_prefix("nameserver")?.trim();
        server.split('%').next()?.parse().ok()
    });
    servers.collect()
}

fn has_resolver(resolv_conf: &str) -> bool {
    resolv_conf
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .any(|rest| rest.trim().parse::<IpAddr>().is_ok() || rest.contains('%'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_found_in_resolv_conf() {
        assert!(has_resolver("search x\n nameserver 192.0.2.1\n"));
        assert!(has_resolver("nameserver fe80::1%eth0"));
        assert!(!has_resolver("# nameserver 192.0.2.1\nsearch x\n"));
        assert!(!has_resolver(""));
    }

    #[tokio::test]
    async fn an_address_needs_no_resolver() {
        let found = resolve("::1", Duration::from_secs(1)).await;

        assert_eq!(found.unwrap().addresses, ["::1".parse::<IpAddr>().unwrap()]);
    }
}
