//! Orders: a customer's journey of a box.

use longhaul_protocol::ids::OrderId;
use sqlx::FromRow;

use super::filter::{Filter, FilterField, Holds};
use super::listing::field;
use super::tenants::TenantId;
use super::tx::{Piece, rows};
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
    /// Whose it is; absent for the fleet's own.
    pub tenant_id: Option<String>,
}

/// Adds an order; `false` if one of that name exists.
pub async fn order_insert(tx: &mut Tx, row: &OrderRow) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "INSERT INTO orders (order_id, customer, bucket, note, created_by, created, \
             tenant_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (order_id) DO NOTHING",
        row.order_id.as_str(),
        row.customer.as_str(),
        row.bucket.as_str(),
        row.note.as_str(),
        row.created_by.as_str(),
        row.created,
        row.tenant_id.as_deref(),
    )?;
    Ok(rows == 1)
}

/// One order; for a tenant, only of its own.
pub async fn order_get(
    tx: &mut Tx,
    id: &OrderId,
    tenant: Option<&TenantId>,
) -> StoreResult<Option<OrderRow>> {
    fetch!(
        optional,
        tx,
        OrderRow,
        "SELECT * FROM orders WHERE order_id = $1 \
           AND (CAST($2 AS TEXT) IS NULL OR tenant_id = $2)",
        id.as_str(),
        tenant.map(TenantId::as_str),
    )
}

/// What orders can be asked for by.
pub const ORDER_FIELDS: [FilterField; 7] = [
    field("id", "order_id", Holds::Text),
    field("customer", "customer", Holds::Text),
    field("tenant", "tenant_id", Holds::Text),
    field("bucket", "bucket", Holds::Text),
    field("note", "note", Holds::Text),
    field("by", "created_by", Holds::Text),
    field("created", "created", Holds::Time),
];

/// Orders that `filter` finds in the order of their names, from the one after `after`; for a tenant,
/// its own.
pub async fn order_list(
    tx: &mut Tx,
    tenant: Option<&TenantId>,
    filter: &Filter,
    after: Option<&OrderId>,
    limit: u32,
) -> StoreResult<Vec<OrderRow>> {
    let mut list: Vec<Piece> = vec![
        "SELECT * FROM orders WHERE order_id > ".into(),
        Piece::Text(after.map_or("", OrderId::as_str).to_owned()),
    ];
    if let Some(tenant) = tenant {
        list.push(" AND tenant_id = ".into());
        list.push(Piece::Text(tenant.as_str().to_owned()));
    }
    filter.push(&mut list);
    list.push(" ORDER BY order_id LIMIT ".into());
    list.push(Piece::Int(i64::from(limit)));
    rows(tx, list).await
}
