//! Buckets, in S3.

use longhaul_protocol::value::UnixMillis;
use s3s::dto::{
    Bucket, CreateBucketInput, CreateBucketOutput, DeleteBucketInput, DeleteBucketOutput,
    GetBucketLocationInput, GetBucketLocationOutput, HeadBucketInput, HeadBucketOutput,
    ListBucketsInput, ListBucketsOutput,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::{DiskS3, answer, timestamp};

impl DiskS3 {
    pub(super) async fn bucket_create(
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

    pub(super) async fn bucket_delete(
        &self,
        req: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.store
            .bucket_remove(&req.input.bucket)
            .await
            .map_err(answer)?;
        Ok(S3Response::new(DeleteBucketOutput {}))
    }

    pub(super) async fn bucket_head(
        &self,
        req: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.bucket_must_exist(&req.input.bucket).await?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    pub(super) async fn bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.bucket_must_exist(&req.input.bucket).await?;
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    pub(super) async fn bucket_list(
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

    pub(super) async fn bucket_must_exist(&self, bucket: &str) -> S3Result<()> {
        if self.store.bucket_exists(bucket).await.map_err(answer)? {
            Ok(())
        } else {
            Err(s3_error!(NoSuchBucket))
        }
    }
}
