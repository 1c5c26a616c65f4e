//! `longhaul receipt`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use longhaul_sdk::receipts::{CloudAccess, ReceiptFileError, fetch};

use crate::args::Cli;
use crate::exit::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bucket
    pub bucket: String,
    /// Only objects whose key begins with this; a whole key for one object
    #[arg(default_value = "")]
    pub prefix: String,
    /// Where to keep the receipts
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// The cloud: https://HOST:PORT
    #[arg(long, env = "LONGHAUL_CLOUD", value_name = "URL")]
    pub cloud: String,
    /// A token for the cloud; better given by the environment
    #[arg(
        long,
        env = "LONGHAUL_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub token: String,
    /// The fleet's root certificate
    #[arg(long, env = "LONGHAUL_ROOT", value_name = "FILE")]
    pub root: PathBuf,
}

pub async fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let read = |path: &Path, source| ReceiptFileError::Read {
        path: path.to_owned(),
        source,
    };
    let root_pem = std::fs::read_to_string(&args.root);
    let root_pem = root_pem.map_err(|e| Failure::failed(&read(&args.root, e)))?;
    let cloud = CloudAccess {
        url: args.cloud.clone(),
        token: args.token.clone(),
        root_pem,
    };
    // Beside the file until all are there: half a file of receipts looks like a whole one.
    let mut partial = args.output.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let write = |e: std::io::Error| Failure::failed(&read(&args.output, e));
    let mut file = std::fs::File::create(&partial).map_err(write)?;
    let fetched = fetch(&cloud, &args.bucket, &args.prefix, &mut file).await;
    let written = fetched.map_err(|e| Failure::failed(&e)).and_then(|count| {
        file.flush().map_err(write)?;
        file.sync_all().map_err(write)?;
        std::fs::rename(&partial, &args.output).map_err(write)?;
        Ok(count)
    });
    if written.is_err() {
        // It may never have been there.
        let _ = std::fs::remove_file(&partial);
    }
    let count = written?;
    if cli.json {
        println!("{}", serde_json::json!({ "receipts": count }));
    } else {
        println!("{count} receipts in {}", args.output.display());
    }
    Ok(Exit::Ok)
}
