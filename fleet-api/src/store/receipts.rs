//! Receipts: the leaves that boxes name with their objects, and the roots that they sign.

use longhaul_protocol::ids::{BoxId, EpochId, ObjectKey};
use longhaul_protocol::journal::ObjectVersion;
use longhaul_protocol::receipt::{Leaf, LeafPlace, RootClaims};
use longhaul_protocol::value::{Digest32, Jws, UnixMillis};
use sqlx::FromRow;

use super::tx::to_i64;
use super::{StoreResult, Tx};

/// One leaf.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct LeafRow {
    /// The box.
    #[sqlx(try_from = "String")]
    pub box_id: BoxId,
    /// The epoch.
    pub epoch: String,
    /// Its place in the epoch, from 0.
    pub place: i64,
    /// The bucket.
    pub bucket: String,
    /// The object's name there.
    #[sqlx(try_from = "String")]
    pub object_key: ObjectKey,
    /// The vault's version number.
    pub version: i64,
    /// Length in bytes.
    pub bytes: i64,
    /// BLAKE3 of the bytes.
    #[sqlx(try_from = "String")]
    pub blake3: Digest32,
    /// When it was durable on the box.
    pub stored: i64,
}

impl LeafRow {
    /// As it was hashed. Numbers were written from `u64` and are never negative.
    pub fn leaf(&self) -> Leaf {
        Leaf {
            object: ObjectVersion {
                bucket: self.bucket.clone(),
                key: self.object_key.clone(),
                version: u64::try_from(self.version).unwrap_or(0),
            },
            bytes: u64::try_from(self.bytes).unwrap_or(0),
            blake3: self.blake3,
            stored: UnixMillis(self.stored),
        }
    }
}

/// A leaf below a signed root, and when the cloud compared the object.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct SealedLeafRow {
    /// The leaf.
    #[sqlx(flatten)]
    pub leaf: LeafRow,
    /// The root.
    #[sqlx(try_from = "String")]
    pub root: Digest32,
    /// The root as the box signed it.
    pub jws: String,
    /// When the object was compared in the bucket; absent while it was not.
    pub verified: Option<i64>,
}

/// Where the page before ended: key, box, epoch, place.
#[derive(Clone, Debug)]
pub struct ReceiptPlace {
    /// The object's name.
    pub key: String,
    /// The box.
    pub box_id: String,
    /// The epoch.
    pub epoch: String,
    /// The place in it.
    pub place: i64,
}

/// Takes down where an object's leaf is; one that is known stays.
pub async fn receipt_leaf_insert(
    tx: &mut Tx,
    box_id: &BoxId,
    object: &ObjectVersion,
    bytes: u64,
    blake3: Digest32,
    place: &LeafPlace,
) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO receipt_leaves (box_id, epoch, place, bucket, object_key, version, bytes, \
             blake3, stored) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (box_id, epoch, place) DO NOTHING",
        box_id.as_str(),
        place.epoch.as_str(),
        to_i64("place", place.index)?,
        object.bucket.as_str(),
        object.key.as_str(),
        to_i64("version", object.version)?,
        to_i64("length", bytes)?,
        blake3.to_string(),
        place.stored.0,
    )?;
    Ok(())
}

/// Takes down a root that was verified; `false` if the epoch has one: that stays.
pub async fn receipt_root_insert(tx: &mut Tx, claims: &RootClaims, jws: &Jws) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "INSERT INTO receipt_roots (box_id, epoch, root, leaves, sealed, jws) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (box_id, epoch) DO NOTHING",
        claims.box_id.as_str(),
        claims.epoch.as_str(),
        claims.root.to_string(),
        to_i64("leaves", claims.leaves)?,
        claims.sealed.0,
        jws.0.as_str(),
    )?;
    Ok(rows == 1)
}

/// Every leaf of an epoch, in order.
pub async fn receipt_leaf_list(
    tx: &mut Tx,
    box_id: &BoxId,
    epoch: &EpochId,
) -> StoreResult<Vec<LeafRow>> {
    fetch!(
        all,
        tx,
        LeafRow,
        "SELECT * FROM receipt_leaves WHERE box_id = $1 AND epoch = $2 ORDER BY place",
        box_id.as_str(),
        epoch.as_str(),
    )
}

/// Sealed leaves, of one box if it is named, of the keys from `from` up to but without `to`, after `after`.
pub async fn receipt_list(
    tx: &mut Tx,
    box_id: Option<&BoxId>,
    bucket: &str,
    from: &str,
    to: Option<&str>,
    after: Option<&ReceiptPlace>,
    limit: u32,
) -> StoreResult<Vec<SealedLeafRow>> {
    fetch!(
        all,
        tx,
        SealedLeafRow,
        "SELECT l.*, r.root, r.jws, \
           (SELECT u.updated FROM uploads u WHERE u.box_id = l.box_id AND u.bucket = l.bucket \
            AND u.object_key = l.object_key AND u.version = l.version AND u.state = 'verified' \
            AND u.blake3 = l.blake3 AND u.bytes = l.bytes) AS verified \
         FROM receipt_leaves l \
         JOIN receipt_roots r ON r.box_id = l.box_id AND r.epoch = l.epoch \
         WHERE l.bucket = $1 AND l.object_key >= $2 \
           AND (CAST($3 AS TEXT) IS NULL OR l.object_key < $3) \
           AND (l.object_key, l.box_id, l.epoch, l.place) > ($4, $5, $6, $7) \
           AND (CAST($9 AS TEXT) IS NULL OR l.box_id = $9) \
         ORDER BY l.object_key, l.box_id, l.epoch, l.place LIMIT $8",
        bucket,
        from,
        to,
        after.map_or("", |p| p.key.as_str()),
        after.map_or("", |p| p.box_id.as_str()),
        after.map_or("", |p| p.epoch.as_str()),
        after.map_or(-1, |p| p.place),
        i64::from(limit),
        box_id.map(BoxId::as_str),
    )
}
