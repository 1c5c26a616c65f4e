//! `longhaul sync`.

use std::path::PathBuf;
use std::sync::Arc;

use longhaul_sdk::delivery::wait_delivered;
use longhaul_sdk::{Progress, PushError, PushOptions, SyncOptions, SyncReport, WouldSend};

use crate::args::{Cli, Manner, Place, ProgressKind};
use crate::bars::{self, Job};
use crate::exit::{Exit, Failure, connect};
use crate::human::{bytes, count, printable};
use crate::{push, report};

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "one option each")]
pub struct Args {
    /// Folders (their content is sent) and files
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Folder in the bucket to send to
    #[arg(long, default_value = "", value_name = "FOLDER")]
    pub prefix: String,
    /// Remove from the box what is below the prefix and not here; only when everything was sent
    #[arg(long)]
    pub delete: bool,
    /// Say what would be sent and removed, and do nothing
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// Read and compare every file, also those that an earlier run has compared
    #[arg(long)]
    pub checksum: bool,
    /// Return only when the box has delivered everything to the cloud
    #[arg(long, conflicts_with = "dry_run")]
    pub wait: bool,
    #[command(flatten)]
    pub manner: Manner,
    #[command(flatten)]
    pub place: Place,
}

pub async fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let progress = Arc::new(Progress::default());
    let job = Job::Push { wait: args.wait };
    let done = tokio::select! {
        done = work(args, &progress) => done,
        () = bars::show(args.manner.progress, Arc::clone(&progress), job) => {
            return Err(Failure::interrupted());
        }
    };
    if args.manner.progress == ProgressKind::Json {
        bars::line(&progress.snapshot(), job);
    }
    let (done, failure) = done?;
    let mut lines = report::push(&done.push);
    lines.extend(done.removed.removed.iter().map(|key| {
        serde_json::json!({ "key": key, "result": if args.dry_run { "would_remove" } else { "removed" } })
    }));
    report::write(args.manner.report.as_deref(), lines)?;
    if cli.json {
        let mut document = serde_json::to_value(&done).map_err(|e| Failure::failed(&e))?;
        if let Some(failure) = &failure {
            document["error"] = failure.message().into();
        }
        println!("{document}");
    } else {
        print(&done, args);
    }
    match failure {
        Some(failure) if cli.json => Ok(failure.exit()),
        Some(failure) => Err(failure),
        None if done.is_complete() => Ok(Exit::Ok),
        None => Ok(Exit::SomeFailed),
    }
}

/// The report, and what ended the work early.
async fn work(
    args: &Args,
    progress: &Arc<Progress>,
) -> Result<(SyncReport, Option<Failure>), Failure> {
    let client = connect(&args.place).await?;
    let patience = args.manner.patience();
    let options = SyncOptions {
        push: PushOptions {
            prefix: args.prefix.clone(),
            patience,
            ..PushOptions::default()
        },
        delete: args.delete,
        dry_run: args.dry_run,
        checksum: args.checksum,
    };
    let mut done = match longhaul_sdk::sync(&client, &args.paths, &options, progress).await {
        Ok(done) => done,
        Err(error) => {
            let failure = Failure::failed(&error);
            return match error {
                PushError::Stopped { report, .. } => Ok((SyncReport::from(*report), Some(failure))),
                _ => Err(failure),
            };
        }
    };
    if args.wait
        && let Err(error) = wait_delivered(&client, &mut done.push, progress, patience).await
    {
        return Ok((done, Some(Failure::failed(&error))));
    }
    Ok((done, None))
}

fn print(done: &SyncReport, args: &Args) {
    let removed = &done.removed.removed;
    if let Some(would_send) = &done.would_send {
        for file in would_send {
            let word = if file.replaces { "replace" } else { "send" };
            println!("{word:8} {}", printable(file.key.as_str()));
        }
        for key in removed {
            println!("{:8} {}", "remove", printable(key));
        }
        let size = would_send.iter().map(|WouldSend { size, .. }| size).sum();
        println!(
            "would send {} ({}), remove {}; {} there already",
            count(would_send.len() as u64, "file"),
            bytes(size),
            count(removed.len() as u64, "object"),
            count(done.push.files.len() as u64, "file"),
        );
    } else {
        push::print(&done.push, args.wait);
        if args.delete {
            println!("removed {}", count(removed.len() as u64, "object"));
        }
    }
    for failed in &done.removed.failed {
        eprintln!(
            "not removed: {}: {}",
            printable(&failed.key),
            printable(&failed.reason)
        );
    }
    if let Some(why) = &done.not_removed_because {
        eprintln!("nothing was removed: {}", printable(why));
    }
}
