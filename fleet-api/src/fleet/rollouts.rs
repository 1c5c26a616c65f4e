//! Rollouts: a release assigned to a list of boxes, each by a signed command.

use std::collections::BTreeSet;

use longhaul_protocol::command::CommandKind;
use longhaul_protocol::ids::{BoxId, CommandId, RolloutId};
use longhaul_protocol::release::Assignment;
use longhaul_protocol::value::UnixMillis;
use serde_json::json;

use super::commands::Authority;
use super::{
    Actor, Fleet, FleetError, FleetEventKind, NewRollout, RolloutBox, RolloutView, audit, fresh,
};
use crate::store::Tx;
use crate::store::boxes::box_get;
use crate::store::commands::{CommandNews, CommandState, command_advance, command_get};
use crate::store::idempotency::idempotency_made;
use crate::store::rollouts::{
    RolloutBoxRow, RolloutBoxState, RolloutNews, RolloutRow, rollout_abort, rollout_box_advance,
    rollout_box_insert, rollout_box_last, rollout_box_list, rollout_get, rollout_insert,
};

/// Boxes in one rollout at the most: they are assigned in one transaction.
pub const MAX_ROLLOUT_BOXES: usize = 1000;

impl Fleet {
    /// Assigns a release to boxes. Either every box is assigned it or none.
    pub async fn rollout_start(
        &self,
        actor: &Actor,
        rollout: NewRollout,
    ) -> Result<RolloutId, FleetError> {
        let boxes: BTreeSet<_> = rollout.boxes.into_iter().collect();
        if boxes.is_empty() || boxes.len() > MAX_ROLLOUT_BOXES {
            return Err(FleetError::invalid(format!(
                "a rollout has 1 to {MAX_ROLLOUT_BOXES} boxes, not {}",
                boxes.len()
            )));
        }
        let release = self.release_find(&rollout.version).await?;
        let id: RolloutId = fresh("ro")?;
        let assignment = Assignment {
            rollout: id.clone(),
            version: release.version,
            target: release.target,
            sha256: release.sha256,
            length: release.length,
        };
        let now = self.now();
        // Every lock there is, in order: what boxes get must rise in counters here too.
        let mut turns = Vec::with_capacity(self.inner.locks.len());
        for lock in &self.inner.locks {
            turns.push(lock.lock().await);
        }
        let mut tx = self.db().write().await?;
        rollout_insert(&mut tx, &assignment, &actor.0, now.0).await?;
        let mut signed = Vec::with_capacity(boxes.len());
        for box_id in &boxes {
            let command = CommandKind::Update(assignment.clone());
            let valid = rollout.valid_for_secs;
            let one = self
                .command_sign(
                    &mut tx,
                    Authority::Rollout(actor, &id),
                    box_id,
                    command,
                    valid,
                )
                .await?;
            rollout_box_insert(&mut tx, &id, box_id, Some(one.id.as_str()), now.0).await?;
            signed.push((box_id, one));
        }
        let what = json!({ "version": assignment.version, "boxes": boxes.len() });
        audit(&mut tx, actor, "rollout.start", id.as_str(), what, now).await?;
        idempotency_made(id.as_str());
        tx.commit().await?;
        for (box_id, one) in signed {
            self.command_publish(box_id, one).await?;
        }
        drop(turns);
        self.tell(None, FleetEventKind::Rollout { id: id.clone() });
        Ok(id)
    }

    /// The rollout that a box was assigned last, with only this box in it.
    pub async fn rollout_last(&self, box_id: &BoxId) -> Result<Option<RolloutView>, FleetError> {
        let mut tx = self.db().read().await?;
        let Some(last) = rollout_box_last(&mut tx, box_id).await? else {
            return Ok(None);
        };
        let Some(row) = rollout_get(&mut tx, &last.rollout_id).await? else {
            return Ok(None);
        };
        let boxes = vec![box_view(&mut tx, last).await?];
        Ok(Some(view(row, boxes)))
    }

    /// Ends a rollout: boxes that have not begun are not sent it any more. What a box has begun it
    /// brings to an end.
    pub async fn rollout_abort(&self, actor: &Actor, id: &RolloutId) -> Result<(), FleetError> {
        let now = self.now();
        let mut tx = self.db().write().await?;
        let missing = || FleetError::not_found(format!("no rollout {id}"));
        rollout_get(&mut tx, id).await?.ok_or_else(missing)?;
        if !rollout_abort(&mut tx, id, &actor.0, now.0).await? {
            return Err(FleetError::conflict(format!(
                "rollout {id} was aborted before"
            )));
        }
        let why = format!("{actor} aborted the rollout before the box began");
        let mut cancelled = Vec::new();
        for row in rollout_box_list(&mut tx, id).await? {
            let Some(command) = row.command_id.as_deref().and_then(|text| text.parse().ok()) else {
                continue;
            };
            let news = CommandNews {
                reason: Some(&why),
                ..CommandNews::default()
            };
            let state = CommandState::Cancelled;
            if row.state == RolloutBoxState::Queued
                && command_advance(&mut tx, &command, state, news, now.0).await?
            {
                let news = RolloutNews {
                    state: RolloutBoxState::Cancelled,
                    step: None,
                    reason: Some(&why),
                };
                rollout_box_advance(&mut tx, id, &row.box_id, news, now.0).await?;
                cancelled.push((row.box_id, command));
            }
        }
        let what = json!({ "not_begun": cancelled.len() });
        audit(&mut tx, actor, "rollout.abort", id.as_str(), what, now).await?;
        tx.commit().await?;
        for (box_id, id) in cancelled {
            let (state, command) = (CommandState::Cancelled.to_string(), None);
            self.tell(
                Some(&box_id),
                FleetEventKind::Command { id, state, command },
            );
        }
        self.tell(None, FleetEventKind::Rollout { id: id.clone() });
        Ok(())
    }

    /// A rollout and how far each of its boxes has come.
    pub async fn rollout_get(&self, id: &RolloutId) -> Result<RolloutView, FleetError> {
        let mut tx = self.db().read().await?;
        rollout_view(&mut tx, id).await
    }
}

/// A rollout and how far each of its boxes has come.
pub(crate) async fn rollout_view(tx: &mut Tx, id: &RolloutId) -> Result<RolloutView, FleetError> {
    let row = rollout_get(tx, id)
        .await?
        .ok_or_else(|| FleetError::not_found(format!("no rollout {id}")))?;
    let mut boxes = Vec::new();
    for row in rollout_box_list(tx, id).await? {
        boxes.push(box_view(tx, row).await?);
    }
    Ok(view(row, boxes))
}

fn view(row: RolloutRow, boxes: Vec<RolloutBox>) -> RolloutView {
    RolloutView {
        id: row.rollout_id,
        version: row.version,
        started_by: row.created_by,
        started_at: UnixMillis(row.created),
        aborted_at: row.aborted.map(UnixMillis),
        aborted_by: row.aborted_by,
        boxes,
    }
}

async fn box_view(tx: &mut Tx, row: RolloutBoxRow) -> Result<RolloutBox, FleetError> {
    let missing = || FleetError::internal("the rollout is incomplete", "a box has no command");
    let command: CommandId = row
        .command_id
        .as_deref()
        .and_then(|text| text.parse().ok())
        .ok_or_else(missing)?;
    let state = match row.state {
        RolloutBoxState::Queued => {
            let connected = box_get(tx, &row.box_id).await?.is_some_and(|b| b.connected);
            let sent = command_get(tx, &command)
                .await?
                .is_some_and(|c| c.state != CommandState::Queued);
            match (connected, sent) {
                (false, _) => "offline",
                (true, true) => "sent",
                (true, false) => "queued",
            }
            .to_owned()
        }
        RolloutBoxState::Running => {
            let step = row.step.clone();
            step.unwrap_or_else(|| row.state.to_string())
        }
        ended => ended.to_string(),
    };
    Ok(RolloutBox {
        box_id: row.box_id,
        command,
        state,
        step: row.step,
        reason: row.reason,
        version_before: row.version_before,
        version_after: row.version_after,
        since: UnixMillis(row.updated),
    })
}
