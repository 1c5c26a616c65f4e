//! Tenants, and whose a bucket is.

use longhaul_protocol::ids::OrderId;
use sqlx::FromRow;

use super::{StoreResult, Tx};

/// A tenant's name: same rule as for orders.
pub type TenantId = OrderId;

/// One tenant.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct TenantRow {
    /// Its name in URLs.
    #[sqlx(try_from = "String")]
    pub tenant_id: TenantId,
    /// Its name for people.
    pub name: String,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created: i64,
}

/// Adds a tenant; `false` if the name is taken.
pub async fn tenant_insert(tx: &mut Tx, row: &TenantRow) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "INSERT INTO tenants (tenant_id, name, created_by, created) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (tenant_id) DO NOTHING",
        row.tenant_id.as_str(),
        row.name.as_str(),
        row.created_by.as_str(),
        row.created,
    )?;
    Ok(rows == 1)
}

/// One tenant.
pub async fn tenant_get(tx: &mut Tx, id: &TenantId) -> StoreResult<Option<TenantRow>> {
    fetch!(
        optional,
        tx,
        TenantRow,
        "SELECT * FROM tenants WHERE tenant_id = $1",
        id.as_str()
    )
}

/// Tenants in the order of their names, from the one after `after`.
pub async fn tenant_list(
    tx: &mut Tx,
    after: Option<&TenantId>,
    limit: u32,
) -> StoreResult<Vec<TenantRow>> {
    fetch!(
        all,
        tx,
        TenantRow,
        "SELECT * FROM tenants WHERE tenant_id > $1 ORDER BY tenant_id LIMIT $2",
        after.map_or("", TenantId::as_str),
        i64::from(limit),
    )
}

/// Takes a bucket for `tenant`, or for the fleet itself; `false` if it is somebody else's. The
/// table's key decides between two at once.
pub async fn bucket_claim(
    tx: &mut Tx,
    bucket: &str,
    tenant: Option<&TenantId>,
) -> StoreResult<bool> {
    execute!(
        tx,
        "INSERT INTO bucket_owners (bucket, tenant_id) VALUES ($1, $2) \
         ON CONFLICT (bucket) DO NOTHING",
        bucket,
        tenant.map(TenantId::as_str),
    )?;
    let (owner,) = fetch!(
        one,
        tx,
        (Option<String>,),
        "SELECT tenant_id FROM bucket_owners WHERE bucket = $1",
        bucket
    )?;
    Ok(owner.as_deref() == tenant.map(TenantId::as_str))
}

/// Whether a bucket is this tenant's.
pub async fn bucket_is_of(tx: &mut Tx, bucket: &str, tenant: &TenantId) -> StoreResult<bool> {
    let row = fetch!(
        optional,
        tx,
        (String,),
        "SELECT bucket FROM bucket_owners WHERE bucket = $1 AND tenant_id = $2",
        bucket,
        tenant.as_str(),
    )?;
    Ok(row.is_some())
}

/// A tenant's buckets, by name.
pub async fn bucket_list_of(tx: &mut Tx, tenant: &TenantId) -> StoreResult<Vec<String>> {
    let rows = fetch!(
        all,
        tx,
        (String,),
        "SELECT bucket FROM bucket_owners WHERE tenant_id = $1 ORDER BY bucket",
        tenant.as_str()
    )?;
    Ok(rows.into_iter().map(|(bucket,)| bucket).collect())
}

/// Gives a bucket that is the fleet's own, or nobody's, to a tenant, with its orders and tickets;
/// `false` if it is another tenant's.
pub async fn bucket_give(tx: &mut Tx, bucket: &str, tenant: &TenantId) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "INSERT INTO bucket_owners (bucket, tenant_id) VALUES ($1, $2) \
         ON CONFLICT (bucket) DO UPDATE SET tenant_id = excluded.tenant_id \
         WHERE bucket_owners.tenant_id IS NULL OR bucket_owners.tenant_id = excluded.tenant_id",
        bucket,
        tenant.as_str(),
    )?;
    if rows == 0 {
        return Ok(false);
    }
    for sql in [
        "UPDATE orders SET tenant_id = $2 WHERE bucket = $1 AND tenant_id IS NULL",
        "UPDATE tickets SET tenant_id = $2 WHERE bucket = $1 AND tenant_id IS NULL",
    ] {
        execute!(tx, sql, bucket, tenant.as_str())?;
    }
    Ok(true)
}
