//! Objects in the buckets that the cloud has verified.

use longhaul_protocol::ids::{BoxId, ObjectKey};
use longhaul_protocol::value::Digest32;
use sqlx::FromRow;

use super::tx::plain;
use super::{StoreResult, Tx};

/// One object.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct ObjectRow {
    /// The bucket.
    pub bucket: String,
    /// Its name.
    #[sqlx(try_from = "String")]
    pub object_key: ObjectKey,
    /// The box that brought it.
    #[sqlx(try_from = "String")]
    pub box_id: BoxId,
    /// The vault's version number there.
    pub version: i64,
    /// Length in bytes.
    pub bytes: i64,
    /// BLAKE3 of the bytes.
    #[sqlx(try_from = "String")]
    pub blake3: Digest32,
    /// Content type.
    pub content_type: Option<String>,
    /// The upload that carried it.
    pub upload_id: String,
    /// When the cloud compared it.
    pub verified: i64,
}

/// Takes down an object; one of the same name is replaced, unless it is a later version from the
/// same box: an old upload that completes late does not win. `false` if it lost.
pub async fn object_set(tx: &mut Tx, row: &ObjectRow) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "INSERT INTO objects (bucket, object_key, box_id, version, bytes, blake3, content_type, \
             upload_id, verified) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
         ON CONFLICT (bucket, object_key) DO UPDATE SET box_id = excluded.box_id, \
             version = excluded.version, bytes = excluded.bytes, blake3 = excluded.blake3, \
             content_type = excluded.content_type, upload_id = excluded.upload_id, \
             verified = excluded.verified \
         WHERE objects.box_id <> excluded.box_id OR objects.version <= excluded.version",
        row.bucket.as_str(),
        row.object_key.as_str(),
        row.box_id.as_str(),
        row.version,
        row.bytes,
        row.blake3.to_string(),
        row.content_type.as_deref().map(plain),
        row.upload_id.as_str(),
        row.verified,
    )?;
    Ok(rows == 1)
}

/// One object.
pub async fn object_get(
    tx: &mut Tx,
    bucket: &str,
    key: &ObjectKey,
) -> StoreResult<Option<ObjectRow>> {
    fetch!(
        optional,
        tx,
        ObjectRow,
        "SELECT * FROM objects WHERE bucket = $1 AND object_key = $2",
        bucket,
        key.as_str()
    )
}

/// A bucket's objects whose names begin with `prefix`, in the order of their names' bytes, from
/// the one after `after`.
pub async fn object_list(
    tx: &mut Tx,
    bucket: &str,
    prefix: &str,
    after: Option<&str>,
    limit: u32,
) -> StoreResult<Vec<ObjectRow>> {
    // The first condition is for the index, the second is the truth.
    fetch!(
        all,
        tx,
        ObjectRow,
        "SELECT * FROM objects \
         WHERE bucket = $1 AND object_key >= $2 AND substr(object_key, 1, length($2)) = $2 \
           AND object_key > $3 \
         ORDER BY object_key LIMIT $4",
        bucket,
        plain(prefix),
        plain(after.unwrap_or("")),
        i64::from(limit),
    )
}

/// Buckets that hold objects: `(name, objects, bytes)`.
pub async fn object_buckets(tx: &mut Tx) -> StoreResult<Vec<(String, i64, i64)>> {
    fetch!(
        all,
        tx,
        (String, i64, i64),
        "SELECT bucket, count(*), CAST(coalesce(sum(bytes), 0) AS BIGINT) FROM objects \
         GROUP BY bucket ORDER BY bucket"
    )
}

/// Forgets an object; `false` if there is none.
pub async fn object_delete(tx: &mut Tx, bucket: &str, key: &ObjectKey) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "DELETE FROM objects WHERE bucket = $1 AND object_key = $2",
        bucket,
        key.as_str()
    )?;
    Ok(rows == 1)
}
