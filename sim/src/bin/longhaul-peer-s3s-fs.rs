//! The file-backed server of the `s3s` project, as a peer for the benchmarks: what a server costs that
//! stands on the same library and neither encrypts nor waits for the disk. Plain HTTP, loopback only.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Parser;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;

/// Serve a folder by S3; what `longhaul-bench` measures beside the box.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Port on loopback.
    #[arg(long)]
    port: u16,
    /// Access key.
    #[arg(long)]
    access_key: String,
    /// Secret key.
    #[arg(long)]
    secret_key: String,
    /// The folder; its folders are the buckets.
    root: PathBuf,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cli = Cli::parse();
    let files = s3s_fs::FileSystem::new(cli.root).map_err(|e| format!("{e:?}"))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(cli.access_key, cli.secret_key));
    let service = builder.build();
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, cli.port))).await?;
    loop {
        let (socket, _) = listener.accept().await?;
        let connection =
            http1::Builder::new().serve_connection(TokioIo::new(socket), service.clone());
        // A connection that breaks is its client's affair.
        tokio::spawn(async move { drop(connection.await) });
    }
}
