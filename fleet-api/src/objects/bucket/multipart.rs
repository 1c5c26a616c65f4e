//! Objects that travel in parts.

use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use longhaul_protocol::upload::PresignedPut;
use longhaul_protocol::value::UnixMillis;

use super::{BucketError, Buckets, PutHeaders, described, expiry};

/// An unfinished multipart upload.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// The key.
    pub key: String,
    /// The store's name for it.
    pub id: String,
    /// When it began.
    pub begun: UnixMillis,
}

impl Buckets {
    /// Begins a multipart upload; yields the store's name for it.
    pub async fn multipart_begin(
        &self,
        bucket: &str,
        key: &str,
        headers: PutHeaders<'_>,
    ) -> Result<String, BucketError> {
        let create = self
            .client
            .create_multipart_upload()
            .bucket(bucket)
            .key(key);
        let answer = described!(create, headers)
            .send()
            .await
            .map_err(BucketError::of("begin an upload"))?;
        answer
            .upload_id
            .ok_or_else(|| BucketError::new("begin an upload", "the answer names no upload"))
    }

    /// A request that puts one part.
    pub async fn presign_part(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
        number: i32,
    ) -> Result<PresignedPut, BucketError> {
        let request = self
            .client
            .upload_part()
            .bucket(bucket)
            .key(key)
            .upload_id(upload)
            .part_number(number)
            .presigned(expiry()?)
            .await
            .map_err(BucketError::of("presign a part"))?;
        Ok(self.presigned(&request))
    }

    /// Makes the parts, numbered from 1 in the order of their ETags, the object.
    pub async fn multipart_complete(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
        etags: &[String],
    ) -> Result<(), BucketError> {
        let parts = (1..).zip(etags).map(|(number, etag)| {
            CompletedPart::builder()
                .part_number(number)
                .e_tag(etag)
                .build()
        });
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(parts.collect()))
            .build();
        self.client
            .complete_multipart_upload()
            .bucket(bucket)
            .key(key)
            .upload_id(upload)
            .multipart_upload(parts)
            .send()
            .await
            .map_err(BucketError::of("complete an upload"))?;
        Ok(())
    }

    /// Gives a multipart upload up; one that is gone already is fine.
    pub async fn multipart_abort(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
    ) -> Result<(), BucketError> {
        let aborted = self
            .client
            .abort_multipart_upload()
            .bucket(bucket)
            .key(key)
            .upload_id(upload)
            .send()
            .await
            .map_err(BucketError::of("abort an upload"));
        match aborted {
            Err(error) if !error.is_absent() => Err(error),
            _ => Ok(()),
        }
    }

    /// Unfinished multipart uploads of a bucket.
    pub async fn unfinished(&self, bucket: &str) -> Result<Vec<Unfinished>, BucketError> {
        let mut found = Vec::new();
        let (mut key_marker, mut id_marker) = (None, None);
        loop {
            let page = self
                .client
                .list_multipart_uploads()
                .bucket(bucket)
                .set_key_marker(key_marker)
                .set_upload_id_marker(id_marker)
                .send()
                .await
                .map_err(BucketError::of("list uploads"))?;
            for upload in page.uploads.unwrap_or_default() {
                let (Some(key), Some(id)) = (upload.key, upload.upload_id) else {
                    continue;
                };
                let begun = upload.initiated.and_then(|at| at.to_millis().ok());
                let begun = UnixMillis(begun.unwrap_or(0));
                found.push(Unfinished { key, id, begun });
            }
            if page.is_truncated != Some(true) || page.next_key_marker.is_none() {
                return Ok(found);
            }
            (key_marker, id_marker) = (page.next_key_marker, page.next_upload_id_marker);
        }
    }
}
