//! A box's LAN side alone, for trying clients: the real intake and the real vault behind TLS on
//! loopback, without TPM and without a cloud.
//!
//! Prints one line of JSON with the address, the ticket's key pair, the bucket, and the paths of the
//! CA bundle and the ticket; serves until its standard input ends. `--capacity BYTES` makes a small
//! vault; `--dir DIR` keeps it where it can be opened again; `--receipts FILE` plays a cloud that has
//! these receipts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use futures::future::BoxFuture;
use longhaul_device::credentials::CredentialStore;
use longhaul_device::intake::{Arrivals, IntakeConfig, IntakeParts, Oddities, Proofs, serve};
use longhaul_device::lan;
use longhaul_device::status::StatusSource;
use longhaul_device::uplink::Holds;
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::lan::LanStatus;
use longhaul_protocol::receipt::{ReceiptAsk, ReceiptTexts};
use longhaul_protocol::telemetry::VaultFill;
use longhaul_protocol::ticket::{Credential, CredentialSet, Secret, Ticket, lan_name};
use longhaul_protocol::value::UnixMillis;
use longhaul_vault::{Vault, VaultConfig};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// A box's LAN side alone, for trying clients.
#[derive(Parser)]
struct Args {
    /// Bytes of disk the vault may use.
    #[arg(long, default_value_t = 4 << 30)]
    capacity: u64,
    /// Size of a segment or log file, in bytes.
    #[arg(long, default_value_t = 64 << 20)]
    segment: u64,
    /// A file of receipts to be given out to whoever has the ticket; none without it.
    #[arg(long)]
    receipts: Option<PathBuf>,
    /// A root certificate that the ticket trusts as well.
    #[arg(long)]
    root: Option<PathBuf>,
    /// Where state is kept; a temporary folder without it.
    #[arg(long)]
    dir: Option<PathBuf>,
}

const BUCKET: &str = "haul";
const SECRET: &str = "secret-of-the/ticket+1";
const FOR_EVER: UnixMillis = UnixMillis(4_102_444_800_000);

#[tokio::main]
async fn main() {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let temporary = tempfile::tempdir().expect("a folder");
    let dir = args.dir.unwrap_or_else(|| temporary.path().to_owned());
    let box_id = BoxId::from_ek_sha256(&[1; 32]);

    let config = VaultConfig {
        segment_bytes: args.segment,
        log_bytes: args.segment,
        checkpoint_bytes: 4 * args.segment,
        ..VaultConfig::new(dir.join("vault"), args.capacity)
    };
    let (vault, _) = Vault::open(config, &Zeroizing::new([7; 32]), Arc::new(now)).expect("a vault");
    let (mut root_pem, certified) = certificates(&box_id);
    if let Some(other) = &args.root {
        root_pem.push_str(&std::fs::read_to_string(other).expect("a certificate"));
    }
    let proofs = args.receipts.map(|path| {
        let receipts = std::fs::read_to_string(path).expect("receipts");
        let proofs: Arc<dyn Proofs> = Arc::new(Kept(receipts));
        proofs
    });
    let (identity, tls) = lan::channel().expect("TLS");
    identity.install(certified);
    let credentials = CredentialStore::default();
    credentials.replace(CredentialSet {
        desired_version: 1,
        credentials: vec![
            credential("ticket-1", BUCKET, "LONGHAULMAIN"),
            credential("ticket-2", "haul-other", "LONGHAULOTHER"),
        ],
    });
    let (_status, status) = StatusSource::channel(LanStatus {
        v: VERSION,
        box_id: box_id.clone(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        rungs: Vec::new(),
        vault: VaultFill::default(),
        identifying: false,
        uplink: None,
        capabilities: Vec::new(),
        network: None,
    });
    let parts = IntakeParts {
        vault,
        credentials,
        tls,
        status,
        arrivals: Arrivals::default(),
        proofs,
        oddities: Oddities::default(),
        holds: Holds::default(),
        clock: Arc::new(now),
    };
    let stop = CancellationToken::new();
    let listen = "127.0.0.1:0".parse().expect("an address");
    let (address, serving) = serve(IntakeConfig::new(listen), parts, stop.clone())
        .await
        .expect("listening");

    let url = format!("https://{address}");
    let (ca, ticket_path) = (dir.join("ca.pem"), dir.join("ticket.json"));
    std::fs::write(&ca, &root_pem).expect("written");
    let ticket = Ticket {
        v: 1,
        id: "ticket-1".parse().expect("an id"),
        box_id,
        order: None,
        bucket: BUCKET.to_owned(),
        region: "us-east-1".to_owned(),
        access_key: "LONGHAULMAIN".to_owned(),
        secret_key: Secret(SECRET.to_owned()),
        issued: None,
        expires: FOR_EVER,
        root_pem,
        lan_urls: vec![url.clone()],
        cloud_url: None,
    };
    std::fs::write(&ticket_path, serde_json::to_vec(&ticket).expect("JSON")).expect("written");
    println!(
        "{}",
        serde_json::json!({
            "url": url, "host": address.ip().to_string(), "port": address.port(),
            "bucket": BUCKET, "region": "us-east-1",
            "access_key": "LONGHAULMAIN", "secret_key": SECRET,
            "other_bucket": "haul-other", "other_access_key": "LONGHAULOTHER",
            "ca": ca, "ticket": ticket_path, "dir": dir,
        })
    );

    let serving = tokio::spawn(serving);
    let input = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    let _ = tokio::task::spawn_blocking(input).await;
    stop.cancel();
    let _ = serving.await;
}

/// Receipts as the cloud gave them.
struct Kept(String);

impl Proofs for Kept {
    fn page(&self, _: ReceiptAsk) -> BoxFuture<'_, Result<ReceiptTexts, String>> {
        let items = self.0.lines().map(str::to_owned).collect();
        Box::pin(async { Ok(ReceiptTexts { items, next: None }) })
    }
}

fn credential(ticket: &str, bucket: &str, access_key: &str) -> Credential {
    Credential {
        ticket: ticket.parse().expect("an id"),
        bucket: bucket.to_owned(),
        access_key: access_key.to_owned(),
        secret_key: Secret(SECRET.to_owned()),
        expires: FOR_EVER,
    }
}

/// A root, and a certificate for the box's LAN name and loopback.
fn certificates(box_id: &BoxId) -> (String, CertifiedKey) {
    let root_key = KeyPair::generate().expect("a key");
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.distinguished_name
        .push(DnType::CommonName, "test root");
    let root_pem = root.self_signed(&root_key).expect("a root").pem();
    let issuer = Issuer::new(root, root_key);
    let key = KeyPair::generate().expect("a key");
    let names = vec![
        lan_name(box_id),
        "127.0.0.1".to_owned(),
        "localhost".to_owned(),
    ];
    let leaf = CertificateParams::new(names)
        .and_then(|params| params.signed_by(&key, &issuer))
        .expect("a certificate");
    let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified =
        CertifiedKey::from_der(vec![leaf.der().clone()], key, &provider).expect("certified");
    (root_pem, certified)
}

#[expect(clippy::disallowed_methods, reason = "the clock of this program")]
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(0))
}
