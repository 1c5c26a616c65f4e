//! Certificate requests (PKCS #10): they bring a key and prove that the sender holds it. Every
//! name and extension in one is ignored.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::oid;

/// The longest request that is read, in bytes.
const MAX_CSR: usize = 4096;

/// `AlgorithmIdentifier` of ECDSA with SHA-256 (RFC 5758, section 3.2): all our keys sign so.
const ECDSA_WITH_SHA256: [u8; 12] = [
    0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
];

/// Why a certificate request is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CsrError {
    /// Not exactly one certificate request.
    #[error("not a certificate request (PKCS #10, DER) of at most 4 KiB")]
    Malformed,
    /// Not signed by its own key.
    #[error("the certificate request is not signed by its own key")]
    Signature,
}

/// Checks that a certificate request is signed by its own key, and returns that key
/// (SubjectPublicKeyInfo, DER).
pub fn public_key(request: &[u8]) -> Result<Vec<u8>, CsrError> {
    if request.len() > MAX_CSR {
        return Err(CsrError::Malformed);
    }
    let (rest, parsed) =
        X509CertificationRequest::from_der(request).map_err(|_| CsrError::Malformed)?;
    if !rest.is_empty() || parsed.signature_value.unused_bits != 0 {
        return Err(CsrError::Malformed);
    }
    parsed.verify_signature().map_err(|_| CsrError::Signature)?;
    // The parser overlooks tags that DER does not allow; there is one way to write a request.
    let signature = [&[0][..], parsed.signature_value.data.as_ref()].concat();
    let canonical = oid::element(
        0x30,
        &[
            parsed.certification_request_info.raw,
            &ECDSA_WITH_SHA256,
            &oid::element(0x03, &signature),
        ]
        .concat(),
    );
    if canonical != request {
        return Err(CsrError::Malformed);
    }
    Ok(parsed.certification_request_info.subject_pki.raw.to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, PublicKeyData};

    use super::*;

    fn request() -> (KeyPair, Vec<u8>) {
        let key = KeyPair::generate().expect("a key");
        let request = CertificateParams::default()
            .serialize_request(&key)
            .expect("a request");
        (key, request.der().to_vec())
    }

    #[test]
    fn a_request_yields_its_key() {
        let (key, request) = request();

        assert_eq!(public_key(&request), Ok(key.subject_public_key_info()));
    }

    #[test]
    fn no_altered_byte_passes() {
        let (_, request) = request();

        for i in 0..request.len() {
            for bit in 0..8 {
                let mut altered = request.clone();
                altered[i] ^= 1 << bit;
                assert!(public_key(&altered).is_err(), "byte {i}, bit {bit}");
            }
        }
        let longer = [request, vec![0]].concat();
        assert_eq!(public_key(&longer), Err(CsrError::Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            prop_assert!(public_key(&bytes).is_err());
        }
    }
}
