//! Says of most names that are not in a run that they are not.

use crate::codec::{Malformed, Put, Take, narrow, wide};

/// Bits for each name: with [`PROBES`], one absent name in a hundred is looked for in vain.
const BITS: usize = 10;
const PROBES: u64 = 7;

/// What is left of a name's hash: enough for all probes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct NameHash(u64, u64);

impl NameHash {
    pub(super) fn of(name: &str) -> Self {
        let hash = blake3::hash(name.as_bytes());
        let mut take = Take(hash.as_bytes());
        // A hash has 32 bytes.
        let (one, two) = (take.u64().unwrap_or(0), take.u64().unwrap_or(0));
        Self(one, two | 1)
    }

    fn probes(self, bits: u64) -> impl Iterator<Item = u64> {
        (0..PROBES).map(move |turn| self.0.wrapping_add(turn.wrapping_mul(self.1)) % bits)
    }
}

#[derive(Debug)]
pub(super) struct Bloom(Vec<u64>);

impl Bloom {
    /// A filter with room for `names`.
    pub(super) fn new(names: usize) -> Self {
        Self(vec![0; (names * BITS).div_ceil(64).max(1)])
    }

    pub(super) fn insert(&mut self, name: NameHash) {
        let bits = wide(self.0.len()) * 64;
        for probe in name.probes(bits) {
            self.0[narrow(probe / 64)] |= 1 << (probe % 64);
        }
    }

    /// False if the name was certainly never inserted.
    pub(super) fn may_hold(&self, name: NameHash) -> bool {
        let bits = wide(self.0.len()) * 64;
        name.probes(bits)
            .all(|probe| self.0[narrow(probe / 64)] & (1 << (probe % 64)) != 0)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_count(self.0.len());
        self.0.iter().for_each(|word| out.put_u64(*word));
    }

    pub(super) fn decode(take: &mut Take<'_>) -> Result<Self, Malformed> {
        let count = take.count()?;
        if count == 0 {
            return Err(Malformed("filter of names"));
        }
        let words = (0..count).map(|_| take.u64());
        Ok(Self(words.collect::<Result<_, _>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_found_and_little_else() {
        let name = |number: u32| NameHash::of(&format!("folder/file-{number}"));
        let mut bloom = Bloom::new(10_000);
        (0..10_000).for_each(|number| bloom.insert(name(number)));

        assert!((0..10_000).all(|number| bloom.may_hold(name(number))));
        let wrong = (10_000..20_000).filter(|number| bloom.may_hold(name(*number)));
        let wrong = wrong.count();
        assert!(wrong < 200, "{wrong} of 10,000");
    }
}
