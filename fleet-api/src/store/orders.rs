//! Orders: a customer's journey of a box.

use longhaul_protocol::ids::OrderId;
use sqlx::FromRow;

use super::{StoreResult, Tx};

/// One order.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct OrderRow {
    /// Its name.
    #[sqlx(try_from = "String")]
    pub order_id: OrderId,
    /// Whose it is.
    pub customer: String,
    /// The bucket that its objects go to.
    pub bucket: String,
    /// What an operator wrote.
    pub note: String,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created: i64,
}

/// Adds an order; `false` if one of that name exists.
pub async fn order_insert(tx: &mut Tx, row: &OrderRow) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "INSERT INTO orders (order_id, customer, bucket, note, created_by, created) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (order_id) DO NOTHING",
        row.order_id.as_str(),
        row.customer.as_str(),
        row.bucket.as_str(),
        row.note.as_str(),
        row.created_by.as_str(),
        row.created,
    )?;
    Ok(rows == 1)
}

/// One order.
pub async fn order_get(tx: &mut Tx, id: &OrderId) -> StoreResult<Option<OrderRow>> {
    fetch!(
        optional,
        tx,
        OrderRow,
        "SELECT * FROM orders WHERE order_id = $1",
        id.as_str()
    )
}

/// Orders in the order of their names, from the one after `after`.
pub async fn order_list(
    tx: &mut Tx,
    after: Option<&OrderId>,
    limit: u32,
) -> StoreResult<Vec<OrderRow>> {
    fetch!(
        all,
        tx,
        OrderRow,
        "SELECT * FROM orders WHERE order_id > $1 ORDER BY order_id LIMIT $2",
        after.map_or("", OrderId::as_str),
        i64::from(limit),
    )
}
