//! A box's LAN side as a process of its own, the built example `lan_box`: the real intake and vault
//! behind TLS, without TPM and cloud. And a customer's computer that uses the real command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::system::{Programs, SystemError};

/// What the process says of itself.
#[derive(Clone, Debug, Deserialize)]
pub struct About {
    /// Where it listens.
    pub host: String,
    /// And at which port.
    pub port: u16,
    /// The ticket's file.
    pub ticket: PathBuf,
}

/// A running box; it ends when this is dropped.
pub struct LanBox {
    /// What it said.
    pub about: About,
    _input: ChildStdin,
    _process: Child,
    /// Where it keeps everything: it is killed, and then cleans nothing up.
    _folder: TempDir,
}

impl LanBox {
    /// Starts one.
    ///
    /// # Errors
    ///
    /// [`SystemError`] where it is not built or does not start.
    pub async fn start(programs: &Programs, arguments: &[&str]) -> Result<Self, SystemError> {
        let path = programs.path("examples/lan_box");
        let failed = |source| SystemError::File {
            path: path.clone(),
            source,
        };
        let folder = tempfile::tempdir().map_err(failed)?;
        // It serves until its input ends, so it cannot outlive this process.
        let mut process = Command::new(&path)
            .args(arguments)
            .env("RUST_LOG", "off")
            .env("TMPDIR", folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let unexpected = |text: String| SystemError::Unexpected {
            what: "lan_box says where it is",
            text,
        };
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(unexpected("it has no pipes".to_owned()));
        };
        let mut line = String::new();
        let mut output = BufReader::new(output);
        output.read_line(&mut line).await.map_err(failed)?;
        let about = serde_json::from_str(&line).map_err(|e| unexpected(format!("{e}: {line}")))?;
        Ok(Self {
            about,
            _input: input,
            _process: process,
            _folder: folder,
        })
    }

    /// Its address.
    ///
    /// # Errors
    ///
    /// [`SystemError::Unexpected`] if it gave none.
    pub fn address(&self) -> Result<SocketAddr, SystemError> {
        let text = format!("{}:{}", self.about.host, self.about.port);
        text.parse().map_err(|_| SystemError::Unexpected {
            what: "lan_box has an address",
            text,
        })
    }
}

/// A customer's computer.
#[derive(Clone, Debug)]
pub struct Customer {
    /// The command line.
    pub program: PathBuf,
    /// The ticket's file.
    pub ticket: PathBuf,
    /// Where the box is.
    pub url: String,
    /// Where the program keeps what it remembers.
    pub state: PathBuf,
}

impl Customer {
    /// The command line with `arguments`, its output caught.
    pub fn command<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        self.command_under(&[], arguments)
    }

    /// The same, started by another program: `under` is that with its arguments.
    pub fn command_under<S: AsRef<std::ffi::OsStr>>(
        &self,
        under: &[&str],
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = match under.split_first() {
            None => Command::new(&self.program),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&self.program);
                command
            }
        };
        command
            .args(arguments)
            .env("LONGHAUL_TICKET", &self.ticket)
            .env("LONGHAUL_BOX", &self.url)
            .env("XDG_STATE_HOME", &self.state)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// How often `word` stands in what the program remembers.
    pub fn remembered(&self, word: &str) -> usize {
        let Ok(entries) = std::fs::read_dir(self.state.join("longhaul")) else {
            return 0;
        };
        let texts = entries.filter_map(|e| std::fs::read_to_string(e.ok()?.path()).ok());
        texts.map(|text| text.matches(word).count()).sum()
    }

    /// Runs the command line to its end.
    ///
    /// # Errors
    ///
    /// [`SystemError::File`] if it does not start.
    pub async fn run<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Output, SystemError> {
        let output = self.command(arguments).output().await;
        output.map_err(|source| SystemError::File {
            path: self.program.clone(),
            source,
        })
    }

    /// Runs it with `--json`; it must end with `code`. Yields its document.
    ///
    /// # Errors
    ///
    /// [`SystemError::Unexpected`] with what it printed otherwise.
    pub async fn json(&self, code: i32, arguments: &[&str]) -> Result<Value, SystemError> {
        let output = self.run(arguments.iter().chain(&["--json"])).await?;
        let document = serde_json::from_slice(&output.stdout);
        match document {
            Ok(document) if output.status.code() == Some(code) => Ok(document),
            _ => Err(SystemError::Unexpected {
                what: "the command line ends as it should",
                text: format!(
                    "{arguments:?}: {}\n{}\n{}",
                    output.status,
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                ),
            }),
        }
    }
}

/// A path as an argument.
///
/// # Panics
///
/// If it is not UTF-8: tests name their folders.
pub fn arg(path: &Path) -> &str {
    path.to_str().expect("a path of UTF-8")
}
