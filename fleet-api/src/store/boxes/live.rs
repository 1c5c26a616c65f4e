//! What boxes' sessions and certificates change.

use longhaul_protocol::diag::RungReport;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::presence::Birth;

use crate::store::tx::{json_text, plain};
use crate::store::{StoreResult, Tx};

/// Takes down the birth of a session: the box is connected from now on.
pub async fn box_set_birth(tx: &mut Tx, id: &BoxId, birth: &Birth, now: i64) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE boxes SET connected = TRUE, connected_since = $2, last_seen = $2, birth_at = $2, \
             session_id = $3, boot_id = $4, epoch = $5, agent_version = $6, os_version = $7, \
             capabilities = $8, rungs = $9, lan_urls = $10, applied_version = $11, changed = $2 \
         WHERE box_id = $1",
        id.as_str(),
        now,
        birth.session.as_str(),
        birth.boot.as_str(),
        birth.epoch.as_str(),
        plain(&birth.agent_version),
        birth.os_version.as_deref().map(plain),
        json_text("capabilities", &birth.capabilities)?,
        json_text("rungs", &birth.rungs)?,
        json_text("LAN URLs", &birth.lan_urls)?,
        i64::try_from(birth.desired_version).unwrap_or(i64::MAX),
    )?;
    Ok(rows == 1)
}

/// Takes down which edge took the birth.
pub async fn box_set_edge(tx: &mut Tx, id: &BoxId, edge: &str) -> StoreResult<()> {
    execute!(
        tx,
        "UPDATE boxes SET edge_id = $2 WHERE box_id = $1",
        id.as_str(),
        edge,
    )?;
    Ok(())
}

/// Takes down the end of `session`; `false` if it is not the session of the last birth.
pub async fn box_set_death(tx: &mut Tx, id: &BoxId, session: &str, now: i64) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE boxes SET connected = FALSE, connected_since = $3, changed = $3 \
         WHERE box_id = $1 AND session_id = $2 AND connected",
        id.as_str(),
        session,
        now,
    )?;
    Ok(rows == 1)
}

/// Takes down that no box has a session: the broker in this process has just started.
pub async fn box_disconnect_all(tx: &mut Tx, now: i64) -> StoreResult<u64> {
    execute!(
        tx,
        "UPDATE boxes SET connected = FALSE, connected_since = $1, changed = $1 WHERE connected",
        now
    )
}

/// The box was heard from; `rungs` as it reported them, if it did.
pub async fn box_set_seen(
    tx: &mut Tx,
    id: &BoxId,
    rungs: Option<&[RungReport]>,
    now: i64,
) -> StoreResult<bool> {
    let rungs = rungs.map(|r| json_text("rungs", r)).transpose()?;
    let rows = execute!(
        tx,
        "UPDATE boxes SET last_seen = $2, changed = $2, rungs = coalesce($3, rungs) \
         WHERE box_id = $1",
        id.as_str(),
        now,
        rungs,
    )?;
    Ok(rows == 1)
}

/// Takes down the certificate that was issued last.
pub async fn box_set_certificate(
    tx: &mut Tx,
    id: &BoxId,
    serial: &str,
    expires: i64,
    now: i64,
) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE boxes SET certificate_serial = $2, certificate_expires = $3, changed = $4 \
         WHERE box_id = $1",
        id.as_str(),
        serial,
        expires,
        now,
    )?;
    Ok(rows == 1)
}

/// Takes down what the box reports of itself between births.
pub async fn box_set_applied(
    tx: &mut Tx,
    id: &BoxId,
    applied_version: i64,
    agent_version: &str,
    lan_urls: &[String],
    now: i64,
) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE boxes SET applied_version = $2, agent_version = $3, lan_urls = $4, \
             last_seen = $5, changed = $5 \
         WHERE box_id = $1",
        id.as_str(),
        applied_version,
        plain(agent_version),
        json_text("LAN URLs", lan_urls)?,
        now,
    )?;
    Ok(rows == 1)
}
