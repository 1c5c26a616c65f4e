//! The audit as a file: checked, and written out, without the cloud that it is about.

use std::io::{self, Write};

use crate::config::Config;
use crate::store::audit::{AuditRow, audit_head, audit_list_after, audit_verify};
use crate::store::{Db, StoreError};

/// Entries that are read at a time.
const PAGE: u32 = 1000;

/// Why the audit could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// There is no database.
    #[error("there is no database {0}; say where with --data or --database")]
    Absent(std::path::PathBuf),
    /// The database failed.
    #[error("the database is unusable")]
    Store(#[from] StoreError),
    /// An entry could not be written out.
    #[error("failed to write the audit")]
    Write(#[from] io::Error),
    /// The chain is broken.
    #[error("the audit was altered: entry {0} does not follow from those before it")]
    Altered(i64),
}

/// Opens the database that the cloud of this configuration uses; the cloud may run meanwhile.
///
/// # Errors
///
/// [`AuditError`] if there is none, or it cannot be opened.
pub async fn open(config: &Config) -> Result<Db, AuditError> {
    if let Some(url) = &config.database {
        return Ok(Db::open_postgres(url).await?);
    }
    let path = config.data.join("cloud.db");
    if !path.exists() {
        return Err(AuditError::Absent(path));
    }
    Ok(Db::open_sqlite(&path).await?)
}

/// Follows the whole chain; yields the number of entries and the last one's hash, which whoever keeps
/// it elsewhere can compare next time.
///
/// # Errors
///
/// [`AuditError::Altered`] names the first entry that does not fit.
pub async fn verify(db: &Db) -> Result<(i64, String), AuditError> {
    let mut tx = db.read().await?;
    if let Some(number) = audit_verify(&mut tx).await? {
        return Err(AuditError::Altered(number));
    }
    Ok(audit_head(&mut tx).await?)
}

/// Writes every entry as a line of JSON, oldest first, with what is needed to follow the chain.
///
/// # Errors
///
/// [`AuditError`] if an entry cannot be read or written.
pub async fn export(db: &Db, mut out: impl Write) -> Result<(), AuditError> {
    let mut tx = db.read().await?;
    let mut after = 0;
    loop {
        let rows = audit_list_after(&mut tx, after, PAGE).await?;
        let Some(last) = rows.last() else { break };
        after = last.number;
        for row in &rows {
            writeln!(out, "{}", line(row))?;
        }
    }
    Ok(out.flush()?)
}

/// `detail` stays the text that was hashed.
fn line(row: &AuditRow) -> serde_json::Value {
    serde_json::json!({
        "number": row.number, "at": row.at, "actor": row.actor, "action": row.action,
        "subject": row.subject, "detail": row.detail, "hash": row.hash,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::audit::{AuditEntry, audit_append};
    use crate::store::testing::on_both;

    on_both! {
        async fn what_was_altered_is_named_and_what_was_not_is_written_out(db: Db) {
            let detail = serde_json::json!({ "label": "a" });
            let mut tx = db.write().await.expect("begins");
            for n in 0..3 {
                let entry = AuditEntry { actor: "ada", action: "box.update", subject: "B", detail: &detail };
                audit_append(&mut tx, entry, n).await.expect("appends");
            }
            tx.commit().await.expect("commits");

            let (count, hash) = verify(&db).await.expect("it is whole");
            let mut out = Vec::new();
            export(&db, &mut out).await.expect("is written");
            let lines: Vec<serde_json::Value> = String::from_utf8(out).expect("text").lines()
                .map(|line| serde_json::from_str(line).expect("JSON")).collect();
            assert_eq!((count, lines.len()), (3, 3));
            assert_eq!(lines[2]["hash"], hash);
            assert_eq!(lines[0]["detail"], r#"{"label":"a"}"#);

            let mut tx = db.write().await.expect("begins");
            crate::store::audit::tamper(&mut tx, 2).await.expect("alters");
            tx.commit().await.expect("commits");
            assert!(matches!(verify(&db).await, Err(AuditError::Altered(2))));
        }
    }
}
