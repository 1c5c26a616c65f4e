//! `longhaul receipt`.

use std::path::PathBuf;

use longhaul_sdk::load_ended_ticket;
use longhaul_sdk::receipts::{CloudAccess, ReceiptFileError, fetch_to};

use crate::args::Cli;
use crate::exit::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only objects whose key begins with this; a whole key for one object
    #[arg(default_value = "", value_name = "PREFIX")]
    pub prefix: String,
    /// Where to keep the receipts
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// The ticket that the files were sent with; it may have ended. It says where the cloud is, and
    /// opens its own box and bucket
    #[arg(long, env = "LONGHAUL_TICKET", value_name = "FILE")]
    pub ticket: Option<PathBuf>,
    /// A token for the cloud, which opens every bucket; better given by the environment
    #[arg(
        long,
        env = "LONGHAUL_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
    /// The bucket, with a token
    #[arg(long, value_name = "BUCKET", requires = "token")]
    pub bucket: Option<String>,
    /// The cloud: https://HOST:PORT; otherwise the ticket's
    #[arg(long, env = "LONGHAUL_CLOUD", value_name = "URL")]
    pub cloud: Option<String>,
    /// The fleet's root certificate; otherwise the ticket's
    #[arg(long, env = "LONGHAUL_ROOT", value_name = "FILE")]
    pub root: Option<PathBuf>,
}

/// The cloud and the bucket that the options and the ticket name together.
fn access(args: &Args) -> Result<(CloudAccess, String), Failure> {
    let ticket = match &args.ticket {
        Some(path) => Some(load_ended_ticket(path)?),
        None => None,
    };
    let root_pem = match &args.root {
        Some(path) => Some(std::fs::read_to_string(path).map_err(|source| {
            Failure::failed(&ReceiptFileError::Read {
                path: path.clone(),
                source,
            })
        })?),
        None => None,
    };
    let (token, cloud) = (args.token.clone(), args.cloud.clone());
    let access = CloudAccess::new(ticket.as_ref(), token, cloud, root_pem);
    let access = access.map_err(|error| Failure::usage(&error.to_string()))?;
    let bucket = args.bucket.clone();
    let bucket = bucket.or_else(|| ticket.map(|ticket| ticket.bucket));
    let bucket = bucket.ok_or_else(|| Failure::usage("say which bucket: --bucket BUCKET"))?;
    Ok((access, bucket))
}

pub async fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let (cloud, bucket) = access(args)?;
    let count = fetch_to(&cloud, &bucket, &args.prefix, &args.output).await;
    let count = count.map_err(|e| Failure::failed(&e))?;
    if cli.json {
        println!("{}", serde_json::json!({ "receipts": count }));
    } else {
        println!("{count} receipts in {}", args.output.display());
    }
    Ok(Exit::Ok)
}
