//! Edges, and which boxes' sessions they hold.

use longhaul_protocol::ids::BoxId;

use super::boxes::BoxState;
use super::{StoreResult, Tx};

/// Takes down that an edge lives until `until`; `false` if its time was over before, or it is new.
pub async fn edge_extend(tx: &mut Tx, edge: &str, until: i64, now: i64) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE edges SET held_until = $2 WHERE edge_id = $1 AND held_until > $3",
        edge,
        until,
        now,
    )?;
    if rows == 1 {
        return Ok(true);
    }
    execute!(
        tx,
        "INSERT INTO edges (edge_id, started, held_until) VALUES ($1, $3, $2) \
         ON CONFLICT (edge_id) DO UPDATE SET held_until = excluded.held_until",
        edge,
        until,
        now,
    )?;
    Ok(false)
}

/// Takes down that an edge has ended: its sessions with it.
pub async fn edge_end(tx: &mut Tx, edge: &str) -> StoreResult<()> {
    execute!(
        tx,
        "UPDATE edges SET held_until = 0 WHERE edge_id = $1",
        edge
    )?;
    Ok(())
}

/// Forgets edges that ended before `before`.
pub async fn edge_prune(tx: &mut Tx, before: i64) -> StoreResult<u64> {
    execute!(tx, "DELETE FROM edges WHERE held_until < $1", before)
}

/// The boxes that are said to have a session at `edge`, sorted.
pub async fn edge_boxes(tx: &mut Tx, edge: &str) -> StoreResult<Vec<BoxId>> {
    let rows = fetch!(
        all,
        tx,
        (String,),
        "SELECT box_id FROM boxes WHERE connected AND edge_id = $1 ORDER BY box_id",
        edge,
    )?;
    Ok(ids(rows))
}

/// Boxes at `edge` for which there is a command that was never sent, made before `before`.
pub async fn edge_unsent(
    tx: &mut Tx,
    edge: &str,
    before: i64,
    now: i64,
    limit: u32,
) -> StoreResult<Vec<BoxId>> {
    let rows = fetch!(
        all,
        tx,
        (String,),
        "SELECT DISTINCT b.box_id FROM boxes b JOIN commands c ON c.box_id = b.box_id \
         WHERE b.connected AND b.edge_id = $1 AND b.state = 'active' \
             AND c.state = 'queued' AND c.created < $2 AND c.expires > $3 \
         ORDER BY b.box_id LIMIT $4",
        edge,
        before,
        now,
        i64::from(limit),
    )?;
    Ok(ids(rows))
}

/// Boxes at `edge` whose desired state was written before `to` and is not applied, although it was
/// written, or the box born, after `from`.
pub async fn edge_undesired(
    tx: &mut Tx,
    edge: &str,
    (from, to): (i64, i64),
    limit: u32,
) -> StoreResult<Vec<BoxId>> {
    let rows = fetch!(
        all,
        tx,
        (String,),
        "SELECT b.box_id FROM boxes b JOIN desired d ON d.box_id = b.box_id \
         WHERE b.connected AND b.edge_id = $1 AND b.state = 'active' \
             AND d.version <> b.applied_version AND d.updated < $3 \
             AND (d.updated >= $2 OR b.birth_at >= $2) \
         ORDER BY b.box_id LIMIT $4",
        edge,
        from,
        to,
        i64::from(limit),
    )?;
    Ok(ids(rows))
}

/// Takes down that a box has its session at `edge` still, or again, or no more; `false` if the last
/// birth was elsewhere, or nothing changed.
pub async fn edge_box_set(
    tx: &mut Tx,
    edge: &str,
    id: &BoxId,
    connected: bool,
    now: i64,
) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE boxes SET connected = $3, connected_since = $4, changed = $4 \
         WHERE box_id = $1 AND edge_id = $2 AND connected <> $3",
        id.as_str(),
        edge,
        connected,
        now,
    )?;
    Ok(rows == 1)
}

/// Ends the sessions of edges that live no more; yields them.
pub async fn edge_orphans_end(tx: &mut Tx, now: i64) -> StoreResult<Vec<(BoxId, String)>> {
    let rows = fetch!(
        all,
        tx,
        (String, Option<String>),
        "UPDATE boxes SET connected = FALSE, connected_since = $1, changed = $1 \
         WHERE connected AND NOT EXISTS ( \
             SELECT 1 FROM edges e WHERE e.edge_id = boxes.edge_id AND e.held_until > $1) \
         RETURNING box_id, session_id",
        now,
    )?;
    let rows = rows.into_iter();
    Ok(rows
        .filter_map(|(id, session)| Some((id.parse().ok()?, session.unwrap_or_default())))
        .collect())
}

/// The boxes whose state changed since `since`, and what it is.
pub async fn box_states_since(tx: &mut Tx, since: i64) -> StoreResult<Vec<(BoxId, BoxState)>> {
    let rows = fetch!(
        all,
        tx,
        (String, String),
        "SELECT box_id, state FROM boxes WHERE state_changed >= $1",
        since,
    )?;
    let rows = rows.into_iter();
    Ok(rows
        .filter_map(|(id, state)| Some((id.parse().ok()?, state.parse().ok()?)))
        .collect())
}

fn ids(rows: Vec<(String,)>) -> Vec<BoxId> {
    let rows = rows.into_iter();
    rows.filter_map(|(id,)| id.parse().ok()).collect()
}
