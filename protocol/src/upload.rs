//! Delivery from box to bucket: the box asks the cloud, over HTTPS with its LDevID, for presigned
//! URLs and sends the bytes straight to the object store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{PackId, TicketId, UploadId};
use crate::journal::ObjectVersion;
use crate::value::Digest32;

/// `POST` here with [`StartUploads`]; answers [`Started`].
pub const START_PATH: &str = "/v1/box/uploads/start";
/// `POST` here with [`PartUrlsRequest`]; answers [`PartUrls`].
pub const PARTS_PATH: &str = "/v1/box/uploads/parts";
/// `POST` here with [`CompleteUploads`]; answers [`Completed`].
pub const COMPLETE_PATH: &str = "/v1/box/uploads/complete";
/// `POST` here with [`StartPack`]; answers [`PackStarted`].
pub const PACK_START_PATH: &str = "/v1/box/packs/start";
/// `POST` here with [`PackSent`]; answers [`PackCompleted`].
pub const PACK_SENT_PATH: &str = "/v1/box/packs/sent";
/// `POST` here with [`AbortUploads`]; answers `204`.
pub const ABORT_PATH: &str = "/v1/box/uploads/abort";

/// `POST` here with [`BucketRefused`]; answers [`BucketState`].
pub const BUCKET_REFUSED_PATH: &str = "/v1/box/buckets/refused";

/// Objects or parts in one request at the most.
pub const MAX_ITEMS: usize = 256;

/// Headers that travel with an object from the client to the bucket, beside its content type and
/// user metadata; `expires` is an HTTP date.
pub const KEPT_HEADERS: [&str; 5] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
];

/// Objects in one pack towards the bucket at the most.
pub const MAX_PACK_OBJECTS: usize = 1024;

/// The longest pack towards the bucket, in bytes: it lies in the box's memory while it is sent.
pub const MAX_PACK_BYTES: u64 = 16 << 20;

/// The longest object that travels in a pack towards the bucket, in bytes.
pub const MAX_PACKED_BYTES: u64 = 256 << 10;

/// Objects to be delivered. Asking twice for the same box, bucket, key and version yields the same
/// upload: the box may lose the answer.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StartUploads {
    /// 1 to [`MAX_ITEMS`] objects.
    pub objects: Vec<UploadObject>,
    /// Whether the box understands requests with the condition that no such object exists yet: an
    /// answer of 412 says that one does, and the cloud compares.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub conditions: bool,
}

/// One object as it lies on the box.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct UploadObject {
    /// Which object.
    pub object: ObjectVersion,
    /// The ticket under which it was put.
    pub ticket: TicketId,
    /// Its length in bytes.
    pub bytes: u64,
    /// BLAKE3 of its bytes.
    pub blake3: Digest32,
    /// Content type, as the client gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// User metadata, as the client gave it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Those of [`KEPT_HEADERS`] that the client gave.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// Answers [`StartUploads`], one result for each object in the same order.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Started {
    /// The results.
    pub uploads: Vec<StartResult>,
}

/// What became of one object's start.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum StartResult {
    /// Send the whole object with one `PUT`.
    Single {
        /// The upload's name.
        upload: UploadId,
        /// Where to.
        put: PresignedPut,
    },
    /// Send parts; ask for their URLs.
    Multipart {
        /// The upload's name.
        upload: UploadId,
        /// Length of every part but the last, in bytes.
        part_bytes: u64,
        /// Number of parts; they count from 1.
        parts: u32,
    },
    /// Already there and verified: nothing to send.
    Verified {
        /// The upload that carried it.
        upload: UploadId,
    },
    /// Send it as an entry of the pack that was asked for.
    Packed {
        /// The upload's name.
        upload: UploadId,
    },
    /// Not now; ask again in a while.
    Later {
        /// Why.
        reason: String,
        /// Whether it is because the bucket refuses everybody.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        held: bool,
    },
    /// Will not be taken, however often it is tried.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

/// A request that the object store accepts from whoever holds it, for a while.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PresignedPut {
    /// The URL, with its signature.
    pub url: String,
    /// Headers that were signed and must be sent as they are.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Who vouches for the host in the URL.
    #[serde(default, skip_serializing_if = "StoreTrust::is_fleet")]
    pub trust: StoreTrust,
}

/// Who vouches for an object store. The box learns it from the cloud, together with the URL: a name
/// that anybody can get a certificate for is only as good as who says that it is the right name.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreTrust {
    /// The fleet's root.
    #[default]
    Fleet,
    /// The public authorities that the box's system trusts.
    Public,
}

impl StoreTrust {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    fn is_fleet(&self) -> bool {
        *self == Self::Fleet
    }
}

/// Asks for the URLs of parts; signed when they are needed, so never long before.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PartUrlsRequest {
    /// Which upload.
    pub upload: UploadId,
    /// 1 to [`MAX_ITEMS`] part numbers.
    pub parts: Vec<u32>,
}

/// URLs of parts, in the order asked for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PartUrls {
    /// One for each part.
    pub puts: Vec<PresignedPut>,
}

/// Uploads of which every byte was sent.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CompleteUploads {
    /// 1 to [`MAX_ITEMS`] uploads.
    pub uploads: Vec<CompleteUpload>,
}

/// One upload of which every byte was sent.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CompleteUpload {
    /// Which upload.
    pub upload: UploadId,
    /// ETags of the parts, in order; empty for a single `PUT`.
    #[serde(default)]
    pub etags: Vec<String>,
}

/// Answers [`CompleteUploads`], one result for each upload in the same order.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Completed {
    /// The results.
    pub uploads: Vec<CompleteResult>,
}

/// What became of one upload's completion. Completing twice is harmless.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum CompleteResult {
    /// The object is in the bucket; length and content were compared there.
    Verified,
    /// The store does not have all of it, or what it has differs: send it again from the start.
    Restart {
        /// Why.
        reason: String,
    },
    /// Will not be taken, however often it is tried.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
    /// It cannot be said now: ask again in a while. What was sent stays.
    Later {
        /// Why.
        reason: String,
        /// Whether it is because the bucket refuses everybody.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        held: bool,
    },
}

/// The object store refuses a box's requests, though they are fresh: the object's fault or the
/// bucket's?
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BucketRefused {
    /// The bucket.
    pub bucket: String,
    /// What the store said.
    pub reason: String,
}

/// Answers [`BucketRefused`], after the cloud has tried the bucket out.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BucketState {
    /// Why the bucket takes nothing at all, whoever asks: its objects wait until it does. Absent
    /// where the fault is not the bucket's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// Nothing was found out: it was tried out just before, and took something then. Ask again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

/// Objects that shall travel as one pack (see [`crate::pack`]): sent as one object to a place that
/// customers do not see, and taken apart there by the cloud.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StartPack {
    /// 1 to [`MAX_PACK_OBJECTS`] objects of one bucket, each of at most [`MAX_PACKED_BYTES`].
    pub objects: Vec<UploadObject>,
}

/// Answers [`StartPack`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PackStarted {
    /// The pack's name.
    pub pack: PackId,
    /// Where to send it.
    pub put: PresignedPut,
    /// One result for each object, in the order of the question; those that are
    /// [`StartResult::Packed`] belong into the pack, in that order.
    pub uploads: Vec<StartResult>,
}

/// A pack of which every byte was sent. Asking twice is harmless.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PackSent {
    /// Which pack.
    pub pack: PackId,
}

/// What became of a pack.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum PackCompleted {
    /// It is being taken apart; ask again.
    Unpacking,
    /// It was taken apart; what is said of each upload that belongs to it is final.
    Unpacked {
        /// Results by upload.
        uploads: BTreeMap<UploadId, CompleteResult>,
    },
    /// The store does not have it, or it is no pack: send its objects again from the start.
    Restart {
        /// Why.
        reason: String,
    },
}

/// Uploads that the box gives up, because their object was overwritten or deleted.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AbortUploads {
    /// 1 to [`MAX_ITEMS`] uploads; unknown ones are ignored.
    pub uploads: Vec<UploadId>,
}
