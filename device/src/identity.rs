//! The certificate that the cloud issued, as it lies on the disk.

use std::path::{Path, PathBuf};

use longhaul_protocol::inventory::CloudEndpoint;
use longhaul_protocol::value::{Blob, UnixMillis};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::agent::Validity;
use crate::disk::{self, DiskError};

/// The LDevID certificate, and where to go with it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Ldevid {
    /// The certificate and its issuers (DER), leaf first.
    pub chain: Vec<Blob>,
    /// The key's place in the TPM, so that a renewal leaves the old one in use until it is done.
    pub key_slot: u8,
    /// When it was issued, by the box's clock.
    pub issued: UnixMillis,
    /// When it expires.
    pub expires: UnixMillis,
    /// The endpoints in force, first choice first.
    pub endpoints: Vec<CloudEndpoint>,
}

impl Ldevid {
    /// When it holds.
    pub fn validity(&self) -> Validity {
        Validity {
            issued: self.issued,
            expires: self.expires,
        }
    }

    /// The chain, as TLS wants it.
    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.chain
            .iter()
            .map(|c| CertificateDer::from(c.0.clone()))
            .collect()
    }
}

/// Where the certificate lies.
#[derive(Clone, Debug)]
pub struct IdentityFile(PathBuf);

impl IdentityFile {
    /// In this state directory.
    pub fn in_state(state: &Path) -> Self {
        Self(state.join("ldevid.json"))
    }

    /// The certificate. One that cannot be read is no reason to stay away: the box enrols again.
    pub fn load(&self) -> Option<Ldevid> {
        disk::read_json(&self.0).unwrap_or_else(|error| {
            tracing::warn!(%error, "certificate on disk is unusable");
            None
        })
    }

    /// Replaces the certificate; it is on the disk when this returns.
    pub fn store(&self, ldevid: &Ldevid) -> Result<(), DiskError> {
        disk::write_json(&self.0, ldevid)
    }
}
