//! One message, applied to the database.

use longhaul_broker::Upward;
use longhaul_protocol::command::{CommandState, CommandUpdate, Rejection};
use longhaul_protocol::envelope::{self, DecodeError, Envelope, Message};
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::journal::JournalBatch;
use longhaul_protocol::presence::Presence;
use longhaul_protocol::telemetry::Telemetry;
use longhaul_protocol::topic::Up;
use longhaul_protocol::twin::Reported;
use longhaul_protocol::value::UnixMillis;

use super::{Effect, journal};
use crate::fleet::{Fleet, FleetError, FleetEventKind, command_end, rollout_end};
use crate::store::Tx;
use crate::store::boxes::{
    box_set_applied, box_set_birth, box_set_death, box_set_edge, box_set_seen,
};
use crate::store::commands::{self, CommandNews, command_advance, command_get};
use crate::store::presence::{PresenceKind, presence_insert};
use crate::store::rollouts::RolloutBoxState;
use crate::store::telemetry::telemetry_insert;
use crate::store::twins::{ReportedRow, reported_set};

/// A box's clock may be wrong; a sample from further ahead than this is taken as of now.
const CLOCK_AHEAD_MS: i64 = 10 * 60 * 1000;

/// Applies `message`; an error means that the database refused.
pub(super) async fn apply(
    fleet: &Fleet,
    tx: &mut Tx,
    message: &Upward,
    effects: &mut Vec<Effect>,
) -> Result<(), FleetError> {
    let (box_id, bytes) = (&message.box_id, message.payload.as_ref());
    let now = fleet.now();
    match message.channel {
        Up::Presence => match parsed::<Presence>(box_id, bytes) {
            Some(envelope) => {
                let edge = fleet.line().took(message.edge);
                presence(tx, box_id, &edge, envelope.body, now, effects).await
            }
            None => Ok(()),
        },
        Up::Telemetry => match parsed::<Telemetry>(box_id, bytes) {
            Some(envelope) => telemetry(tx, box_id, envelope, now, effects).await,
            None => Ok(()),
        },
        Up::Journal => match parsed::<JournalBatch>(box_id, bytes) {
            Some(envelope) => journal::commit(fleet, tx, box_id, envelope.body, effects).await,
            None => Ok(()),
        },
        Up::Reported => match parsed::<Reported>(box_id, bytes) {
            Some(envelope) => reported(tx, box_id, envelope.body, now, effects).await,
            None => Ok(()),
        },
        Up::Command => match parsed::<CommandUpdate>(box_id, bytes) {
            Some(envelope) => command(tx, box_id, envelope.body, now, effects).await,
            None => Ok(()),
        },
        // Nobody has leased a log.
        Up::Log => Ok(()),
    }
}

fn parsed<T: Message>(box_id: &BoxId, bytes: &[u8]) -> Option<Envelope<T>> {
    match envelope::decode::<T>(bytes) {
        Ok(envelope) => Some(envelope),
        Err(error) => {
            let unknown_version = matches!(error, DecodeError::UnknownVersion { .. });
            tracing::warn!(
                %box_id,
                bytes = bytes.len(),
                unknown_version,
                error = &error as &dyn std::error::Error,
                "refused a message"
            );
            None
        }
    }
}

async fn presence(
    tx: &mut Tx,
    box_id: &BoxId,
    edge: &str,
    presence: Presence,
    now: UnixMillis,
    effects: &mut Vec<Effect>,
) -> Result<(), FleetError> {
    let detail = serde_json::to_string(&presence)
        .map_err(|e| FleetError::internal("failed to write a presence", e))?;
    match presence {
        Presence::Birth(birth) => {
            if !box_set_birth(tx, box_id, &birth, now.0).await? {
                return Ok(());
            }
            box_set_edge(tx, box_id, edge).await?;
            let session = birth.session.as_str();
            presence_insert(tx, box_id, PresenceKind::Birth, session, &detail, now.0).await?;
            tracing::info!(%box_id, session, agent_version = birth.agent_version, "box is online");
            effects.push(Effect::Tell(
                box_id.clone(),
                FleetEventKind::Online {
                    agent_version: birth.agent_version,
                },
            ));
            effects.push(Effect::Born {
                box_id: box_id.clone(),
                applied: birth.desired_version,
            });
        }
        Presence::Death(death) => {
            let session = death.session.as_str();
            // A will that comes after the next session's birth is stale.
            if !box_set_death(tx, box_id, session, now.0).await? {
                return Ok(());
            }
            presence_insert(tx, box_id, PresenceKind::Death, session, &detail, now.0).await?;
            tracing::info!(%box_id, session, "box is offline");
            effects.push(Effect::Tell(box_id.clone(), FleetEventKind::Offline));
        }
    }
    Ok(())
}

async fn telemetry(
    tx: &mut Tx,
    box_id: &BoxId,
    envelope: Envelope<Telemetry>,
    now: UnixMillis,
    effects: &mut Vec<Effect>,
) -> Result<(), FleetError> {
    let rungs = Some(envelope.body.rungs.as_slice()).filter(|rungs| !rungs.is_empty());
    if !box_set_seen(tx, box_id, rungs, now.0).await? {
        return Ok(());
    }
    let at = plausible(envelope.sent, now);
    telemetry_insert(tx, box_id, at.0, &envelope.body, now.0).await?;
    effects.push(Effect::Tell(
        box_id.clone(),
        FleetEventKind::Telemetry {
            sample: Box::new(envelope.body),
        },
    ));
    Ok(())
}

/// The box's time, unless it lies in the future.
pub(super) fn plausible(at: UnixMillis, now: UnixMillis) -> UnixMillis {
    if at.millis_since(now) > CLOCK_AHEAD_MS {
        now
    } else {
        at
    }
}

async fn reported(
    tx: &mut Tx,
    box_id: &BoxId,
    reported: Reported,
    now: UnixMillis,
    effects: &mut Vec<Effect>,
) -> Result<(), FleetError> {
    let version = i64::try_from(reported.desired_version).unwrap_or(i64::MAX);
    let known = box_set_applied(
        tx,
        box_id,
        version,
        &reported.agent_version,
        &reported.lan_urls,
        now.0,
    )
    .await?;
    if !known {
        return Ok(());
    }
    let row = ReportedRow {
        box_id: box_id.clone(),
        desired_version: version,
        detail: serde_json::to_string(&reported)
            .map_err(|e| FleetError::internal("failed to write reported state", e))?
            .replace("\\u0000", "\\ufffd"),
        updated: now.0,
    };
    reported_set(tx, &row).await?;
    let telemetry_interval_secs = reported.telemetry_interval_secs;
    effects.push(Effect::Tell(
        box_id.clone(),
        FleetEventKind::Reported {
            telemetry_interval_secs,
        },
    ));
    Ok(())
}

async fn command(
    tx: &mut Tx,
    box_id: &BoxId,
    update: CommandUpdate,
    now: UnixMillis,
    effects: &mut Vec<Effect>,
) -> Result<(), FleetError> {
    let Some(id) = update.id else {
        tracing::warn!(%box_id, state = ?update.state, "box refused a command that it could not name");
        return Ok(());
    };
    let Some(row) = command_get(tx, &id)
        .await?
        .filter(|row| row.box_id == *box_id)
    else {
        tracing::warn!(%box_id, %id, "box answers a command that it was not sent");
        return Ok(());
    };
    let mut news = CommandNews::default();
    let why;
    let state = match &update.state {
        CommandState::Accepted => commands::CommandState::Accepted,
        CommandState::Progress { percent, text } => {
            news.percent = Some((*percent).min(100));
            news.progress = Some(text);
            commands::CommandState::Accepted
        }
        // Sent again while the box was at it: its counter does not rise, which says nothing new.
        CommandState::Rejected {
            reason: Rejection::Replayed,
            ..
        } if row.state == commands::CommandState::Accepted => return Ok(()),
        CommandState::Rejected { reason, text } => {
            why = format!("{}: {text}", rejection(*reason));
            news.reason = Some(&why);
            commands::CommandState::Rejected
        }
    };
    if !command_advance(tx, &id, state, news, now.0).await? {
        return Ok(());
    }
    if state == commands::CommandState::Rejected {
        command_end(tx, &row, state, news, now.0).await?;
        let (state, reason) = (RolloutBoxState::Failed, news.reason);
        rollout_end(tx, row.rollout_id.as_deref(), box_id, state, reason, now.0).await?;
    }
    effects.push(Effect::Tell(
        box_id.clone(),
        FleetEventKind::Command {
            id,
            state: state.to_string(),
            command: None,
        },
    ));
    Ok(())
}

/// The reason as in its JSON.
fn rejection(reason: Rejection) -> &'static str {
    match reason {
        Rejection::Malformed => "malformed",
        Rejection::Unsigned => "unsigned",
        Rejection::WrongBox => "wrong_box",
        Rejection::Unapproved => "unapproved",
        Rejection::TooEarly => "too_early",
        Rejection::Expired => "expired",
        Rejection::Replayed => "replayed",
        Rejection::Unsupported => "unsupported",
        Rejection::Busy => "busy",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_from_the_future_is_taken_as_of_now() {
        let now = UnixMillis(1_000_000_000);

        assert_eq!(plausible(UnixMillis(5), now), UnixMillis(5));
        assert_eq!(plausible(now.plus_secs(60), now), now.plus_secs(60));
        assert_eq!(plausible(UnixMillis(i64::MAX), now), now);
    }
}
