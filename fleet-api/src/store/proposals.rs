//! Proposals: what takes something away for good, until a second person has decided.

use longhaul_protocol::ids::{BoxId, CommandId};
use sqlx::FromRow;

use super::filter::{Filter, FilterField, Holds};
use super::listing::{Listing, field};
use super::tx::rows;
use super::{StoreResult, Tx, text_enum};

text_enum! {
    /// What became of a proposal.
    ProposalState {
        /// It waits for a second person.
        Open = "open",
        /// A second person approved it, and the command was sent. Terminal.
        Approved = "approved",
        /// A second person refused it. Terminal.
        Refused = "refused",
        /// Whoever proposed it took it back. Terminal.
        Withdrawn = "withdrawn",
        /// Nobody decided in time. Terminal.
        Expired = "expired",
    }
}

/// One proposal.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct ProposalRow {
    /// Its name.
    pub proposal_id: String,
    /// The box that it is about; absent for a bulk command.
    pub box_id: Option<String>,
    /// The bulk command that it is about.
    pub bulk_id: Option<String>,
    /// Name of the command's kind.
    pub kind: String,
    /// What to do: JSON of the protocol's `CommandKind`.
    pub detail: String,
    /// How long the command may be begun once it is approved, in seconds.
    pub valid_for_secs: i64,
    /// Why it shall be done.
    pub reason: String,
    /// Who proposed it, as in the audit.
    pub proposed_by: String,
    /// The account behind that.
    pub proposer: String,
    /// When.
    pub created: i64,
    /// Until when somebody may decide.
    pub expires: i64,
    /// What became of it.
    #[sqlx(try_from = "String")]
    pub state: ProposalState,
    /// Who decided, as in the audit.
    pub decided_by: Option<String>,
    /// The account behind that.
    pub decider: Option<String>,
    /// When.
    pub decided: Option<i64>,
    /// What they said.
    pub note: Option<String>,
    /// The command that was sent.
    pub command_id: Option<String>,
}

/// How a proposal ended.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'a> {
    /// What became of it.
    pub state: ProposalState,
    /// Who decided, as in the audit.
    pub by: &'a str,
    /// The account behind that.
    pub account: &'a str,
    /// What they said.
    pub note: Option<&'a str>,
    /// The command that is sent.
    pub command: Option<&'a CommandId>,
}

/// Takes down a proposal that waits.
pub async fn proposal_insert(tx: &mut Tx, row: &ProposalRow) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO proposals (proposal_id, box_id, bulk_id, kind, detail, valid_for_secs, \
             reason, proposed_by, proposer, created, expires, state) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'open')",
        row.proposal_id.as_str(),
        row.box_id.as_deref(),
        row.bulk_id.as_deref(),
        row.kind.as_str(),
        row.detail.as_str(),
        row.valid_for_secs,
        row.reason.as_str(),
        row.proposed_by.as_str(),
        row.proposer.as_str(),
        row.created,
        row.expires,
    )?;
    Ok(())
}

/// One proposal.
pub async fn proposal_get(tx: &mut Tx, id: &str) -> StoreResult<Option<ProposalRow>> {
    fetch!(
        optional,
        tx,
        ProposalRow,
        "SELECT * FROM proposals WHERE proposal_id = $1",
        id
    )
}

/// What proposals can be asked for by.
pub const PROPOSAL_FIELDS: [FilterField; 9] = [
    field("id", "proposal_id", Holds::Text),
    field("box", "box_id", Holds::Text),
    field("bulk", "bulk_id", Holds::Text),
    field("kind", "kind", Holds::Text),
    field(
        "state",
        "state",
        Holds::Word(&["open", "approved", "refused", "withdrawn", "expired"]),
    ),
    field("proposer", "proposer", Holds::Text),
    field("decider", "decider", Holds::Text),
    field("created", "created", Holds::Time),
    field("decided", "decided", Holds::Time),
];

/// Proposals that `filter` finds, newest first, from the one before `(created, id)`; in one state or
/// about one box, where they are named.
pub async fn proposal_list(
    tx: &mut Tx,
    (state, box_id): (Option<ProposalState>, Option<&BoxId>),
    filter: &Filter,
    before: Option<(i64, &str)>,
    limit: u32,
) -> StoreResult<Vec<ProposalRow>> {
    let list = Listing::of("SELECT * FROM proposals WHERE TRUE")
        .equal("state", state.map(ProposalState::as_str))
        .equal("box_id", box_id.map(BoxId::as_str))
        .filter(filter)
        .newest(("created", "proposal_id"), before, limit);
    rows(tx, list).await
}

/// Ends a proposal that waits and whose time has not passed; `false` if there is none: of two who
/// decide at once, one decides.
pub async fn proposal_decide(
    tx: &mut Tx,
    id: &str,
    decision: Decision<'_>,
    now: i64,
) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE proposals SET state = $2, decided_by = $3, decider = $4, decided = $5, note = $6, \
             command_id = $7 \
         WHERE proposal_id = $1 AND state = 'open' AND expires > $5",
        id,
        decision.state.as_str(),
        decision.by,
        decision.account,
        now,
        decision.note,
        decision.command.map(CommandId::as_str),
    )?;
    Ok(rows == 1)
}

/// Ends a proposal that waits because what it is about was taken back.
pub async fn proposal_void(tx: &mut Tx, id: &str, by: &str, now: i64) -> StoreResult<()> {
    execute!(
        tx,
        "UPDATE proposals SET state = 'withdrawn', decided_by = $2, decided = $3 \
         WHERE proposal_id = $1 AND state = 'open'",
        id,
        by,
        now,
    )?;
    Ok(())
}

/// Ends what nobody has decided in time; yields it.
pub async fn proposal_expire(tx: &mut Tx, now: i64) -> StoreResult<Vec<ProposalRow>> {
    fetch!(
        all,
        tx,
        ProposalRow,
        "UPDATE proposals SET state = 'expired', decided = $1 \
         WHERE state = 'open' AND expires <= $1 RETURNING *",
        now
    )
}
