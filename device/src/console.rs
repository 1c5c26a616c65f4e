//! `longhaul-box status`: the running agent says over a socket how it is.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use longhaul_protocol::diag::RungStatus;
use longhaul_protocol::journey::Guide;
use longhaul_protocol::lan::LanStatus;
use longhaul_protocol::uplink::UplinkMode;
use longhaul_protocol::value::UnixMillis;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::journal::Position;
use crate::offline::Shown;

/// The longest status that is read, in bytes.
const MAX_STATUS: u64 = 1024 * 1024;

/// Everything that the agent says at its console.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Status {
    /// What it says on the LAN, too.
    pub lan: LanStatus,
    /// Where the data plane can be reached.
    pub lan_urls: Vec<String>,
    /// When the certificate expires.
    pub certificate_expires: Option<UnixMillis>,
    /// Seconds between samples.
    pub telemetry_interval_secs: u16,
    /// Version of the desired state in force.
    pub desired_version: u64,
    /// Highest counter of an accepted command.
    pub command_counter: u64,
    /// Facts written and facts committed by the cloud.
    pub journal: Position,
    /// Tickets that may push to it.
    #[serde(default)]
    pub tickets: usize,
    /// Registration without a line.
    #[serde(default)]
    pub offline: Shown,
    /// Where the cloud sees the customer on their way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guide: Option<Guide>,
}

/// What can go wrong at the console.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsoleError {
    /// Nobody answers.
    #[error("no agent answers at {path}: is longhaul-box running with this state directory?")]
    Silent {
        /// Which socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The socket could not be made.
    #[error("failed to listen at {path}")]
    Listen {
        /// Which socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The answer is not a status.
    #[error("malformed status from {path}")]
    Malformed {
        /// Which socket.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// Where the socket lies.
pub fn socket_path(state: &Path) -> PathBuf {
    state.join("run").join("status.sock")
}

/// Answers whoever connects with the status of that moment, until told to stop.
pub async fn serve(
    path: PathBuf,
    status: watch::Receiver<Status>,
    shutdown: CancellationToken,
) -> Result<(), ConsoleError> {
    // A socket of an agent that was killed is still there; the state's lock says that it is gone.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).map_err(|source| ConsoleError::Listen {
        path: path.clone(),
        source,
    })?;
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((mut stream, _)) = accepted else {
            continue;
        };
        let answer = serde_json::to_vec(&*status.borrow()).unwrap_or_default();
        // Some kilobytes fit the socket's buffer, so a reader that does not read holds up nobody.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), stream.write_all(&answer))
            .await;
    }
    let _ = std::fs::remove_file(&path);
    Ok(())
}

/// Asks the agent that runs with this state directory.
pub async fn ask(state: &Path) -> Result<Status, ConsoleError> {
    let path = socket_path(state);
    let silent = |source| ConsoleError::Silent {
        path: path.clone(),
        source,
    };
    let stream = UnixStream::connect(&path).await.map_err(silent)?;
    let mut answer = Vec::new();
    stream
        .take(MAX_STATUS)
        .read_to_end(&mut answer)
        .await
        .map_err(silent)?;
    serde_json::from_slice(&answer).map_err(|source| ConsoleError::Malformed { path, source })
}

/// The status as a person reads it.
pub fn render(status: &Status, now: UnixMillis) -> String {
    let mut text = String::new();
    let lan = &status.lan;
    let _ = writeln!(
        text,
        "box      {} (agent {})",
        lan.box_id, lan.agent_version
    );
    for rung in &lan.rungs {
        let state = match rung.status {
            RungStatus::Ok => "ok".to_owned(),
            RungStatus::Failed => rung
                .code
                .map_or("failed".to_owned(), |c| format!("{c} {}", c.entry().title)),
            RungStatus::NotReached => "-".to_owned(),
            RungStatus::Trying => "trying".to_owned(),
        };
        let for_secs = now.millis_since(rung.since) / 1000;
        let _ = writeln!(
            text,
            "{:<10} {state:<28} {for_secs:>7} s  {}",
            rung.rung.to_string(),
            rung.evidence
        );
        if let Some(code) = rung.code {
            let _ = writeln!(text, "           {}", code.entry().customer);
        }
    }
    if let Some(expires) = status.certificate_expires {
        let hours = expires.millis_since(now) / 3_600_000;
        let _ = writeln!(text, "certificate for {hours} h");
    }
    let vault = &lan.vault;
    let _ = writeln!(
        text,
        "vault    {} of {} bytes, {} objects, {} waiting for delivery",
        vault.used_bytes, vault.capacity_bytes, vault.objects, vault.pending_objects
    );
    if let Some(uplink) = &lan.uplink {
        let says = match (uplink.state, uplink.bytes_per_sec) {
            (UplinkMode::Sending, None) => "as fast as the line takes it".to_owned(),
            (UplinkMode::Sending, Some(rate)) => format!("{rate} bytes/s at the most"),
            (UplinkMode::Paused, _) => "paused: files are taken, none is sent".to_owned(),
            (UplinkMode::Waiting, _) => "nothing is sent at this hour".to_owned(),
        };
        let _ = writeln!(text, "uplink   {says}");
        if let Some(code) = uplink.code {
            let entry = code.entry();
            let _ = writeln!(text, "         {code} {}: {}", entry.title, entry.customer);
        }
    }
    if let Some(report) = &lan.network {
        let _ = writeln!(text, "network  {}", crate::page::said(report));
    }
    let (step, next) = crate::page::step(status);
    let place = step as usize + 1;
    let _ = writeln!(text, "step     {place}: {}. {next}", step.title());
    let said = status.offline.said();
    if !said.is_empty() {
        let _ = writeln!(text, "offline  {said}");
    }
    let waiting = status.journal.last.saturating_sub(status.journal.acked);
    let _ = writeln!(
        text,
        "journal  {} written, {waiting} not committed",
        status.journal.last
    );
    for url in &status.lan_urls {
        let _ = writeln!(text, "push to  {url}");
    }
    if lan.identifying {
        let _ = writeln!(text, ">>> this is the box you are looking for <<<");
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::agent::ladder::{Ladder, Observation};
    use crate::clock::Now;
    use longhaul_protocol::diag::Code;

    pub(crate) fn status() -> Status {
        let mut ladder = Ladder::new(None, Now::default());
        ladder.observe(
            &[Observation::failed(Code::NO_CABLE, "eth0")],
            Now::default(),
        );
        Status {
            lan: LanStatus {
                v: 1,
                box_id: "0123456789AB".parse().unwrap(),
                agent_version: "1".to_owned(),
                rungs: ladder.report(),
                vault: longhaul_protocol::telemetry::VaultFill::default(),
                identifying: true,
                uplink: None,
                capabilities: Vec::new(),
                network: None,
            },
            lan_urls: vec!["https://192.0.2.1:8420".to_owned()],
            certificate_expires: None,
            telemetry_interval_secs: 30,
            desired_version: 0,
            command_counter: 0,
            journal: Position::default(),
            tickets: 0,
            offline: Shown::default(),
            guide: None,
        }
    }

    #[tokio::test]
    async fn whoever_connects_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        assert!(matches!(
            ask(dir.path()).await,
            Err(ConsoleError::Silent { .. })
        ));
        let (_sender, receiver) = watch::channel(status());
        let shutdown = CancellationToken::new();
        let path = socket_path(dir.path());
        let server = tokio::spawn(serve(path.clone(), receiver, shutdown.clone()));
        while !path.exists() {
            tokio::task::yield_now().await;
        }

        assert_eq!(ask(dir.path()).await.unwrap(), status());

        shutdown.cancel();
        server.await.unwrap().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_person_is_told_the_code_and_what_to_do() {
        let text = render(&status(), UnixMillis(0));

        for expected in [
            "LH-101 no cable",
            "Plug a network cable",
            "0123456789AB",
            "looking for",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }
}
