//! Destinations: what the cloud found out about each bucket.

use sqlx::FromRow;

use super::{StoreResult, Tx};

/// What was found out about a bucket.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct DestinationRow {
    /// The bucket.
    pub bucket: String,
    /// What it can do: JSON.
    pub detail: String,
    /// Whether deliveries can go there.
    pub usable: bool,
    /// When it was tried out.
    pub checked: i64,
}

/// Takes down what was found out.
pub async fn destination_set(tx: &mut Tx, row: &DestinationRow) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO destinations (bucket, detail, usable, checked) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (bucket) DO UPDATE SET detail = excluded.detail, usable = excluded.usable, \
             checked = excluded.checked",
        row.bucket.as_str(),
        row.detail.as_str(),
        row.usable,
        row.checked,
    )?;
    Ok(())
}

/// What was found out about a bucket.
pub async fn destination_get(tx: &mut Tx, bucket: &str) -> StoreResult<Option<DestinationRow>> {
    fetch!(
        optional,
        tx,
        DestinationRow,
        "SELECT * FROM destinations WHERE bucket = $1",
        bucket
    )
}

/// Buckets of orders and tickets that were not tried out since `usable_since`, or since
/// `broken_since` where something was wrong; at most `limit`.
pub async fn destination_list_due(
    tx: &mut Tx,
    usable_since: i64,
    broken_since: i64,
    limit: u32,
) -> StoreResult<Vec<String>> {
    let rows = fetch!(
        all,
        tx,
        (String,),
        "SELECT b.bucket FROM \
             (SELECT bucket FROM orders UNION SELECT bucket FROM tickets) b \
         LEFT JOIN destinations d ON d.bucket = b.bucket \
         WHERE d.bucket IS NULL OR (d.usable AND d.checked < $1) \
             OR (NOT d.usable AND d.checked < $2) \
         ORDER BY b.bucket LIMIT $3",
        usable_since,
        broken_since,
        i64::from(limit),
    )?;
    Ok(rows.into_iter().map(|(bucket,)| bucket).collect())
}
