//! `longhaul lint`.

use std::path::PathBuf;

use longhaul_sdk::lint::lint;

use crate::args::Cli;
use crate::exit::{Exit, Failure};
use crate::human::{bytes, count, printable};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders and files, as for `push`
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Folder in the bucket that they would be sent to
    #[arg(long, default_value = "", value_name = "FOLDER")]
    pub prefix: String,
}

pub fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let report = lint(&args.paths, &args.prefix).map_err(|e| Failure::failed(&e))?;
    let clean = report.is_clean();
    if cli.json {
        let mut document = serde_json::to_value(&report).map_err(|e| Failure::failed(&e))?;
        document["clean"] = clean.into();
        println!("{document}");
    } else {
        for found in &report.findings {
            let word = if found.problem.is_failure() {
                "refused"
            } else {
                "note"
            };
            println!(
                "{word:8} {}: {} ({})",
                printable(&found.path),
                found.problem,
                printable(&found.detail)
            );
        }
        let files = count(report.files, "file");
        println!("{files}, {} can be sent", bytes(report.bytes));
    }
    Ok(if clean { Exit::Ok } else { Exit::SomeFailed })
}
