//! The names in certificates: how a box is called there and how its name is read back.

use longhaul_protocol::ids::BoxId;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What the URI of a box starts with.
const BOX_URI: &str = "urn:longhaul:box:";

/// The domain below which every box has a name on the customer's network:
/// `{box id, lower case}.box.longhaul.internal`.
pub const LAN_DOMAIN: &str = "box.longhaul.internal";

/// Why a certificate does not name a box.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The bytes are not one certificate.
    #[error("not an X.509 certificate in DER")]
    Malformed,
    /// The names in it are not exactly one box URI.
    #[error("certificate names no box: want one subject alternative name, urn:longhaul:box:ID")]
    NotABox,
    /// Its common name says something else than its URI.
    #[error("certificate of box {uri} has the common name {common_name:?}")]
    Contradiction {
        /// The box in the URI.
        uri: BoxId,
        /// The common name, cut to 64 characters.
        common_name: String,
    },
}

/// The URI that names `id` in certificates.
pub fn box_uri(id: &BoxId) -> String {
    format!("{BOX_URI}{id}")
}

/// The name under which `id` answers on a customer's network.
pub fn lan_name(id: &BoxId) -> String {
    longhaul_protocol::ticket::lan_name(id)
}

/// Reads the box that a certificate (DER) names. The chain must have been verified already: this
/// reads names, it establishes no trust.
pub fn box_id(certificate: &[u8]) -> Result<BoxId, NameError> {
    let (rest, certificate) =
        X509Certificate::from_der(certificate).map_err(|_| NameError::Malformed)?;
    if !rest.is_empty() {
        return Err(NameError::Malformed);
    }
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| NameError::Malformed)?
        .ok_or(NameError::NotABox)?;
    let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else {
        return Err(NameError::NotABox);
    };
    let id: BoxId = uri
        .strip_prefix(BOX_URI)
        .and_then(|text| text.parse().ok())
        .ok_or(NameError::NotABox)?;
    let common_name = common_name(&certificate).ok_or(NameError::NotABox)?;
    if common_name != id.as_str() {
        return Err(NameError::Contradiction {
            uri: id,
            common_name: common_name.chars().take(64).collect(),
        });
    }
    Ok(id)
}

/// The subject's only common name.
pub(crate) fn common_name<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    let mut names = certificate.subject().iter_common_name();
    match (names.next(), names.next()) {
        (Some(name), None) => name.as_str().ok(),
        _ => None,
    }
}
