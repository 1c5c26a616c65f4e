//! Identifiers: each is parsed once, and holding one proves that its text was checked.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Crockford's base32 alphabet, upper case; it has no I, L, O and U.
const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Characters of a box id.
const BOX_ID_LEN: usize = 12;

/// Why a text is not the identifier it should be.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a {kind}: {text:?}: {rule}")]
pub struct InvalidId {
    /// The kind of identifier that was expected.
    pub kind: &'static str,
    /// The text that was refused, cut to 64 characters.
    pub text: String,
    /// The rule that the text breaks.
    pub rule: &'static str,
}

impl InvalidId {
    fn new(kind: &'static str, text: &str, rule: &'static str) -> Self {
        Self {
            kind,
            text: text.chars().take(64).collect(),
            rule,
        }
    }
}

/// A box's name: twelve characters of Crockford base32, the first 60 bits of the SHA-256 of its
/// TPM's endorsement key (SubjectPublicKeyInfo, DER). Nobody can pick another box's.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BoxId(String);

impl BoxId {
    /// Names the box whose endorsement key (SPKI, DER) has this SHA-256.
    #[must_use]
    pub fn from_ek_sha256(digest: &[u8; 32]) -> Self {
        let mut bits = [0_u8; 8];
        bits.copy_from_slice(&digest[..8]);
        let bits = u64::from_be_bytes(bits) >> 4;
        let text = (0..BOX_ID_LEN)
            .map(|i| {
                let index = (bits >> (5 * (BOX_ID_LEN - 1 - i))) & 0x1f;
                char::from(CROCKFORD[usize::try_from(index).unwrap_or(0)])
            })
            .collect();
        Self(text)
    }

    /// The twelve characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BoxId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.len() != BOX_ID_LEN {
            return Err(InvalidId::new("box id", text, "twelve characters"));
        }
        if !text.bytes().all(|b| CROCKFORD.contains(&b)) {
            return Err(InvalidId::new(
                "box id",
                text,
                "upper-case Crockford base32 only",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Implements the text form and serde for a newtype over a checked `String`.
macro_rules! text_id {
    ($name:ty) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(de::Error::custom)
            }
        }
    };
}

text_id!(BoxId);

/// Declares an opaque identifier: 1 to 64 characters of `A-Z a-z 0-9 - _`.
macro_rules! opaque_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(String);

        impl $name {
            /// The identifier's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if text.is_empty() || text.len() > 64 {
                    return Err(InvalidId::new($kind, text, "1 to 64 characters"));
                }
                if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
                    return Err(InvalidId::new($kind, text, "letters, digits, '-' and '_' only"));
                }
                Ok(Self(text.to_owned()))
            }
        }

        text_id!($name);
    };
}

opaque_id! {
    /// One command to one box; made by the cloud, unique for ever.
    CommandId, "command id"
}
opaque_id! {
    /// One MQTT session of a box, from its connect to its disconnect; made by the box.
    SessionId, "session id"
}
opaque_id! {
    /// One boot of a box's operating system (the kernel's boot id).
    BootId, "boot id"
}
opaque_id! {
    /// One life of a box's journal: a box whose disk was wiped begins a new epoch.
    EpochId, "journal epoch"
}
opaque_id! {
    /// A customer's order for one journey of one box.
    OrderId, "order id"
}
opaque_id! {
    /// A ticket that lets a customer write to one box.
    TicketId, "ticket id"
}
opaque_id! {
    /// One multipart upload from a box to the object store, as the cloud knows it.
    UploadId, "upload id"
}
opaque_id! {
    /// One pack of small objects on its way from a box to the object store.
    PackId, "pack id"
}
opaque_id! {
    /// One rollout of a release to a list of boxes.
    RolloutId, "rollout id"
}

/// The name of an object: a key that every S3 bucket can hold.
///
/// 1 to 1,024 bytes of UTF-8; no control characters; no empty, `.` or `..` segment, so that it is
/// also a safe relative path: the rule is [`crate::names::check`].
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ObjectKey {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        crate::names::check(text)
            .map_err(|rule| InvalidId::new("object key", text, rule.as_str()))?;
        Ok(Self(text.to_owned()))
    }
}

text_id!(ObjectKey);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn box_id_is_the_first_sixty_bits_of_the_digest() {
        let mut digest = [0_u8; 32];
        digest[..8].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf0]);

        assert_eq!(BoxId::from_ek_sha256(&digest).as_str(), "ZZZZZZZZZZZZ");
        assert_eq!(BoxId::from_ek_sha256(&[0; 32]).as_str(), "000000000000");
    }

    #[test]
    fn object_keys_that_no_bucket_can_hold_are_refused() {
        for bad in ["", "a//b", "/a", "../x", "a/./b", "a\u{0}b", "a\nb", "a\\b"] {
            assert!(bad.parse::<ObjectKey>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(1025).parse::<ObjectKey>().is_err());
        for good in ["a", "a/b.txt", "folder/", "ä/日本", "a b+c"] {
            assert!(good.parse::<ObjectKey>().is_ok(), "{good:?}");
        }
    }

    proptest! {
        #[test]
        fn box_ids_survive_their_text_form(digest in any::<[u8; 32]>()) {
            let id = BoxId::from_ek_sha256(&digest);
            prop_assert_eq!(id.to_string().parse::<BoxId>().expect("own text"), id);
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = text.parse::<BoxId>();
            let _ = text.parse::<ObjectKey>();
            let _ = text.parse::<CommandId>();
        }
    }
}
