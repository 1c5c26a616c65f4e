//! `CopyObject` and `UploadPartCopy`: read one version and write it elsewhere, without the network.

use std::ops::Range;

use longhaul_vault::{Condition, Metadata, ObjectInfo, Version};
use s3s::dto::{
    CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopyPartResult, CopySource, ETag,
    MetadataDirective, UploadPartCopyInput, UploadPartCopyOutput,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use tokio::task::spawn_blocking;

use super::body::{Fault, Lane, Sink};
use super::checksum::{Algorithm, Hasher};
use super::error::{from_vault, interrupted};
use super::multipart::{chosen_algorithm, part_number};
use super::names::Fresh;
use super::put::{Described, begin, give_checksums};
use super::refuse::refuse_unsupported;
use super::retrieval::{Conditions, check_conditions, modified, refuse_version, timestamp};
use super::service::Store;
use super::{layout, names, notice, refuse};

impl Store {
    pub(super) async fn copy(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let credential = Self::admitted(&request)?;
        let input = request.input;
        refuse_unsupported!(input);
        let class = refuse::storage_class(input.storage_class.as_ref())?;
        let conditions = Conditions {
            matches: input.copy_source_if_match.as_ref(),
            none_match: input.copy_source_if_none_match.as_ref(),
            modified_since: input.copy_source_if_modified_since.as_ref(),
            unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
        };
        let source = self.source(&input.copy_source, &credential.bucket, &conditions)?;
        let job = names::job(&input.bucket)?;
        let Fresh { key, notice, claim } =
            names::fresh(&self.vault, &self.spellings, &job, &input.key)?;
        let what = format!("object {:?}", key.as_str());
        let replace = input
            .metadata_directive
            .as_ref()
            .is_some_and(|d| d.as_str() == MetadataDirective::REPLACE);
        if source.key == key.as_str() && source.job == job && !replace {
            return Err(s3_error!(
                InvalidRequest,
                "{what} would be copied to itself unchanged; replace its metadata or name another key"
            ));
        }
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
        refuse::metadata(&metadata)?;

        let _permit = self.body_permit().await?;
        let sink = begin(&self.vault, &job, key.as_str(), metadata)
            .map_err(|error| from_vault(&error, &what))?;
        let wanted = input
            .checksum_algorithm
            .and_then(|a| Algorithm::from_api_name(a.as_str()));
        let mut lane = self.pump(source.version, None, sink, wanted, &what).await?;
        let mut checksums = layout::of_bytes(source.checksums);
        checksums.extend(lane.hasher.kept(lane.sink.digests().crc64nvme));
        let info = lane
            .sink
            .finish(checksums, Condition::Any)
            .await
            .map_err(|error| from_vault(&error, &what))?;
        drop(claim);
        self.arrivals.ring();

        let mut result = CopyObjectResult {
            e_tag: Some(ETag::Strong(info.etag.clone())),
            last_modified: Some(modified(&info)),
            ..CopyObjectResult::default()
        };
        give_checksums!(result, &info.checksums);
        let mut response = S3Response::new(CopyObjectOutput {
            copy_object_result: Some(result),
            ..CopyObjectOutput::default()
        });
        notice::add(&mut response.headers, notice.into_iter().chain(class));
        Ok(response)
    }

    pub(super) async fn copy_part(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let credential = Self::admitted(&request)?;
        let input = request.input;
        refuse::customer_keys(input.sse_customer_algorithm.as_deref())?;
        let conditions = Conditions {
            matches: input.copy_source_if_match.as_ref(),
            none_match: input.copy_source_if_none_match.as_ref(),
            modified_since: input.copy_source_if_modified_since.as_ref(),
            unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
        };
        let source = self.source(&input.copy_source, &credential.bucket, &conditions)?;
        let number = part_number(input.part_number)?;
        let what = format!("part {number} of {:?}", input.key);
        let (upload, info) = self.find_upload(&input.bucket, &input.key, &input.upload_id)?;
        let range = match &input.copy_source_range {
            None => None,
            Some(text) => Some(source_range(text, source.size)?),
        };
        let length = range.as_ref().map_or(source.size, |r| r.end - r.start);

        let _permit = self.body_permit().await?;
        let sink = self
            .vault
            .begin_sized_part(&upload, number, length)
            .map_err(|error| from_vault(&error, &what))?;
        let mut lane = self
            .pump(source.version, range, sink, chosen_algorithm(&info), &what)
            .await?;
        let checksums = lane.hasher.kept(lane.sink.digests().crc64nvme);
        let part = lane
            .sink
            .finish(checksums)
            .await
            .map_err(|error| from_vault(&error, &what))?;

        let mut result = CopyPartResult {
            e_tag: Some(ETag::Strong(part.etag)),
            last_modified: Some(timestamp(part.last_modified_ms)),
            ..CopyPartResult::default()
        };
        give_checksums!(result, &part.checksums);
        Ok(S3Response::new(UploadPartCopyOutput {
            copy_part_result: Some(result),
            ..UploadPartCopyOutput::default()
        }))
    }

    /// The version that is to be copied. The gate saw the target's bucket; the source must be in the
    /// same.
    fn source(
        &self,
        source: &CopySource,
        ticket_bucket: &str,
        conditions: &Conditions<'_>,
    ) -> S3Result<ObjectInfo> {
        let CopySource::Bucket {
            bucket,
            key,
            version_id,
        } = source
        else {
            return Err(s3_error!(
                NotImplemented,
                "objects are copied from a bucket only"
            ));
        };
        if **bucket != *ticket_bucket {
            return Err(s3_error!(
                AccessDenied,
                "the ticket is for bucket {ticket_bucket:?} only, not {bucket:?}"
            ));
        }
        refuse_version(version_id.as_deref())?;
        let info = self.look(bucket, key)?;
        check_conditions(&info, conditions).map_err(|error| {
            // Of a source, "not modified" is a failed condition like any other.
            if *error.code() == S3ErrorCode::NotModified {
                return S3Error::with_message(
                    S3ErrorCode::PreconditionFailed,
                    format!("the source {key:?} does not meet the condition"),
                );
            }
            error
        })?;
        Ok(info)
    }

    /// Moves a version's bytes into `sink`, hashing them if an algorithm is wanted.
    async fn pump<S: Sink>(
        &self,
        from: Version,
        range: Option<Range<u64>>,
        sink: S,
        wanted: Option<Algorithm>,
        what: &str,
    ) -> S3Result<Lane<S>> {
        let vault = self.vault.clone();
        let mut lane = Lane {
            sink,
            hasher: Hasher::of(wanted),
        };
        spawn_blocking(move || {
            // An empty source has no range that could be asked of it.
            let mut reader = vault.get_version(from, range)?;
            while let Some(chunk) = reader.next_chunk()? {
                lane.hasher.update(&chunk);
                lane.sink.write(&chunk)?;
            }
            Ok(lane)
        })
        .await
        .map_err(|error| interrupted(&error))?
        .map_err(|fault: Fault| fault.about(what))
    }
}

/// `bytes=FIRST-LAST`, both named and inside the source: what S3 takes for a part.
fn source_range(text: &str, size: u64) -> S3Result<Range<u64>> {
    let parsed = text.strip_prefix("bytes=").and_then(|range| {
        let (first, last) = range.split_once('-')?;
        Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?))
    });
    let Some((first, last)) = parsed.filter(|(first, last)| first <= last) else {
        return Err(s3_error!(
            InvalidArgument,
            "the range {text:?} of the source is not of the form bytes=FIRST-LAST"
        ));
    };
    if last >= size {
        return Err(s3_error!(
            InvalidRange,
            "the range {text:?} is not inside the source, which has {size} bytes"
        ));
    }
    Ok(first..last + 1)
}
