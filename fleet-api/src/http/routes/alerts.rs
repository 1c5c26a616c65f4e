//! Alerts: what is wrong in the fleet, and who looks into it.

use longhaul_protocol::ids::{BoxId, CommandId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::endpoint;
use super::paging::{Part, TimePlace, filter, page};
use crate::alerts::measure::say;
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::problem::Problem;
use crate::store::alert_rules::{AlertKind, Severity};
use crate::store::alerts::{
    ALERT_FIELDS, AlertEventRow, AlertFilter, AlertRow, AlertState, alert_event_list, alert_get,
    alert_list,
};
use crate::store::operators::Role;

pub(super) fn add(api: Api) -> Api {
    api.add::<AlertList>()
        .add::<AlertGet>()
        .add::<AlertAcknowledge>()
}

endpoint! {
    /// All of them.
    AlertList = GET "/v1/alerts" as "alertList", Scope::Role(Role::Viewer), OK;
    "Alerts, newest first; those that are not over, unless a state or a filter is asked for."
    (Nothing, AlertQuery, NoBody) -> Json<AlertPage> = list
}

/// Which alerts.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct AlertQuery {
    /// In this state only; `all` for every state, absent for what is not over, or what the filter finds.
    #[param(inline)]
    state: Option<StateAsked>,
    /// This bad only.
    #[param(inline)]
    severity: Option<Severity>,
    /// On this box only.
    #[param(value_type = Option<String>)]
    box_id: Option<BoxId>,
    /// Which rows.
    #[param(max_length = 1000)]
    filter: Option<String>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Rows at the most, 1 to 1,000.
    limit: Option<u32>,
}

/// Which states of alerts.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateAsked {
    /// Nobody has taken it up.
    Open,
    /// Somebody looks into it.
    Acknowledged,
    /// Over.
    Resolved,
    /// All of these.
    All,
}

/// One alert.
#[derive(Serialize, ToSchema)]
pub struct Alert {
    /// Its name.
    id: String,
    /// The box.
    box_id: String,
    /// The rule that found it.
    rule: String,
    /// That rule's name for people, as it was then.
    name: String,
    /// What was measured.
    kind: AlertKind,
    /// How bad it is.
    severity: Severity,
    /// How far it has come; never `pending`.
    state: AlertState,
    /// What was measured when it changed last.
    measured: f64,
    /// The same in words.
    text: String,
    /// Since when it has been so.
    since: i64,
    /// When it became an alert.
    opened: i64,
    /// When somebody took it up.
    acknowledged: Option<i64>,
    /// Who.
    acknowledged_by: Option<String>,
    /// When it was over.
    resolved: Option<i64>,
}

impl From<AlertRow> for Alert {
    fn from(row: AlertRow) -> Self {
        Self {
            id: row.alert_id,
            box_id: row.box_id.to_string(),
            rule: row.rule_id,
            name: row.rule_name,
            kind: row.kind,
            severity: row.severity,
            state: row.state,
            measured: row.measured,
            text: say(row.kind, row.measured),
            since: row.since,
            opened: row.opened,
            acknowledged: row.acknowledged,
            acknowledged_by: row.acknowledged_by,
            resolved: row.resolved,
        }
    }
}

page! {
    /// A page of alerts.
    AlertPage of Alert
}

async fn list(call: Call<AlertList>) -> Result<Json<AlertPage>, Problem> {
    let query = call.query;
    let part = Part::<TimePlace>::new(query.cursor.as_deref(), query.limit)?;
    let state = match query.state {
        Some(StateAsked::Open) => Some(AlertState::Open),
        Some(StateAsked::Acknowledged) => Some(AlertState::Acknowledged),
        Some(StateAsked::Resolved) => Some(AlertState::Resolved),
        Some(StateAsked::All) | None => None,
    };
    let wanted = AlertFilter {
        state,
        unresolved: query.state.is_none() && query.filter.is_none(),
        box_id: query.box_id,
        severity: query.severity,
        filter: filter(query.filter.as_deref(), &ALERT_FIELDS, &call.people)?,
    };
    let before = part.place.as_ref().map(TimePlace::place);
    let mut tx = call.people.db.read().await?;
    let rows = alert_list(&mut tx, &wanted, before, part.limit).await?;
    let next = part.next(&rows, |last| (last.opened, last.alert_id.clone()))?;
    Ok(Json(AlertPage::new(rows, next, &call.people)))
}

/// Which alert.
#[derive(Deserialize, IntoParams)]
pub struct AlertPath {
    /// The alert's id.
    #[param(value_type = String)]
    alert_id: AlertId,
}

/// Same rule as for the fleet's other names.
type AlertId = CommandId;

endpoint! {
    /// One of them.
    AlertGet = GET "/v1/alerts/{alert_id}" as "alertGet", Scope::Role(Role::Viewer), OK;
    "One alert and its history."
    (AlertPath, Nothing, NoBody) -> Json<AlertDetail> = get
}

/// One alert and its history.
#[derive(Serialize, ToSchema)]
pub struct AlertDetail {
    /// The alert.
    #[serde(flatten)]
    alert: Alert,
    /// What happened to it, oldest first.
    history: Vec<AlertStep>,
    /// The cloud's clock.
    server_time: i64,
}

/// One step in an alert's history.
#[derive(Serialize, ToSchema)]
pub struct AlertStep {
    /// When.
    at: i64,
    /// `opened`, `acknowledged` or `resolved`.
    kind: String,
    /// Who did it.
    actor: String,
    /// What they said, or what was measured.
    note: String,
}

impl From<AlertEventRow> for AlertStep {
    fn from(row: AlertEventRow) -> Self {
        Self {
            at: row.at,
            kind: row.kind,
            actor: row.actor,
            note: row.note,
        }
    }
}

async fn get(call: Call<AlertGet>) -> Result<Json<AlertDetail>, Problem> {
    let id = call.path.alert_id.as_str();
    let mut tx = call.people.db.read().await?;
    let missing = || Problem::not_found(format!("there is no alert {id}"));
    let row = alert_get(&mut tx, id).await?.ok_or_else(missing)?;
    let history = alert_event_list(&mut tx, id).await?;
    Ok(Json(AlertDetail {
        alert: row.into(),
        history: history.into_iter().map(AlertStep::from).collect(),
        server_time: call.people.clock.now().0,
    }))
}

endpoint! {
    /// Taken up.
    AlertAcknowledge = POST "/v1/alerts/{alert_id}/acknowledge" as "alertAcknowledge", Scope::Role(Role::Operator), OK;
    "Says that the caller looks into an alert; whoever was first stays."
    (AlertPath, Nothing, Json<Acknowledgement>) -> Json<Alert> = acknowledge
}

/// What the caller says to it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Acknowledgement {
    /// For the history, at most 500 characters.
    #[serde(default)]
    #[schema(max_length = 500)]
    note: String,
}

async fn acknowledge(call: Call<AlertAcknowledge>) -> Result<Json<Alert>, Problem> {
    let note = call.body.0.note;
    if note.chars().count() > 500 {
        return Err(Problem::invalid("note has at most 500 characters"));
    }
    let (actor, id) = (call.caller.actor(), call.path.alert_id.as_str());
    let fleet = &call.people.fleet;
    let row = fleet.alert_acknowledge(&actor, id, &note).await?;
    Ok(Json(row.into()))
}
