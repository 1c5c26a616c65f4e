//! Receipts: proof that a file was taken by a box and arrived in the bucket, checkable offline.
//!
//! The box keeps a Merkle tree over the leaves of one epoch and signs its root with a TPM key; the
//! cloud countersigns what it has verified in the bucket. Hash: BLAKE3; a leaf is the hash of
//! `0x00 ||` the leaf's canonical JSON, an inner node of `0x01 || left || right` (the domain
//! separation of RFC 6962 section 2.1).

use serde::{Deserialize, Serialize};

use crate::ids::{BoxId, EpochId};
use crate::journal::ObjectVersion;
use crate::value::{Digest32, Jws, UnixMillis};

/// What a receipt is about.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Leaf {
    /// The object.
    pub object: ObjectVersion,
    /// Its length in bytes.
    pub bytes: u64,
    /// BLAKE3 of its bytes.
    pub blake3: Digest32,
    /// When it was durable on the box.
    pub stored: UnixMillis,
}

/// A place in the tree and the hashes beside the way to the root.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct InclusionProof {
    /// The leaf's place, from 0.
    pub index: u64,
    /// Leaves in the tree.
    pub leaves: u64,
    /// Hashes beside the way, from the leaf upwards; at most 64.
    pub path: Vec<Digest32>,
}

/// A root, as the box signs it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RootClaims {
    /// Version of this format; see [`crate::envelope::VERSION`].
    pub v: u16,
    /// The box.
    pub box_id: BoxId,
    /// The epoch that was sealed.
    pub epoch: EpochId,
    /// The root.
    pub root: Digest32,
    /// Leaves below it.
    pub leaves: u64,
    /// When it was sealed.
    pub sealed: UnixMillis,
}

/// What the cloud adds once it has compared the object in the bucket.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DeliveryClaims {
    /// Version of this format; see [`crate::envelope::VERSION`].
    pub v: u16,
    /// The box that brought it.
    pub box_id: BoxId,
    /// What was compared.
    pub leaf: Leaf,
    /// When.
    pub verified: UnixMillis,
    /// When this was signed: the signer's certificate held then.
    pub signed: UnixMillis,
}

/// Where an object's leaf is, as the box tells the cloud with the object.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LeafPlace {
    /// The epoch whose root will cover it.
    pub epoch: EpochId,
    /// Its place in the epoch, from 0.
    pub index: u64,
    /// [`Leaf::stored`].
    pub stored: UnixMillis,
}

/// The most leaves in one epoch: whoever proves one of them reads them all.
pub const MAX_EPOCH_LEAVES: u64 = 1 << 16;

/// A box `POST`s [`ReceiptAsk`] here at the cloud; answers [`ReceiptTexts`] of its own objects.
pub const BOX_RECEIPTS_PATH: &str = "/v1/box/receipts";

/// Receipts in one answer by way of a box at the most.
pub const MAX_RECEIPTS: u32 = 200;

/// Asks for receipts of a bucket's objects.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ReceiptAsk {
    /// The bucket.
    pub bucket: String,
    /// What keys start with.
    #[serde(default)]
    pub prefix: String,
    /// [`ReceiptTexts::next`] of the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Some receipts, in the order of the keys; [`MAX_RECEIPTS`] at the most.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ReceiptTexts {
    /// The receipts, each to be kept byte for byte.
    pub items: Vec<String>,
    /// Where to go on; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One file's receipt.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Receipt {
    /// Version of this format; see [`crate::envelope::VERSION`].
    pub v: u16,
    /// What was taken.
    pub leaf: Leaf,
    /// That it is in the tree.
    pub proof: InclusionProof,
    /// [`RootClaims`] signed by the box: "safe on box".
    pub root: Jws,
    /// [`DeliveryClaims`] signed by the cloud: "safe in cloud".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Jws>,
}
