//! Who is told of alerts, and what is still to be told.

use sqlx::FromRow;

use super::alert_rules::Severity;
use super::filter::{Filter, FilterField, Holds};
use super::listing::{Listing, field};
use super::tx::{plain, rows};
use super::{StoreResult, Tx, text_enum};

text_enum! {
    /// How somebody is told.
    ChannelKind {
        /// A signed request to a URL.
        Webhook = "webhook",
        /// A mail to an address.
        Email = "email",
    }
}

/// One who is told.
#[derive(Clone, FromRow, PartialEq)]
pub struct ChannelRow {
    /// Its name in URLs.
    pub channel_id: String,
    /// Its name for people.
    pub name: String,
    /// How.
    #[sqlx(try_from = "String")]
    pub kind: ChannelKind,
    /// URL or address.
    pub target: String,
    /// What a webhook is signed with, under [`super::seal::SealKey`], bound to the channel's name.
    pub secret_sealed: Option<Vec<u8>>,
    /// The least severity that is told.
    #[sqlx(try_from = "String")]
    pub severity: Severity,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created: i64,
}

text_enum! {
    /// How far a message has come.
    DeliveryState {
        /// To be sent, or sent again.
        Waiting = "waiting",
        /// Taken by the other side.
        Sent = "sent",
        /// Given up.
        Failed = "failed",
    }
}

/// One message to one channel.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct DeliveryRow {
    /// Its name; the same at every attempt.
    pub delivery_id: String,
    /// To whom.
    pub channel_id: String,
    /// What: JSON.
    pub body: String,
    /// How far it has come.
    #[sqlx(try_from = "String")]
    pub state: DeliveryState,
    /// Attempts so far.
    pub attempts: i64,
    /// When the next is due.
    pub due: i64,
    /// Why the last failed.
    pub reason: Option<String>,
    /// When it was written.
    pub created: i64,
    /// When anything of it changed.
    pub updated: i64,
}

/// Adds a channel.
pub async fn channel_insert(tx: &mut Tx, row: &ChannelRow) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO alert_channels (channel_id, name, kind, target, secret_sealed, severity, \
             created_by, created) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        row.channel_id.as_str(),
        row.name.as_str(),
        row.kind.as_str(),
        row.target.as_str(),
        row.secret_sealed.as_deref(),
        row.severity.as_str(),
        row.created_by.as_str(),
        row.created,
    )?;
    Ok(())
}

/// One channel.
pub async fn channel_get(tx: &mut Tx, id: &str) -> StoreResult<Option<ChannelRow>> {
    fetch!(
        optional,
        tx,
        ChannelRow,
        "SELECT * FROM alert_channels WHERE channel_id = $1",
        id
    )
}

/// Every channel, oldest first.
pub async fn channel_list(tx: &mut Tx) -> StoreResult<Vec<ChannelRow>> {
    fetch!(
        all,
        tx,
        ChannelRow,
        "SELECT * FROM alert_channels ORDER BY created, channel_id LIMIT 100"
    )
}

/// Removes a channel and what it was still to be told; `false` if there is none.
pub async fn channel_delete(tx: &mut Tx, id: &str) -> StoreResult<bool> {
    let rows = execute!(tx, "DELETE FROM alert_channels WHERE channel_id = $1", id)?;
    Ok(rows == 1)
}

/// Writes a message down; it is due at once.
pub async fn delivery_insert(
    tx: &mut Tx,
    id: &str,
    channel: &str,
    body: &str,
    now: i64,
) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO alert_deliveries (delivery_id, channel_id, body, state, attempts, due, \
             created, updated) \
         VALUES ($1, $2, $3, 'waiting', 0, $4, $4, $4)",
        id,
        channel,
        body,
        now,
    )?;
    Ok(())
}

/// Claims a message that is due; until `until` nobody else gets it. The attempt counts before it is
/// made, so that one that ends the process is not made for ever.
pub async fn delivery_claim(tx: &mut Tx, now: i64, until: i64) -> StoreResult<Option<DeliveryRow>> {
    fetch!(
        optional,
        tx,
        DeliveryRow,
        "UPDATE alert_deliveries SET due = $2, attempts = attempts + 1, updated = $1 \
         WHERE delivery_id = ( \
             SELECT delivery_id FROM alert_deliveries WHERE state = 'waiting' AND due <= $1 \
             ORDER BY due, delivery_id LIMIT 1) AND state = 'waiting' AND due <= $1 \
         RETURNING *",
        now,
        until,
    )
}

/// Takes down how an attempt ended: where it stands now, why, and when it is due again.
pub async fn delivery_settle(
    tx: &mut Tx,
    id: &str,
    state: DeliveryState,
    reason: Option<&str>,
    due: i64,
    now: i64,
) -> StoreResult<()> {
    execute!(
        tx,
        "UPDATE alert_deliveries SET state = $2, reason = $3, due = $4, updated = $5 \
         WHERE delivery_id = $1 AND state = 'waiting'",
        id,
        state.as_str(),
        reason.map(plain),
        due,
        now,
    )?;
    Ok(())
}

/// What a channel's messages can be asked for by.
pub const DELIVERY_FIELDS: [FilterField; 6] = [
    field("id", "delivery_id", Holds::Text),
    field(
        "state",
        "state",
        Holds::Word(&["waiting", "sent", "failed"]),
    ),
    field("reason", "reason", Holds::Text),
    field("attempts", "attempts", Holds::Number),
    field("created", "created", Holds::Time),
    field("updated", "updated", Holds::Time),
];

/// A channel's messages that `filter` finds, newest first, from the one before `before`.
pub async fn delivery_list(
    tx: &mut Tx,
    channel: &str,
    filter: &Filter,
    before: Option<(i64, &str)>,
    limit: u32,
) -> StoreResult<Vec<DeliveryRow>> {
    let list = Listing::of("SELECT * FROM alert_deliveries WHERE TRUE")
        .equal("channel_id", Some(channel))
        .filter(filter)
        .newest(("created", "delivery_id"), before, limit);
    rows(tx, list).await
}

/// Forgets messages that ended before `before`.
pub async fn delivery_prune(tx: &mut Tx, before: i64) -> StoreResult<u64> {
    execute!(
        tx,
        "DELETE FROM alert_deliveries WHERE state <> 'waiting' AND updated < $1",
        before
    )
}
