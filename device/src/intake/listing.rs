//! `ListObjects`, version 1 and 2: one walk over the vault's sorted keys, rolled up at a delimiter.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use longhaul_vault::{Error as VaultError, JobId, ObjectInfo, Vault};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::{
    CommonPrefix, ETag, EncodingType, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input,
    ListObjectsV2Output, Object, ObjectStorageClass, Owner,
};
use s3s::{S3Response, S3Result, s3_error};

use super::error::from_vault;
use super::names;
use super::retrieval::{checksum_type, modified};
use super::service::Store;

/// Keys on one page at the most; S3's own limit.
const MAX_KEYS: i32 = 1000;

/// What S3 leaves as it is in names that it encodes.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// Who owns everything on a box, as far as S3 is concerned: its tickets have the same rights.
pub(super) const OWNER: &str = "longhaul";

/// The owner, for lists that show one.
pub(super) fn owner() -> Owner {
    Owner {
        id: Some(OWNER.to_owned()),
        display_name: Some(OWNER.to_owned()),
    }
}

/// What is asked for.
pub(super) struct Query<'a> {
    pub prefix: &'a str,
    pub delimiter: Option<&'a str>,
    /// Only what sorts behind this.
    pub after: Option<&'a str>,
    pub limit: usize,
}

/// One page.
#[derive(Default)]
pub(super) struct Listing {
    pub objects: Vec<ObjectInfo>,
    pub prefixes: Vec<String>,
    /// The last key or prefix on the page, if there is more behind it.
    pub next: Option<String>,
}

impl Store {
    pub(super) fn list_v1(
        &self,
        input: ListObjectsInput,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let encoding = Encoding::of(input.encoding_type.as_ref())?;
        let limit = limit(input.max_keys)?;
        let query = Query {
            prefix: input.prefix.as_deref().unwrap_or_default(),
            delimiter: input.delimiter.as_deref().filter(|d| !d.is_empty()),
            after: input.marker.as_deref().filter(|m| !m.is_empty()),
            limit,
        };
        let listing = list(&self.vault, &input.bucket, &query)?;
        let delimiter = query.delimiter.map(str::to_owned);
        let output = ListObjectsOutput {
            is_truncated: Some(listing.next.is_some()),
            // S3 names the next marker only where a delimiter makes it more than the last key.
            next_marker: listing
                .next
                .filter(|_| delimiter.is_some())
                .map(|n| encoding.text(&n)),
            contents: Some(encoding.objects(listing.objects, true)),
            common_prefixes: Some(encoding.prefixes(listing.prefixes)),
            name: Some(input.bucket),
            // As S3 does: version 1 leaves it as it came, and clients expect no other.
            prefix: Some(input.prefix.unwrap_or_default()),
            marker: Some(encoding.text(input.marker.as_deref().unwrap_or_default())),
            delimiter: delimiter.map(|d| encoding.text(&d)),
            max_keys: i32::try_from(limit).ok(),
            encoding_type: input.encoding_type,
            ..ListObjectsOutput::default()
        };
        Ok(S3Response::new(output))
    }

    pub(super) fn list_v2(
        &self,
        input: ListObjectsV2Input,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let encoding = Encoding::of(input.encoding_type.as_ref())?;
        let limit = limit(input.max_keys)?;
        let token = input
            .continuation_token
            .as_deref()
            .map(read_token)
            .transpose()?;
        let query = Query {
            prefix: input.prefix.as_deref().unwrap_or_default(),
            delimiter: input.delimiter.as_deref().filter(|d| !d.is_empty()),
            after: token
                .as_deref()
                .or(input.start_after.as_deref())
                .filter(|a| !a.is_empty()),
            limit,
        };
        let listing = list(&self.vault, &input.bucket, &query)?;
        let owned = input.fetch_owner.unwrap_or(false);
        let delimiter = query.delimiter.map(str::to_owned);
        let count = listing.objects.len() + listing.prefixes.len();
        let output = ListObjectsV2Output {
            is_truncated: Some(listing.next.is_some()),
            next_continuation_token: listing.next.map(|n| URL_SAFE_NO_PAD.encode(n)),
            key_count: i32::try_from(count).ok(),
            contents: Some(encoding.objects(listing.objects, owned)),
            common_prefixes: Some(encoding.prefixes(listing.prefixes)),
            name: Some(input.bucket),
            prefix: Some(encoding.text(input.prefix.as_deref().unwrap_or_default())),
            delimiter: delimiter.map(|d| encoding.text(&d)),
            start_after: input.start_after.map(|s| encoding.text(&s)),
            continuation_token: input.continuation_token,
            max_keys: i32::try_from(limit).ok(),
            encoding_type: input.encoding_type,
            ..ListObjectsV2Output::default()
        };
        Ok(S3Response::new(output))
    }
}

pub(super) fn limit(max_keys: Option<i32>) -> S3Result<usize> {
    let keys = max_keys.unwrap_or(MAX_KEYS).min(MAX_KEYS);
    usize::try_from(keys).map_err(|_| {
        s3_error!(
            InvalidArgument,
            "max-keys is {keys}; 0 to 1000 are possible"
        )
    })
}

fn read_token(token: &str) -> S3Result<String> {
    URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| {
            s3_error!(
                InvalidArgument,
                "the continuation token is not one that this box gave; list from the start"
            )
        })
}

/// How names are written into XML, which cannot hold every character.
#[derive(Clone, Copy)]
pub(super) enum Encoding {
    Plain,
    Url,
}

impl Encoding {
    pub fn of(kind: Option<&EncodingType>) -> S3Result<Self> {
        match kind.map(EncodingType::as_str) {
            None => Ok(Self::Plain),
            Some(EncodingType::URL) => Ok(Self::Url),
            Some(other) => Err(s3_error!(
                InvalidArgument,
                "encoding-type is {other:?}; only \"url\" exists"
            )),
        }
    }

    pub fn text(self, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Url => utf8_percent_encode(text, KEPT).to_string(),
        }
    }

    fn objects(self, objects: Vec<ObjectInfo>, owned: bool) -> Vec<Object> {
        let entry = |info: ObjectInfo| Object {
            key: Some(self.text(&info.key)),
            e_tag: Some(ETag::Strong(info.etag.clone())),
            last_modified: Some(modified(&info)),
            size: i64::try_from(info.size).ok(),
            storage_class: Some(ObjectStorageClass::from_static(
                ObjectStorageClass::STANDARD,
            )),
            checksum_type: Some(checksum_type(&info)),
            owner: owned.then(owner),
            ..Object::default()
        };
        objects.into_iter().map(entry).collect()
    }

    pub fn prefixes(self, prefixes: Vec<String>) -> Vec<CommonPrefix> {
        let entry = |prefix: String| CommonPrefix {
            prefix: Some(self.text(&prefix)),
        };
        prefixes.into_iter().map(entry).collect()
    }
}

/// The prefix that `key` is rolled up into, if a delimiter follows the asked-for prefix.
fn roll_up<'a>(key: &'a str, prefix: &str, delimiter: Option<&str>) -> Option<&'a str> {
    let delimiter = delimiter?;
    let rest = key.strip_prefix(prefix)?;
    let at = rest.find(delimiter)?;
    key.get(..prefix.len() + at + delimiter.len())
}

/// Sorts behind every key that begins with `prefix`: keys have at most 1,024 bytes, and no
/// character sorts behind the last one of Unicode.
fn behind(prefix: &str) -> String {
    let mut end = prefix.to_owned();
    while end.len() <= 1024 {
        end.push(char::MAX);
    }
    end
}

pub(super) fn list(vault: &Vault, bucket: &str, query: &Query<'_>) -> S3Result<Listing> {
    let job = names::job(bucket)?;
    walk(query, |after, limit| page(vault, &job, query, after, limit))
}

fn page(
    vault: &Vault,
    job: &JobId,
    query: &Query<'_>,
    after: Option<&str>,
    limit: usize,
) -> S3Result<(Vec<ObjectInfo>, bool)> {
    match vault.list(job, query.prefix, after, limit) {
        Ok(page) => Ok((page.items, page.more)),
        // The ticket's bucket exists before anything is in it.
        Err(VaultError::NoSuchJob(_)) => Ok((Vec::new(), false)),
        Err(error) => Err(from_vault(&error, "listing")),
    }
}

/// Walks sorted pages until one answer is full, jumping over what a prefix stands for.
fn walk(
    query: &Query<'_>,
    mut page: impl FnMut(Option<&str>, usize) -> S3Result<(Vec<ObjectInfo>, bool)>,
) -> S3Result<Listing> {
    let mut listing = Listing::default();
    if query.limit == 0 {
        return Ok(listing);
    }
    // A marker that is itself a rolled-up prefix stands for everything below it.
    let mut after = query.after.map(
        |after| match roll_up(after, query.prefix, query.delimiter) {
            Some(prefix) if prefix == after => behind(after),
            _ => after.to_owned(),
        },
    );
    let mut last = String::new();
    loop {
        let (items, more) = page(after.as_deref(), query.limit + 1)?;
        let mut jumped = false;
        for info in items {
            let full = listing.objects.len() + listing.prefixes.len() == query.limit;
            if full {
                listing.next = Some(last);
                return Ok(listing);
            }
            if let Some(prefix) = roll_up(&info.key, query.prefix, query.delimiter) {
                prefix.clone_into(&mut last);
                after = Some(behind(prefix));
                listing.prefixes.push(prefix.to_owned());
                jumped = true;
                break;
            }
            last.clone_from(&info.key);
            after = Some(info.key.clone());
            listing.objects.push(info);
        }
        if !jumped && !more {
            return Ok(listing);
        }
    }
}
