//! User metadata beyond ASCII, as S3 has it: encoded words (RFC 2047), which are ASCII and so travel to
//! every bucket and through every log.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Bytes of text in one encoded word; with `=?UTF-8?B?` and `?=` it stays below 75 characters (RFC
/// 2047 section 2).
const WORD_BYTES: usize = 45;

/// A value as headers carry it. s3s has decoded what a client had encoded; ASCII stays as it is.
pub(super) fn encoded(value: String) -> String {
    if value.is_ascii() {
        return value;
    }
    let mut words: Vec<String> = vec![String::new()];
    for c in value.chars() {
        match words.last_mut() {
            Some(word) if word.len() + c.len_utf8() <= WORD_BYTES => word.push(c),
            _ => words.push(c.to_string()),
        }
    }
    let words = words
        .iter()
        .map(|word| format!("=?UTF-8?B?{}?=", STANDARD.encode(word)));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_beyond_ascii_becomes_encoded_words_of_a_bounded_length() {
        assert_eq!(encoded("plain".to_owned()), "plain");
        assert_eq!(encoded("Gr\u{fc}n".to_owned()), "=?UTF-8?B?R3LDvG4=?=");
        let long = encoded("\u{65e5}".repeat(100));
        assert!(long.is_ascii());
        assert!(long.split(' ').all(|word| word.len() <= 75));
        assert_eq!(long.split(' ').count(), 100_usize.div_ceil(15));
    }
}
