//! The TLS terms that the edge needs: 1.3 only, client certificates required, nothing resumed.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why no TLS configuration could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The certificate chain or the key cannot be used.
    #[error("failed to use the edge's certificate and key")]
    Certificate(#[source] rustls::Error),
    /// There is no usable root for client certificates.
    #[error("failed to trust the roots of client certificates")]
    ClientRoots(#[source] rustls::server::VerifierBuilderError),
}

/// Builds the TLS configuration for [`Edge::start`](crate::Edge::start).
///
/// `client_roots` should hold nothing but the authority that issues box certificates. No session
/// is resumed and no ticket sent: every connection shows its certificate anew.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    client_roots: RootCertStore,
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let key = CertifiedKey::from_der(chain, key, &provider).map_err(TlsError::Certificate)?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(client_roots), Arc::clone(&provider))
            .build()
            .map_err(TlsError::ClientRoots)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Certificate)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
