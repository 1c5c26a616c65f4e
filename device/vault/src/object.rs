//! What the vault knows about an object, an upload and itself.

use std::collections::BTreeMap;

use crate::{Damage, Delivery, JobId, PartNumber, UploadId, Version};

/// Checksums that the client sent and the caller verified: algorithm name to base64 text.
pub type Checksums = BTreeMap<String, String>;

/// What a client says about an object when it begins to write it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Metadata {
    /// The `Content-Type`.
    pub content_type: Option<String>,
    /// `x-amz-meta-*`, without the prefix.
    pub user: BTreeMap<String, String>,
    /// Other headers that come back with the object, such as `cache-control`.
    pub headers: BTreeMap<String, String>,
}

/// What must hold of the current version for a write or a deletion to happen.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Condition {
    /// Nothing.
    #[default]
    Any,
    /// There is no object of this name (`If-None-Match: *`).
    Absent,
    /// There is an object of this name (`If-Match: *`).
    Present,
    /// The current version has this `ETag` (`If-Match`).
    Etag(String),
    /// The current version is this one.
    Version(Version),
}

/// What the vault computed over the bytes it was given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Digests {
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of the bytes; of a part that does not begin its object, a hash that names the part.
    pub blake3: [u8; 32],
    /// CRC-64/NVME of the bytes.
    pub crc64nvme: u64,
}

/// One version of an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ObjectInfo {
    /// The job it belongs to.
    pub job: JobId,
    /// Its name.
    pub key: String,
    /// Which version this is.
    pub version: Version,
    /// Bytes.
    pub size: u64,
    /// When it became durable, in milliseconds since 1970.
    pub last_modified_ms: i64,
    /// `hex-N`, without quotes: never the shape of an MD5.
    pub etag: String,
    /// BLAKE3 of the bytes. `None` for an object whose parts could not be joined without reading
    /// it: see [`crate::Vault::blake3`].
    pub blake3: Option<[u8; 32]>,
    /// CRC-64/NVME of the whole object, also of one made of parts.
    pub crc64nvme: u64,
    /// Number of parts; 0 for an object written in one piece.
    pub parts: u32,
    /// What the client said about it.
    pub metadata: Metadata,
    /// What the client sent and the caller verified.
    pub checksums: Checksums,
    /// How far it has come on its way to the bucket.
    pub delivery: Delivery,
    /// False once the bytes were released after delivery.
    pub resident: bool,
}

impl ObjectInfo {
    /// BLAKE3 in hexadecimal, where there is one.
    pub fn blake3_hex(&self) -> Option<String> {
        self.blake3
            .map(|hash| blake3::Hash::from_bytes(hash).to_hex().to_string())
    }
}

/// One part of a multipart upload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PartInfo {
    /// Its number.
    pub number: PartNumber,
    /// `hex-0`, without quotes.
    pub etag: String,
    /// What the vault computed.
    pub digests: Digests,
    /// When it became durable, in milliseconds since 1970.
    pub last_modified_ms: i64,
    /// What the client sent and the caller verified.
    pub checksums: Checksums,
}

/// One multipart upload that is open.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UploadInfo {
    /// Its identifier.
    pub id: UploadId,
    /// The job it belongs to.
    pub job: JobId,
    /// The object it will become.
    pub key: String,
    /// When it was created, in milliseconds since 1970.
    pub created_ms: i64,
    /// What the client said about the object.
    pub metadata: Metadata,
    /// What the caller asked to be kept with the upload.
    pub checksums: Checksums,
}

/// One page of a listing, in byte order of the keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// True if there are more behind the last one.
    pub more: bool,
}

/// A version that is still to be delivered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pending {
    /// The job it belongs to.
    pub job: JobId,
    /// The object's name.
    pub key: String,
    /// Which version.
    pub version: Version,
    /// Bytes.
    pub size: u64,
    /// How far it has come.
    pub delivery: Delivery,
}

/// An upload into the bucket whose version was overwritten or deleted meanwhile: to be aborted
/// there, so that nobody pays for its parts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Abandoned {
    /// The job it belonged to.
    pub job: JobId,
    /// The object's name.
    pub key: String,
    /// The version that is gone.
    pub version: Version,
    /// What the cloud calls the upload.
    pub upload: String,
}

/// A version that its owner deleted, and that whoever must know has not written down yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Deletion {
    /// The job it belonged to.
    pub job: JobId,
    /// The object's name.
    pub key: String,
    /// The version that is gone.
    pub version: Version,
}

/// How full the vault is and what it holds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Bytes that the vault may use.
    pub capacity_bytes: u64,
    /// Bytes in use, dead space that is not reclaimed yet included.
    pub used_bytes: u64,
    /// Bytes that new objects can still have.
    pub free_bytes: u64,
    /// Objects.
    pub objects: u64,
    /// Bytes of the objects.
    pub object_bytes: u64,
    /// Open multipart uploads.
    pub uploads: u64,
    /// Segment files.
    pub segments: u64,
    /// Segment files that hold nothing.
    pub free_segments: u64,
    /// Log files and checkpoints, in bytes.
    pub log_bytes: u64,
    /// Versions that are still to be delivered.
    pub pending: u64,
    /// Bytes of those versions.
    pub pending_bytes: u64,
    /// Versions whose delivery was given up.
    pub failed: u64,
}

/// What reading everything found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ScrubReport {
    /// Objects and parts read.
    pub objects: u64,
    /// Bytes read and verified.
    pub bytes: u64,
    /// What was not as written.
    pub damaged: Vec<Damage>,
}
