//! Receipts: proofs from the leaves and roots that boxes sent, countersigned for what was compared
//! in the bucket.

use std::collections::HashMap;

use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::{BoxId, EpochId};
use longhaul_protocol::receipt::{DeliveryClaims, InclusionProof, Receipt};
use longhaul_protocol::value::{Jws, UnixMillis};
use longhaul_provisioning::jws::Kind;
use longhaul_provisioning::receipt::tree::{Tree, leaf_hash};

use super::{Fleet, FleetError};
use crate::objects::names::check_bucket;
use crate::store::Tx;
use crate::store::receipts::{ReceiptPlace, SealedLeafRow, receipt_leaf_list, receipt_list};

/// Which receipts are wanted.
#[derive(Clone, Debug)]
pub struct ReceiptQuery {
    /// Of one box alone.
    pub box_id: Option<BoxId>,
    /// The bucket.
    pub bucket: String,
    /// What keys start with; all of them if empty.
    pub prefix: String,
    /// Where the page before ended.
    pub after: Option<ReceiptPlace>,
    /// At the most.
    pub limit: u32,
}

/// Some receipts, in the order of the keys.
#[derive(Clone, Debug, Default)]
pub struct ReceiptPage {
    /// The receipts.
    pub receipts: Vec<Receipt>,
    /// Where to go on; absent at the end.
    pub next: Option<ReceiptPlace>,
}

impl Fleet {
    /// Receipts of what boxes have sealed, in the order of the keys. Those that the cloud has
    /// compared in the bucket are countersigned. An epoch of which the cloud lost a leaf, because
    /// its database was set back, has none.
    pub async fn receipts_list(&self, query: &ReceiptQuery) -> Result<ReceiptPage, FleetError> {
        check_bucket(&query.bucket).map_err(FleetError::invalid)?;
        let to = after_prefix(&query.prefix);
        let mut tx = self.db().read().await?;
        let rows = receipt_list(
            &mut tx,
            query.box_id.as_ref(),
            &query.bucket,
            &query.prefix,
            to.as_deref(),
            query.after.as_ref(),
            query.limit,
        )
        .await?;
        let last = rows.last().filter(|_| rows.len() >= query.limit as usize);
        let next = last.map(|row| ReceiptPlace {
            key: row.leaf.object_key.to_string(),
            box_id: row.leaf.box_id.to_string(),
            epoch: row.leaf.epoch.clone(),
            place: row.leaf.place,
        });
        let mut trees = HashMap::new();
        let mut receipts = Vec::with_capacity(rows.len());
        for row in rows {
            if let Some(proof) = prove(&mut tx, &mut trees, &row).await? {
                receipts.push(self.issue(row, proof)?);
            }
        }
        Ok(ReceiptPage { receipts, next })
    }

    fn issue(&self, row: SealedLeafRow, proof: InclusionProof) -> Result<Receipt, FleetError> {
        let leaf = row.leaf.leaf();
        let delivery = match row.verified {
            None => None,
            Some(verified) => {
                let claims = DeliveryClaims {
                    v: VERSION,
                    box_id: row.leaf.box_id,
                    leaf: leaf.clone(),
                    verified: UnixMillis(verified),
                    signed: self.now(),
                };
                let failed = |e| FleetError::internal("failed to write a receipt", e);
                let payload = serde_json::to_vec(&claims).map_err(failed)?;
                let signed = self.identity().stater().sign(Kind::Receipt, &payload);
                let failed = |e| FleetError::internal("failed to sign a receipt", e);
                Some(signed.map_err(failed)?)
            }
        };
        Ok(Receipt {
            v: VERSION,
            leaf,
            proof,
            root: Jws(row.jws),
            delivery,
        })
    }
}

/// Proves a leaf in its epoch's tree, which is made once for each answer.
async fn prove(
    tx: &mut Tx,
    trees: &mut HashMap<(BoxId, String), Option<Tree>>,
    row: &SealedLeafRow,
) -> Result<Option<InclusionProof>, FleetError> {
    let name = (row.leaf.box_id.clone(), row.leaf.epoch.clone());
    if !trees.contains_key(&name) {
        let unnamed = |e| FleetError::internal("a stored epoch has no name", e);
        let epoch: EpochId = row.leaf.epoch.parse().map_err(unnamed)?;
        let leaves = receipt_leaf_list(tx, &row.leaf.box_id, &epoch).await?;
        let hashes: Result<Vec<_>, _> = leaves.iter().map(|l| leaf_hash(&l.leaf())).collect();
        let hashes = hashes.map_err(|e| FleetError::internal("failed to hash a leaf", e))?;
        let tree = Some(Tree::new(hashes)).filter(|tree| tree.root() == Some(row.root));
        if tree.is_none() {
            tracing::warn!(box_id = %name.0, epoch = name.1, "an epoch of receipts is incomplete");
        }
        trees.insert(name.clone(), tree);
    }
    let place = u64::try_from(row.leaf.place).unwrap_or(u64::MAX);
    let tree = trees.get(&name).and_then(Option::as_ref);
    Ok(tree.and_then(|tree| tree.prove(place)))
}

/// The least text that is greater than every text that starts with `prefix`; none where there is
/// no such text.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // Surrogates are no characters: what follows them is next.
        let next = (u32::from(last) + 1..=u32::from(last) + 0x801).find_map(char::from_u32);
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_prefix_is_greater_than_all_that_start_with_it() {
        for prefix in ["a", "a/b", "\u{d7ff}", "x\u{10ffff}", "é"] {
            let after = after_prefix(prefix).expect("one");
            assert!(format!("{prefix}\u{10ffff}\u{10ffff}") < after, "{prefix}");
            assert!(prefix < after.as_str());
        }
        assert_eq!(after_prefix(""), None);
        assert_eq!(after_prefix("\u{10ffff}"), None);
    }
}
