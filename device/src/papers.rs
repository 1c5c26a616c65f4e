//! What the factory gave the box: root, signed configuration, first identity.

use std::path::{Path, PathBuf};

use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::inventory::BoxConfig;
use longhaul_protocol::value::{Jws, UnixMillis};
use longhaul_provisioning::factory::DEFAULT_PCRS;
use longhaul_provisioning::jws::{self, JwsError, Kind};
use longhaul_provisioning::names;
use longhaul_provisioning::trust::{Anchors, TrustError, certificates_from_pem};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use crate::disk::{self, DiskError};

pub use longhaul_provisioning::factory::{BOX_CONFIG_FILE, IDEVID_FILE, ROOT_FILE, TUF_ROOT_FILE};

/// What is wrong with the papers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PapersError {
    /// A paper could not be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A paper is not there.
    #[error(
        "{path} is missing: the factory has not prepared this box, or its papers lie elsewhere"
    )]
    Missing {
        /// Which file.
        path: PathBuf,
    },
    /// A file holds no text.
    #[error("{path} is not text")]
    NotText {
        /// Which file.
        path: PathBuf,
    },
    /// A file holds no usable certificates.
    #[error("no usable certificate in {path}")]
    Certificates {
        /// Which file.
        path: PathBuf,
        /// What is wrong with them.
        source: TrustError,
    },
    /// The configuration is not signed by the fleet's factory.
    #[error("the box's configuration is not trusted")]
    Untrusted(#[source] JwsError),
    /// The configuration's payload is not one.
    #[error("malformed box configuration")]
    Malformed(#[source] serde_json::Error),
    /// The configuration is of another version.
    #[error("box configuration has version {0}; this program reads version {VERSION}")]
    UnknownVersion(u16),
    /// The configuration names no endpoint.
    #[error("the box's configuration names no cloud endpoint")]
    NoEndpoint,
    /// The papers are another box's.
    #[error("the configuration is for box {config}, the first certificate for {certificate}")]
    AnotherBox {
        /// The box in the configuration.
        config: BoxId,
        /// What the certificate names.
        certificate: String,
    },
}

/// The factory's papers, verified.
pub struct Papers {
    /// The signed configuration.
    pub config: BoxConfig,
    /// The fleet's root, for signed documents.
    pub anchors: Anchors,
    /// The fleet's root, for TLS.
    pub roots: RootCertStore,
    /// The IDevID certificate and its issuers, leaf first.
    pub idevid: Vec<CertificateDer<'static>>,
}

impl Papers {
    /// Reads and verifies what lies in `dir`. The signature is checked as of the day on which it
    /// was made: a box whose clock is wrong, or that lay on a shelf, still believes its papers.
    pub fn load(dir: &Path) -> Result<Self, PapersError> {
        let root_path = dir.join(ROOT_FILE);
        let certificates = |path: &Path| {
            certificates_from_pem(&text(path)?).map_err(|source| PapersError::Certificates {
                path: path.to_owned(),
                source,
            })
        };
        let unusable = |source| PapersError::Certificates {
            path: root_path.clone(),
            source,
        };
        let root = certificates(&root_path)?;
        let anchors = Anchors::new(&root).map_err(unusable)?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(root);
        let config = box_config(&text(&dir.join(BOX_CONFIG_FILE))?, &anchors)?;
        let idevid = certificates(&dir.join(IDEVID_FILE))?;
        let named = idevid.first().map(|leaf| names::box_id(leaf));
        match named {
            Some(Ok(id)) if id == config.box_id => {}
            other => {
                let certificate = match other {
                    Some(Ok(id)) => id.to_string(),
                    Some(Err(error)) => error.to_string(),
                    None => "nothing".to_owned(),
                };
                return Err(PapersError::AnotherBox {
                    config: config.box_id,
                    certificate,
                });
            }
        }
        Ok(Self {
            config,
            anchors,
            roots,
            idevid,
        })
    }
}

impl Papers {
    /// PCRs to whose values the box's keys are sealed.
    pub fn sealing_pcrs(&self) -> &[u8] {
        match self.config.pcrs.as_slice() {
            [] => &DEFAULT_PCRS,
            named => named,
        }
    }
}

fn text(path: &Path) -> Result<String, PapersError> {
    let bytes = disk::read(path)?.ok_or_else(|| PapersError::Missing {
        path: path.to_owned(),
    })?;
    String::from_utf8(bytes).map_err(|_| PapersError::NotText {
        path: path.to_owned(),
    })
}

fn box_config(compact: &str, anchors: &Anchors) -> Result<BoxConfig, PapersError> {
    let compact = Jws(compact.trim().to_owned());
    let made_at = claimed_time(&compact).unwrap_or_default();
    let verified =
        jws::verify(&compact, Kind::BoxConfig, anchors, made_at).map_err(PapersError::Untrusted)?;
    let config: BoxConfig =
        serde_json::from_slice(&verified.payload).map_err(PapersError::Malformed)?;
    if config.v != VERSION {
        return Err(PapersError::UnknownVersion(config.v));
    }
    if config.endpoints.is_empty() {
        return Err(PapersError::NoEndpoint);
    }
    Ok(config)
}

/// When a document says that it was made, before anybody knows whether that is true.
fn claimed_time(Jws(compact): &Jws) -> Option<UnixMillis> {
    use base64::Engine as _;
    #[derive(serde::Deserialize)]
    struct Made {
        made_at: UnixMillis,
    }
    let payload = compact.split('.').nth(1)?;
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(payload)
        .ok()?;
    Some(serde_json::from_slice::<Made>(&payload).ok()?.made_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use longhaul_protocol::inventory::CloudEndpoint;
    use longhaul_provisioning::ca::Pki;
    use longhaul_provisioning::jws::Signer;

    const MADE: UnixMillis = UnixMillis(1_790_000_000_000);

    fn pki() -> (tempfile::TempDir, Pki) {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::init(&dir.path().join("pki"), MADE).unwrap();
        (dir, pki)
    }

    fn config() -> BoxConfig {
        BoxConfig {
            recovery_key: None,
            v: VERSION,
            box_id: "0123456789AB".parse().unwrap(),
            endpoints: vec![CloudEndpoint {
                host: "cloud.example".to_owned(),
                https_port: 1,
                mqtt_port: 2,
            }],
            root_pem: String::new(),
            static_network: None,
            vlan: None,
            dot1x: None,
            egress: Vec::new(),
            order: None,
            pcrs: Vec::new(),
            claim_code_sha256: None,
            hints: longhaul_protocol::inventory::NetworkHints::default(),
            made_at: MADE,
        }
    }

    fn sign(pki: &Pki, config: &BoxConfig) -> String {
        let identity = pki.issue_record_signer("factory", MADE).unwrap();
        let payload = serde_json::to_vec(config).unwrap();
        let Jws(compact) = Signer::new(&identity)
            .unwrap()
            .sign(Kind::BoxConfig, &payload)
            .unwrap();
        compact
    }

    #[test]
    fn a_configuration_is_believed_only_from_the_fleets_factory() {
        let ((_a, ours), (_b, others)) = (pki(), pki());
        let anchors = ours.root_anchor().unwrap();
        let none = BoxConfig {
            endpoints: Vec::new(),
            ..config()
        };

        assert_eq!(
            box_config(&sign(&ours, &config()), &anchors).unwrap(),
            config()
        );
        let forged = box_config(&sign(&others, &config()), &anchors);
        assert!(
            matches!(forged, Err(PapersError::Untrusted(_))),
            "{forged:?}"
        );
        let nowhere = box_config(&sign(&ours, &none), &anchors);
        assert!(matches!(nowhere, Err(PapersError::NoEndpoint)));
        for garbage in ["", "a.b.c", "...", "\u{0}"] {
            assert!(box_config(garbage, &anchors).is_err());
        }
    }

    #[test]
    fn a_missing_paper_is_named() {
        let dir = tempfile::tempdir().unwrap();

        let error = Papers::load(dir.path()).err().unwrap();

        assert!(error.to_string().contains("root.pem is missing"), "{error}");
    }
}
