//! The LAN endpoint's TLS: a short-lived software key, certified by the cloud through the TPM's.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

/// TLS for the LAN endpoint; clones share one certificate, which is replaced at renewal.
#[derive(Clone)]
pub struct LanTls {
    config: Arc<rustls::ServerConfig>,
    ready: watch::Receiver<bool>,
}

/// Gives the endpoint its certificate.
pub struct LanIdentity {
    key: Arc<Current>,
    ready: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Current(RwLock<Option<Arc<CertifiedKey>>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().clone()
    }
}

/// An endpoint without a certificate yet, and the means to give it one.
pub fn channel() -> Result<(LanIdentity, LanTls), rustls::Error> {
    let key = Arc::new(Current::default());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // Customers' S3 clients may be old: TLS 1.2 is accepted on the LAN.
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&key) as Arc<dyn ResolvesServerCert>);
    // In our order of preference: files of several MB flow best over a connection each. Frames of
    // HTTP/2 are cut into TLS records once more, and share one window.
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    let (ready, follow) = watch::channel(false);
    let tls = LanTls {
        config: Arc::new(config),
        ready: follow,
    };
    Ok((LanIdentity { key, ready }, tls))
}

impl LanIdentity {
    /// New connections get this certificate.
    pub fn install(&self, key: CertifiedKey) {
        *self.key.0.write() = Some(Arc::new(key));
        self.ready.send_replace(true);
    }
}

impl LanTls {
    /// The configuration to accept connections with.
    pub fn config(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Waits for the first certificate; false if there never will be one, because the agent stops.
    pub async fn ready(&self) -> bool {
        self.ready.clone().wait_for(|ready| *ready).await.is_ok()
    }
}
