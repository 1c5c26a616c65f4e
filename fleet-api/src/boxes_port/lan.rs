//! Certificates for the boxes' endpoints on customers' networks.

use http::StatusCode;
use longhaul_protocol::enrol::{LanCertificate, LanCertificateRequest};
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::BoxId;
use longhaul_provisioning::csr;

use super::Refusal;
use crate::fleet::{Fleet, is_local};

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
    Ok(fleet.lan_certificate(box_id, &spki, &request.addresses)?)
}
