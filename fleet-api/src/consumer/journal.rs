//! The journal: committed exactly once, then acknowledged; each new fact moves what it is about.

use longhaul_protocol::command::CommandKind;
use longhaul_protocol::ids::{BoxId, CommandId, EpochId};
use longhaul_protocol::journal::{Fact, JournalAck, JournalBatch, JournalEntry, Outcome};
use longhaul_protocol::recovery::WrappedKey;
use longhaul_protocol::release::{UpdateStatus, UpdateStep};
use longhaul_protocol::value::{Jws, UnixMillis};
use longhaul_provisioning::receipt;

use super::apply::plausible;
use super::{Effect, bring_up};
use crate::fleet::{Fleet, FleetError, FleetEventKind, Wish, command_end, rollout_end};
use crate::store::Tx;
use crate::store::audit::{AuditEntry, audit_append};
use crate::store::boxes::box_set_seen;
use crate::store::commands::{CommandNews, CommandState, command_advance, command_get};
use crate::store::journal::{JournalCommit, journal_commit, journal_skip};
use crate::store::receipts::{receipt_leaf_insert, receipt_root_insert};
use crate::store::rollouts::{RolloutBoxState, RolloutNews, rollout_box_advance};
use crate::store::telemetry::telemetry_insert;
use crate::store::uploads::{UploadState, upload_advance, upload_erase, upload_find};
use crate::store::vault_keys::vault_key_set;

/// Commits a batch and applies the entries in it that are new.
pub(super) async fn commit(
    fleet: &Fleet,
    tx: &mut Tx,
    box_id: &BoxId,
    batch: JournalBatch,
    effects: &mut Vec<Effect>,
) -> Result<(), FleetError> {
    let now = fleet.now();
    if !box_set_seen(tx, box_id, None, now.0).await? {
        return Ok(());
    }
    let mut result = journal_commit(tx, box_id, &batch.epoch, &batch.entries, now.0).await?;
    if let JournalCommit::Gap { through } = result
        && let Some(first) = batch.entries.first().map(|entry| entry.number)
        && first > through.saturating_add(1)
    {
        lost(tx, box_id, &batch, through + 1, first - 1, now).await?;
        result = journal_commit(tx, box_id, &batch.epoch, &batch.entries, now.0).await?;
    }
    let through = match result {
        JournalCommit::Gap { through } => {
            tracing::warn!(%box_id, epoch = %batch.epoch, through, "journal batch is in disorder");
            through
        }
        JournalCommit::Committed { through, known } => {
            let fresh = batch.entries.get(known..).unwrap_or_default();
            for entry in fresh {
                apply(fleet, tx, (box_id, &batch.epoch), entry, now, effects).await?;
            }
            if !fresh.is_empty() {
                let entries = fresh.len();
                let told = FleetEventKind::Journal { through, entries };
                effects.push(Effect::Tell(box_id.clone(), told));
            }
            through
        }
    };
    // Also where nothing was taken: it tells the box where to go on.
    effects.push(Effect::Ack(
        box_id.clone(),
        JournalAck {
            epoch: batch.epoch,
            through,
        },
    ));
    Ok(())
}

/// Commits entries that came by file and are new; yields the highest number without a gap below it, and
/// how many were new. By file, a gap is a file that is still to come, not one that is lost.
pub(super) async fn commit_file(
    fleet: &Fleet,
    tx: &mut Tx,
    (box_id, epoch): (&BoxId, &EpochId),
    entries: &[JournalEntry],
    effects: &mut Vec<Effect>,
) -> Result<(u64, usize), FleetError> {
    let now = fleet.now();
    match journal_commit(tx, box_id, epoch, entries, now.0).await? {
        JournalCommit::Gap { through } => Err(FleetError::conflict(format!(
            "the journal of box {box_id} is known up to entry {through}: take the file first that goes on there"
        ))),
        JournalCommit::Committed { through, known } => {
            let fresh = entries.get(known..).unwrap_or_default();
            for entry in fresh {
                apply(fleet, tx, (box_id, epoch), entry, now, effects).await?;
            }
            if !fresh.is_empty() {
                let entries = fresh.len();
                let told = FleetEventKind::Journal { through, entries };
                effects.push(Effect::Tell(box_id.clone(), told));
            }
            Ok((through, fresh.len()))
        }
    }
}

/// Takes down that entries are lost, and goes on behind them. A box forgets only what a cloud has
/// acknowledged, so it was this cloud that lost them, with a database or a backup that is too old:
/// nobody will ever send them again, and waiting for them would silence the box for good.
async fn lost(
    tx: &mut Tx,
    box_id: &BoxId,
    batch: &JournalBatch,
    from: u64,
    to: u64,
    now: UnixMillis,
) -> Result<(), FleetError> {
    tracing::error!(%box_id, epoch = %batch.epoch, from, to, "journal entries are lost");
    journal_skip(tx, box_id, &batch.epoch, to).await?;
    let detail = serde_json::json!({ "epoch": batch.epoch, "from": from, "to": to });
    let entry = AuditEntry {
        actor: "MQTT consumer",
        action: "journal.lost",
        subject: box_id.as_str(),
        detail: &detail,
    };
    audit_append(tx, entry, now.0).await?;
    Ok(())
}

async fn apply(
    fleet: &Fleet,
    tx: &mut Tx,
    (box_id, epoch): (&BoxId, &EpochId),
    entry: &JournalEntry,
    now: UnixMillis,
    effects: &mut Vec<Effect>,
) -> Result<(), FleetError> {
    match &entry.fact {
        Fact::CommandResult { id, outcome } => {
            command_result(fleet, tx, box_id, (id, outcome), now, effects).await?;
        }
        Fact::Update(status) => update(tx, box_id, status, now, effects).await?,
        Fact::Stored {
            object,
            bytes,
            blake3,
            receipt,
        } => {
            if let Some(place) = receipt {
                receipt_leaf_insert(tx, box_id, object, *bytes, *blake3, place).await?;
            }
            effects.push(Effect::Tell(
                box_id.clone(),
                FleetEventKind::ObjectStored {
                    bucket: object.bucket.clone(),
                    key: object.key.clone(),
                    bytes: *bytes,
                },
            ));
        }
        Fact::Erased { bucket, objects } => {
            let reason = "erased on the box before it was delivered";
            let ended = upload_erase(tx, box_id, bucket, reason, now.0).await?;
            tracing::info!(%box_id, bucket, objects, ended, "a bucket was erased on its box");
            effects.push(Effect::Tell(
                box_id.clone(),
                FleetEventKind::BucketErased {
                    bucket: bucket.clone(),
                    objects: *objects,
                },
            ));
        }
        Fact::VaultKey(wrapped) => vault_key(tx, box_id, wrapped, now).await?,
        Fact::Sealed { root } => sealed(fleet, tx, box_id, root).await?,
        Fact::DeliveryFailed { object, reason } => {
            let version = i64::try_from(object.version).unwrap_or(i64::MAX);
            let found = upload_find(tx, box_id, &object.bucket, &object.key, version).await?;
            if let Some(row) = found {
                let (id, state) = (&row.upload_id, UploadState::Failed);
                upload_advance(tx, id, state, Some(reason), now.0).await?;
            }
        }
        Fact::Telemetry(sample) => {
            let at = plausible(entry.at, now);
            telemetry_insert(tx, box_id, at.0, sample, now.0).await?;
        }
        Fact::Started { .. } => bring_up::started(tx, box_id, entry, now).await?,
        Fact::Rung { .. } => bring_up::rung(tx, box_id, epoch, entry, now).await?,
        // Their place is the journal itself, where the timeline finds them.
        Fact::Certificate { .. }
        | Fact::Network(_)
        | Fact::Deleted { .. }
        | Fact::Delivered { .. }
        | Fact::Failure { .. }
        | Fact::Notice { .. } => {}
    }
    Ok(())
}

/// Ends a command, once.
async fn command_result(
    fleet: &Fleet,
    tx: &mut Tx,
    box_id: &BoxId,
    (id, outcome): (&CommandId, &Outcome),
    now: UnixMillis,
    effects: &mut Vec<Effect>,
) -> Result<(), FleetError> {
    let Some(row) = command_get(tx, id)
        .await?
        .filter(|row| row.box_id == *box_id)
    else {
        tracing::warn!(%box_id, %id, "result of a command that the box was not sent");
        return Ok(());
    };
    let result;
    let (state, news) = match outcome {
        Outcome::Done { detail } => {
            result = detail.to_string().replace("\\u0000", "\\ufffd");
            let news = CommandNews {
                percent: Some(100),
                result: Some(&result),
                ..CommandNews::default()
            };
            (CommandState::Done, news)
        }
        Outcome::Failed { reason } => {
            let news = CommandNews {
                reason: Some(reason),
                ..CommandNews::default()
            };
            (CommandState::Failed, news)
        }
    };
    if !command_advance(tx, id, state, news, now.0).await? {
        return Ok(());
    }
    command_end(tx, &row, state, news, now.0).await?;
    if state == CommandState::Failed {
        let (state, rollout) = (RolloutBoxState::Failed, row.rollout_id.as_deref());
        rollout_end(tx, rollout, box_id, state, news.reason, now.0).await?;
    }
    // The next desired state must not undo what the command did.
    if state == CommandState::Done
        && let Ok(CommandKind::SetTelemetryInterval { seconds }) = serde_json::from_str(&row.detail)
    {
        let wish = Wish {
            telemetry_secs: Some(seconds),
            ..Wish::default()
        };
        fleet.desired_renew(tx, box_id, wish).await?;
        effects.push(Effect::Desired(box_id.clone()));
    }
    effects.push(Effect::Tell(
        box_id.clone(),
        FleetEventKind::Command {
            id: id.clone(),
            state: state.to_string(),
            command: None,
        },
    ));
    Ok(())
}

/// Keeps a wrapped key of this very box.
async fn vault_key(
    tx: &mut Tx,
    box_id: &BoxId,
    wrapped: &WrappedKey,
    now: UnixMillis,
) -> Result<(), FleetError> {
    if wrapped.box_id != *box_id {
        tracing::warn!(%box_id, of = %wrapped.box_id, "a box sent another box's key");
        return Ok(());
    }
    Ok(vault_key_set(tx, wrapped, now.0).await?)
}

/// Keeps a root that this very box signed; another is worth a line in the log and nothing else.
async fn sealed(fleet: &Fleet, tx: &mut Tx, box_id: &BoxId, root: &Jws) -> Result<(), FleetError> {
    match receipt::verify_root(root, fleet.identity().anchors()) {
        Ok(claims) if claims.box_id == *box_id => {
            receipt_root_insert(tx, &claims, root).await?;
        }
        Ok(claims) => {
            tracing::warn!(%box_id, of = %claims.box_id, "a box sent another box's root");
        }
        Err(error) => {
            tracing::warn!(%box_id, error = &error as &dyn std::error::Error, "a root is not kept");
        }
    }
    Ok(())
}

async fn update(
    tx: &mut Tx,
    box_id: &BoxId,
    status: &UpdateStatus,
    now: UnixMillis,
    effects: &mut Vec<Effect>,
) -> Result<(), FleetError> {
    let state = match status.step {
        UpdateStep::Committed => RolloutBoxState::Committed,
        UpdateStep::RolledBack => RolloutBoxState::RolledBack,
        UpdateStep::Failed => RolloutBoxState::Failed,
        _ => RolloutBoxState::Running,
    };
    let news = RolloutNews {
        state,
        step: Some(step_name(status.step)),
        reason: status.reason.as_deref(),
    };
    rollout_box_advance(tx, &status.rollout, box_id, news, now.0).await?;
    effects.push(Effect::Tell(
        box_id.clone(),
        FleetEventKind::Update {
            rollout: status.rollout.clone(),
            version: status.version.clone(),
            step: status.step,
        },
    ));
    Ok(())
}

/// The step as in its JSON.
fn step_name(step: UpdateStep) -> &'static str {
    match step {
        UpdateStep::Assigned => "assigned",
        UpdateStep::Metadata => "metadata",
        UpdateStep::Preflight => "preflight",
        UpdateStep::Download => "download",
        UpdateStep::Verify => "verify",
        UpdateStep::WaitWindow => "wait_window",
        UpdateStep::Arm => "arm",
        UpdateStep::Reboot => "reboot",
        UpdateStep::Trial => "trial",
        UpdateStep::Committed => "committed",
        UpdateStep::RolledBack => "rolled_back",
        UpdateStep::Failed => "failed",
    }
}
