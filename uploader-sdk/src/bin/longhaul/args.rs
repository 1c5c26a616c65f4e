//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{boxes, env, get, lint, list, man, push, remove, sync, watch};

pub const EXIT_CODES: &str = "\
Exit codes:
  0  everything went well
  1  it failed
  2  the command line is wrong
  3  some files failed, the others are safe
  4  no box was found
  5  the ticket is invalid or expired
  6  interrupted; the same command continues";

/// Push files to the box on your network, and know that they are safe.
#[derive(Debug, Parser)]
#[command(name = "longhaul", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Say on standard error what is going on
    #[arg(long, short, global = true)]
    pub verbose: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the boxes that announce themselves on this network
    Find(boxes::Args),
    /// Walk from the ticket to the cloud, and say where it breaks and what to do
    Doctor(Place),
    /// Send files and folders to the box; run again to continue
    #[command(after_help = EXIT_CODES)]
    Push(push::Args),
    /// Make the box hold what is in a folder: send what is not there, compare the rest
    #[command(after_help = EXIT_CODES)]
    Sync(sync::Args),
    /// Send what appears or changes in a folder, until stopped
    #[command(after_help = EXIT_CODES)]
    Watch(watch::Args),
    /// Fetch an object or a folder from the box; run again to continue
    #[command(after_help = EXIT_CODES)]
    Get(get::Args),
    /// Remove objects from the box; what has reached the cloud stays there
    #[command(after_help = EXIT_CODES)]
    Rm(remove::Args),
    /// Say which names would not arrive, before anything is sent
    Lint(lint::Args),
    /// List the objects on the box, and how far each has come
    Ls(list::Args),
    /// Show the box at a glance
    Status(Place),
    /// Fetch receipts: proof of what the box took and what arrived in the bucket
    Receipt(crate::receipt::Args),
    /// Prove offline, by receipts and the fleet's root, that files are what was taken
    Verify(crate::verify::Args),
    /// Print settings for other S3 clients (aws-cli, boto3, rclone, s5cmd, s3cmd)
    S3Env(env::Args),
    /// Write the manual pages into a folder
    Man(man::Args),
    /// Print the completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Which box, and the right to use it.
#[derive(Debug, Args)]
pub struct Place {
    /// The ticket: the file that you got with the box
    #[arg(long, env = "LONGHAUL_TICKET", value_name = "FILE")]
    pub ticket: PathBuf,
    /// Where the box is, when it is not found by itself: https://ADDRESS:PORT
    #[arg(long = "box", env = "LONGHAUL_BOX", value_name = "URL")]
    pub at: Option<String>,
}

/// How to show what is going on, and how long to wait for a box that does not answer.
#[derive(Debug, Args)]
pub struct Manner {
    /// How to show progress
    #[arg(long, value_enum, default_value_t = ProgressKind::Auto)]
    pub progress: ProgressKind,
    /// How long to keep trying while the box does not answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub patience: u64,
    /// Write one JSON object per file and line into this file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

impl Manner {
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.patience)
    }
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum ProgressKind {
    /// Bars on a terminal, otherwise nothing
    Auto,
    /// One JSON object per second and line, on standard error
    Json,
    /// Nothing
    None,
}
