//! Retention: PostgreSQL keeps each series in partitions by time, made ahead and dropped whole;
//! SQLite deletes. What is forgotten when is the same on both.

use sqlx::{AssertSqlSafe, Postgres, Transaction};

use super::series::Series;
use crate::store::{StoreResult, Tx};

/// A day, in milliseconds.
const DAY_MS: i64 = 86_400_000;
/// Partitions are made for this long ahead, in milliseconds.
const AHEAD_MS: i64 = 3 * DAY_MS;

impl Series {
    /// The table.
    const fn table(self) -> &'static str {
        match self {
            Self::Samples => "telemetry",
            Self::FiveMinutes => "telemetry_5m",
            Self::Hours => "telemetry_1h",
        }
    }

    /// The partition for what lies in no other.
    const fn strays(self) -> &'static str {
        match self {
            Self::Samples => "telemetry_strays",
            Self::FiveMinutes => "telemetry_5m_strays",
            Self::Hours => "telemetry_1h_strays",
        }
    }

    /// How much time is kept or forgotten at once, in milliseconds: coarser ones are smaller.
    const fn piece_ms(self) -> i64 {
        match self {
            Self::Samples => DAY_MS,
            Self::FiveMinutes => 7 * DAY_MS,
            Self::Hours => 28 * DAY_MS,
        }
    }
}

/// Begin of the piece of `series` that `at` lies in.
fn piece(series: Series, at: i64) -> i64 {
    at - at.rem_euclid(series.piece_ms())
}

/// Since when `series` is to be kept: `keep_ms` before `now`, at the begin of a piece, and not
/// beyond what the next coarser series has taken up.
pub fn keep_since(series: Series, now: i64, keep_ms: i64, taken_up: i64) -> i64 {
    let wanted = now.saturating_sub(keep_ms).max(0).min(taken_up);
    piece(series, wanted)
}

/// Makes the partitions for the time around and after `now`; yields how many.
pub async fn partitions_ahead(tx: &mut Tx, series: Series, now: i64) -> StoreResult<u64> {
    let Tx::Postgres(t) = tx else {
        return Ok(0);
    };
    let there = partitions(t, series).await?;
    let mut made = 0;
    let mut begin = piece(series, now);
    while begin <= now.saturating_add(AHEAD_MS) {
        if !there.iter().any(|p| p.since <= begin && begin < p.until) {
            partition_make(t, series, begin).await?;
            made += 1;
        }
        begin += series.piece_ms();
    }
    Ok(made)
}

/// Says that `series` is kept whole from `before` on, and drops partitions that end before; `false`
/// if that was said already. What is left to [`rows_forget`] is what lies in no partition.
pub async fn pieces_forget(tx: &mut Tx, series: Series, before: i64) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE telemetry_marks SET kept_since = $2 WHERE series = $1 AND kept_since < $2",
        series.as_str(),
        before
    )?;
    if let Tx::Postgres(t) = tx {
        for old in partitions(t, series).await? {
            if old.until <= before {
                patient(t).await?;
                run(t, format!("DROP TABLE {}", old.name)).await?;
                tracing::info!(partition = old.name, "telemetry's time is over");
            }
        }
    }
    Ok(rows == 1)
}

/// Deletes what is from before `before`, of up to `limit` boxes after `after`; yields the last of
/// them. A sample that came when its time was over already is kept for `keep_ms` from then: a box
/// whose clock is wrong is not without telemetry.
pub async fn rows_forget(
    tx: &mut Tx,
    series: Series,
    (before, keep_ms): (i64, i64),
    after: &str,
    limit: u32,
) -> StoreResult<Option<String>> {
    let limit = i64::from(limit);
    let (last,) = fetch!(
        one,
        tx,
        (Option<String>,),
        "SELECT max(box_id) FROM (SELECT box_id FROM boxes WHERE box_id > $1 \
           ORDER BY box_id LIMIT $2) AS b",
        after,
        limit
    )?;
    match series {
        Series::Samples => execute!(
            tx,
            "DELETE FROM telemetry WHERE box_id IN (SELECT box_id FROM boxes WHERE box_id > $1 \
               ORDER BY box_id LIMIT $2) AND at < $3 AND (received < $3 OR at >= received - $4)",
            after,
            limit,
            before,
            keep_ms
        )?,
        Series::FiveMinutes => execute!(
            tx,
            "DELETE FROM telemetry_5m WHERE box_id IN (SELECT box_id FROM boxes WHERE box_id > $1 \
               ORDER BY box_id LIMIT $2) AND at < $3",
            after,
            limit,
            before
        )?,
        Series::Hours => execute!(
            tx,
            "DELETE FROM telemetry_1h WHERE box_id IN (SELECT box_id FROM boxes WHERE box_id > $1 \
               ORDER BY box_id LIMIT $2) AND at < $3",
            after,
            limit,
            before
        )?,
    };
    Ok(last)
}

/// A partition.
#[derive(sqlx::FromRow)]
struct Partition {
    name: String,
    since: i64,
    until: i64,
}

/// Those of `series`, without the strays.
async fn partitions(
    t: &mut Transaction<'static, Postgres>,
    series: Series,
) -> StoreResult<Vec<Partition>> {
    let found = sqlx::query_as(
        "SELECT name, CAST(bounds[1] AS BIGINT) AS since, CAST(bounds[2] AS BIGINT) AS until FROM ( \
           SELECT CAST(c.relname AS TEXT) AS name, regexp_match(pg_get_expr(c.relpartbound, c.oid), \
             'FROM \\(''?(-?[0-9]+)''?\\) TO \\(''?(-?[0-9]+)''?\\)') AS bounds \
           FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
           WHERE i.inhparent = to_regclass($1)) AS p \
         WHERE bounds IS NOT NULL ORDER BY since",
    )
    .bind(series.table())
    .fetch_all(&mut **t)
    .await?;
    Ok(found)
}

/// Makes the partition that begins at `begin`, and takes what lies among the strays into it.
async fn partition_make(
    t: &mut Transaction<'static, Postgres>,
    series: Series,
    begin: i64,
) -> StoreResult<()> {
    let (table, strays) = (series.table(), series.strays());
    let end = begin + series.piece_ms();
    let (date,): (String,) = sqlx::query_as(
        "SELECT to_char(to_timestamp(CAST($1 AS BIGINT) / 1000) AT TIME ZONE 'UTC', 'YYYYMMDD')",
    )
    .bind(begin)
    .fetch_one(&mut **t)
    .await?;
    let name = format!("{table}_{date}");
    patient(t).await?;
    run(
        t,
        format!("CREATE TABLE {name} (LIKE {table} INCLUDING ALL)"),
    )
    .await?;
    // Nobody may put a row of its time among the strays from here on.
    run(t, format!("LOCK TABLE {strays} IN ACCESS EXCLUSIVE MODE")).await?;
    run(
        t,
        format!(
            "WITH moved AS (DELETE FROM {strays} WHERE at >= {begin} AND at < {end} RETURNING *) \
             INSERT INTO {name} SELECT * FROM moved"
        ),
    )
    .await?;
    run(
        t,
        format!("ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({begin}) TO ({end})"),
    )
    .await?;
    tracing::info!(partition = name, "made ahead");
    Ok(())
}

/// Whoever waits for a table here keeps everybody else waiting behind: not for long, then. The next
/// turn tries again.
async fn patient(t: &mut Transaction<'static, Postgres>) -> StoreResult<()> {
    run(t, "SET LOCAL lock_timeout = '3s'".to_owned()).await
}

/// Runs a statement of tables' names and times, which no parameter can stand for.
async fn run(t: &mut Transaction<'static, Postgres>, sql: String) -> StoreResult<()> {
    sqlx::query(AssertSqlSafe(sql)).execute(&mut **t).await?;
    Ok(())
}
