//! `longhaul`: push files to the box on your network, and know that they are safe.

mod args;
mod bars;
mod boxes;
mod env;
mod env_forms;
mod exit;
mod get;
mod human;
mod lint;
mod list;
mod man;
mod push;
mod receipt;
mod remove;
mod report;
mod sync;
mod verify;
mod watch;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use tracing_subscriber::EnvFilter;

use args::{Cli, Command};
use exit::{Exit, Failure};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("LONGHAUL_LOG").unwrap_or_else(|_| {
        EnvFilter::new(if cli.verbose {
            "longhaul_sdk=debug"
        } else {
            "error"
        })
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("longhaul: failed to start: {error}");
            return Exit::Failed.into();
        }
    };
    let json = cli.json;
    // A watch has no end of its own, so being stopped is how it ends well.
    let watches = matches!(cli.command, Command::Watch(_));
    let result = runtime.block_on(async {
        tokio::select! {
            biased;
            () = interrupted() => if watches { Ok(Exit::Ok) } else { Err(Failure::interrupted()) },
            result = run(cli) => result,
        }
    });
    // A file that is being read from a slow disk must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report(json).into(),
    }
}

async fn run(cli: Cli) -> Result<Exit, Failure> {
    match &cli.command {
        Command::Find(find) => boxes::find(&cli, find).await,
        Command::Doctor(place) => boxes::doctor(&cli, place).await,
        Command::Status(place) => boxes::status(&cli, place).await,
        Command::Push(push) => push::run(&cli, push).await,
        Command::Sync(args) => sync::run(&cli, args).await,
        Command::Watch(args) => watch::run(&cli, args).await,
        Command::Get(args) => get::run(&cli, args).await,
        Command::Rm(args) => remove::run(&cli, args).await,
        Command::Ls(ls) => list::run(&cli, ls).await,
        Command::Receipt(args) => receipt::run(&cli, args).await,
        Command::Verify(args) => verify::run(&cli, args),
        Command::Lint(args) => lint::run(&cli, args),
        Command::Man(args) => man::run(args),
        Command::S3Env(s3_env) => env::run(&cli, s3_env).await,
        Command::Completions { shell } => {
            clap_complete::generate(
                *shell,
                &mut Cli::command(),
                "longhaul",
                &mut std::io::stdout(),
            );
            Ok(Exit::Ok)
        }
    }
}

/// Ends at the first Ctrl-C or request to terminate.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        result = tokio::signal::ctrl_c() => if result.is_err() { std::future::pending().await },
        _ = terminate.recv() => {}
    }
}
