//! `PutObject`: one object, one request.

use std::collections::BTreeMap;

use longhaul_protocol::ticket::Credential;
use longhaul_vault::{Checksums, Condition, JobId, Metadata, Vault};
use s3s::dto::{ETag, ETagCondition, PutObjectInput, PutObjectOutput, Timestamp, TimestampFormat};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::body::{self, Lane};
use super::checksum::Promise;
use super::error::from_vault;
use super::names::Fresh;
use super::refuse::refuse_unsupported;
use super::service::Store;
use super::{names, notice, refuse, room, snowball, words};

/// Under which header the vault keeps the ticket that an object was put with; never sent to a client.
pub(crate) const TICKET_HEADER: &str = "longhaul-ticket";

impl Store {
    pub(super) async fn put(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let credential = Self::admitted(&request)?;
        let promise = Promise::read(&request)?;
        let trailers = request.trailing_headers;
        let input = request.input;
        let job = names::job(&input.bucket)?;
        if snowball::wanted(input.metadata.as_ref()) {
            return self
                .put_snowball(input, promise, trailers, &credential)
                .await;
        }
        let Fresh { key, notice, claim } =
            names::fresh(&self.vault, &self.spellings, &job, &input.key)?;
        let what = format!("object {:?}", key.as_str());
        refuse_unsupported!(input);
        let length = input.content_length.and_then(|n| u64::try_from(n).ok());
        room::check(&self.vault, length, &what)?;
        let class = refuse::storage_class(input.storage_class.as_ref())?;
        let condition = self.condition(&job, key.as_str(), input.if_match, input.if_none_match)?;
        let described = Described {
            content_type: input.content_type,
            cache_control: input.cache_control,
            content_disposition: input.content_disposition,
            content_encoding: input.content_encoding,
            content_language: input.content_language,
            expires: input.expires,
            user: input.metadata,
        };
        let metadata = described.metadata(&credential);
        refuse::metadata(&metadata)?;

        let _permit = self.body_permit().await?;
        let sink = begin(&self.vault, &job, key.as_str(), metadata)
            .map_err(|error| from_vault(&error, &what))?;
        let lane = Lane {
            sink,
            hasher: promise.hasher(),
        };
        let mut lane = body::receive(input.body, lane, input.content_length, &what).await?;

        let trailers = trailers.and_then(|t| t.take());
        let crc64nvme = lane.sink.digests().crc64nvme;
        let checksums = promise.verify(lane.hasher, crc64nvme, trailers.as_ref())?;
        let info = lane
            .sink
            .finish(checksums, condition)
            .await
            .map_err(|error| from_vault(&error, &what))?;
        drop(claim);
        self.arrivals.ring();
        tracing::debug!(key = %key, version = info.version.0, bytes = info.size, "stored");

        let mut output = PutObjectOutput {
            e_tag: Some(ETag::Strong(info.etag)),
            size: None,
            ..PutObjectOutput::default()
        };
        give_checksums!(output, &info.checksums);
        let mut response = S3Response::new(output);
        notice::add(&mut response.headers, notice.into_iter().chain(class));
        Ok(response)
    }
}

/// Begins an object in a job that may not exist yet: a bucket exists as soon as a ticket names it.
pub(super) fn begin(
    vault: &Vault,
    job: &JobId,
    key: &str,
    metadata: Metadata,
) -> Result<longhaul_vault::ObjectWriter, longhaul_vault::Error> {
    match vault.begin(job, key, metadata.clone()) {
        Err(longhaul_vault::Error::NoSuchJob(_)) => {
            vault.create_job(job)?;
            vault.begin(job, key, metadata)
        }
        result => result,
    }
}

impl Store {
    /// The vault's condition for a write with these headers. What fails already now is told before
    /// the bytes are read; the vault checks again when it writes.
    pub(super) fn condition(
        &self,
        job: &JobId,
        key: &str,
        if_match: Option<ETagCondition>,
        if_none_match: Option<ETagCondition>,
    ) -> S3Result<Condition> {
        if if_match.is_none() && if_none_match.is_none() {
            return Ok(Condition::Any);
        }
        let current = self.vault.head(job, key).ok();
        let fails = || {
            Err(s3_error!(
                PreconditionFailed,
                "precondition failed on {key:?}"
            ))
        };
        match (if_match, if_none_match, current) {
            (None, Some(_), None) => Ok(Condition::Absent),
            (None, Some(ETagCondition::Any), Some(_)) => fails(),
            (None, Some(ETagCondition::ETag(etag)), Some(info)) => {
                if etag.value() == info.etag {
                    return fails();
                }
                Ok(Condition::Version(info.version))
            }
            (Some(_), None, None) => Err(s3_error!(
                NoSuchKey,
                "there is no object {key:?} that could match the condition"
            )),
            (Some(ETagCondition::Any), None, Some(_)) => Ok(Condition::Present),
            (Some(ETagCondition::ETag(etag)), None, Some(info)) => {
                if etag.value() != info.etag {
                    return fails();
                }
                Ok(Condition::Etag(info.etag))
            }
            _ => Err(s3_error!(
                NotImplemented,
                "writes take If-None-Match or If-Match, not both"
            )),
        }
    }
}

/// What a client says about an object.
pub(super) struct Described {
    pub content_type: Option<String>,
    pub cache_control: Option<String>,
    pub content_disposition: Option<String>,
    pub content_encoding: Option<String>,
    pub content_language: Option<String>,
    pub expires: Option<Timestamp>,
    pub user: Option<s3s::dto::Metadata>,
}

impl Described {
    /// The same as the vault keeps it.
    pub fn metadata(self, credential: &Credential) -> Metadata {
        let mut headers = BTreeMap::new();
        let mut keep = |name: &str, value: Option<String>| {
            if let Some(value) = value.filter(|v| !v.is_empty()) {
                headers.insert(name.to_owned(), value);
            }
        };
        keep("cache-control", self.cache_control);
        keep("content-disposition", self.content_disposition);
        keep(
            "content-encoding",
            self.content_encoding.as_deref().map(decoded),
        );
        keep("content-language", self.content_language);
        keep("expires", self.expires.and_then(|t| http_date(&t)));
        keep(TICKET_HEADER, Some(credential.ticket.to_string()));
        Metadata {
            content_type: self.content_type,
            user: self
                .user
                .unwrap_or_default()
                .into_iter()
                .map(|(name, value)| (name, words::encoded(value)))
                .collect(),
            headers,
        }
    }
}

/// A content encoding without `aws-chunked`, which belongs to the transfer and not to the object.
fn decoded(encoding: &str) -> String {
    encoding
        .split(',')
        .map(str::trim)
        .filter(|e| !e.eq_ignore_ascii_case("aws-chunked"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn http_date(time: &Timestamp) -> Option<String> {
    let mut text = Vec::new();
    time.format(TimestampFormat::HttpDate, &mut text).ok()?;
    String::from_utf8(text).ok()
}

/// The value that the client may be shown of one algorithm.
pub(super) fn shown(checksums: &Checksums, name: &str) -> Option<String> {
    checksums.get(name).cloned()
}

/// Copies the kept checksums into an output of s3s: its outputs share field names but no type.
macro_rules! give_checksums {
    ($output:expr, $checksums:expr) => {{
        let checksums: &longhaul_vault::Checksums = $checksums;
        $output.checksum_crc32 = $crate::intake::put::shown(checksums, "crc32");
        $output.checksum_crc32c = $crate::intake::put::shown(checksums, "crc32c");
        $output.checksum_crc64nvme = $crate::intake::put::shown(checksums, "crc64nvme");
        $output.checksum_sha1 = $crate::intake::put::shown(checksums, "sha1");
        $output.checksum_sha256 = $crate::intake::put::shown(checksums, "sha256");
    }};
}
pub(super) use give_checksums;
