//! The objects of a pack, many in one statement: the way of a statement to the database and back
//! costs more than what it does there.

use std::collections::HashSet;

use longhaul_protocol::ids::{BoxId, PackId};

use super::tx::{Piece, rows};
use super::{StoreResult, Tx};

/// Names in one statement at the most; both databases take some 32,000.
const AT_ONCE: usize = 1024;

/// Which of `keys` are objects of the bucket.
pub async fn objects_there(
    tx: &mut Tx,
    bucket: &str,
    keys: &[&str],
) -> StoreResult<HashSet<String>> {
    let head = [
        "SELECT object_key FROM objects WHERE bucket = ".into(),
        Piece::Text(bucket.to_owned()),
        " AND object_key IN ".into(),
    ];
    found(tx, keys, &head, "").await
}

/// Which of `keys` a box has an upload for that a pack carries and that is not at its end.
pub async fn keys_in_packs(
    tx: &mut Tx,
    box_id: &BoxId,
    bucket: &str,
    keys: &[&str],
) -> StoreResult<HashSet<String>> {
    let head = [
        "SELECT uploads.object_key FROM uploads \
             JOIN pack_entries ON pack_entries.upload_id = uploads.upload_id \
             WHERE uploads.state IN ('started', 'completing') AND uploads.box_id = "
            .into(),
        Piece::Text(box_id.to_string()),
        " AND uploads.bucket = ".into(),
        Piece::Text(bucket.to_owned()),
        " AND uploads.object_key IN ".into(),
    ];
    found(tx, keys, &head, "").await
}

/// Lets the pack carry these uploads, and no other pack any more.
pub async fn pack_add(tx: &mut Tx, id: &PackId, uploads: &[&str]) -> StoreResult<()> {
    let head = [
        "INSERT INTO pack_entries (upload_id, pack_id) SELECT upload_id, ".into(),
        Piece::Text(id.to_string()),
        " FROM uploads WHERE upload_id IN ".into(),
    ];
    let tail = " ON CONFLICT (upload_id) DO UPDATE SET pack_id = excluded.pack_id \
             RETURNING upload_id";
    found(tx, uploads, &head, tail).await?;
    Ok(())
}

/// Marks that entries are about to be put into their bucket, and yields which: not those that are
/// there, were given up, or travel in another pack by now.
pub async fn pack_entries_begin(
    tx: &mut Tx,
    id: &PackId,
    uploads: &[&str],
    now: i64,
) -> StoreResult<HashSet<String>> {
    let head = [
        "UPDATE uploads SET state = 'completing', updated = ".into(),
        Piece::Int(now),
        " WHERE state IN ('started', 'completing') AND EXISTS ( \
                 SELECT 1 FROM pack_entries e \
                 WHERE e.upload_id = uploads.upload_id AND e.pack_id = "
            .into(),
        Piece::Text(id.to_string()),
        ") AND upload_id IN ".into(),
    ];
    let tail = " RETURNING upload_id";
    found(tx, uploads, &head, tail).await
}

/// Takes down that what these uploads carried is in its bucket, compared. No two of them may be of
/// the same object. An object of the same name is replaced, unless it is a later version from the
/// same box.
pub async fn uploads_verified(tx: &mut Tx, uploads: &[&str], now: i64) -> StoreResult<()> {
    let end = [
        "UPDATE uploads SET state = 'verified', reason = NULL, updated = ".into(),
        Piece::Int(now),
        " WHERE state <> 'verified' AND upload_id IN ".into(),
    ];
    let tail = " RETURNING upload_id";
    found(tx, uploads, &end, tail).await?;
    let set = [
        "INSERT INTO objects (bucket, object_key, box_id, version, bytes, blake3, \
                 content_type, upload_id, verified) \
             SELECT bucket, object_key, box_id, version, bytes, blake3, content_type, upload_id, "
            .into(),
        Piece::Int(now),
        " FROM uploads WHERE upload_id IN ".into(),
    ];
    let tail = " ON CONFLICT (bucket, object_key) DO UPDATE SET box_id = excluded.box_id, \
                 version = excluded.version, bytes = excluded.bytes, blake3 = excluded.blake3, \
                 content_type = excluded.content_type, upload_id = excluded.upload_id, \
                 verified = excluded.verified \
             WHERE objects.box_id <> excluded.box_id OR objects.version <= excluded.version \
             RETURNING object_key";
    found(tx, uploads, &set, tail).await?;
    Ok(())
}

/// What `head (name, name, ..) tail` yields, for all the names.
async fn found(
    tx: &mut Tx,
    names: &[&str],
    head: &[Piece],
    tail: &'static str,
) -> StoreResult<HashSet<String>> {
    let mut all = HashSet::with_capacity(names.len());
    for names in names.chunks(AT_ONCE) {
        let mut statement = head.to_vec();
        for (place, name) in names.iter().enumerate() {
            statement.push(if place == 0 { "(" } else { ", " }.into());
            statement.push(Piece::Text((*name).to_owned()));
        }
        statement.extend([")".into(), tail.into()]);
        let some: Vec<(String,)> = rows(tx, statement).await?;
        all.extend(some.into_iter().map(|(name,)| name));
    }
    Ok(all)
}
