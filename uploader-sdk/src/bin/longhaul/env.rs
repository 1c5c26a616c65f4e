//! `longhaul s3-env`: settings for other S3 clients.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use longhaul_sdk::{BoxClient, state_dir};
use serde::Serialize;

use crate::args::{Cli, Place};
use crate::env_forms;
use crate::exit::{Exit, Failure, connect};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    pub place: Place,
}

/// For whom; shell variables for aws-cli where none is named.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one option each, one at most"
)]
struct Form {
    /// A section for rclone.conf
    #[arg(long)]
    rclone: bool,
    /// Python that makes a boto3 client
    #[arg(long)]
    boto3: bool,
    /// Shell variables for s5cmd
    #[arg(long)]
    s5cmd: bool,
    /// A configuration file for s3cmd
    #[arg(long)]
    s3cmd: bool,
}

/// What another client must know.
#[derive(Serialize)]
pub struct Settings {
    pub endpoint: String,
    /// `ADDRESS NAME`, where the endpoint's name must first be made to resolve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts_line: Option<String>,
    pub bucket: String,
    pub region: String,
    pub access_key: String,
    pub secret_key: String,
    pub ca_bundle: PathBuf,
}

pub async fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let client = connect(&args.place).await?;
    let settings = settings(&client).await?;
    if cli.json {
        let document = serde_json::to_string(&settings).map_err(|e| Failure::failed(&e))?;
        println!("{document}");
    } else {
        let form = match &args.form {
            Form { rclone: true, .. } => env_forms::rclone,
            Form { boto3: true, .. } => env_forms::boto3,
            Form { s3cmd: true, .. } => env_forms::s3cmd,
            Form { s5cmd: true, .. } => env_forms::s5cmd,
            _ => env_forms::aws,
        };
        print!("{}", form(&settings));
    }
    Ok(Exit::Ok)
}

async fn settings(client: &BoxClient) -> Result<Settings, Failure> {
    let ticket = client.ticket();
    let addr = client.endpoint().addr;
    // Other clients check the name that they connect to, and cannot be told another one.
    let (endpoint, hosts_line) = if client.proves_address().await {
        (format!("https://{addr}"), None)
    } else {
        let name = longhaul_sdk::protocol::ticket::lan_name(&ticket.box_id);
        (
            client.url().to_owned(),
            Some(format!("{} {name}", addr.ip())),
        )
    };
    Ok(Settings {
        endpoint,
        hosts_line,
        bucket: ticket.bucket.clone(),
        region: ticket.region.clone(),
        access_key: ticket.access_key.clone(),
        secret_key: ticket.secret_key.0.clone(),
        ca_bundle: write_roots(client).map_err(|e| Failure::failed(&e))?,
    })
}

fn write_roots(client: &BoxClient) -> std::io::Result<PathBuf> {
    let dir = state_dir().ok_or_else(|| {
        std::io::Error::other("no place for the CA bundle: set HOME or XDG_STATE_HOME")
    })?;
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{}-ca.pem", client.ticket().box_id));
    replace(&path, client.ticket().root_pem.as_bytes())?;
    Ok(path)
}

/// A client that reads the file meanwhile sees the old one or the new one.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension(format!("{}.new", std::process::id()));
    File::create(&new)?.write_all(bytes)?;
    std::fs::rename(new, path)
}
