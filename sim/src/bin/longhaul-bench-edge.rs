//! Our MQTT edge with a counter behind it, for `longhaul-bench-fleet`: what stands beside
//! mosquitto, as a process of its own.

use std::error::Error;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use longhaul_broker::{Admission, Edge, EdgeConfig, Refused, server_config};
use longhaul_protocol::ids::BoxId;
use longhaul_provisioning::ca::{Authority, Identity, Pki};
use rustls::RootCertStore;
use tokio_util::sync::CancellationToken;

/// The MQTT edge with a counter behind it.
#[derive(Debug, Parser)]
#[command(name = "longhaul-bench-edge", version)]
struct Cli {
    /// Where boxes connect.
    #[arg(long)]
    listen: SocketAddr,
    /// The fleet's authorities.
    #[arg(long)]
    pki: PathBuf,
    /// The edge's certificates and key, PEM.
    #[arg(long)]
    server: PathBuf,
    /// Limit what each box may send, as a shipped edge does.
    #[arg(long)]
    limits: bool,
    /// Where to write how many messages were taken.
    #[arg(long)]
    taken: PathBuf,
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
            eprintln!("longhaul-bench-edge: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<(), Box<dyn Error>> {
    let pki = Pki::open(&cli.pki)?;
    let mut issuers = RootCertStore::empty();
    issuers.add(pki.authority(Authority::Boxes)?.clone())?;
    let server = Identity::open(&cli.server)?.ok_or("there is no server certificate")?;
    let tls = Arc::new(server_config(
        server.chain().to_vec(),
        server.key(),
        issuers,
    )?);
    // What a closed loop can do is not what one box should: no limit on the rate.
    let shipped = EdgeConfig {
        listen: cli.listen,
        ..EdgeConfig::default()
    };
    let unlimited = EdgeConfig {
        listen: cli.listen,
        max_sessions: 200_000,
        max_packets_per_second: NonZeroU32::MAX,
        packet_burst: NonZeroU32::MAX,
        max_bytes_per_second: NonZeroU32::MAX,
        byte_burst: NonZeroU32::MAX,
        ..EdgeConfig::default()
    };
    let config = if cli.limits { shipped } else { unlimited };
    let stop = CancellationToken::new();
    let (edge, mut incoming) =
        Edge::start(config, move || Arc::clone(&tls), Arc::new(Everybody), stop).await?;
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        let mut taken = Vec::new();
        while incoming.recv_many(&mut taken, 1024).await > 0 {
            counted.fetch_add(taken.drain(..).count() as u64, Ordering::Relaxed);
        }
    });
    let mut every = tokio::time::interval(Duration::from_millis(200));
    let mut stopped = std::pin::pin!(edge.stopped());
    loop {
        tokio::select! {
            _ = every.tick() => write(&cli.taken, count.load(Ordering::Relaxed))?,
            ended = &mut stopped => return Ok(ended?),
        }
    }
}

/// Whole or not at all: the reader may come at any time.
fn write(path: &Path, count: u64) -> std::io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, count.to_string())?;
    std::fs::rename(new, path)
}
