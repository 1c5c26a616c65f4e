//! Looks at every box again and again. One process at a time does it, by a lock in the database that
//! each of its transactions extends; what it decides is stored together with who is to be told.

use std::collections::BTreeMap;
use std::time::Duration;

use longhaul_protocol::ids::BoxId;
use tokio_util::sync::CancellationToken;

use super::measure::{FAILURES_MS, Subject, say};
use super::message::Message;
use super::step::{Limits, Phase, Seen, Turn, step};
use crate::fleet::{Fleet, FleetError, FleetEventKind};
use crate::store::alert_channels::{channel_list, delivery_insert};
use crate::store::alert_rules::{AlertRuleRow, Severity, alert_rule_list};
use crate::store::alerts::{
    AlertRow, AlertState, AlertSubject, alert_event_append, alert_forget, alert_insert, alert_open,
    alert_resolve, alert_set_clear, alert_subjects, alert_unresolved,
};
use crate::store::locks::{lock_hold, lock_release};
use crate::store::{StoreResult, Tx, new_id};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(15);
/// How often the lock is extended, or asked for.
const HOLD: Duration = Duration::from_secs(2);
/// The lock's name.
const LOCK: &str = "alerts";
/// How long the lock holds after the last transaction of a process that is no more, in milliseconds.
const LOCK_MS: i64 = 6_000;
/// Boxes that are looked at in one transaction.
const PAGE: u32 = 500;
/// Who opens and resolves, in the history.
const ACTOR: &str = "longhaul";

/// Looks until `stop`.
pub async fn run(fleet: Fleet, stop: CancellationToken) {
    let holder = new_id("watch");
    let every = if fleet.db().is_shared() { HOLD } else { LOOK };
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut next = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = tick.tick() => {}
        }
        let now = tokio::time::Instant::now();
        let due = now >= next;
        let looked = if due {
            look(&fleet, &holder).await
        } else {
            hold(&fleet, &holder).await
        };
        match looked {
            // A little early, so that no look is left out for the sake of one tick.
            Ok(true) if due => next = now + LOOK - HOLD / 2,
            Ok(true) => {}
            // Whoever takes over looks at once.
            Ok(false) => next = now,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "looking for alerts failed");
            }
        }
    }
    if let Ok(mut tx) = fleet.db().write().await
        && lock_release(&mut tx, LOCK, &holder).await.is_ok()
    {
        // Without it the next process waits until the lock ends by itself.
        let _ = tx.commit().await;
    }
}

/// Looks at every box once; `false` if another process does.
///
/// # Errors
///
/// [`FleetError`] if the database fails; what was decided until then stands.
pub async fn look(fleet: &Fleet, holder: &str) -> Result<bool, FleetError> {
    if !hold(fleet, holder).await? {
        return Ok(false);
    }
    let mut tx = fleet.db().read().await?;
    let mut rules = Vec::new();
    for row in alert_rule_list(&mut tx).await? {
        match Limits::of(&row) {
            Ok(limits) if row.enabled => rules.push((row, limits)),
            Ok(_) => {}
            Err(error) => tracing::warn!(rule = row.rule_id, %error, "a rule is passed over"),
        }
    }
    drop(tx);
    let mut after: Option<BoxId> = None;
    loop {
        let now = fleet.now().0;
        let mut tx = fleet.db().read().await?;
        let since = now.saturating_sub(FAILURES_MS);
        let page = alert_subjects(&mut tx, after.as_ref(), since, PAGE).await?;
        let (Some(first), Some(last)) = (page.first(), page.last()) else {
            break;
        };
        let going_on = alert_unresolved(&mut tx, &first.box_id, &last.box_id).await?;
        drop(tx);
        let decided = decide(&rules, &page, going_on, now);
        if !write(fleet, holder, decided, now).await? {
            return Ok(false);
        }
        after = Some(last.box_id.clone());
    }
    Ok(true)
}

async fn hold(fleet: &Fleet, holder: &str) -> Result<bool, FleetError> {
    let now = fleet.now().0;
    let mut tx = fleet.db().write().await?;
    let held = lock_hold(&mut tx, LOCK, holder, now.saturating_add(LOCK_MS), now).await?;
    tx.commit().await?;
    Ok(held)
}

/// One change to be stored.
#[derive(Debug)]
struct Change<'a> {
    subject: &'a AlertSubject,
    row: AlertRow,
    deed: Deed,
    measured: f64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Deed {
    Insert,
    Open,
    Forget,
    Clear(Option<i64>),
    Resolve,
}

/// What changes on these boxes.
fn decide<'a>(
    rules: &[(AlertRuleRow, Limits)],
    page: &'a [AlertSubject],
    going_on: Vec<AlertRow>,
    now: i64,
) -> Vec<Change<'a>> {
    let mut known: BTreeMap<(String, String), AlertRow> = going_on
        .into_iter()
        .map(|row| ((row.box_id.to_string(), row.rule_id.clone()), row))
        .collect();
    let mut changes = Vec::new();
    for row in page {
        let subject = Subject::new(row, now);
        for (rule, limits) in rules {
            let before = known.remove(&(row.box_id.to_string(), rule.rule_id.clone()));
            let seen = subject.seen(rule.kind, now);
            changes.extend(change(row, rule, limits, before, seen, now));
        }
        // What no rule looks at any more is over.
        let name = row.box_id.to_string();
        let orphans: Vec<_> = known
            .range((name.clone(), String::new())..)
            .take_while(|((box_id, _), _)| *box_id == name)
            .map(|(key, _)| key.clone())
            .collect();
        for orphan in orphans.iter().filter_map(|key| known.remove(key)) {
            let deed = match orphan.state {
                AlertState::Pending => Deed::Forget,
                _ => Deed::Resolve,
            };
            changes.push(Change {
                subject: row,
                measured: orphan.measured,
                row: orphan,
                deed,
            });
        }
    }
    changes
}

fn change<'a>(
    subject: &'a AlertSubject,
    rule: &AlertRuleRow,
    limits: &Limits,
    before: Option<AlertRow>,
    seen: Seen,
    now: i64,
) -> Option<Change<'a>> {
    let phase = before.as_ref().map_or(Phase::Quiet, phase);
    let (next, turn) = step(limits, phase, seen, now);
    let deed = match (phase, next, turn) {
        (Phase::Quiet, Phase::Quiet, _) => return None,
        (Phase::Quiet, Phase::Pending { .. } | Phase::Open { .. }, _) => Deed::Insert,
        (_, _, Some(Turn::Opened)) => Deed::Open,
        (_, _, Some(Turn::Resolved)) => Deed::Resolve,
        (Phase::Pending { .. }, Phase::Quiet, None) => Deed::Forget,
        (Phase::Open { clear_since: was }, Phase::Open { clear_since: is }, None) if was != is => {
            Deed::Clear(is)
        }
        _ => return None,
    };
    let measured = match seen {
        Seen::Value(value) => value,
        Seen::Unknown | Seen::Gone => before.as_ref().map_or(0.0, |row| row.measured),
    };
    let opened = matches!(turn, Some(Turn::Opened));
    let row = before.unwrap_or_else(|| AlertRow {
        alert_id: new_id("al"),
        box_id: subject.box_id.clone(),
        rule_id: rule.rule_id.clone(),
        rule_name: rule.name.clone(),
        kind: rule.kind,
        severity: rule.severity,
        state: if opened {
            AlertState::Open
        } else {
            AlertState::Pending
        },
        measured,
        since: now,
        opened: if opened { now } else { 0 },
        clear_since: None,
        acknowledged: None,
        acknowledged_by: None,
        resolved: None,
        updated: now,
    });
    Some(Change {
        subject,
        row,
        deed,
        measured,
    })
}

fn phase(row: &AlertRow) -> Phase {
    match row.state {
        AlertState::Pending => Phase::Pending { since: row.since },
        AlertState::Open | AlertState::Acknowledged => Phase::Open {
            clear_since: row.clear_since,
        },
        AlertState::Resolved => Phase::Quiet,
    }
}

/// Stores what was decided; `false` if another process holds the lock by now.
async fn write(
    fleet: &Fleet,
    holder: &str,
    changes: Vec<Change<'_>>,
    now: i64,
) -> Result<bool, FleetError> {
    let mut tx = fleet.db().write().await?;
    if !lock_hold(&mut tx, LOCK, holder, now.saturating_add(LOCK_MS), now).await? {
        return Ok(false);
    }
    let mut told = Vec::new();
    for change in changes {
        if let Some(event) = store(&mut tx, &change, now).await? {
            told.push((change.row, event));
        }
    }
    tx.commit().await?;
    for (row, change) in told {
        tracing::info!(box_id = %row.box_id, rule = row.rule_id, alert = row.alert_id, change, "alert");
        let kind = FleetEventKind::Alert {
            id: row.alert_id,
            change: change.into(),
        };
        fleet.tell(Some(&row.box_id), kind);
    }
    Ok(true)
}

/// Stores one change; yields what is to be told of it.
async fn store(tx: &mut Tx, change: &Change<'_>, now: i64) -> StoreResult<Option<&'static str>> {
    let row = &change.row;
    let event = match change.deed {
        Deed::Insert => {
            let inserted = alert_insert(tx, row).await?;
            (inserted && row.state == AlertState::Open).then_some("opened")
        }
        Deed::Open => {
            let opened = alert_open(tx, &row.alert_id, change.measured, now).await?;
            opened.then_some("opened")
        }
        Deed::Forget => {
            alert_forget(tx, &row.alert_id).await?;
            None
        }
        Deed::Clear(since) => {
            alert_set_clear(tx, &row.alert_id, since, now).await?;
            None
        }
        Deed::Resolve => {
            let resolved = alert_resolve(tx, &row.alert_id, now).await?;
            resolved.then_some("resolved")
        }
    };
    let Some(event) = event else { return Ok(None) };
    let note = say(row.kind, change.measured);
    alert_event_append(tx, &row.alert_id, event, ACTOR, &note, now).await?;
    let place = (change.subject.label.as_str(), change.subject.site.as_str());
    let message = Message::about(row, place, event, ACTOR, change.measured, now);
    tell(tx, &message, row.severity, now).await?;
    Ok(Some(event))
}

/// Writes down who is to be told, in the transaction of what they are told of.
///
/// # Errors
///
/// If the database fails.
pub async fn tell(tx: &mut Tx, message: &Message, severity: Severity, now: i64) -> StoreResult<()> {
    let mut body = None;
    for channel in channel_list(tx).await? {
        if severity >= channel.severity {
            let body =
                body.get_or_insert_with(|| serde_json::to_string(message).unwrap_or_default());
            delivery_insert(tx, &new_id("msg"), &channel.channel_id, body, now).await?;
        }
    }
    Ok(())
}
