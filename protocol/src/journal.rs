//! Durable facts, numbered per box, kept on the box until the cloud has committed them.

use serde::{Deserialize, Serialize};

use crate::diag::{Code, Fix, Rung};
use crate::envelope::Message;
use crate::ids::{BootId, CommandId, EpochId, ObjectKey, UploadId};
use crate::network_settings::NetworkReport;
use crate::receipt::LeafPlace;
use crate::recovery::WrappedKey;
use crate::release::UpdateStatus;
use crate::telemetry::Telemetry;
use crate::value::{Digest32, Jws, UnixMillis};

/// Entries in one batch at the most; one batch is in flight at a time.
pub const MAX_BATCH_ENTRIES: usize = 256;

/// Consecutive entries of one box's journal.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct JournalBatch {
    /// The life of the journal in which the numbers count.
    pub epoch: EpochId,
    /// 1 to [`MAX_BATCH_ENTRIES`] entries, numbers rising by one.
    pub entries: Vec<JournalEntry>,
}

impl Message for JournalBatch {
    const NAME: &'static str = "journal batch";
    const MAX_BYTES: usize = 60 * 1024;
}

/// One fact.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct JournalEntry {
    /// Its number, from 1 upwards without a gap.
    pub number: u64,
    /// The box's clock when it happened.
    pub at: UnixMillis,
    /// What happened.
    pub fact: Fact,
}

/// The cloud has committed everything up to and including `through`; the box may forget it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct JournalAck {
    /// The life of the journal in which the number counts.
    pub epoch: EpochId,
    /// Highest committed number.
    pub through: u64,
}

impl Message for JournalAck {
    const NAME: &'static str = "journal acknowledgement";
}

/// What can happen on a box.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fact {
    /// The agent has started.
    Started {
        /// Version of the agent.
        agent_version: String,
        /// The boot that it runs in.
        boot: BootId,
        /// Whether the agent before it ended without saying so.
        unclean: bool,
        /// From the boot to this start, in milliseconds by the steady clock.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since_boot_ms: Option<u64>,
    },
    /// A rung began to hold, or stopped holding.
    Rung {
        /// Which rung.
        rung: Rung,
        /// Why it does not hold; absent where it holds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<Code>,
        /// What was seen.
        evidence: String,
        /// How long the state before lasted, in milliseconds.
        lasted_ms: u64,
        /// The boot in which it happened.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        boot: Option<BootId>,
        /// How long that boot had lasted, in milliseconds by the steady clock: calendars jump.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since_boot_ms: Option<u64>,
        /// Where a failure ended: what was seen to change meanwhile.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fix: Option<Fix>,
    },
    /// The cloud issued a new certificate.
    Certificate {
        /// When it expires.
        expires: UnixMillis,
    },
    /// A change of the box's own network settings is tried, kept, rolled back or refused.
    Network(NetworkReport),
    /// A command has ended.
    CommandResult {
        /// Which command.
        id: CommandId,
        /// How it ended.
        outcome: Outcome,
    },
    /// The state of an update changed.
    Update(UpdateStatus),
    /// An object is safe on the box.
    Stored {
        /// The object.
        object: ObjectVersion,
        /// Its length in bytes.
        bytes: u64,
        /// BLAKE3 of its bytes.
        blake3: Digest32,
        /// Where its receipt will be.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        receipt: Option<LeafPlace>,
    },
    /// An epoch of receipts is complete.
    Sealed {
        /// [`RootClaims`](crate::receipt::RootClaims), signed by the box.
        root: Jws,
    },
    /// An object was deleted on the box by its owner.
    Deleted {
        /// The object.
        object: ObjectVersion,
    },
    /// The key of everything that the box held for a bucket is destroyed: what was not delivered by
    /// then never will be.
    Erased {
        /// The bucket.
        bucket: String,
        /// How many objects that were.
        objects: u64,
    },
    /// The vault's key, encrypted for the depot; the newest one counts.
    VaultKey(WrappedKey),
    /// The object is in the bucket and the cloud has verified it.
    Delivered {
        /// The object.
        object: ObjectVersion,
        /// The upload that carried it.
        upload: UploadId,
    },
    /// The object cannot be delivered without someone's help.
    DeliveryFailed {
        /// The object.
        object: ObjectVersion,
        /// What failed, and what to do.
        reason: String,
    },
    /// Something failed that belongs to no other fact.
    Failure {
        /// The part that failed.
        part: String,
        /// What failed, on what.
        text: String,
    },
    /// Something odd that somebody may want to know of; nothing failed.
    Notice {
        /// The part that noticed it.
        part: String,
        /// What is odd, about what.
        text: String,
    },
    /// A sample that could not be sent live.
    Telemetry(Box<Telemetry>),
}

/// One version of an object on a box.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ObjectVersion {
    /// The bucket that it is bound for.
    pub bucket: String,
    /// Its name there.
    pub key: ObjectKey,
    /// The vault's version number, rising for ever.
    pub version: u64,
}

/// How a command ended.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Done {
        /// What it yielded, as the command's kind defines it.
        #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
        detail: serde_json::Value,
    },
    /// It was tried and did not succeed.
    Failed {
        /// What failed, on what.
        reason: String,
    },
}
