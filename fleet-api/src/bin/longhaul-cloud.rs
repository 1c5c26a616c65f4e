//! The cloud in one process. With no configuration it makes everything that it needs.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use longhaul_fleet_api::audit;
use longhaul_fleet_api::clock::Clock;
use longhaul_fleet_api::cloud::Cloud;
use longhaul_fleet_api::config::{Config, ConfigError, Settings};
use longhaul_fleet_api::nats::{self, NatsCertificates, NatsServer};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Longhaul's cloud: enrolment, MQTT edge, API, dashboard and object store in one process, or (--role)
/// in several.
///
/// With no configuration everything is kept under ./longhaul-data: certificate authorities,
/// database, objects. The first start prints the first administrator's password once. When every
/// port is open, ready.json appears in the data folder.
#[derive(Debug, Parser)]
#[command(
    name = "longhaul-cloud",
    version,
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(flatten)]
    run: Run,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run the cloud (the default).
    Run(Run),
    /// Check or write out the audit; the cloud may run meanwhile.
    #[command(subcommand)]
    Audit(Audit),
    /// What stands around the cloud.
    #[command(subcommand)]
    Config(Around),
}

#[derive(Debug, clap::Subcommand)]
enum Around {
    /// Print the configuration of one server of a NATS cluster, for --backbone.
    Nats(NatsServer),
    /// Make the certificates of a NATS cluster's servers and of the roles that use it.
    NatsCertificates(NatsCertificates),
}

#[derive(Debug, clap::Subcommand)]
enum Audit {
    /// Follow the chain of hashes; ends with status 1 where an entry was altered.
    Verify(Run),
    /// Write every entry to standard output, oldest first, one JSON object a line.
    Export(Run),
}

#[derive(Clone, Debug, clap::Args)]
struct Run {
    #[command(flatten)]
    settings: Settings,
    /// TOML file with the same settings, named with underscores; the command line wins.
    #[arg(long, env = "LONGHAUL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Log one JSON object a line.
    #[arg(long, env = "LONGHAUL_JSON_LOGS")]
    json: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (run, audit) = match cli.command {
        Some(Command::Run(run)) => (run, None),
        Some(Command::Audit(Audit::Verify(run))) => (run, Some(true)),
        Some(Command::Audit(Audit::Export(run))) => (run, Some(false)),
        Some(Command::Config(around)) => return print(around),
        None => (cli.run, None),
    };
    log_to_stderr(run.json);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let done = match audit {
        None => runtime.block_on(serve(run)),
        Some(verify) => runtime.block_on(read_audit(run, verify)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

fn print(around: Around) -> ExitCode {
    match around {
        Around::Nats(server) => print!("{}", nats::server_configuration(&server)),
        Around::NatsCertificates(asked) => match nats::certificates(&asked, Clock::System.now()) {
            Ok(written) => written
                .iter()
                .for_each(|path| println!("{}", path.display())),
            Err(error) => return failed(&error),
        },
    }
    ExitCode::SUCCESS
}

fn configured(run: Run) -> Result<Config, ConfigError> {
    let mut settings = run.settings;
    if let Some(path) = &run.config {
        settings = settings.or(Settings::read(path)?);
    }
    settings.complete()
}

async fn read_audit(run: Run, verify: bool) -> Result<(), Box<dyn std::error::Error>> {
    let db = audit::open(&configured(run)?).await?;
    if verify {
        let (entries, hash) = audit::verify(&db).await?;
        println!("the audit is whole: {entries} entries, the last one's hash is {hash}");
    } else {
        audit::export(&db, std::io::BufWriter::new(std::io::stdout().lock())).await?;
    }
    db.close().await;
    Ok(())
}

async fn serve(run: Run) -> Result<(), Box<dyn std::error::Error>> {
    let config = configured(run)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let mut cloud = tokio::select! {
        cloud = Cloud::start(config, Clock::System) => cloud?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    if let Some((name, password)) = cloud.take_first_admin() {
        // The one secret that is ever printed, and only once: it is stored nowhere.
        println!("first administrator: {name}\npassword: {password}");
    }
    let signalled = stop.clone();
    let running = cloud.run_until(stop);
    tokio::pin!(running);
    tokio::select! {
        result = &mut running => return Ok(result?),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    signalled.cancel();
    Ok(running.await?)
}

fn log_to_stderr(json: bool) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn,s3s=warn,rumqttd=warn,aws=warn"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if json {
        logs.json().init();
    } else {
        logs.init();
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("longhaul-cloud: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        eprintln!("  because: {error}");
        source = error.source();
    }
    ExitCode::FAILURE
}
