//! `longhaul get`.

use std::path::PathBuf;
use std::sync::Arc;

use longhaul_sdk::{GetError, GetOptions, GetOutcome, GetReport, Progress, VerifiedBy};

use crate::args::{Cli, Manner, Place, ProgressKind};
use crate::bars::{self, Job};
use crate::exit::{Exit, Failure, connect};
use crate::human::{bytes, count, printable, seconds};
use crate::report;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Key of an object, or a folder in the bucket
    #[arg(value_name = "KEY")]
    pub what: String,
    /// File or folder to write to
    #[arg(default_value = ".", value_name = "DEST")]
    pub to: PathBuf,
    #[command(flatten)]
    pub manner: Manner,
    #[command(flatten)]
    pub place: Place,
}

pub async fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let progress = Arc::new(Progress::default());
    let done = tokio::select! {
        done = work(args, &progress) => done,
        () = bars::show(args.manner.progress, Arc::clone(&progress), Job::Get) => {
            return Err(Failure::interrupted());
        }
    };
    if args.manner.progress == ProgressKind::Json {
        bars::line(&progress.snapshot(), Job::Get);
    }
    let (done, failure) = done?;
    report::write(args.manner.report.as_deref(), report::get(&done))?;
    if cli.json {
        let mut document = serde_json::to_value(&done).map_err(|e| Failure::failed(&e))?;
        if let Some(failure) = &failure {
            document["error"] = failure.message().into();
        }
        println!("{document}");
    } else {
        print(&done);
    }
    match failure {
        Some(failure) if cli.json => Ok(failure.exit()),
        Some(failure) => Err(failure),
        None if done.is_complete() => Ok(Exit::Ok),
        None => Ok(Exit::SomeFailed),
    }
}

async fn work(
    args: &Args,
    progress: &Arc<Progress>,
) -> Result<(GetReport, Option<Failure>), Failure> {
    let client = connect(&args.place).await?;
    let options = GetOptions {
        patience: args.manner.patience(),
        ..GetOptions::default()
    };
    match longhaul_sdk::get(&client, &args.what, &args.to, &options, progress).await {
        Ok(done) => Ok((done, None)),
        Err(error) => {
            let failure = Failure::failed(&error);
            match error {
                GetError::Stopped { report, .. } => Ok((*report, Some(failure))),
                _ => Err(failure),
            }
        }
    }
}

fn print(done: &GetReport) {
    let files = count(done.files.len() as u64, "file");
    let same = |f: &&longhaul_sdk::GotFile| f.outcome == GetOutcome::AlreadyThere;
    let same = done.files.iter().filter(same).count() as u64;
    let fetched = match done.bytes_received {
        0 => String::new(),
        received => format!("; fetched {} in {}", bytes(received), seconds(done.seconds)),
    };
    let same = match same {
        0 => String::new(),
        same => format!("; {} were here", count(same, "file")),
    };
    let size = bytes(done.bytes);
    println!("{files}, {size} here and compared with the box{fetched}{same}");
    for file in &done.files {
        if file.verified_by == VerifiedBy::Length {
            let path = file.path.to_string_lossy();
            eprintln!(
                "compared by length alone, the box knows no checksum: {}",
                printable(&path)
            );
        }
    }
    for failed in &done.failed {
        eprintln!(
            "failed: {}: {}",
            printable(failed.key.as_str()),
            printable(&failed.reason)
        );
    }
}
