//! Names that are mistaken for another one: those that look the same are refused; those that differ in
//! case alone are stored, because a bucket holds both, and reported, because Windows and macOS hold only
//! one of them.
//!
//! A fixed table of bits (a Bloom filter) says for nearly every new name that nothing was ever called
//! like it; only where it may have been, the vault's sorted names are searched. So the memory does
//! not grow with the objects, and the common case costs a hash.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use longhaul_protocol::ids::ObjectKey;
use longhaul_protocol::names::{Clash, Folded, clash, composed, lookalikes, writings};
use longhaul_vault::{JobId, Vault};

use super::Oddities;
use super::claims::{Claim, Claims};

/// Bits of the table: 4 MiB. With a million names, one new name in a thousand is searched for nothing.
const BITS: u64 = 1 << 25;
/// Bits for each name.
const PROBES: u64 = 3;
/// Names on one page while the table is filled.
const PAGE: usize = 1000;
/// Spellings that are followed at a time in a search.
const BRANCHES: usize = 32;

/// What names have been seen, whatever their case. Clones share it.
#[derive(Clone)]
pub(crate) struct Spellings(Arc<Table>);

struct Table {
    words: Box<[AtomicU64]>,
    hasher: RandomState,
    /// Until the names of the last start are in it, any name may have been seen.
    filled: AtomicBool,
    oddities: Oddities,
    claims: Claims,
}

impl Spellings {
    /// An empty table, to be [filled](Self::fill); what is odd about names goes to `oddities`.
    pub fn new(oddities: Oddities) -> Self {
        let words = (0..BITS / 64).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Table {
            words,
            hasher: RandomState::new(),
            filled: AtomicBool::new(false),
            oddities,
            claims: Claims::default(),
        }))
    }

    /// Says that `key` is being written until the claim is dropped, and whether something else is
    /// that could be mistaken for it.
    pub fn claim(&self, job: &JobId, key: &ObjectKey) -> (Claim, Option<ObjectKey>) {
        self.0.claims.claim(job, key)
    }

    /// Has the operators told what is odd about a name of `job`.
    pub fn tell(&self, job: &JobId, text: &str) {
        self.0.oddities.add(job.as_str(), text);
    }

    /// Takes in what the vault holds; blocks. Ends early once `stopped`.
    pub fn fill(&self, vault: &Vault, stopped: impl Fn() -> bool) {
        for job in vault.jobs() {
            let mut after: Option<String> = None;
            while let Ok(page) = vault.list(&job, "", after.as_deref(), PAGE) {
                for info in &page.items {
                    if let Ok(key) = info.key.parse() {
                        self.seen(&job, &key);
                    }
                }
                after = page.items.last().map(|info| info.key.clone());
                if stopped() {
                    return;
                }
                if page.items.len() < PAGE {
                    break;
                }
            }
        }
        self.0.filled.store(true, Ordering::Release);
    }

    /// Another name of `job`, in the vault or as `written` being written, that is mistaken for `key`,
    /// which is new; the worse clash first. Remembers `key`.
    pub fn clash(
        &self,
        vault: &Vault,
        job: &JobId,
        key: &ObjectKey,
        written: Option<ObjectKey>,
    ) -> Option<(Clash, ObjectKey)> {
        let named = |other: ObjectKey| Some((clash(key, &other)?, other));
        let there = |other: &ObjectKey| vault.head(job, other.as_str()).is_ok();
        let seen = self.seen(job, key);
        let found = if !seen && self.0.filled.load(Ordering::Acquire) {
            None
        } else if let Some(other) = lookalikes(key).into_iter().find(there) {
            named(other)
        } else if there(key) {
            None
        } else {
            let found = search(key, |prefix| {
                let page = vault.list(job, prefix, None, 1);
                page.is_ok_and(|page| !page.items.is_empty())
            });
            let found = found.into_iter().filter(there).filter_map(named);
            found.min_by_key(|(clash, _)| *clash)
        };
        let written = written.and_then(named);
        written
            .into_iter()
            .chain(found)
            .min_by_key(|(clash, _)| *clash)
    }

    /// Whether a name like `key` may have been here before; from now on one has.
    fn seen(&self, job: &JobId, key: &ObjectKey) -> bool {
        let hash = self.0.hasher.hash_one((job.as_str(), Folded::of(key)));
        let (first, step) = (hash & 0xffff_ffff, (hash >> 32) | 1);
        let mut seen = true;
        for probe in 0..PROBES {
            let bit = (first + probe * step) % BITS;
            let mask = 1 << (bit % 64);
            let Some(word) = usize::try_from(bit / 64)
                .ok()
                .and_then(|at| self.0.words.get(at))
            else {
                continue;
            };
            seen &= word.fetch_or(mask, Ordering::Relaxed) & mask != 0;
        }
        seen
    }
}

/// What is said of `key`, where `other` is there and shows the same characters.
pub(crate) fn same(key: &ObjectKey, other: &ObjectKey) -> String {
    format!(
        "the name {:?} looks the same as that of an object that is here, {}; both would be one file on many systems",
        key.as_str(),
        other.as_str().escape_unicode(),
    )
}

/// What is said of `key`, where `other` is there.
pub(crate) fn notice(key: &ObjectKey, other: &ObjectKey) -> String {
    format!(
        "the name {:?} differs from {:?} in upper and lower case alone; both are stored, and Windows and macOS can hold only one of them",
        key.as_str(),
        other.as_str()
    )
}

/// The keys that are `key` in other cases and other ways to write the same characters, as far as
/// `exists` knows a name that begins so: letter by letter, so that what nobody is called is not tried.
fn search(key: &ObjectKey, exists: impl Fn(&str) -> bool) -> Vec<ObjectKey> {
    let mut found = vec![String::new()];
    for letter in composed(key) {
        let mut longer = Vec::new();
        let ways = ways(letter);
        for prefix in &found {
            for way in &ways {
                let next = format!("{prefix}{way}");
                // A character that is written in one way cannot lead astray; the next letter tells.
                if (ways.len() == 1 || exists(&next)) && longer.len() < BRANCHES {
                    longer.push(next);
                }
            }
        }
        found = longer;
    }
    found
        .into_iter()
        .filter_map(|other| other.parse().ok())
        .collect()
}

/// A letter and its other cases, where these are one letter each, in every way to write them.
fn ways(letter: char) -> Vec<String> {
    let single = |mut letters: Box<dyn Iterator<Item = char>>| {
        let first = letters.next()?;
        letters.next().is_none().then_some(first)
    };
    let cases = [
        Some(letter),
        single(Box::new(letter.to_lowercase())),
        single(Box::new(letter.to_uppercase())),
    ];
    let mut ways: Vec<String> = Vec::new();
    for way in cases.into_iter().flatten().flat_map(writings) {
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    ways
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ObjectKey {
        text.parse().expect("a key")
    }

    fn search_in(there: &[&str], text: &str) -> Vec<String> {
        let found = search(&key(text), |prefix| {
            there.iter().any(|name| name.starts_with(prefix))
        });
        let found = found.into_iter().map(|key| key.to_string());
        found
            .filter(|name| there.contains(&name.as_str()))
            .collect()
    }

    #[test]
    fn a_name_in_another_case_is_found_wherever_the_letters_differ() {
        let there = ["Dir/a 1.JPG", "dir/b", "ÄRGER/ö", "z"];

        assert_eq!(search_in(&there, "dir/A 1.jpg"), ["Dir/a 1.JPG"]);
        assert_eq!(search_in(&there, "DIR/B"), ["dir/b"]);
        assert_eq!(search_in(&there, "ärger/Ö"), ["ÄRGER/ö"]);
        assert!(search_in(&there, "dir/c").is_empty());
        assert!(search_in(&there, "1").is_empty());
    }

    #[test]
    fn a_name_is_found_however_its_letters_are_written() {
        let there = [
            "dir/\u{212b}\u{c5}",
            "A\u{30a}/100 \u{2126}",
            "300 \u{212a}",
            "\u{e4}/b",
        ];

        assert_eq!(
            search_in(&there, "dir/\u{c5}\u{c5}"),
            ["dir/\u{212b}\u{c5}"]
        );
        let mixed = search_in(&there, "\u{212b}/100 \u{3a9}");
        assert_eq!(mixed, ["A\u{30a}/100 \u{2126}"]);
        assert_eq!(search_in(&there, "300 K"), ["300 \u{212a}"]);
        assert_eq!(search_in(&there, "a\u{308}/B"), ["\u{e4}/b"]);
    }

    #[test]
    fn a_search_stays_small_however_many_spellings_there_are() {
        let asked = std::cell::Cell::new(0);
        search(&key(&"a".repeat(100)), |_| {
            asked.set(asked.get() + 1);
            true
        });

        assert!(asked.get() <= 100 * 2 * BRANCHES, "{}", asked.get());
    }

    #[test]
    fn a_new_name_has_not_been_seen_and_one_in_another_case_has() {
        let spellings = Spellings::new(Oddities::default());
        let job: JobId = "survey".parse().expect("a job");
        let other: JobId = "other".parse().expect("a job");

        assert!(!spellings.seen(&job, &key("a/B")));
        assert!(spellings.seen(&job, &key("A/b")));
        assert!(!spellings.seen(&other, &key("a/B")));
        let wrong = (0..10_000).filter(|n| spellings.seen(&job, &key(&format!("n{n}"))));
        assert!(wrong.count() < 10);
    }
}
