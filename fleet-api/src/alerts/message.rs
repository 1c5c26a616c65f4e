//! What is said about an alert, to programs and to people.

use serde::{Deserialize, Serialize};

use super::measure;
use crate::store::alert_rules::{AlertKind, Severity};
use crate::store::alerts::AlertRow;

/// What a webhook gets, and what a mail is written from.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Message {
    /// `alert.opened`, `alert.acknowledged`, `alert.resolved` or `channel.test`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When, milliseconds UTC.
    pub timestamp: i64,
    /// What it is about; absent for a test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Told>,
}

/// An alert, to those who are told.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Told {
    /// The alert.
    pub alert: String,
    /// The rule.
    pub rule: String,
    /// The rule's name for people.
    pub name: String,
    /// What is measured.
    pub kind: AlertKind,
    /// How bad it is.
    pub severity: Severity,
    /// The box.
    #[serde(rename = "box")]
    pub box_id: String,
    /// An operator's name for it.
    pub label: String,
    /// Where it stands.
    pub site: String,
    /// What was measured.
    pub measured: f64,
    /// The same in words.
    pub text: String,
    /// Since when it has been so.
    pub since: i64,
    /// Who did it.
    pub actor: String,
}

impl Message {
    /// About a step of an alert.
    pub fn about(
        row: &AlertRow,
        (label, site): (&str, &str),
        event: &str,
        actor: &str,
        measured: f64,
        now: i64,
    ) -> Self {
        Self {
            kind: format!("alert.{event}"),
            timestamp: now,
            data: Some(Told {
                alert: row.alert_id.clone(),
                rule: row.rule_id.clone(),
                name: row.rule_name.clone(),
                kind: row.kind,
                severity: row.severity,
                box_id: row.box_id.to_string(),
                label: label.to_owned(),
                site: site.to_owned(),
                measured,
                text: measure::say(row.kind, measured),
                since: row.since,
                actor: actor.to_owned(),
            }),
        }
    }

    /// Whether a channel works.
    pub fn test(now: i64) -> Self {
        Self {
            kind: "channel.test".to_owned(),
            timestamp: now,
            data: None,
        }
    }

    /// A mail's subject: one line, whatever an operator called the box.
    pub fn subject(&self) -> String {
        let text = match &self.data {
            None => "Longhaul: this channel works".to_owned(),
            Some(told) => {
                let what = self.kind.rsplit('.').next().unwrap_or_default();
                let whose = if told.label.is_empty() {
                    &told.box_id
                } else {
                    &told.label
                };
                format!("[{}] {}: {whose} ({what})", told.severity, told.name)
            }
        };
        text.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect()
    }

    /// A mail's text.
    pub fn text(&self) -> String {
        let Some(told) = &self.data else {
            return "Alerts of the fleet will be told here.\n".to_owned();
        };
        let or = |text: &str| {
            if text.is_empty() {
                "-".to_owned()
            } else {
                text.to_owned()
            }
        };
        format!(
            "{}\n\nBox:      {}\nLabel:    {}\nSite:     {}\nSeverity: {}\nEvent:    {}, by {}\nAlert:    {}\n",
            told.text,
            told.box_id,
            or(&told.label),
            or(&told.site),
            told.severity,
            self.kind,
            told.actor,
            told.alert,
        )
    }
}
