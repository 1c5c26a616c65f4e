//! `DeleteObject` and `DeleteObjects`: what the owner deletes on the box is not delivered any more.
//!
//! What has reached the bucket already stays there. The vault remembers the deletion in the record
//! that makes it; the uplink's recorder tells the cloud.

use longhaul_protocol::ids::ObjectKey;
use longhaul_vault::{Condition, Error as VaultError};
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject,
    ETagCondition,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::checksum::Promise;
use super::error::from_vault;
use super::names;
use super::service::Store;

/// Names in one `DeleteObjects` at the most; S3's own limit.
const MAX_DELETES: usize = 1000;

impl Store {
    pub(super) async fn delete_one(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        let key = names::key(&input.key)?;
        let condition = match input.if_match {
            None => Condition::Any,
            Some(ETagCondition::Any) => Condition::Present,
            Some(ETagCondition::ETag(etag)) => Condition::Etag(etag.into_value()),
        };
        self.delete(&input.bucket, &key, condition).await?;
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
            let condition = object
                .e_tag
                .map_or(Condition::Any, |etag| Condition::Etag(etag.into_value()));
            let result = match names::key(&object.key) {
                Ok(key) => self.delete(&input.bucket, &key, condition).await,
                Err(error) => Err(error),
            };
            match result {
                Ok(()) if quiet => {}
                Ok(()) => deleted.push(DeletedObject {
                    key: Some(object.key),
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

    async fn delete(&self, bucket: &str, key: &ObjectKey, condition: Condition) -> S3Result<()> {
        let job = names::job(bucket)?;
        let what = format!("object {:?}", key.as_str());
        match self.vault.head(&job, key.as_str()) {
            Ok(_) => {}
            Err(VaultError::NoSuchObject(_) | VaultError::NoSuchJob(_))
                if condition == Condition::Any =>
            {
                return Ok(());
            }
            Err(error) => return Err(from_vault(&error, &what)),
        }
        let gone = self
            .vault
            .delete(&job, key.as_str(), condition)
            .await
            .map_err(|error| from_vault(&error, &what))?;
        if gone {
            self.arrivals.ring();
        }
        Ok(())
    }
}
