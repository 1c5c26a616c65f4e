//! The recorder: one `Stored` fact for every version, written after the vault has made it durable.
//!
//! It walks the vault's pending versions in order and remembers how far it has come in a file. The
//! same walk at start finds what was stored before a power cut: the file is written after the
//! facts, so a fact may be written twice and is never missed, and the cloud knows it by its
//! version. A version that was overwritten before it was recorded is skipped: only its successor
//! counts.

use longhaul_protocol::journal::{Fact, ObjectVersion};
use longhaul_protocol::value::Digest32;
use longhaul_vault::{Error as VaultError, Pending, Vault, Version};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{UplinkConfig, UplinkError, UplinkParts};
use crate::disk;
use crate::journal::JournalError;

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
        let Some(last) = batch.last().map(|pending| pending.version) else {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = parts.arrivals.wait() => continue,
            }
        };
        let facts = batch.into_iter().map(|pending| record(parts, pending));
        let written = futures::future::try_join_all(facts);
        let written = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            written = written => written,
        };
        match written {
            Ok(_) => {}
            // The cloud has been away for long. Deliveries go on; facts follow when there is room.
            Err(UplinkError::Journal(JournalError::Full { .. })) => {
                recorded.send_replace(last);
                tracing::warn!("the journal is full: facts about stored objects wait");
                let mut position = parts.journal.position();
                position.mark_unchanged();
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    _ = position.changed() => continue,
                }
            }
            Err(error) => return Err(error),
        }
        through = last;
        disk::write_json(&path, &Cursor { recorded: last.0 })?;
    }
}

async fn record(parts: &UplinkParts, pending: Pending) -> Result<(), UplinkError> {
    let Some(blake3) = blake3(&parts.vault, pending.version).await? else {
        return Ok(());
    };
    let Ok(key) = pending.key.parse() else {
        tracing::error!(
            key = pending.key,
            "the vault holds a name that it should not"
        );
        return Ok(());
    };
    let fact = Fact::Stored {
        object: ObjectVersion {
            bucket: pending.job.to_string(),
            key,
            version: pending.version.0,
        },
        bytes: pending.size,
        blake3,
    };
    parts.journal.append(fact).await?;
    Ok(())
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
        Err(VaultError::Closed) => Err(VaultError::Closed.into()),
        Err(error) => {
            tracing::debug!(%error, %version, "no digest");
            Ok(None)
        }
    }
}
