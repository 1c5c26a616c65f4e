//! Receipts: what makes them, and their verification with nothing but the fleet's root.
//!
//! A receipt holds if its leaf hashes, by its proof, to a root that a box of the fleet has signed,
//! and if what the cloud signed says the same of the same leaf. Signatures are judged at the time
//! that they name: certificates live for days, receipts for years.

mod root;
pub mod tree;

use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::receipt::{DeliveryClaims, Leaf, Receipt};
use longhaul_protocol::value::{Digest32, UnixMillis};

use crate::jws::{self, JwsError, Kind, peek};
use crate::trust::{Anchors, TrustError};

pub use root::{RootSigner, Sign, verify_journal, verify_root};

/// The longest receipt that is read, in bytes.
pub const MAX_RECEIPT: usize = 128 * 1024;

/// Why a receipt does not hold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// Not a receipt, or not written as receipts are: its bytes were altered.
    #[error("not a receipt as boxes and clouds write it: {0}")]
    Malformed(String),
    /// A version of the format that is not known here.
    #[error("receipt has version {0}, this program reads {VERSION}")]
    Version(u16),
    /// The box's signature, or who made it.
    #[error("the box's signature under the root does not hold: {0}")]
    Root(#[from] RootError),
    /// The leaf is not below the root.
    #[error("the receipt of {0} is not below the root that the box signed")]
    Proof(String),
    /// The cloud's signature, or who made it.
    #[error("the cloud's signature under the delivery of {key} does not hold")]
    Delivery {
        /// The object.
        key: String,
        /// Why.
        source: JwsError,
    },
    /// The cloud's signature is about something else.
    #[error("the cloud's signature in the receipt of {0} is about something else")]
    OtherDelivery(String),
}

/// Why a box's signature under a root does not hold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// Not a signed root.
    #[error("not a signed root: {0}")]
    Malformed(String),
    /// The signer is no box of this fleet, or was none at that time.
    #[error("the signer is not a box of this fleet")]
    Signer(#[source] TrustError),
    /// The root names another box than the signer.
    #[error("it names box {claimed}, but box {by} signed it")]
    OtherBox {
        /// Who it says that it is from.
        claimed: BoxId,
        /// Who signed.
        by: BoxId,
    },
    /// The bytes were altered, or somebody else signed them.
    #[error("the signature is wrong")]
    Signature,
    /// The key could not sign.
    #[error("the key could not sign: {0}")]
    Sign(String),
}

/// What a receipt proves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Proven {
    /// The box that took the object.
    pub box_id: BoxId,
    /// The object, its length and its digest.
    pub leaf: Leaf,
    /// When the box sealed it: it was safe on the box then.
    pub sealed: UnixMillis,
    /// When the cloud had compared it in the bucket; absent where the receipt does not say.
    pub verified: Option<UnixMillis>,
}

impl Proven {
    /// Whether these are the very bytes.
    pub fn is_of(&self, bytes: u64, blake3: Digest32) -> bool {
        self.leaf.bytes == bytes && self.leaf.blake3 == blake3
    }
}

/// Reads and verifies one receipt. Only the bytes that were issued are accepted: no other spaces,
/// no other order, nothing more.
///
/// # Errors
///
/// [`ReceiptError`] says what does not hold.
pub fn verify(bytes: &[u8], anchors: &Anchors) -> Result<Proven, ReceiptError> {
    if bytes.len() > MAX_RECEIPT {
        return Err(ReceiptError::Malformed("longer than 128 KiB".to_owned()));
    }
    let malformed = |e: serde_json::Error| ReceiptError::Malformed(e.to_string());
    let receipt: Receipt = serde_json::from_slice(bytes).map_err(malformed)?;
    if receipt.v != VERSION {
        return Err(ReceiptError::Version(receipt.v));
    }
    if serde_json::to_vec(&receipt).map_err(malformed)? != bytes {
        return Err(ReceiptError::Malformed(
            "its text is not the one that was issued".to_owned(),
        ));
    }
    let key = || receipt.leaf.object.key.to_string();
    let root = verify_root(&receipt.root, anchors)?;
    let leaf = tree::leaf_hash(&receipt.leaf).map_err(malformed)?;
    if receipt.proof.leaves != root.leaves || tree::root_of(leaf, &receipt.proof) != Some(root.root)
    {
        return Err(ReceiptError::Proof(key()));
    }
    let mut verified = None;
    if let Some(delivery) = &receipt.delivery {
        let failed = |source| ReceiptError::Delivery { key: key(), source };
        // The time is read before the signature is judged by it: whoever alters it breaks it.
        let signed: DeliveryClaims = peek(delivery)
            .ok_or_else(|| failed(JwsError::Malformed("the payload is not a delivery")))?;
        let checked = jws::verify(delivery, Kind::Receipt, anchors, signed.signed);
        let checked = checked.map_err(failed)?;
        let claims: DeliveryClaims = serde_json::from_slice(&checked.payload).map_err(malformed)?;
        let same =
            claims.v == VERSION && claims.box_id == root.box_id && claims.leaf == receipt.leaf;
        if !same {
            return Err(ReceiptError::OtherDelivery(key()));
        }
        verified = Some(claims.verified);
    }
    Ok(Proven {
        box_id: root.box_id,
        leaf: receipt.leaf,
        sealed: root.sealed,
        verified,
    })
}

#[cfg(test)]
mod tests;
