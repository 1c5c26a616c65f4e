//! The simulated boxes' identities: each has its own key and certificate, as the real ones have.

use std::sync::Arc;

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::value::{Jws, UnixMillis};
use longhaul_provisioning::ca::Pki;
use longhaul_provisioning::jws::{Kind, Signer};
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::soft_tpm::SoftTpm;

/// How long the certificates are valid, in seconds.
const VALID_SECS: u64 = 24 * 3600;

/// One simulated box.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name.
    pub id: BoxId,
    /// Its side of TLS.
    pub tls: Arc<ClientConfig>,
    /// What it enrols with; without, its certificate is never renewed.
    pub papers: Option<Arc<Papers>>,
}

/// What a box has to enrol.
#[derive(Debug)]
pub struct Papers {
    /// Its keys.
    pub tpm: SoftTpm,
    /// The factory's record of it.
    pub record: Jws,
    /// Its side of TLS at first contact.
    pub idevid: Arc<ClientConfig>,
    /// When its first certificate was issued.
    pub issued: UnixMillis,
    /// When that ends.
    pub expires: UnixMillis,
    /// Makes its side of TLS.
    pub side: Side,
}

/// Why there are no identities.
#[derive(Debug, thiserror::Error)]
#[error("failed to make a simulated box's identity: {0}")]
pub struct IdentityError(String);

pub(super) fn failed(error: impl std::fmt::Display) -> IdentityError {
    IdentityError(error.to_string())
}

/// Makes an identity for each of `ids`, on all processors.
///
/// # Errors
///
/// [`IdentityError`].
pub fn members(pki: &Pki, ids: &[BoxId], now: UnixMillis) -> Result<Vec<Member>, IdentityError> {
    let side = Side::new(pki)?;
    let maker = Maker { pki, side, now };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = ids.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let working: Vec<_> = ids
            .chunks(share)
            .map(|ids| scope.spawn(|| ids.iter().map(|id| maker.member(id)).collect()))
            .collect();
        let mut all = Vec::with_capacity(ids.len());
        for worker in working {
            let made: Result<Vec<Member>, IdentityError> = worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.extend(made?);
        }
        Ok(all)
    })
}

/// Makes a box for each of `validity`, with a TPM in software: its certificate is valid from `now` for so
/// many seconds, and it can enrol for the next.
///
/// # Errors
///
/// [`IdentityError`].
pub fn enrolling(
    pki: &Pki,
    validity: impl IntoIterator<Item = u64>,
    now: UnixMillis,
) -> Result<Vec<Member>, IdentityError> {
    let factory = pki.issue_record_signer("simulator", now).map_err(failed)?;
    let signer = Signer::new(&factory).map_err(failed)?;
    let side = Side::new(pki)?;
    let one = |valid_secs: u64| {
        let tpm = SoftTpm::new()?;
        let id = tpm.box_id();
        let spki = tpm.idevid.subject_public_key_info();
        let idevid = pki.issue_idevid(&id, &spki, now).map_err(failed)?;
        let record = serde_json::to_vec(&tpm.record(&idevid[0], now)).map_err(failed)?;
        let record = signer.sign(Kind::Inventory, &record).map_err(failed)?;
        let key = KeyPair::generate().map_err(failed)?;
        let in_service = pki.issue_ldevid(&id, &key.subject_public_key_info(), valid_secs, now);
        Ok(Member {
            tls: side.config(in_service.map_err(failed)?, &key)?,
            papers: Some(Arc::new(Papers {
                idevid: side.config(idevid, &tpm.idevid)?,
                issued: now,
                expires: now.plus_millis(i64::try_from(valid_secs).unwrap_or(0) * 1000),
                side: side.clone(),
                record,
                tpm,
            })),
            id,
        })
    };
    validity.into_iter().map(one).collect()
}

/// Makes boxes' sides of TLS.
#[derive(Clone, Debug)]
pub struct Side {
    roots: Arc<RootCertStore>,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl Side {
    fn new(pki: &Pki) -> Result<Self, IdentityError> {
        let mut roots = RootCertStore::empty();
        roots.add(pki.root().clone()).map_err(failed)?;
        Ok(Self {
            roots: Arc::new(roots),
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        })
    }

    /// The side of whoever has this certificate and key.
    ///
    /// # Errors
    ///
    /// [`IdentityError`].
    pub fn config(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: &KeyPair,
    ) -> Result<Arc<ClientConfig>, IdentityError> {
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let mut tls = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_client_auth_cert(chain, key.into())
            .map_err(failed)?;
        // Every connection shows its certificate, and nothing is kept for the next one.
        tls.resumption = Resumption::disabled();
        Ok(Arc::new(tls))
    }
}

struct Maker<'a> {
    pki: &'a Pki,
    side: Side,
    now: UnixMillis,
}

impl Maker<'_> {
    fn member(&self, id: &BoxId) -> Result<Member, IdentityError> {
        let key = KeyPair::generate().map_err(failed)?;
        let spki = key.subject_public_key_info();
        let chain = self.pki.issue_ldevid(id, &spki, VALID_SECS, self.now);
        Ok(Member {
            id: id.clone(),
            tls: self.side.config(chain.map_err(failed)?, &key)?,
            papers: None,
        })
    }
}
