//! The fleet's certificate authorities: a root, and one issuing authority per use.
//!
//! Each issuing authority can sign nothing but leaves (path length 0), for its own purposes
//! (extended key usage) and its own names (name constraints); verifiers enforce all three. A
//! machine holds only the keys that it needs: a missing key is an error when it is used.

mod authority;
mod issue;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use longhaul_protocol::value::UnixMillis;
use rcgen::{CertificateParams, Issuer, KeyPair, KeyUsagePurpose, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateDer;

pub use authority::Authority;
pub(crate) use authority::{base, extended_key_usage};
pub use issue::{Identity, LEAF_BACKDATE_SECS, MAX_LDEVID_SECS, ServerNames};

use crate::files::{self, FileError};
use crate::trust::{self, Anchors, TrustError};

const DAY_SECS: u64 = 86_400;
/// How long the root is valid.
const ROOT_SECS: u64 = 25 * 365 * DAY_SECS;
/// How long an issuing authority is valid: a box's initial identity lives as long.
const AUTHORITY_SECS: u64 = 15 * 365 * DAY_SECS;
/// Authorities are valid from a day before they were made: clocks differ.
const AUTHORITY_BACKDATE_SECS: u64 = DAY_SECS;

/// Why an authority could not be made, opened or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Something is there already and is not overwritten.
    #[error("{0} exists already: choose another directory, or remove it if it is of no use")]
    Exists(PathBuf),
    /// There is no authority here.
    #[error("no fleet root in {0}: make one with `longhaul-factory init`, or correct the path")]
    Missing(PathBuf),
    /// The authority's certificate is here but its key is not.
    #[error("the {authority} authority's key is not in {path}: run this where the key is kept")]
    KeyMissing {
        /// The authority.
        authority: Authority,
        /// Where the key was looked for.
        path: PathBuf,
    },
    /// The directory holds no certificate of this authority.
    #[error("the {authority} authority is not in {path}")]
    AuthorityMissing {
        /// The authority.
        authority: Authority,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A certificate in a file is unusable.
    #[error("unusable certificate in {path}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TrustError,
    },
    /// A private key in a file is unusable.
    #[error("unusable private key in {path}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rcgen::Error,
    },
    /// A private key belongs to another certificate.
    #[error("the private key in {0} does not belong to the certificate beside it")]
    KeyMismatch(PathBuf),
    /// Asked to certify a key that is not ECDSA P-256.
    #[error("not an ECDSA P-256 public key (SubjectPublicKeyInfo, DER)")]
    NotP256,
    /// Asked for a longer validity than the rules allow.
    #[error("a validity of {asked_secs} s was asked for, {most_secs} s is the most")]
    TooLong {
        /// What was asked for.
        asked_secs: u64,
        /// What is allowed.
        most_secs: u64,
    },
    /// A name cannot stand in a certificate.
    #[error("{name:?} cannot stand in a certificate: {rule}")]
    Name {
        /// The name.
        name: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The authority itself is no longer valid.
    #[error("the {0} authority has expired: renew it from the root")]
    Expired(Authority),
    /// The certificate could not be made.
    #[error("failed to make a certificate")]
    Make(#[from] rcgen::Error),
}

/// One issuing authority: its certificate, and its key if this machine holds it.
struct Held {
    certificate: CertificateDer<'static>,
    not_after: u64,
    key: Option<KeyPair>,
}

/// The fleet's authorities, as one directory holds them.
pub struct Pki {
    dir: PathBuf,
    root: CertificateDer<'static>,
    held: BTreeMap<Authority, Held>,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Pki {
    /// Makes a root and its issuing authorities in the new directory `dir`. The directory appears
    /// complete or not at all.
    ///
    /// # Errors
    ///
    /// [`CaError::Exists`] if there is something at `dir`.
    pub fn init(dir: &Path, now: UnixMillis) -> Result<Self, CaError> {
        if dir.exists() {
            return Err(CaError::Exists(dir.to_owned()));
        }
        let mut making = dir.as_os_str().to_owned();
        making.push(format!(".{}.new", std::process::id()));
        let making = PathBuf::from(making);
        let now = trust::unix_time(now).as_secs();

        let root_key = KeyPair::generate()?;
        let root = authority::root_params(now)?;
        let root_certificate = root.self_signed(&root_key)?;
        write_authority(&making.join("root"), root_certificate.der(), &root_key)?;
        let root_issuer = Issuer::new(root, root_key);
        for authority in Authority::ALL {
            let key = KeyPair::generate()?;
            let certificate = authority.params(now)?.signed_by(&key, &root_issuer)?;
            write_authority(&making.join(authority.as_str()), certificate.der(), &key)?;
        }

        let wrote = |source| FileError::Write {
            path: dir.to_owned(),
            source,
        };
        files::sync_dir(&making).map_err(wrote)?;
        std::fs::rename(&making, dir).map_err(wrote)?;
        files::sync_dir(dir.parent().unwrap_or(Path::new("."))).map_err(wrote)?;
        Self::open(dir)
    }

    /// Opens the authorities in `dir`: the root's certificate must be there, everything else may
    /// be missing until it is needed. The root's key is never read.
    pub fn open(dir: &Path) -> Result<Self, CaError> {
        let root =
            read_certificate(&dir.join("root"))?.ok_or_else(|| CaError::Missing(dir.to_owned()))?;
        let mut held = BTreeMap::new();
        for authority in Authority::ALL {
            let at = dir.join(authority.as_str());
            let Some(certificate) = read_certificate(&at)? else {
                continue;
            };
            let key = read_signing_key(&at.join("key.pem"))?;
            let not_after = authority::check(&certificate, key.as_ref())
                .ok_or_else(|| CaError::KeyMismatch(at.join("key.pem")))?;
            let entry = Held {
                certificate,
                not_after,
                key,
            };
            held.insert(authority, entry);
        }
        Ok(Self {
            dir: dir.to_owned(),
            root,
            held,
        })
    }

    /// The root's certificate: what boxes, clouds and customers pin.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The root's certificate as PEM text.
    pub fn root_pem(&self) -> String {
        trust::certificates_to_pem([&self.root])
    }

    /// The root as a trust anchor.
    pub fn root_anchor(&self) -> Result<Anchors, CaError> {
        Anchors::new([&self.root]).map_err(|source| CaError::Certificate {
            path: self.dir.join("root/cert.pem"),
            source,
        })
    }

    /// The certificate of one issuing authority. A server that wants certificates of one kind
    /// only (the MQTT edge: [`Authority::Boxes`]) makes this its sole trust anchor.
    pub fn authority(&self, authority: Authority) -> Result<&CertificateDer<'static>, CaError> {
        Ok(&self.held(authority)?.certificate)
    }

    fn held(&self, authority: Authority) -> Result<&Held, CaError> {
        self.held
            .get(&authority)
            .ok_or_else(|| CaError::AuthorityMissing {
                authority,
                path: self.dir.join(authority.as_str()),
            })
    }

    /// Signs a leaf: `[leaf, issuing authority]`.
    fn sign(
        &self,
        authority: Authority,
        params: &CertificateParams,
        key: &SubjectPublicKeyInfo,
    ) -> Result<Vec<CertificateDer<'static>>, CaError> {
        let held = self.held(authority)?;
        let signing = held.key.as_ref().ok_or_else(|| CaError::KeyMissing {
            authority,
            path: self.dir.join(authority.as_str()).join("key.pem"),
        })?;
        let issuer = Issuer::from_ca_cert_der(&held.certificate, signing)?;
        debug_assert!(issuer.key_usages().contains(&KeyUsagePurpose::KeyCertSign));
        let leaf = params.signed_by(key, &issuer)?;
        Ok(vec![leaf.der().clone(), held.certificate.clone()])
    }
}

fn write_authority(
    dir: &Path,
    certificate: &CertificateDer<'static>,
    key: &KeyPair,
) -> Result<(), CaError> {
    files::make_dir(dir)?;
    let key_pem = zeroize::Zeroizing::new(key.serialize_pem());
    files::write(&dir.join("key.pem"), key_pem.as_bytes())?;
    let certificate = trust::certificates_to_pem([certificate]);
    files::write(&dir.join("cert.pem"), certificate.as_bytes())?;
    Ok(())
}

fn read_certificate(dir: &Path) -> Result<Option<CertificateDer<'static>>, CaError> {
    let path = dir.join("cert.pem");
    let Some(bytes) = files::read(&path)? else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&bytes);
    match trust::certificates_from_pem(&text) {
        Ok(mut found) if found.len() == 1 => Ok(found.pop()),
        Ok(_) => Err(CaError::Certificate {
            path,
            source: TrustError::Pem("it holds more than one certificate".to_owned()),
        }),
        Err(source) => Err(CaError::Certificate { path, source }),
    }
}

fn read_signing_key(path: &Path) -> Result<Option<KeyPair>, CaError> {
    let Some(bytes) = files::read_key(path)? else {
        return Ok(None);
    };
    let bytes = zeroize::Zeroizing::new(bytes);
    let unusable = |source| CaError::Key {
        path: path.to_owned(),
        source,
    };
    let text =
        std::str::from_utf8(&bytes).map_err(|_| unusable(rcgen::Error::CouldNotParseKeyPair))?;
    Ok(Some(KeyPair::from_pem(text).map_err(unusable)?))
}

#[cfg(test)]
mod tests;
