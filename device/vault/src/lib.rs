//! The crash-safe encrypted store that the data plane writes to.
//!
//! Bytes move one way: `writer -> segment frames (or the log) -> log record -> index -> runs`. The log
//! is the only truth: an operation happens when its record is on the disk, and the index is what
//! comes out of applying the records in order, at run time and at [`Vault::open`] alike. What of the
//! index was not touched lately leaves memory for sorted files, and the log before it can go.
//!
//! The core is synchronous. What must wait for the disk returns a [`Commit`], which can be
//! awaited under any runtime or waited for by a thread. [`ObjectWriter::write`] and
//! [`ObjectReader::next_chunk`] do disk work in the calling thread: call them from a blocking one.

mod buffer;
mod catalog;
mod codec;
mod commit;
mod committer;
mod config;
mod core;
mod crypto;
mod delivery;
pub mod disk;
mod error;
mod frame;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod ids;
mod index;
mod keyring;
mod log;
mod object;
mod op;
mod open;
mod reader;
mod runs;
mod scrub;
mod segments;
mod tree;
mod vault;
mod writer;

pub use commit::Commit;
pub use config::VaultConfig;
pub use delivery::{Delivery, DeliveryEvent, InvalidTransition};
pub use error::{Damage, Error, OpenError, RecoveryReport};
pub use ids::{InvalidId, JobId, PartNumber, UploadId, Version};
pub use keyring::{KeepKey, Rekey};
pub use object::{
    Abandoned, Checksums, Condition, Deletion, Digests, Metadata, ObjectInfo, Page, PartInfo,
    Pending, ScrubReport, Stats, UploadInfo,
};
pub use reader::{ObjectReader, PartReader};
pub use vault::{Clock, Vault};
pub use writer::{ObjectWriter, PartWriter};
