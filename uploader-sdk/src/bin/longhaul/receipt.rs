//! `longhaul receipt`.

use std::path::PathBuf;

use longhaul_sdk::receipts::{
    CloudAccess, FetchError, ReceiptFileError, fetch_by_box_to, fetch_to,
};
use longhaul_sdk::{BoxClient, Ticket, error_chain, load_ended_ticket};

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

/// The cloud, or why it is not known, and the bucket that the options and the ticket name together.
fn access(
    args: &Args,
    ticket: Option<&Ticket>,
) -> Result<(Result<CloudAccess, FetchError>, String), Failure> {
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
    let access = CloudAccess::new(ticket, token, cloud, root_pem);
    let bucket = args.bucket.clone();
    let bucket = bucket.or_else(|| ticket.map(|ticket| ticket.bucket.clone()));
    let bucket = bucket.ok_or_else(|| Failure::usage("say which bucket: --bucket BUCKET"))?;
    Ok((access, bucket))
}

/// Through the box, where the cloud cannot be reached from here; the ticket opens both.
async fn by_box(args: &Args, ticket: &Ticket, error: &FetchError) -> Result<u64, Failure> {
    tracing::debug!(%error, "asking the box");
    let client = BoxClient::connect(ticket, args.at.as_deref()).await;
    let fetched = match &client {
        Ok(client) => fetch_by_box_to(client, &args.prefix, &args.output)
            .await
            .map_err(|e| error_chain(&e)),
        Err(error) => Err(error_chain(error)),
    };
    fetched.map_err(|by_box| {
        let cloud = error_chain(error);
        Failure::failed(&FetchError::ByBox(format!("{by_box}; and {cloud}")))
    })
}

pub async fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let ticket = match &args.ticket {
        Some(path) => Some(load_ended_ticket(path)?),
        None => None,
    };
    let (cloud, bucket) = access(args, ticket.as_ref())?;
    let fetched = match &cloud {
        Ok(cloud) => fetch_to(cloud, &bucket, &args.prefix, &args.output).await,
        Err(FetchError::Unsaid { what }) => Err(FetchError::Unsaid { what }),
        Err(error) => return Err(Failure::usage(&error.to_string())),
    };
    let count = match (fetched, &ticket) {
        (Ok(count), _) => count,
        (Err(error), Some(ticket)) if args.token.is_none() && error.is_unreachable() => {
            by_box(args, ticket, &error).await?
        }
        (Err(error @ FetchError::Unsaid { .. }), _) => {
            return Err(Failure::usage(&error.to_string()));
        }
        (Err(error), _) => return Err(Failure::failed(&error)),
    };
    if cli.json {
        println!("{}", serde_json::json!({ "receipts": count }));
    } else {
        println!("{count} receipts in {}", args.output.display());
    }
    Ok(Exit::Ok)
}
