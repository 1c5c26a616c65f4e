//! The recorder: one `Stored` fact for every version, written after the vault has made it durable,
//! and one `Deleted` fact for every version that its owner deleted.
//!
//! It walks the vault's pending versions in order and remembers how far it has come in a file. The
//! same walk at start finds what was stored before a power cut: the file is written after the
//! facts, so a fact may be written twice and is never missed, and the cloud knows it by its
//! version. A version that was overwritten before it was recorded is skipped: only its successor
//! counts.
//!
//! The vault remembers deletions itself, in the record that makes them, and is told to forget one
//! when its fact is in the journal. As one task writes both kinds, nothing is deleted before it was
//! stored.

use futures::future::try_join_all;
use longhaul_protocol::journal::{Fact, ObjectVersion};
use longhaul_protocol::value::Digest32;
use longhaul_vault::{Deletion, Error as VaultError, Pending, Vault, Version};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{UplinkConfig, UplinkError, UplinkParts};
use crate::disk;
use crate::journal::JournalError;
use crate::receipts::Taken;

/// Versions in one step of the walk; their facts share few syncs.
const STEP: usize = 256;

/// How far the recorder has come.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Cursor {
    /// The last version whose fact is in the journal.
    recorded: u64,
}

pub(super) async fn run(
    config: &UplinkConfig,
    parts: &UplinkParts,
    recorded: watch::Sender<Version>,
    stop: CancellationToken,
) -> Result<(), UplinkError> {
    let path = config.state.join("recorded.json");
    let cursor: Cursor = disk::read_json(&path)?.unwrap_or_default();
    let mut through = Version(cursor.recorded);
    loop {
        recorded.send_replace(through);
        let batch = parts.vault.pending(Some(through), STEP);
        let last = batch.last().map(|pending| pending.version);
        let written = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            written = write(parts, batch) => written,
        };
        let deletions = match written {
            Ok(deletions) => deletions,
            // The cloud has been away for long. Deliveries go on; facts follow when there is room.
            Err(UplinkError::Journal(JournalError::Full { .. })) => {
                recorded.send_replace(last.unwrap_or(through));
                tracing::warn!("the journal is full: facts about objects wait");
                let mut position = parts.journal.position();
                position.mark_unchanged();
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    _ = position.changed() => continue,
                }
            }
            Err(error) => return Err(error),
        };
        if let Some(last) = last {
            through = last;
            disk::write_json(&path, &Cursor { recorded: last.0 })?;
        } else if deletions == 0 {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = parts.arrivals.wait() => {}
            }
        }
    }
}

/// Writes the facts of a batch, and then those of deletions; says how many of these there were.
async fn write(parts: &UplinkParts, batch: Vec<Pending>) -> Result<usize, UplinkError> {
    record(parts, batch).await?;
    // Asked for only now: a version that was deleted meanwhile is told as stored first.
    let deletions = parts.vault.deletions(STEP);
    let count = deletions.len();
    try_join_all(deletions.into_iter().map(|gone| bury(parts, gone))).await?;
    Ok(count)
}

/// Writes down a deletion, and then lets the vault forget it.
async fn bury(parts: &UplinkParts, gone: Deletion) -> Result<(), UplinkError> {
    if let Ok(key) = gone.key.parse() {
        let object = ObjectVersion {
            bucket: gone.job.to_string(),
            key,
            version: gone.version.0,
        };
        parts.journal.append(Fact::Deleted { object }).await?;
    }
    parts.vault.forget_deletion(gone.version).await?;
    Ok(())
}

/// Leaves for receipts first, durable; then the facts that name them.
async fn record(parts: &UplinkParts, batch: Vec<Pending>) -> Result<(), UplinkError> {
    let vault = parts.vault.clone();
    // All in one hop: one for each costs more than everything else about a small object.
    let described = tokio::task::spawn_blocking(move || {
        let described = batch.iter().map(|pending| describe(&vault, pending));
        described.collect::<Result<Vec<_>, _>>()
    });
    let described = described.await.map_err(|_| VaultError::Closed)??;
    let taken: Vec<Taken> = described.into_iter().flatten().collect();
    if taken.is_empty() {
        return Ok(());
    }
    let places = parts.receipts.take(taken.clone()).await?;
    let facts = taken.into_iter().zip(places).map(|(taken, place)| {
        parts.journal.append(Fact::Stored {
            object: taken.object,
            bytes: taken.bytes,
            blake3: taken.blake3,
            receipt: Some(place),
        })
    });
    try_join_all(facts).await?;
    Ok(())
}

/// Blocks where a digest has to be read from the disk.
fn describe(vault: &Vault, pending: &Pending) -> Result<Option<Taken>, VaultError> {
    let blake3 = match vault.blake3(pending.version) {
        Ok(hash) => Digest32(hash),
        Err(error) => return undigested(error, pending.version),
    };
    let Ok(key) = pending.key.parse() else {
        tracing::error!(
            key = pending.key,
            "the vault holds a name that it should not"
        );
        return Ok(None);
    };
    Ok(Some(Taken {
        object: ObjectVersion {
            bucket: pending.job.to_string(),
            key,
            version: pending.version.0,
        },
        bytes: pending.size,
        blake3,
    }))
}

/// The version's digest; `None` if it is gone or cannot be read, which its delivery will report.
pub(super) async fn blake3(
    vault: &Vault,
    version: Version,
) -> Result<Option<Digest32>, UplinkError> {
    let vault = vault.clone();
    let hashed = tokio::task::spawn_blocking(move || vault.blake3(version)).await;
    match hashed.unwrap_or(Err(VaultError::Closed)) {
        Ok(hash) => Ok(Some(Digest32(hash))),
        Err(error) => Ok(undigested(error, version)?),
    }
}

/// A digest that is not to be had stops nothing, unless the vault is closed.
fn undigested<T>(error: VaultError, version: Version) -> Result<Option<T>, VaultError> {
    if matches!(error, VaultError::Closed) {
        return Err(error);
    }
    tracing::debug!(%error, %version, "no digest");
    Ok(None)
}
