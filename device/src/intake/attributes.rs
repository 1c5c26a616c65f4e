//! `GetObjectAttributes`: checksums, size and parts, without the bytes.

use s3s::dto::{
    Checksum, ETag, GetObjectAttributesInput, GetObjectAttributesOutput, GetObjectAttributesParts,
    ObjectAttributes, ObjectPart, StorageClass,
};
use s3s::{S3Response, S3Result, s3_error};

use super::checksum::Algorithm;
use super::layout::{self, Layout};
use super::put::give_checksums;
use super::retrieval::{checksum_type, modified, refuse_version};
use super::service::Store;

/// Parts on one page at the most; S3's own limit.
const MAX_PARTS: usize = 1000;

impl Store {
    pub(super) fn attributes(
        &self,
        input: &GetObjectAttributesInput,
    ) -> S3Result<S3Response<GetObjectAttributesOutput>> {
        refuse_version(input.version_id.as_deref())?;
        let info = self.look(&input.bucket, &input.key)?;
        // One header may name several, and s3s takes it for one name.
        let asked = || {
            input
                .object_attributes
                .iter()
                .flat_map(|a| a.as_str().split(','))
        };
        let wants = |name: &str| asked().any(|a| a.trim() == name);
        let mut output = GetObjectAttributesOutput {
            last_modified: Some(modified(&info)),
            ..GetObjectAttributesOutput::default()
        };
        if wants(ObjectAttributes::ETAG) {
            output.e_tag = Some(ETag::Strong(info.etag.clone()));
        }
        if wants(ObjectAttributes::OBJECT_SIZE) {
            output.object_size = i64::try_from(info.size).ok();
        }
        if wants(ObjectAttributes::STORAGE_CLASS) {
            output.storage_class = Some(StorageClass::from_static(StorageClass::STANDARD));
        }
        if wants(ObjectAttributes::CHECKSUM) {
            let mut checksum = Checksum {
                checksum_type: Some(checksum_type(&info)),
                ..Checksum::default()
            };
            give_checksums!(checksum, &info.checksums);
            output.checksum = Some(checksum);
        }
        if wants(ObjectAttributes::OBJECT_PARTS)
            && let Some(layout) = layout::of(&info)
        {
            output.object_parts = Some(page(&layout, input.part_number_marker, input.max_parts)?);
        }
        Ok(S3Response::new(output))
    }
}

fn page(
    layout: &Layout,
    marker: Option<i32>,
    max_parts: Option<i32>,
) -> S3Result<GetObjectAttributesParts> {
    let natural = |value: Option<i32>, otherwise: usize| match value {
        None => Ok(otherwise),
        Some(value) => usize::try_from(value).map_err(|_| {
            s3_error!(
                InvalidArgument,
                "max-parts and part-number-marker must not be negative, not {value}"
            )
        }),
    };
    let (after, limit) = (
        natural(marker, 0)?,
        natural(max_parts, MAX_PARTS)?.min(MAX_PARTS),
    );
    let total = layout.lengths.len();
    let end = after.saturating_add(limit).min(total);
    let parts = (after..end).map(|index| {
        let mut part = ObjectPart {
            part_number: i32::try_from(index + 1).ok(),
            size: layout
                .lengths
                .get(index)
                .and_then(|l| i64::try_from(*l).ok()),
            ..ObjectPart::default()
        };
        if let Some((algorithm, sums)) = &layout.sums {
            let sum = sums.get(index).cloned();
            match algorithm {
                Algorithm::Crc32 => part.checksum_crc32 = sum,
                Algorithm::Crc32c => part.checksum_crc32c = sum,
                Algorithm::Crc64Nvme => part.checksum_crc64nvme = sum,
                Algorithm::Sha1 => part.checksum_sha1 = sum,
                Algorithm::Sha256 => part.checksum_sha256 = sum,
            }
        }
        part
    });
    let number = |n: usize| i32::try_from(n).ok();
    Ok(GetObjectAttributesParts {
        parts: Some(parts.collect()),
        is_truncated: Some(end < total),
        max_parts: number(limit),
        part_number_marker: number(after),
        next_part_number_marker: number(end),
        total_parts_count: number(total),
    })
}
