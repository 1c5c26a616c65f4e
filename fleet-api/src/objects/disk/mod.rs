//! Objects on this machine's disk. Whatever is answered is durable.
//!
//! An index (SQLite, every commit synced) is the only truth. Small objects lie in it, so that one
//! sync makes a whole group of them durable; larger ones are pieces in files that are synced before
//! the index names them. A file that the index does not name is left over from a crash and is
//! removed at the next start. Completing a multipart upload copies nothing: the parts are the
//! object's pieces.

mod apply;
mod files;
mod index;
mod write;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use longhaul_protocol::value::UnixMillis;

pub use files::Incoming;
pub use write::Written;

use files::Files;
use index::Index;

/// Content up to this length lies in the index.
const INLINE_BYTES: usize = 128 * 1024;

/// Why the disk store refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// There is no such bucket.
    #[error("no bucket {0:?}")]
    NoBucket(String),
    /// The bucket has objects or unfinished uploads.
    #[error("bucket {0:?} is not empty")]
    BucketNotEmpty(String),
    /// There is no such object.
    #[error("no object {key:?} in bucket {bucket:?}")]
    NoObject {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// The upload never was, was aborted or is complete.
    #[error("no upload {0:?} for this key")]
    NoUpload(String),
    /// A part that completion names is absent or another one.
    #[error("part {number} of upload {upload:?} is absent or has another ETag")]
    NoPart {
        /// The upload.
        upload: String,
        /// The part.
        number: u32,
    },
    /// A part other than the last is shorter than S3 allows.
    #[error("part {number} of upload {upload:?} is shorter than 5 MiB and not the last")]
    PartTooSmall {
        /// The upload.
        upload: String,
        /// The part.
        number: u32,
    },
    /// The object is not the one that the condition asks for.
    #[error("object {0:?} does not meet the request's condition")]
    Condition(String),
    /// The bytes stopped coming.
    #[error("the request's body ended early")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A file could not be read or written.
    #[error("failed to {what} {path}")]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: std::path::PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The index failed.
    #[error("the object index failed")]
    Index(#[from] sqlx::Error),
    /// A group of changes was not written; each may be tried again.
    #[error("the object index could not write: {0}")]
    Group(String),
}

/// What a client says about an object beside its bytes.
#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize)]
pub struct Attributes {
    /// Content type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Content encoding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// Content disposition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_disposition: Option<String>,
    /// Cache control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// Content language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_language: Option<String>,
    /// When it expires: an HTTP date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// User metadata.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub metadata: std::collections::BTreeMap<String, String>,
}

/// An object without its bytes.
#[derive(Clone, Debug)]
pub struct ObjectHead {
    /// Its length in bytes.
    pub bytes: u64,
    /// Its ETag, without quotes.
    pub etag: String,
    /// When it was written.
    pub modified: UnixMillis,
    /// What its writer said about it.
    pub attributes: Attributes,
    content: String,
}

/// An object in a listing.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its ETag.
    pub etag: String,
    /// When it was written.
    pub modified: UnixMillis,
}

/// A page of a listing.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Objects, by key.
    pub objects: Vec<Listed>,
    /// Common prefixes, in order.
    pub prefixes: Vec<String>,
    /// Where to go on.
    pub next: Option<Vec<u8>>,
}

/// One part of an unfinished upload.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its number, from 1.
    pub number: u32,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its ETag.
    pub etag: String,
}

/// An unfinished upload.
#[derive(Clone, Debug)]
pub struct OpenUpload {
    /// Its name.
    pub id: String,
    /// The key that it will be.
    pub key: String,
    /// When it began.
    pub begun: UnixMillis,
}

/// The store. Clones share it.
#[derive(Clone)]
pub struct DiskStore {
    files: Files,
    index: Arc<Index>,
}

impl DiskStore {
    /// Opens the store in `dir`, making it if it is absent, and removes what a crash left over.
    pub async fn open(dir: &Path) -> Result<Self, DiskError> {
        let files = Files::open(&dir.join("blobs")).await?;
        let index = Arc::new(Index::open(&dir.join("index.db")).await?);
        let named = index.blobs_named().await?;
        let removed = files.sweep(named).await?;
        if removed > 0 {
            tracing::info!(removed, "removed blobs that an interrupted write left over");
        }
        Ok(Self { files, index })
    }

    /// Closes the index after what is under way.
    pub async fn close(&self) {
        self.index.close().await;
    }

    /// The buckets, with the time when each was made.
    pub async fn buckets(&self) -> Result<Vec<(String, UnixMillis)>, DiskError> {
        self.index.buckets().await
    }

    /// Whether the bucket exists.
    pub async fn bucket_exists(&self, bucket: &str) -> Result<bool, DiskError> {
        self.index.bucket_exists(bucket).await
    }

    /// Looks at an object.
    pub async fn head(&self, bucket: &str, key: &str) -> Result<ObjectHead, DiskError> {
        match self.index.head(bucket, key).await? {
            Some(head) => Ok(head),
            None if self.bucket_exists(bucket).await? => Err(DiskError::NoObject {
                bucket: bucket.to_owned(),
                key: key.to_owned(),
            }),
            None => Err(DiskError::NoBucket(bucket.to_owned())),
        }
    }

    /// Reads `length` bytes of an object from `start` on.
    pub async fn read(
        &self,
        head: &ObjectHead,
        start: u64,
        length: u64,
    ) -> Result<impl futures::Stream<Item = std::io::Result<Bytes>> + Send + 'static, DiskError>
    {
        let inline = self.index.inline(&head.content).await?;
        let pieces = match &inline {
            Some(_) => vec![],
            None => self.index.pieces(&head.content).await?,
        };
        Ok(self.files.stream(inline, &pieces, start, length))
    }

    /// Lists keys that start with `prefix`, after `after`, grouped at `delimiter`.
    pub async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        delimiter: Option<&str>,
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> Result<Listing, DiskError> {
        if !self.bucket_exists(bucket).await? {
            return Err(DiskError::NoBucket(bucket.to_owned()));
        }
        self.index
            .list(bucket, prefix, delimiter, after, limit)
            .await
    }

    /// The parts of an unfinished upload that are there, by number.
    pub async fn parts(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
    ) -> Result<Vec<Part>, DiskError> {
        self.index.upload_attributes(bucket, key, upload).await?;
        self.index.parts(upload).await
    }

    /// Unfinished uploads of a bucket, by key.
    pub async fn uploads(&self, bucket: &str) -> Result<Vec<OpenUpload>, DiskError> {
        self.index.uploads(bucket).await
    }
}

#[cfg(test)]
mod tests;
