//! Rollouts of a release, and how far each of their boxes has come.

use longhaul_protocol::ids::{BoxId, RolloutId};
use longhaul_protocol::release::Assignment;
use sqlx::FromRow;

use super::tx::{plain, to_i64};
use super::{StoreResult, Tx, text_enum};

text_enum! {
    /// How far one box of a rollout has come.
    RolloutBoxState {
        /// The command is signed; the box has not begun.
        Queued = "queued",
        /// The box is at it.
        Running = "running",
        /// The new release has proved itself. Terminal.
        Committed = "committed",
        /// The old release runs again. Terminal.
        RolledBack = "rolled_back",
        /// Given up before anything was changed, or refused. Terminal.
        Failed = "failed",
        /// The box was not reached in time, or went dark. Terminal.
        Expired = "expired",
        /// Taken back before the box began. Terminal.
        Cancelled = "cancelled",
    }
}

impl RolloutBoxState {
    /// Whether nothing follows.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// One rollout.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct RolloutRow {
    /// Its name.
    #[sqlx(try_from = "String")]
    pub rollout_id: RolloutId,
    /// The release's version.
    pub version: String,
    /// The release's target in the repository.
    pub target: String,
    /// SHA-256 of the target.
    pub sha256: String,
    /// Length of the target in bytes.
    pub length: i64,
    /// Who began it.
    pub created_by: String,
    /// When.
    pub created: i64,
}

/// One box of a rollout.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct RolloutBoxRow {
    /// The rollout.
    #[sqlx(try_from = "String")]
    pub rollout_id: RolloutId,
    /// The box.
    #[sqlx(try_from = "String")]
    pub box_id: BoxId,
    /// The command that assigned it.
    pub command_id: Option<String>,
    /// How far it has come.
    #[sqlx(try_from = "String")]
    pub state: RolloutBoxState,
    /// The step that the box reported last.
    pub step: Option<String>,
    /// Why it failed or was rolled back.
    pub reason: Option<String>,
    /// When any of this changed.
    pub updated: i64,
}

/// Takes down a rollout.
pub async fn rollout_insert(
    tx: &mut Tx,
    assignment: &Assignment,
    created_by: &str,
    now: i64,
) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO rollouts (rollout_id, version, target, sha256, length, created_by, created) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        assignment.rollout.as_str(),
        assignment.version.as_str(),
        assignment.target.as_str(),
        assignment.sha256.to_string(),
        to_i64("length", assignment.length)?,
        created_by,
        now,
    )?;
    Ok(())
}

/// One rollout.
pub async fn rollout_get(tx: &mut Tx, id: &RolloutId) -> StoreResult<Option<RolloutRow>> {
    fetch!(
        optional,
        tx,
        RolloutRow,
        "SELECT * FROM rollouts WHERE rollout_id = $1",
        id.as_str()
    )
}

/// Rollouts, newest first.
pub async fn rollout_list(tx: &mut Tx, limit: u32) -> StoreResult<Vec<RolloutRow>> {
    fetch!(
        all,
        tx,
        RolloutRow,
        "SELECT * FROM rollouts ORDER BY created DESC, rollout_id DESC LIMIT $1",
        i64::from(limit)
    )
}

/// Takes down a box of a rollout as queued; `false` if it is in it already.
pub async fn rollout_box_insert(
    tx: &mut Tx,
    rollout: &RolloutId,
    box_id: &BoxId,
    command: Option<&str>,
    now: i64,
) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "INSERT INTO rollout_boxes (rollout_id, box_id, command_id, state, updated) \
         VALUES ($1, $2, $3, 'queued', $4) ON CONFLICT (rollout_id, box_id) DO NOTHING",
        rollout.as_str(),
        box_id.as_str(),
        command,
        now,
    )?;
    Ok(rows == 1)
}

/// Moves a box of a rollout on; `false` if it is not in it, or has ended: that stays.
pub async fn rollout_box_advance(
    tx: &mut Tx,
    rollout: &RolloutId,
    box_id: &BoxId,
    state: RolloutBoxState,
    step: Option<&str>,
    reason: Option<&str>,
    now: i64,
) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE rollout_boxes SET state = $3, step = coalesce($4, step), \
             reason = coalesce($5, reason), updated = $6 \
         WHERE rollout_id = $1 AND box_id = $2 AND state IN ('queued', 'running')",
        rollout.as_str(),
        box_id.as_str(),
        state.as_str(),
        step,
        reason.map(plain),
        now,
    )?;
    Ok(rows == 1)
}

/// The rollout that a box was assigned last, and how far it has come.
pub async fn rollout_box_last(tx: &mut Tx, box_id: &BoxId) -> StoreResult<Option<RolloutBoxRow>> {
    // By way of the commands, which have an index by box and time.
    fetch!(
        optional,
        tx,
        RolloutBoxRow,
        "SELECT r.* FROM commands c \
         JOIN rollout_boxes r ON r.rollout_id = c.rollout_id AND r.box_id = c.box_id \
         WHERE c.box_id = $1 ORDER BY c.created DESC, c.command_id DESC LIMIT 1",
        box_id.as_str()
    )
}

/// The boxes of a rollout.
pub async fn rollout_box_list(tx: &mut Tx, id: &RolloutId) -> StoreResult<Vec<RolloutBoxRow>> {
    fetch!(
        all,
        tx,
        RolloutBoxRow,
        "SELECT * FROM rollout_boxes WHERE rollout_id = $1 ORDER BY box_id",
        id.as_str()
    )
}
