//! The certificates of a NATS cluster and of those who use it.
//!
//! An authority of its own, outside the fleet's root: what the fleet certifies, a box above all,
//! means nothing to the cluster, and what is certified here means nothing to the fleet.

use std::path::{Path, PathBuf};

use longhaul_protocol::backbone::Role;
use longhaul_protocol::value::UnixMillis;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::ca::{CaError, Identity, LEAF_BACKDATE_SECS, ServerNames};
use crate::files;
use crate::oid;
use crate::trust;

const DAY_SECS: u64 = 86_400;
const AUTHORITY_SECS: u64 = 15 * 365 * DAY_SECS;
/// How long what it certifies is valid: a year, and a month to renew it in.
const LEAF_SECS: u64 = 398 * DAY_SECS;

/// The cluster's authority, in a directory of its own.
pub struct BackbonePki {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl BackbonePki {
    /// Opens the authority in `dir` (`ca.pem`, `ca.key`), making it if there is none.
    ///
    /// # Errors
    ///
    /// [`CaError`] if the files cannot be used.
    pub fn open(dir: &Path, now: UnixMillis) -> Result<Self, CaError> {
        files::make_dir(dir)?;
        let (key_path, path) = (dir.join("ca.key"), dir.join("ca.pem"));
        let Some(bytes) = files::read_key(&key_path)? else {
            return Self::make(&key_path, &path, now);
        };
        let bytes = Zeroizing::new(bytes);
        let unusable = |source| CaError::Key {
            path: key_path.clone(),
            source,
        };
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| unusable(rcgen::Error::CouldNotParseKeyPair))?;
        let key = KeyPair::from_pem(text).map_err(unusable)?;
        Ok(Self {
            certificate: roots(&path)?
                .into_iter()
                .next()
                .ok_or(CaError::Missing(path))?,
            key,
        })
    }

    fn make(key_path: &Path, path: &Path, now: UnixMillis) -> Result<Self, CaError> {
        let key = KeyPair::generate()?;
        let now = trust::unix_time(now).as_secs();
        let mut params = crate::ca::base(
            "Longhaul backbone authority",
            now.saturating_sub(DAY_SECS),
            now.saturating_add(AUTHORITY_SECS),
        )?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key)?.der().clone();
        // The key last: with it the authority is complete.
        files::write(path, trust::certificates_to_pem([&certificate]).as_bytes())?;
        let text = Zeroizing::new(key.serialize_pem());
        files::write(key_path, text.as_bytes())?;
        Ok(Self { certificate, key })
    }

    /// The authority's certificate.
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A server of the cluster: it answers clients, and is a client of the other servers.
    ///
    /// # Errors
    ///
    /// [`CaError`] if a name cannot stand in a certificate.
    pub fn issue_node(&self, names: ServerNames, now: UnixMillis) -> Result<Identity, CaError> {
        let name = names
            .dns
            .first()
            .cloned()
            .or_else(|| names.ips.first().map(ToString::to_string))
            .unwrap_or_default();
        let purposes = [oid::EKU_SERVER_AUTH, oid::EKU_CLIENT_AUTH];
        self.issue(&name, names.into_sans()?, &purposes, now)
    }

    /// A process of a role.
    ///
    /// # Errors
    ///
    /// [`CaError`] if the certificate cannot be made.
    pub fn issue_role(&self, role: Role, now: UnixMillis) -> Result<Identity, CaError> {
        let uri = role.uri();
        let text = uri.as_str().try_into()?;
        self.issue(
            role.as_str(),
            vec![SanType::URI(text)],
            &[oid::EKU_CLIENT_AUTH],
            now,
        )
    }

    fn issue(
        &self,
        name: &str,
        sans: Vec<SanType>,
        purposes: &[&[u8]],
        now: UnixMillis,
    ) -> Result<Identity, CaError> {
        let now = trust::unix_time(now).as_secs();
        let mut params: CertificateParams = crate::ca::base(
            name,
            now.saturating_sub(LEAF_BACKDATE_SECS),
            now.saturating_add(LEAF_SECS),
        )?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.custom_extensions = vec![crate::ca::extended_key_usage(purposes)];
        params.subject_alt_names = sans;
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key)?;
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &issuer)?;
        Ok(Identity::new(
            vec![leaf.der().clone()],
            Zeroizing::new(key.serialize_der()),
        ))
    }
}

/// The certificates in a PEM file.
///
/// # Errors
///
/// [`CaError`] if there is no such file, or it holds none.
pub fn roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let missing = || CaError::Missing(PathBuf::from(path));
    let bytes = files::read(path)?.ok_or_else(missing)?;
    trust::certificates_from_pem(&String::from_utf8_lossy(&bytes)).map_err(|source| {
        CaError::Certificate {
            path: path.to_owned(),
            source,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_stays_and_names_roles_by_uri() {
        let dir = tempfile::tempdir().expect("a folder");
        let now = UnixMillis(1_800_000_000_000);

        let made = BackbonePki::open(dir.path(), now).expect("made");
        let opened = BackbonePki::open(dir.path(), now).expect("opened");

        assert_eq!(made.certificate(), opened.certificate());
        let edge = opened.issue_role(Role::Edge, now).expect("issued");
        let der = edge.chain()[0].as_ref();
        let uri = Role::Edge.uri();
        assert!(der.windows(uri.len()).any(|w| w == uri.as_bytes()));
    }
}
