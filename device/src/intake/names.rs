//! Names: S3's bucket and key as the vault's job and a key that every bucket can hold.

use http::StatusCode;
use longhaul_protocol::ids::{InvalidId, ObjectKey};
use longhaul_protocol::names::lookalikes;
use longhaul_vault::{JobId, Vault};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::spellings::{self, Spellings};

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

/// A key that may be new, and what is odd about it.
pub(super) struct Fresh {
    pub key: ObjectKey,
    pub notice: Option<String>,
}

/// The key of something new: no other object may look the same; one may differ in case alone.
pub(super) fn fresh(
    vault: &Vault,
    spellings: &Spellings,
    job: &JobId,
    text: &str,
) -> S3Result<Fresh> {
    let key = key(text)?;
    match lookalike(vault, job, &key) {
        None => {
            let other = spellings.other_case(vault, job, &key);
            let notice = other.map(|other| {
                let notice = spellings::notice(&key, &other);
                tracing::info!(notice, "a name is there in another case");
                notice
            });
            Ok(Fresh { key, notice })
        }
        Some(other) => {
            let mut error = S3Error::with_message(
                S3ErrorCode::Custom("NameClash".into()),
                format!(
                    "the name {:?} looks the same as that of an object that is here, {}; both would be one file on many systems: rename one and push it again",
                    key.as_str(),
                    other.as_str().escape_unicode(),
                ),
            );
            error.set_status_code(StatusCode::CONFLICT);
            Err(error)
        }
    }
}

/// An object of `job` whose key shows the same characters as `key`, encoded differently (NFC and
/// NFD). Costs nothing for a key of plain ASCII.
fn lookalike(vault: &Vault, job: &JobId, key: &ObjectKey) -> Option<ObjectKey> {
    lookalikes(key)
        .into_iter()
        .find(|other| vault.head(job, other.as_str()).is_ok())
}
