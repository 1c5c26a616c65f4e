//! Certificates for the boxes' endpoints on customers' networks.

use std::net::IpAddr;

use http::StatusCode;
use longhaul_protocol::enrol::{LanCertificate, LanCertificateRequest};
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::value::Blob;
use longhaul_provisioning::csr;

use super::Refusal;
use crate::fleet::{Fleet, FleetError};
use crate::identity::expires;

/// How long such a certificate is valid: longer than the box's own, a customer's transfer must not
/// end because the line to the cloud is down.
const VALIDITY_SECS: u64 = 30 * 86_400;
/// Addresses in one certificate at the most.
const MAX_ADDRESSES: usize = 32;

/// Certifies the key of a box's endpoint for its own name and its private addresses.
pub(super) fn certificate(
    fleet: &Fleet,
    box_id: &BoxId,
    request: &LanCertificateRequest,
) -> Result<LanCertificate, Refusal> {
    let invalid = |text: String| Refusal::new(StatusCode::BAD_REQUEST, "invalid", text);
    if request.v != VERSION {
        return Err(invalid(format!(
            "version {} is not known here; this cloud reads {VERSION}",
            request.v
        )));
    }
    if request.addresses.len() > MAX_ADDRESSES {
        return Err(invalid(format!("more than {MAX_ADDRESSES} addresses")));
    }
    if let Some(public) = request.addresses.iter().find(|ip| !is_local(**ip)) {
        return Err(invalid(format!(
            "{public} is not a private, link-local or loopback address"
        )));
    }
    let spki = csr::public_key(&request.csr.0).map_err(|e| invalid(e.to_string()))?;
    let chain = fleet
        .identity()
        .pki()
        .issue_lan(
            box_id,
            &spki,
            &request.addresses,
            VALIDITY_SECS,
            fleet.now(),
        )
        .map_err(|e| FleetError::internal("failed to issue a LAN certificate", e))?;
    let not_after = expires(&chain[0])
        .ok_or_else(|| FleetError::internal("failed to issue a LAN certificate", "no expiry"))?;
    Ok(LanCertificate {
        certificate_chain: chain.iter().map(|c| Blob(c.to_vec())).collect(),
        expires: not_after,
    })
}

/// RFC 1918, RFC 3927, RFC 4193, RFC 4291: addresses that nobody else on the internet can have.
fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_customers_own_network_are_certified() {
        for local in [
            "10.1.2.3",
            "172.31.0.1",
            "192.168.0.9",
            "169.254.1.1",
            "127.0.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
        ] {
            assert!(is_local(local.parse().expect("an address")), "{local}");
        }
        for public in [
            "8.8.8.8",
            "172.32.0.1",
            "2001:db8::1",
            "0.0.0.0",
            "::",
            "::ffff:10.0.0.1",
        ] {
            assert!(!is_local(public.parse().expect("an address")), "{public}");
        }
    }
}
