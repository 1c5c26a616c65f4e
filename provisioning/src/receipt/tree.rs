//! The Merkle tree under receipts: RFC 6962 section 2.1 with BLAKE3, append-only.
//!
//! [`Frontier`] is all that a box keeps while an epoch grows: one hash for each bit of the number of
//! leaves, so that the root of a million leaves is there at once. Whoever has every leaf makes the
//! proofs.

use longhaul_protocol::receipt::{InclusionProof, Leaf};
use longhaul_protocol::value::Digest32;

/// The hash of a leaf: BLAKE3 of `0x00 ||` its JSON, with the fields in the type's order.
///
/// # Errors
///
/// Never for a leaf of ours: none of its fields can fail to be written.
pub fn leaf_hash(leaf: &Leaf) -> Result<Digest32, serde_json::Error> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[0]);
    hasher.update(&serde_json::to_vec(leaf)?);
    Ok(Digest32(*hasher.finalize().as_bytes()))
}

fn node(left: Digest32, right: Digest32) -> Digest32 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[1]).update(&left.0).update(&right.0);
    Digest32(*hasher.finalize().as_bytes())
}

/// The right edge of a growing tree.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Frontier {
    /// Roots of the complete subtrees from left to right, each with its number of leaves.
    peaks: Vec<(u64, Digest32)>,
    leaves: u64,
}

impl Frontier {
    /// Adds a leaf at the right.
    pub fn push(&mut self, leaf: Digest32) {
        let (mut size, mut hash) = (1, leaf);
        while let Some((_, left)) = self.peaks.pop_if(|(left, _)| *left == size) {
            hash = node(left, hash);
            size *= 2;
        }
        self.peaks.push((size, hash));
        self.leaves += 1;
    }

    /// Leaves so far.
    pub fn leaves(&self) -> u64 {
        self.leaves
    }

    /// The root; absent while there is no leaf.
    pub fn root(&self) -> Option<Digest32> {
        let mut peaks = self.peaks.iter().rev().map(|(_, hash)| *hash);
        let last = peaks.next()?;
        Some(peaks.fold(last, |right, left| node(left, right)))
    }
}

/// A whole tree, for proofs: every row from the leaves up. A node without a partner rises as it is,
/// which is RFC 6962's shape.
#[derive(Clone, Debug)]
pub struct Tree(Vec<Vec<Digest32>>);

impl Tree {
    /// Over these leaves' hashes.
    pub fn new(leaves: Vec<Digest32>) -> Self {
        let mut rows = vec![leaves];
        while let Some(row) = rows.last().filter(|row| row.len() > 1) {
            let above = row.chunks(2).map(|pair| match pair {
                [left, right] => node(*left, *right),
                alone => alone[0],
            });
            let above = above.collect();
            rows.push(above);
        }
        Self(rows)
    }

    /// The root; absent where there is no leaf.
    pub fn root(&self) -> Option<Digest32> {
        self.0.last()?.first().copied()
    }

    /// Proves that the leaf at `index` is in the tree; absent where there is none.
    pub fn prove(&self, index: u64) -> Option<InclusionProof> {
        let leaves = self.0.first()?;
        let mut at = usize::try_from(index).ok()?;
        leaves.get(at)?;
        let mut path = Vec::new();
        for row in &self.0 {
            path.extend(row.get(at ^ 1).filter(|_| row.len() > 1));
            at /= 2;
        }
        Some(InclusionProof {
            index,
            leaves: leaves.len() as u64,
            path,
        })
    }
}

/// The root that `proof` leads to from `leaf`; absent where it leads nowhere (RFC 9162 section
/// 2.1.3.2).
pub fn root_of(leaf: Digest32, proof: &InclusionProof) -> Option<Digest32> {
    if proof.index >= proof.leaves {
        return None;
    }
    let (mut at, mut last, mut hash) = (proof.index, proof.leaves - 1, leaf);
    for &beside in &proof.path {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            hash = node(beside, hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node(hash, beside);
        }
        at >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaf(n: u64) -> Digest32 {
        Digest32(*blake3::hash(&n.to_be_bytes()).as_bytes())
    }

    /// RFC 6962's definition, word for word.
    fn defined(leaves: &[Digest32]) -> Digest32 {
        if let [only] = leaves {
            return *only;
        }
        let split = leaves.len().next_power_of_two() / 2;
        node(defined(&leaves[..split]), defined(&leaves[split..]))
    }

    proptest! {
        #[test]
        fn frontier_tree_and_definition_agree(count in 1_u64..300) {
            let leaves: Vec<_> = (0..count).map(leaf).collect();
            let mut frontier = Frontier::default();
            for leaf in &leaves {
                frontier.push(*leaf);
            }

            prop_assert_eq!(frontier.root(), Some(defined(&leaves)));
            prop_assert_eq!(Tree::new(leaves).root(), frontier.root());
            prop_assert_eq!(frontier.leaves(), count);
        }

        #[test]
        fn every_leaf_is_proven_and_no_other(count in 1_u64..200, at in any::<prop::sample::Index>()) {
            let leaves: Vec<_> = (0..count).map(leaf).collect();
            let tree = Tree::new(leaves.clone());
            let index = at.index(leaves.len()) as u64;
            let proof = tree.prove(index).expect("a proof");

            prop_assert_eq!(root_of(leaf(index), &proof), tree.root());
            prop_assert_ne!(root_of(leaf(count), &proof), tree.root());
            prop_assert!(tree.prove(count).is_none());
        }

        #[test]
        fn an_altered_proof_leads_elsewhere(
            count in 2_u64..200, at in any::<prop::sample::Index>(), step in any::<prop::sample::Index>(),
            byte in 0_usize..32, bit in 0_u8..8, other in 0_u64..200,
        ) {
            let tree = Tree::new((0..count).map(leaf).collect());
            let index = at.index(usize::try_from(count).expect("small")) as u64;
            let proof = tree.prove(index).expect("a proof");

            let mut flipped = proof.clone();
            let step = step.index(flipped.path.len());
            flipped.path[step].0[byte] ^= 1 << bit;
            prop_assert_ne!(root_of(leaf(index), &flipped), tree.root());
            let mut longer = proof.clone();
            longer.path.push(leaf(0));
            prop_assert_ne!(root_of(leaf(index), &longer), tree.root());
            let mut shorter = proof.clone();
            shorter.path.pop();
            prop_assert_ne!(root_of(leaf(index), &shorter), tree.root());
            if other != index {
                let moved = InclusionProof { index: other, ..proof };
                prop_assert_ne!(root_of(leaf(index), &moved), tree.root());
            }
        }

        #[test]
        fn no_proof_panics(index in any::<u64>(), leaves in any::<u64>(), steps in 0_usize..70) {
            let path = vec![leaf(1); steps];
            let _ = root_of(leaf(0), &InclusionProof { index, leaves, path });
        }
    }

    #[test]
    fn a_million_leaves_are_sealed_at_once() {
        let mut frontier = Frontier::default();
        for n in 0..1_000_000_u64 {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_be_bytes());
            frontier.push(Digest32(hash));
        }

        assert!(frontier.peaks.len() <= 20, "all that is kept");
        assert!(frontier.root().is_some());
    }
}
