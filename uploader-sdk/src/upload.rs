//! One multipart upload on the box: begun, found again after anything, given up.

use std::collections::BTreeMap;

use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, Part};
use longhaul_protocol::lan::SIZE_HEADER;

use crate::journal::{DonePart, OpenUpload, Origin};
use crate::plan::Planned;
use crate::push::{SendError, Sender, content_type};
use crate::retry::{S3Error, persist};
use crate::source::Stamp;

/// Parts of one object at the most: S3 allows 10,000, a tenth is left for files that grow.
const MAX_PARTS: u64 = 9_000;
const MIB: u64 = 1024 * 1024;

/// Bytes per part: `least`, or what it takes to stay below [`MAX_PARTS`], in whole MiB.
fn part_bytes(size: u64, least: u64) -> u64 {
    least.max(size.div_ceil(MAX_PARTS).div_ceil(MIB) * MIB)
}

/// The upload that an earlier push left, where it is of this very file, or a new one.
pub async fn open(
    sender: &Sender<'_>,
    file: &Planned,
    stamp: Stamp,
) -> Result<OpenUpload, SendError> {
    let origin = Origin::new(&file.path, stamp);
    if let Some(mut upload) = sender.journal.upload(&file.key) {
        if upload.origin == origin && upload.part_bytes > 0 {
            if let Some(listed) = list_parts(sender, file, &upload.upload_id).await? {
                upload.parts.retain(|number, part| {
                    let length = part_length(stamp.size, upload.part_bytes, *number);
                    listed.get(number).is_some_and(|l| matches(l, part, length))
                });
                return Ok(upload);
            }
        } else {
            abort(sender, file, &upload.upload_id).await;
        }
    }
    let answer = persist(sender.patience(0), &sender.progress, || async {
        let ticket = sender.client.ticket();
        let request = sender.client.s3().create_multipart_upload();
        Ok(request
            .bucket(&ticket.bucket)
            .key(file.key.as_str())
            .content_type(content_type(&file.key))
            .metadata("mtime", stamp.mtime_text())
            .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
            .checksum_type(ChecksumType::FullObject)
            .customize()
            .mutate_request(move |request| {
                let size = stamp.size.to_string();
                request.headers_mut().insert(SIZE_HEADER, size);
            })
            .send()
            .await?)
    })
    .await?;
    let upload = OpenUpload {
        origin,
        upload_id: answer
            .upload_id
            .ok_or_else(|| S3Error::malformed("UploadId"))?,
        part_bytes: part_bytes(stamp.size, sender.options.part_bytes),
        parts: BTreeMap::new(),
    };
    sender.journal.remember_upload(&file.key, upload.clone());
    Ok(upload)
}

/// Whether the box holds the part that the journal remembers.
fn matches(listed: &Part, part: &DonePart, length: u64) -> bool {
    let same = |theirs: Option<&str>, ours: &str| theirs.is_none_or(|theirs| theirs == ours);
    listed.size() == i64::try_from(length).ok()
        && same(listed.e_tag().map(|t| t.trim_matches('"')), &part.etag)
        && same(listed.checksum_crc64_nvme(), &part.crc.header())
}

/// Length of a part; 0 for a number beyond the end.
pub fn part_length(size: u64, part_bytes: u64, number: i32) -> u64 {
    let before = u64::try_from(number - 1)
        .unwrap_or(u64::MAX)
        .saturating_mul(part_bytes);
    size.saturating_sub(before).min(part_bytes)
}

/// The parts that the box holds; `None` where it does not know the upload.
async fn list_parts(
    sender: &Sender<'_>,
    file: &Planned,
    upload_id: &str,
) -> Result<Option<BTreeMap<i32, Part>>, S3Error> {
    let mut parts = BTreeMap::new();
    let mut marker: Option<String> = None;
    loop {
        let page = persist(sender.patience(0), &sender.progress, || async {
            let request = sender.client.s3().list_parts();
            Ok(request
                .bucket(&sender.client.ticket().bucket)
                .key(file.key.as_str())
                .upload_id(upload_id)
                .set_part_number_marker(marker.clone())
                .send()
                .await?)
        })
        .await;
        let page = match page {
            Ok(page) => page,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let before = parts.len();
        let more = page.is_truncated() == Some(true);
        marker.clone_from(&page.next_part_number_marker);
        let numbered = |part: Part| Some((part.part_number()?, part));
        parts.extend(page.parts.into_iter().flatten().filter_map(numbered));
        // A page without anything new would be asked for again for ever.
        if !more || marker.is_none() || parts.len() == before {
            return Ok(Some(parts));
        }
    }
}

/// Frees the parts of an upload that will not be finished; a failure costs the box space until it
/// cleans up by itself.
pub async fn abort(sender: &Sender<'_>, file: &Planned, upload_id: &str) {
    sender.journal.forget(&file.key);
    let request = sender.client.s3().abort_multipart_upload();
    let aborted = request
        .bucket(&sender.client.ticket().bucket)
        .key(file.key.as_str())
        .upload_id(upload_id)
        .send()
        .await;
    if let Err(error) = aborted {
        tracing::debug!(error = %S3Error::from(error), key = %file.key, "upload not aborted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_cover_the_file_and_stay_below_the_limit(
            size in 1_u64..5 * 1024 * 1024 * MIB,
            least in 5_u64..64,
        ) {
            let part = part_bytes(size, least * MIB);
            let count = size.div_ceil(part);

            prop_assert!(count <= MAX_PARTS);
            prop_assert!(part >= least * MIB);
            let last = i32::try_from(count).expect("few");
            let covered = (count - 1) * part + part_length(size, part, last);
            prop_assert_eq!(covered, size);
            prop_assert_eq!(part_length(size, part, last + 1), 0);
        }
    }
}
