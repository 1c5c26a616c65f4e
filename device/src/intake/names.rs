//! Names: S3's bucket and key as the vault's job and a key that every bucket can hold.

use http::StatusCode;
use longhaul_protocol::ids::{InvalidId, ObjectKey};
use longhaul_protocol::names::Clash;
use longhaul_vault::{JobId, Vault};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::claims::Claim;
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
    /// To be held until the vault has it; nothing for what only begins.
    pub claim: Option<Claim>,
}

/// The key of something new: no other object may look the same; one may differ in case alone.
pub(super) fn fresh(
    vault: &Vault,
    spellings: &Spellings,
    job: &JobId,
    text: &str,
) -> S3Result<Fresh> {
    let key = key(text)?;
    // Claimed before the vault is asked: of two at once, one sees the other here or there.
    let (claim, written) = spellings.claim(job, &key);
    let other = match spellings.clash(vault, job, &key, written) {
        Some((Clash::Normalization, other)) => Err(other),
        Some((Clash::Case, other)) => Ok(Some(other)),
        None => Ok(None),
    };
    match other {
        Ok(other) => {
            let notice = other.map(|other| {
                let notice = spellings::notice(&key, &other);
                tracing::info!(notice, "a name is there in another case");
                spellings.tell(job, &notice);
                notice
            });
            let claim = Some(claim);
            Ok(Fresh { key, notice, claim })
        }
        Err(other) => {
            let mut error = S3Error::with_message(
                S3ErrorCode::Custom("NameClash".into()),
                format!(
                    "{}; rename one and push it again",
                    spellings::same(&key, &other)
                ),
            );
            error.set_status_code(StatusCode::CONFLICT);
            spellings.tell(job, error.message().unwrap_or_default());
            Err(error)
        }
    }
}
