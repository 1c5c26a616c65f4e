//! The S3 protocol over [`DiskStore`]: enough for our own client, aws-cli, boto3, rclone and s5cmd.
//! What is not here answers `NotImplemented`.

mod checksum;

use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::Stream;
use longhaul_protocol::value::UnixMillis;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, Bucket, CommonPrefix,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CreateBucketInput,
    CreateBucketOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteBucketInput,
    DeleteBucketOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput,
    DeleteObjectsOutput, DeletedObject, ETag, ETagCondition, GetBucketLocationInput,
    GetBucketLocationOutput, GetObjectInput, GetObjectOutput, HeadBucketInput, HeadBucketOutput,
    HeadObjectInput, HeadObjectOutput, ListBucketsInput, ListBucketsOutput,
    ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsInput, ListObjectsOutput,
    ListObjectsV2Input, ListObjectsV2Output, ListPartsInput, ListPartsOutput, Metadata,
    MultipartUpload, Object, Part, PutObjectInput, PutObjectOutput, StreamingBlob, Timestamp,
    UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::disk::{Attributes, DiskError, DiskStore, Listing};
use crate::clock::Clock;
use checksum::Checking;

/// Keys in one listing at the most, as in S3.
const MAX_KEYS: i32 = 1000;
/// Part numbers end here, as in S3.
const MAX_PART: i32 = 10_000;

/// The disk store, spoken to in S3.
pub struct DiskS3 {
    store: DiskStore,
    clock: Clock,
}

impl DiskS3 {
    /// Speaks S3 for `store`.
    pub fn new(store: DiskStore, clock: Clock) -> Self {
        Self { store, clock }
    }

    async fn list(
        &self,
        bucket: &str,
        prefix: Option<&str>,
        delimiter: Option<&str>,
        after: Option<Vec<u8>>,
        max_keys: Option<i32>,
    ) -> S3Result<(Listing, i32)> {
        let limit = max_keys.unwrap_or(MAX_KEYS);
        if limit < 0 {
            return Err(s3_error!(InvalidArgument, "max-keys is negative"));
        }
        let limit = limit.min(MAX_KEYS);
        if limit == 0 {
            return Ok((Listing::default(), 0));
        }
        let listing = self
            .store
            .list(
                bucket,
                prefix.unwrap_or_default(),
                delimiter.filter(|d| !d.is_empty()),
                after,
                usize::try_from(limit).unwrap_or(1),
            )
            .await
            .map_err(answer)?;
        Ok((listing, limit))
    }
}

#[async_trait::async_trait]
impl S3 for DiskS3 {
    async fn create_bucket(
        &self,
        req: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let bucket = req.input.bucket;
        self.store
            .bucket_make(&bucket, self.clock.now())
            .await
            .map_err(answer)?;
        Ok(S3Response::new(CreateBucketOutput {
            location: Some(format!("/{bucket}")),
        }))
    }

    async fn delete_bucket(
        &self,
        req: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.store
            .bucket_remove(&req.input.bucket)
            .await
            .map_err(answer)?;
        Ok(S3Response::new(DeleteBucketOutput {}))
    }

    async fn head_bucket(
        &self,
        req: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.bucket_must_exist(&req.input.bucket).await?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.bucket_must_exist(&req.input.bucket).await?;
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn list_buckets(
        &self,
        _req: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let buckets = self.store.buckets().await.map_err(answer)?;
        let bucket = |(name, made): (String, UnixMillis)| Bucket {
            name: Some(name),
            creation_date: Some(timestamp(made)),
            ..Bucket::default()
        };
        Ok(S3Response::new(ListBucketsOutput {
            buckets: Some(buckets.into_iter().map(bucket).collect()),
            ..ListBucketsOutput::default()
        }))
    }

    async fn put_object(
        &self,
        req: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        let mut checking = Checking::new(checksum::of_put(&input), input.content_md5.as_deref())?;
        let only_new = match &input.if_none_match {
            None => false,
            Some(ETagCondition::Any) => true,
            Some(ETagCondition::ETag(_)) => {
                return Err(s3_error!(NotImplemented, "If-None-Match takes only *"));
            }
        };
        if input.if_match.is_some() {
            return Err(s3_error!(
                NotImplemented,
                "If-Match is not supported on PUT"
            ));
        }
        self.bucket_must_exist(&input.bucket).await?;
        let attributes = Attributes {
            content_type: input.content_type,
            content_encoding: kept_encoding(input.content_encoding),
            content_disposition: input.content_disposition,
            cache_control: input.cache_control,
            metadata: input.metadata.unwrap_or_default().into_iter().collect(),
        };
        let incoming = match input.body {
            Some(body) => {
                self.store
                    .receive(body, |bytes| checking.update(bytes))
                    .await
            }
            None => self.store.receive(nothing(), |_| ()).await,
        }
        .map_err(answer)?;
        checking.verify(req.trailing_headers.as_ref())?;
        let now = self.clock.now();
        let written = self
            .store
            .put(
                &input.bucket,
                &input.key,
                incoming,
                attributes,
                only_new,
                now,
            )
            .await
            .map_err(answer)?;
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(ETag::Strong(written.etag)),
            ..PutObjectOutput::default()
        }))
    }

    async fn get_object(
        &self,
        req: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        let head = self
            .store
            .head(&input.bucket, &input.key)
            .await
            .map_err(answer)?;
        conditions(
            &head.etag,
            input.if_match.as_ref(),
            input.if_none_match.as_ref(),
        )?;
        let (span, content_range) = match input.range {
            None => (0..head.bytes, None),
            Some(range) => {
                let span = range.check(head.bytes)?;
                let text = format!("bytes {}-{}/{}", span.start, span.end - 1, head.bytes);
                (span, Some(text))
            }
        };
        let length = span.end - span.start;
        let body = self
            .store
            .read(&head, span.start, length)
            .await
            .map_err(answer)?;
        let attributes = head.attributes;
        Ok(S3Response::new(GetObjectOutput {
            body: Some(StreamingBlob::wrap(Exclusive::new(body))),
            content_length: i64::try_from(length).ok(),
            content_range,
            accept_ranges: Some("bytes".to_owned()),
            last_modified: Some(timestamp(head.modified)),
            e_tag: Some(ETag::Strong(head.etag)),
            content_type: input.response_content_type.or(attributes.content_type),
            content_encoding: attributes.content_encoding,
            content_disposition: input
                .response_content_disposition
                .or(attributes.content_disposition),
            cache_control: attributes.cache_control,
            metadata: metadata(attributes.metadata),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(
        &self,
        req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        let head = self
            .store
            .head(&input.bucket, &input.key)
            .await
            .map_err(answer)?;
        conditions(
            &head.etag,
            input.if_match.as_ref(),
            input.if_none_match.as_ref(),
        )?;
        let attributes = head.attributes;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: i64::try_from(head.bytes).ok(),
            accept_ranges: Some("bytes".to_owned()),
            last_modified: Some(timestamp(head.modified)),
            e_tag: Some(ETag::Strong(head.etag)),
            content_type: attributes.content_type,
            content_encoding: attributes.content_encoding,
            content_disposition: attributes.content_disposition,
            cache_control: attributes.cache_control,
            metadata: metadata(attributes.metadata),
            ..HeadObjectOutput::default()
        }))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.store
            .delete(&req.input.bucket, &req.input.key)
            .await
            .map_err(answer)?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let mut deleted = Vec::new();
        for object in req.input.delete.objects {
            self.store
                .delete(&req.input.bucket, &object.key)
                .await
                .map_err(answer)?;
            deleted.push(DeletedObject {
                key: Some(object.key),
                ..DeletedObject::default()
            });
        }
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: Some(deleted),
            ..DeleteObjectsOutput::default()
        }))
    }

    async fn list_objects(
        &self,
        req: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = req.input;
        let after = input.marker.clone().map(String::into_bytes);
        let (listing, limit) = self
            .list(
                &input.bucket,
                input.prefix.as_deref(),
                input.delimiter.as_deref(),
                after,
                input.max_keys,
            )
            .await?;
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            marker: input.marker,
            max_keys: Some(limit),
            is_truncated: Some(listing.next.is_some()),
            next_marker: listing
                .next
                .as_ref()
                .map(|next| String::from_utf8_lossy(next).into_owned()),
            common_prefixes: Some(prefixes(listing.prefixes)),
            contents: Some(listing.objects.into_iter().map(object).collect()),
            encoding_type: input.encoding_type,
            ..ListObjectsOutput::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let after = match (&input.continuation_token, &input.start_after) {
            (Some(token), _) => Some(
                URL_SAFE_NO_PAD
                    .decode(token)
                    .map_err(|_| s3_error!(InvalidArgument, "continuation-token is not ours"))?,
            ),
            (None, start) => start.clone().map(String::into_bytes),
        };
        let (listing, limit) = self
            .list(
                &input.bucket,
                input.prefix.as_deref(),
                input.delimiter.as_deref(),
                after,
                input.max_keys,
            )
            .await?;
        let count = listing.objects.len() + listing.prefixes.len();
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            start_after: input.start_after,
            continuation_token: input.continuation_token,
            max_keys: Some(limit),
            key_count: i32::try_from(count).ok(),
            is_truncated: Some(listing.next.is_some()),
            next_continuation_token: listing.next.map(|next| URL_SAFE_NO_PAD.encode(next)),
            common_prefixes: Some(prefixes(listing.prefixes)),
            contents: Some(listing.objects.into_iter().map(object).collect()),
            encoding_type: input.encoding_type,
            ..ListObjectsV2Output::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = req.input;
        let attributes = Attributes {
            content_type: input.content_type,
            content_encoding: kept_encoding(input.content_encoding),
            content_disposition: input.content_disposition,
            cache_control: input.cache_control,
            metadata: input.metadata.unwrap_or_default().into_iter().collect(),
        };
        let upload = self
            .store
            .upload_begin(&input.bucket, &input.key, attributes, self.clock.now())
            .await
            .map_err(answer)?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload),
            ..CreateMultipartUploadOutput::default()
        }))
    }

    async fn upload_part(
        &self,
        req: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let input = req.input;
        let number = part_number(input.part_number)?;
        let mut checking = Checking::new(checksum::of_part(&input), input.content_md5.as_deref())?;
        let body = input.body.ok_or_else(|| s3_error!(IncompleteBody))?;
        // Refused before its bytes are taken in.
        self.store
            .parts(&input.bucket, &input.key, &input.upload_id)
            .await
            .map_err(answer)?;
        let incoming = self
            .store
            .receive_part(body, |bytes| checking.update(bytes))
            .await
            .map_err(answer)?;
        checking.verify(req.trailing_headers.as_ref())?;
        let written = self
            .store
            .part_put(
                &input.bucket,
                &input.key,
                &input.upload_id,
                number,
                incoming,
            )
            .await
            .map_err(answer)?;
        Ok(S3Response::new(UploadPartOutput {
            e_tag: Some(ETag::Strong(written.etag)),
            ..UploadPartOutput::default()
        }))
    }

    async fn list_parts(
        &self,
        req: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        let input = req.input;
        let mut parts = self
            .store
            .parts(&input.bucket, &input.key, &input.upload_id)
            .await
            .map_err(answer)?;
        let after = input
            .part_number_marker
            .and_then(|m| u32::try_from(m).ok())
            .unwrap_or(0);
        parts.retain(|part| part.number > after);
        let limit = input.max_parts.unwrap_or(MAX_KEYS).clamp(1, MAX_KEYS);
        let truncated = parts.len() > usize::try_from(limit).unwrap_or(0);
        parts.truncate(usize::try_from(limit).unwrap_or(0));
        let next = parts.last().and_then(|p| i32::try_from(p.number).ok());
        let part = |part: super::disk::Part| Part {
            part_number: i32::try_from(part.number).ok(),
            size: i64::try_from(part.bytes).ok(),
            e_tag: Some(ETag::Strong(part.etag)),
            ..Part::default()
        };
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            is_truncated: Some(truncated),
            max_parts: Some(limit),
            next_part_number_marker: next.filter(|_| truncated),
            parts: Some(parts.into_iter().map(part).collect()),
            ..ListPartsOutput::default()
        }))
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = req.input;
        self.bucket_must_exist(&input.bucket).await?;
        let uploads = self.store.uploads(&input.bucket).await.map_err(answer)?;
        let after = (
            input.key_marker.clone().unwrap_or_default(),
            input.upload_id_marker.clone().unwrap_or_default(),
        );
        let prefix = input.prefix.clone().unwrap_or_default();
        let mut uploads: Vec<_> = uploads
            .into_iter()
            .filter(|u| u.key.starts_with(&prefix))
            .filter(|u| (u.key.as_str(), u.id.as_str()) > (after.0.as_str(), after.1.as_str()))
            .collect();
        let limit = input.max_uploads.unwrap_or(MAX_KEYS).clamp(1, MAX_KEYS);
        let truncated = uploads.len() > usize::try_from(limit).unwrap_or(0);
        uploads.truncate(usize::try_from(limit).unwrap_or(0));
        let last = uploads.last().filter(|_| truncated).cloned();
        let upload = |upload: super::disk::OpenUpload| MultipartUpload {
            key: Some(upload.key),
            upload_id: Some(upload.id),
            initiated: Some(timestamp(upload.begun)),
            ..MultipartUpload::default()
        };
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: input.prefix,
            key_marker: input.key_marker,
            upload_id_marker: input.upload_id_marker,
            max_uploads: Some(limit),
            is_truncated: Some(truncated),
            next_key_marker: last.as_ref().map(|u| u.key.clone()),
            next_upload_id_marker: last.map(|u| u.id),
            uploads: Some(uploads.into_iter().map(upload).collect()),
            ..ListMultipartUploadsOutput::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = req.input;
        let parts = input
            .multipart_upload
            .and_then(|upload| upload.parts)
            .unwrap_or_default();
        if parts.is_empty() {
            return Err(s3_error!(MalformedXML, "an upload has at least one part"));
        }
        let mut listed: Vec<(u32, String)> = Vec::with_capacity(parts.len());
        for part in parts {
            let number = part_number(part.part_number.unwrap_or(0))?;
            let etag = part.e_tag.ok_or_else(|| s3_error!(InvalidPart))?;
            if listed.last().is_some_and(|(last, _)| *last >= number) {
                return Err(s3_error!(InvalidPartOrder));
            }
            listed.push((number, etag.into_value()));
        }
        let now = self.clock.now();
        let written = self
            .store
            .upload_complete(&input.bucket, &input.key, &input.upload_id, listed, now)
            .await
            .map_err(answer)?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(written.etag)),
            ..CompleteMultipartUploadOutput::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.store
            .upload_abort(&req.input.bucket, &req.input.key, &req.input.upload_id)
            .await
            .map_err(answer)?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}

impl DiskS3 {
    async fn bucket_must_exist(&self, bucket: &str) -> S3Result<()> {
        if self.store.bucket_exists(bucket).await.map_err(answer)? {
            Ok(())
        } else {
            Err(s3_error!(NoSuchBucket))
        }
    }
}

/// What S3 calls our refusal.
fn answer(error: DiskError) -> S3Error {
    let code = match &error {
        DiskError::NoBucket(_) => S3ErrorCode::NoSuchBucket,
        DiskError::BucketNotEmpty(_) => S3ErrorCode::BucketNotEmpty,
        DiskError::NoObject { .. } => S3ErrorCode::NoSuchKey,
        DiskError::NoUpload(_) => S3ErrorCode::NoSuchUpload,
        DiskError::NoPart { .. } => S3ErrorCode::InvalidPart,
        DiskError::PartTooSmall { .. } => S3ErrorCode::EntityTooSmall,
        DiskError::Condition(_) => S3ErrorCode::PreconditionFailed,
        DiskError::Body(_) => S3ErrorCode::IncompleteBody,
        DiskError::File { .. } | DiskError::Index(_) | DiskError::Group(_) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the object store failed"
            );
            S3ErrorCode::InternalError
        }
    };
    let mut refusal = S3Error::with_message(code, error.to_string());
    refusal.set_source(Box::new(error));
    refusal
}

fn conditions(
    etag: &str,
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<()> {
    let is = |condition: &ETagCondition| match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(asked) => asked.value() == etag,
    };
    if if_match.is_some_and(|c| !is(c)) {
        return Err(s3_error!(PreconditionFailed));
    }
    if if_none_match.is_some_and(is) {
        return Err(s3_error!(NotModified));
    }
    Ok(())
}

/// `aws-chunked` says how the request travelled and nothing about the object.
fn kept_encoding(header: Option<String>) -> Option<String> {
    let header = header?;
    let kept: Vec<&str> = header
        .split(',')
        .map(str::trim)
        .filter(|encoding| !encoding.is_empty() && *encoding != "aws-chunked")
        .collect();
    Some(kept.join(",")).filter(|text| !text.is_empty())
}

fn part_number(number: i32) -> S3Result<u32> {
    u32::try_from(number)
        .ok()
        .filter(|_| (1..=MAX_PART).contains(&number))
        .ok_or_else(|| s3_error!(InvalidArgument, "part numbers are 1 to 10,000"))
}

fn timestamp(at: UnixMillis) -> Timestamp {
    let since = Duration::from_millis(u64::try_from(at.0).unwrap_or(0));
    Timestamp::from(UNIX_EPOCH + since)
}

fn metadata(pairs: std::collections::BTreeMap<String, String>) -> Option<Metadata> {
    Some(pairs.into_iter().collect::<Metadata>()).filter(|m| !m.is_empty())
}

fn prefixes(prefixes: Vec<String>) -> Vec<CommonPrefix> {
    let prefix = |p| CommonPrefix { prefix: Some(p) };
    prefixes.into_iter().map(prefix).collect()
}

fn object(listed: super::disk::Listed) -> Object {
    Object {
        key: Some(listed.key),
        size: i64::try_from(listed.bytes).ok(),
        e_tag: Some(ETag::Strong(listed.etag)),
        last_modified: Some(timestamp(listed.modified)),
        ..Object::default()
    }
}

fn nothing() -> impl Stream<Item = Result<bytes::Bytes, std::io::Error>> + Send {
    futures::stream::empty()
}

/// Makes a stream `Sync` that is only ever polled by its owner, as `s3s` wants it.
struct Exclusive<S>(Mutex<Pin<Box<S>>>);

impl<S> Exclusive<S> {
    fn new(stream: S) -> Self {
        Self(Mutex::new(Box::pin(stream)))
    }
}

impl<S: Stream> Stream for Exclusive<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let inner = match self.0.get_mut() {
            Ok(inner) => inner,
            Err(poisoned) => poisoned.into_inner(),
        };
        inner.as_mut().poll_next(cx)
    }
}

/// The service over `store`; the key pair is the only one that gets in.
pub fn service(
    store: DiskStore,
    clock: Clock,
    access_key: &str,
    secret_key: &str,
) -> s3s::service::S3Service {
    let mut builder = s3s::service::S3ServiceBuilder::new(DiskS3::new(store, clock));
    builder.set_auth(s3s::auth::SimpleAuth::from_single(access_key, secret_key));
    builder.build()
}
