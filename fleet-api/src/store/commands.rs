//! Commands: what was signed for a box, and how far it has come. What has ended stays ended.

use longhaul_protocol::ids::{BoxId, CommandId};
use sqlx::FromRow;

use super::command_traces::{trace_accepted, trace_sent};
use super::filter::{Filter, FilterField, Holds};
use super::listing::{Listing, field};
use super::tx::{plain, rows};
use super::{StoreResult, Tx, text_enum};

text_enum! {
    /// How far a command has come.
    CommandState {
        /// Signed; the box has not been sent it.
        Queued = "queued",
        /// Sent; the box has not answered.
        Sent = "sent",
        /// The box has begun.
        Accepted = "accepted",
        /// The box refused. Terminal.
        Rejected = "rejected",
        /// It was done. Terminal.
        Done = "done",
        /// It was tried and did not succeed. Terminal.
        Failed = "failed",
        /// The box did not begin in time, or began and never came back. Terminal.
        Expired = "expired",
        /// An operator took it back before the box began. Terminal.
        Cancelled = "cancelled",
    }
}

impl CommandState {
    /// Whether nothing follows.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::Sent | Self::Accepted)
    }
}

/// One command.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct CommandRow {
    /// Its name.
    #[sqlx(try_from = "String")]
    pub command_id: CommandId,
    /// The box that it is for.
    #[sqlx(try_from = "String")]
    pub box_id: BoxId,
    /// Its counter.
    pub counter: i64,
    /// Name of its kind.
    pub kind: String,
    /// What to do: JSON of the protocol's `CommandKind`.
    pub detail: String,
    /// Its claims under the signature.
    pub jws: String,
    /// Who asked for it.
    pub created_by: String,
    /// When.
    pub created: i64,
    /// Not to be carried out before.
    pub not_before: i64,
    /// Not to be carried out after.
    pub expires: i64,
    /// How far it has come.
    #[sqlx(try_from = "String")]
    pub state: CommandState,
    /// Progress in percent.
    pub percent: Option<i64>,
    /// What is being done.
    pub progress: Option<String>,
    /// Why it was refused or failed.
    pub reason: Option<String>,
    /// What it yielded: JSON.
    pub result: Option<String>,
    /// When any of this changed.
    pub updated: i64,
    /// The rollout that it belongs to.
    pub rollout_id: Option<String>,
    /// The proposal that two people agreed on.
    pub proposal_id: Option<String>,
}

/// A command that was just signed.
#[derive(Clone, Debug)]
pub struct NewCommand<'a> {
    /// Its name.
    pub command_id: &'a CommandId,
    /// The box that it is for.
    pub box_id: &'a BoxId,
    /// Its counter; see [`super::boxes::box_next_counter`].
    pub counter: i64,
    /// Name of its kind.
    pub kind: &'a str,
    /// What to do: JSON.
    pub detail: &'a str,
    /// Its claims under the signature.
    pub jws: &'a str,
    /// Who asked for it.
    pub created_by: &'a str,
    /// Not to be carried out before.
    pub not_before: i64,
    /// Not to be carried out after.
    pub expires: i64,
    /// The rollout that it belongs to.
    pub rollout_id: Option<&'a str>,
    /// The proposal that two people agreed on.
    pub proposal_id: Option<&'a str>,
}

/// What is new about a command; what is absent stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommandNews<'a> {
    /// Progress in percent.
    pub percent: Option<u8>,
    /// What is being done.
    pub progress: Option<&'a str>,
    /// Why it was refused or failed.
    pub reason: Option<&'a str>,
    /// What it yielded: JSON.
    pub result: Option<&'a str>,
}

/// Takes down a command as queued.
pub async fn command_insert(tx: &mut Tx, new: &NewCommand<'_>, now: i64) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO commands (command_id, box_id, counter, kind, detail, jws, created_by, \
             created, not_before, expires, state, updated, rollout_id, proposal_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'queued', $8, $11, $12)",
        new.command_id.as_str(),
        new.box_id.as_str(),
        new.counter,
        new.kind,
        new.detail,
        new.jws,
        new.created_by,
        now,
        new.not_before,
        new.expires,
        new.rollout_id,
        new.proposal_id,
    )?;
    Ok(())
}

/// One command.
pub async fn command_get(tx: &mut Tx, id: &CommandId) -> StoreResult<Option<CommandRow>> {
    fetch!(
        optional,
        tx,
        CommandRow,
        "SELECT * FROM commands WHERE command_id = $1",
        id.as_str()
    )
}

/// What commands can be asked for by.
pub const COMMAND_FIELDS: [FilterField; 8] = [
    field("id", "command_id", Holds::Text),
    field("kind", "kind", Holds::Text),
    field(
        "state",
        "state",
        Holds::Word(&[
            "queued",
            "sent",
            "accepted",
            "rejected",
            "done",
            "failed",
            "expired",
            "cancelled",
        ]),
    ),
    field("by", "created_by", Holds::Text),
    field("rollout", "rollout_id", Holds::Text),
    field("created", "created", Holds::Time),
    field("updated", "updated", Holds::Time),
    field("expires", "expires", Holds::Time),
];

/// A box's commands that `filter` finds, newest first, from the one before `(created, id)`.
pub async fn command_list(
    tx: &mut Tx,
    box_id: &BoxId,
    filter: &Filter,
    before: Option<(i64, &str)>,
    limit: u32,
) -> StoreResult<Vec<CommandRow>> {
    let list = Listing::of("SELECT * FROM commands WHERE TRUE")
        .equal("box_id", Some(box_id.as_str()))
        .filter(filter)
        .newest(("created", "command_id"), before, limit);
    rows(tx, list).await
}

/// What the box still has to be told, in the order of the counters: it is sent again at every
/// birth.
pub async fn command_list_open(
    tx: &mut Tx,
    box_id: &BoxId,
    now: i64,
) -> StoreResult<Vec<CommandRow>> {
    fetch!(
        all,
        tx,
        CommandRow,
        "SELECT * FROM commands \
         WHERE box_id = $1 AND state IN ('queued', 'sent', 'accepted') AND expires > $2 \
         ORDER BY counter",
        box_id.as_str(),
        now,
    )
}

/// Moves a command on; `false` if there is none, or if it is past that state already. What has
/// ended never changes again.
pub async fn command_advance(
    tx: &mut Tx,
    id: &CommandId,
    state: CommandState,
    news: CommandNews<'_>,
    now: i64,
) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE commands SET state = $2, percent = coalesce($3, percent), \
             progress = coalesce($4, progress), reason = coalesce($5, reason), \
             result = coalesce($6, result), updated = $7 \
         WHERE command_id = $1 AND state IN ('queued', 'sent', 'accepted') \
           AND (CASE $2 WHEN 'queued' THEN FALSE WHEN 'sent' THEN state = 'queued' \
                        WHEN 'cancelled' THEN state <> 'accepted' ELSE TRUE END)",
        id.as_str(),
        state.as_str(),
        news.percent.map(i64::from),
        news.progress.map(plain),
        news.reason.map(plain),
        news.result,
        now,
    )?;
    match state {
        CommandState::Sent if rows == 1 => trace_sent(tx, id, now).await?,
        CommandState::Accepted if rows == 1 => trace_accepted(tx, id, now).await?,
        _ => {}
    }
    Ok(rows == 1)
}

/// Ends what no box has begun in time, and what was begun and did not come back within
/// `accepted_grace_ms` after its end; yields which, and whose.
pub async fn command_expire(
    tx: &mut Tx,
    accepted_grace_ms: i64,
    now: i64,
) -> StoreResult<Vec<(CommandId, BoxId)>> {
    #[derive(FromRow)]
    struct Row {
        #[sqlx(try_from = "String")]
        command_id: CommandId,
        #[sqlx(try_from = "String")]
        box_id: BoxId,
    }
    let rows = fetch!(
        all,
        tx,
        Row,
        "UPDATE commands SET state = 'expired', updated = $1, \
             reason = CASE state WHEN 'accepted' THEN 'the box began and never came back' \
                                 ELSE 'the box was not reached in time' END \
         WHERE state IN ('queued', 'sent', 'accepted') \
           AND (expires <= $2 OR (state IN ('queued', 'sent') AND expires <= $1)) \
         RETURNING command_id, box_id",
        now,
        now.saturating_sub(accepted_grace_ms),
    )?;
    Ok(rows.into_iter().map(|r| (r.command_id, r.box_id)).collect())
}

/// How many commands there are by state: `(state, count)`.
pub async fn command_count(tx: &mut Tx) -> StoreResult<Vec<(String, i64)>> {
    fetch!(
        all,
        tx,
        (String, i64),
        "SELECT state, count(*) FROM commands GROUP BY state ORDER BY state"
    )
}
