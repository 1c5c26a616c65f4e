//! Listings, in both versions of S3's.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::{
    CommonPrefix, ETag, EncodingType, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input,
    ListObjectsV2Output, Object,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::{DiskS3, MAX_KEYS, answer, timestamp};
use crate::objects::disk::Listing;

impl DiskS3 {
    pub(super) async fn list_v1(
        &self,
        req: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = req.input;
        let text = Encoding::asked(input.encoding_type.as_ref())?;
        let after = input.marker.clone().map(String::into_bytes);
        let (listing, limit) = self
            .list(
                &input.bucket,
                input.prefix.as_deref(),
                input.delimiter.as_deref(),
                after,
                input.max_keys,
            )
            .await?;
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: input.prefix.map(|p| text.of(p)),
            delimiter: input.delimiter.map(|d| text.of(d)),
            marker: input.marker.map(|m| text.of(m)),
            max_keys: Some(limit),
            is_truncated: Some(listing.next.is_some()),
            next_marker: listing
                .next
                .as_ref()
                .map(|next| text.of(String::from_utf8_lossy(next).into_owned())),
            common_prefixes: Some(prefixes(text, listing.prefixes)),
            contents: Some(
                listing
                    .objects
                    .into_iter()
                    .map(|o| object(text, o))
                    .collect(),
            ),
            encoding_type: input.encoding_type,
            ..ListObjectsOutput::default()
        }))
    }

    pub(super) async fn list_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let text = Encoding::asked(input.encoding_type.as_ref())?;
        let after = match (&input.continuation_token, &input.start_after) {
            (Some(token), _) => Some(
                URL_SAFE_NO_PAD
                    .decode(token)
                    .map_err(|_| s3_error!(InvalidArgument, "continuation-token is not ours"))?,
            ),
            (None, start) => start.clone().map(String::into_bytes),
        };
        let (listing, limit) = self
            .list(
                &input.bucket,
                input.prefix.as_deref(),
                input.delimiter.as_deref(),
                after,
                input.max_keys,
            )
            .await?;
        let count = listing.objects.len() + listing.prefixes.len();
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix.map(|p| text.of(p)),
            delimiter: input.delimiter.map(|d| text.of(d)),
            start_after: input.start_after.map(|s| text.of(s)),
            continuation_token: input.continuation_token,
            max_keys: Some(limit),
            key_count: i32::try_from(count).ok(),
            is_truncated: Some(listing.next.is_some()),
            next_continuation_token: listing.next.map(|next| URL_SAFE_NO_PAD.encode(next)),
            common_prefixes: Some(prefixes(text, listing.prefixes)),
            contents: Some(
                listing
                    .objects
                    .into_iter()
                    .map(|o| object(text, o))
                    .collect(),
            ),
            encoding_type: input.encoding_type,
            ..ListObjectsV2Output::default()
        }))
    }

    async fn list(
        &self,
        bucket: &str,
        prefix: Option<&str>,
        delimiter: Option<&str>,
        after: Option<Vec<u8>>,
        max_keys: Option<i32>,
    ) -> S3Result<(Listing, i32)> {
        let limit = max_keys.unwrap_or(MAX_KEYS);
        if limit < 0 {
            return Err(s3_error!(InvalidArgument, "max-keys is negative"));
        }
        let limit = limit.min(MAX_KEYS);
        if limit == 0 {
            return Ok((Listing::default(), 0));
        }
        let listing = self
            .store
            .list(
                bucket,
                prefix.unwrap_or_default(),
                delimiter.filter(|d| !d.is_empty()),
                after,
                usize::try_from(limit).unwrap_or(1),
            )
            .await
            .map_err(answer)?;
        Ok((listing, limit))
    }
}

/// How keys stand in the answer: a client that asks for it gets them as in a URL, and decodes them.
#[derive(Clone, Copy)]
enum Encoding {
    Plain,
    Url,
}

/// Everything but the unreserved characters of RFC 3986 and the slash.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/');

impl Encoding {
    fn asked(encoding: Option<&EncodingType>) -> S3Result<Self> {
        match encoding.map(EncodingType::as_str) {
            None => Ok(Self::Plain),
            Some("url") => Ok(Self::Url),
            Some(_) => Err(s3_error!(InvalidArgument, "encoding-type takes only url")),
        }
    }

    fn of(self, text: String) -> String {
        match self {
            Self::Plain => text,
            Self::Url => utf8_percent_encode(&text, ESCAPED).to_string(),
        }
    }
}

fn prefixes(text: Encoding, prefixes: Vec<String>) -> Vec<CommonPrefix> {
    let prefix = |p| CommonPrefix {
        prefix: Some(text.of(p)),
    };
    prefixes.into_iter().map(prefix).collect()
}

fn object(text: Encoding, listed: crate::objects::disk::Listed) -> Object {
    Object {
        key: Some(text.of(listed.key)),
        size: i64::try_from(listed.bytes).ok(),
        e_tag: Some(ETag::Strong(listed.etag)),
        last_modified: Some(timestamp(listed.modified)),
        ..Object::default()
    }
}
