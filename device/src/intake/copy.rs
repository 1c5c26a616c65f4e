//! `CopyObject`: reads one version and writes it under another name, without the network.

use longhaul_vault::{Condition, Metadata};
use s3s::dto::{
    CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, ETag, MetadataDirective,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};
use tokio::task::spawn_blocking;

use super::error::{from_vault, interrupted};
use super::names;
use super::put::{Described, begin, give_checksums, refuse_customer_keys};
use super::retrieval::modified;
use super::service::Store;

impl Store {
    pub(super) async fn copy(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let credential = Self::admitted(&request)?;
        let input = request.input;
        refuse_customer_keys(input.sse_customer_algorithm.as_deref())?;
        let CopySource::Bucket { bucket, key, .. } = &input.copy_source else {
            return Err(s3_error!(
                NotImplemented,
                "objects are copied from a bucket only"
            ));
        };
        // The gate saw the target's bucket; the source must be the same.
        if **bucket != *credential.bucket {
            return Err(s3_error!(
                AccessDenied,
                "ticket {} is for bucket {:?} only",
                credential.ticket,
                credential.bucket
            ));
        }
        let source = self.look(bucket, key)?;
        let job = names::job(&input.bucket)?;
        let key = names::key(&input.key)?;
        let what = format!("object {:?}", key.as_str());
        let replace = input
            .metadata_directive
            .as_ref()
            .is_some_and(|d| d.as_str() == MetadataDirective::REPLACE);
        let described = Described {
            content_type: input.content_type,
            cache_control: input.cache_control,
            content_disposition: input.content_disposition,
            content_encoding: input.content_encoding,
            content_language: input.content_language,
            expires: input.expires,
            user: input.metadata,
        };
        let mut metadata = described.metadata(&credential);
        if !replace {
            let ticket = metadata.headers;
            metadata = Metadata {
                headers: source.metadata.headers.into_iter().chain(ticket).collect(),
                ..source.metadata
            };
        }

        let _permit = self.body_permit().await?;
        let (vault, checksums) = (self.vault.clone(), source.checksums);
        let commit = spawn_blocking(move || {
            let mut writer = begin(&vault, &job, key.as_str(), metadata)?;
            let mut reader = vault.get_version(source.version, None)?;
            while let Some(chunk) = reader.next_chunk()? {
                writer.write(&chunk)?;
            }
            // A composite checksum speaks of parts, and the copy has none.
            let checksums = checksums
                .into_iter()
                .filter(|(_, value)| !value.contains('-'))
                .collect();
            Ok(writer.finish(checksums, Condition::Any))
        })
        .await
        .map_err(|error| interrupted(&error))?
        .map_err(|error| from_vault(&error, &what))?;
        let info = commit.await.map_err(|error| from_vault(&error, &what))?;
        self.arrivals.ring();

        let mut result = CopyObjectResult {
            e_tag: Some(ETag::Strong(info.etag.clone())),
            last_modified: Some(modified(&info)),
            ..CopyObjectResult::default()
        };
        give_checksums!(result, &info.checksums);
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(result),
            ..CopyObjectOutput::default()
        }))
    }
}
