//! `longhaul receipt`.

use std::path::PathBuf;

use longhaul_sdk::load_ended_ticket;
use longhaul_sdk::receipts::{FetchError, ReceiptFileError, Wanted, obtain};

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
    /// Where the box is, for when the cloud cannot be reached from here and the box asks it:
    /// https://ADDRESS:PORT; otherwise it is looked for
    #[arg(long = "box", env = "LONGHAUL_BOX", value_name = "URL")]
    pub at: Option<String>,
    /// The cloud: https://HOST:PORT; otherwise the ticket's
    #[arg(long, env = "LONGHAUL_CLOUD", value_name = "URL")]
    pub cloud: Option<String>,
    /// The fleet's root certificate; otherwise the ticket's
    #[arg(long, env = "LONGHAUL_ROOT", value_name = "FILE")]
    pub root: Option<PathBuf>,
}

pub async fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
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
    let wanted = Wanted {
        ticket,
        token: args.token.clone(),
        bucket: args.bucket.clone(),
        cloud: args.cloud.clone(),
        root_pem,
        at: args.at.clone(),
        prefix: args.prefix.clone(),
    };
    let count = match obtain(&wanted, &args.output).await {
        Ok(count) => count,
        Err(error @ FetchError::Unsaid { .. }) => return Err(Failure::usage(&error.to_string())),
        Err(error) => return Err(Failure::failed(&error)),
    };
    if cli.json {
        println!("{}", serde_json::json!({ "receipts": count }));
    } else {
        println!("{count} receipts in {}", args.output.display());
    }
    Ok(Exit::Ok)
}
