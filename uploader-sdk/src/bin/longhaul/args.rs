//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "\
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
    Find(Find),
    /// Walk from the ticket to the cloud, and say where it breaks and what to do
    Doctor(Place),
    /// Send files and folders to the box; run again to continue
    #[command(after_help = EXIT_CODES)]
    Push(Push),
    /// List the objects on the box, and how far each has come
    Ls(Ls),
    /// Show the box at a glance
    Status(Place),
    /// Print settings for other S3 clients (aws-cli, boto3, s5cmd, rclone)
    S3Env(S3Env),
    /// Print the completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub struct Find {
    /// How long to listen, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub listen: u64,
}

/// Which box, and the right to use it.
#[derive(Debug, Args)]
pub struct Place {
    /// The ticket that you downloaded from the portal
    #[arg(long, env = "LONGHAUL_TICKET", value_name = "FILE")]
    pub ticket: PathBuf,
    /// Where the box is, when it is not found by itself: https://ADDRESS:PORT
    #[arg(long = "box", env = "LONGHAUL_BOX", value_name = "URL")]
    pub at: Option<String>,
}

#[derive(Debug, Args)]
pub struct Push {
    /// Folders (their content is sent) and files
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Folder in the bucket to send to
    #[arg(long, default_value = "", value_name = "FOLDER")]
    pub prefix: String,
    /// Return only when the box has delivered everything to the cloud
    #[arg(long)]
    pub wait: bool,
    /// How to show progress
    #[arg(long, value_enum, default_value_t = ProgressKind::Auto)]
    pub progress: ProgressKind,
    /// How long to keep trying while the box does not answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub patience: u64,
    #[command(flatten)]
    pub place: Place,
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

#[derive(Debug, Args)]
pub struct Ls {
    /// Only objects whose key begins with this
    #[arg(default_value = "", value_name = "PREFIX")]
    pub prefix: String,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
pub struct S3Env {
    /// Print an rclone configuration instead of shell variables
    #[arg(long)]
    pub rclone: bool,
    #[command(flatten)]
    pub place: Place,
}
