//! Network namespaces: one for this thread, one for each process that holds it.

use std::process::Stdio;

use nix::sched::{CloneFlags, unshare};

use crate::process::Process;
use crate::system::{Stage, SystemError};

/// Set where namespaces cannot be had, and that is known: the tests that need them then do nothing.
pub const WITHOUT: &str = "LONGHAUL_WITHOUT_NAMESPACES";

/// Why there is no lab.
#[derive(Debug, thiserror::Error)]
#[error(
    "no network namespace of one's own: {0}. This needs root. Where that cannot be, set \
     {WITHOUT}=1: what needs namespaces is then NOT CHECKED"
)]
pub struct LabError(#[from] nix::Error);

/// Takes this thread into a network namespace of its own. Call it before any other thread is made,
/// which then are in it, too. `false` where it cannot be, and that is known.
///
/// # Errors
///
/// [`LabError`] where it cannot be.
pub fn enter() -> Result<bool, LabError> {
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => Ok(true),
        Err(_) if std::env::var_os(WITHOUT).is_some() => {
            eprintln!("NOT CHECKED: network namespaces cannot be had here ({WITHOUT} is set)");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// A network and mount namespace, there for as long as the process that holds it.
pub struct Namespace {
    pid: u32,
    _holder: Process,
}

impl Namespace {
    /// Makes one; `script` runs in it first, and must end with waiting for ever.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub fn hold(stage: &Stage, name: &str, script: &str) -> Result<Self, SystemError> {
        let holder = stage.start_path(
            name,
            "unshare".as_ref(),
            ["--net", "--mount", "/bin/sh", "-c", script],
        )?;
        let pid = holder.id().ok_or(SystemError::Unexpected {
            what: "a namespace's process has an id",
            text: name.to_owned(),
        })?;
        // The namespaces are made after the process: its id is theirs only then.
        for _ in 0..500 {
            let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
            let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if of(&pid.to_string()) != of("self") && comm.trim() == "sleep" {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Ok(Self {
            pid,
            _holder: holder,
        })
    }

    /// The process that holds it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What stands before a command that shall run in it.
    pub fn entry(&self) -> Vec<String> {
        let pid = self.pid;
        vec![
            "nsenter".to_owned(),
            format!("--net=/proc/{pid}/ns/net"),
            format!("--mount=/proc/{pid}/ns/mnt"),
            "--".to_owned(),
        ]
    }

    /// Runs shell commands in it; the first that fails ends them.
    ///
    /// # Errors
    ///
    /// [`SystemError::Unexpected`] with what was printed.
    pub async fn run(&self, script: &str) -> Result<(), SystemError> {
        self.output(script).await.map(drop)
    }

    /// The same; yields what they printed.
    ///
    /// # Errors
    ///
    /// [`SystemError::Unexpected`] with what was printed.
    pub async fn output(&self, script: &str) -> Result<String, SystemError> {
        let mut entry = self.entry();
        entry.extend(["/bin/sh".to_owned(), "-ec".to_owned(), script.to_owned()]);
        output(&entry).await
    }
}

/// Shell commands that belong together.
#[derive(Default)]
pub struct Shell(Vec<String>);

impl Shell {
    #[must_use]
    pub fn add(mut self, line: impl Into<String>) -> Self {
        self.0.push(line.into());
        self
    }

    pub async fn run(self) -> Result<(), SystemError> {
        sh(&self.0.join("\n")).await
    }
}

/// Runs shell commands in this thread's namespace.
pub async fn sh(script: &str) -> Result<(), SystemError> {
    let line = ["/bin/sh", "-ec", script].map(str::to_owned);
    output(&line).await.map(drop)
}

/// What a command prints on standard output.
async fn output(line: &[String]) -> Result<String, SystemError> {
    let ran = tokio::process::Command::new(&line[0])
        .args(&line[1..])
        .stdin(Stdio::null())
        .output()
        .await;
    let failed = |text: String| SystemError::Unexpected {
        what: "a command of the lab failed",
        text,
    };
    let ran = ran.map_err(|e| failed(format!("{line:?}: {e}")))?;
    if ran.status.success() {
        return Ok(String::from_utf8_lossy(&ran.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    Err(failed(format!("{line:?}: {said}")))
}
