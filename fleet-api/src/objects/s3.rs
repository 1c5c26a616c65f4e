//! The S3 protocol over [`DiskStore`]: enough for our own client, aws-cli, boto3, rclone and s5cmd.
//! What is not here answers `NotImplemented`.

mod bucket;
mod checksum;
mod listing;
mod multipart;
mod object;

use std::time::{Duration, UNIX_EPOCH};

use longhaul_protocol::value::UnixMillis;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CreateBucketInput, CreateBucketOutput,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteBucketInput, DeleteBucketOutput,
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput,
    GetBucketLocationInput, GetBucketLocationOutput, GetObjectInput, GetObjectOutput,
    HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListBucketsInput,
    ListBucketsOutput, ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsInput,
    ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output, ListPartsInput, ListPartsOutput,
    PutObjectInput, PutObjectOutput, Timestamp, TimestampFormat, UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::disk::{DiskError, DiskStore};
use crate::clock::Clock;

/// Keys in one listing at the most, as in S3.
const MAX_KEYS: i32 = 1000;

/// The disk store, spoken to in S3.
pub struct DiskS3 {
    store: DiskStore,
    clock: Clock,
}

/// The service over `store`; the key pair is the only one that gets in.
pub fn service(
    store: DiskStore,
    clock: Clock,
    access_key: &str,
    secret_key: &str,
) -> s3s::service::S3Service {
    let mut builder = s3s::service::S3ServiceBuilder::new(DiskS3 { store, clock });
    builder.set_auth(s3s::auth::SimpleAuth::from_single(access_key, secret_key));
    builder.build()
}

#[async_trait::async_trait]
impl S3 for DiskS3 {
    async fn create_bucket(
        &self,
        req: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        self.bucket_create(req).await
    }

    async fn delete_bucket(
        &self,
        req: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.bucket_delete(req).await
    }

    async fn head_bucket(
        &self,
        req: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.bucket_head(req).await
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.bucket_location(req).await
    }

    async fn list_buckets(
        &self,
        req: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        self.bucket_list(req).await
    }

    async fn put_object(
        &self,
        req: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        self.object_put(req).await
    }

    async fn get_object(
        &self,
        req: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        self.object_get(req).await
    }

    async fn head_object(
        &self,
        req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        self.object_head(req).await
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.object_delete(req).await
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.object_delete_many(req).await
    }

    async fn list_objects(
        &self,
        req: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        self.list_v1(req).await
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.list_v2(req).await
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.upload_begin(req).await
    }

    async fn upload_part(
        &self,
        req: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        self.part_put(req).await
    }

    async fn list_parts(
        &self,
        req: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        self.part_list(req).await
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        self.upload_list(req).await
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.upload_complete(req).await
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.upload_abort(req).await
    }
}

/// What is kept beside the bytes, from the headers of a `PUT` or of the begin of an upload.
macro_rules! attributes {
    ($input:expr) => {
        $crate::objects::disk::Attributes {
            content_type: $input.content_type,
            content_encoding: $crate::objects::s3::kept_encoding($input.content_encoding),
            content_disposition: $input.content_disposition,
            cache_control: $input.cache_control,
            content_language: $input.content_language,
            expires: $input
                .expires
                .as_ref()
                .and_then($crate::objects::s3::http_date),
            metadata: $input.metadata.unwrap_or_default().into_iter().collect(),
        }
    };
}
use attributes;

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

fn http_date(at: &Timestamp) -> Option<String> {
    let mut text = Vec::new();
    at.format(TimestampFormat::HttpDate, &mut text).ok()?;
    String::from_utf8(text).ok()
}

fn from_http_date(text: &str) -> Option<Timestamp> {
    Timestamp::parse(TimestampFormat::HttpDate, text).ok()
}

fn timestamp(at: UnixMillis) -> Timestamp {
    let since = Duration::from_millis(u64::try_from(at.0).unwrap_or(0));
    Timestamp::from(UNIX_EPOCH + since)
}
