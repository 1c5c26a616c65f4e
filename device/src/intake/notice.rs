//! What is odd about a request that was carried out all the same, in [`NOTICE_HEADER`].

use std::fmt::Write as _;

use http::{HeaderMap, HeaderValue};

use super::NOTICE_HEADER;

/// Longest header, in bytes.
const LONGEST: usize = 1024;

/// Adds what is odd, if something is, to an answer's headers.
pub(super) fn add(headers: &mut HeaderMap, notices: impl IntoIterator<Item = String>) {
    let mut text = headers
        .get(NOTICE_HEADER)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    for notice in notices {
        if !text.is_empty() {
            text.push_str("; ");
        }
        for c in notice.chars() {
            if c.is_ascii_graphic() || c == ' ' {
                text.push(c);
            } else {
                // Headers are ASCII. Writing to a string does not fail.
                let _ = write!(text, "{}", c.escape_unicode());
            }
        }
    }
    text.truncate(LONGEST);
    if !text.is_empty()
        && let Ok(value) = HeaderValue::from_str(&text)
    {
        headers.insert(NOTICE_HEADER, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_add_up_to_one_header_of_ascii() {
        let mut headers = HeaderMap::new();
        add(&mut headers, None);
        assert!(headers.is_empty());

        add(&mut headers, ["caf\u{e9}\n".to_owned()]);
        add(&mut headers, ["second".to_owned()]);

        assert_eq!(headers[NOTICE_HEADER], "caf\\u{e9}\\u{a}; second");
        add(&mut headers, ["x".repeat(5000)]);
        assert_eq!(headers[NOTICE_HEADER].len(), LONGEST);
    }
}
