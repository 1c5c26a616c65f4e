//! The audit: who did what to what, each entry's hash over the one before, so that none can be
//! changed, dropped or slipped in unnoticed by whoever does not rewrite all that follow.

use sqlx::FromRow;

use super::filter::{Filter, FilterField, Holds};
use super::listing::field;
use super::tx::{Piece, plain, rows};
use super::{StoreResult, Tx};

/// What the first entry continues.
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One entry.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct AuditRow {
    /// Its place in the chain, from 1.
    pub number: i64,
    /// When.
    pub at: i64,
    /// Who.
    pub actor: String,
    /// Did what, as `noun.verb`.
    pub action: String,
    /// To what.
    pub subject: String,
    /// How: JSON.
    pub detail: String,
    /// Hash over the hash before and all of the above.
    pub hash: String,
}

/// What is to be taken down.
#[derive(Clone, Copy, Debug)]
pub struct AuditEntry<'a> {
    /// Who.
    pub actor: &'a str,
    /// Did what, as `noun.verb`.
    pub action: &'a str,
    /// To what.
    pub subject: &'a str,
    /// How.
    pub detail: &'a serde_json::Value,
}

/// Appends an entry, in the transaction of the deed: neither is stored without the other.
pub async fn audit_append(tx: &mut Tx, entry: AuditEntry<'_>, now: i64) -> StoreResult<AuditRow> {
    let (number, before) = fetch!(
        one,
        tx,
        (i64, String),
        "UPDATE audit_head SET number = number + 1 WHERE only_row = 1 RETURNING number, hash"
    )?;
    let mut row = AuditRow {
        number,
        at: now,
        actor: plain(entry.actor),
        action: plain(entry.action),
        subject: plain(entry.subject),
        detail: entry.detail.to_string(),
        hash: String::new(),
    };
    row.hash = chain_hash(&before, &row);
    execute!(
        tx,
        "INSERT INTO audit (number, at, actor, action, subject, detail, hash) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        row.number,
        row.at,
        row.actor.as_str(),
        row.action.as_str(),
        row.subject.as_str(),
        row.detail.as_str(),
        row.hash.as_str(),
    )?;
    execute!(
        tx,
        "UPDATE audit_head SET hash = $1 WHERE only_row = 1",
        row.hash.as_str()
    )?;
    Ok(row)
}

/// What the audit can be asked for by.
pub const AUDIT_FIELDS: [FilterField; 6] = [
    field("actor", "actor", Holds::Text),
    field("action", "action", Holds::Text),
    field("subject", "subject", Holds::Text),
    field("detail", "detail", Holds::Text),
    field("number", "number", Holds::Number),
    field("at", "at", Holds::Time),
];

/// Entries that `filter` finds, newest first, from the one before `before`.
pub async fn audit_list(
    tx: &mut Tx,
    filter: &Filter,
    before: Option<i64>,
    limit: u32,
) -> StoreResult<Vec<AuditRow>> {
    let mut list: Vec<Piece> = vec![
        "SELECT * FROM audit WHERE number < ".into(),
        Piece::Int(before.unwrap_or(i64::MAX)),
    ];
    filter.push(&mut list);
    list.push(" ORDER BY number DESC LIMIT ".into());
    list.push(Piece::Int(i64::from(limit)));
    rows(tx, list).await
}

/// Entries, oldest first, from the one after `after`.
pub async fn audit_list_after(tx: &mut Tx, after: i64, limit: u32) -> StoreResult<Vec<AuditRow>> {
    fetch!(
        all,
        tx,
        AuditRow,
        "SELECT * FROM audit WHERE number > $1 ORDER BY number LIMIT $2",
        after,
        i64::from(limit),
    )
}

/// Where the chain ends: the last entry's number and hash.
pub async fn audit_head(tx: &mut Tx) -> StoreResult<(i64, String)> {
    fetch!(
        one,
        tx,
        (i64, String),
        "SELECT number, hash FROM audit_head WHERE only_row = 1"
    )
}

/// Alters an entry, as nobody may.
#[cfg(test)]
pub async fn tamper(tx: &mut Tx, number: i64) -> StoreResult<()> {
    execute!(
        tx,
        "UPDATE audit SET actor = 'eve' WHERE number = $1",
        number
    )?;
    Ok(())
}

/// Follows the whole chain; yields the number of the first entry that does not fit, if any.
pub async fn audit_verify(tx: &mut Tx) -> StoreResult<Option<i64>> {
    const PAGE: i64 = 1000;
    let (mut number, mut hash) = (0, GENESIS.to_owned());
    loop {
        let rows = fetch!(
            all,
            tx,
            AuditRow,
            "SELECT * FROM audit WHERE number > $1 ORDER BY number LIMIT $2",
            number,
            PAGE,
        )?;
        for row in &rows {
            if row.number != number + 1 || row.hash != chain_hash(&hash, row) {
                return Ok(Some(number + 1));
            }
            number = row.number;
            hash.clone_from(&row.hash);
        }
        if rows.is_empty() {
            break;
        }
    }
    let head = audit_head(tx).await?;
    Ok((head != (number, hash)).then_some(number + 1))
}

/// Every field goes in with its length before it, so that no two entries read the same.
fn chain_hash(before: &str, row: &AuditRow) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"longhaul audit v1");
    hasher.update(&row.number.to_be_bytes());
    hasher.update(&row.at.to_be_bytes());
    for field in [before, &row.actor, &row.action, &row.subject, &row.detail] {
        hasher.update(&u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(field.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
