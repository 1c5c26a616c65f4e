//! Names: the one rule for what can be an object's name, and for which names are mistaken for each
//! other.
//!
//! [`ObjectKey`] is built only by this rule. Intake asks it at `PUT`, `longhaul lint` asks it
//! before anything is sent, so both give the same answer in the same words.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfc_quick, is_nfd_quick};

use crate::ids::ObjectKey;

/// Longest key, in bytes of UTF-8 (Amazon S3 user guide, "Naming Amazon S3 objects").
pub const MAX_KEY_BYTES: usize = 1024;
/// User metadata in all, in bytes (Amazon S3 user guide, "Working with object metadata").
pub const MAX_METADATA_BYTES: usize = 2048;

/// A rule that a name breaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Rule {
    /// A key has 1 to [`MAX_KEY_BYTES`] bytes.
    Length,
    /// Control characters cannot stand in the XML that lists a bucket.
    Control,
    /// A backslash is a separator on some systems and a letter on others.
    Backslash,
    /// `.` and `..` are resolved by clients and proxies before the bucket sees them.
    DotSegment,
    /// Two slashes in a row, or one in front, have no place in a folder.
    EmptySegment,
}

impl Rule {
    /// The rule in a few words, for errors.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Length => "1 to 1,024 bytes",
            Self::Control => "no control characters",
            Self::Backslash => "no backslash",
            Self::DotSegment => "no '.' or '..' segment",
            Self::EmptySegment => "no empty segment",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Checks a key's text.
///
/// # Errors
///
/// The first [`Rule`] that it breaks.
pub fn check(text: &str) -> Result<(), Rule> {
    if text.is_empty() || text.len() > MAX_KEY_BYTES {
        return Err(Rule::Length);
    }
    if text.chars().any(|c| c.is_control() || unlisted(c)) {
        return Err(Rule::Control);
    }
    if text.contains('\\') {
        return Err(Rule::Backslash);
    }
    if text.split('/').any(|s| s == "." || s == "..") {
        return Err(Rule::DotSegment);
    }
    // A trailing slash is S3's folder marker and is allowed; an empty segment elsewhere is not.
    let body = text.strip_suffix('/').unwrap_or(text);
    if body.split('/').any(str::is_empty) {
        return Err(Rule::EmptySegment);
    }
    Ok(())
}

/// What XML 1.0 cannot hold beside control characters (W3C, "Extensible Markup Language", 2.2).
fn unlisted(c: char) -> bool {
    matches!(c, '\u{fffe}' | '\u{ffff}')
}

/// Checks user metadata as a bucket does: sendable as headers, [`MAX_METADATA_BYTES`] at the most.
///
/// # Errors
///
/// What is wrong, for people.
pub fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), MetadataError> {
    let mut bytes = 0;
    for (name, value) in metadata {
        bytes += name.len() + value.len();
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(token) {
            return Err(MetadataError::Name(name.clone()));
        }
        if !value.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            return Err(MetadataError::Value(name.clone()));
        }
    }
    if bytes > MAX_METADATA_BYTES {
        return Err(MetadataError::TooLarge(bytes));
    }
    Ok(())
}

/// Why a bucket would refuse user metadata.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// The name is not a header's.
    #[error("metadata name {0:?} cannot stand in a header")]
    Name(String),
    /// The value is not a header's.
    #[error("metadata {0:?} has characters that are not printable ASCII")]
    Value(String),
    /// Too much in all.
    #[error("{0} bytes of metadata; a bucket holds {MAX_METADATA_BYTES}")]
    TooLarge(usize),
}

/// How two different keys are mistaken for each other.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Clash {
    /// The same characters, composed (NFC) in one and decomposed (NFD) in the other, or by a sign that
    /// stands for a letter: people see no difference, and some file systems hold only one of them.
    Normalization,
    /// They differ in upper and lower case alone: Windows and macOS hold only one of them.
    Case,
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normalization => "the same characters, encoded differently (NFC and NFD)",
            Self::Case => "the same but for upper and lower case",
        })
    }
}

/// Says whether two keys are mistaken for each other; equal keys are not.
#[must_use]
pub fn clash(a: &ObjectKey, b: &ObjectKey) -> Option<Clash> {
    if a == b {
        return None;
    }
    if a.as_str().nfc().eq(b.as_str().nfc()) {
        return Some(Clash::Normalization);
    }
    (Folded::of(a) == Folded::of(b)).then_some(Clash::Case)
}

/// A key without what people and file systems overlook: lower case, composed.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Folded(String);

impl Folded {
    /// Folds `key`.
    #[must_use]
    pub fn of(key: &ObjectKey) -> Self {
        let text = key.as_str();
        if text.is_ascii() {
            return Self(text.to_ascii_lowercase());
        }
        // Lower case may decompose, so composition comes last.
        let lower: String = text.nfc().flat_map(char::to_lowercase).collect();
        Self(lower.nfc().collect())
    }

    /// The folded text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The characters of `key`, composed (NFC).
pub fn composed(key: &ObjectKey) -> impl Iterator<Item = char> {
    key.as_str().nfc()
}

/// The other spellings of `key` that look the same: composed and decomposed, without `key` itself.
/// A key of plain ASCII has none, and is not copied to find out.
#[must_use]
pub fn lookalikes(key: &ObjectKey) -> Vec<ObjectKey> {
    let text = key.as_str();
    if text.is_ascii() {
        return Vec::new();
    }
    let mut found: Vec<ObjectKey> = Vec::new();
    let mut keep = |other: String| {
        // A decomposed key may be too long to be one; then nothing can be called that.
        if other != text
            && let Ok(other) = other.parse()
            && !found.contains(&other)
        {
            found.push(other);
        }
    };
    if is_nfc_quick(text.chars()) != IsNormalized::Yes {
        keep(text.nfc().collect());
    }
    if is_nfd_quick(text.chars()) != IsNormalized::Yes {
        keep(text.nfd().collect());
    }
    found
}

/// Where Unicode keeps characters that stand for exactly one other (Unicode 17, `UnicodeData.txt`):
/// marks and Greek, punctuation and letter-like signs, CJK compatibility ideographs and their
/// supplement.
const SINGLETONS: [std::ops::RangeInclusive<char>; 4] = [
    '\u{340}'..='\u{387}',
    '\u{1f71}'..='\u{232a}',
    '\u{f900}'..='\u{fad9}',
    '\u{2f800}'..='\u{2fa1d}',
];

/// Every way to write `c`, a character of a composed (NFC) text, that people see no difference in:
/// itself, decomposed, and other characters that stand for it, as the sign of the ohm does for omega.
#[must_use]
pub fn writings(c: char) -> Vec<String> {
    static OTHERS: LazyLock<BTreeMap<char, Vec<char>>> = LazyLock::new(|| {
        let mut others: BTreeMap<char, Vec<char>> = BTreeMap::new();
        for other in SINGLETONS.into_iter().flatten() {
            if let Some(c) = stands_for(other) {
                others.entry(c).or_default().push(other);
            }
        }
        others
    });
    let mut found = vec![c.to_string()];
    let decomposed: String = std::iter::once(c).nfd().collect();
    if decomposed != found[0] {
        found.push(decomposed);
    }
    let others = OTHERS.get(&c).into_iter().flatten();
    found.extend(others.map(char::to_string));
    found
}

/// The one character that `other` is replaced with wherever a text is composed.
fn stands_for(other: char) -> Option<char> {
    let mut composed = std::iter::once(other).nfc();
    let c = composed.next()?;
    (c != other && composed.next().is_none()).then_some(c)
}

/// Keys seen so far, to find the ones that are mistaken for each other.
#[derive(Clone, Debug, Default)]
pub struct Seen(BTreeMap<Folded, Vec<ObjectKey>>);

impl Seen {
    /// Adds `key`; answers an earlier one that it clashes with, the worse clash first.
    pub fn add(&mut self, key: &ObjectKey) -> Option<(Clash, ObjectKey)> {
        let alike = self.0.entry(Folded::of(key)).or_default();
        let found = alike
            .iter()
            .filter_map(|other| Some((clash(key, other)?, other.clone())))
            .min_by_key(|(clash, _)| *clash);
        if !alike.contains(key) {
            alike.push(key.clone());
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(text: &str) -> ObjectKey {
        text.parse().expect("a key")
    }

    #[test]
    fn each_rule_refuses_its_names() {
        for (text, rule) in [
            ("", Rule::Length),
            ("a\nb", Rule::Control),
            ("a\u{ffff}b", Rule::Control),
            ("a\\b", Rule::Backslash),
            ("a/../b", Rule::DotSegment),
            ("./a", Rule::DotSegment),
            ("a//b", Rule::EmptySegment),
            ("/a", Rule::EmptySegment),
        ] {
            assert_eq!(check(text), Err(rule), "{text:?}");
        }
        assert_eq!(check(&"ä".repeat(513)), Err(Rule::Length));
        for good in ["a", "a/b/", "…", " ", "%2e", "a.b/..c", "\u{65e5}/x"] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn composed_and_decomposed_names_look_alike() {
        let (nfc, nfd) = (key("caf\u{e9}/x"), key("cafe\u{301}/x"));

        assert_eq!(clash(&nfc, &nfd), Some(Clash::Normalization));
        assert_eq!(lookalikes(&nfc), std::slice::from_ref(&nfd));
        assert_eq!(lookalikes(&nfd), [nfc]);
        assert!(lookalikes(&key("cafe/x")).is_empty());
    }

    #[test]
    fn a_sign_that_stands_for_a_letter_looks_like_it() {
        for (sign, letter) in [
            ("\u{212b}ngstrom", "\u{c5}ngstrom"),
            ("100 \u{2126}", "100 \u{3a9}"),
            ("300 \u{212a}", "300 K"),
            ("\u{f900}", "\u{8c48}"),
        ] {
            let (sign, letter) = (key(sign), key(letter));
            assert_eq!(clash(&sign, &letter), Some(Clash::Normalization));
            assert_eq!(lookalikes(&sign)[0], letter);
            let mut seen = Seen::default();
            seen.add(&letter);
            assert_eq!(
                seen.add(&sign),
                Some((Clash::Normalization, letter)),
                "also to lint"
            );
        }
        assert_eq!(writings('\u{c5}'), ["\u{c5}", "A\u{30a}", "\u{212b}"]);
        assert_eq!(writings('K'), ["K", "\u{212a}"]);
        assert_eq!(writings('a'), ["a"]);
    }

    #[test]
    fn every_sign_that_stands_for_one_other_is_known() {
        for other in '\0'..=char::MAX {
            if let Some(c) = stands_for(other) {
                assert!(writings(c).contains(&other.to_string()), "{other:?}");
            }
        }
    }

    #[test]
    fn case_alone_is_a_clash_and_nothing_else_is() {
        assert_eq!(clash(&key("Bild.JPG"), &key("bild.jpg")), Some(Clash::Case));
        assert_eq!(clash(&key("ÄB"), &key("a\u{308}b")), Some(Clash::Case));
        assert_eq!(clash(&key("a"), &key("a")), None);
        assert_eq!(clash(&key("a"), &key("b")), None);
    }

    #[test]
    fn the_worse_clash_is_named_first() {
        let mut seen = Seen::default();
        assert_eq!(seen.add(&key("CAF\u{c9}")), None);
        assert_eq!(
            seen.add(&key("caf\u{e9}")),
            Some((Clash::Case, key("CAF\u{c9}")))
        );

        let found = seen.add(&key("cafe\u{301}"));

        assert_eq!(found, Some((Clash::Normalization, key("caf\u{e9}"))));
        assert_eq!(
            seen.add(&key("cafe\u{301}")).map(|(c, _)| c),
            Some(Clash::Normalization)
        );
    }

    #[test]
    fn metadata_that_cannot_travel_is_refused() {
        let pair = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);

        assert_eq!(check_metadata(&pair("camera", "7")), Ok(()));
        assert!(check_metadata(&pair("a b", "7")).is_err());
        assert!(check_metadata(&pair("a", "\r\nx: y")).is_err());
        assert_eq!(
            check_metadata(&pair("a", &"x".repeat(3000))),
            Err(MetadataError::TooLarge(3001))
        );
    }

    proptest! {
        #[test]
        fn lookalikes_clash_and_clashes_are_mutual(a in "\\PC{1,12}", b in "\\PC{1,12}") {
            let (Ok(a), Ok(b)) = (a.parse::<ObjectKey>(), b.parse::<ObjectKey>()) else {
                return Ok(());
            };
            prop_assert_eq!(clash(&a, &b), clash(&b, &a));
            for other in lookalikes(&a) {
                prop_assert_eq!(clash(&a, &other), Some(Clash::Normalization));
            }
        }
    }
}
