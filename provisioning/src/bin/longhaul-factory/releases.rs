//! `longhaul-factory tuf`: signs releases.

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use longhaul_protocol::release::MachineState;
use longhaul_protocol::value::UnixMillis;
use longhaul_provisioning::files;
use longhaul_provisioning::tuf::{self, Contents, Release};

/// Makes and signs a repository of releases (TUF): 3 of 5 root keys and 2 of 3 targets keys agree.
#[derive(Args)]
pub struct Tuf {
    #[command(subcommand)]
    command: Command,
    /// Print the result as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Make signing keys and an empty repository.
    Init {
        #[command(flatten)]
        keys: Keys,
        #[command(flatten)]
        at: At,
    },
    /// Add a file as a release, and sign.
    Add {
        #[command(flatten)]
        keys: Keys,
        #[command(flatten)]
        at: At,
        /// The release's version, for example `1.4.0`; unique in the repository.
        #[arg(long)]
        version: String,
        /// The target's name; `agent-VERSION` if not given.
        #[arg(long)]
        target: Option<String>,
        /// The states that machines are in once they run it: a JSON list, as `longhaul-factory pcrs`
        /// prints it. The cloud then accepts them of boxes that it assigned the release.
        #[arg(long, value_name = "FILE")]
        states: Option<PathBuf>,
        /// The file.
        file: PathBuf,
    },
    /// Sign snapshot and timestamp again before they expire; needs the online keys only.
    Refresh {
        #[command(flatten)]
        keys: Keys,
        #[command(flatten)]
        at: At,
    },
    /// Verify a repository and list its releases.
    Show {
        #[command(flatten)]
        at: At,
    },
}

#[derive(Args)]
struct Keys {
    /// Directory of the signing keys.
    #[arg(long, env = "LONGHAUL_TUF_KEYS")]
    keys: PathBuf,
}

#[derive(Args)]
struct At {
    /// Directory of the repository: `tuf` in the cloud's state directory, or a copy of it.
    #[arg(long, env = "LONGHAUL_TUF")]
    repository: PathBuf,
}

pub fn run(tuf: Tuf, now: UnixMillis) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(carry_out(tuf, now))
}

async fn carry_out(Tuf { command, json }: Tuf, now: UnixMillis) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Init { keys, at } => {
            tuf::init(&keys.keys, &at.repository, now).await?;
            if json {
                let made = serde_json::json!({ "keys": keys.keys, "repository": at.repository });
                println!("{made:#}");
            } else {
                println!("keys        {}", keys.keys.display());
                println!("repository  {}", at.repository.display());
                println!("give root-*.pem and targets-*.pem to different people, offline");
            }
        }
        Command::Add {
            keys,
            at,
            version,
            target,
            states,
            file,
        } => {
            let states = states.map(|path| read_states(&path)).transpose()?;
            let states = states.unwrap_or_default();
            let target = target.unwrap_or_else(|| format!("agent-{version}"));
            let (keys, at) = (&keys.keys, &at.repository);
            let release = tuf::add(keys, at, &file, &target, &version, &states, now).await?;
            if json {
                println!("{}", serde_json::to_string_pretty(&release)?);
            } else {
                println!("{}", line(&release));
            }
        }
        Command::Refresh { keys, at } => {
            let contents = tuf::refresh(&keys.keys, &at.repository, now).await?;
            print(&contents, json, now)?;
        }
        Command::Show { at } => print(&tuf::show(&at.repository).await?, json, now)?,
    }
    Ok(())
}

fn read_states(path: &Path) -> Result<Vec<MachineState>, Box<dyn Error>> {
    let bytes = files::read(path)?.ok_or_else(|| format!("{} is missing", path.display()))?;
    let states = serde_json::from_slice(&bytes);
    Ok(states.map_err(|e| format!("{} is no list of states: {e}", path.display()))?)
}

fn print(contents: &Contents, json: bool, now: UnixMillis) -> Result<(), Box<dyn Error>> {
    if json {
        println!("{}", serde_json::to_string_pretty(contents)?);
        return Ok(());
    }
    for release in &contents.releases {
        println!("{}", line(release));
    }
    for (role, expires) in [
        ("root", contents.root_expires),
        ("targets", contents.targets_expires),
        ("snapshot", contents.snapshot_expires),
        ("timestamp", contents.timestamp_expires),
    ] {
        let note = if expires <= now { "  EXPIRED" } else { "" };
        println!("{role:<10} expires {}{note}", super::date(expires));
    }
    Ok(())
}

fn line(release: &Release) -> String {
    let version = release.version.as_deref().unwrap_or("-");
    let Release {
        target,
        sha256,
        length,
        ..
    } = release;
    let states = match release.states.len() {
        0 => String::new(),
        count => format!("  {count} states of machines"),
    };
    format!("{version}  {target}  {length} bytes  sha256 {sha256}{states}")
}
