//! What a push achieved.

use std::path::PathBuf;

use longhaul_protocol::ids::{BoxId, ObjectKey};
use longhaul_protocol::lan::Delivery;
use longhaul_protocol::value::Digest32;
use serde::Serialize;

use crate::plan::Skipped;

/// What one push achieved.
#[derive(Clone, Debug, Serialize)]
pub struct PushReport {
    /// The box that it was pushed to.
    pub box_id: BoxId,
    /// Where the box was found.
    pub address: String,
    /// The bucket.
    pub bucket: String,
    /// Files that are safe on the box, in the order of the plan.
    pub files: Vec<FileReport>,
    /// Files that are not.
    pub failed: Vec<FailedFile>,
    /// What was left out before anything was sent.
    pub skipped: Vec<Skipped>,
    /// Bytes of `files`.
    pub bytes: u64,
    /// Bytes of `files` that were sent this time; the rest was on the box already.
    pub bytes_sent: u64,
    /// Requests that had to be sent again.
    pub retries: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl PushReport {
    /// Whether every file that should be sent is safe on the box, and none failed to be delivered.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty()
            && !self.skipped.iter().any(|s| s.reason.is_failure())
            && !self
                .files
                .iter()
                .any(|f| matches!(f.delivery, Some(Delivery::Failed { .. })))
    }
}

/// A file that is safe on the box.
#[derive(Clone, Debug, Serialize)]
pub struct FileReport {
    /// Where it was read.
    pub path: PathBuf,
    /// The object that it became.
    pub key: ObjectKey,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of the bytes that were sent, taken while they were read.
    pub blake3: Digest32,
    /// The tag that the box gave it.
    pub etag: String,
    /// How it got there.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What is odd about it, such as a name that differs from another one in case alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    /// How far the box has carried it; known only after waiting for delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
}

/// How a file got onto the box.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// All of it was sent.
    Sent,
    /// An earlier push had sent some of its parts.
    Resumed {
        /// Parts that were not sent again.
        parts_kept: usize,
    },
    /// An earlier push had sent it.
    AlreadyThere,
}

/// A file that is not on the box.
#[derive(Clone, Debug, Serialize)]
pub struct FailedFile {
    /// Where it is.
    pub path: PathBuf,
    /// The object that it should become.
    pub key: ObjectKey,
    /// What failed, and what to do.
    pub reason: String,
}
