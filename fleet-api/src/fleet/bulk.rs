//! Bulk commands: one command for every box that a filter finds, seen before it is sent.
//!
//! A preview keeps which boxes were found. Whoever sends names the preview; if the filter finds
//! others by then, nothing is sent. Signing happens in parts, each in a transaction of its own, so
//! that nobody else waits, and goes on after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longhaul_protocol::command::CommandKind;
use longhaul_protocol::ids::{BoxId, CommandId};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::commands::Authority;
use super::proposals::{Person, TwoPeople};
use super::{Actor, Fleet, FleetError, FleetErrorKind, FleetEventKind, audit};
use crate::store::boxes::BoxState;
use crate::store::bulk::{
    BOX_FIELDS, BulkRow, BulkState, PreviewRow, bulk_advance, bulk_box_set, bulk_cancel, bulk_find,
    bulk_get, bulk_insert, bulk_open_commands, bulk_orders, bulk_sending, bulk_transfers,
    bulk_waiting, preview_insert, preview_take,
};
use crate::store::commands::{CommandNews, CommandState, command_advance};
use crate::store::filter::{Filter, FilterError};
use crate::store::idempotency::idempotency_made;
use crate::store::proposals::{proposal_get, proposal_void};
use crate::store::{Tx, new_id};

/// Boxes in one bulk command at the most.
pub const MAX_BULK_BOXES: usize = 100_000;
/// Commands that are signed in one transaction.
const PART: u32 = 100;
/// How long a preview can be used, in seconds.
const PREVIEW_SECS: i64 = 600;
/// Sites, orders and boxes that are named; more of them are counted.
const NAMED: usize = 100;
/// Between looks for work that another process left.
const TICK: Duration = Duration::from_secs(5);

/// Whom a bulk command would reach, and what it would disturb.
#[derive(Clone, Debug)]
pub struct Blast {
    /// Name of the preview.
    pub preview: String,
    /// Until when it can be used.
    pub expires: i64,
    /// Boxes that would get the command.
    pub boxes: usize,
    /// Those of them that are offline now.
    pub offline: usize,
    /// Boxes that the filter finds and that get no commands: quarantined.
    pub quarantined: usize,
    /// The same: revoked.
    pub revoked: usize,
    /// Boxes by site, those with the most first; the first hundred.
    pub sites: Vec<(String, usize)>,
    /// How many sites.
    pub site_count: usize,
    /// Orders that they serve; the first hundred.
    pub orders: Vec<String>,
    /// How many orders.
    pub order_count: usize,
    /// Transfers under way from them.
    pub active_transfers: i64,
}

/// What the filter finds now is not what was seen.
#[derive(Clone, Debug, Default)]
pub struct Changed {
    /// Boxes that it did not find then; the first hundred.
    pub added: Vec<BoxId>,
    /// How many.
    pub added_count: usize,
    /// Boxes that it finds no longer; the first hundred.
    pub removed: Vec<BoxId>,
    /// How many.
    pub removed_count: usize,
}

/// Why a bulk command was not made.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    /// For a reason that any command may have.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The filter does not parse.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// What was seen is not what would be sent.
    #[error("the filter finds other boxes than in the preview: look again")]
    Changed(Changed),
}

impl From<crate::store::StoreError> for BulkError {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Fleet(error.into())
    }
}

/// What is made of a preview.
#[derive(Clone, Debug)]
pub struct NewBulk {
    /// The preview.
    pub preview: String,
    /// How long each command may be begun, in seconds.
    pub valid_for_secs: u32,
    /// Why; needed where it takes two people.
    pub reason: Option<String>,
    /// How long somebody else may decide, in seconds.
    pub decide_within_secs: u32,
}

impl Fleet {
    /// Finds whom a command would reach, and keeps it for a while; the caller commits.
    pub async fn bulk_preview(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        filter: &str,
        command: &CommandKind,
    ) -> Result<Blast, BulkError> {
        let now = self.now();
        let parsed = Filter::parse(filter, &BOX_FIELDS, now)?;
        let found = find(tx, &parsed).await?;
        let mut sites: BTreeMap<&str, usize> = BTreeMap::new();
        for row in &found.reached {
            *sites.entry(row.site.as_str()).or_default() += 1;
        }
        let mut sites: Vec<(String, usize)> =
            sites.into_iter().map(|(s, n)| (s.to_owned(), n)).collect();
        sites.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let mut orders = bulk_orders(tx, &parsed, now.0).await?;
        let names: Vec<&BoxId> = found.reached.iter().map(|row| &row.box_id).collect();
        let row = PreviewRow {
            preview_id: new_id("pre"),
            filter: filter.to_owned(),
            boxes: written(&names)?,
            kind: command.name().to_owned(),
            detail: written(command)?,
            created_by: actor.0.clone(),
            created: now.0,
            expires: now.plus_secs(PREVIEW_SECS).0,
        };
        preview_insert(tx, &row).await?;
        let active_transfers = bulk_transfers(tx, &parsed).await?;
        let (site_count, order_count) = (sites.len(), orders.len());
        sites.truncate(NAMED);
        orders.truncate(NAMED);
        Ok(Blast {
            preview: row.preview_id,
            expires: row.expires,
            boxes: found.reached.len(),
            offline: found.reached.iter().filter(|row| !row.connected).count(),
            quarantined: found.quarantined,
            revoked: found.revoked,
            sites,
            site_count,
            orders,
            order_count,
            active_transfers,
        })
    }

    /// Makes a bulk command of what was seen. What takes two people waits for the second.
    pub async fn bulk_make(
        &self,
        actor: &Actor,
        person: Option<&Person>,
        new: NewBulk,
    ) -> Result<String, BulkError> {
        let now = self.now();
        let mut tx = self.db().write().await?;
        let seen = preview_take(&mut tx, &new.preview, now.0).await?;
        let seen = seen.ok_or_else(|| {
            let text = format!(
                "there is no preview {}, or it was used or is too old",
                new.preview
            );
            FleetError::not_found(text)
        })?;
        let before: BTreeSet<BoxId> = parsed(&seen.boxes)?;
        let command: CommandKind = parsed(&seen.detail)?;
        let filter = Filter::parse(&seen.filter, &BOX_FIELDS, now)?;
        let found = find(&mut tx, &filter).await?;
        let boxes: Vec<BoxId> = found.reached.into_iter().map(|row| row.box_id).collect();
        if let Some(changed) = difference(&before, &boxes) {
            return Err(BulkError::Changed(changed));
        }
        if boxes.is_empty() {
            return Err(FleetError::conflict("the filter finds no box that gets commands").into());
        }
        let bulk_id = new_id("bulk");
        let mut row = BulkRow {
            bulk_id: bulk_id.clone(),
            filter: seen.filter,
            kind: seen.kind,
            detail: seen.detail,
            valid_for_secs: i64::from(new.valid_for_secs),
            state: BulkState::Sending,
            proposal_id: None,
            created_by: actor.0.clone(),
            created: now.0,
            cancelled_by: None,
            cancelled: None,
        };
        let what = json!({
            "kind": row.kind, "command": command, "filter": row.filter, "boxes": boxes.len(),
            "reason": new.reason,
        });
        if command.is_destructive() {
            let person = person.ok_or_else(|| {
                FleetError::new(
                    FleetErrorKind::Forbidden,
                    "nobody is known to answer for this token: make one with your account",
                )
            })?;
            row.state = BulkState::Proposed;
            row.proposal_id = Some(self.proposal_of_bulk(&mut tx, person, &row, &new).await?);
        }
        bulk_insert(&mut tx, &row, &boxes).await?;
        audit(&mut tx, actor, "bulk.make", &bulk_id, what, now).await?;
        idempotency_made(&bulk_id);
        tx.commit().await?;
        self.tell(
            None,
            FleetEventKind::Bulk {
                id: bulk_id.clone(),
            },
        );
        self.inner.bulk.notify_one();
        Ok(bulk_id)
    }

    /// Takes back what no box has begun.
    pub async fn bulk_cancel(&self, actor: &Actor, id: &str) -> Result<(), FleetError> {
        let now = self.now();
        let mut tx = self.db().write().await?;
        let unknown = || FleetError::not_found(format!("there is no bulk command {id}"));
        let row = bulk_get(&mut tx, id).await?.ok_or_else(unknown)?;
        if !bulk_cancel(&mut tx, id, &actor.0, now.0).await? {
            return Err(FleetError::conflict(format!(
                "bulk command {id} is {}",
                row.state
            )));
        }
        let mut ended = Vec::new();
        for (command, box_id) in bulk_open_commands(&mut tx, id).await? {
            let (Ok(command), Ok(box_id)) = (command.parse::<CommandId>(), box_id.parse::<BoxId>())
            else {
                continue;
            };
            let (state, news) = (CommandState::Cancelled, CommandNews::default());
            if command_advance(&mut tx, &command, state, news, now.0).await? {
                ended.push((command, box_id));
            }
        }
        if let Some(proposal) = &row.proposal_id {
            proposal_void(&mut tx, proposal, &actor.0, now.0).await?;
        }
        let what = json!({ "kind": row.kind, "cancelled": ended.len() });
        audit(&mut tx, actor, "bulk.cancel", id, what, now).await?;
        tx.commit().await?;
        for (id, box_id) in ended {
            let state = CommandState::Cancelled.to_string();
            let command = None;
            self.tell(
                Some(&box_id),
                FleetEventKind::Command { id, state, command },
            );
        }
        self.tell(None, FleetEventKind::Bulk { id: id.to_owned() });
        Ok(())
    }

    /// Signs commands of bulk commands until `stop`.
    pub(crate) async fn bulk_run(self, stop: CancellationToken) {
        loop {
            let more = match self.bulk_step().await {
                Ok(more) => more,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "commands of a bulk command are not signed yet");
                    false
                }
            };
            if more && !stop.is_cancelled() {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.inner.bulk.notified() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// Signs the next commands; whether there may be more.
    pub(crate) async fn bulk_step(&self) -> Result<bool, FleetError> {
        let mut tx = self.db().read().await?;
        let waits = bulk_sending(&mut tx).await?.is_some();
        drop(tx);
        if !waits {
            return Ok(false);
        }
        // What boxes get must rise in counters here, too.
        let mut turns = Vec::with_capacity(self.inner.locks.len());
        for lock in &self.inner.locks {
            turns.push(lock.lock().await);
        }
        let mut tx = self.db().write().await?;
        let Some(row) = bulk_sending(&mut tx).await? else {
            return Ok(false);
        };
        let command: CommandKind = parsed(&row.detail)?;
        let proposal = match &row.proposal_id {
            Some(id) => proposal_get(&mut tx, id).await?,
            None => None,
        };
        let actor = Actor(row.created_by.clone());
        let two = proposal.as_ref().and_then(TwoPeople::agreed);
        let authority = match &two {
            Some(two) => Authority::Two(two),
            None => Authority::One(&actor),
        };
        if command.is_destructive() && two.is_none() {
            let (from, to) = (BulkState::Sending, BulkState::Refused);
            bulk_advance(&mut tx, &row.bulk_id, from, to).await?;
            tx.commit().await?;
            tracing::error!(
                bulk = row.bulk_id,
                "nobody has approved a bulk command that takes two"
            );
            return Ok(true);
        }
        let boxes = bulk_waiting(&mut tx, &row.bulk_id, PART).await?;
        let valid = u32::try_from(row.valid_for_secs).unwrap_or(1);
        let mut signed = Vec::with_capacity(boxes.len());
        for box_id in &boxes {
            let made = self
                .command_sign(&mut tx, authority, box_id, command.clone(), valid)
                .await;
            let made = match made {
                Ok(made) => Ok(made),
                // The box was thrown out meanwhile; the rest goes on.
                Err(error) if error.kind() == FleetErrorKind::Conflict => Err(error.to_string()),
                Err(error) => return Err(error),
            };
            let known = made.as_ref().map(|made| &made.id).map_err(String::as_str);
            if !bulk_box_set(&mut tx, &row.bulk_id, box_id, known).await? {
                return Err(FleetError::unavailable(
                    "another process signs the same commands",
                ));
            }
            if let Ok(made) = made {
                signed.push((box_id, made));
            }
        }
        if boxes.is_empty() {
            bulk_advance(&mut tx, &row.bulk_id, BulkState::Sending, BulkState::Sent).await?;
        }
        tx.commit().await?;
        for (box_id, made) in signed {
            self.command_publish(box_id, made).await?;
        }
        drop(turns);
        self.tell(None, FleetEventKind::Bulk { id: row.bulk_id });
        Ok(true)
    }
}

/// What a filter found, of what gets commands.
struct Found {
    reached: Vec<crate::store::bulk::FoundRow>,
    quarantined: usize,
    revoked: usize,
}

async fn find(tx: &mut Tx, filter: &Filter) -> Result<Found, FleetError> {
    let limit = u32::try_from(MAX_BULK_BOXES + 1).unwrap_or(u32::MAX);
    let rows = bulk_find(tx, filter, limit).await?;
    if rows.len() > MAX_BULK_BOXES {
        return Err(FleetError::invalid(format!(
            "the filter finds more than {MAX_BULK_BOXES} boxes: narrow it"
        )));
    }
    let count = |state| rows.iter().filter(|row| row.state == state).count();
    let (quarantined, revoked) = (count(BoxState::Quarantined), count(BoxState::Revoked));
    let gets = |state| matches!(state, BoxState::Active | BoxState::Inventoried);
    let reached = rows.into_iter().filter(|row| gets(row.state)).collect();
    Ok(Found {
        reached,
        quarantined,
        revoked,
    })
}

fn difference(before: &BTreeSet<BoxId>, now: &[BoxId]) -> Option<Changed> {
    let now: BTreeSet<BoxId> = now.iter().cloned().collect();
    let added: Vec<_> = now.difference(before).cloned().collect();
    let removed: Vec<_> = before.difference(&now).cloned().collect();
    if added.is_empty() && removed.is_empty() {
        return None;
    }
    let (added_count, removed_count) = (added.len(), removed.len());
    Some(Changed {
        added: added.into_iter().take(NAMED).collect(),
        added_count,
        removed: removed.into_iter().take(NAMED).collect(),
        removed_count,
    })
}

fn written<T: serde::Serialize + ?Sized>(value: &T) -> Result<String, FleetError> {
    serde_json::to_string(value).map_err(|e| FleetError::internal("failed to write JSON", e))
}

fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, FleetError> {
    serde_json::from_str(text).map_err(|e| FleetError::internal("stored JSON does not parse", e))
}
