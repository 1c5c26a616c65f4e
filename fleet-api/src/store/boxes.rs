//! Boxes: what the factory said, what an operator said, and what the box said last.

mod list;
mod live;

use longhaul_protocol::ids::{BoxId, OrderId};
use longhaul_protocol::value::{Digest32, Jws};
use sqlx::FromRow;

use super::tenants::TenantId;
use super::tx::plain;
use super::{StoreResult, Tx, text_enum};

pub use list::{BoxFilter, BoxSample, box_count, box_list, box_list_sampled};
pub use live::{
    box_disconnect_all, box_set_applied, box_set_birth, box_set_certificate, box_set_death,
    box_set_edge, box_set_seen,
};

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
    /// The tenant that has it; absent for none.
    pub tenant_id: Option<String>,
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

/// Adds a box, or renews its record if `new` was made later; `false` if what is stored is as new.
///
/// A box that was revoked stays revoked, whatever the factory says later.
pub async fn box_import(tx: &mut Tx, new: &NewBox<'_>, now: i64) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "INSERT INTO boxes (box_id, state, label, site, order_id, hardware, inventory_jws, \
             ek_sha256, iak_name, made_at, created, changed, state_changed, connected, \
             capabilities, rungs, lan_urls, command_counter, desired_version, applied_version) \
         VALUES ($1, 'inventoried', '', '', $2, $3, $4, $5, $6, $7, $8, $8, $8, FALSE, '[]', '[]', \
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

/// Puts a box into `state`; a revoked box stays revoked. `false` if nothing changed.
pub async fn box_set_state(
    tx: &mut Tx,
    id: &BoxId,
    state: BoxState,
    now: i64,
) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE boxes SET state = $2, changed = $3, state_changed = $3 \
         WHERE box_id = $1 AND state <> $2 AND state <> 'revoked'",
        id.as_str(),
        state.as_str(),
        now,
    )?;
    Ok(rows == 1)
}

/// Gives a box to a tenant, or takes it back.
pub async fn box_set_tenant(
    tx: &mut Tx,
    id: &BoxId,
    tenant: Option<&TenantId>,
    now: i64,
) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE boxes SET tenant_id = $2, changed = $3 WHERE box_id = $1",
        id.as_str(),
        tenant.map(TenantId::as_str),
        now,
    )?;
    Ok(rows == 1)
}

/// Keeps everybody else from changing a box until the transaction ends; `false` if there is none.
pub async fn box_lock(tx: &mut Tx, id: &BoxId) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE boxes SET changed = changed WHERE box_id = $1",
        id.as_str()
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
