//! Finding boxes: by mDNS on the LAN, then at the addresses in the ticket, or where the user says.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::lan::Announcement;
use longhaul_protocol::ticket::{MDNS_SERVICE, Ticket};
use mdns_sd::{ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::reach::{Endpoint, Via};

/// How long to listen for announcements. A responder answers within 120 ms (RFC 6762 section 6);
/// the rest is for a repeated question after a lost packet.
pub const LISTEN: Duration = Duration::from_secs(3);

/// After the first answer for a box, how long to wait for its other addresses.
const SETTLE: Duration = Duration::from_millis(150);

/// The port of an address without one.
const HTTPS_PORT: u16 = 443;

/// A box that announces itself on the LAN.
#[derive(Clone, Debug, Serialize)]
pub struct FoundBox {
    /// Which box.
    pub box_id: BoxId,
    /// Where it says that it is; IPv4 first.
    pub addrs: Vec<SocketAddr>,
    /// Version of its agent.
    pub agent_version: String,
    /// The code of the first rung that does not hold, `LH-nnn`.
    pub code: Option<String>,
    /// The sentence of that code for the customer.
    pub advice: Option<String>,
}

/// Why no box could be looked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoverError {
    /// mDNS does not work here.
    #[error("failed to look for boxes by mDNS; give the box's address with --box")]
    Mdns(#[source] mdns_sd::Error),
    /// Not an address.
    #[error("box address {given:?}: {why}; write https://ADDRESS:PORT")]
    Address {
        /// What was given.
        given: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Listens on the LAN for `listen` and returns the boxes that answered, by id.
///
/// # Errors
///
/// [`DiscoverError::Mdns`] where the network does not let us listen.
pub async fn find(listen: Duration) -> Result<Vec<FoundBox>, DiscoverError> {
    listen_for(None, listen).await
}

/// Listens until `box_id` has answered, for [`LISTEN`] at the most.
///
/// # Errors
///
/// [`DiscoverError::Mdns`].
pub async fn find_one(box_id: &BoxId) -> Result<Option<FoundBox>, DiscoverError> {
    let found = listen_for(Some(box_id), LISTEN).await?;
    Ok(found.into_iter().next())
}

async fn listen_for(
    wanted: Option<&BoxId>,
    listen: Duration,
) -> Result<Vec<FoundBox>, DiscoverError> {
    let daemon = ServiceDaemon::new().map_err(DiscoverError::Mdns)?;
    let events = daemon.browse(MDNS_SERVICE).map_err(DiscoverError::Mdns)?;
    let mut deadline = Instant::now() + listen;
    let mut found: BTreeMap<String, FoundBox> = BTreeMap::new();
    while let Ok(Ok(event)) = timeout_at(deadline, events.recv_async()).await {
        let ServiceEvent::ServiceResolved(service) = event else {
            continue;
        };
        let Some(seen) = read(&service) else {
            continue;
        };
        if wanted.is_some_and(|wanted| *wanted != seen.box_id) {
            continue;
        }
        if wanted.is_some() {
            deadline = deadline.min(Instant::now() + SETTLE);
        }
        let entry = found
            .entry(seen.box_id.to_string())
            .or_insert_with(|| seen.clone());
        entry.addrs.extend(&seen.addrs);
        entry.addrs.sort_unstable();
        entry.addrs.dedup();
    }
    // The daemon's thread ends by itself; nobody needs to wait for it.
    let _ = daemon.shutdown();
    Ok(found.into_values().collect())
}

fn read(service: &ResolvedService) -> Option<FoundBox> {
    let said = Announcement::from_txt(|key| service.get_property_val_str(key))?;
    let mut addrs: Vec<SocketAddr> = service
        .get_addresses()
        .iter()
        .filter_map(|ip| usable(ip, service.get_port()))
        .collect();
    addrs.sort_unstable();
    Some(FoundBox {
        box_id: said.box_id,
        addrs,
        agent_version: said.agent_version,
        code: said.code.map(|code| code.to_string()),
        advice: said.code.map(|code| code.entry().customer.to_owned()),
    })
}

/// Link-local IPv6 is left out: HTTP has no way to write its zone.
fn usable(ip: &ScopedIp, port: u16) -> Option<SocketAddr> {
    let ip = ip.to_ip_addr();
    match ip {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => None,
        ip => Some(SocketAddr::new(ip, port)),
    }
}

/// Where to try the ticket's box, in order: the groups are tried one after another, the addresses
/// of a group at once.
///
/// An address that the user gives is the only one tried: who says where the box is means that one.
///
/// # Errors
///
/// [`DiscoverError::Address`] where the given address is none.
pub async fn given_endpoints(given: &str) -> Result<Vec<Endpoint>, DiscoverError> {
    resolve(given, Via::Given).await
}

/// The addresses in the ticket; one that does not resolve is passed over.
pub async fn ticket_endpoints(ticket: &Ticket) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for url in ticket.lan_urls.iter().take(MAX_LAN_URLS) {
        match resolve(url, Via::Ticket).await {
            Ok(found) => endpoints.extend(found),
            Err(error) => tracing::debug!(%error, "address in the ticket passed over"),
        }
    }
    endpoints
}

/// Addresses of a ticket that are tried at the most.
const MAX_LAN_URLS: usize = 16;

async fn resolve(given: &str, via: Via) -> Result<Vec<Endpoint>, DiscoverError> {
    let bad = |why: &str| DiscoverError::Address {
        given: given.chars().take(200).collect(),
        why: why.to_owned(),
    };
    let text = if given.contains("://") {
        given.to_owned()
    } else {
        format!("https://{given}")
    };
    let url = Url::parse(&text).map_err(|e| bad(&e.to_string()))?;
    if url.scheme() != "https" {
        return Err(bad("only https is spoken"));
    }
    let port = url.port().unwrap_or(HTTPS_PORT);
    let host = url.host_str().ok_or_else(|| bad("it has no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let addrs = tokio::net::lookup_host((host, port))
        .await
        .map_err(|e| bad(&e.to_string()))?;
    Ok(addrs.map(|addr| Endpoint { addr, via }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_understood_with_and_without_scheme_and_port() {
        for (given, expected) in [
            ("https://127.0.0.1:9000", "127.0.0.1:9000"),
            ("127.0.0.1:9000", "127.0.0.1:9000"),
            ("127.0.0.1", "127.0.0.1:443"),
            ("https://[::1]:9000/", "[::1]:9000"),
        ] {
            let endpoints = given_endpoints(given).await.expect(given);
            assert_eq!(endpoints[0].addr.to_string(), expected, "{given}");
        }
    }

    #[tokio::test]
    async fn addresses_that_are_none_are_refused_with_their_text() {
        for given in ["http://127.0.0.1", "https://", "127.0.0.1:99999", "::::"] {
            let error = given_endpoints(given).await.expect_err(given);
            assert!(error.to_string().contains(given), "{error}");
        }
    }
}
