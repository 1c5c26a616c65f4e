//! Keeps the LAN endpoint's certificate: a software key, certified by the cloud for this box.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use longhaul_protocol::enrol::{LAN_CERTIFICATE_PATH, LanCertificate, LanCertificateRequest};
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::value::{Blob, UnixMillis};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::agent::Backoff;
use crate::clock;
use crate::cloud::{CloudClient, CloudError, chain};
use crate::lan::LanIdentity;
use crate::rungs;
use crate::sealed::{MasterKey, SealError};

/// The addresses of the box and the age of its certificate are looked at this often.
const LOOK: Duration = Duration::from_secs(30);
/// Addresses in a certificate at the most.
const MAX_ADDRESSES: usize = 16;

#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Cloud(#[from] CloudError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("failed to make the LAN endpoint's key or request")]
    Request(#[from] rcgen::Error),
    #[error("the LAN certificate cannot be used")]
    Tls(#[from] rustls::Error),
    #[error("storing the LAN certificate failed")]
    Panicked,
}

/// The certificate and its key, as they lie sealed on the disk.
#[derive(Clone, Deserialize, Serialize)]
struct Kept {
    key: Blob,
    chain: Vec<Blob>,
    addresses: Vec<IpAddr>,
    issued: UnixMillis,
    expires: UnixMillis,
}

impl Kept {
    fn certified(&self) -> Result<CertifiedKey, rustls::Error> {
        let chain = self.chain.iter().map(|c| CertificateDer::from(c.0.clone()));
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.0.clone()));
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?;
        let certified = CertifiedKey::new(chain.collect(), key);
        certified.keys_match()?;
        Ok(certified)
    }

    /// Whether it is time for another one.
    fn is_due(&self, addresses: &[IpAddr], now: UnixMillis) -> bool {
        let half = self.expires.millis_since(self.issued) / 2;
        now.millis_since(self.issued) >= half
            || addresses.iter().any(|a| !self.addresses.contains(a))
    }
}

/// A key and its certificate that came another way.
pub(super) struct Offer {
    /// The key, PKCS #8.
    pub key: Blob,
    pub certificate: LanCertificate,
    pub addresses: Vec<IpAddr>,
    /// Told when they are on the disk and in use, or why not.
    pub done: oneshot::Sender<Result<(), String>>,
}

pub(super) struct LanKeeper {
    path: PathBuf,
    key: Arc<MasterKey>,
    cloud: CloudClient,
    identity: LanIdentity,
    offers: mpsc::Receiver<Offer>,
}

impl LanKeeper {
    pub fn new(
        state: &Path,
        key: Arc<MasterKey>,
        cloud: CloudClient,
        identity: LanIdentity,
        offers: mpsc::Receiver<Offer>,
    ) -> Self {
        Self {
            path: state.join("lan.sealed"),
            key,
            cloud,
            identity,
            offers,
        }
    }

    /// Keeps a certificate in place until told to stop.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut kept = self.take_up();
        let mut backoff = Backoff::new(1_000, 300_000);
        loop {
            let addresses = certifiable(&rungs::lan_addresses());
            let due = kept
                .as_ref()
                .is_none_or(|k| k.is_due(&addresses, clock::wall()));
            let mut wait = LOOK;
            if due && self.cloud.is_enrolled() {
                match self.renew(addresses).await {
                    Ok(new) => {
                        tracing::info!(expires = new.expires.0, "LAN certificate");
                        backoff.reset();
                        kept = Some(new);
                    }
                    Err(error) => {
                        tracing::warn!(error = chain(&error), "no LAN certificate");
                        wait = Duration::from_millis(backoff.next(rand::random()));
                    }
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
                Some(offer) = self.offers.recv() => {
                    let Offer { key, certificate, addresses, done } = offer;
                    let taken = self.keep(key, certificate, addresses, clock::wall()).await;
                    let taken = taken.map(|new| kept = Some(new)).map_err(|e| chain(&e));
                    let _ = done.send(taken);
                }
                true = self.cloud.enrolled(), if !self.cloud.is_enrolled() => {}
            }
        }
    }

    /// What lies on the disk, where it still holds.
    fn take_up(&self) -> Option<Kept> {
        let read = self.key.read(&self.path).inspect_err(|error| {
            tracing::warn!(error = chain(error), "LAN certificate on disk is unusable");
        });
        let kept: Kept = serde_json::from_slice(&read.ok()??).ok()?;
        if clock::wall() >= kept.expires {
            return None;
        }
        self.identity.install(kept.certified().ok()?);
        Some(kept)
    }

    async fn renew(&self, addresses: Vec<IpAddr>) -> Result<Kept, KeepError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let csr = CertificateParams::default().serialize_request(&key)?;
        let request = LanCertificateRequest {
            v: VERSION,
            csr: Blob(csr.der().to_vec()),
            addresses: addresses.clone(),
        };
        let issued = clock::wall();
        let answer: LanCertificate = self.cloud.post(LAN_CERTIFICATE_PATH, &request).await?;
        let key = Blob(key.serialize_der());
        self.keep(key, answer, addresses, issued).await
    }

    /// Takes a certificate into service; it is on the disk before.
    async fn keep(
        &self,
        key: Blob,
        certificate: LanCertificate,
        addresses: Vec<IpAddr>,
        issued: UnixMillis,
    ) -> Result<Kept, KeepError> {
        let kept = Kept {
            key,
            chain: certificate.certificate_chain,
            addresses,
            issued,
            expires: certificate.expires,
        };
        let certified = kept.certified()?;
        let clear = serde_json::to_vec(&kept).map(zeroize::Zeroizing::new);
        let clear = clear.map_err(|_| SealError::Crypto("encode the LAN certificate"))?;
        let (sealer, path) = (Arc::clone(&self.key), self.path.clone());
        tokio::task::spawn_blocking(move || sealer.write(&path, &clear))
            .await
            .map_err(|_| KeepError::Panicked)??;
        self.identity.install(certified);
        Ok(kept)
    }
}

/// Addresses that a certificate of ours may name: those that mean this box on its own network.
pub(super) fn certifiable(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let private = addresses.iter().filter(|address| match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_loopback(),
    });
    let mut private: Vec<_> = private.copied().collect();
    private.sort();
    private.dedup();
    private.truncate(MAX_ADDRESSES);
    private
}
