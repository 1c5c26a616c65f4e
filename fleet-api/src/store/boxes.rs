//! Boxes: what the factory said, what an operator said, and what the box said last.

use longhaul_protocol::diag::RungReport;
use longhaul_protocol::ids::{BoxId, OrderId};
use longhaul_protocol::presence::Birth;
use longhaul_protocol::value::{Digest32, Jws};
use sqlx::FromRow;

use super::tx::{json_text, plain};
use super::{StoreResult, Tx, text_enum};

text_enum! {
    /// What a box may do.
    BoxState {
        /// Known from the factory; has never enrolled.
        Inventoried = "inventoried",
        /// Enrolled.
        Active = "active",
        /// Its certificate stands, but it gets no commands and no uploads until someone has looked.
        Quarantined = "quarantined",
        /// Refused for ever.
        Revoked = "revoked",
    }
}

/// One box.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct BoxRow {
    /// Its name.
    #[sqlx(try_from = "String")]
    pub box_id: BoxId,
    /// What it may do.
    #[sqlx(try_from = "String")]
    pub state: BoxState,
    /// An operator's name for it.
    pub label: String,
    /// Where it stands, as an operator wrote it.
    pub site: String,
    /// The order that it was made for.
    pub order_id: Option<String>,
    /// Hardware type.
    pub hardware: String,
    /// The factory's signed record.
    pub inventory_jws: String,
    /// SHA-256 of its endorsement key.
    #[sqlx(try_from = "String")]
    pub ek_sha256: Digest32,
    /// TPM name of its attestation key, hexadecimal.
    pub iak_name: String,
    /// When the factory made it.
    pub made_at: i64,
    /// When its record was imported.
    pub created: i64,
    /// When anything in this row changed.
    pub changed: i64,
    /// Whether it has an MQTT session.
    pub connected: bool,
    /// Since when `connected` has been so; absent if it never connected.
    pub connected_since: Option<i64>,
    /// When the cloud last heard from it.
    pub last_seen: Option<i64>,
    /// When its last birth arrived.
    pub birth_at: Option<i64>,
    /// The session of the last birth.
    pub session_id: Option<String>,
    /// The boot of the last birth.
    pub boot_id: Option<String>,
    /// The life of its journal at the last birth.
    pub epoch: Option<String>,
    /// Version of its agent at the last birth.
    pub agent_version: Option<String>,
    /// Version of its operating system at the last birth.
    pub os_version: Option<String>,
    /// What its agent can do: JSON array of texts.
    pub capabilities: String,
    /// Its ladder as last reported: JSON array of [`RungReport`].
    pub rungs: String,
    /// Where its data plane is on the LAN: JSON array of texts.
    pub lan_urls: String,
    /// Serial number of its certificate, hexadecimal.
    pub certificate_serial: Option<String>,
    /// When its certificate expires.
    pub certificate_expires: Option<i64>,
    /// Counter of the last command that was signed for it.
    pub command_counter: i64,
    /// Version of the desired state that was signed last.
    pub desired_version: i64,
    /// Version of the desired state that it has applied.
    pub applied_version: i64,
}

impl BoxRow {
    /// Where its data plane is on the LAN.
    pub fn lan_urls(&self) -> Vec<String> {
        serde_json::from_str(&self.lan_urls).unwrap_or_default()
    }
}

/// A box as its inventory record describes it.
#[derive(Clone, Debug)]
pub struct NewBox<'a> {
    /// Its name.
    pub box_id: &'a BoxId,
    /// The order that it was made for.
    pub order: Option<&'a OrderId>,
    /// Hardware type.
    pub hardware: &'a str,
    /// The factory's signed record.
    pub inventory_jws: &'a Jws,
    /// SHA-256 of its endorsement key.
    pub ek_sha256: &'a Digest32,
    /// TPM name of its attestation key.
    pub iak_name: &'a [u8],
    /// When the factory made it.
    pub made_at: i64,
}

/// Which boxes are wanted; an absent condition holds for all.
#[derive(Clone, Debug, Default)]
pub struct BoxFilter {
    /// In this state.
    pub state: Option<BoxState>,
    /// With, or without, a session.
    pub online: Option<bool>,
    /// With this text in name, label, site or hardware; case does not matter.
    pub text: Option<String>,
}

/// Adds a box, or renews its record if `new` was made later; `false` if what is stored is as new.
///
/// A box that was revoked stays revoked, whatever the factory says later.
pub async fn box_import(tx: &mut Tx, new: &NewBox<'_>, now: i64) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "INSERT INTO boxes (box_id, state, label, site, order_id, hardware, inventory_jws, \
             ek_sha256, iak_name, made_at, created, changed, connected, capabilities, rungs, \
             lan_urls, command_counter, desired_version, applied_version) \
         VALUES ($1, 'inventoried', '', '', $2, $3, $4, $5, $6, $7, $8, $8, FALSE, '[]', '[]', \
             '[]', 0, 0, 0) \
         ON CONFLICT (box_id) DO UPDATE SET order_id = excluded.order_id, \
             hardware = excluded.hardware, inventory_jws = excluded.inventory_jws, \
             iak_name = excluded.iak_name, made_at = excluded.made_at, changed = excluded.changed \
         WHERE excluded.made_at > boxes.made_at",
        new.box_id.as_str(),
        new.order.map(OrderId::as_str),
        plain(new.hardware),
        new.inventory_jws.0.as_str(),
        new.ek_sha256.to_string(),
        hex::encode(new.iak_name),
        new.made_at,
        now,
    )?;
    Ok(rows == 1)
}

/// One box.
pub async fn box_get(tx: &mut Tx, id: &BoxId) -> StoreResult<Option<BoxRow>> {
    fetch!(
        optional,
        tx,
        BoxRow,
        "SELECT * FROM boxes WHERE box_id = $1",
        id.as_str()
    )
}

/// Boxes in the order of their names, from the one after `after`.
pub async fn box_list(
    tx: &mut Tx,
    filter: &BoxFilter,
    after: Option<&BoxId>,
    limit: u32,
) -> StoreResult<Vec<BoxRow>> {
    let text = filter.text.as_deref().map(like_anywhere);
    fetch!(
        all,
        tx,
        BoxRow,
        "SELECT * FROM boxes \
         WHERE box_id > $1 \
           AND (CAST($2 AS TEXT) IS NULL OR state = $2) \
           AND (CAST($3 AS BOOLEAN) IS NULL OR connected = $3) \
           AND (CAST($4 AS TEXT) IS NULL OR \
                lower(box_id || ' ' || label || ' ' || site || ' ' || hardware) LIKE $4 ESCAPE '\\') \
         ORDER BY box_id LIMIT $5",
        after.map_or("", BoxId::as_str),
        filter.state.map(BoxState::as_str),
        filter.online,
        text.as_deref(),
        i64::from(limit),
    )
}

/// A box with its last sample.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct BoxSample {
    /// The box.
    #[sqlx(flatten)]
    pub row: BoxRow,
    /// When the last sample was taken, by the box's clock.
    pub sample_at: Option<i64>,
    /// The last sample: JSON.
    pub sample: Option<String>,
    /// The reported state that came last: JSON.
    pub reported: Option<String>,
}

/// As [`box_list`], with the last sample and reported state of each: the databases look them up
/// only for the rows that they yield.
pub async fn box_list_sampled(
    tx: &mut Tx,
    filter: &BoxFilter,
    after: Option<&BoxId>,
    limit: u32,
) -> StoreResult<Vec<BoxSample>> {
    let text = filter.text.as_deref().map(like_anywhere);
    fetch!(
        all,
        tx,
        BoxSample,
        "SELECT boxes.*, \
           (SELECT t.at FROM telemetry t WHERE t.box_id = boxes.box_id \
            ORDER BY t.at DESC LIMIT 1) AS sample_at, \
           (SELECT t.detail FROM telemetry t WHERE t.box_id = boxes.box_id \
            ORDER BY t.at DESC LIMIT 1) AS sample, \
           (SELECT r.detail FROM reported r WHERE r.box_id = boxes.box_id) AS reported \
         FROM boxes \
         WHERE box_id > $1 \
           AND (CAST($2 AS TEXT) IS NULL OR state = $2) \
           AND (CAST($3 AS BOOLEAN) IS NULL OR connected = $3) \
           AND (CAST($4 AS TEXT) IS NULL OR \
                lower(box_id || ' ' || label || ' ' || site || ' ' || hardware) LIKE $4 ESCAPE '\\') \
         ORDER BY box_id LIMIT $5",
        after.map_or("", BoxId::as_str),
        filter.state.map(BoxState::as_str),
        filter.online,
        text.as_deref(),
        i64::from(limit),
    )
}

/// How many boxes there are by state and session: `(state, connected, count)`.
pub async fn box_count(tx: &mut Tx) -> StoreResult<Vec<(String, bool, i64)>> {
    fetch!(
        all,
        tx,
        (String, bool, i64),
        "SELECT state, connected, count(*) FROM boxes \
         GROUP BY state, connected ORDER BY state, connected"
    )
}

/// Puts a box into `state`; a revoked box stays revoked. `false` if nothing changed.
pub async fn box_set_state(
    tx: &mut Tx,
    id: &BoxId,
    state: BoxState,
    now: i64,
) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE boxes SET state = $2, changed = $3 \
         WHERE box_id = $1 AND state <> $2 AND state <> 'revoked'",
        id.as_str(),
        state.as_str(),
        now,
    )?;
    Ok(rows == 1)
}

/// Sets what an operator calls the box and where it stands; what is absent stays.
pub async fn box_set_label(
    tx: &mut Tx,
    id: &BoxId,
    label: Option<&str>,
    site: Option<&str>,
    now: i64,
) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE boxes SET label = coalesce($2, label), site = coalesce($3, site), changed = $4 \
         WHERE box_id = $1",
        id.as_str(),
        label.map(plain),
        site.map(plain),
        now,
    )?;
    Ok(rows == 1)
}

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

/// Draws the counter of the box's next command, at least `floor`; `None` if there is no such box.
///
/// The floor is the time: a box refuses a counter that does not rise, also from a cloud that was set
/// back to an older database.
pub async fn box_next_counter(tx: &mut Tx, id: &BoxId, floor: i64) -> StoreResult<Option<i64>> {
    let row = fetch!(
        optional,
        tx,
        (i64,),
        "UPDATE boxes SET command_counter = \
             CASE WHEN command_counter < $2 THEN $2 ELSE command_counter + 1 END \
         WHERE box_id = $1 RETURNING command_counter",
        id.as_str(),
        floor,
    )?;
    Ok(row.map(|(counter,)| counter))
}

/// Draws the version of the box's next desired state, at least `floor`, as for the counter; `None` if
/// there is no such box.
pub async fn box_next_desired(tx: &mut Tx, id: &BoxId, floor: i64) -> StoreResult<Option<i64>> {
    let row = fetch!(
        optional,
        tx,
        (i64,),
        "UPDATE boxes SET desired_version = \
             CASE WHEN desired_version < $2 THEN $2 ELSE desired_version + 1 END \
         WHERE box_id = $1 RETURNING desired_version",
        id.as_str(),
        floor,
    )?;
    Ok(row.map(|(version,)| version))
}

/// A `LIKE` pattern for texts that contain `text`, whatever characters it has.
fn like_anywhere(text: &str) -> String {
    let mut pattern = String::from("%");
    for c in plain(text).to_lowercase().chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}
