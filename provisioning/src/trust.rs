//! Trust anchors, and the one way in which a chain of fleet certificates is verified.

use std::time::Duration;

use longhaul_protocol::value::UnixMillis;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

/// Every fleet authority signs with ECDSA P-256, so nothing else is accepted from one.
const FLEET_ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] =
    &[webpki::aws_lc_rs::ECDSA_P256_SHA256];

/// Why certificates are not trusted.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The text holds no certificate, or something that is none.
    #[error("no usable certificate in PEM text: {0}")]
    Pem(String),
    /// A certificate could not be parsed or its chain does not verify.
    #[error("certificate is not trusted: {0}")]
    Chain(webpki::Error),
}

/// The certificates at which a chain may end.
#[derive(Clone, Debug)]
pub struct Anchors(Vec<TrustAnchor<'static>>);

impl Anchors {
    /// Trusts these certificates.
    pub fn new<'a>(
        certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>,
    ) -> Result<Self, TrustError> {
        let anchors: Result<Vec<_>, _> = certificates
            .into_iter()
            .map(|c| webpki::anchor_from_trusted_cert(c).map(|anchor| anchor.to_owned()))
            .collect();
        Ok(Self(anchors.map_err(TrustError::Chain)?))
    }

    /// Trusts every certificate in a PEM text; at least one must be there.
    pub fn from_pem(text: &str) -> Result<Self, TrustError> {
        Self::new(&certificates_from_pem(text)?)
    }

    pub(crate) fn as_slice(&self) -> &[TrustAnchor<'static>] {
        &self.0
    }

    /// Verifies `chain` (leaf first) up to an anchor, with `purpose` (the contents of an extended
    /// key usage OID) required in every certificate below the anchor.
    pub fn verify<'a>(
        &self,
        chain: &'a [CertificateDer<'a>],
        purpose: &'static [u8],
        now: UnixMillis,
    ) -> Result<EndEntityCert<'a>, TrustError> {
        let (leaf, intermediates) = chain
            .split_first()
            .ok_or(TrustError::Chain(webpki::Error::BadDer))?;
        let leaf = EndEntityCert::try_from(leaf).map_err(TrustError::Chain)?;
        leaf.verify_for_usage(
            FLEET_ALGORITHMS,
            &self.0,
            intermediates,
            unix_time(now),
            KeyUsage::required(purpose),
            None,
            None,
        )
        .map_err(TrustError::Chain)?;
        Ok(leaf)
    }
}

/// The time as certificates count it: in seconds, and never before 1970.
pub fn unix_time(now: UnixMillis) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(now.0).unwrap_or(0)))
}

/// Every certificate in a PEM text; at least one must be there and nothing else may be.
pub fn certificates_from_pem(text: &str) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let blocks = pem::parse_many(text).map_err(|e| TrustError::Pem(e.to_string()))?;
    if blocks.is_empty() {
        return Err(TrustError::Pem("it has no PEM block".to_owned()));
    }
    blocks
        .into_iter()
        .map(|block| match block.tag() {
            "CERTIFICATE" => Ok(CertificateDer::from(block.into_contents())),
            other => Err(TrustError::Pem(format!("it holds a {other}"))),
        })
        .collect()
}

/// PEM text of a chain, in its order.
pub fn certificates_to_pem<'a>(
    certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>,
) -> String {
    certificates
        .into_iter()
        .map(|c| certificate_pem(c))
        .collect()
}

fn certificate_pem(certificate: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", certificate), config)
}
