//! Certificates for the boxes' endpoints on customers' networks.

use std::net::IpAddr;

use longhaul_protocol::enrol::LanCertificate;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::value::Blob;

use super::{Fleet, FleetError};
use crate::identity::expires;

/// How long such a certificate is valid: longer than the box's own, a customer's transfer must not end
/// because the line to the cloud is down.
const LAN_SECS: u64 = 30 * 86_400;

impl Fleet {
    /// Certifies the key of a box's endpoint on the LAN.
    pub(crate) fn lan_certificate(
        &self,
        box_id: &BoxId,
        spki: &[u8],
        addresses: &[IpAddr],
    ) -> Result<LanCertificate, FleetError> {
        let failed = "failed to issue a LAN certificate";
        let pki = self.identity().pki();
        let chain = pki.issue_lan(box_id, spki, addresses, LAN_SECS, self.now());
        let chain = chain.map_err(|e| FleetError::internal(failed, e))?;
        let expires =
            expires(&chain[0]).ok_or_else(|| FleetError::internal(failed, "no expiry"))?;
        Ok(LanCertificate {
            certificate_chain: chain.iter().map(|c| Blob(c.to_vec())).collect(),
            expires,
        })
    }
}

/// RFC 1918, RFC 3927, RFC 4193, RFC 4291: addresses that nobody else on the internet can have.
pub(crate) fn is_local(ip: IpAddr) -> bool {
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
