//! Alerts and their history, and what boxes are measured by.

use longhaul_protocol::ids::BoxId;
use sqlx::FromRow;

use super::alert_rules::{AlertKind, Severity};
use super::boxes::BoxState;
use super::filter::{Filter, FilterField, Holds};
use super::listing::{Listing, field};
use super::tx::{plain, rows};
use super::{StoreResult, Tx, text_enum};

text_enum! {
    /// How far an alert has come.
    AlertState {
        /// Seen, but not for long enough: not an alert yet, and shown to nobody.
        Pending = "pending",
        /// Nobody has said that they look into it.
        Open = "open",
        /// Somebody looks into it.
        Acknowledged = "acknowledged",
        /// Over.
        Resolved = "resolved",
    }
}

/// One alert.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct AlertRow {
    /// Its name.
    pub alert_id: String,
    /// The box.
    #[sqlx(try_from = "String")]
    pub box_id: BoxId,
    /// The rule that found it.
    pub rule_id: String,
    /// That rule's name for people, as it was then.
    pub rule_name: String,
    /// What was measured.
    #[sqlx(try_from = "String")]
    pub kind: AlertKind,
    /// How bad it is.
    #[sqlx(try_from = "String")]
    pub severity: Severity,
    /// How far it has come.
    #[sqlx(try_from = "String")]
    pub state: AlertState,
    /// What was measured when it changed last.
    pub measured: f64,
    /// Since when it has been so.
    pub since: i64,
    /// When it became an alert; 0 before that.
    pub opened: i64,
    /// Since when it has looked as if it were over.
    pub clear_since: Option<i64>,
    /// When somebody took it up.
    pub acknowledged: Option<i64>,
    /// Who.
    pub acknowledged_by: Option<String>,
    /// When it was over.
    pub resolved: Option<i64>,
    /// When anything of it changed.
    pub updated: i64,
}

/// One step in an alert's history.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct AlertEventRow {
    /// The alert.
    pub alert_id: String,
    /// Its place in the history, from 1.
    pub number: i64,
    /// When.
    pub at: i64,
    /// `opened`, `acknowledged` or `resolved`.
    pub kind: String,
    /// Who did it.
    pub actor: String,
    /// What they said, or what was measured.
    pub note: String,
}

/// A box as the rules look at it.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct AlertSubject {
    /// The box.
    #[sqlx(try_from = "String")]
    pub box_id: BoxId,
    /// An operator's name for it.
    pub label: String,
    /// Where it stands.
    pub site: String,
    /// What it may do.
    #[sqlx(try_from = "String")]
    pub state: BoxState,
    /// Whether it has a session.
    pub connected: bool,
    /// Since when that has been so; absent if it never connected.
    pub connected_since: Option<i64>,
    /// When its certificate expires.
    pub certificate_expires: Option<i64>,
    /// When its last sample arrived.
    pub sampled: Option<i64>,
    /// That sample: JSON.
    pub sample: Option<String>,
    /// When the upload that has not moved for longest last moved.
    pub upload_moved: Option<i64>,
    /// Failures in its journal since the time asked for.
    pub failures: i64,
}

/// Boxes in the order of their names, from the one after `after`, with what rules look at; failures
/// are counted from `failures_since`.
pub async fn alert_subjects(
    tx: &mut Tx,
    after: Option<&BoxId>,
    failures_since: i64,
    limit: u32,
) -> StoreResult<Vec<AlertSubject>> {
    fetch!(
        all,
        tx,
        AlertSubject,
        "SELECT b.box_id, b.label, b.site, b.state, b.connected, b.connected_since, \
           b.certificate_expires, \
           (SELECT t.received FROM telemetry_latest t WHERE t.box_id = b.box_id) AS sampled, \
           (SELECT t.detail FROM telemetry_latest t WHERE t.box_id = b.box_id) AS sample, \
           (SELECT min(u.updated) FROM uploads u WHERE u.box_id = b.box_id \
            AND u.state IN ('started', 'completing')) AS upload_moved, \
           (SELECT count(*) FROM journal j WHERE j.box_id = b.box_id AND j.received > $2 \
            AND j.kind = 'failure') AS failures \
         FROM boxes b WHERE b.box_id > $1 ORDER BY b.box_id LIMIT $3",
        after.map_or("", BoxId::as_str),
        failures_since,
        i64::from(limit),
    )
}

/// What is not over on the boxes from `first` to `last`, pending included.
pub async fn alert_unresolved(
    tx: &mut Tx,
    first: &BoxId,
    last: &BoxId,
) -> StoreResult<Vec<AlertRow>> {
    fetch!(
        all,
        tx,
        AlertRow,
        "SELECT * FROM alerts WHERE state <> 'resolved' AND box_id >= $1 AND box_id <= $2 \
         ORDER BY box_id, rule_id",
        first.as_str(),
        last.as_str(),
    )
}

/// Takes down what a rule sees; `false` if something is going on already for this rule and box.
pub async fn alert_insert(tx: &mut Tx, row: &AlertRow) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "INSERT INTO alerts (alert_id, box_id, rule_id, rule_name, kind, severity, state, \
             measured, since, opened, updated) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
         ON CONFLICT (box_id, rule_id) WHERE state <> 'resolved' DO NOTHING",
        row.alert_id.as_str(),
        row.box_id.as_str(),
        row.rule_id.as_str(),
        row.rule_name.as_str(),
        row.kind.as_str(),
        row.severity.as_str(),
        row.state.as_str(),
        row.measured,
        row.since,
        row.opened,
        row.updated,
    )?;
    Ok(rows == 1)
}

/// Makes an alert of what was pending; `false` if it is not pending.
pub async fn alert_open(tx: &mut Tx, id: &str, measured: f64, now: i64) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE alerts SET state = 'open', measured = $2, opened = $3, updated = $3 \
         WHERE alert_id = $1 AND state = 'pending'",
        id,
        measured,
        now,
    )?;
    Ok(rows == 1)
}

/// Forgets what was pending: it was nothing.
pub async fn alert_forget(tx: &mut Tx, id: &str) -> StoreResult<()> {
    execute!(
        tx,
        "DELETE FROM alerts WHERE alert_id = $1 AND state = 'pending'",
        id,
    )?;
    Ok(())
}

/// Takes down since when an alert has looked as if it were over.
pub async fn alert_set_clear(
    tx: &mut Tx,
    id: &str,
    clear_since: Option<i64>,
    now: i64,
) -> StoreResult<()> {
    execute!(
        tx,
        "UPDATE alerts SET clear_since = $2, updated = $3 \
         WHERE alert_id = $1 AND state IN ('open', 'acknowledged')",
        id,
        clear_since,
        now,
    )?;
    Ok(())
}

/// Says that somebody looks into it; `false` if it is not open.
pub async fn alert_acknowledge(tx: &mut Tx, id: &str, by: &str, now: i64) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE alerts SET state = 'acknowledged', acknowledged = $3, acknowledged_by = $2, \
             updated = $3 \
         WHERE alert_id = $1 AND state = 'open'",
        id,
        by,
        now,
    )?;
    Ok(rows == 1)
}

/// Ends an alert; `false` if it is over already.
pub async fn alert_resolve(tx: &mut Tx, id: &str, now: i64) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE alerts SET state = 'resolved', resolved = $2, updated = $2 \
         WHERE alert_id = $1 AND state IN ('open', 'acknowledged')",
        id,
        now,
    )?;
    Ok(rows == 1)
}

/// One alert; nothing that is still pending.
pub async fn alert_get(tx: &mut Tx, id: &str) -> StoreResult<Option<AlertRow>> {
    fetch!(
        optional,
        tx,
        AlertRow,
        "SELECT * FROM alerts WHERE alert_id = $1 AND state <> 'pending'",
        id
    )
}

/// Which alerts are wanted; an absent condition holds for all.
#[derive(Clone, Debug, Default)]
pub struct AlertFilter {
    /// In this state; absent for all that is not pending.
    pub state: Option<AlertState>,
    /// Only what is not over.
    pub unresolved: bool,
    /// On this box.
    pub box_id: Option<BoxId>,
    /// This bad.
    pub severity: Option<Severity>,
    /// What else is asked.
    pub filter: Filter,
}

/// What alerts can be asked for by.
pub const ALERT_FIELDS: [FilterField; 12] = [
    field("id", "alert_id", Holds::Text),
    field("box", "box_id", Holds::Text),
    field("rule", "rule_id", Holds::Text),
    field("name", "rule_name", Holds::Text),
    field("kind", "kind", Holds::Text),
    field(
        "severity",
        "severity",
        Holds::Word(&["warning", "critical"]),
    ),
    field(
        "state",
        "state",
        Holds::Word(&["open", "acknowledged", "resolved"]),
    ),
    field("by", "acknowledged_by", Holds::Text),
    field("since", "since", Holds::Time),
    field("opened", "opened", Holds::Time),
    field("acknowledged", "acknowledged", Holds::Time),
    field("resolved", "resolved", Holds::Time),
];

/// Alerts, newest first, from the one before `before`: when it opened, and its name.
pub async fn alert_list(
    tx: &mut Tx,
    wanted: &AlertFilter,
    before: Option<(i64, &str)>,
    limit: u32,
) -> StoreResult<Vec<AlertRow>> {
    let mut list = Listing::of("SELECT * FROM alerts WHERE state <> 'pending'")
        .equal("state", wanted.state.map(AlertState::as_str))
        .equal("box_id", wanted.box_id.as_ref().map(BoxId::as_str))
        .equal("severity", wanted.severity.map(Severity::as_str))
        .filter(&wanted.filter);
    if wanted.unresolved {
        list = list.and(" AND state <> 'resolved'");
    }
    rows(tx, list.newest(("opened", "alert_id"), before, limit)).await
}

/// How many alerts are not over: `(severity, state, count)`.
pub async fn alert_count(tx: &mut Tx) -> StoreResult<Vec<(String, String, i64)>> {
    fetch!(
        all,
        tx,
        (String, String, i64),
        "SELECT severity, state, count(*) FROM alerts \
         WHERE state <> 'resolved' AND state <> 'pending' \
         GROUP BY severity, state ORDER BY severity, state"
    )
}

/// Appends to an alert's history; yields its place there. The caller has changed the alert in this
/// transaction, so that no other appends to it.
pub async fn alert_event_append(
    tx: &mut Tx,
    alert: &str,
    kind: &str,
    actor: &str,
    note: &str,
    now: i64,
) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO alert_events (alert_id, number, at, kind, actor, note) \
         SELECT $1, count(*) + 1, $2, $3, $4, $5 FROM alert_events WHERE alert_id = $1",
        alert,
        now,
        kind,
        actor,
        plain(note),
    )?;
    Ok(())
}

/// An alert's history, oldest first.
pub async fn alert_event_list(tx: &mut Tx, alert: &str) -> StoreResult<Vec<AlertEventRow>> {
    fetch!(
        all,
        tx,
        AlertEventRow,
        "SELECT * FROM alert_events WHERE alert_id = $1 ORDER BY number LIMIT 1000",
        alert
    )
}

/// Forgets alerts that were over before `before`.
pub async fn alert_prune(tx: &mut Tx, before: i64) -> StoreResult<u64> {
    execute!(
        tx,
        "DELETE FROM alert_events WHERE alert_id IN ( \
             SELECT alert_id FROM alerts WHERE state = 'resolved' AND resolved < $1)",
        before,
    )?;
    execute!(
        tx,
        "DELETE FROM alerts WHERE state = 'resolved' AND resolved < $1",
        before
    )
}
