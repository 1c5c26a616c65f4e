//! Objects in parts, in S3.

use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput, ETag,
    ListMultipartUploadsInput, ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput,
    MultipartUpload, Part, UploadPartInput, UploadPartOutput,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::checksum::checking;
use super::{DiskS3, MAX_KEYS, answer, attributes, timestamp};

/// Part numbers end here, as in S3.
const MAX_PART: i32 = 10_000;

impl DiskS3 {
    pub(super) async fn upload_begin(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = req.input;
        let attributes = attributes!(input);
        let upload = self
            .store
            .upload_begin(&input.bucket, &input.key, attributes, self.clock.now())
            .await
            .map_err(answer)?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload),
            ..CreateMultipartUploadOutput::default()
        }))
    }

    pub(super) async fn part_put(
        &self,
        req: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let input = req.input;
        let number = part_number(input.part_number)?;
        let mut checking = checking!(input)?;
        let body = input.body.ok_or_else(|| s3_error!(IncompleteBody))?;
        // Refused before its bytes are taken in.
        self.store
            .parts(&input.bucket, &input.key, &input.upload_id)
            .await
            .map_err(answer)?;
        let incoming = self
            .store
            .receive_part(body, |bytes| checking.update(bytes))
            .await
            .map_err(answer)?;
        checking.verify(req.trailing_headers.as_ref())?;
        let written = self
            .store
            .part_put(
                &input.bucket,
                &input.key,
                &input.upload_id,
                number,
                incoming,
            )
            .await
            .map_err(answer)?;
        Ok(S3Response::new(UploadPartOutput {
            e_tag: Some(ETag::Strong(written.etag)),
            ..UploadPartOutput::default()
        }))
    }

    pub(super) async fn part_list(
        &self,
        req: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        let input = req.input;
        let mut parts = self
            .store
            .parts(&input.bucket, &input.key, &input.upload_id)
            .await
            .map_err(answer)?;
        let after = input
            .part_number_marker
            .and_then(|m| u32::try_from(m).ok())
            .unwrap_or(0);
        parts.retain(|part| part.number > after);
        let limit = input.max_parts.unwrap_or(MAX_KEYS).clamp(1, MAX_KEYS);
        let truncated = parts.len() > usize::try_from(limit).unwrap_or(0);
        parts.truncate(usize::try_from(limit).unwrap_or(0));
        let next = parts.last().and_then(|p| i32::try_from(p.number).ok());
        let part = |part: crate::objects::disk::Part| Part {
            part_number: i32::try_from(part.number).ok(),
            size: i64::try_from(part.bytes).ok(),
            e_tag: Some(ETag::Strong(part.etag)),
            ..Part::default()
        };
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            is_truncated: Some(truncated),
            max_parts: Some(limit),
            next_part_number_marker: next.filter(|_| truncated),
            parts: Some(parts.into_iter().map(part).collect()),
            ..ListPartsOutput::default()
        }))
    }

    pub(super) async fn upload_list(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = req.input;
        self.bucket_must_exist(&input.bucket).await?;
        let uploads = self.store.uploads(&input.bucket).await.map_err(answer)?;
        let after = (
            input.key_marker.clone().unwrap_or_default(),
            input.upload_id_marker.clone().unwrap_or_default(),
        );
        let prefix = input.prefix.clone().unwrap_or_default();
        let mut uploads: Vec<_> = uploads
            .into_iter()
            .filter(|u| u.key.starts_with(&prefix))
            .filter(|u| (u.key.as_str(), u.id.as_str()) > (after.0.as_str(), after.1.as_str()))
            .collect();
        let limit = input.max_uploads.unwrap_or(MAX_KEYS).clamp(1, MAX_KEYS);
        let truncated = uploads.len() > usize::try_from(limit).unwrap_or(0);
        uploads.truncate(usize::try_from(limit).unwrap_or(0));
        let last = uploads.last().filter(|_| truncated).cloned();
        let upload = |upload: crate::objects::disk::OpenUpload| MultipartUpload {
            key: Some(upload.key),
            upload_id: Some(upload.id),
            initiated: Some(timestamp(upload.begun)),
            ..MultipartUpload::default()
        };
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: input.prefix,
            key_marker: input.key_marker,
            upload_id_marker: input.upload_id_marker,
            max_uploads: Some(limit),
            is_truncated: Some(truncated),
            next_key_marker: last.as_ref().map(|u| u.key.clone()),
            next_upload_id_marker: last.map(|u| u.id),
            uploads: Some(uploads.into_iter().map(upload).collect()),
            ..ListMultipartUploadsOutput::default()
        }))
    }

    pub(super) async fn upload_complete(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = req.input;
        let parts = input
            .multipart_upload
            .and_then(|upload| upload.parts)
            .unwrap_or_default();
        if parts.is_empty() {
            return Err(s3_error!(MalformedXML, "an upload has at least one part"));
        }
        let mut listed: Vec<(u32, String)> = Vec::with_capacity(parts.len());
        for part in parts {
            let number = part_number(part.part_number.unwrap_or(0))?;
            let etag = part.e_tag.ok_or_else(|| s3_error!(InvalidPart))?;
            if listed.last().is_some_and(|(last, _)| *last >= number) {
                return Err(s3_error!(InvalidPartOrder));
            }
            listed.push((number, etag.into_value()));
        }
        let now = self.clock.now();
        let written = self
            .store
            .upload_complete(&input.bucket, &input.key, &input.upload_id, listed, now)
            .await
            .map_err(answer)?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(written.etag)),
            ..CompleteMultipartUploadOutput::default()
        }))
    }

    pub(super) async fn upload_abort(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.store
            .upload_abort(&req.input.bucket, &req.input.key, &req.input.upload_id)
            .await
            .map_err(answer)?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}

fn part_number(number: i32) -> S3Result<u32> {
    u32::try_from(number)
        .ok()
        .filter(|_| (1..=MAX_PART).contains(&number))
        .ok_or_else(|| s3_error!(InvalidArgument, "part numbers are 1 to 10,000"))
}
