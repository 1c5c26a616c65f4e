//! BLAKE3 of an object that arrives in parts, in any order, without reading it again.
//!
//! BLAKE3 is a tree, so a part can be hashed on its own if it is known where in the object it
//! will lie: its subtrees are kept, and completing the upload only joins them. Where a part lies
//! is guessed from its number and the parts' common size. A guess that was wrong costs the hash,
//! never its correctness: [`combine`] says `None`, and somebody has to read the object.

use blake3::{
    Hasher,
    hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root},
};

use crate::codec::{Malformed, Put, Take, wide};

/// Bytes of the smallest subtree that is kept; parts that begin elsewhere cannot be joined.
pub(crate) const LEAF: u64 = 1 << 20;

/// The subtrees of one part.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct PartTree {
    /// Where the part was taken to begin in its object, in bytes.
    base: u64,
    /// Leaves and chaining value of each subtree, in order. The last may be cut short.
    subtrees: Vec<(u64, ChainingValue)>,
}

impl PartTree {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.base);
        out.put_count(self.subtrees.len());
        for (leaves, value) in &self.subtrees {
            out.put_u64(*leaves);
            out.put_raw(value);
        }
    }

    pub(crate) fn decode(take: &mut Take<'_>) -> Result<Self, Malformed> {
        let base = take.u64()?;
        let count = take.count()?;
        let subtrees = (0..count)
            .map(|_| Ok((take.u64()?, take.array()?)))
            .collect::<Result<_, Malformed>>()?;
        Ok(Self { base, subtrees })
    }
}

/// Hashes one part.
pub(crate) struct TreeHasher {
    base: u64,
    /// Whole subtrees before the open leaf.
    closed: Vec<(u64, ChainingValue)>,
    closed_leaves: u64,
    leaf: Hasher,
}

impl TreeHasher {
    /// A part that is taken to begin at `base`, a multiple of [`LEAF`].
    pub(crate) fn new(base: u64) -> Self {
        Self {
            base,
            closed: Vec::new(),
            closed_leaves: 0,
            leaf: leaf_at(base),
        }
    }

    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.leaf.count() == LEAF {
                self.close_leaf();
            }
            let room = usize::try_from(LEAF - self.leaf.count()).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.leaf.update(now);
            bytes = later;
        }
    }

    fn close_leaf(&mut self) {
        let value = self.leaf.finalize_non_root();
        let begin = self.base / LEAF;
        push(&mut self.closed, begin, (1, value));
        self.closed_leaves += 1;
        self.leaf = leaf_at(self.base + self.closed_leaves * LEAF);
    }

    /// The subtrees, and a hash that names the part: of one that begins the object, the BLAKE3 of
    /// its bytes.
    pub(crate) fn finish(&self) -> (PartTree, [u8; 32]) {
        let mut subtrees = self.closed.clone();
        if self.leaf.count() > 0 {
            push(
                &mut subtrees,
                self.base / LEAF,
                (1, self.leaf.finalize_non_root()),
            );
        }
        let name = if self.base > 0 {
            join_all(&mut subtrees, self.base / LEAF);
            let mut name = Hasher::new();
            name.update(&self.base.to_le_bytes());
            for (leaves, value) in &subtrees {
                name.update(&leaves.to_le_bytes()).update(value);
            }
            *name.finalize().as_bytes()
        } else {
            root(&subtrees).unwrap_or_else(|| *self.leaf.finalize().as_bytes())
        };
        (
            PartTree {
                base: self.base,
                subtrees,
            },
            name,
        )
    }
}

fn leaf_at(offset: u64) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset);
    hasher
}

/// Appends a subtree; joins those before it that are siblings. They are not the root, because
/// something follows. `begin` is the leaf that the first subtree begins with.
fn push(subtrees: &mut Vec<(u64, ChainingValue)>, begin: u64, next: (u64, ChainingValue)) {
    join_all(subtrees, begin);
    subtrees.push(next);
}

fn join_all(subtrees: &mut Vec<(u64, ChainingValue)>, begin: u64) {
    let mut end = begin + subtrees.iter().map(|(leaves, _)| leaves).sum::<u64>();
    while let [.., (left_leaves, left), (right_leaves, right)] = &subtrees[..] {
        let both = left_leaves + right_leaves;
        if left_leaves != right_leaves || !(end - both).is_multiple_of(both) {
            return;
        }
        let joined = merge_subtrees_non_root(left, right, Mode::Hash);
        subtrees.truncate(subtrees.len() - 2);
        subtrees.push((both, joined));
        end = begin + subtrees.iter().map(|(leaves, _)| leaves).sum::<u64>();
    }
}

/// The hash over subtrees that begin with the object; `None` if there are not two to join.
fn root(subtrees: &[(u64, ChainingValue)]) -> Option<[u8; 32]> {
    let ((_, first), rest) = subtrees.split_first()?;
    let ((_, last), middle) = rest.split_last()?;
    let right = middle.iter().rev().fold(*last, |right, (_, left)| {
        merge_subtrees_non_root(left, &right, Mode::Hash)
    });
    Some(*merge_subtrees_root(first, &right, Mode::Hash).as_bytes())
}

/// BLAKE3 of an object made of `parts` (subtrees, size and name of each), if every part lies
/// where it was taken to lie.
pub(crate) fn combine<'a>(
    parts: impl Iterator<Item = (&'a PartTree, u64, [u8; 32])>,
) -> Option<[u8; 32]> {
    let (mut end, mut subtrees, mut only) = (0_u64, Vec::new(), None);
    for (tree, size, name) in parts.filter(|(_, size, _)| *size > 0) {
        if tree.base != end {
            return None;
        }
        only = if end == 0 { Some(name) } else { None };
        end = end.checked_add(size)?;
        for subtree in &tree.subtrees {
            push(&mut subtrees, 0, *subtree);
        }
        if wide(subtrees.len()) > 128 {
            // More than there can be bits in a length: not subtrees of ours.
            return None;
        }
    }
    if end == 0 {
        return Some(*blake3::hash(b"").as_bytes());
    }
    only.or_else(|| root(&subtrees))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn data(len: usize) -> Vec<u8> {
        (0..=250).cycle().take(len).collect()
    }

    fn part(base: u64, bytes: &[u8]) -> (PartTree, u64, [u8; 32]) {
        let mut hasher = TreeHasher::new(base);
        for piece in bytes.chunks(70_001) {
            hasher.update(piece);
        }
        let (tree, name) = hasher.finish();
        (tree, wide(bytes.len()), name)
    }

    fn parts(data: &[u8], size: usize) -> Vec<(PartTree, u64, [u8; 32])> {
        let bases = (0..).step_by(size);
        bases
            .zip(data.chunks(size))
            .map(|(base, bytes)| part(base, bytes))
            .collect()
    }

    fn combined(parts: &[(PartTree, u64, [u8; 32])]) -> Option<[u8; 32]> {
        combine(parts.iter().map(|(tree, size, name)| (tree, *size, *name)))
    }

    const MIB: usize = 1 << 20;

    #[test]
    fn parts_join_to_the_hash_of_the_whole() {
        for len in [
            1,
            1023,
            MIB - 1,
            MIB,
            MIB + 1,
            2 * MIB,
            3 * MIB,
            7 * MIB + 5,
            16 * MIB,
        ] {
            let data = data(len);
            let expected = Some(*blake3::hash(&data).as_bytes());
            for size in [1, 2, 3, 5, 8, 16] {
                assert_eq!(
                    combined(&parts(&data, size * MIB)),
                    expected,
                    "{len} by {size} MiB"
                );
            }
        }
        assert_eq!(combined(&[]), Some(*blake3::hash(b"").as_bytes()));
    }

    #[test]
    fn the_first_part_is_named_by_the_hash_of_its_bytes() {
        for len in [0, 1, MIB, MIB + 1, 4 * MIB] {
            assert_eq!(part(0, &data(len)).2, *blake3::hash(&data(len)).as_bytes());
        }
    }

    #[test]
    fn parts_that_lie_elsewhere_have_no_common_hash() {
        let data = data(4 * MIB);
        let mut wrong = parts(&data, 2 * MIB);
        wrong[1] = part(MIB as u64, &data[2 * MIB..]);
        assert_eq!(combined(&wrong), None);
        // A part of odd length leaves the next one without a place.
        assert_eq!(
            combined(&[part(0, &data[..1000]), part(MIB as u64, &data[1000..])]),
            None
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]

        #[test]
        fn any_whole_leaves_join(leaves in prop::collection::vec(1..6_usize, 1..6), rest in 0..MIB) {
            let data = data(leaves.iter().sum::<usize>() * MIB + rest);
            let (mut parts, mut at) = (Vec::new(), 0);
            for len in leaves.iter().map(|leaves| leaves * MIB).chain([rest]) {
                parts.push(part(wide(at), &data[at..at + len]));
                at += len;
            }
            prop_assert_eq!(combined(&parts), Some(*blake3::hash(&data).as_bytes()));
        }
    }
}
