//! Bulk commands: what a filter found, and one command for each box of it.

use longhaul_protocol::ids::{BoxId, CommandId};
use sqlx::FromRow;

use super::boxes::BoxState;
use super::filter::{Filter, FilterField, Holds};
use super::listing::field;
use super::tx::{Piece, rows};
use super::{StoreResult, Tx, text_enum};

/// What boxes can be asked for by.
pub const BOX_FIELDS: [FilterField; 11] = [
    field("id", "box_id", Holds::Text),
    field("label", "label", Holds::Text),
    field("site", "site", Holds::Text),
    field("hardware", "hardware", Holds::Text),
    field("order", "order_id", Holds::Text),
    field("tenant", "tenant_id", Holds::Text),
    field(
        "state",
        "state",
        Holds::Word(&["inventoried", "active", "quarantined", "revoked"]),
    ),
    field("online", "connected", Holds::Truth),
    field("version", "agent_version", Holds::Text),
    field("seen", "last_seen", Holds::Time),
    field("certificate", "certificate_expires", Holds::Time),
];

text_enum! {
    /// How far a bulk command has come.
    BulkState {
        /// It waits for a second person.
        Proposed = "proposed",
        /// Commands are being signed.
        Sending = "sending",
        /// Every box has its command, or a reason why not.
        Sent = "sent",
        /// Taken back. Terminal.
        Cancelled = "cancelled",
        /// Nobody approved it. Terminal.
        Refused = "refused",
    }
}

/// A box that a filter found.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct FoundRow {
    /// The box.
    #[sqlx(try_from = "String")]
    pub box_id: BoxId,
    /// Its state.
    #[sqlx(try_from = "String")]
    pub state: BoxState,
    /// Where it stands.
    pub site: String,
    /// Whether it has a session.
    pub connected: bool,
}

/// What was found and shown.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct PreviewRow {
    /// Its name.
    pub preview_id: String,
    /// What was asked.
    pub filter: String,
    /// The boxes that would get the command: JSON.
    pub boxes: String,
    /// Name of the command's kind.
    pub kind: String,
    /// What would be done: JSON.
    pub detail: String,
    /// Who asked.
    pub created_by: String,
    /// When.
    pub created: i64,
    /// Until when it can be used.
    pub expires: i64,
}

/// One bulk command.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct BulkRow {
    /// Its name.
    pub bulk_id: String,
    /// What was asked.
    pub filter: String,
    /// Name of the command's kind.
    pub kind: String,
    /// What is done: JSON.
    pub detail: String,
    /// How long each command may be begun, in seconds.
    pub valid_for_secs: i64,
    /// How far it has come.
    #[sqlx(try_from = "String")]
    pub state: BulkState,
    /// The proposal that two people agreed on, or shall.
    pub proposal_id: Option<String>,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created: i64,
    /// Who took it back.
    pub cancelled_by: Option<String>,
    /// When.
    pub cancelled: Option<i64>,
}

/// One box of a bulk command.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct BulkBoxRow {
    /// The box.
    #[sqlx(try_from = "String")]
    pub box_id: BoxId,
    /// Its command, once that is signed.
    pub command_id: Option<String>,
    /// Why it got none, or why the command did not do what it should.
    pub reason: Option<String>,
    /// The command's state.
    pub state: Option<String>,
    /// Its progress in percent.
    pub percent: Option<i64>,
    /// When that changed.
    pub updated: Option<i64>,
}

/// Boxes that a filter finds, in the order of their names.
pub async fn bulk_find(tx: &mut Tx, filter: &Filter, limit: u32) -> StoreResult<Vec<FoundRow>> {
    let mut statement: Vec<Piece> =
        vec!["SELECT box_id, state, site, connected FROM boxes WHERE box_id > ''".into()];
    filter.push(&mut statement);
    statement.push(" ORDER BY box_id LIMIT ".into());
    statement.push(Piece::Int(i64::from(limit)));
    rows(tx, statement).await
}

/// Transfers that are under way from the boxes that a filter finds.
pub async fn bulk_transfers(tx: &mut Tx, filter: &Filter) -> StoreResult<i64> {
    let mut statement: Vec<Piece> = vec![
        "SELECT count(*) FROM uploads WHERE state IN ('started', 'completing') AND box_id IN \
         (SELECT box_id FROM boxes WHERE state IN ('active', 'inventoried')"
            .into(),
    ];
    filter.push(&mut statement);
    statement.push(")".into());
    let found: Vec<(i64,)> = rows(tx, statement).await?;
    Ok(found.first().map_or(0, |(count,)| *count))
}

/// Orders of the boxes that a filter finds: their own, and those of tickets that are valid.
pub async fn bulk_orders(tx: &mut Tx, filter: &Filter, now: i64) -> StoreResult<Vec<String>> {
    let mut statement: Vec<Piece> = vec![
        "SELECT order_id FROM boxes WHERE order_id IS NOT NULL \
         AND state IN ('active', 'inventoried')"
            .into(),
    ];
    filter.push(&mut statement);
    statement.push(
        " UNION SELECT order_id FROM tickets WHERE order_id IS NOT NULL AND revoked IS NULL \
         AND expires > "
            .into(),
    );
    statement.push(Piece::Int(now));
    statement.push(
        " AND box_id IN (SELECT box_id FROM boxes WHERE state IN ('active', 'inventoried')".into(),
    );
    filter.push(&mut statement);
    statement.push(") ORDER BY order_id".into());
    let found: Vec<(String,)> = rows(tx, statement).await?;
    Ok(found.into_iter().map(|(order,)| order).collect())
}

/// Keeps what was found; forgets what can be used no longer.
pub async fn preview_insert(tx: &mut Tx, row: &PreviewRow) -> StoreResult<()> {
    execute!(
        tx,
        "DELETE FROM bulk_previews WHERE expires <= $1",
        row.created
    )?;
    execute!(
        tx,
        "INSERT INTO bulk_previews (preview_id, filter, boxes, kind, detail, created_by, created, \
             expires) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        row.preview_id.as_str(),
        row.filter.as_str(),
        row.boxes.as_str(),
        row.kind.as_str(),
        row.detail.as_str(),
        row.created_by.as_str(),
        row.created,
        row.expires,
    )?;
    Ok(())
}

/// Takes a preview that can be used still: it is used once.
pub async fn preview_take(tx: &mut Tx, id: &str, now: i64) -> StoreResult<Option<PreviewRow>> {
    fetch!(
        optional,
        tx,
        PreviewRow,
        "DELETE FROM bulk_previews WHERE preview_id = $1 AND expires > $2 RETURNING *",
        id,
        now,
    )
}

/// Takes down a bulk command and its boxes.
pub async fn bulk_insert(tx: &mut Tx, row: &BulkRow, boxes: &[BoxId]) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO bulk_commands (bulk_id, filter, kind, detail, valid_for_secs, state, \
             proposal_id, created_by, created) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        row.bulk_id.as_str(),
        row.filter.as_str(),
        row.kind.as_str(),
        row.detail.as_str(),
        row.valid_for_secs,
        row.state.as_str(),
        row.proposal_id.as_deref(),
        row.created_by.as_str(),
        row.created,
    )?;
    for box_id in boxes {
        execute!(
            tx,
            "INSERT INTO bulk_boxes (bulk_id, box_id) VALUES ($1, $2)",
            row.bulk_id.as_str(),
            box_id.as_str(),
        )?;
    }
    Ok(())
}

/// One bulk command.
pub async fn bulk_get(tx: &mut Tx, id: &str) -> StoreResult<Option<BulkRow>> {
    fetch!(
        optional,
        tx,
        BulkRow,
        "SELECT * FROM bulk_commands WHERE bulk_id = $1",
        id
    )
}

/// Bulk commands, newest first, from the one before `(created, id)`.
pub async fn bulk_list(
    tx: &mut Tx,
    before: Option<(i64, &str)>,
    limit: u32,
) -> StoreResult<Vec<BulkRow>> {
    let (at, id) = before.unwrap_or((i64::MAX, ""));
    fetch!(
        all,
        tx,
        BulkRow,
        "SELECT * FROM bulk_commands WHERE (created, bulk_id) < ($1, $2) \
         ORDER BY created DESC, bulk_id DESC LIMIT $3",
        at,
        id,
        i64::from(limit),
    )
}

/// The oldest bulk command of which commands are still to be signed.
pub async fn bulk_sending(tx: &mut Tx) -> StoreResult<Option<BulkRow>> {
    fetch!(
        optional,
        tx,
        BulkRow,
        "SELECT * FROM bulk_commands WHERE state = 'sending' ORDER BY created, bulk_id LIMIT 1"
    )
}

/// Boxes that wait for their command.
pub async fn bulk_waiting(tx: &mut Tx, id: &str, limit: u32) -> StoreResult<Vec<BoxId>> {
    let found = fetch!(
        all,
        tx,
        (String,),
        "SELECT box_id FROM bulk_boxes \
         WHERE bulk_id = $1 AND command_id IS NULL AND reason IS NULL ORDER BY box_id LIMIT $2",
        id,
        i64::from(limit),
    )?;
    Ok(found
        .into_iter()
        .filter_map(|(id,)| id.parse().ok())
        .collect())
}

/// Gives a box that waits its command, or the reason why it gets none; `false` if it waits no
/// longer.
pub async fn bulk_box_set(
    tx: &mut Tx,
    id: &str,
    box_id: &BoxId,
    command: Result<&CommandId, &str>,
) -> StoreResult<bool> {
    let changed = execute!(
        tx,
        "UPDATE bulk_boxes SET command_id = $3, reason = $4 \
         WHERE bulk_id = $1 AND box_id = $2 AND command_id IS NULL AND reason IS NULL",
        id,
        box_id.as_str(),
        command.ok().map(CommandId::as_str),
        command.err(),
    )?;
    Ok(changed == 1)
}

/// Moves a bulk command from one state to the next; `false` if it is in another.
pub async fn bulk_advance(
    tx: &mut Tx,
    id: &str,
    from: BulkState,
    to: BulkState,
) -> StoreResult<bool> {
    let changed = execute!(
        tx,
        "UPDATE bulk_commands SET state = $3 WHERE bulk_id = $1 AND state = $2",
        id,
        from.as_str(),
        to.as_str(),
    )?;
    Ok(changed == 1)
}

/// Takes a bulk command back: boxes that wait get none. `false` if it has ended that way before.
pub async fn bulk_cancel(tx: &mut Tx, id: &str, by: &str, now: i64) -> StoreResult<bool> {
    let changed = execute!(
        tx,
        "UPDATE bulk_commands SET state = 'cancelled', cancelled_by = $2, cancelled = $3 \
         WHERE bulk_id = $1 AND state IN ('proposed', 'sending', 'sent')",
        id,
        by,
        now,
    )?;
    execute!(
        tx,
        "UPDATE bulk_boxes SET reason = 'cancelled before it was sent' \
         WHERE bulk_id = $1 AND command_id IS NULL AND reason IS NULL",
        id
    )?;
    Ok(changed == 1)
}

/// Commands of a bulk command that no box has begun.
pub async fn bulk_open_commands(tx: &mut Tx, id: &str) -> StoreResult<Vec<(String, String)>> {
    fetch!(
        all,
        tx,
        (String, String),
        "SELECT commands.command_id, commands.box_id FROM bulk_boxes \
         JOIN commands ON commands.command_id = bulk_boxes.command_id \
         WHERE bulk_boxes.bulk_id = $1 AND commands.state IN ('queued', 'sent')",
        id
    )
}

/// Boxes of a bulk command by their command's state: `waiting` for those that have none yet,
/// `left_out` for those that get none.
pub async fn bulk_count(tx: &mut Tx, id: &str) -> StoreResult<Vec<(String, i64)>> {
    fetch!(
        all,
        tx,
        (String, i64),
        "SELECT coalesce(c.state, CASE WHEN b.reason IS NULL THEN 'waiting' ELSE 'left_out' END) \
             AS how, count(*) \
         FROM bulk_boxes b LEFT JOIN commands c ON c.command_id = b.command_id \
         WHERE b.bulk_id = $1 GROUP BY 1 ORDER BY 1",
        id
    )
}

/// Boxes of a bulk command, in the order of their names.
pub async fn bulk_boxes(
    tx: &mut Tx,
    id: &str,
    after: Option<&BoxId>,
    limit: u32,
) -> StoreResult<Vec<BulkBoxRow>> {
    fetch!(
        all,
        tx,
        BulkBoxRow,
        "SELECT b.box_id, b.command_id, coalesce(b.reason, c.reason) AS reason, c.state, \
             c.percent, c.updated \
         FROM bulk_boxes b LEFT JOIN commands c ON c.command_id = b.command_id \
         WHERE b.bulk_id = $1 AND b.box_id > $2 ORDER BY b.box_id LIMIT $3",
        id,
        after.map_or("", BoxId::as_str),
        i64::from(limit),
    )
}
