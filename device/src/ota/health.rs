//! How an agent proves itself: customers can push to it, and the cloud has committed a fact of it.

use std::path::{Path, PathBuf};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::disk::{self, DiskError};
use crate::journal::Position;

/// Where an agent says that it has proved itself.
pub fn healthy_path(state: &Path) -> PathBuf {
    state.join("run").join("healthy")
}

/// Waits for the proof and writes the agent's version where the supervisor looks for it.
///
/// A session alone proves little. That the cloud acknowledges the journal needs TPM, certificate,
/// clock, session, both directions and the cloud's consumer, and every start writes a fact.
pub async fn prove<T>(
    state: PathBuf,
    version: String,
    mut journal: watch::Receiver<Position>,
    mut bound: watch::Receiver<Option<T>>,
    stop: CancellationToken,
) -> Result<(), DiskError> {
    let before = journal.borrow().acked;
    let proof = async {
        let listens = bound.wait_for(Option::is_some).await.is_ok();
        listens && journal.wait_for(|p| p.acked > before).await.is_ok()
    };
    let proved = tokio::select! {
        () = stop.cancelled() => false,
        proved = proof => proved,
    };
    if proved {
        tracing::info!(version, "this agent has proved itself");
        disk::write_atomic(&healthy_path(&state), version.as_bytes())?;
    }
    stop.cancelled().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_agent_proves_itself_by_listening_and_by_what_the_cloud_commits() {
        let dir = tempfile::tempdir().unwrap();
        disk::make_dir(&dir.path().join("run")).unwrap();
        let (journal, seen) = watch::channel(Position { last: 7, acked: 7 });
        let (bound, address) = watch::channel(None);
        let stop = CancellationToken::new();
        let (state, version) = (dir.path().to_owned(), "2.0".to_owned());
        let task = tokio::spawn(prove(state, version, seen, address, stop.clone()));
        let proved = || disk::read(&healthy_path(dir.path())).unwrap();

        journal.send_replace(Position { last: 8, acked: 7 });
        bound.send_replace(Some(()));
        tokio::task::yield_now().await;
        assert_eq!(proved(), None);
        journal.send_replace(Position { last: 8, acked: 8 });

        while proved().is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(proved().as_deref(), Some(&b"2.0"[..]));
        stop.cancel();
        task.await.unwrap().unwrap();
    }
}
