//! The cloud's own keys and certificates: made from the authorities, renewed before they expire.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use longhaul_protocol::value::UnixMillis;
use longhaul_provisioning::ca::{Authority, CaError, Identity, Pki, ServerNames};
use longhaul_provisioning::jws::{JwsError, Signer};
use longhaul_provisioning::trust::Anchors;
use parking_lot::RwLock;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long the cloud's servers and its command signer are certified.
const VALIDITY_SECS: u64 = 90 * 86_400;
/// Renewed when less than this is left, in milliseconds.
const RENEW_MS: i64 = 30 * 86_400 * 1000;

/// Why the cloud has no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The authorities could not be made or used.
    #[error("the certificate authorities are unusable")]
    Authorities(#[from] CaError),
    /// The command signer is unusable.
    #[error("the command signer is unusable")]
    Signer(#[from] JwsError),
    /// TLS cannot use the certificates.
    #[error("TLS cannot use the certificates")]
    Tls(#[from] rustls::Error),
    /// The verifier of client certificates could not be made.
    #[error("client certificates cannot be verified")]
    ClientVerifier(#[from] rustls::server::VerifierBuilderError),
    /// The edge cannot use the certificates.
    #[error("the MQTT edge cannot use the certificates")]
    Edge(#[from] longhaul_broker::TlsError),
}

/// What the listeners show.
#[derive(Clone)]
pub struct TlsConfigs {
    /// For people: no client certificate.
    pub people: Arc<ServerConfig>,
    /// For boxes over HTTPS: a certificate from the boxes' or the factory's authority.
    pub boxes: Arc<ServerConfig>,
    /// For boxes over MQTT: a certificate from the boxes' authority.
    pub mqtt: Arc<ServerConfig>,
    /// For the object store: no client certificate, HTTP/1.1 only.
    pub s3: Arc<ServerConfig>,
}

/// The authorities and what the cloud has from them.
pub struct CloudIdentity {
    pki: Pki,
    anchors: Anchors,
    dir: PathBuf,
    names: ServerNames,
    signer: RwLock<Arc<Signer>>,
    stater: RwLock<Arc<Signer>>,
    tls: RwLock<TlsConfigs>,
}

impl CloudIdentity {
    /// Opens the authorities in `dir/pki`, making them if there are none, and the cloud's own keys
    /// in `dir/identity`.
    pub fn open(dir: &Path, names: ServerNames, now: UnixMillis) -> Result<Self, IdentityError> {
        let pki_dir = dir.join("pki");
        let pki = if pki_dir.exists() {
            Pki::open(&pki_dir)?
        } else {
            tracing::info!(path = %pki_dir.display(), "making the certificate authorities");
            Pki::init(&pki_dir, now)?
        };
        let anchors = pki.root_anchor()?;
        let own = dir.join("identity");
        longhaul_provisioning::files::make_dir(&own).map_err(CaError::from)?;
        let signer = signer(&pki, &own, now)?;
        let stater = stater(&pki, &own, now)?;
        let tls = tls(&pki, &own, &names, now)?;
        Ok(Self {
            pki,
            anchors,
            dir: own,
            names,
            signer: RwLock::new(Arc::new(signer)),
            stater: RwLock::new(Arc::new(stater)),
            tls: RwLock::new(tls),
        })
    }

    /// Renews whatever expires soon.
    pub fn renew(&self, now: UnixMillis) -> Result<(), IdentityError> {
        let signer = signer(&self.pki, &self.dir, now)?;
        *self.signer.write() = Arc::new(signer);
        let stater = stater(&self.pki, &self.dir, now)?;
        *self.stater.write() = Arc::new(stater);
        let tls = tls(&self.pki, &self.dir, &self.names, now)?;
        *self.tls.write() = tls;
        Ok(())
    }

    /// The authorities.
    pub const fn pki(&self) -> &Pki {
        &self.pki
    }

    /// The fleet's root, to verify what others signed.
    pub const fn anchors(&self) -> &Anchors {
        &self.anchors
    }

    /// Who signs commands and desired state.
    pub fn signer(&self) -> Arc<Signer> {
        self.signer.read().clone()
    }

    /// Who signs what the cloud states to customers: it cannot command a box.
    pub fn stater(&self) -> Arc<Signer> {
        self.stater.read().clone()
    }

    /// What the listeners show now.
    pub fn tls(&self) -> TlsConfigs {
        self.tls.read().clone()
    }
}

/// Whether the leaf is valid for long enough.
fn is_fresh(identity: &Identity, now: UnixMillis) -> bool {
    identity.chain().first().is_some_and(|leaf| {
        expires(leaf).is_some_and(|expires| expires.millis_since(now) > RENEW_MS)
    })
}

/// When a certificate (DER) expires.
pub fn expires(certificate: &[u8]) -> Option<UnixMillis> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(UnixMillis(
        parsed.validity().not_after.timestamp().saturating_mul(1000),
    ))
}

/// Whether the chain's issuer is one of today's authorities: a data directory can be given new ones.
fn is_ours(identity: &Identity, pki: &Pki, authority: Authority) -> Result<bool, IdentityError> {
    let issuer = pki.authority(authority)?;
    Ok(identity.chain().get(1) == Some(issuer))
}

fn signer(pki: &Pki, dir: &Path, now: UnixMillis) -> Result<Signer, IdentityError> {
    kept(pki, &dir.join("command-signer.pem"), now, || {
        pki.issue_command_signer("longhaul-cloud", VALIDITY_SECS, now)
    })
}

fn stater(pki: &Pki, dir: &Path, now: UnixMillis) -> Result<Signer, IdentityError> {
    kept(pki, &dir.join("statement-signer.pem"), now, || {
        pki.issue_statement_signer("longhaul-cloud", VALIDITY_SECS, now)
    })
}

/// The signer in this file, made anew where it expires soon or was made by other authorities.
fn kept(
    pki: &Pki,
    path: &Path,
    now: UnixMillis,
    issue: impl FnOnce() -> Result<Identity, CaError>,
) -> Result<Signer, IdentityError> {
    if let Some(kept) = Identity::open(path)?
        && is_fresh(&kept, now)
        && is_ours(&kept, pki, Authority::Commands)?
    {
        return Ok(Signer::new(&kept)?);
    }
    let made = issue()?;
    made.save(path)?;
    Ok(Signer::new(&made)?)
}

fn tls(
    pki: &Pki,
    dir: &Path,
    names: &ServerNames,
    now: UnixMillis,
) -> Result<TlsConfigs, IdentityError> {
    let path = dir.join("server.pem");
    // Which names the kept certificate is for; another set of names makes a new one.
    let names_path = dir.join("server-names.txt");
    let wanted = format!("{:?} {:?}", names.dns, names.ips);
    let same_names = longhaul_provisioning::files::read(&names_path)
        .map_err(CaError::from)?
        .is_some_and(|kept| kept == wanted.as_bytes());
    let server = match Identity::open(&path)? {
        Some(kept)
            if same_names && is_fresh(&kept, now) && is_ours(&kept, pki, Authority::Servers)? =>
        {
            kept
        }
        _ => {
            let made = pki.issue_server(names.clone(), VALIDITY_SECS, now)?;
            made.save(&path)?;
            longhaul_provisioning::files::write(&names_path, wanted.as_bytes())
                .map_err(CaError::from)?;
            made
        }
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let open = |alpn: &[&[u8]]| -> Result<Arc<ServerConfig>, IdentityError> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(server.chain().to_vec(), server.key())?;
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Ok(Arc::new(config))
    };
    let mut issuers = RootCertStore::empty();
    issuers.add(pki.authority(Authority::Boxes)?.clone())?;
    let mqtt =
        longhaul_broker::server_config(server.chain().to_vec(), server.key(), issuers.clone())?;
    issuers.add(pki.authority(Authority::Factory)?.clone())?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(issuers), Arc::clone(&provider))
            .build()?;
    let mut boxes = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(server.chain().to_vec(), server.key())?;
    // Every connection proves its certificate anew: a resumed one would outlive a revocation.
    boxes.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    boxes.send_tls13_tickets = 0;
    boxes.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsConfigs {
        people: open(&[b"h2", b"http/1.1"])?,
        boxes: Arc::new(boxes),
        mqtt: Arc::new(mqtt),
        s3: open(&[b"http/1.1"])?,
    })
}
