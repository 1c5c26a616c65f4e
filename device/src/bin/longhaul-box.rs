//! `longhaul-box`: runs a box, or says how it is.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use longhaul_device::chip::Chip;
use longhaul_device::cloud::chain;
use longhaul_device::config::{Config, DEFAULT_STATE};
use longhaul_device::ota::slots::Slot;
use longhaul_device::ota::supervise::{self, EXIT_RESTART, Settings};
use longhaul_device::papers::Papers;
use longhaul_device::proxy::{self, ProxySetting};
use longhaul_device::runtime::{self, Options};
use longhaul_device::tpm::TpmChip;
use longhaul_device::{clock, console, rescue, screen};
use longhaul_provisioning::recovery::read_vault_key;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code for settings that cannot be used.
const EXIT_CONFIG: u8 = 2;
/// Between two looks of the screen at the agent.
const SCREEN_PAUSE: Duration = Duration::from_secs(1);
/// Wait before an agent that ended by itself is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(2);

#[derive(Parser)]
#[command(name = "longhaul-box", version, about = "Runs a Longhaul box")]
struct Cli {
    /// State directory.
    #[arg(long, global = true, env = "LONGHAUL_STATE", default_value = DEFAULT_STATE)]
    state: PathBuf,
    /// Settings file (TOML); /etc/longhaul/box.toml, which may be absent, if not given.
    #[arg(long, global = true, env = "LONGHAUL_CONFIG")]
    config: Option<PathBuf>,
    /// The agent's version as releases count; set by the supervisor that starts it.
    #[arg(long, global = true, hide = true, env = "LONGHAUL_AGENT_VERSION", default_value = env!("CARGO_PKG_VERSION"))]
    agent_version: String,
    /// The slot that the agent runs from; set by the supervisor that starts it.
    #[arg(long, global = true, hide = true, env = "LONGHAUL_SLOTS")]
    slot: Option<Slot>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the box until SIGTERM or SIGINT (the default).
    Run,
    /// Keep the agent running, update it, and go back where an update does not prove itself.
    ///
    /// Starts `longhaul-box run` from one of two slots in the state directory, which are filled
    /// with this program at the first start. A release that an operator rolls out is put into the
    /// other slot and tried; it is kept once customers can push to it and the cloud has committed
    /// a fact of it. If it ends, or does not get so far within `trial_secs` of the settings file,
    /// or the machine goes down in three starts of it, the release before runs again, and the
    /// cloud is told why. This is what the machine's service manager should start.
    Supervise,
    /// Ask the running agent how the box is.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Read everything that a vault holds, without its box: with the key that
    /// `longhaul-factory recovery-key unwrap` wrote. Opening writes to the vault: work on a copy.
    Rescue {
        /// The vault's folder.
        #[arg(long)]
        vault: PathBuf,
        /// The vault's key.
        #[arg(long)]
        key: PathBuf,
        /// Where the objects go, each to `BUCKET/NAME`.
        #[arg(long)]
        to: PathBuf,
    },
    /// Show on this terminal how the box is, in 80 columns by 25 lines, until it is ended: for the
    /// machine's own console.
    Screen {
        /// Draw it once, and end.
        #[arg(long)]
        once: bool,
    },
    /// The customer's HTTP proxy: show it, or set it for the running agent, too.
    Proxy {
        /// `http://[user:password@]host:port`; `none` uses no proxy, `factory` the one that the box
        /// was prepared with.
        set: Option<String>,
    },
    /// Look at the settings.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check settings and the factory's papers; exits 0 if a box can run with them.
    Check,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match Config::load(cli.config.as_deref()) {
        Ok(config) => config,
        Err(error) => return fail(&error, EXIT_CONFIG),
    };
    let options = Options {
        state: cli.state,
        config,
        agent_version: cli.agent_version,
        slot: cli.slot,
    };
    match cli.command.unwrap_or(Command::Run) {
        Command::Supervise => supervise(&options, cli.config),
        Command::Run => run(options),
        Command::Status { json } => status(&options, json),
        Command::Rescue { vault, key, to } => rescue(&vault, &key, &to),
        Command::Screen { once } => show_screen(&options, once),
        Command::Proxy { set } => proxy_command(&options, set.as_deref()),
        Command::Config {
            command: ConfigCommand::Check,
        } => check(&options),
    }
}

fn log_to_stderr() {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| "info,tss_esapi=warn,rumqttc=warn".into()),
        )
        .with_writer(std::io::stderr)
        .init();
}

fn supervise(options: &Options, config: Option<PathBuf>) -> ExitCode {
    log_to_stderr();
    let settings = Settings {
        state: options.state.clone(),
        config,
        // Also where the file has been replaced since: what runs is what is known to run.
        factory_agent: PathBuf::from("/proc/self/exe"),
        factory_version: options.agent_version.clone(),
        trial: Duration::from_secs(u64::from(options.config.trial_secs.get())),
        pause: RESTART_PAUSE,
    };
    // One thread: agents end with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    let ended = runtime.block_on(async {
        let stop = CancellationToken::new();
        let signals = signals(stop.clone());
        let supervise = supervise::supervise(settings, stop);
        tokio::select! {
            ended = supervise => ended.map_err(|e| chain(&e)),
            Err(error) = signals => Err(error.to_string()),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("longhaul-box: {text}");
            ExitCode::FAILURE
        }
    }
}

/// Exits 1 if an object is not whole.
fn rescue(vault: &Path, key: &Path, to: &Path) -> ExitCode {
    log_to_stderr();
    let key = match read_vault_key(key) {
        Ok(key) => key,
        Err(error) => return fail(&error, EXIT_CONFIG),
    };
    let rescued = match rescue::rescue(vault, &key, to) {
        Ok(rescued) => rescued,
        Err(error) => return fail(&error, 1),
    };
    println!("{} objects, {} bytes", rescued.objects, rescued.bytes);
    if rescued.released > 0 {
        println!("{} objects are in the cloud only", rescued.released);
    }
    for (bucket, key, why) in &rescued.failed {
        println!("not whole: {key:?} of {bucket}: {why}");
    }
    if rescued.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run(options: Options) -> ExitCode {
    log_to_stderr();
    let chip: Arc<dyn Chip> = match TpmChip::open(&options.config.tpm_tcti) {
        Ok(chip) => Arc::new(chip),
        Err(error) => return fail(&error, runtime::EXIT_TPM),
    };
    let runtime = match tokio_runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    let ended = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let signals = signals(shutdown.clone());
        let run = runtime::run(options, chip, shutdown);
        tokio::select! {
            ended = run => ended.map_err(|e| (e.exit_code(), chain(&e))),
            Err(error) = signals => Err((1, error.to_string())),
        }
    });
    // What blocks in the TPM or in a disk does not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(2));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err((code @ EXIT_RESTART, text)) => {
            tracing::info!(code, "{text}");
            ExitCode::from(code)
        }
        Err((code, text)) => {
            tracing::error!(code, "{text}");
            eprintln!("longhaul-box: {text}");
            ExitCode::from(code)
        }
    }
}

/// At least four workers: TLS asks the TPM from one of them, and waits for it.
fn tokio_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.max(4))
        .enable_all()
        .build()
}

/// Cancels `shutdown` at SIGTERM or SIGINT; never ends after that.
async fn signals(shutdown: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    shutdown.cancel();
    std::future::pending().await
}

fn status(options: &Options, json: bool) -> ExitCode {
    let runtime = match tokio_runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    match runtime.block_on(console::ask(&options.state)) {
        Ok(status) if json => match serde_json::to_string_pretty(&status) {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error, 1),
        },
        Ok(status) => {
            print!("{}", console::render(&status, clock::wall()));
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, 1),
    }
}

/// Home, draw, forget the rest of each line and of the screen.
fn show_screen(options: &Options, once: bool) -> ExitCode {
    let runtime = match tokio_runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    for second in 0.. {
        let text = match runtime.block_on(console::ask(&options.state)) {
            Ok(status) => screen::draw_at(&status, second),
            Err(error) if once => return fail(&error, 1),
            Err(_) => "The box's agent is not running.".to_owned(),
        };
        if once {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        let text = text.replace('\n', "\x1b[K\r\n");
        print!("\x1b[?25l\x1b[H{text}\x1b[K\x1b[J");
        if std::io::stdout().flush().is_err() {
            return ExitCode::SUCCESS;
        }
        std::thread::sleep(SCREEN_PAUSE);
    }
    ExitCode::SUCCESS
}

fn proxy_command(options: &Options, set: Option<&str>) -> ExitCode {
    let done = match set {
        Some("none") => proxy::set_none(&options.state),
        Some("factory") => proxy::set(&options.state, None),
        Some(text) => match text.parse() {
            Ok(parsed) => proxy::set(&options.state, Some(&parsed)),
            Err(error) => return fail(&error, EXIT_CONFIG),
        },
        None => Ok(()),
    };
    if let Err(error) = done {
        return fail(&error, 1);
    }
    let factory = Papers::load(&options.factory_dir());
    let factory = factory.ok().and_then(|papers| papers.config.hints.proxy);
    match ProxySetting::open(&options.state, factory.as_deref()).current() {
        Some(proxy) => println!("{proxy}"),
        None => println!("none"),
    }
    ExitCode::SUCCESS
}

fn check(options: &Options) -> ExitCode {
    match Papers::load(&options.factory_dir()) {
        Ok(papers) => {
            println!(
                "box {} of {} cloud endpoint(s):",
                papers.config.box_id,
                papers.config.endpoints.len()
            );
            for endpoint in &papers.config.endpoints {
                println!(
                    "  {} (HTTPS {}, MQTT {})",
                    endpoint.host, endpoint.https_port, endpoint.mqtt_port
                );
            }
            println!("data plane on {}", options.config.data_listen);
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, EXIT_CONFIG),
    }
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("longhaul-box: {}", chain(error));
    ExitCode::from(code)
}
