//! Rules of alerts.

use longhaul_protocol::ids::CommandId;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::endpoint;
use crate::alerts::step::Limits;
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::problem::Problem;
use crate::http::reply::Done;
use crate::http::tag::{Changeable, Tagged};
use crate::store::Tx;
use crate::store::alert_rules::{
    AlertKind, AlertRuleRow, Severity, alert_rule_delete, alert_rule_list, alert_rule_lock,
    alert_rule_set,
};
use crate::store::audit::{AuditEntry, audit_append};
use crate::store::operators::Role;

/// Rules at the most: each is looked at for each box.
const MAX_RULES: usize = 100;

pub(super) fn add(api: Api) -> Api {
    api.add::<AlertRuleList>()
        .add::<AlertRuleGet>()
        .add::<AlertRuleSet>()
        .add::<AlertRuleDelete>()
}

/// One rule.
#[derive(Serialize, ToSchema)]
pub struct AlertRule {
    /// Its name in URLs.
    id: String,
    /// Its name for people.
    name: String,
    /// What it measures.
    kind: AlertKind,
    /// From here on it is trouble.
    raise_at: f64,
    /// From here on it is none any more.
    clear_at: f64,
    /// How long it must be trouble before anybody is told, in seconds.
    hold_secs: i64,
    /// How long it must be none before it counts as over, in seconds.
    clear_secs: i64,
    /// How bad it is.
    severity: Severity,
    /// Whether it is looked at.
    enabled: bool,
    /// When it was changed last; 0 for one that came with the program.
    changed: i64,
    /// By whom.
    changed_by: String,
}

impl From<AlertRuleRow> for AlertRule {
    fn from(row: AlertRuleRow) -> Self {
        Self {
            id: row.rule_id,
            name: row.name,
            kind: row.kind,
            raise_at: row.raise_at,
            clear_at: row.clear_at,
            hold_secs: row.hold_secs,
            clear_secs: row.clear_secs,
            severity: row.severity,
            enabled: row.enabled,
            changed: row.changed,
            changed_by: row.changed_by,
        }
    }
}

/// Every rule.
#[derive(Serialize, ToSchema)]
pub struct AlertRules {
    /// By their names.
    items: Vec<AlertRule>,
}

endpoint! {
    /// All of them.
    AlertRuleList = GET "/v1/alert-rules" as "alertRuleList", Scope::Role(Role::Viewer), OK;
    "The rules by which alerts are found."
    (Nothing, Nothing, NoBody) -> Json<AlertRules> = list
}

async fn list(call: Call<AlertRuleList>) -> Result<Json<AlertRules>, Problem> {
    let mut tx = call.people.db.read().await?;
    let rows = alert_rule_list(&mut tx).await?;
    Ok(Json(AlertRules {
        items: rows.into_iter().map(AlertRule::from).collect(),
    }))
}

/// Which rule.
#[derive(Deserialize, IntoParams)]
pub struct AlertRulePath {
    /// The rule's name: 1 to 64 letters, digits, `-` and `_`.
    #[param(value_type = String)]
    rule_id: RuleId,
}

/// Same rule as for the fleet's other names.
type RuleId = CommandId;

endpoint! {
    /// One of them.
    AlertRuleGet = GET "/v1/alert-rules/{rule_id}" as "alertRuleGet", Scope::Role(Role::Viewer), OK;
    "One rule."
    (AlertRulePath, Nothing, NoBody) -> Tagged<AlertRule> = get
}

impl Changeable for AlertRule {
    fn changeable(&self) -> serde_json::Value {
        json!([
            self.name,
            self.kind,
            self.raise_at,
            self.clear_at,
            self.hold_secs,
            self.clear_secs,
            self.severity,
            self.enabled,
        ])
    }
}

async fn find(tx: &mut Tx, id: &str) -> Result<Option<AlertRule>, Problem> {
    let rules = alert_rule_list(tx).await?;
    let found = rules.into_iter().find(|rule| rule.rule_id == id);
    Ok(found.map(AlertRule::from))
}

async fn get(call: Call<AlertRuleGet>) -> Result<Tagged<AlertRule>, Problem> {
    let id = call.path.rule_id.as_str();
    let mut tx = call.people.db.read().await?;
    let found = find(&mut tx, id).await?;
    found
        .map(Tagged)
        .ok_or_else(|| Problem::not_found(format!("there is no rule {id}")))
}

endpoint! {
    /// As it is to be.
    AlertRuleSet = PUT "/v1/alert-rules/{rule_id}" as "alertRuleSet", Scope::Role(Role::Admin), OK;
    "Adds or changes a rule; what it has found stays until the new rule says otherwise."
    (AlertRulePath, Nothing, Json<NewAlertRule>) -> Tagged<AlertRule> = set
}

/// A rule as it is to be.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAlertRule {
    /// Its name for people, 1 to 100 characters.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"
    )]
    name: String,
    /// What it measures.
    kind: AlertKind,
    /// From here on it is trouble.
    raise_at: f64,
    /// From here on it is none any more: lower where more is worse, higher where less is.
    clear_at: f64,
    /// How long it must be trouble before anybody is told, in seconds, at most a week.
    #[schema(minimum = 0, maximum = 604_800)]
    hold_secs: i64,
    /// How long it must be none before it counts as over, in seconds, at most a week.
    #[schema(minimum = 0, maximum = 604_800)]
    clear_secs: i64,
    /// How bad it is.
    severity: Severity,
    /// Whether it is looked at.
    enabled: bool,
}

async fn set(call: Call<AlertRuleSet>) -> Result<Tagged<AlertRule>, Problem> {
    let (id, new) = (call.path.rule_id.as_str(), call.body.0);
    let length = new.name.chars().count();
    if length == 0 || length > 100 || new.name.chars().any(char::is_control) {
        return Err(Problem::invalid(
            "a rule's name is 1 to 100 characters without control characters",
        ));
    }
    let (actor, now) = (call.caller.actor().0, call.people.clock.now().0);
    let entry = AuditEntry {
        actor: &actor,
        action: "alert_rule.set",
        subject: id,
        detail: &json!(new),
    };
    let row = AlertRuleRow {
        rule_id: id.to_owned(),
        name: new.name,
        kind: new.kind,
        raise_at: new.raise_at,
        clear_at: new.clear_at,
        hold_secs: new.hold_secs,
        clear_secs: new.clear_secs,
        severity: new.severity,
        enabled: new.enabled,
        changed: now,
        changed_by: actor.clone(),
    };
    Limits::of(&row).map_err(|e| Problem::invalid(e.to_string()))?;
    let mut tx = call.people.db.write().await?;
    alert_rule_lock(&mut tx, id).await?;
    let others = alert_rule_list(&mut tx).await?;
    if let Some(before) = others.iter().find(|r| r.rule_id == id) {
        call.seen.check(&AlertRule::from(before.clone()))?;
    }
    if others.len() >= MAX_RULES && !others.iter().any(|r| r.rule_id == row.rule_id) {
        return Err(Problem::conflict(format!(
            "there are {MAX_RULES} rules already"
        )));
    }
    alert_rule_set(&mut tx, &row).await?;
    audit_append(&mut tx, entry, now).await?;
    tx.commit().await?;
    Ok(Tagged(row.into()))
}

endpoint! {
    /// Gone.
    AlertRuleDelete = DELETE "/v1/alert-rules/{rule_id}" as "alertRuleDelete", Scope::Role(Role::Admin), NO_CONTENT;
    "Removes a rule; its alerts resolve within a minute."
    (AlertRulePath, Nothing, NoBody) -> Done = delete
}

async fn delete(call: Call<AlertRuleDelete>) -> Result<Done, Problem> {
    let (id, now) = (call.path.rule_id.as_str(), call.people.clock.now().0);
    let mut tx = call.people.db.write().await?;
    alert_rule_lock(&mut tx, id).await?;
    if let Some(before) = find(&mut tx, id).await? {
        call.seen.check(&before)?;
    }
    if !alert_rule_delete(&mut tx, id).await? {
        return Err(Problem::not_found(format!("there is no rule {id}")));
    }
    let entry = AuditEntry {
        actor: &call.caller.actor().0,
        action: "alert_rule.delete",
        subject: id,
        detail: &serde_json::Value::Null,
    };
    audit_append(&mut tx, entry, now).await?;
    tx.commit().await?;
    Ok(Done)
}
