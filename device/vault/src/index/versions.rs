//! A set of version numbers in little memory: an eighth of a byte each where they are dense, two
//! bytes where they are not.

use std::collections::BTreeMap;

use crate::codec::{Malformed, Put, Take};

/// Versions whose numbers differ in their last sixteen bits only.
#[derive(Clone, Debug)]
enum Page {
    /// Ascending.
    Few(Vec<u16>),
    Many {
        count: u32,
        bits: Box<[u64; WORDS]>,
    },
}

const WORDS: usize = 1 << 10;
/// As many of two bytes each take what the bits of a page take.
const FEW: usize = 4096;

/// A set of version numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct VersionSet {
    pages: BTreeMap<u64, Page>,
    len: u64,
}

fn split(version: u64) -> (u64, u16) {
    let [low, high, ..] = version.to_le_bytes();
    (version >> 16, u16::from_le_bytes([low, high]))
}

fn bit(low: u16) -> (usize, u64) {
    (usize::from(low >> 6), 1 << (low & 63))
}

impl VersionSet {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn contains(&self, version: u64) -> bool {
        let (page, low) = split(version);
        self.pages.get(&page).is_some_and(|page| page.contains(low))
    }

    /// True if it was not there.
    pub(crate) fn insert(&mut self, version: u64) -> bool {
        let (page, low) = split(version);
        let page = self.pages.entry(page).or_insert(Page::Few(Vec::new()));
        let new = page.insert(low);
        self.len += u64::from(new);
        new
    }

    /// True if it was there.
    pub(crate) fn remove(&mut self, version: u64) -> bool {
        let (number, low) = split(version);
        let Some(page) = self.pages.get_mut(&number) else {
            return false;
        };
        let was = page.remove(low);
        if page.count() == 0 {
            self.pages.remove(&number);
        }
        self.len -= u64::from(was);
        was
    }

    /// The lowest that is not below `from`.
    pub(crate) fn first_from(&self, from: u64) -> Option<u64> {
        let (first, low) = split(from);
        self.pages.range(first..).find_map(|(number, page)| {
            let low = if *number == first { low } else { 0 };
            page.first_from(low)
                .map(|low| (number << 16) | u64::from(low))
        })
    }

    /// All behind `after`, ascending.
    pub(crate) fn iter_after(&self, after: Option<u64>) -> impl Iterator<Item = u64> + '_ {
        let mut from = after.map_or(Some(0), |after| after.checked_add(1));
        std::iter::from_fn(move || {
            let next = self.first_from(from?)?;
            from = next.checked_add(1);
            Some(next)
        })
    }

    /// Its pages, each as bytes that [`VersionSet::learn`] takes.
    pub(crate) fn encode(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.pages.iter().map(|(number, page)| {
            let mut out = Vec::new();
            out.put_u64(*number);
            out.put_u32(page.count());
            match page {
                Page::Many { count, bits } if *count > FEW_COUNT => {
                    bits.iter().for_each(|word| out.put_u64(*word));
                }
                _ => page.iter().for_each(|low| out.put_u16(low)),
            }
            out
        })
    }

    /// Takes in one page.
    pub(crate) fn learn(&mut self, take: &mut Take<'_>) -> Result<(), Malformed> {
        let (number, count) = (take.u64()?, take.u32()?);
        if number > u64::MAX >> 16 || count == 0 || self.pages.contains_key(&number) {
            return Err(Malformed("page of versions"));
        }
        let page = if count > FEW_COUNT {
            let mut bits = Box::new([0; WORDS]);
            for word in bits.iter_mut() {
                *word = take.u64()?;
            }
            Page::Many { count, bits }
        } else {
            let few = (0..count).map(|_| take.u16());
            Page::Few(few.collect::<Result<_, _>>()?)
        };
        if !page.is_what_it_says() {
            return Err(Malformed("page of versions"));
        }
        self.len += u64::from(count);
        self.pages.insert(number, page);
        Ok(())
    }
}

/// [`FEW`], as a page counts.
const FEW_COUNT: u32 = 4096;

impl Page {
    fn count(&self) -> u32 {
        match self {
            // At most 65,536.
            Self::Few(few) => u32::try_from(few.len()).unwrap_or(u32::MAX),
            Self::Many { count, .. } => *count,
        }
    }

    fn contains(&self, low: u16) -> bool {
        match self {
            Self::Few(few) => few.binary_search(&low).is_ok(),
            Self::Many { bits, .. } => {
                let (word, bit) = bit(low);
                bits[word] & bit != 0
            }
        }
    }

    fn insert(&mut self, low: u16) -> bool {
        match self {
            Self::Few(few) => {
                // New versions are the highest.
                let place = match few.last() {
                    Some(last) if *last < low => Err(few.len()),
                    None => Err(0),
                    Some(_) => few.binary_search(&low),
                };
                let Err(place) = place else { return false };
                few.insert(place, low);
                if few.len() > FEW {
                    self.widen();
                }
                true
            }
            Self::Many { count, bits } => {
                let (word, bit) = bit(low);
                let new = bits[word] & bit == 0;
                bits[word] |= bit;
                *count += u32::from(new);
                new
            }
        }
    }

    fn remove(&mut self, low: u16) -> bool {
        match self {
            Self::Few(few) => {
                let Ok(place) = few.binary_search(&low) else {
                    return false;
                };
                few.remove(place);
                true
            }
            Self::Many { count, bits } => {
                let (word, bit) = bit(low);
                let was = bits[word] & bit != 0;
                bits[word] &= !bit;
                *count -= u32::from(was);
                // Not at once where it would be widened again: half of that.
                if *count <= FEW_COUNT / 2 {
                    *self = Self::Few(self.iter().collect());
                }
                was
            }
        }
    }

    fn widen(&mut self) {
        let mut bits = Box::new([0; WORDS]);
        for low in self.iter() {
            let (word, bit) = bit(low);
            bits[word] |= bit;
        }
        let count = self.count();
        *self = Self::Many { count, bits };
    }

    fn first_from(&self, low: u16) -> Option<u16> {
        match self {
            Self::Few(few) => few.get(few.partition_point(|other| *other < low)).copied(),
            Self::Many { bits, .. } => {
                let (first, _) = bit(low);
                let masked = bits[first] & (u64::MAX << (low & 63));
                let rest = (first + 1..WORDS).map(|word| (word, bits[word]));
                let (word, found) = std::iter::once((first, masked))
                    .chain(rest)
                    .find(|(_, found)| *found != 0)?;
                u16::try_from(word * 64 + found.trailing_zeros() as usize).ok()
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        let mut from = Some(0);
        std::iter::from_fn(move || {
            let next = self.first_from(from?)?;
            from = next.checked_add(1);
            Some(next)
        })
    }

    fn is_what_it_says(&self) -> bool {
        match self {
            Self::Few(few) => few.is_sorted_by(|one, next| one < next),
            Self::Many { count, bits } => {
                bits.iter().map(|word| word.count_ones()).sum::<u32>() == *count
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn again(set: &VersionSet) -> VersionSet {
        let mut learned = VersionSet::default();
        for page in set.encode() {
            learned.learn(&mut Take(&page)).expect("its own page");
        }
        learned
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_holds_what_a_set_holds(
            runs in prop::collection::vec((any::<bool>(), 0..200_000_u64, 1..6000_u64), 1..12),
        ) {
            let (mut set, mut model) = (VersionSet::default(), BTreeSet::new());
            for (put, begin, len) in runs {
                for version in begin..begin + len {
                    let changed = if put {
                        prop_assert_eq!(set.insert(version), model.insert(version));
                        true
                    } else {
                        prop_assert_eq!(set.remove(version), model.remove(&version));
                        false
                    };
                    prop_assert_eq!(set.contains(version), changed);
                }
                prop_assert_eq!(set.len(), model.len() as u64);
                prop_assert!(set.iter_after(None).eq(model.iter().copied()));
                let behind = model.range(begin + 1..).copied();
                prop_assert!(set.iter_after(Some(begin)).eq(behind));
                let learned = again(&set);
                prop_assert_eq!(learned.len(), set.len());
                prop_assert!(learned.iter_after(None).eq(model.iter().copied()));
            }
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = VersionSet::default().learn(&mut Take(&bytes));
        }
    }
}
