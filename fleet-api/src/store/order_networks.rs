//! What is known of the networks that orders' boxes go to, and the probes' reports.

use longhaul_protocol::ids::OrderId;
use sqlx::FromRow;

use super::{StoreResult, Tx};

/// Reports of one order that are kept: the newest.
const KEPT: i64 = 20;

/// What is known of one order's network.
#[derive(Clone, Debug, Eq, FromRow, PartialEq)]
pub struct NetworkRow {
    /// The order.
    #[sqlx(try_from = "String")]
    pub order_id: OrderId,
    /// What people answered: JSON.
    pub said: String,
    /// Who answered which question: JSON.
    pub said_by: String,
    /// What a probe found: JSON.
    pub found: String,
    /// The report that it comes from.
    pub report_id: Option<String>,
    /// When any of it changed.
    pub updated: i64,
}

/// One report.
#[derive(Clone, Debug, Eq, FromRow, PartialEq)]
pub struct ReportRow {
    /// The order.
    #[sqlx(try_from = "String")]
    pub order_id: OrderId,
    /// Hash of what was signed.
    pub report_id: String,
    /// When it came.
    pub received: i64,
    /// Who sent it: a person, or the probe itself.
    pub sent_by: String,
    /// The report: JSON.
    pub detail: String,
}

/// What is known of an order's network, if anything.
pub async fn order_network_get(tx: &mut Tx, order: &OrderId) -> StoreResult<Option<NetworkRow>> {
    fetch!(
        optional,
        tx,
        NetworkRow,
        "SELECT * FROM order_networks WHERE order_id = $1",
        order.as_str(),
    )
}

/// Takes the order for this transaction: whoever else wants to change its network waits.
pub async fn order_network_lock(tx: &mut Tx, order: &OrderId) -> StoreResult<()> {
    execute!(
        tx,
        "UPDATE orders SET note = note WHERE order_id = $1",
        order.as_str(),
    )?;
    Ok(())
}

/// Writes what is known.
pub async fn order_network_set(tx: &mut Tx, row: &NetworkRow) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO order_networks (order_id, said, said_by, found, report_id, updated) \
         VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (order_id) DO UPDATE SET said = excluded.said, said_by = excluded.said_by, \
             found = excluded.found, report_id = excluded.report_id, updated = excluded.updated",
        row.order_id.as_str(),
        row.said.as_str(),
        row.said_by.as_str(),
        row.found.as_str(),
        row.report_id.as_deref(),
        row.updated,
    )?;
    Ok(())
}

/// Keeps a report, and no more than the newest of its order; `false` if it was there.
pub async fn probe_report_insert(tx: &mut Tx, row: &ReportRow) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "INSERT INTO probe_reports (order_id, report_id, received, sent_by, detail) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (order_id, report_id) DO NOTHING",
        row.order_id.as_str(),
        row.report_id.as_str(),
        row.received,
        row.sent_by.as_str(),
        row.detail.as_str(),
    )?;
    execute!(
        tx,
        "DELETE FROM probe_reports WHERE order_id = $1 AND report_id NOT IN \
           (SELECT report_id FROM probe_reports WHERE order_id = $1 \
            ORDER BY received DESC, report_id DESC LIMIT $2)",
        row.order_id.as_str(),
        KEPT,
    )?;
    Ok(rows == 1)
}

/// An order's reports, newest first, from the one after `before`.
pub async fn probe_report_list(
    tx: &mut Tx,
    order: &OrderId,
    before: Option<(i64, &str)>,
    limit: u32,
) -> StoreResult<Vec<ReportRow>> {
    let (received, id) = before.unwrap_or((i64::MAX, ""));
    fetch!(
        all,
        tx,
        ReportRow,
        "SELECT * FROM probe_reports WHERE order_id = $1 \
           AND (received < $2 OR (received = $2 AND report_id < $3)) \
         ORDER BY received DESC, report_id DESC LIMIT $4",
        order.as_str(),
        received,
        id,
        i64::from(limit),
    )
}
