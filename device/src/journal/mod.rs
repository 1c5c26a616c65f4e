//! Durable facts on their way to the cloud: kept until the cloud says that it has committed them.
//!
//! One thread owns the file. Callers that append at the same time share one sync.

mod log;
mod record;
mod results;

#[cfg(feature = "fuzzing")]
pub(crate) use record::{fuzz_seed, fuzzed as fuzz_records};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use longhaul_protocol::ids::EpochId;
use longhaul_protocol::journal::{Fact, JournalAck, JournalBatch};
use longhaul_protocol::value::UnixMillis;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::disk::DiskError;
use log::Log;

/// Requests that wait for the journal's thread at the most.
const QUEUE: usize = 1024;

/// What failed on the journal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file could not be read or written.
    #[error("journal file {path} failed")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file could not be replaced.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// An entry that was written is not there any more; opening the journal again repairs it.
    #[error("journal file {path} is damaged at entry {number}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Which entry.
        number: u64,
    },
    /// Written by a newer program.
    #[error("journal has format {format}, which this program does not know")]
    UnknownFormat {
        /// The format that it has.
        format: u16,
    },
    /// The cloud has been away for so long that there is no room for more.
    #[error("journal holds {limit} bytes that the cloud has not committed")]
    Full {
        /// How much it may hold, in bytes.
        limit: u64,
    },
    /// One fact is longer than a message may be.
    #[error("fact of {bytes} bytes is too long for the journal")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The fact has no JSON form.
    #[error("failed to encode a fact")]
    Encode(#[source] serde_json::Error),
    /// The journal was closed, or its thread ended with an error that was reported elsewhere.
    #[error("journal is closed")]
    Closed,
}

/// How far the journal has come.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Position {
    /// The last entry on the disk; 0 for none.
    pub last: u64,
    /// The last entry that the cloud has committed; 0 for none.
    pub acked: u64,
}

enum Request {
    Append(Fact, oneshot::Sender<Result<u64, JournalError>>),
    Acknowledge(u64),
    /// What follows a number that the cloud has not committed; `None`: from the oldest on.
    Batch(
        Option<u64>,
        oneshot::Sender<Result<Option<JournalBatch>, JournalError>>,
    ),
}

/// Writes to the journal; clones write to the same one.
#[derive(Clone, Debug)]
pub struct JournalHandle {
    requests: mpsc::Sender<Request>,
    position: watch::Receiver<Position>,
    epoch: Arc<EpochId>,
}

/// The thread behind the handles. It ends when the last handle is gone.
#[derive(Debug)]
pub struct JournalThread(JoinHandle<Result<(), JournalError>>);

impl JournalThread {
    /// Waits until everything is written; every handle must have been dropped.
    pub fn join(self) -> Result<(), JournalError> {
        self.0.join().unwrap_or(Err(JournalError::Closed))
    }
}

/// Opens the journal in `dir` and starts its thread. `clock` dates the entries.
pub fn open(
    dir: &Path,
    max_bytes: u64,
    fresh: EpochId,
    clock: fn() -> UnixMillis,
) -> Result<(JournalHandle, JournalThread), JournalError> {
    let log = Log::open(dir, max_bytes, fresh, clock())?;
    let (requests, inbox) = mpsc::channel(QUEUE);
    let (announce, position) = watch::channel(log.position());
    let epoch = Arc::new(log.epoch().clone());
    let thread = std::thread::Builder::new()
        .name("journal".to_owned())
        .spawn(move || run(log, inbox, &announce, clock))
        .map_err(|source| JournalError::Io {
            path: dir.to_owned(),
            source,
        })?;
    let handle = JournalHandle {
        requests,
        position,
        epoch,
    };
    Ok((handle, JournalThread(thread)))
}

impl JournalHandle {
    /// Writes a fact; it is on the disk when this returns its number.
    pub async fn append(&self, fact: Fact) -> Result<u64, JournalError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Append(fact, reply)).await?;
        answer.await.unwrap_or(Err(JournalError::Closed))
    }

    /// The cloud has committed; what is for another epoch is ignored.
    pub async fn acknowledge(&self, ack: &JournalAck) -> Result<(), JournalError> {
        if ack.epoch != *self.epoch {
            return Ok(());
        }
        self.send(Request::Acknowledge(ack.through)).await
    }

    /// The oldest entries that the cloud has not committed, as many as one message holds.
    pub async fn batch(&self) -> Result<Option<JournalBatch>, JournalError> {
        self.batch_after(None).await
    }

    /// Entries behind `number` that the cloud has not committed, as many as one message holds; where
    /// there is no number, the oldest.
    pub async fn batch_after(
        &self,
        number: Option<u64>,
    ) -> Result<Option<JournalBatch>, JournalError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Batch(number, reply)).await?;
        answer.await.unwrap_or(Err(JournalError::Closed))
    }

    /// Follows the journal's position.
    pub fn position(&self) -> watch::Receiver<Position> {
        self.position.clone()
    }

    /// The epoch in which the numbers count.
    pub fn epoch(&self) -> &EpochId {
        &self.epoch
    }

    async fn send(&self, request: Request) -> Result<(), JournalError> {
        self.requests
            .send(request)
            .await
            .map_err(|_| JournalError::Closed)
    }
}

fn run(
    mut log: Log,
    mut inbox: mpsc::Receiver<Request>,
    announce: &watch::Sender<Position>,
    clock: fn() -> UnixMillis,
) -> Result<(), JournalError> {
    while let Some(first) = inbox.blocking_recv() {
        let mut facts = Vec::new();
        let mut replies = Vec::new();
        let mut others = Vec::new();
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                Request::Append(fact, reply) => {
                    facts.push(fact);
                    replies.push(reply);
                }
                other => others.push(other),
            }
            next = (facts.len() < QUEUE)
                .then(|| inbox.try_recv().ok())
                .flatten();
        }
        if !facts.is_empty() {
            // A failed write or sync leaves the file in an unknown state, so the thread ends; the
            // dropped replies tell every caller.
            let results = log.append(facts, clock())?;
            announce.send_replace(log.position());
            for (reply, result) in replies.into_iter().zip(results) {
                let _ = reply.send(result);
            }
        }
        for other in others {
            match other {
                Request::Acknowledge(through) => {
                    log.acknowledge(through)?;
                    announce.send_replace(log.position());
                }
                Request::Batch(after, reply) => {
                    let _ = reply.send(log.batch_after(after));
                }
                Request::Append(..) => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
