//! `longhaul watch`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use longhaul_sdk::{Progress, PushOptions, WatchError, WatchEvent, WatchOptions, load_ticket};

use crate::args::{Cli, Place};
use crate::exit::{Exit, Failure};
use crate::human::printable;
use crate::push;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder; its content is sent, and whatever appears or changes in it later
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Folder in the bucket to send to
    #[arg(long, default_value = "", value_name = "FOLDER")]
    pub prefix: String,
    /// How long a file must hold still before it is sent, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = settle)]
    pub settle: f64,
    /// How long to keep trying before the box is looked for anew, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub patience: u64,
    #[command(flatten)]
    pub place: Place,
}

fn settle(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|e| format!("{e}"))?;
    if (0.0..=86_400.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("seconds between 0 and a day".to_owned())
    }
}

pub async fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let ticket = load_ticket(&args.place.ticket)?;
    let options = WatchOptions {
        push: PushOptions {
            prefix: args.prefix.clone(),
            patience: Duration::from_secs(args.patience),
            ..PushOptions::default()
        },
        settle: Duration::from_secs_f64(args.settle),
        ..WatchOptions::default()
    };
    let progress = Arc::new(Progress::default());
    let tell = |event: WatchEvent<'_>| {
        if cli.json {
            json(&event);
        } else {
            text(&event);
        }
    };
    let given = args.place.at.as_deref();
    match longhaul_sdk::watch(&ticket, given, &args.folder, &options, &progress, tell).await {
        Ok(never) => match never {},
        Err(WatchError::Connect(error)) => Err((*error).into()),
        Err(error) => Err(Failure::failed(&error)),
    }
}

/// One JSON object per event and line.
fn json(event: &WatchEvent<'_>) {
    let line = match event {
        WatchEvent::Watching { address, polling } => {
            serde_json::json!({ "event": "watching", "address": address, "polling": polling })
        }
        WatchEvent::Sent(report) => serde_json::json!({ "event": "sent", "report": report }),
        WatchEvent::Waiting { why } => serde_json::json!({ "event": "waiting", "why": why }),
        _ => return,
    };
    println!("{line}");
}

fn text(event: &WatchEvent<'_>) {
    match event {
        WatchEvent::Watching { address, polling } => {
            eprintln!("watching; the box is at {address}");
            if let Some(why) = polling {
                eprintln!(
                    "looking at the folder every 10 s, because the system does not tell of changes: {}",
                    printable(why)
                );
            }
        }
        WatchEvent::Sent(report) => push::print(report, false),
        WatchEvent::Waiting { why } => {
            eprintln!("waiting for the box: {}", printable(why));
        }
        _ => {}
    }
}
