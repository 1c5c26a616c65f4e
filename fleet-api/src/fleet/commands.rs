//! Signed commands: drawn, signed and stored in one transaction, then sent; sent again at every
//! birth until the box has answered or they have expired.

use longhaul_protocol::backbone::Call;
use longhaul_protocol::command::{CommandClaims, CommandKind, SignedCommand};
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::{BoxId, CommandId, RolloutId};
use longhaul_protocol::topic::Dn;
use longhaul_protocol::trace::hex;
use longhaul_protocol::value::{Jws, UnixMillis};
use longhaul_provisioning::jws::Kind;
use serde_json::json;

use super::boxes::known;
use super::proposals::{TwoPeople, takes_commands};
use super::{Actor, Fleet, FleetError, FleetEventKind, audit, fresh};
use crate::store::Tx;
use crate::store::boxes::{BoxState, box_get, box_next_counter};
use crate::store::command_traces::{NewTrace, trace_get, trace_insert};
use crate::store::commands::{
    CommandNews, CommandRow, CommandState, NewCommand, command_advance, command_expire,
    command_get, command_insert, command_list_open,
};
use crate::store::idempotency::idempotency_made;
use crate::store::rollouts::{RolloutBoxState, RolloutNews, rollout_box_advance};
use crate::traces::{CALLED, own_trace, told};

/// The longest that a command may wait, in seconds: 90 days.
pub(super) const MAX_VALID_SECS: u32 = 90 * 86_400;
/// How long after its end a command that was begun may still report, in milliseconds: a day.
const ACCEPTED_GRACE_MS: i64 = 86_400 * 1000;
/// A command is valid from a little before it was signed: clocks differ. In seconds.
const BACKDATE_SECS: i64 = 300;

/// On whose word a command is signed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Authority<'a> {
    /// One person's, for what can be put right again.
    One(&'a Actor),
    /// A rollout's.
    Rollout(&'a Actor, &'a RolloutId),
    /// Two people's.
    Two(&'a TwoPeople<'a>),
}

impl Authority<'_> {
    fn actor(&self) -> &Actor {
        match self {
            Self::One(actor) | Self::Rollout(actor, _) => actor,
            Self::Two(two) => two.actor(),
        }
    }
}

/// A command that is committed and waits to be sent.
pub(super) struct Signed {
    pub id: CommandId,
    pub kind: CommandKind,
}

/// Which of a box's commands are to be sent.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Which {
    /// All that the box has not answered: its session has just begun.
    Open,
    /// Those that were never sent.
    Unsent,
}

impl Fleet {
    /// Signs, stores and publishes a command. It is sent again at every birth until the box has
    /// answered or it has expired.
    pub async fn command_send(
        &self,
        actor: &Actor,
        box_id: &BoxId,
        command: CommandKind,
        valid_for_secs: u32,
    ) -> Result<CommandId, FleetError> {
        if matches!(command, CommandKind::Update(_)) {
            return Err(FleetError::invalid(
                "updates are assigned by a rollout: start one with a list of one box",
            ));
        }
        let _turn = self.lock(box_id).await;
        let mut tx = self.db().write().await?;
        let signed = self
            .command_sign(
                &mut tx,
                Authority::One(actor),
                box_id,
                command,
                valid_for_secs,
            )
            .await?;
        idempotency_made(signed.id.as_str());
        tx.commit().await?;
        let id = signed.id.clone();
        self.command_publish(box_id, signed).await?;
        Ok(id)
    }

    /// Draws a counter, signs and stores; the caller holds the box's lock, commits and publishes.
    pub(super) async fn command_sign(
        &self,
        tx: &mut Tx,
        authority: Authority<'_>,
        box_id: &BoxId,
        command: CommandKind,
        valid_for_secs: u32,
    ) -> Result<Signed, FleetError> {
        if command.is_destructive() && !matches!(authority, Authority::Two(_)) {
            return Err(FleetError::forbidden(format!(
                "{} takes two people: propose it, and somebody else approves it",
                command.name()
            )));
        }
        command
            .check()
            .map_err(|e| FleetError::invalid(e.to_string()))?;
        if !(1..=MAX_VALID_SECS).contains(&valid_for_secs) {
            return Err(FleetError::invalid(format!(
                "a command is valid for 1 to {MAX_VALID_SECS} seconds, not {valid_for_secs}"
            )));
        }
        let row = known(box_get(tx, box_id).await?, box_id)?;
        takes_commands(box_id, row.state)?;
        let now = self.now();
        let gone = || FleetError::not_found(format!("no box {box_id}"));
        let counter = box_next_counter(tx, box_id, now.0 / 1000)
            .await?
            .ok_or_else(gone)?;
        let id: CommandId = fresh("cmd")?;
        let actor = authority.actor();
        let (issued_by, approved_by, proposal) = match authority {
            Authority::One(by) | Authority::Rollout(by, _) => (by.0.clone(), None, None),
            Authority::Two(two) => (
                two.proposer().to_owned(),
                Some(two.approver().to_owned()),
                Some(two.proposal()),
            ),
        };
        let rollout = match authority {
            Authority::Rollout(_, rollout) => Some(rollout),
            _ => None,
        };
        let claims = CommandClaims {
            v: VERSION,
            id: id.clone(),
            box_id: box_id.clone(),
            counter: u64::try_from(counter).unwrap_or(0),
            not_before: now.plus_secs(-BACKDATE_SECS),
            expires: now.plus_secs(i64::from(valid_for_secs)),
            issued_by,
            approved_by,
            command: command.clone(),
        };
        let internal = |e: serde_json::Error| FleetError::internal("failed to write a command", e);
        let payload = serde_json::to_vec(&claims).map_err(internal)?;
        let detail = serde_json::to_string(&command).map_err(internal)?;
        let jws = self
            .identity()
            .signer()
            .sign(Kind::Command, &payload)
            .map_err(|e| FleetError::internal("failed to sign a command", e))?;
        let new = NewCommand {
            command_id: &id,
            box_id,
            counter,
            kind: command.name(),
            detail: &detail,
            jws: &jws.0,
            created_by: &claims.issued_by,
            not_before: claims.not_before.0,
            expires: claims.expires.0,
            rollout_id: rollout.map(RolloutId::as_str),
            proposal_id: proposal,
        };
        command_insert(tx, &new, now.0).await?;
        if self.traced() {
            trace(tx, &id, now).await?;
        }
        let what = json!({ "command": id, "kind": command.name(), "proposal": proposal });
        audit(tx, actor, "command.send", box_id.as_str(), what, now).await?;
        Ok(Signed { id, kind: command })
    }

    /// Sends what is committed, if the box is connected.
    pub(super) async fn command_publish(
        &self,
        box_id: &BoxId,
        signed: Signed,
    ) -> Result<(), FleetError> {
        let mut state = CommandState::Queued;
        if self.db().is_shared() && !self.line().holds(box_id) {
            // Whoever holds the box sends it, in its turn.
            self.line().call(box_id, Call::Commands);
        } else {
            // With what other processes have signed before: a box refuses a counter that falls.
            let sent = self.commands_write(box_id, Which::Unsent).await?;
            if sent.contains(&signed.id) {
                state = CommandState::Sent;
            }
        }
        self.tell(
            Some(box_id),
            FleetEventKind::Command {
                id: signed.id,
                state: state.to_string(),
                command: Some(signed.kind),
            },
        );
        Ok(())
    }

    async fn command_mark_sent(&self, ids: &[CommandId]) -> Result<(), FleetError> {
        let now = self.now();
        let mut tx = self.db().write().await?;
        for id in ids {
            let news = CommandNews::default();
            command_advance(&mut tx, id, CommandState::Sent, news, now.0).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Sends everything open to a box that was just born, in the order of the counters.
    pub(crate) async fn commands_resend(&self, box_id: &BoxId) -> Result<(), FleetError> {
        self.commands_write_and_tell(box_id, Which::Open).await
    }

    /// Sends what was never sent, if the box has its session here.
    pub(crate) async fn commands_push(&self, box_id: &BoxId) -> Result<(), FleetError> {
        self.commands_write_and_tell(box_id, Which::Unsent).await
    }

    async fn commands_write_and_tell(
        &self,
        box_id: &BoxId,
        which: Which,
    ) -> Result<(), FleetError> {
        let _turn = self.lock(box_id).await;
        for id in self.commands_write(box_id, which).await? {
            let state = CommandState::Sent.to_string();
            let command = None;
            self.tell(Some(box_id), FleetEventKind::Command { id, state, command });
        }
        Ok(())
    }

    /// Sends open commands to a box that has its session here, in the order of the counters; yields
    /// those that are sent for the first time. The caller holds the box's lock.
    async fn commands_write(
        &self,
        box_id: &BoxId,
        which: Which,
    ) -> Result<Vec<CommandId>, FleetError> {
        if !self.line().holds(box_id) {
            return Ok(Vec::new());
        }
        let mut tx = self.db().read().await?;
        let state = box_get(&mut tx, box_id).await?.map(|row| row.state);
        let mut open = Vec::new();
        for row in command_list_open(&mut tx, box_id, self.now().0).await? {
            let trace = if self.traced() {
                trace_get(&mut tx, &row.command_id).await?
            } else {
                None
            };
            open.push((row, trace));
        }
        drop(tx);
        let mut first_sent = Vec::new();
        if state != Some(BoxState::Active) {
            return Ok(first_sent);
        }
        for (row, trace) in open {
            if which == Which::Unsent && row.state != CommandState::Queued {
                continue;
            }
            let traceparent = trace.and_then(|trace| told(&row.command_id, &trace));
            let command = SignedCommand {
                jws: Jws(row.jws),
                traceparent,
            };
            if !self.publish(box_id, Dn::Command, &command) {
                break;
            }
            if row.state == CommandState::Queued {
                first_sent.push(row.command_id);
            }
        }
        if !first_sent.is_empty() {
            self.command_mark_sent(&first_sent).await?;
        }
        Ok(first_sent)
    }

    /// Stops sending a command that the box has not begun.
    pub async fn command_cancel(&self, actor: &Actor, id: &CommandId) -> Result<(), FleetError> {
        let now = self.now();
        let mut tx = self.db().write().await?;
        let row = command_get(&mut tx, id)
            .await?
            .ok_or_else(|| FleetError::not_found(format!("no command {id}")))?;
        let state = CommandState::Cancelled;
        if !command_advance(&mut tx, id, state, CommandNews::default(), now.0).await? {
            return Err(FleetError::conflict(format!(
                "command {id} is {} and cannot be taken back",
                row.state
            )));
        }
        rollout_end(
            &mut tx,
            row.rollout_id.as_deref(),
            &row.box_id,
            RolloutBoxState::Cancelled,
            None,
            now.0,
        )
        .await?;
        let what = json!({ "command": id });
        audit(
            &mut tx,
            actor,
            "command.cancel",
            row.box_id.as_str(),
            what,
            now,
        )
        .await?;
        tx.commit().await?;
        let state = state.to_string();
        let id = id.clone();
        let command = None;
        self.tell(
            Some(&row.box_id),
            FleetEventKind::Command { id, state, command },
        );
        Ok(())
    }

    /// Ends what no box has answered in time.
    pub(crate) async fn commands_expire(&self) -> Result<(), FleetError> {
        let now = self.now();
        let mut tx = self.db().write().await?;
        let expired = command_expire(&mut tx, ACCEPTED_GRACE_MS, now.0).await?;
        for (id, box_id) in &expired {
            let Some(row) = command_get(&mut tx, id).await? else {
                continue;
            };
            let ended = CommandNews {
                reason: row.reason.as_deref(),
                ..CommandNews::default()
            };
            command_end(&mut tx, &row, CommandState::Expired, ended, now.0).await?;
            let state = RolloutBoxState::Expired;
            let reason = row.reason.as_deref();
            rollout_end(
                &mut tx,
                row.rollout_id.as_deref(),
                box_id,
                state,
                reason,
                now.0,
            )
            .await?;
        }
        tx.commit().await?;
        for (id, box_id) in expired {
            let state = CommandState::Expired.to_string();
            let command = None;
            self.tell(
                Some(&box_id),
                FleetEventKind::Command { id, state, command },
            );
        }
        Ok(())
    }
}

/// Takes down the trace that a command belongs to: its caller's, or one of its own. A caller may
/// say that it records none.
async fn trace(tx: &mut Tx, id: &CommandId, now: UnixMillis) -> Result<(), FleetError> {
    let called = CALLED.try_with(|called| *called).ok();
    let parent = called.and_then(|called| called.parent);
    if parent.is_some_and(|parent| !parent.sampled) {
        return Ok(());
    }
    let (trace_id, parent_id) = match parent {
        Some(parent) => (hex(&parent.trace), Some(hex(&parent.span))),
        None => (own_trace(id), None),
    };
    let new = NewTrace {
        command_id: id,
        trace_id: &trace_id,
        parent_id: parent_id.as_deref(),
        begun: called.map_or(now.0, |called| called.begun),
    };
    trace_insert(tx, &new, now.0).await?;
    Ok(())
}

/// Takes down in the audit how a command ended that two people agreed on.
pub(crate) async fn command_end(
    tx: &mut Tx,
    row: &CommandRow,
    state: CommandState,
    news: CommandNews<'_>,
    now: i64,
) -> Result<(), FleetError> {
    let Some(proposal) = &row.proposal_id else {
        return Ok(());
    };
    let result: Option<serde_json::Value> =
        news.result.and_then(|text| serde_json::from_str(text).ok());
    let what = json!({
        "command": row.command_id, "kind": row.kind, "proposal": proposal,
        "state": state.as_str(), "reason": news.reason, "result": result,
    });
    let by = match state {
        CommandState::Expired => Actor("upkeep".to_owned()),
        _ => Actor(format!("box:{}", row.box_id)),
    };
    let subject = row.box_id.as_str();
    audit(tx, &by, "command.end", subject, what, UnixMillis(now)).await
}

/// Takes down that a command of a rollout ended without an update's own last word.
pub(crate) async fn rollout_end(
    tx: &mut Tx,
    rollout: Option<&str>,
    box_id: &BoxId,
    state: RolloutBoxState,
    reason: Option<&str>,
    now: i64,
) -> Result<(), FleetError> {
    if let Some(rollout) = rollout.and_then(|text| text.parse().ok()) {
        let news = RolloutNews {
            state,
            step: None,
            reason,
        };
        rollout_box_advance(tx, &rollout, box_id, news, now).await?;
    }
    Ok(())
}
