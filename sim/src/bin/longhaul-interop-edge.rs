//! Our MQTT edge for the tests of an independent client: makes papers for some boxes, answers each
//! message with itself (on `dn/command` what came on `up/command`, else on `dn/ack`), and writes down
//! what it took. `scripts/interop.sh` runs it.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Parser;
use longhaul_broker::{Admission, Edge, EdgeConfig, Refused, server_config};
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::topic::{Dn, Up};
use longhaul_protocol::value::UnixMillis;
use longhaul_provisioning::ca::{Authority, Identity};
use longhaul_sim::fleet::servers::Papers;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::RootCertStore;
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Certificates are for one run of tests, in seconds.
const VALID_SECS: u64 = 24 * 3600;

/// An MQTT edge that answers each message with itself.
#[derive(Debug, Parser)]
#[command(name = "longhaul-interop-edge", version)]
struct Cli {
    /// An empty folder: papers, `ready.json` and `taken.jsonl` go there.
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
    /// How many boxes get papers: B00000000000 and so on.
    #[arg(long, value_name = "NUMBER", default_value_t = 12)]
    boxes: usize,
    /// The time now, in seconds since 1970, as `date +%s` prints it.
    #[arg(long, value_name = "SECONDS")]
    now: i64,
}

/// Every box whose certificate is valid.
struct Everybody;

impl Admission for Everybody {
    fn admit(&self, _: &BoxId, _: &[u8]) -> Result<(), Refused> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("longhaul-interop-edge: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<(), Box<dyn Error>> {
    let papers = Papers::make(&cli.folder, UnixMillis(cli.now.saturating_mul(1000)))?;
    for number in 0..cli.boxes {
        let id: BoxId = format!("B{number:011}").parse()?;
        let key = KeyPair::generate()?;
        let spki = key.subject_public_key_info();
        let now = UnixMillis(cli.now.saturating_mul(1000));
        let chain = papers.pki.issue_ldevid(&id, &spki, VALID_SECS, now)?;
        let mut text = pem("PRIVATE KEY", key.serialized_der());
        for certificate in &chain {
            text.push_str(&pem("CERTIFICATE", certificate));
        }
        fs::write(cli.folder.join(format!("{id}.pem")), text)?;
    }
    let mut issuers = RootCertStore::empty();
    issuers.add(papers.pki.authority(Authority::Boxes)?.clone())?;
    let server = Identity::open(&cli.folder.join("server.pem"))?;
    let server = server.ok_or("there is no server certificate")?;
    let tls = server_config(server.chain().to_vec(), server.key(), issuers)?;
    let tls = Arc::new(tls);
    let config = EdgeConfig {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        ..EdgeConfig::default()
    };
    let stop = CancellationToken::new();
    let (edge, mut incoming) =
        Edge::start(config, move || Arc::clone(&tls), Arc::new(Everybody), stop).await?;
    let mut taken = File::create(cli.folder.join("taken.jsonl"))?;
    ready(&cli.folder, edge.local_addr())?;
    while let Some(message) = incoming.recv().await {
        let payload = STANDARD.encode(&message.payload);
        let (id, channel) = (message.box_id.as_str(), format!("{:?}", message.channel));
        let line = json!({ "box": id, "channel": channel.to_lowercase(), "payload": payload });
        writeln!(taken, "{line}")?;
        let answer = match message.channel {
            Up::Command => Dn::Command,
            _ => Dn::Ack,
        };
        // A box that has gone meanwhile wants no answer.
        let _ = edge.publish(&message.box_id, answer, message.payload);
    }
    Ok(edge.stopped().await?)
}

/// Whole or not at all: the reader may come at any time.
fn ready(folder: &Path, address: SocketAddr) -> std::io::Result<()> {
    let new = folder.join("ready.new");
    fs::write(&new, json!({ "port": address.port() }).to_string())?;
    fs::rename(new, folder.join("ready.json"))
}

fn pem(tag: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let lines = lines.collect::<Vec<_>>().join("\n");
    format!("-----BEGIN {tag}-----\n{lines}\n-----END {tag}-----\n")
}
