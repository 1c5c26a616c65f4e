//! Rules of alerts: what is measured, and from where on it is trouble.

use sqlx::FromRow;

use super::{StoreResult, Tx, text_enum};

text_enum! {
    /// What a rule measures of a box.
    AlertKind {
        /// Minutes since its session ended.
        OfflineMinutes = "offline_minutes",
        /// Free space of its fullest file system, in per cent.
        DiskFreePercent = "disk_free_percent",
        /// Its hottest sensor, degrees Celsius.
        Celsius = "celsius",
        /// Hours that its certificate is still good for.
        CertificateHours = "certificate_hours",
        /// How full its vault is, in per cent.
        VaultFillPercent = "vault_fill_percent",
        /// Minutes since its oldest open upload moved.
        TransferMinutes = "transfer_minutes",
        /// Failures in its journal within the last hour.
        FailuresPerHour = "failures_per_hour",
    }
}

text_enum! {
    /// How bad it is.
    Severity {
        /// Somebody should look some time.
        Warning = "warning",
        /// Somebody should look now.
        Critical = "critical",
    }
}

/// One rule.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct AlertRuleRow {
    /// Its name in URLs.
    pub rule_id: String,
    /// Its name for people.
    pub name: String,
    /// What it measures.
    #[sqlx(try_from = "String")]
    pub kind: AlertKind,
    /// From here on it is trouble.
    pub raise_at: f64,
    /// From here on it is none any more.
    pub clear_at: f64,
    /// How long it must be trouble before anybody is told.
    pub hold_secs: i64,
    /// How long it must be none before it counts as over.
    pub clear_secs: i64,
    /// How bad it is.
    #[sqlx(try_from = "String")]
    pub severity: Severity,
    /// Whether it is looked at.
    pub enabled: bool,
    /// When it was changed last.
    pub changed: i64,
    /// By whom.
    pub changed_by: String,
}

/// Keeps everybody else from changing a rule until the transaction ends; `false` if there is none.
pub async fn alert_rule_lock(tx: &mut Tx, id: &str) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE alert_rules SET changed = changed WHERE rule_id = $1",
        id
    )?;
    Ok(rows == 1)
}

/// Adds a rule, or changes the one of that name.
pub async fn alert_rule_set(tx: &mut Tx, row: &AlertRuleRow) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO alert_rules (rule_id, name, kind, raise_at, clear_at, hold_secs, clear_secs, \
             severity, enabled, changed, changed_by) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
         ON CONFLICT (rule_id) DO UPDATE SET name = excluded.name, kind = excluded.kind, \
             raise_at = excluded.raise_at, clear_at = excluded.clear_at, \
             hold_secs = excluded.hold_secs, clear_secs = excluded.clear_secs, \
             severity = excluded.severity, enabled = excluded.enabled, \
             changed = excluded.changed, changed_by = excluded.changed_by",
        row.rule_id.as_str(),
        row.name.as_str(),
        row.kind.as_str(),
        row.raise_at,
        row.clear_at,
        row.hold_secs,
        row.clear_secs,
        row.severity.as_str(),
        row.enabled,
        row.changed,
        row.changed_by.as_str(),
    )?;
    Ok(())
}

/// One rule.
pub async fn alert_rule_get(tx: &mut Tx, id: &str) -> StoreResult<Option<AlertRuleRow>> {
    fetch!(
        optional,
        tx,
        AlertRuleRow,
        "SELECT * FROM alert_rules WHERE rule_id = $1",
        id
    )
}

/// Every rule, by name.
pub async fn alert_rule_list(tx: &mut Tx) -> StoreResult<Vec<AlertRuleRow>> {
    fetch!(
        all,
        tx,
        AlertRuleRow,
        "SELECT * FROM alert_rules ORDER BY rule_id"
    )
}

/// Forgets a rule; its alerts end at the next look. `false` if there is none.
pub async fn alert_rule_delete(tx: &mut Tx, id: &str) -> StoreResult<bool> {
    let rows = execute!(tx, "DELETE FROM alert_rules WHERE rule_id = $1", id)?;
    Ok(rows == 1)
}
