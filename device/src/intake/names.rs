//! Names: S3's bucket and key as the vault's job and a key that every bucket can hold.

use longhaul_protocol::ids::{InvalidId, ObjectKey};
use longhaul_vault::JobId;
use s3s::{S3Result, s3_error};

/// The vault's job for a bucket: they have the same name.
pub(super) fn job(bucket: &str) -> S3Result<JobId> {
    bucket
        .parse()
        .map_err(|error| s3_error!(InvalidBucketName, "bucket name: {error}"))
}

/// The key, if every bucket can hold it.
pub(super) fn key(text: &str) -> S3Result<ObjectKey> {
    text.parse().map_err(|error: InvalidId| {
        s3_error!(
            InvalidArgument,
            "no bucket can hold the name {:?} (rule: {}); rename the file and push it again",
            error.text,
            error.rule
        )
    })
}
