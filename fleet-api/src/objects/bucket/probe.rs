//! Tries out what a bucket's store can do and may be asked, under a name that nobody uses, and says in
//! words what is wrong.

use std::time::Duration;

use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use base64::Engine as _;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{BucketError, Buckets};

/// What the probe's names begin with.
pub const PROBES: &str = ".longhaul-probe/";
/// What it writes.
const BYTES: &[u8] = b"Longhaul tries out what this bucket can do. This object may be deleted.\n";
/// Longest time for all of it.
const LIMIT: Duration = Duration::from_secs(45);

/// How a store treats checksums that come with the bytes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Checksums {
    /// It was not found out.
    #[default]
    Unknown,
    /// Wrong bytes are refused.
    Verified,
    /// Wrong bytes are taken.
    Ignored,
    /// It takes no bytes that come with one.
    Refused,
}

/// What a destination can do.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one ability, and none follows from another"
)]
pub struct Abilities {
    /// The bucket is there and may be written.
    pub put: bool,
    /// What was written can be read back.
    pub read: bool,
    /// What becomes of checksums.
    #[serde(default)]
    pub checksums: Checksums,
    /// Objects that exist can be protected from being overwritten (`If-None-Match: *`).
    pub conditional_put: bool,
    /// Objects can be sent in parts.
    pub multipart: bool,
    /// Objects can be deleted.
    pub delete: bool,
    /// What is wrong, in words; empty where deliveries can go.
    pub problems: Vec<String>,
    /// The store refuses whatever the cloud asks for this bucket: deliveries to it wait.
    #[serde(default)]
    pub denied: bool,
    /// What is worth knowing and keeps nobody from delivering.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl Buckets {
    /// Tries out the bucket, which is made if it does not exist and may be made.
    pub async fn probe(&self, bucket: &str, name: &str) -> Abilities {
        let mut found = Abilities::default();
        let key = format!("{PROBES}{name}");
        let tried = tokio::time::timeout(LIMIT, self.try_out(bucket, &key, &mut found)).await;
        match tried {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                found.problems.push(words(bucket, &error));
                if error.is_denial() {
                    found.denied = true;
                    let waits = "deliveries to this bucket wait, and go on by themselves once it can be used";
                    found.notes.push(waits.to_owned());
                }
            }
            Err(_) => found.problems.push(format!(
                "the object store took longer than {} s to be tried out",
                LIMIT.as_secs()
            )),
        }
        found
    }

    async fn try_out(
        &self,
        bucket: &str,
        key: &str,
        found: &mut Abilities,
    ) -> Result<(), BucketError> {
        self.ensure(bucket).await?;
        self.probe_put(bucket, key, found).await?;
        self.probe_condition(bucket, key, found).await;
        self.probe_parts(bucket, &format!("{key}-parts"), found)
            .await;
        let content = self.content(bucket, key).await?;
        found.read = content == Some(super::Content::of(BYTES));
        if !found.read {
            found.problems.push(format!(
                "bucket {bucket} gives back other bytes than it took"
            ));
        }
        let mut deleted = Ok(());
        for key in [
            key.to_owned(),
            format!("{key}-parts"),
            format!("{key}-wrong"),
        ] {
            deleted = deleted.and(self.delete(bucket, &key).await);
        }
        match deleted {
            Ok(()) => found.delete = true,
            Err(error) => found.notes.push(format!(
                "objects cannot be deleted, so what this probe wrote stays: {}",
                words(bucket, &error)
            )),
        }
        Ok(())
    }

    /// Once with the right checksum, once with a wrong one.
    async fn probe_put(
        &self,
        bucket: &str,
        key: &str,
        found: &mut Abilities,
    ) -> Result<(), BucketError> {
        let put = |key: &str, sum: String| {
            self.client
                .put_object()
                .bucket(bucket)
                .key(key)
                .checksum_algorithm(ChecksumAlgorithm::Sha256)
                .checksum_sha256(sum)
                .body(Bytes::from_static(BYTES).into())
                .send()
        };
        let right = put(key, sha256(BYTES)).await;
        if let Err(error) = right {
            // Perhaps only the checksum is in the way.
            let bare = self.client.put_object().bucket(bucket).key(key);
            let bare = bare.body(Bytes::from_static(BYTES).into()).send().await;
            bare.map_err(BucketError::of("put an object"))?;
            found.checksums = Checksums::Refused;
            found.notes.push(format!(
                "the store refuses objects that come with a checksum ({}); what arrives is read \
                 back and compared anyway",
                error.code().unwrap_or("no reason given")
            ));
        }
        found.put = true;
        if found.checksums == Checksums::Refused {
            return Ok(());
        }
        let wrong = put(&format!("{key}-wrong"), sha256(b"other bytes")).await;
        found.checksums = if wrong.is_err() {
            Checksums::Verified
        } else {
            found.notes.push(
                "the store does not verify checksums; what arrives is read back and compared \
                 anyway"
                    .to_owned(),
            );
            Checksums::Ignored
        };
        Ok(())
    }

    /// The object is there: a condition that it is not must fail.
    async fn probe_condition(&self, bucket: &str, key: &str, found: &mut Abilities) {
        let again = self.client.put_object().bucket(bucket).key(key);
        let again = again.if_none_match("*");
        let again = again.body(Bytes::from_static(BYTES).into()).send().await;
        found.conditional_put = match again {
            Ok(_) => false,
            Err(error) => matches!(
                error.code(),
                Some("PreconditionFailed" | "ConditionalRequestConflict")
            ),
        };
        if !found.conditional_put {
            found.notes.push(
                "the store has no conditional writes: a request whose answer is lost is sent twice"
                    .to_owned(),
            );
        }
    }

    async fn probe_parts(&self, bucket: &str, key: &str, found: &mut Abilities) {
        match self.send_parts(bucket, key).await {
            Ok(()) => found.multipart = true,
            Err(error) => found.problems.push(format!(
                "objects cannot be sent in parts: {}",
                words(bucket, &error)
            )),
        }
    }

    async fn send_parts(&self, bucket: &str, key: &str) -> Result<(), BucketError> {
        let begun = self
            .client
            .create_multipart_upload()
            .bucket(bucket)
            .key(key);
        let begun = begun.send().await;
        let begun = begun.map_err(BucketError::of("begin an upload"))?;
        let upload = begun.upload_id.unwrap_or_default();
        let part = self
            .client
            .upload_part()
            .bucket(bucket)
            .key(key)
            .upload_id(&upload)
            .part_number(1)
            .body(Bytes::from_static(BYTES).into())
            .send()
            .await
            .map_err(BucketError::of("put a part"));
        let joined = match part {
            Ok(part) => {
                let part = CompletedPart::builder()
                    .part_number(1)
                    .set_e_tag(part.e_tag)
                    .build();
                let parts = CompletedMultipartUpload::builder().parts(part).build();
                let complete = self.client.complete_multipart_upload().bucket(bucket);
                let complete = complete.key(key).upload_id(&upload).multipart_upload(parts);
                let joined = complete.send().await;
                joined
                    .map(|_| ())
                    .map_err(BucketError::of("complete an upload"))
            }
            Err(error) => Err(error),
        };
        if joined.is_err()
            && let Err(error) = self.multipart_abort(bucket, key, &upload).await
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what the probe began stays for now"
            );
        }
        joined
    }
}

fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// What is wrong and what to do about it.
fn words(bucket: &str, error: &BucketError) -> String {
    match error.code() {
        Some("AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "Forbidden") => format!(
            "the cloud's access key may not {} in bucket {bucket}: allow it there, or use another key",
            error.what()
        ),
        Some("InvalidAccessKeyId") => {
            "the object store does not know the cloud's access key: check it".to_owned()
        }
        Some("SignatureDoesNotMatch") => {
            "the object store refuses the cloud's signature: check the secret key".to_owned()
        }
        Some("RequestTimeTooSkewed") => format!(
            "the object store's clock and the cloud's differ too much: set the clock that is wrong \
             ({error})"
        ),
        Some(
            "PermanentRedirect"
            | "AuthorizationHeaderMalformed"
            | "TemporaryRedirect"
            | "IllegalLocationConstraintException"
            | "InvalidRegion",
        ) => format!("bucket {bucket} is in another region than the cloud asks: {error}"),
        Some("NoSuchBucket") => {
            format!("there is no bucket {bucket}, and it cannot be made: make it")
        }
        Some("BucketAlreadyExists") => {
            format!("bucket {bucket} belongs to somebody else: choose another name")
        }
        Some("InvalidBucketName") => format!("the object store takes no bucket named {bucket}"),
        Some("unreachable") => format!("the object store cannot be reached: {error}"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_in_words() {
        let says = |code: &str| words("haul", &BucketError::coded("put an object", code));
        assert!(says("AccessDenied").contains("may not put an object in bucket haul"));
        assert!(says("PermanentRedirect").contains("another region"));
        assert!(says("NoSuchBucket").contains("make it"));
        assert!(says("RequestTimeTooSkewed").contains("clock"));
        assert!(says("SignatureDoesNotMatch").contains("secret key"));
        assert!(says("SomethingElse").contains("SomethingElse"));
    }
}
