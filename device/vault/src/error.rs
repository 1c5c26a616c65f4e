//! What can go wrong, and what a recovery found.

use std::{io, path::PathBuf, sync::Arc};

use crate::{InvalidTransition, PartNumber};

/// Bytes on the disk that are not what was written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("object {key:?} version {version} is damaged: {place}")]
pub struct Damage {
    /// The object's job.
    pub job: String,
    /// The object's key.
    pub key: String,
    /// The object's version.
    pub version: u64,
    /// Segment and frame, or log file and offset.
    pub place: String,
}

/// An operation that the vault could not do.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No job of this name, or it was erased.
    #[error("no job {0:?}")]
    NoSuchJob(String),
    /// No object of this name.
    #[error("no object {0:?}")]
    NoSuchObject(String),
    /// The version was overwritten, deleted or never existed.
    #[error("no version {0}: overwritten, deleted or never written")]
    NoSuchVersion(u64),
    /// The upload was completed, aborted or never existed.
    #[error("no upload {0}")]
    NoSuchUpload(String),
    /// The list of parts names one that is absent, changed or out of order.
    #[error("part {0} is absent, has another etag or is out of order")]
    InvalidPart(PartNumber),
    /// An upload needs at least one part.
    #[error("an upload cannot be completed without parts")]
    NoParts,
    /// The key, metadata or another text is longer than the vault keeps.
    #[error("{what} is {len} bytes long; at most {max}")]
    TooLong {
        /// Which text.
        what: &'static str,
        /// Its length.
        len: usize,
        /// The longest allowed.
        max: usize,
    },
    /// An object key cannot be empty.
    #[error("an object key cannot be empty")]
    EmptyKey,
    /// The range begins behind the object's end or is empty.
    #[error("range {start}..{end} is not satisfiable for {size} bytes")]
    InvalidRange {
        /// First byte asked for.
        start: u64,
        /// One behind the last byte asked for.
        end: u64,
        /// The object's size.
        size: u64,
    },
    /// The condition on the current version does not hold; nothing was changed.
    #[error("precondition failed on {0:?}")]
    PreconditionFailed(String),
    /// The delivery event does not fit the version's state.
    #[error(transparent)]
    InvalidTransition(#[from] InvalidTransition),
    /// The object's bytes were released after delivery; its record remains.
    #[error("the bytes of object {0:?} were released after delivery")]
    Released(String),
    /// 90 % full: come back when something has been delivered.
    #[error("the vault is nearly full: slow down")]
    SlowDown,
    /// 95 % full, or the file system has no space left.
    #[error("the vault is full")]
    DiskFull,
    /// Altered bytes; never returned as data.
    #[error(transparent)]
    Damaged(Box<Damage>),
    /// The disk refused.
    #[error("failed to {what}")]
    Io {
        /// What was attempted on what.
        what: String,
        /// The system's reason.
        source: Arc<io::Error>,
    },
    /// The vault is closed, or its log cannot be written any more.
    #[error("the vault is closed")]
    Closed,
}

impl Error {
    /// Wraps a disk error; a disk without space is [`Error::DiskFull`].
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        if is_full(&source) {
            return Self::DiskFull;
        }
        Self::Io {
            what: what.into(),
            source: Arc::new(source),
        }
    }
}

/// True if `error` says that there is no space (or no quota) left.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// A vault that could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Sizes that do not fit together, or another size than the vault was made with.
    #[error("vault configuration: {rule}")]
    Config {
        /// What they must be.
        rule: String,
    },
    /// Another process has the vault open.
    #[error("vault {path} is open in another process")]
    InUse {
        /// The vault's directory.
        path: PathBuf,
    },
    /// The disk refused.
    #[error("failed to {what}")]
    Io {
        /// What was attempted on what.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The master key does not open the keyring, or the keyring was altered.
    #[error("keyring {path} does not open with this master key, or was altered")]
    WrongKey {
        /// The keyring file.
        path: PathBuf,
    },
    /// A file that was durable is altered or missing.
    #[error("{path} is damaged at byte {offset}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
}

/// What opening a vault found and dropped.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RecoveryReport {
    /// True if the vault was made just now.
    pub created: bool,
    /// Records read from the checkpoint.
    pub checkpoint_records: u64,
    /// Records replayed from the log behind the checkpoint.
    pub replayed_records: u64,
    /// Records skipped because their job was erased.
    pub erased_records: u64,
    /// Bytes of an unfinished, never acknowledged batch at the log's end that were dropped.
    pub dropped_bytes: u64,
    /// Objects that the vault holds.
    pub objects: u64,
    /// Multipart uploads that are open.
    pub uploads: u64,
    /// Versions that are still to be delivered.
    pub pending: u64,
}
