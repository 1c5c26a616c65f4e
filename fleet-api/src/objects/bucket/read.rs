//! What is in a bucket.

use bytes::Bytes;
use futures::Stream;
use longhaul_protocol::value::{Digest32, UnixMillis};

use super::{BucketError, Buckets};
use crate::fleet::{ObjectInfo, ObjectPage, ObjectQuery};

/// What an object consists of, by its own bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Content {
    /// Length in bytes.
    pub bytes: u64,
    /// BLAKE3 of the bytes.
    pub blake3: Digest32,
}

impl Content {
    /// What these bytes are.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.len() as u64,
            blake3: Digest32(*blake3::hash(bytes).as_bytes()),
        }
    }
}

impl Buckets {
    /// Reads an object back and says what it consists of; `None` if there is none.
    pub async fn content(&self, bucket: &str, key: &str) -> Result<Option<Content>, BucketError> {
        let got = self
            .client
            .get_object()
            .bucket(bucket)
            .key(key)
            .send()
            .await;
        let mut body = match got.map_err(BucketError::of("read an object")) {
            Ok(got) => got.body,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut hasher = blake3::Hasher::new();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|e| BucketError::new("read an object", e.to_string()))?;
            hasher.update(&chunk);
        }
        Ok(Some(Content {
            bytes: hasher.count(),
            blake3: Digest32(*hasher.finalize().as_bytes()),
        }))
    }

    /// Opens an object: length, content type, bytes. `None` if there is none.
    pub async fn open(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<Option<crate::fleet::OpenObject>, BucketError> {
        let got = self
            .client
            .get_object()
            .bucket(bucket)
            .key(key)
            .send()
            .await;
        let got = match got.map_err(BucketError::of("read an object")) {
            Ok(got) => got,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = got.content_length.unwrap_or(0);
        Ok(Some(crate::fleet::OpenObject {
            bytes: u64::try_from(length).unwrap_or(0),
            content_type: got.content_type,
            body: Box::pin(chunks(got.body)),
        }))
    }

    /// Deletes an object; one that is absent is deleted already.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<(), BucketError> {
        let deleted = self
            .client
            .delete_object()
            .bucket(bucket)
            .key(key)
            .send()
            .await;
        match deleted.map_err(BucketError::of("delete an object")) {
            Err(error) if !error.is_absent() => Err(error),
            _ => Ok(()),
        }
    }

    /// Lists objects; a bucket that does not exist has none.
    pub async fn list(&self, query: &ObjectQuery) -> Result<ObjectPage, BucketError> {
        let page = self
            .client
            .list_objects_v2()
            .bucket(&query.bucket)
            .prefix(&query.prefix)
            .set_delimiter(query.delimiter.clone())
            .set_continuation_token(query.after.clone())
            .max_keys(i32::from(query.limit.clamp(1, 1000)))
            .send()
            .await
            .map_err(BucketError::of("list objects"));
        let page = match page {
            Ok(page) => page,
            Err(error) if error.is_absent() => return Ok(ObjectPage::default()),
            Err(error) => return Err(error),
        };
        let objects = page.contents.unwrap_or_default().into_iter();
        let objects = objects.filter_map(|object| {
            let modified = object.last_modified.and_then(|at| at.to_millis().ok());
            Some(ObjectInfo {
                key: object.key?,
                bytes: object.size.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
                modified: UnixMillis(modified.unwrap_or(0)),
            })
        });
        let prefixes = page.common_prefixes.unwrap_or_default().into_iter();
        Ok(ObjectPage {
            objects: objects.collect(),
            prefixes: prefixes.filter_map(|p| p.prefix).collect(),
            next: page.next_continuation_token,
        })
    }
}

fn chunks(
    body: aws_sdk_s3::primitives::ByteStream,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send {
    futures::stream::unfold(body, |mut body| async {
        let chunk = body.next().await?;
        Some((chunk.map_err(std::io::Error::other), body))
    })
}
