//! `ListObjectVersions`: the box keeps one version of each object, called `null` as in a bucket
//! without versioning.

use longhaul_vault::ObjectInfo;
use s3s::dto::{
    ETag, ListObjectVersionsInput, ListObjectVersionsOutput, ObjectVersion,
    ObjectVersionStorageClass,
};
use s3s::{S3Response, S3Result};

use super::listing::{Encoding, Query, limit, list, owner};
use super::retrieval::{checksum_type, modified};
use super::service::Store;

/// The version of everything.
const NULL: &str = "null";

impl Store {
    pub(super) fn list_versions(
        &self,
        input: ListObjectVersionsInput,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let encoding = Encoding::of(input.encoding_type.as_ref())?;
        let limit = limit(input.max_keys)?;
        let query = Query {
            prefix: input.prefix.as_deref().unwrap_or_default(),
            delimiter: input.delimiter.as_deref().filter(|d| !d.is_empty()),
            after: input.key_marker.as_deref().filter(|m| !m.is_empty()),
            limit,
        };
        let listing = list(&self.vault, &input.bucket, &query)?;
        let version = |info: ObjectInfo| ObjectVersion {
            key: Some(encoding.text(&info.key)),
            version_id: Some(NULL.to_owned()),
            is_latest: Some(true),
            e_tag: Some(ETag::Strong(info.etag.clone())),
            last_modified: Some(modified(&info)),
            size: i64::try_from(info.size).ok(),
            owner: Some(owner()),
            storage_class: Some(ObjectVersionStorageClass::from_static(
                ObjectVersionStorageClass::STANDARD,
            )),
            checksum_type: Some(checksum_type(&info)),
            ..ObjectVersion::default()
        };
        let output = ListObjectVersionsOutput {
            is_truncated: Some(listing.next.is_some()),
            next_version_id_marker: listing.next.as_ref().map(|_| NULL.to_owned()),
            next_key_marker: listing.next.map(|next| encoding.text(&next)),
            versions: Some(listing.objects.into_iter().map(version).collect()),
            common_prefixes: Some(encoding.prefixes(listing.prefixes)),
            name: Some(input.bucket),
            prefix: Some(encoding.text(input.prefix.as_deref().unwrap_or_default())),
            key_marker: Some(encoding.text(input.key_marker.as_deref().unwrap_or_default())),
            version_id_marker: input.version_id_marker,
            delimiter: input.delimiter.map(|d| encoding.text(&d)),
            max_keys: i32::try_from(limit).ok(),
            encoding_type: input.encoding_type,
            ..ListObjectVersionsOutput::default()
        };
        Ok(S3Response::new(output))
    }
}
