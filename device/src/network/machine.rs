//! Puts settings in force on this machine: by `ip`, the resolver's file and a DHCP client.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use longhaul_protocol::network_settings::NetworkSettings;
use tokio::process::{Child, Command};

use super::plan::{self, Line};
use crate::disk;

/// How long one command may take.
const LIMIT: Duration = Duration::from_secs(10);
/// The first line of a resolver's file that is ours.
const HEADER: &str = "# written by longhaul-box\n";
/// Where the file that was there before is kept, in the state directory.
const BEFORE: &str = "resolv.before";
/// Characters of what a command said.
const MAX_SAID: usize = 200;

/// What of the machine's network belongs to the agent.
#[derive(Clone, Debug, Default)]
pub struct Ownership {
    /// The one interface; absent: none, and nothing of it is touched.
    pub interface: Option<String>,
    /// The DHCP client that runs while there is no fixed IPv4 address, with `{interface}` in the place
    /// of its name; empty: somebody else runs it.
    pub dhcp: Vec<String>,
    /// The file that names DNS servers.
    pub resolv_conf: PathBuf,
}

/// Why settings are not in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// Nobody gave the machine's network to the agent.
    #[error("the network of this machine is not set by the box (network_interface)")]
    NotOurs,
    /// A command failed.
    #[error("ip {line}: {said}")]
    Command {
        /// Its arguments.
        line: String,
        /// What it said.
        said: String,
    },
    /// The DHCP client does not start.
    #[error("failed to start the DHCP client {program}")]
    Dhcp {
        /// Which program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The resolver's file could not be read or written.
    #[error("failed to write {path}")]
    Resolver {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The machine.
pub struct Machine {
    of: Ownership,
    state: PathBuf,
    /// The DHCP client, and where it asks.
    client: Option<(Child, String)>,
}

impl Machine {
    /// The machine, as far as it belongs to the agent with this state directory.
    pub fn new(of: Ownership, state: &Path) -> Self {
        Self {
            of,
            state: state.to_owned(),
            client: None,
        }
    }

    /// Puts `settings` in force, whatever was before; doing so twice does no harm.
    ///
    /// # Errors
    ///
    /// [`ApplyError`]; what is in force then is neither these settings nor others.
    pub async fn apply(
        &mut self,
        settings: &NetworkSettings,
        instead_of: &NetworkSettings,
    ) -> Result<(), ApplyError> {
        let Some(main) = self.of.interface.clone() else {
            return if settings.touches_machine() {
                Err(ApplyError::NotOurs)
            } else {
                Ok(())
            };
        };
        let leased = !self.of.dhcp.is_empty();
        if !leased && !settings.touches_machine() && !instead_of.touches_machine() {
            return Ok(());
        }
        tracing::info!(%settings, "network settings");
        self.stop_client().await;
        for line in plan::lines(&main, settings, instead_of, leased) {
            run(&line).await?;
        }
        self.name_servers(settings)?;
        if leased && plan::wants_lease(settings) {
            self.start_client(plan::interface(&main, settings).to_owned())?;
        }
        Ok(())
    }

    /// Starts a DHCP client anew that ended by itself.
    pub fn tend(&mut self) {
        let ended = match &mut self.client {
            Some((client, _)) => client.try_wait().is_ok_and(|status| status.is_some()),
            None => false,
        };
        if ended && let Some((_, interface)) = self.client.take() {
            tracing::warn!("the DHCP client ended; it is started anew");
            if let Err(error) = self.start_client(interface) {
                tracing::error!(error = crate::cloud::chain(&error), "no DHCP client");
            }
        }
    }

    async fn stop_client(&mut self) {
        if let Some((mut client, _)) = self.client.take()
            && let Err(error) = client.kill().await
        {
            tracing::warn!(%error, "the DHCP client does not end");
        }
    }

    fn start_client(&mut self, interface: String) -> Result<(), ApplyError> {
        let arguments = self
            .of
            .dhcp
            .iter()
            .map(|a| a.replace("{interface}", &interface));
        // The kernel ends it with the agent: two of them would undo each other's work.
        let client = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| ApplyError::Dhcp {
                program: self.of.dhcp.first().cloned().unwrap_or_default(),
                source,
            })?;
        self.client = Some((client, interface));
        Ok(())
    }

    /// Has the resolver ask these servers, or again those that it asked before.
    fn name_servers(&self, settings: &NetworkSettings) -> Result<(), ApplyError> {
        let path = &self.of.resolv_conf;
        let failed = |source| ApplyError::Resolver {
            path: path.clone(),
            source,
        };
        let keep = self.state.join(BEFORE);
        let current = disk::read(path).map_err(io::Error::other).map_err(failed)?;
        let ours = current
            .as_ref()
            .is_some_and(|text| text.starts_with(HEADER.as_bytes()));
        if settings.dns.is_empty() {
            if !ours {
                return Ok(());
            }
            let before = disk::read(&keep)
                .map_err(io::Error::other)
                .map_err(failed)?;
            return std::fs::write(path, before.unwrap_or_default()).map_err(failed);
        }
        if let Some(text) = current.filter(|text| !ours && !text.is_empty()) {
            disk::write_atomic(&keep, &text)
                .map_err(io::Error::other)
                .map_err(failed)?;
        }
        // In its place: others may have mounted or linked it. It is written anew at every start.
        std::fs::write(path, plan::resolv_conf(HEADER, &settings.dns)).map_err(failed)
    }
}

async fn run(
    Line {
        arguments,
        may_fail,
    }: &Line,
) -> Result<(), ApplyError> {
    let failed = |said: String| ApplyError::Command {
        line: arguments.join(" "),
        said: said.trim().chars().take(MAX_SAID).collect(),
    };
    let output = Command::new("ip")
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ran = match tokio::time::timeout(LIMIT, output).await {
        Ok(Ok(ran)) => ran,
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed(format!("nothing within {} s", LIMIT.as_secs()))),
    };
    if ran.status.success() || *may_fail {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&ran.stderr).into_owned()))
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
