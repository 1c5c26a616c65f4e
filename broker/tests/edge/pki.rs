//! Certificates made on the spot.

use std::sync::Arc;

use longhaul_broker::{BOX_URN, server_config};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// One authority for servers and boxes.
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    box_key: KeyPair,
}

fn pkcs8(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

impl Pki {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test root");
        let root = params.self_signed(&key).expect("a root").der().clone();
        Self {
            issuer: Issuer::new(params, key),
            root,
            box_key: KeyPair::generate().expect("a key"),
        }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("a root");
        roots
    }

    /// A server for `localhost`, trusting this authority's boxes.
    pub fn server(&self) -> Arc<ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let leaf = params.signed_by(&key, &self.issuer).expect("signed");
        let config = server_config(vec![leaf.der().clone()], pkcs8(&key), self.roots());
        Arc::new(config.expect("a TLS configuration"))
    }

    /// A certificate that names `box_id`, changed as the test needs it.
    pub fn certificate(
        &self,
        box_id: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        let uri = format!("{BOX_URN}{box_id}");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("ASCII"))];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let leaf = params.signed_by(&self.box_key, &self.issuer);
        leaf.expect("signed").der().clone()
    }

    /// A client that trusts this authority and shows `certificate`, which must be of this
    /// authority's boxes or of another's: all boxes of one authority share a key.
    pub fn client_with(
        &self,
        owner: &Self,
        certificate: CertificateDer<'static>,
    ) -> Arc<ClientConfig> {
        let mut config = client_builder(self.roots())
            .with_client_auth_cert(vec![certificate], pkcs8(&owner.box_key))
            .expect("a client certificate");
        config.resumption = rustls::client::Resumption::disabled();
        Arc::new(config)
    }

    /// A client with a valid certificate for `box_id`.
    pub fn client(&self, box_id: &str) -> Arc<ClientConfig> {
        self.client_with(self, self.certificate(box_id, |_| {}))
    }

    /// A client without a certificate.
    pub fn stranger(&self) -> Arc<ClientConfig> {
        Arc::new(client_builder(self.roots()).with_no_client_auth())
    }
}

fn client_builder(
    roots: RootCertStore,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_root_certificates(roots)
}
