//! The makers of TPMs: whose endorsement key certificates we believe.

use std::path::{Path, PathBuf};

use longhaul_protocol::value::UnixMillis;
use rustls_pki_types::CertificateDer;
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::{Zeroize, Zeroizing};

use crate::files::{self, FileError};
use crate::oid;
use crate::tcg::credential::{CredentialError, EndorsementKey};
use crate::trust::{self, Anchors, TrustError};

/// The longest endorsement key certificate that is read, in bytes.
const MAX_CERTIFICATE: usize = 8 * 1024;

/// Why an endorsement key certificate is not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MakerError {
    /// A file of makers' certificates could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A maker's certificate is unusable.
    #[error("unusable maker certificates in {from}")]
    Makers {
        /// Where they came from.
        from: String,
        /// What is wrong.
        source: TrustError,
    },
    /// No maker at all.
    #[error("no TPM maker is trusted: {from} holds no self-signed certificate")]
    NoMaker {
        /// Where they were looked for.
        from: String,
    },
    /// A file that was named is a key, and keys of makers are nobody's business here.
    #[error("{path} holds a private key: name the maker's certificates, which are public")]
    PrivateKey {
        /// Which file.
        path: PathBuf,
    },
    /// Not a certificate.
    #[error("the endorsement key certificate is not one X.509 certificate in DER")]
    Malformed,
    /// Issued by nobody whom we trust, expired, or altered.
    #[error("no trusted TPM maker issued the endorsement key certificate: {0}")]
    Untrusted(webpki::Error),
    /// Issued by a maker, but not for an endorsement key.
    #[error("the certificate is not for an endorsement key (tcg-kp-EKCertificate is missing)")]
    Purpose,
    /// A key that we cannot use.
    #[error(transparent)]
    Key(#[from] CredentialError),
}

/// The certificates of TPM makers: roots, and the issuers below them.
#[derive(Clone, Debug)]
pub struct Makers {
    roots: Anchors,
    issuers: Vec<CertificateDer<'static>>,
}

impl Makers {
    /// Reads makers' certificates from PEM text. Those that are self-signed are roots.
    pub fn from_pem(text: &str) -> Result<Self, MakerError> {
        Self::from_text(text, "the text")
    }

    /// Reads a PEM file, or every `.pem` and `.crt` file of a directory. Of a directory, blocks that
    /// are no certificates are passed over: a maker's own directory holds its signing key, too.
    pub fn load(path: &Path) -> Result<Self, MakerError> {
        if !path.is_dir() {
            let text = text(path)?;
            let private = |block: &pem::Pem| block.tag().ends_with("PRIVATE KEY");
            if pem::parse_many(text.as_str()).is_ok_and(|blocks| blocks.iter().any(private)) {
                let path = path.to_owned();
                return Err(MakerError::PrivateKey { path });
            }
            return Self::from_text(&text, &path.display().to_string());
        }
        let read = |source| FileError::Read {
            path: path.to_owned(),
            source,
        };
        let mut entries: Vec<_> = std::fs::read_dir(path)
            .and_then(Iterator::collect::<Result<_, _>>)
            .map_err(read)?;
        entries.sort_by_key(std::fs::DirEntry::path);
        let mut certificates = Vec::new();
        for entry in entries {
            let file = entry.path();
            if file.extension().is_some_and(|e| e == "pem" || e == "crt") {
                certificates.extend(certificates_of(&file)?);
            }
        }
        Self::from_certificates(certificates, &path.display().to_string())
    }

    fn from_text(text: &str, from: &str) -> Result<Self, MakerError> {
        let unusable = |source| MakerError::Makers {
            from: from.to_owned(),
            source,
        };
        let certificates = trust::certificates_from_pem(text).map_err(unusable)?;
        Self::from_certificates(certificates, from)
    }

    fn from_certificates(
        certificates: Vec<CertificateDer<'static>>,
        from: &str,
    ) -> Result<Self, MakerError> {
        let unusable = |source| MakerError::Makers {
            from: from.to_owned(),
            source,
        };
        let (roots, issuers): (Vec<_>, Vec<_>) = certificates.into_iter().partition(is_self_issued);
        if roots.is_empty() {
            return Err(MakerError::NoMaker {
                from: from.to_owned(),
            });
        }
        let roots = Anchors::new(&roots).map_err(unusable)?;
        Ok(Self { roots, issuers })
    }

    /// Verifies an endorsement key certificate (DER, nothing after it) and returns its key.
    pub fn verify(
        &self,
        certificate: &[u8],
        now: UnixMillis,
    ) -> Result<EndorsementKey, MakerError> {
        let key = endorsement_key(certificate)?;
        let der = CertificateDer::from(certificate);
        EndEntityCert::try_from(&der)
            .and_then(|leaf| {
                leaf.verify_for_usage(
                    webpki::ALL_VERIFICATION_ALGS,
                    self.roots.as_slice(),
                    &self.issuers,
                    trust::unix_time(now),
                    // Makers' issuers often carry no extended key usage; the leaf must.
                    KeyUsage::required_if_present(oid::EKU_TCG_EK),
                    None,
                    None,
                )
                .map(drop)
            })
            .map_err(MakerError::Untrusted)?;
        Ok(key)
    }
}

/// Reads the key from an endorsement key certificate without believing it.
pub fn endorsement_key(certificate: &[u8]) -> Result<EndorsementKey, MakerError> {
    if certificate.len() > MAX_CERTIFICATE {
        return Err(MakerError::Malformed);
    }
    let (rest, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| MakerError::Malformed)?;
    if !rest.is_empty() {
        return Err(MakerError::Malformed);
    }
    let purposes = parsed
        .extended_key_usage()
        .map_err(|_| MakerError::Malformed)?
        .ok_or(MakerError::Purpose)?;
    if !purposes
        .value
        .other
        .iter()
        .any(|o| o.as_bytes() == oid::EKU_TCG_EK)
    {
        return Err(MakerError::Purpose);
    }
    Ok(EndorsementKey::from_spki(parsed.public_key().raw)?)
}

fn is_self_issued(certificate: &CertificateDer<'static>) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, c)| c.subject() == c.issuer())
}

/// The certificates in a file that may hold other things, too.
fn certificates_of(path: &Path) -> Result<Vec<CertificateDer<'static>>, MakerError> {
    let blocks = pem::parse_many(text(path)?.as_str()).map_err(|error| MakerError::Makers {
        from: path.display().to_string(),
        source: TrustError::Pem(error.to_string()),
    })?;
    let (certificates, others): (Vec<_>, Vec<_>) = blocks
        .into_iter()
        .partition(|block| block.tag() == "CERTIFICATE");
    for other in others {
        // It may be a key.
        other.into_contents().zeroize();
    }
    let certificates = certificates.into_iter();
    Ok(certificates.map(|c| c.into_contents().into()).collect())
}

/// The text of a file, wiped after use: it may hold a key.
fn text(path: &Path) -> Result<Zeroizing<String>, MakerError> {
    let bytes = files::read(path)?.ok_or_else(|| FileError::Read {
        path: path.to_owned(),
        source: std::io::ErrorKind::NotFound.into(),
    })?;
    let bytes = Zeroizing::new(bytes);
    Ok(Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()))
}
