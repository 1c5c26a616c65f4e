//! Who a certificate names.

use longhaul_protocol::ids::{BoxId, InvalidId};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What the URI in a box's certificate begins with; the box id follows.
pub const BOX_URN: &str = "urn:longhaul:box:";

/// Why a certificate names no box.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The bytes are not one X.509 certificate.
    #[error("client certificate is not X.509")]
    Malformed,
    /// There must be exactly one URI among the subject alternative names.
    #[error("client certificate has {0} URI names, not one")]
    UriCount(usize),
    /// The URI is not a box's.
    #[error("client certificate's URI does not begin with {BOX_URN}")]
    NotABox,
    /// The URI names no possible box.
    #[error("client certificate names no box")]
    BoxId(#[from] InvalidId),
}

/// The box that a leaf certificate (DER) names: its one URI name, `urn:longhaul:box:{BoxId}`.
///
/// Reads the name only; whether the certificate is trusted is for TLS to say.
pub fn identity_from_certificate(der: &[u8]) -> Result<BoxId, IdentityError> {
    let certificate = parse(der)?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| IdentityError::Malformed)?;
    let mut uris = names.iter().flat_map(|san| {
        san.value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
    });
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        let count = names.map_or(0, |san| {
            let is_uri = |name: &&GeneralName<'_>| matches!(name, GeneralName::URI(_));
            san.value.general_names.iter().filter(is_uri).count()
        });
        return Err(IdentityError::UriCount(count));
    };
    let id = uri.strip_prefix(BOX_URN).ok_or(IdentityError::NotABox)?;
    Ok(id.parse()?)
}

/// The end of the certificate's validity, in seconds since 1970.
pub(crate) fn not_after_unix_secs(der: &[u8]) -> Result<i64, IdentityError> {
    Ok(parse(der)?.validity().not_after.timestamp())
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, IdentityError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(IdentityError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn certificate(uris: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["box.local".to_owned()]).expect("a name");
        for uri in uris {
            let uri = (*uri).try_into().expect("ASCII");
            params.subject_alt_names.push(SanType::URI(uri));
        }
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("signed").der().to_vec()
    }

    #[test]
    fn the_one_box_uri_is_the_identity() {
        let der = certificate(&["urn:longhaul:box:0123456789AB"]);

        let id = identity_from_certificate(&der).expect("a box");

        assert_eq!(id.as_str(), "0123456789AB");
    }

    #[test]
    fn anything_but_exactly_one_box_uri_names_nobody() {
        for uris in [
            &[][..],
            &[
                "urn:longhaul:box:0123456789AB",
                "urn:longhaul:box:ZZZZZZZZZZZZ",
            ],
            &["urn:longhaul:box:0123456789AB", "https://example.com"],
            &["urn:longhaul:box:0123456789ab"],
            &["urn:longhaul:box:0123456789ABC"],
            &["urn:longhaul:box:"],
            &["URN:longhaul:box:0123456789AB"],
            &["urn:longhaul:operator:0123456789AB"],
            &["urn:longhaul:box:0123456789AB/x"],
        ] {
            assert!(
                identity_from_certificate(&certificate(uris)).is_err(),
                "{uris:?}"
            );
        }
    }

    #[test]
    fn a_certificate_with_a_tail_is_refused() {
        let mut der = certificate(&["urn:longhaul:box:0123456789AB"]);
        der.push(0);

        assert!(identity_from_certificate(&der).is_err());
    }

    #[test]
    fn no_flipped_byte_panics() {
        let der = certificate(&["urn:longhaul:box:0123456789AB"]);
        for index in 0..der.len() {
            for bit in [0x01, 0x20, 0x80] {
                let mut der = der.clone();
                der[index] ^= bit;
                let _ = identity_from_certificate(&der);
                let _ = not_after_unix_secs(&der);
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(der in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = identity_from_certificate(&der);
        }
    }
}
