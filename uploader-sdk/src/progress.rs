//! How far a push has come, readable at any moment from any thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use longhaul_protocol::diag::Code;

/// Counters of one push. Share it with [`std::sync::Arc`] and read [`Progress::snapshot`].
#[derive(Debug, Default)]
pub struct Progress {
    files: AtomicU64,
    bytes: AtomicU64,
    files_on_box: AtomicU64,
    bytes_on_box: AtomicU64,
    bytes_moving: AtomicU64,
    files_failed: AtomicU64,
    files_in_cloud: AtomicU64,
    bytes_in_cloud: AtomicU64,
    retries: AtomicU64,
    held: AtomicBool,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Serialize)]
pub struct Snapshot {
    /// Files to push; 0 while the folders are still being walked.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that are safe on the box.
    pub files_on_box: u64,
    /// Bytes that are safe on the box, counting finished parts of unfinished files.
    pub bytes_on_box: u64,
    /// Bytes that were handed to the network and are not yet safe on the box.
    pub bytes_moving: u64,
    /// Files that could not be pushed.
    pub files_failed: u64,
    /// Files that are verified in the cloud; counted only while waiting for delivery.
    pub files_in_cloud: u64,
    /// Their bytes.
    pub bytes_in_cloud: u64,
    /// Requests that had to be sent again.
    pub retries: u64,
    /// Why deliveries wait, while waiting for them: the bucket refuses everybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
}

impl Progress {
    /// The counters now. They are read one by one: a sum may be a request behind.
    pub fn snapshot(&self) -> Snapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            files: get(&self.files),
            bytes: get(&self.bytes),
            files_on_box: get(&self.files_on_box),
            bytes_on_box: get(&self.bytes_on_box),
            bytes_moving: get(&self.bytes_moving),
            files_failed: get(&self.files_failed),
            files_in_cloud: get(&self.files_in_cloud),
            bytes_in_cloud: get(&self.bytes_in_cloud),
            retries: get(&self.retries),
            code: (self.held.load(Ordering::Relaxed)).then_some(Code::BUCKET_HELD),
        }
    }

    pub(crate) fn planned(&self, files: u64, bytes: u64) {
        self.files.store(files, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// There is more to do than was said before.
    pub(crate) fn more(&self, files: u64, bytes: u64) {
        self.files.fetch_add(files, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn file_on_box(&self) {
        self.files_on_box.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn bytes_on_box(&self, bytes: u64) {
        self.bytes_on_box.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A changed file is sent again from its beginning.
    pub(crate) fn bytes_lost(&self, bytes: u64) {
        self.bytes_on_box.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn bytes_moving(&self, bytes: u64) {
        self.bytes_moving.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn bytes_stopped(&self, bytes: u64) {
        self.bytes_moving.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn file_failed(&self) {
        self.files_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn in_cloud(&self, files: u64, bytes: u64) {
        self.files_in_cloud.store(files, Ordering::Relaxed);
        self.bytes_in_cloud.store(bytes, Ordering::Relaxed);
    }

    /// Whether the bucket refuses everybody.
    pub(crate) fn held(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }
}
