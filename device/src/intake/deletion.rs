//! `DeleteObject` and `DeleteObjects`: what the owner deletes on the box is not delivered any more.
//!
//! What has reached the bucket already stays there. The vault remembers the deletion in the record
//! that makes it; the uplink's recorder tells the cloud.

use longhaul_vault::{Condition, Error as VaultError, ObjectInfo};
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject,
    ETag, ETagCondition, Timestamp,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::checksum::Promise;
use super::error::from_vault;
use super::names;
use super::retrieval::{modified, refuse_version};
use super::service::Store;

/// Names in one `DeleteObjects` at the most; S3's own limit.
const MAX_DELETES: usize = 1000;

/// What must be true of the object that is to go; nothing is true of one that is not there.
struct Unless {
    etag: Option<String>,
    modified: Option<Timestamp>,
    size: Option<i64>,
}

impl Unless {
    fn is_none(&self) -> bool {
        self.etag.is_none() && self.modified.is_none() && self.size.is_none()
    }

    fn check(&self, info: &ObjectInfo) -> S3Result<()> {
        let holds = self.etag.as_ref().is_none_or(|etag| *etag == info.etag)
            && self
                .modified
                .as_ref()
                .is_none_or(|at| *at == modified(info))
            && self
                .size
                .is_none_or(|size| u64::try_from(size) == Ok(info.size));
        if holds {
            return Ok(());
        }
        Err(s3_error!(
            PreconditionFailed,
            "object {:?} is not the one that was to be deleted; its ETag is {:?}",
            info.key,
            info.etag
        ))
    }
}

impl Store {
    pub(super) async fn delete_one(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        refuse_version(input.version_id.as_deref())?;
        let unless = Unless {
            etag: input.if_match.and_then(|condition| match condition {
                // An object that is there matches, and one that is not needs no deletion.
                ETagCondition::Any => None,
                ETagCondition::ETag(etag) => Some(etag.into_value()),
            }),
            modified: input.if_match_last_modified_time,
            size: input.if_match_size,
        };
        self.delete(&input.bucket, &input.key, unless).await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    pub(super) async fn delete_many(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let _ = Promise::read(&request)?;
        let input = request.input;
        if input.delete.objects.len() > MAX_DELETES {
            return Err(s3_error!(
                MalformedXML,
                "{} names in one DeleteObjects; at most {MAX_DELETES}",
                input.delete.objects.len()
            ));
        }
        let quiet = input.delete.quiet.unwrap_or(false);
        let mut deleted = Vec::new();
        let mut errors = Vec::new();
        for object in input.delete.objects {
            let unless = Unless {
                etag: object.e_tag.map(ETag::into_value).filter(|e| e != "*"),
                modified: object.last_modified_time,
                size: object.size,
            };
            let result = match refuse_version(object.version_id.as_deref()) {
                Ok(()) => self.delete(&input.bucket, &object.key, unless).await,
                Err(error) => Err(error),
            };
            match result {
                Ok(()) if quiet => {}
                Ok(()) => deleted.push(DeletedObject {
                    key: Some(object.key),
                    version_id: object.version_id,
                    ..DeletedObject::default()
                }),
                Err(error) => errors.push(s3s::dto::Error {
                    code: Some(error.code().as_str().to_owned()),
                    message: error.message().map(str::to_owned),
                    key: Some(object.key),
                    ..s3s::dto::Error::default()
                }),
            }
        }
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: Some(deleted),
            errors: Some(errors),
            ..DeleteObjectsOutput::default()
        }))
    }

    async fn delete(&self, bucket: &str, key: &str, unless: Unless) -> S3Result<()> {
        let job = names::job(bucket)?;
        let what = format!("object {key:?}");
        let info = match self.vault.head(&job, key) {
            Ok(info) => info,
            // What is not here needs no deletion, whatever the condition.
            Err(VaultError::NoSuchObject(_) | VaultError::NoSuchJob(_)) => return Ok(()),
            Err(error) => return Err(from_vault(&error, &what)),
        };
        unless.check(&info)?;
        let condition = if unless.is_none() {
            Condition::Any
        } else {
            Condition::Version(info.version)
        };
        let gone = self
            .vault
            .delete(&job, key, condition)
            .await
            .map_err(|error| from_vault(&error, &what))?;
        if gone {
            self.arrivals.ring();
        }
        Ok(())
    }
}
