//! Where packs wait to be taken apart: a place that no ticket names and that no customer reads.

use std::str::FromStr;

use longhaul_protocol::ids::PackId;

use crate::objects::names::{STAGING, check_bucket};

/// What the names of packs begin with, as they are made.
const PACKS: &str = "pk-";
/// The longest prefix, in bytes.
const MAX_PREFIX: usize = 200;

/// A bucket, or the names in it that begin alike.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Staging {
    bucket: String,
    /// Empty, or with a slash at its end.
    prefix: String,
}

impl Staging {
    /// A bucket of its own, where names of buckets are the store's own.
    pub fn own() -> Self {
        Self {
            bucket: STAGING.to_owned(),
            prefix: String::new(),
        }
    }

    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What the names of packs begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The name under which a pack waits.
    pub fn key(&self, pack: &PackId) -> String {
        format!("{}{pack}", self.prefix)
    }

    /// The pack that waits under `key`; `None` for what is somebody else's.
    pub fn pack(&self, key: &str) -> Option<PackId> {
        let name = key.strip_prefix(&self.prefix)?;
        name.starts_with(PACKS).then(|| name.parse().ok())?
    }
}

impl FromStr for Staging {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
        if bucket != STAGING {
            check_bucket(bucket)?;
        }
        let prefix = prefix.trim_end_matches('/');
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-".contains(&b);
        if prefix.len() > MAX_PREFIX || !prefix.bytes().all(plain) || prefix.starts_with('/') {
            return Err(format!(
                "the prefix {prefix:?} is at most {MAX_PREFIX} letters, digits, '/', '.', '_' and '-'"
            ));
        }
        let mut prefix = prefix.to_owned();
        if !prefix.is_empty() {
            prefix.push('/');
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_and_a_prefix_are_read_as_they_are_written() {
        let pack: PackId = "pk-1".parse().expect("a name");
        for (text, key) in [
            ("our-staging", "pk-1"),
            ("our-staging/", "pk-1"),
            ("our-staging/longhaul/packs", "longhaul/packs/pk-1"),
            ("our-staging/a/", "a/pk-1"),
        ] {
            let staging: Staging = text.parse().expect(text);
            assert_eq!(staging.bucket(), "our-staging");
            assert_eq!(staging.key(&pack), key);
            assert_eq!(staging.pack(key), Some(pack.clone()));
        }
        let below: Staging = "our-staging/a".parse().expect("a place");
        assert_eq!(below.pack("b/pk-1"), None, "somebody else's");
        assert_eq!(below.pack("a/report"), None, "no pack");
        for wrong in [
            "",
            "No",
            "our-staging//a",
            "our-staging/\u{e9}",
            "our-staging/a b",
        ] {
            assert!(wrong.parse::<Staging>().is_err(), "{wrong:?}");
        }
    }
}
