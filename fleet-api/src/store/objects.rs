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
