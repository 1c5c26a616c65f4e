//! TLS towards those who are told: the authorities that this system trusts.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};

/// Trusts the authorities that this system trusts.
///
/// # Errors
///
/// If TLS cannot be set up.
pub fn public() -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    of(roots)
}

/// Trusts these authorities.
///
/// # Errors
///
/// If TLS cannot be set up.
pub fn of(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
