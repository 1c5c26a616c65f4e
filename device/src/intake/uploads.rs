//! What is open: the parts of an upload, and the uploads of a bucket.

use longhaul_vault::Error as VaultError;
use s3s::dto::{
    ChecksumAlgorithm, ChecksumType, ETag, Initiator, ListMultipartUploadsInput,
    ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput, MultipartUpload, Part,
    StorageClass,
};
use s3s::{S3Response, S3Result, s3_error};

use super::error::from_vault;
use super::listing::{OWNER, owner};
use super::multipart::{CHOSEN_TYPE, chosen_algorithm, part_number};
use super::names;
use super::put::give_checksums;
use super::retrieval::timestamp;
use super::service::Store;

/// Parts or uploads on one page at the most; S3's own limit.
const MAX_PAGE: i32 = 1000;

impl Store {
    pub(super) fn list_upload_parts(
        &self,
        input: ListPartsInput,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        let (upload, info) = self.find_upload(&input.bucket, &input.key, &input.upload_id)?;
        let limit = page_limit(input.max_parts)?;
        let after = match input.part_number_marker {
            None => None,
            Some(marker) if marker <= 0 => None,
            Some(marker) => Some(part_number(marker)?),
        };
        let page = self
            .vault
            .parts(&upload, after, limit)
            .map_err(|error| from_vault(&error, "listing parts"))?;
        let next = page.items.last().map(|part| i32::from(part.number.get()));
        let parts = page.items.into_iter().map(|part| {
            let mut entry = Part {
                part_number: Some(i32::from(part.number.get())),
                e_tag: Some(ETag::Strong(part.etag)),
                size: i64::try_from(part.digests.size).ok(),
                last_modified: Some(timestamp(part.last_modified_ms)),
                ..Part::default()
            };
            give_checksums!(entry, &part.checksums);
            entry
        });
        Ok(S3Response::new(ListPartsOutput {
            parts: Some(parts.collect()),
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            part_number_marker: input.part_number_marker,
            next_part_number_marker: next.filter(|_| page.more),
            max_parts: i32::try_from(limit).ok(),
            is_truncated: Some(page.more),
            checksum_algorithm: chosen_algorithm(&info)
                .map(|a| ChecksumAlgorithm::from_static(a.api_name())),
            checksum_type: info
                .checksums
                .get(CHOSEN_TYPE)
                .map(|kind| ChecksumType::from(kind.clone())),
            owner: Some(owner()),
            storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
            ..ListPartsOutput::default()
        }))
    }

    pub(super) fn list_uploads(
        &self,
        input: ListMultipartUploadsInput,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let job = names::job(&input.bucket)?;
        let limit = page_limit(input.max_uploads)?;
        let marker = input.key_marker.as_deref().filter(|m| !m.is_empty());
        let id_marker = match (marker, input.upload_id_marker.as_deref()) {
            (Some(_), Some(id)) if !id.is_empty() => Some(id.parse().map_err(|_| {
                s3_error!(InvalidArgument, "upload-id-marker is not an upload's name")
            })?),
            _ => None,
        };
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let after = marker.map(|key| (key, id_marker));
        let page = match self.vault.uploads(&job, prefix, after, limit) {
            Ok(page) => page,
            Err(VaultError::NoSuchJob(_)) => longhaul_vault::Page {
                items: Vec::new(),
                more: false,
            },
            Err(error) => return Err(from_vault(&error, "listing uploads")),
        };
        let last = page.items.last().filter(|_| page.more);
        let output = ListMultipartUploadsOutput {
            next_key_marker: last.map(|upload| upload.key.clone()),
            next_upload_id_marker: last.map(|upload| upload.id.to_string()),
            is_truncated: Some(page.more),
            bucket: Some(input.bucket),
            prefix: input.prefix,
            key_marker: input.key_marker,
            upload_id_marker: input.upload_id_marker,
            max_uploads: i32::try_from(limit).ok(),
            uploads: Some(
                page.items
                    .into_iter()
                    .map(|upload| MultipartUpload {
                        key: Some(upload.key),
                        upload_id: Some(upload.id.to_string()),
                        initiated: Some(timestamp(upload.created_ms)),
                        owner: Some(owner()),
                        initiator: Some(Initiator {
                            id: Some(OWNER.to_owned()),
                            display_name: Some(OWNER.to_owned()),
                        }),
                        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
                        ..MultipartUpload::default()
                    })
                    .collect(),
            ),
            ..ListMultipartUploadsOutput::default()
        };
        Ok(S3Response::new(output))
    }
}

fn page_limit(asked: Option<i32>) -> S3Result<usize> {
    let limit = asked.unwrap_or(MAX_PAGE).min(MAX_PAGE);
    usize::try_from(limit).map_err(|_| s3_error!(InvalidArgument, "page size {limit} is negative"))
}
