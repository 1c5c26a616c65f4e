//! A child process that cannot outlive this one.
//!
//! Children start under `setpriv --pdeathsig KILL`: the kernel ends them when the harness dies,
//! also by `kill -9`, so that a second run finds nothing of the first.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// How long a process may take to end after `SIGTERM`.
const GRACE: Duration = Duration::from_secs(20);

/// A running child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// Why a child could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// It did not start.
    #[error("failed to start {name} ({program})")]
    Start {
        /// What it is called here.
        name: String,
        /// The program's path.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended when it should not have, or not as it should have.
    #[error("{name} ended with {status}; the end of its log {log}:\n{tail}", log = log.display())]
    Ended {
        /// What it is called here.
        name: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// Where its output is.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// It did not end when asked to.
    #[error("{name} did not end within {} s of SIGTERM", GRACE.as_secs())]
    Outlasted {
        /// What it is called here.
        name: String,
    },
    /// It could not be waited for.
    #[error("failed to wait for {name}")]
    Wait {
        /// What it is called here.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Process {
    /// Starts `program`, its output appended to `log`.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Start`].
    pub fn start<S: AsRef<std::ffi::OsStr>>(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
        environment: &[(&str, &str)],
        log: &Path,
    ) -> Result<Self, ProcessError> {
        let failed = |source| ProcessError::Start {
            name: name.to_owned(),
            program: program.to_owned(),
            source,
        };
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(failed)?;
        let err = out.try_clone().map_err(failed)?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// What it is called here.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its output is.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Fails if it has ended.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Ended`] with the end of its log.
    pub fn check(&mut self) -> Result<(), ProcessError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.ended(status)),
            Err(source) => Err(ProcessError::Wait {
                name: self.name.clone(),
                source,
            }),
        }
    }

    /// Waits until it ends by itself, successfully.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Ended`] if it ended with another status than 0.
    pub async fn wait(&mut self) -> Result<(), ProcessError> {
        let status = self.exit().await?;
        if status.success() {
            Ok(())
        } else {
            Err(self.ended(status))
        }
    }

    /// Asks it to end (`SIGTERM`) and waits; it must end with status 0.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Outlasted`] after the grace period, [`ProcessError::Ended`] if it failed.
    pub async fn stop(mut self) -> Result<(), ProcessError> {
        self.end().await
    }

    /// The same for one that is followed by another.
    ///
    /// # Errors
    ///
    /// As [`Process::stop`].
    pub async fn end(&mut self) -> Result<(), ProcessError> {
        self.signal(Signal::SIGTERM);
        match tokio::time::timeout(GRACE, self.wait()).await {
            Ok(result) => result,
            Err(_) => Err(ProcessError::Outlasted {
                name: self.name.clone(),
            }),
        }
    }

    /// Ends it as a power cut would (`SIGKILL`), and waits until it is gone.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Wait`].
    pub async fn kill(&mut self) -> Result<(), ProcessError> {
        self.child
            .kill()
            .await
            .map_err(|source| ProcessError::Wait {
                name: self.name.clone(),
                source,
            })
    }

    fn signal(&self, signal: Signal) {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            // It may have ended meanwhile; waiting tells.
            let _ = kill(Pid::from_raw(id), signal);
        }
    }

    async fn exit(&mut self) -> Result<std::process::ExitStatus, ProcessError> {
        self.child
            .wait()
            .await
            .map_err(|source| ProcessError::Wait {
                name: self.name.clone(),
                source,
            })
    }

    fn ended(&self, status: std::process::ExitStatus) -> ProcessError {
        ProcessError::Ended {
            name: self.name.clone(),
            status,
            log: self.log.clone(),
            tail: tail(&self.log, 15),
        }
    }
}

/// The last `lines` lines of a log.
pub fn tail(log: &Path, lines: usize) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
