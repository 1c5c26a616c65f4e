//! Receipts on the box: a leaf for every object that is safe here, one Merkle tree for each epoch,
//! its root signed by the box's key in the TPM.
//!
//! Data moves one way: `recorder -> leaf (durable) -> journal -> cloud`, and when an epoch ends,
//! `root -> signature -> journal -> cloud`. A leaf is on the disk before the fact that names it is
//! in the journal, so that every fact is covered by a root to come. An epoch ends when nothing came
//! for a while; a box that has no certificate yet signs later.

mod log;

#[cfg(feature = "fuzzing")]
pub(crate) use log::fuzzed as fuzz_leaves;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use longhaul_protocol::ids::EpochId;
use longhaul_protocol::journal::{Fact, ObjectVersion};
use longhaul_protocol::receipt::{Leaf, LeafPlace};
use longhaul_protocol::value::{Digest32, Jws, UnixMillis};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::disk::DiskError;
use crate::journal::{JournalError, JournalHandle};
use log::Log;

pub use log::Closed;

/// An epoch ends when no leaf came for this long, in milliseconds.
const IDLE_MS: i64 = 5_000;
/// An epoch ends at the latest so long after its first leaf, in milliseconds.
const LONGEST_MS: i64 = 300_000;
/// How often it is looked whether the epoch ends.
const LOOK: Duration = Duration::from_secs(1);

/// Why receipts cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptsError {
    /// The leaves could not be kept.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The root could not be written down.
    #[error("failed to write down a signed root")]
    Journal(#[from] JournalError),
    /// A thread failed.
    #[error("the thread that keeps leaves failed")]
    Panicked,
}

/// Signs roots with the box's key.
pub trait Sealer: Send + Sync {
    /// The signed root of an epoch; absent while the box has no certificate. Blocks for the TPM.
    ///
    /// # Errors
    ///
    /// What failed, in words; it is tried again.
    fn seal(&self, closed: &Closed) -> Result<Option<Jws>, String>;
}

/// An object that is safe on the box.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Which.
    pub object: ObjectVersion,
    /// Its length in bytes.
    pub bytes: u64,
    /// BLAKE3 of its bytes.
    pub blake3: Digest32,
}

/// The box's receipts. Clones share the open epoch.
#[derive(Clone)]
pub struct Receipts {
    log: Arc<Mutex<Log>>,
    dir: PathBuf,
    fresh: fn() -> EpochId,
    clock: fn() -> UnixMillis,
}

impl Receipts {
    /// Opens what lies in `dir`. `fresh` names epochs. Blocks.
    ///
    /// # Errors
    ///
    /// [`DiskError`].
    pub fn open(
        dir: &Path,
        fresh: fn() -> EpochId,
        clock: fn() -> UnixMillis,
    ) -> Result<Self, DiskError> {
        Ok(Self {
            log: Arc::new(Mutex::new(Log::open(dir, fresh)?)),
            dir: dir.to_owned(),
            fresh,
            clock,
        })
    }

    /// Takes objects into the open epoch, and says where; durable when this returns. One that was
    /// taken in before keeps its place.
    ///
    /// # Errors
    ///
    /// [`ReceiptsError`].
    pub async fn take(&self, taken: Vec<Taken>) -> Result<Vec<LeafPlace>, ReceiptsError> {
        let this = self.clone();
        let taking = tokio::task::spawn_blocking(move || this.take_now(taken));
        taking.await.map_err(|_| ReceiptsError::Panicked)?
    }

    fn take_now(&self, taken: Vec<Taken>) -> Result<Vec<LeafPlace>, ReceiptsError> {
        let stored = (self.clock)();
        let mut log = self.log.lock();
        if log.room() < taken.len() as u64 {
            log.close(self.fresh)?;
        }
        let versions: Vec<u64> = taken.iter().map(|t| t.object.version).collect();
        let new = taken
            .into_iter()
            .filter(|t| log.place(t.object.version).is_none());
        let leaves: Vec<Leaf> = new
            .map(|t| Leaf {
                object: t.object,
                bytes: t.bytes,
                blake3: t.blake3,
                stored,
            })
            .collect();
        if !leaves.is_empty() {
            log.append(&leaves)?;
        }
        let places = versions.iter().filter_map(|v| log.place(*v).cloned());
        Ok(places.collect())
    }

    /// Ends the open epoch if it is time, or at once; yields what waits for a signature.
    fn due(&self, at_once: bool) -> Result<Vec<Closed>, DiskError> {
        let mut log = self.log.lock();
        if at_once || log.is_due((self.clock)(), IDLE_MS, LONGEST_MS) {
            log.close(self.fresh)?;
        }
        drop(log);
        log::closed(&self.dir)
    }

    /// Signs what is complete and writes it to the journal.
    ///
    /// # Errors
    ///
    /// [`ReceiptsError`]. A signature that fails is tried again with the next call.
    pub async fn seal(
        &self,
        at_once: bool,
        sealer: &Arc<dyn Sealer>,
        journal: &JournalHandle,
    ) -> Result<(), ReceiptsError> {
        let this = self.clone();
        let due = tokio::task::spawn_blocking(move || this.due(at_once));
        for closed in due.await.map_err(|_| ReceiptsError::Panicked)?? {
            let (sealer, epoch) = (Arc::clone(sealer), closed.epoch.clone());
            let signed = tokio::task::spawn_blocking(move || sealer.seal(&closed)).await;
            let root = match signed.map_err(|_| ReceiptsError::Panicked)? {
                Ok(Some(root)) => root,
                Ok(None) => return Ok(()),
                Err(error) => {
                    tracing::warn!(error, %epoch, "an epoch of receipts is not signed yet");
                    return Ok(());
                }
            };
            match journal.append(Fact::Sealed { root }).await {
                Ok(_) => {}
                Err(JournalError::Full { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            tracing::debug!(%epoch, "receipts are sealed");
            let dir = self.dir.clone();
            let forgotten = tokio::task::spawn_blocking(move || log::forget(&dir, &epoch));
            forgotten.await.map_err(|_| ReceiptsError::Panicked)??;
        }
        Ok(())
    }

    /// Seals epochs as they end, until `stop`.
    ///
    /// # Errors
    ///
    /// [`ReceiptsError`].
    pub async fn run(
        self,
        sealer: Arc<dyn Sealer>,
        journal: JournalHandle,
        stop: CancellationToken,
    ) -> Result<(), ReceiptsError> {
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = look.tick() => self.seal(false, &sealer, &journal).await?,
            }
        }
    }
}

#[cfg(test)]
mod tests;
