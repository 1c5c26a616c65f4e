//! What a bucket can hold: refused before a byte is sent, with the rule that it breaks.

use std::collections::BTreeMap;

use aws_sdk_s3::primitives::{DateTime, DateTimeFormat as Format};
use longhaul_protocol::upload::KEPT_HEADERS;

/// The largest object (Amazon S3 user guide, "multipart upload limits"): 5 TiB.
pub const MAX_OBJECT_BYTES: u64 = 5 << 40;

/// The longest header that travels with an object, in bytes.
const MAX_HEADER_BYTES: usize = 1024;

/// The bucket that packs are sent to; in no ticket, and shown to nobody.
pub const STAGING: &str = "longhaul-staging";

/// Checks a bucket's name (Amazon S3 user guide, "bucket naming rules").
pub fn check_bucket(name: &str) -> Result<(), String> {
    let refuse = |rule| Err(format!("{name:?} cannot be a bucket: {rule}"));
    if name == STAGING {
        return refuse("reserved");
    }
    if !(3..=63).contains(&name.len()) {
        return refuse("3 to 63 characters");
    }
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
    if !name.bytes().all(allowed) {
        return refuse("lower-case letters, digits, '.' and '-' only");
    }
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    if !edge(name.as_bytes().first()) || !edge(name.as_bytes().last()) {
        return refuse("it must begin and end with a letter or digit");
    }
    if name.contains("..") {
        return refuse("no two dots in a row");
    }
    if name.parse::<std::net::Ipv4Addr>().is_ok() {
        return refuse("it must not look like an address");
    }
    if name.starts_with("xn--") || name.ends_with("-s3alias") {
        return refuse("reserved");
    }
    Ok(())
}

/// Checks what a client wants to be kept beside the bytes.
pub fn check_headers(
    content_type: Option<&str>,
    metadata: &BTreeMap<String, String>,
) -> Result<(), String> {
    let plain = |text: &str| text.bytes().all(|b| (0x20..0x7f).contains(&b));
    if content_type.is_some_and(|text| text.len() > 256 || !plain(text)) {
        return Err("the content type must be at most 256 printable ASCII characters".to_owned());
    }
    longhaul_protocol::names::check_metadata(metadata).map_err(|error| error.to_string())
}

/// Checks the headers that travel with an object.
pub fn check_kept(headers: &BTreeMap<String, String>) -> Result<(), String> {
    for (name, value) in headers {
        if !KEPT_HEADERS.contains(&name.as_str()) {
            return Err(format!("the header {name:?} does not travel with objects"));
        }
        let plain = value.bytes().all(|b| (0x20..0x7f).contains(&b));
        if value.is_empty() || value.len() > MAX_HEADER_BYTES || !plain {
            return Err(format!(
                "{name} must be 1 to {MAX_HEADER_BYTES} printable ASCII characters"
            ));
        }
        if name == "expires" && http_date(value).is_none() {
            return Err("expires must be an HTTP date".to_owned());
        }
    }
    Ok(())
}

/// The moment that an HTTP date names.
pub fn http_date(text: &str) -> Option<DateTime> {
    DateTime::from_str(text, Format::HttpDate).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_names_follow_amazons_rules() {
        for good in ["abc", "my-bucket", "a.b.c", "0-0"] {
            assert_eq!(check_bucket(good), Ok(()), "{good}");
        }
        for bad in [
            "", "ab", "Upper", "-abc", "abc-", "a..b", "1.2.3.4", "a_b", "ä-b-c", "a/b",
        ] {
            assert!(check_bucket(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn metadata_that_cannot_travel_is_refused() {
        let pair = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);

        assert!(check_headers(Some("text/plain"), &pair("camera", "7")).is_ok());
        assert!(check_headers(Some("text/\nplain"), &BTreeMap::new()).is_err());
        assert!(check_headers(None, &pair("a b", "7")).is_err());
        assert!(check_headers(None, &pair("a", "\r\nx: y")).is_err());
        assert!(check_headers(None, &pair("a", &"x".repeat(3000))).is_err());
        let date = "Wed, 21 Oct 2026 07:28:00 GMT";
        assert_eq!(check_kept(&pair("expires", date)), Ok(()));
        assert_eq!(check_kept(&pair("cache-control", "no-store")), Ok(()));
        assert!(check_kept(&pair("expires", "tomorrow")).is_err());
        assert!(check_kept(&pair("x-amz-acl", "public-read")).is_err());
        assert!(check_kept(&pair("content-language", "a\r\nb")).is_err());
    }
}
