//! The boxes' journals, exactly once and without a gap.

use longhaul_protocol::ids::{BoxId, EpochId};
use longhaul_protocol::journal::{Fact, JournalEntry};
use sqlx::{FromRow, QueryBuilder};

use super::tx::{json_text, to_i64};
use super::{StoreResult, Tx};

/// What became of a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum JournalCommit {
    /// Everything up to `through` is stored once the transaction is committed.
    Committed {
        /// Highest number without a gap below it.
        through: u64,
        /// How many entries at the begin of the batch were stored before, and must not be applied
        /// again.
        known: usize,
    },
    /// The batch does not continue what is stored, or its numbers do not rise by one; nothing of
    /// it was taken. The box has to continue after `through`.
    Gap {
        /// Highest number without a gap below it.
        through: u64,
    },
}

/// One stored entry.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct JournalRow {
    /// Whose.
    #[sqlx(try_from = "String")]
    pub box_id: BoxId,
    /// The life of the journal.
    #[sqlx(try_from = "String")]
    pub epoch: EpochId,
    /// Its number.
    pub number: i64,
    /// The box's clock when it happened.
    pub at: i64,
    /// When it was committed.
    pub received: i64,
    /// The kind of fact.
    pub kind: String,
    /// The fact: JSON.
    pub detail: String,
}

/// How many entries were ever committed: numbers rise by one in each journal.
pub async fn journal_count(tx: &mut Tx) -> StoreResult<i64> {
    let (count,) = fetch!(
        one,
        tx,
        (i64,),
        "SELECT CAST(coalesce(sum(through), 0) AS BIGINT) FROM journal_epochs"
    )?;
    Ok(count)
}

/// Takes down a batch. Entries that are stored already are passed over.
pub async fn journal_commit(
    tx: &mut Tx,
    box_id: &BoxId,
    epoch: &EpochId,
    entries: &[JournalEntry],
    now: i64,
) -> StoreResult<JournalCommit> {
    // Updating the epoch's row is the lock between two processes that got the same batch.
    let (through,) = fetch!(
        one,
        tx,
        (i64,),
        "INSERT INTO journal_epochs (box_id, epoch, through, begun) VALUES ($1, $2, 0, $3) \
         ON CONFLICT (box_id, epoch) DO UPDATE SET through = journal_epochs.through \
         RETURNING through",
        box_id.as_str(),
        epoch.as_str(),
        now,
    )?;
    let through = u64::try_from(through).unwrap_or(0);
    let rising = entries
        .windows(2)
        .all(|pair| pair[0].number.checked_add(1) == Some(pair[1].number));
    let continues = entries
        .first()
        .is_none_or(|first| (1..=through + 1).contains(&first.number));
    if !rising || !continues {
        return Ok(JournalCommit::Gap { through });
    }
    let known = entries.partition_point(|e| e.number <= through);
    let fresh = &entries[known..];
    let Some(last) = fresh.last() else {
        return Ok(JournalCommit::Committed { through, known });
    };
    insert(tx, box_id, epoch, fresh, now).await?;
    execute!(
        tx,
        "UPDATE journal_epochs SET through = $3 WHERE box_id = $1 AND epoch = $2",
        box_id.as_str(),
        epoch.as_str(),
        to_i64("journal number", last.number)?,
    )?;
    Ok(JournalCommit::Committed {
        through: last.number,
        known,
    })
}

/// Highest committed number of an epoch; 0 if nothing is stored.
pub async fn journal_through(tx: &mut Tx, box_id: &BoxId, epoch: &EpochId) -> StoreResult<u64> {
    let row = fetch!(
        optional,
        tx,
        (i64,),
        "SELECT through FROM journal_epochs WHERE box_id = $1 AND epoch = $2",
        box_id.as_str(),
        epoch.as_str(),
    )?;
    Ok(row.map_or(0, |(through,)| u64::try_from(through).unwrap_or(0)))
}

/// Takes down that nothing up to and including `through` will ever come: the box has forgotten it.
pub async fn journal_skip(
    tx: &mut Tx,
    box_id: &BoxId,
    epoch: &EpochId,
    through: u64,
) -> StoreResult<()> {
    execute!(
        tx,
        "UPDATE journal_epochs SET through = $3 \
         WHERE box_id = $1 AND epoch = $2 AND through < $3",
        box_id.as_str(),
        epoch.as_str(),
        to_i64("journal number", through)?,
    )?;
    Ok(())
}

/// The kind of a fact, as in its JSON.
pub fn fact_kind(fact: &Fact) -> &'static str {
    match fact {
        Fact::Started { .. } => "started",
        Fact::Rung { .. } => "rung",
        Fact::Certificate { .. } => "certificate",
        Fact::Network(_) => "network",
        Fact::CommandResult { .. } => "command_result",
        Fact::Update(_) => "update",
        Fact::Stored { .. } => "stored",
        Fact::Sealed { .. } => "sealed",
        Fact::Deleted { .. } => "deleted",
        Fact::Erased { .. } => "erased",
        Fact::VaultKey(_) => "vault_key",
        Fact::Delivered { .. } => "delivered",
        Fact::DeliveryFailed { .. } => "delivery_failed",
        Fact::Failure { .. } => "failure",
        Fact::Notice { .. } => "notice",
        Fact::Telemetry(_) => "telemetry",
    }
}

/// A fact as the journal keeps it. A wrapped key has a table of its own, in which the next one
/// replaces it: here it is only named.
fn detail(fact: &Fact) -> StoreResult<String> {
    match fact {
        Fact::VaultKey(wrapped) => {
            let named = serde_json::json!({
                "kind": fact_kind(fact), "key_id": wrapped.key_id, "recipient": wrapped.recipient,
            });
            Ok(named.to_string())
        }
        other => json_text("journal fact", other),
    }
}

/// Rows in one statement: seven values each stay far below either database's limit.
const ROWS_PER_INSERT: usize = 256;

async fn insert(
    tx: &mut Tx,
    box_id: &BoxId,
    epoch: &EpochId,
    entries: &[JournalEntry],
    now: i64,
) -> StoreResult<()> {
    let mut rows = Vec::with_capacity(entries.len());
    for entry in entries {
        rows.push((
            to_i64("journal number", entry.number)?,
            entry.at.0,
            fact_kind(&entry.fact),
            detail(&entry.fact)?,
        ));
    }
    // A macro rather than a function: `QueryBuilder` emits `?` on SQLite, where numbered places
    // cost time that grows with their square, and `$n` on PostgreSQL.
    macro_rules! insert_on {
        ($db:ty, $tx:expr) => {
            for chunk in rows.chunks(ROWS_PER_INSERT) {
                let mut query = QueryBuilder::<$db>::new(
                    "INSERT INTO journal (box_id, epoch, number, at, received, kind, detail) ",
                );
                query.push_values(chunk, |mut row, (number, at, kind, detail)| {
                    row.push_bind(box_id.as_str())
                        .push_bind(epoch.as_str())
                        .push_bind(*number)
                        .push_bind(*at)
                        .push_bind(now)
                        .push_bind(*kind)
                        .push_bind(detail.as_str());
                });
                query.build().execute(&mut **$tx).await?;
            }
        };
    }
    match tx {
        Tx::Sqlite(t) => insert_on!(sqlx::Sqlite, t),
        Tx::Postgres(t) => insert_on!(sqlx::Postgres, t),
    }
    Ok(())
}
