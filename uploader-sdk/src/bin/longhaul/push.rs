//! `longhaul push`.

use std::path::PathBuf;
use std::sync::Arc;

use longhaul_sdk::delivery::wait_delivered;
use longhaul_sdk::protocol::lan::Delivery;
use longhaul_sdk::{Outcome, Progress, PushError, PushOptions, PushReport};

use crate::args::{Cli, Manner, Place, ProgressKind};
use crate::bars::{self, Job};
use crate::exit::{Exit, Failure, connect};
use crate::human::{bytes, count, printable, seconds};
use crate::report;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders (their content is sent) and files
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Folder in the bucket to send to
    #[arg(long, default_value = "", value_name = "FOLDER")]
    pub prefix: String,
    /// Return only when the box has delivered everything to the cloud
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub manner: Manner,
    #[command(flatten)]
    pub place: Place,
}

pub async fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let progress = Arc::new(Progress::default());
    let job = Job::Push { wait: args.wait };
    let report = tokio::select! {
        report = work(args, &progress) => report,
        () = bars::show(args.manner.progress, Arc::clone(&progress), job) => {
            return Err(Failure::interrupted());
        }
    };
    if args.manner.progress == ProgressKind::Json {
        bars::line(&progress.snapshot(), job);
    }
    let (report, failure) = report?;
    report::write(args.manner.report.as_deref(), report::push(&report))?;
    if cli.json {
        // With a failure the report still says what is safe.
        let mut document = serde_json::to_value(&report).map_err(|e| Failure::failed(&e))?;
        if let Some(failure) = &failure {
            document["error"] = failure.message().into();
        }
        println!("{document}");
    } else {
        print(&report, args.wait);
    }
    match failure {
        Some(failure) if cli.json => Ok(failure.exit()),
        Some(failure) => Err(failure),
        None if report.is_complete() => Ok(Exit::Ok),
        None => Ok(Exit::SomeFailed),
    }
}

/// The report, and what ended the work early.
async fn work(
    args: &Args,
    progress: &Arc<Progress>,
) -> Result<(PushReport, Option<Failure>), Failure> {
    let client = connect(&args.place).await?;
    let patience = args.manner.patience();
    let options = PushOptions {
        prefix: args.prefix.clone(),
        patience,
        ..PushOptions::default()
    };
    let mut report = match longhaul_sdk::push(&client, &args.paths, &options, progress).await {
        Ok(report) => report,
        Err(error) => {
            let failure = Failure::failed(&error);
            return match error {
                PushError::Stopped { report, .. } => Ok((*report, Some(failure))),
                _ => Err(failure),
            };
        }
    };
    if args.wait
        && let Err(error) = wait_delivered(&client, &mut report, progress, patience).await
    {
        return Ok((report, Some(Failure::failed(&error))));
    }
    Ok((report, None))
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "three digits of the rate are shown"
)]
pub fn print(report: &PushReport, waited: bool) {
    let earlier = report
        .files
        .iter()
        .filter(|f| f.outcome == Outcome::AlreadyThere)
        .count() as u64;
    let safe = format!(
        "{}, {} safe on box {}",
        count(report.files.len() as u64, "file"),
        bytes(report.bytes),
        report.box_id
    );
    let rate = report.bytes_sent as f64 / report.seconds.max(0.001);
    let sent = match report.bytes_sent {
        0 => String::new(),
        sent => format!(
            "; sent {} in {} ({}/s)",
            bytes(sent),
            seconds(report.seconds),
            bytes(rate as u64)
        ),
    };
    let earlier = match earlier {
        0 => String::new(),
        earlier => format!("; {} sent earlier", count(earlier, "file")),
    };
    println!("{safe}{sent}{earlier}");
    if waited {
        let verified = |f: &&longhaul_sdk::FileReport| f.delivery == Some(Delivery::Verified);
        let verified = report.files.iter().filter(verified).count() as u64;
        println!("{} verified in the cloud", count(verified, "file"));
    }
    for skipped in &report.skipped {
        let (path, detail) = (printable(&skipped.path), printable(&skipped.detail));
        eprintln!("not sent: {path}: {} ({detail})", skipped.reason);
    }
    for failed in &report.failed {
        let path = printable(&failed.path.to_string_lossy());
        eprintln!("failed: {path}: {}", printable(&failed.reason));
    }
    for file in &report.files {
        if let Some(notice) = &file.notice {
            eprintln!(
                "note: {}: {}",
                printable(file.key.as_str()),
                printable(notice)
            );
        }
        if let Some(Delivery::Failed { reason }) = &file.delivery {
            eprintln!("not delivered: {}: {}", file.key, printable(reason));
        }
    }
}
