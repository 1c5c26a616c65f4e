//! Tickets: who may write to a box, and until when. Their secrets are stored sealed.

use longhaul_protocol::ids::{BoxId, OrderId, TicketId};
use sqlx::FromRow;

use super::filter::{Filter, FilterField, Holds};
use super::listing::{Listing, field};
use super::tenants::TenantId;
use super::tx::rows;
use super::{StoreResult, Tx};

/// One ticket.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct TicketRow {
    /// Its name.
    #[sqlx(try_from = "String")]
    pub ticket_id: TicketId,
    /// The box that it is for.
    #[sqlx(try_from = "String")]
    pub box_id: BoxId,
    /// The order that it belongs to.
    pub order_id: Option<String>,
    /// The bucket that it reaches.
    pub bucket: String,
    /// Its public half.
    pub access_key: String,
    /// Its secret half under [`super::seal::SealKey`], bound to the ticket's name.
    pub secret_sealed: Vec<u8>,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created: i64,
    /// When it ends.
    pub expires: i64,
    /// When it was revoked.
    pub revoked: Option<i64>,
    /// Whose it is; absent for the fleet's own.
    pub tenant_id: Option<String>,
}

/// Takes down a ticket.
pub async fn ticket_insert(tx: &mut Tx, row: &TicketRow) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO tickets (ticket_id, box_id, order_id, bucket, access_key, secret_sealed, \
             created_by, created, expires, tenant_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        row.ticket_id.as_str(),
        row.box_id.as_str(),
        row.order_id.as_deref(),
        row.bucket.as_str(),
        row.access_key.as_str(),
        row.secret_sealed.as_slice(),
        row.created_by.as_str(),
        row.created,
        row.expires,
        row.tenant_id.as_deref(),
    )?;
    Ok(())
}

/// One ticket.
pub async fn ticket_get(tx: &mut Tx, id: &TicketId) -> StoreResult<Option<TicketRow>> {
    fetch!(
        optional,
        tx,
        TicketRow,
        "SELECT * FROM tickets WHERE ticket_id = $1",
        id.as_str()
    )
}

/// The ticket with this access key.
pub async fn ticket_find(tx: &mut Tx, access_key: &str) -> StoreResult<Option<TicketRow>> {
    fetch!(
        optional,
        tx,
        TicketRow,
        "SELECT * FROM tickets WHERE access_key = $1",
        access_key
    )
}

/// Whether a ticket of the box names the bucket; one that has ended counts, too.
pub async fn ticket_names(tx: &mut Tx, box_id: &BoxId, bucket: &str) -> StoreResult<bool> {
    let found = fetch!(
        optional,
        tx,
        (String,),
        "SELECT ticket_id FROM tickets WHERE box_id = $1 AND bucket = $2 LIMIT 1",
        box_id.as_str(),
        bucket,
    )?;
    Ok(found.is_some())
}

/// A box's tickets, newest first; for a tenant, its own.
pub async fn ticket_list(
    tx: &mut Tx,
    box_id: &BoxId,
    tenant: Option<&TenantId>,
    limit: u32,
) -> StoreResult<Vec<TicketRow>> {
    fetch!(
        all,
        tx,
        TicketRow,
        "SELECT * FROM tickets WHERE box_id = $1 \
           AND (CAST($3 AS TEXT) IS NULL OR tenant_id = $3) \
         ORDER BY created DESC, ticket_id DESC LIMIT $2",
        box_id.as_str(),
        i64::from(limit),
        tenant.map(TenantId::as_str),
    )
}

/// What tickets can be asked for by.
pub const TICKET_FIELDS: [FilterField; 10] = [
    field("id", "ticket_id", Holds::Text),
    field("box", "box_id", Holds::Text),
    field("order", "order_id", Holds::Text),
    field("tenant", "tenant_id", Holds::Text),
    field("bucket", "bucket", Holds::Text),
    field("access_key", "access_key", Holds::Text),
    field("by", "created_by", Holds::Text),
    field("created", "created", Holds::Time),
    field("expires", "expires", Holds::Time),
    field("revoked", "revoked", Holds::Time),
];

/// Tickets of all boxes, or of one order, that `filter` finds, newest first, from the one before
/// `before`: when it was made, and its name. For a tenant, its own.
pub async fn ticket_list_all(
    tx: &mut Tx,
    tenant: Option<&TenantId>,
    order: Option<&OrderId>,
    filter: &Filter,
    before: Option<(i64, &str)>,
    limit: u32,
) -> StoreResult<Vec<TicketRow>> {
    let list = Listing::of("SELECT * FROM tickets WHERE TRUE")
        .equal("order_id", order.map(OrderId::as_str))
        .equal("tenant_id", tenant.map(TenantId::as_str))
        .filter(filter)
        .newest(("created", "ticket_id"), before, limit);
    rows(tx, list).await
}

/// The tickets that may write to the box now, by name.
pub async fn ticket_list_valid(
    tx: &mut Tx,
    box_id: &BoxId,
    now: i64,
) -> StoreResult<Vec<TicketRow>> {
    fetch!(
        all,
        tx,
        TicketRow,
        "SELECT * FROM tickets WHERE box_id = $1 AND expires > $2 AND revoked IS NULL \
         ORDER BY ticket_id",
        box_id.as_str(),
        now,
    )
}

/// Ends a ticket at once; `false` if there is none or it is revoked already.
pub async fn ticket_revoke(tx: &mut Tx, id: &TicketId, now: i64) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE tickets SET revoked = $2 WHERE ticket_id = $1 AND revoked IS NULL",
        id.as_str(),
        now,
    )?;
    Ok(rows == 1)
}
