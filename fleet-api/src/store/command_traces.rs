//! Commands that belong to a trace, from their request until the trace is exported.

use longhaul_protocol::ids::CommandId;
use sqlx::FromRow;

use super::{StoreResult, Tx};

/// A command's trace as it begins.
#[derive(Clone, Debug)]
pub struct NewTrace<'a> {
    /// The command.
    pub command_id: &'a CommandId,
    /// The trace, 32 hexadecimal digits.
    pub trace_id: &'a str,
    /// The caller's span, 16 hexadecimal digits.
    pub parent_id: Option<&'a str>,
    /// When the request came.
    pub begun: i64,
}

/// A command that has ended, with its times.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct TraceRow {
    /// The command.
    pub command_id: String,
    /// The trace.
    pub trace_id: String,
    /// The caller's span.
    pub parent_id: Option<String>,
    /// When the request came.
    pub begun: i64,
    /// When the command was committed.
    pub created: i64,
    /// When it was sent to the box first.
    pub sent: Option<i64>,
    /// When the box said that it begins.
    pub accepted: Option<i64>,
    /// When it ended.
    pub ended: i64,
    /// Name of its kind.
    pub kind: String,
    /// Its box.
    pub box_id: String,
    /// How it ended.
    pub state: String,
    /// Why, if not well.
    pub reason: Option<String>,
}

/// Takes a trace down.
pub async fn trace_insert(tx: &mut Tx, new: &NewTrace<'_>, now: i64) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO command_traces (command_id, trace_id, parent_id, begun, created) \
         VALUES ($1, $2, $3, $4, $5)",
        new.command_id.as_str(),
        new.trace_id,
        new.parent_id,
        new.begun,
        now,
    )?;
    Ok(())
}

/// The trace of a command.
pub async fn trace_get(tx: &mut Tx, id: &CommandId) -> StoreResult<Option<String>> {
    let row = fetch!(
        optional,
        tx,
        (String,),
        "SELECT trace_id FROM command_traces WHERE command_id = $1",
        id.as_str()
    )?;
    Ok(row.map(|(trace,)| trace))
}

/// Takes down when a command was sent first.
pub(super) async fn trace_sent(tx: &mut Tx, id: &CommandId, now: i64) -> StoreResult<()> {
    execute!(
        tx,
        "UPDATE command_traces SET sent = $2 WHERE command_id = $1 AND sent IS NULL",
        id.as_str(),
        now
    )?;
    Ok(())
}

/// Takes down when a box said that it begins.
pub(super) async fn trace_accepted(tx: &mut Tx, id: &CommandId, now: i64) -> StoreResult<()> {
    execute!(
        tx,
        "UPDATE command_traces SET accepted = $2 WHERE command_id = $1 AND accepted IS NULL",
        id.as_str(),
        now
    )?;
    Ok(())
}

/// Traces of commands that have ended, oldest first.
pub async fn trace_list_ended(tx: &mut Tx, limit: u32) -> StoreResult<Vec<TraceRow>> {
    fetch!(
        all,
        tx,
        TraceRow,
        "SELECT t.command_id, t.trace_id, t.parent_id, t.begun, t.created, t.sent, t.accepted, \
             c.updated AS ended, c.kind, c.box_id, c.state, c.reason \
         FROM command_traces t JOIN commands c ON c.command_id = t.command_id \
         WHERE c.state NOT IN ('queued', 'sent', 'accepted') \
         ORDER BY t.created, t.command_id LIMIT $1",
        i64::from(limit)
    )
}

/// Forgets a trace that was exported, or that nobody took for too long.
pub async fn trace_delete(tx: &mut Tx, command_id: &str) -> StoreResult<()> {
    execute!(
        tx,
        "DELETE FROM command_traces WHERE command_id = $1",
        command_id
    )?;
    Ok(())
}
