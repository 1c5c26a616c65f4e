//! What the uplink asks and tells.

use super::{Vault, check_len};
use crate::{Abandoned, Commit, Deletion, DeliveryEvent, Error, Pending, Version, op::Op};

/// Longest text of the cloud's that is kept: an upload's name, an `ETag`, a reason.
const MAX_TEXT: usize = 4096;

impl Vault {
    /// At most `limit` versions that are still to be delivered, oldest first, behind `after`. May read
    /// the disk; what it cannot read there is told to whoever asked [`Vault::on_damage`], and left out.
    pub fn pending(&self, after: Option<Version>, limit: usize) -> Vec<Pending> {
        self.core().pending(after, limit)
    }

    /// At most `limit` versions, and their sizes, that the cloud has verified and whose bytes are still
    /// here, oldest first, behind `after`: what [`DeliveryEvent::Released`] may be said of.
    pub fn releasable(&self, after: Option<Version>, limit: usize) -> Vec<(Version, u64)> {
        self.core().releasable(after, limit)
    }

    /// Records that something happened to a version on its way to the bucket.
    pub fn deliver(&self, version: Version, event: DeliveryEvent) -> Commit<()> {
        let checked = check_event(&event);
        match checked.and_then(|()| self.core().index.read().job_of(version)) {
            Ok(job) => self
                .core()
                .submit_plain(job, Op::Deliver { version, event }, |_| Some(())),
            Err(error) => Commit::ready(Err(error)),
        }
    }

    /// Uploads into the bucket whose version is gone; each until [`Vault::forget_abandoned`].
    pub fn abandoned(&self) -> Vec<Abandoned> {
        self.core().index.read().abandoned()
    }

    /// This upload was aborted in the bucket. Fine if it is forgotten already.
    pub fn forget_abandoned(&self, version: Version, upload: &str) -> Commit<()> {
        let job = self.core().index.read().job_of_abandoned(version, upload);
        let Some(job) = job else {
            return Commit::ready(Ok(()));
        };
        let op = Op::Forget {
            version,
            upload: upload.to_owned(),
        };
        self.core().submit_plain(job, op, |_| Some(()))
    }

    /// At most `limit` versions that were deleted, the lowest first; each until
    /// [`Vault::forget_deletion`]. A deletion and its mention here are one record of the log, so that
    /// no power cut comes between them. Reads the disk like [`Vault::pending`].
    pub fn deletions(&self, limit: usize) -> Vec<Deletion> {
        self.core().deletions(limit)
    }

    /// The deletion of this version is written down elsewhere. Fine if it is forgotten already.
    pub fn forget_deletion(&self, version: Version) -> Commit<()> {
        let job = self.core().index.read().job_of_deletion(version);
        let Some(job) = job else {
            return Commit::ready(Ok(()));
        };
        let op = Op::ForgetDeletion { version };
        self.core().submit_plain(job, op, |_| Some(()))
    }
}

fn check_event(event: &DeliveryEvent) -> Result<(), Error> {
    match event {
        DeliveryEvent::Started { upload } => check_len("an upload's name", upload, MAX_TEXT),
        DeliveryEvent::PartDone { etag, .. } => check_len("an etag", etag, MAX_TEXT),
        DeliveryEvent::Failed { reason } => check_len("a reason", reason, MAX_TEXT),
        _ => Ok(()),
    }
}
