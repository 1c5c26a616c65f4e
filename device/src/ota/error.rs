//! What ends the updater.

use crate::disk::DiskError;
use crate::journal::JournalError;

/// Why updates cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// How far an update has come could not be written down.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The journal failed; the next start repairs it.
    #[error("the journal failed")]
    Journal(#[from] JournalError),
    /// A part has a defect.
    #[error("{0} panicked")]
    Panicked(&'static str),
}
