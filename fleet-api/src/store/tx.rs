//! The two databases behind one enumeration, and the macros that run one SQL text on either.

use std::path::Path;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{PgPool, Postgres, Sqlite, SqlitePool, Transaction};

/// Read connections of SQLite.
const SQLITE_READERS: u32 = 4;
/// Connections to PostgreSQL.
const POSTGRES_CONNECTIONS: u32 = 16;
/// How long a query may wait for a connection before it fails.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// The database; clones share its connections.
#[derive(Clone, Debug)]
pub enum Db {
    /// One file; one writer at a time.
    Sqlite {
        /// The one connection that writes.
        writer: SqlitePool,
        /// Connections that only read.
        readers: SqlitePool,
    },
    /// A server.
    Postgres(PgPool),
}

/// A transaction; dropped without [`Tx::commit`], it is undone.
#[derive(Debug)]
pub enum Tx {
    /// On SQLite.
    Sqlite(Transaction<'static, Sqlite>),
    /// On PostgreSQL.
    Postgres(Transaction<'static, Postgres>),
}

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database failed or refused.
    #[error("database failed")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("database schema could not be migrated")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A request with the same idempotency key was faster.
    #[error(
        "a request with this idempotency key is being carried out, or was: repeat it to get its answer"
    )]
    KeyTaken,
    /// A request with an idempotency key was to be committed without its answer.
    #[error("nothing was kept to answer a repetition of this request with")]
    Unanswered,
    /// A JSON column could not be written or read.
    #[error("malformed {what} in the database")]
    Json {
        /// Which document.
        what: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A number does not fit the database's integers.
    #[error("{what} {value} is larger than the database can hold")]
    TooLarge {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: u64,
    },
}

/// What the store's functions return.
pub type StoreResult<T> = Result<T, StoreError>;

impl StoreError {
    /// Whether a row with the same key exists already.
    pub fn is_duplicate(&self) -> bool {
        self.database()
            .is_some_and(sqlx::error::DatabaseError::is_unique_violation)
    }

    /// Whether a row that it refers to does not exist.
    pub fn is_missing_reference(&self) -> bool {
        self.database()
            .is_some_and(sqlx::error::DatabaseError::is_foreign_key_violation)
    }

    fn database(&self) -> Option<&(dyn sqlx::error::DatabaseError + 'static)> {
        match self {
            Self::Database(error) => error.as_database_error(),
            _ => None,
        }
    }
}

impl Db {
    /// Opens the SQLite file at `path`, making it if it is absent, and migrates it.
    pub async fn open_sqlite(path: &Path) -> StoreResult<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // An acknowledgement to a box follows a commit: it must survive a power cut.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5))
            .foreign_keys(true);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await?;
        sqlx::migrate!("migrations/sqlite").run(&writer).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(SQLITE_READERS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(options.create_if_missing(false).read_only(true))
            .await?;
        Ok(Self::Sqlite { writer, readers })
    }

    /// Connects to the PostgreSQL server at `url` (`postgres://..`) and migrates it.
    pub async fn open_postgres(url: &str) -> StoreResult<Self> {
        Self::open_postgres_with(url.parse()?).await
    }

    /// Connects to PostgreSQL as `options` say and migrates it.
    pub async fn open_postgres_with(options: PgConnectOptions) -> StoreResult<Self> {
        let pool = PgPoolOptions::new()
            .max_connections(POSTGRES_CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(options)
            .await?;
        sqlx::migrate!("migrations/postgres").run(&pool).await?;
        Ok(Self::Postgres(pool))
    }

    /// Whether other processes may use it at the same time.
    pub const fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Opens a transaction that only reads, and sees one state throughout.
    pub async fn read(&self) -> StoreResult<Tx> {
        Ok(match self {
            Self::Sqlite { readers, .. } => Tx::Sqlite(readers.begin().await?),
            Self::Postgres(pool) => Tx::Postgres(
                pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    .await?,
            ),
        })
    }

    /// Opens a transaction that may write. On SQLite it takes the writer's place at once: a
    /// transaction that reads first and then wants to write fails when another was faster.
    pub async fn write(&self) -> StoreResult<Tx> {
        Ok(match self {
            Self::Sqlite { writer, .. } => Tx::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            Self::Postgres(pool) => Tx::Postgres(pool.begin().await?),
        })
    }

    /// Closes every connection, after the transactions under way.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

impl Tx {
    /// Makes everything done in it durable.
    pub async fn commit(mut self) -> StoreResult<()> {
        super::idempotency::idempotency_claim(&mut self).await?;
        match self {
            Self::Sqlite(tx) => tx.commit().await?,
            Self::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }

    /// Undoes everything done in it.
    pub async fn rollback(self) -> StoreResult<()> {
        match self {
            Self::Sqlite(tx) => tx.rollback().await?,
            Self::Postgres(tx) => tx.rollback().await?,
        }
        Ok(())
    }
}

/// Writes a JSON column.
pub(super) fn json_text<T: serde::Serialize + ?Sized>(
    what: &'static str,
    value: &T,
) -> StoreResult<String> {
    serde_json::to_string(value).map_err(|source| StoreError::Json { what, source })
}

/// Text from a wire as a text column holds it: PostgreSQL's text has no NUL.
pub(super) fn plain(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// A number as the database holds it.
pub(super) fn to_i64(what: &'static str, value: u64) -> StoreResult<i64> {
    i64::try_from(value).map_err(|_| StoreError::TooLarge { what, value })
}

/// A piece of a statement that is put together: text of the program's own, or a bound value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    /// SQL; never anything from a caller.
    Sql(&'static str),
    /// A bound text.
    Text(String),
    /// A bound number.
    Int(i64),
    /// A bound truth.
    Bool(bool),
}

impl From<&'static str> for Piece {
    fn from(sql: &'static str) -> Self {
        Self::Sql(sql)
    }
}

/// Runs a query that was put together.
pub(super) async fn rows<R>(tx: &mut Tx, statement: Vec<Piece>) -> StoreResult<Vec<R>>
where
    R: for<'r> sqlx::FromRow<'r, sqlx::sqlite::SqliteRow>
        + for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>
        + Send
        + Unpin,
{
    // A macro, as for everything that has to compile for either database.
    macro_rules! rows_on {
        ($db:ty, $tx:expr) => {{
            let mut query = sqlx::QueryBuilder::<$db>::new("");
            for piece in statement {
                match piece {
                    Piece::Sql(sql) => query.push(sql),
                    Piece::Text(text) => query.push_bind(text),
                    Piece::Int(number) => query.push_bind(number),
                    Piece::Bool(truth) => query.push_bind(truth),
                };
            }
            query.build_query_as::<R>().fetch_all(&mut **$tx).await?
        }};
    }
    Ok(match tx {
        Tx::Sqlite(t) => rows_on!(Sqlite, t),
        Tx::Postgres(t) => rows_on!(Postgres, t),
    })
}

/// Runs a statement; yields the number of rows that it changed.
macro_rules! execute {
    ($tx:expr, $sql:expr $(, $bind:expr)* $(,)?) => {
        match &mut *$tx {
            $crate::store::Tx::Sqlite(t) => {
                sqlx::query($sql)$(.bind($bind))*.execute(&mut **t).await.map(|r| r.rows_affected())
            }
            $crate::store::Tx::Postgres(t) => {
                sqlx::query($sql)$(.bind($bind))*.execute(&mut **t).await.map(|r| r.rows_affected())
            }
        }
        .map_err($crate::store::StoreError::from)
    };
}

/// Runs a query; `fetch!(one | optional | all, tx, Row, sql, binds..)`.
macro_rules! fetch {
    (one, $($rest:tt)*) => { fetch!(@ fetch_one, $($rest)*) };
    (optional, $($rest:tt)*) => { fetch!(@ fetch_optional, $($rest)*) };
    (all, $($rest:tt)*) => { fetch!(@ fetch_all, $($rest)*) };
    (@ $method:ident, $tx:expr, $row:ty, $sql:expr $(, $bind:expr)* $(,)?) => {
        match &mut *$tx {
            $crate::store::Tx::Sqlite(t) => {
                sqlx::query_as::<_, $row>($sql)$(.bind($bind))*.$method(&mut **t).await
            }
            $crate::store::Tx::Postgres(t) => {
                sqlx::query_as::<_, $row>($sql)$(.bind($bind))*.$method(&mut **t).await
            }
        }
        .map_err($crate::store::StoreError::from)
    };
}
