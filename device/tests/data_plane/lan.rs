//! An intake on loopback with its own authority, ticket and vault, and S3 clients for it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Region};
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use longhaul_device::credentials::CredentialStore;
use longhaul_device::intake::{Arrivals, IntakeConfig, IntakeParts, Oddities, serve};
use longhaul_device::journal::{self, JournalHandle};
use longhaul_device::lan;
use longhaul_device::receipts::Receipts;
use longhaul_device::status::StatusSource;
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::lan::LanStatus;
use longhaul_protocol::telemetry::VaultFill;
use longhaul_protocol::ticket::{Credential, CredentialSet, Secret, Ticket, lan_name};
use longhaul_protocol::value::UnixMillis;
use longhaul_vault::{Vault, VaultConfig};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::sign::CertifiedKey;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

pub const BUCKET: &str = "haul-1";
pub const SECRET: &str = "secret-of-the-ticket";
/// The tests' wall clock, in milliseconds since 1970.
pub const NOW: i64 = 1_700_000_000_000;

/// An authority for loopback addresses.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
    pub der: rustls_pki_types::CertificateDer<'static>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test root");
        let certificate = params.self_signed(&key).unwrap();
        Self {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for 127.0.0.1 and for the box's own name.
    pub fn loopback(&self) -> CertifiedKey {
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), lan_name(&box_id())];
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        CertifiedKey::from_der(vec![certificate.der().clone()], key, &provider).unwrap()
    }

    /// TLS that trusts this authority alone.
    pub fn client_tls(&self) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        tls
    }
}

/// A vault and a journal in `dir`.
pub fn open_vault(dir: &Path, config: impl FnOnce(VaultConfig) -> VaultConfig) -> Vault {
    let mut vault = config(VaultConfig::new(dir.join("vault"), 1 << 30));
    vault.direct_io = false;
    let clock: longhaul_vault::Clock = Arc::new(|| NOW);
    Vault::open(vault, &Zeroizing::new([7; 32]), clock)
        .unwrap()
        .0
}

pub fn open_receipts(dir: &Path) -> Receipts {
    let fresh = || "receipts-1".parse().unwrap();
    Receipts::open(&dir.join("receipts"), fresh, || UnixMillis(NOW)).unwrap()
}

pub fn open_journal(dir: &Path) -> JournalHandle {
    let epoch = "epoch-1".parse().unwrap();
    let (handle, _) =
        journal::open(&dir.join("journal"), 64 << 20, epoch, || UnixMillis(NOW)).unwrap();
    handle
}

/// The box that serves.
pub fn box_id() -> BoxId {
    BoxId::from_ek_sha256(&[1; 32])
}

pub fn credential(access_key: &str, expires: i64) -> Credential {
    Credential {
        ticket: "ticket-1".parse().unwrap(),
        bucket: BUCKET.to_owned(),
        access_key: access_key.to_owned(),
        secret_key: Secret(SECRET.to_owned()),
        expires: UnixMillis(expires),
    }
}

/// An intake that serves until it is dropped or stopped.
pub struct Lan {
    pub address: SocketAddr,
    pub authority: Authority,
    pub vault: Vault,
    pub credentials: CredentialStore,
    pub stop: CancellationToken,
    pub task: JoinHandle<()>,
    pub dir: TempDir,
}

impl Lan {
    pub async fn start() -> Self {
        Self::with(|vault| vault, |intake| intake).await
    }

    pub async fn with(
        vault: impl FnOnce(VaultConfig) -> VaultConfig,
        intake: impl FnOnce(IntakeConfig) -> IntakeConfig,
    ) -> Self {
        Self::at(vault, intake, || NOW).await
    }

    /// With a clock of its own.
    pub async fn at(
        vault: impl FnOnce(VaultConfig) -> VaultConfig,
        intake: impl FnOnce(IntakeConfig) -> IntakeConfig,
        clock: impl Fn() -> i64 + Send + Sync + 'static,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let vault = open_vault(dir.path(), vault);
        let authority = Authority::new();
        let (identity, tls) = lan::channel().unwrap();
        identity.install(authority.loopback());
        let credentials = CredentialStore::default();
        credentials.replace(CredentialSet {
            desired_version: 1,
            credentials: vec![credential("ACTIVE", NOW + 1000), credential("ENDED", NOW)],
        });
        let (_, status) = StatusSource::channel(LanStatus {
            v: VERSION,
            box_id: box_id(),
            agent_version: "1.0.0".to_owned(),
            rungs: Vec::new(),
            vault: VaultFill::default(),
            identifying: false,
            uplink: None,
            capabilities: Vec::new(),
            network: None,
        });
        let parts = IntakeParts {
            vault: vault.clone(),
            credentials: credentials.clone(),
            tls,
            status,
            arrivals: Arrivals::default(),
            proofs: None,
            oddities: Oddities::default(),
            holds: longhaul_device::uplink::Holds::default(),
            clock: Arc::new(clock),
        };
        let stop = CancellationToken::new();
        let config = intake(IntakeConfig::new("127.0.0.1:0".parse().unwrap()));
        let (address, serving) = serve(config, parts, stop.clone()).await.unwrap();
        Self {
            address,
            authority,
            vault,
            credentials,
            task: tokio::spawn(serving),
            stop,
            dir,
        }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The ticket, as a customer downloads it.
    pub fn ticket(&self) -> Ticket {
        let credential = credential("ACTIVE", NOW + 1000);
        Ticket {
            v: VERSION,
            id: credential.ticket,
            box_id: box_id(),
            order: None,
            bucket: credential.bucket,
            region: "us-east-1".to_owned(),
            access_key: credential.access_key,
            secret_key: credential.secret_key,
            issued: None,
            expires: credential.expires,
            root_pem: self.authority.pem.clone(),
            lan_urls: vec![self.url()],
            cloud_url: None,
        }
    }

    /// The ticket's client.
    pub fn client(&self) -> Client {
        self.client_as("ACTIVE", SECRET)
    }

    pub fn client_as(&self, access_key: &str, secret: &str) -> Client {
        s3_client(&self.url(), &self.authority.pem, access_key, secret)
    }
}

/// An S3 client that trusts `root_pem` alone.
pub fn s3_client(url: &str, root_pem: &str, access_key: &str, secret: &str) -> Client {
    let trust = TrustStore::empty().with_pem_certificate(root_pem.as_bytes());
    let tls = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .unwrap();
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(tls)
        .build_https();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(url)
        .force_path_style(true)
        .retry_config(aws_sdk_s3::config::retry::RetryConfig::disabled())
        .credentials_provider(Credentials::new(access_key, secret, None, None, "test"))
        .http_client(http)
        .build();
    Client::from_conf(config)
}

/// Bytes that look random and are the same every time.
pub fn noise(len: usize, seed: u8) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new()
        .update(&[seed])
        .finalize_xof()
        .fill(&mut out);
    out
}

/// An error's code and message.
pub fn code<E: ProvideErrorMetadata, R>(
    error: &aws_sdk_s3::error::SdkError<E, R>,
) -> (String, String) {
    (
        error.code().unwrap_or_default().to_owned(),
        error.message().unwrap_or_default().to_owned(),
    )
}

/// A plain client of HTTP/2 that trusts the intake; offered both, the box takes HTTP/1.1.
pub fn https(lan: &Lan) -> reqwest::Client {
    let mut tls = lan.authority.client_tls();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .build()
        .unwrap()
}
