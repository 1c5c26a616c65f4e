//! The simulated boxes' identities: each has its own key and certificate, as the real ones have.

use std::sync::Arc;

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::value::UnixMillis;
use longhaul_provisioning::ca::Pki;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::PrivatePkcs8KeyDer;

/// How long the certificates are valid, in seconds.
const VALID_SECS: u64 = 24 * 3600;

/// One simulated box.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name.
    pub id: BoxId,
    /// Its side of TLS.
    pub tls: Arc<ClientConfig>,
}

/// Why there are no identities.
#[derive(Debug, thiserror::Error)]
#[error("failed to make a simulated box's identity: {0}")]
pub struct IdentityError(String);

fn failed(error: impl std::fmt::Display) -> IdentityError {
    IdentityError(error.to_string())
}

/// Makes an identity for each of `ids`, on all processors.
///
/// # Errors
///
/// [`IdentityError`].
pub fn members(pki: &Pki, ids: &[BoxId], now: UnixMillis) -> Result<Vec<Member>, IdentityError> {
    let mut roots = RootCertStore::empty();
    roots.add(pki.root().clone()).map_err(failed)?;
    let maker = Maker {
        pki,
        roots: Arc::new(roots),
        provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        now,
    };
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

struct Maker<'a> {
    pki: &'a Pki,
    roots: Arc<RootCertStore>,
    provider: Arc<rustls::crypto::CryptoProvider>,
    now: UnixMillis,
}

impl Maker<'_> {
    fn member(&self, id: &BoxId) -> Result<Member, IdentityError> {
        let key = KeyPair::generate().map_err(failed)?;
        let spki = key.subject_public_key_info();
        let chain = self.pki.issue_ldevid(id, &spki, VALID_SECS, self.now);
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let mut tls = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_client_auth_cert(chain.map_err(failed)?, key.into())
            .map_err(failed)?;
        // Every connection shows its certificate, and nothing is kept for the next one.
        tls.resumption = Resumption::disabled();
        Ok(Member {
            id: id.clone(),
            tls: Arc::new(tls),
        })
    }
}
