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
    /// When it was aborted.
    pub aborted: Option<i64>,
    /// Who aborted it.
    pub aborted_by: Option<String>,
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
    /// The agent's version when the rollout began; absent for a box that had not come yet.
    pub version_before: Option<String>,
    /// The agent's version when the update ended.
    pub version_after: Option<String>,
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

/// Takes down that a rollout was aborted; `false` if there is none or it was aborted before.
pub async fn rollout_abort(tx: &mut Tx, id: &RolloutId, by: &str, now: i64) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE rollouts SET aborted = $2, aborted_by = $3 \
         WHERE rollout_id = $1 AND aborted IS NULL",
        id.as_str(),
        now,
        by,
    )?;
    Ok(rows == 1)
}

/// Takes down a box of a rollout, and the version that it runs now, as queued; `false` if it is in it already.
pub async fn rollout_box_insert(
    tx: &mut Tx,
    rollout: &RolloutId,
    box_id: &BoxId,
    command: Option<&str>,
    now: i64,
) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "INSERT INTO rollout_boxes (rollout_id, box_id, command_id, state, updated, \
             version_before) \
         VALUES ($1, $2, $3, 'queued', $4, \
             (SELECT b.agent_version FROM boxes b WHERE b.box_id = $2)) \
         ON CONFLICT (rollout_id, box_id) DO NOTHING",
        rollout.as_str(),
        box_id.as_str(),
        command,
        now,
    )?;
    Ok(rows == 1)
}

/// What a box of a rollout has come to.
#[derive(Clone, Copy, Debug)]
pub struct RolloutNews<'a> {
    /// How far.
    pub state: RolloutBoxState,
    /// The step that the box reports; absent where the cloud alone knows.
    pub step: Option<&'a str>,
    /// Why it failed, was rolled back or was not begun.
    pub reason: Option<&'a str>,
}

/// Moves a box of a rollout on; `false` if it is not in it, or has ended: that stays. Only a box
/// that had begun before it could be told that the rollout is over goes on.
pub async fn rollout_box_advance(
    tx: &mut Tx,
    rollout: &RolloutId,
    box_id: &BoxId,
    news: RolloutNews<'_>,
    now: i64,
) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE rollout_boxes SET state = $3, step = coalesce($4, step), \
             reason = CASE state WHEN 'cancelled' THEN $5 ELSE coalesce($5, reason) END, \
             updated = $6, \
             version_after = CASE WHEN $7 THEN \
                 (SELECT b.agent_version FROM boxes b WHERE b.box_id = $2) END \
         WHERE rollout_id = $1 AND box_id = $2 AND (state IN ('queued', 'running') \
             OR (state = 'cancelled' AND CAST($4 AS TEXT) IS NOT NULL))",
        rollout.as_str(),
        box_id.as_str(),
        news.state.as_str(),
        news.step,
        news.reason.map(plain),
        now,
        news.state.is_terminal(),
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

/// A release that a box was assigned.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct AssignedRow {
    /// The release's target in the repository.
    pub target: String,
    /// SHA-256 of the target.
    pub sha256: String,
    /// How far the box has come with it.
    #[sqlx(try_from = "String")]
    pub state: RolloutBoxState,
}

/// The releases that a box was assigned and may run, the latest first.
pub async fn rollout_box_assigned(tx: &mut Tx, box_id: &BoxId) -> StoreResult<Vec<AssignedRow>> {
    fetch!(
        all,
        tx,
        AssignedRow,
        "SELECT o.target, o.sha256, r.state FROM commands c \
         JOIN rollout_boxes r ON r.rollout_id = c.rollout_id AND r.box_id = c.box_id \
         JOIN rollouts o ON o.rollout_id = r.rollout_id \
         WHERE c.box_id = $1 AND r.state IN ('queued', 'running', 'committed') \
         ORDER BY c.created DESC, c.command_id DESC LIMIT 100",
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
