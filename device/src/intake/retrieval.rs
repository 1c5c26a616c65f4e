//! `GetObject` and `HeadObject`: what the box still holds, with ranges and conditions.

use std::ops::Range;

use http::{HeaderMap, HeaderValue, StatusCode};
use longhaul_protocol::lan::BLAKE3_HEADER;
use longhaul_vault::{Error as VaultError, ObjectInfo, ObjectReader};
use s3s::dto::{
    ChecksumMode, ChecksumType, ETag, ETagCondition, GetObjectInput, GetObjectOutput,
    HeadObjectInput, HeadObjectOutput, StreamingBlob, Timestamp, TimestampFormat,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::error::from_vault;
use super::put::{TICKET_HEADER, give_checksums};
use super::read::VersionStream;
use super::service::Store;
use super::{DELIVERY_HEADER, layout, names};

/// An overwrite between looking and reading is met by looking again, this often.
const LOOKS: usize = 4;

/// Fills what `GetObjectOutput` and `HeadObjectOutput` have in common.
macro_rules! describe {
    ($output:expr, $info:expr, $with_checksums:expr) => {{
        let info: &ObjectInfo = $info;
        let header = |name: &str| info.metadata.headers.get(name).cloned();
        $output.accept_ranges = Some("bytes".to_owned());
        $output.e_tag = Some(ETag::Strong(info.etag.clone()));
        $output.last_modified = Some(modified(info));
        $output.content_type = info
            .metadata
            .content_type
            .clone()
            .or_else(|| Some("binary/octet-stream".to_owned()));
        $output.cache_control = header("cache-control");
        $output.content_disposition = header("content-disposition");
        $output.content_encoding = header("content-encoding");
        $output.content_language = header("content-language");
        $output.expires = header("expires")
            .and_then(|text| Timestamp::parse(TimestampFormat::HttpDate, &text).ok());
        $output.metadata = Some(info.metadata.user.clone().into_iter().collect())
            .filter(|user: &s3s::dto::Metadata| !user.is_empty());
        if $with_checksums {
            give_checksums!($output, &info.checksums);
            $output.checksum_type = Some(checksum_type(info));
        }
    }};
}

/// Fills what a client is told that asked for one part.
macro_rules! describe_part {
    ($output:expr, $info:expr, $number:expr) => {{
        let info: &ObjectInfo = $info;
        if let (Some(number), Some(layout)) = ($number, layout::of(info)) {
            let number = usize::try_from(number).unwrap_or(0);
            $output.parts_count = i32::try_from(layout.lengths.len()).ok();
            $output.checksum_type = Some(checksum_type(info));
            give_checksums!($output, &layout.checksums(number));
        }
    }};
}

impl Store {
    pub(super) fn retrieve(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        refuse_version(input.version_id.as_deref())?;
        let (info, reader, range) = self.open(&input)?;

        let partial = range.clone();
        let length = reader.remaining();
        let whole = range.is_none();
        let checksums = whole && wants_checksums(input.checksum_mode.as_ref());
        let mut output = GetObjectOutput {
            content_length: i64::try_from(length).ok(),
            content_range: partial.as_ref().map(|r| content_range(r, info.size)),
            body: Some(StreamingBlob::wrap(VersionStream::new(reader))),
            ..GetObjectOutput::default()
        };
        describe!(output, &info, checksums);
        describe_part!(output, &info, input.part_number);
        output.cache_control = input.response_cache_control.or(output.cache_control);
        output.content_disposition = input
            .response_content_disposition
            .or(output.content_disposition);
        output.content_encoding = input.response_content_encoding.or(output.content_encoding);
        output.content_language = input.response_content_language.or(output.content_language);
        output.content_type = input.response_content_type.or(output.content_type);
        let mut response = S3Response::with_headers(output, headers_beside_s3(&info));
        if !whole {
            response.status = Some(StatusCode::PARTIAL_CONTENT);
        }
        Ok(response)
    }

    fn open(
        &self,
        input: &GetObjectInput,
    ) -> S3Result<(ObjectInfo, ObjectReader, Option<Range<u64>>)> {
        let what = format!("object {:?}", input.key);
        for _ in 0..LOOKS {
            let info = self.look(&input.bucket, &input.key)?;
            check_conditions(
                &info,
                &Conditions {
                    matches: input.if_match.as_ref(),
                    none_match: input.if_none_match.as_ref(),
                    modified_since: input.if_modified_since.as_ref(),
                    unmodified_since: input.if_unmodified_since.as_ref(),
                },
            )?;
            let range = asked_range(input.range.as_ref(), input.part_number, &info)?;
            match self.vault.get_version(info.version, range.clone()) {
                Ok(reader) => return Ok((info, reader, range)),
                Err(VaultError::NoSuchVersion(_)) => {}
                Err(error) => return Err(from_vault(&error, &what)),
            }
        }
        Err(s3_error!(
            OperationAborted,
            "{what} is being overwritten all the time; try again"
        ))
    }

    pub(super) fn describe(
        &self,
        request: &S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = &request.input;
        refuse_version(input.version_id.as_deref())?;
        let info = self.look(&input.bucket, &input.key)?;
        check_conditions(
            &info,
            &Conditions {
                matches: input.if_match.as_ref(),
                none_match: input.if_none_match.as_ref(),
                modified_since: input.if_modified_since.as_ref(),
                unmodified_since: input.if_unmodified_since.as_ref(),
            },
        )?;
        let range = asked_range(input.range.as_ref(), input.part_number, &info)?;
        let length = range.as_ref().map_or(info.size, |r| r.end - r.start);
        let checksums = range.is_none() && wants_checksums(input.checksum_mode.as_ref());
        let mut output = HeadObjectOutput {
            content_length: i64::try_from(length).ok(),
            content_range: range.as_ref().map(|r| content_range(r, info.size)),
            ..HeadObjectOutput::default()
        };
        describe!(output, &info, checksums);
        describe_part!(output, &info, input.part_number);
        let mut response = S3Response::with_headers(output, headers_beside_s3(&info));
        if range.is_some() {
            response.status = Some(StatusCode::PARTIAL_CONTENT);
        }
        Ok(response)
    }

    /// The current version of an object.
    pub(super) fn look(&self, bucket: &str, key: &str) -> S3Result<ObjectInfo> {
        let job = names::job(bucket)?;
        // A name that cannot be stored is one that is not here.
        match self.vault.head(&job, key) {
            // The ticket's bucket exists before anything is in it.
            Err(VaultError::NoSuchJob(_)) => Err(VaultError::NoSuchObject(key.to_owned())),
            result => result,
        }
        .map_err(|error| from_vault(&error, &format!("object {key:?}")))
    }
}

fn wants_checksums(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED)
}

/// An object of parts has the checksum over its parts' checksums, or one over all of its bytes.
pub(super) fn checksum_type(info: &ObjectInfo) -> ChecksumType {
    let kind = if layout::is_composite(&info.checksums) {
        ChecksumType::COMPOSITE
    } else {
        ChecksumType::FULL_OBJECT
    };
    ChecksumType::from_static(kind)
}

/// When the object became durable, to the second, as HTTP dates are.
pub(super) fn modified(info: &ObjectInfo) -> Timestamp {
    timestamp(info.last_modified_ms)
}

/// Milliseconds since 1970 as S3 shows times.
pub(super) fn timestamp(millis: i64) -> Timestamp {
    let seconds = millis.div_euclid(1000);
    std::time::SystemTime::UNIX_EPOCH
        .checked_add(std::time::Duration::from_secs(
            u64::try_from(seconds).unwrap_or(0),
        ))
        .unwrap_or(std::time::SystemTime::UNIX_EPOCH)
        .into()
}

fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end - 1)
}

fn headers_beside_s3(info: &ObjectInfo) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let blake3 = info.blake3_hex().map(HeaderValue::try_from);
    if let Some(Ok(value)) = blake3 {
        headers.insert(BLAKE3_HEADER, value);
    }
    headers.insert(
        DELIVERY_HEADER,
        HeaderValue::from_static(info.delivery.name()),
    );
    debug_assert!(!headers.contains_key(TICKET_HEADER));
    headers
}

pub(super) fn refuse_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null") => Ok(()),
        Some(version) => Err(s3_error!(
            NoSuchVersion,
            "the box keeps the current version of an object only, not {version:?}"
        )),
    }
}

/// The bytes that are asked for, by range or by part; `None` is all of them.
fn asked_range(
    range: Option<&s3s::dto::Range>,
    part: Option<i32>,
    info: &ObjectInfo,
) -> S3Result<Option<Range<u64>>> {
    let Some(part) = part else {
        return Ok(range.map(|range| range.check(info.size)).transpose()?);
    };
    if range.is_some() {
        return Err(s3_error!(
            InvalidRequest,
            "a range and a part number cannot be asked for together"
        ));
    }
    let found = match layout::of(info) {
        Some(layout) => usize::try_from(part).ok().and_then(|n| layout.range(n)),
        None => (part == 1).then_some(0..info.size),
    };
    let found = found.ok_or_else(|| {
        s3_error!(
            InvalidPart,
            "object {:?} has no part {part}, or it is not known where it lies",
            info.key
        )
    })?;
    Ok(Some(found).filter(|range| !range.is_empty()))
}

#[derive(Default)]
pub(super) struct Conditions<'a> {
    pub matches: Option<&'a ETagCondition>,
    pub none_match: Option<&'a ETagCondition>,
    pub modified_since: Option<&'a Timestamp>,
    pub unmodified_since: Option<&'a Timestamp>,
}

/// RFC 9110 section 13.2.2: an ETag condition outweighs the date that goes with it.
pub(super) fn check_conditions(info: &ObjectInfo, conditions: &Conditions<'_>) -> S3Result<()> {
    let etag = ETag::Strong(info.etag.clone());
    let modified = modified(info);
    let fails = |which: &str| {
        Err(s3_error!(
            PreconditionFailed,
            "object {:?}: {which} does not hold; its ETag is {:?}",
            info.key,
            info.etag
        ))
    };
    match (conditions.matches, conditions.unmodified_since) {
        (Some(ETagCondition::ETag(wanted)), _) if !etag.strong_cmp(wanted) => {
            return fails("If-Match");
        }
        (None, Some(since)) if modified > *since => return fails("If-Unmodified-Since"),
        _ => {}
    }
    let unchanged = match (conditions.none_match, conditions.modified_since) {
        (Some(ETagCondition::Any), _) => true,
        (Some(ETagCondition::ETag(known)), _) => etag.weak_cmp(known),
        (None, Some(since)) => modified <= *since,
        (None, None) => false,
    };
    if unchanged {
        let mut error = S3Error::new(S3ErrorCode::NotModified);
        let mut headers = HeaderMap::new();
        if let Ok(value) = etag.to_http_header() {
            headers.insert(http::header::ETAG, value);
        }
        error.set_headers(headers);
        return Err(error);
    }
    Ok(())
}
