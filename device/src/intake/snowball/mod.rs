//! `snowball-auto-extract`: a tar that becomes one object for each of its entries.
//!
//! A client asks for it with user metadata (`x-amz-meta-snowball-auto-extract: true`; AWS Snowball
//! Edge developer guide, "Batching small files"), on `PUT` or on a multipart upload. Entries are
//! stored while the tar arrives, and all are durable before the answer; the tar itself is not kept.
//! A tar that ends in an error leaves the entries before it: sending it again stores them again.

mod extract;
mod tar;

#[cfg(feature = "fuzzing")]
pub(crate) use tar::fuzzed as fuzz_tar;

use longhaul_protocol::ticket::Credential;
use longhaul_vault::{Metadata, PartInfo, UploadInfo};
use s3s::dto::{
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, ETag, PutObjectInput,
    PutObjectOutput,
};
use s3s::{S3Response, S3Result, TrailingHeaders, s3_error};
use tokio::task::spawn_blocking;

use super::body::{self, Lane};
use super::checksum::Promise;
use super::error::{from_vault, interrupted};
use super::put::{TICKET_HEADER, give_checksums};
use super::service::Store;
use super::{names, notice, refuse, words};
use extract::{Extract, Extracted, Wish};

/// The user metadata that asks for it.
const WANTED: &str = "snowball-auto-extract";

/// Whether a tar is to be taken apart.
pub(super) fn wanted<'a, M>(metadata: Option<&'a M>) -> bool
where
    &'a M: IntoIterator<Item = (&'a String, &'a String)>,
{
    metadata
        .into_iter()
        .flatten()
        .any(|(name, value)| name == WANTED && value.eq_ignore_ascii_case("true"))
}

impl Store {
    /// Takes the tar apart while it arrives.
    pub(super) async fn put_snowball(
        &self,
        input: PutObjectInput,
        promise: Promise,
        trailers: Option<TrailingHeaders>,
        credential: &Credential,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let metadata = input.metadata.unwrap_or_default().into_iter().collect();
        let what = format!("archive {:?}", input.key);
        let sink = self.extract(&input.bucket, &input.key, &metadata, credential)?;

        let _permit = self.body_permit().await?;
        let lane = Lane {
            sink,
            hasher: promise.hasher(),
        };
        let lane = body::receive(input.body, lane, input.content_length, &what).await?;
        let trailers = trailers.and_then(|t| t.take());
        let crc64nvme = lane.sink.crc64nvme();
        let extracted = lane.sink.finish().await?;
        self.arrivals.ring();
        let checksums = promise.verify(lane.hasher, crc64nvme, trailers.as_ref())?;

        let mut output = PutObjectOutput {
            e_tag: Some(ETag::Strong(extracted.etag(crc64nvme))),
            ..PutObjectOutput::default()
        };
        give_checksums!(output, &checksums);
        Ok(answer(output, &extracted, &what))
    }

    /// Takes the tar apart that the parts of an upload add up to, and forgets the upload. When the
    /// power is cut in between, the upload is still there, and the client completes it again.
    pub(super) async fn complete_snowball(
        &self,
        input: &CompleteMultipartUploadInput,
        info: &UploadInfo,
        parts: &[PartInfo],
        credential: &Credential,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let what = format!("archive {:?}", input.key);
        let user = &info.metadata.user;
        let mut sink = self.extract(&input.bucket, &input.key, user, credential)?;

        let _permit = self.body_permit().await?;
        let (vault, upload, name) = (self.vault.clone(), info.id, what.clone());
        let numbers: Vec<_> = parts.iter().map(|part| part.number).collect();
        let sink = spawn_blocking(move || {
            for number in numbers {
                let mut part = vault
                    .read_part(&upload, number)
                    .map_err(|error| from_vault(&error, &name))?;
                while let Some(chunk) = part
                    .next_chunk()
                    .map_err(|error| from_vault(&error, &name))?
                {
                    sink.take(&chunk)?;
                }
            }
            Ok::<Extract, s3s::S3Error>(sink)
        })
        .await
        .map_err(|error| interrupted(&error))??;
        let crc64nvme = sink.crc64nvme();
        let extracted = sink.finish().await?;
        self.arrivals.ring();
        self.vault
            .abort_upload(&info.id)
            .await
            .map_err(|error| from_vault(&error, &what))?;

        let output = CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket.clone()),
            key: Some(input.key.clone()),
            e_tag: Some(ETag::Strong(extracted.etag(crc64nvme))),
            ..CompleteMultipartUploadOutput::default()
        };
        Ok(answer(output, &extracted, &what))
    }

    fn extract(
        &self,
        bucket: &str,
        key: &str,
        user: &std::collections::BTreeMap<String, String>,
        credential: &Credential,
    ) -> S3Result<Extract> {
        let wish = Wish::read(key, user)?;
        let user = wish.metadata.iter();
        let user = user.map(|(name, value)| (name.clone(), words::encoded(value.clone())));
        let metadata = Metadata {
            content_type: None,
            user: user.collect(),
            headers: [(TICKET_HEADER.to_owned(), credential.ticket.to_string())].into(),
        };
        refuse::metadata(&metadata)?;
        let job = names::job(bucket)?;
        let (vault, spellings) = (self.vault.clone(), self.spellings.clone());
        Ok(Extract::new(vault, spellings, job, wish, metadata))
    }
}

fn answer<T>(output: T, extracted: &Extracted, what: &str) -> S3Response<T> {
    tracing::info!(
        what,
        stored = extracted.stored,
        skipped = extracted.skipped,
        "an archive was taken apart"
    );
    let mut response = S3Response::new(output);
    let skipped = extracted.first_skipped.as_ref();
    let skipped =
        skipped.map(|first| format!("{} entries skipped, the first: {first}", extracted.skipped));
    let odd = extracted.first_odd.as_ref();
    let odd = odd.map(|first| format!("{} odd names, the first: {first}", extracted.odd));
    notice::add(&mut response.headers, skipped.into_iter().chain(odd));
    response
}

/// A flag in metadata: `true` or `false`.
fn flag(value: &str) -> S3Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" | "" => Ok(false),
        other => Err(s3_error!(
            InvalidArgument,
            "a snowball option is {other:?}; true and false are possible"
        )),
    }
}
