//! The index: which objects there are and of what they consist. A private SQLite file.
//!
//! Keys are stored as bytes, so that their order is S3's and ranges of them are exact.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use longhaul_protocol::value::UnixMillis;
use parking_lot::Mutex;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, SqlitePool};

use super::files::Blob;
use super::write::Waiting;
use super::{Attributes, DiskError, Listed, Listing, ObjectHead, OpenUpload, Part};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS buckets (
    name TEXT PRIMARY KEY, made_at INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS objects (
    bucket TEXT NOT NULL REFERENCES buckets (name), key BLOB NOT NULL, bytes INTEGER NOT NULL,
    etag TEXT NOT NULL, modified INTEGER NOT NULL, attributes TEXT NOT NULL, content TEXT NOT NULL,
    PRIMARY KEY (bucket, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS inlined (
    id INTEGER PRIMARY KEY, content TEXT NOT NULL UNIQUE, data BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS pieces (
    content TEXT NOT NULL, number INTEGER NOT NULL, blob TEXT NOT NULL, bytes INTEGER NOT NULL,
    etag TEXT NOT NULL, PRIMARY KEY (content, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploads (
    id TEXT PRIMARY KEY, bucket TEXT NOT NULL REFERENCES buckets (name), key BLOB NOT NULL,
    begun INTEGER NOT NULL, attributes TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS uploads_by_key ON uploads (bucket, key);
";

/// The index's connections, and the changes that wait for the next commit.
pub struct Index {
    pub(super) writer: SqlitePool,
    readers: SqlitePool,
    pub(super) waiting: Mutex<Vec<Waiting>>,
    pub(super) turn: tokio::sync::Mutex<()>,
}

impl Index {
    pub async fn open(path: &Path) -> Result<Self, DiskError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await?;
        sqlx::raw_sql(SCHEMA).execute(&writer).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options.read_only(true))
            .await?;
        Ok(Self {
            writer,
            readers,
            waiting: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        })
    }

    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    pub async fn blobs_named(&self) -> Result<HashSet<String>, DiskError> {
        let names = sqlx::query_scalar("SELECT blob FROM pieces")
            .fetch_all(&self.readers)
            .await?;
        Ok(names.into_iter().collect())
    }

    pub async fn buckets(&self) -> Result<Vec<(String, UnixMillis)>, DiskError> {
        let rows: Vec<(String, i64)> =
            sqlx::query_as("SELECT name, made_at FROM buckets ORDER BY name")
                .fetch_all(&self.readers)
                .await?;
        Ok(rows
            .into_iter()
            .map(|(n, at)| (n, UnixMillis(at)))
            .collect())
    }

    pub async fn bucket_exists(&self, bucket: &str) -> Result<bool, DiskError> {
        Ok(sqlx::query("SELECT 1 FROM buckets WHERE name = ?")
            .bind(bucket)
            .fetch_optional(&self.readers)
            .await?
            .is_some())
    }

    pub async fn head(&self, bucket: &str, key: &str) -> Result<Option<ObjectHead>, DiskError> {
        let row = sqlx::query(
            "SELECT bytes, etag, modified, attributes, content FROM objects \
             WHERE bucket = ? AND key = ?",
        )
        .bind(bucket)
        .bind(key.as_bytes())
        .fetch_optional(&self.readers)
        .await?;
        row.map(|row| {
            Ok(ObjectHead {
                bytes: length(row.try_get(0)?),
                etag: row.try_get(1)?,
                modified: UnixMillis(row.try_get(2)?),
                attributes: attributes(row.try_get(3)?),
                content: row.try_get(4)?,
            })
        })
        .transpose()
    }

    pub async fn inline(&self, content: &str) -> Result<Option<Vec<u8>>, DiskError> {
        Ok(
            sqlx::query_scalar("SELECT data FROM inlined WHERE content = ?")
                .bind(content)
                .fetch_optional(&self.readers)
                .await?,
        )
    }

    pub async fn pieces(&self, content: &str) -> Result<Vec<Blob>, DiskError> {
        let rows: Vec<(String, i64)> =
            sqlx::query_as("SELECT blob, bytes FROM pieces WHERE content = ? ORDER BY number")
                .bind(content)
                .fetch_all(&self.readers)
                .await?;
        let blob = |(name, bytes)| Blob {
            name,
            bytes: length(bytes),
        };
        Ok(rows.into_iter().map(blob).collect())
    }

    pub async fn upload_attributes(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
    ) -> Result<Attributes, DiskError> {
        let found: Option<String> = sqlx::query_scalar(
            "SELECT attributes FROM uploads WHERE id = ? AND bucket = ? AND key = ?",
        )
        .bind(upload)
        .bind(bucket)
        .bind(key.as_bytes())
        .fetch_optional(&self.readers)
        .await?;
        found
            .map(|json| attributes(&json))
            .ok_or_else(|| DiskError::NoUpload(upload.to_owned()))
    }

    pub async fn parts(&self, upload: &str) -> Result<Vec<Part>, DiskError> {
        let rows: Vec<(i64, i64, String)> = sqlx::query_as(
            "SELECT number, bytes, etag FROM pieces WHERE content = ? ORDER BY number",
        )
        .bind(upload)
        .fetch_all(&self.readers)
        .await?;
        let part = |(number, bytes, etag)| Part {
            number: u32::try_from(number).unwrap_or(0),
            bytes: length(bytes),
            etag,
        };
        Ok(rows.into_iter().map(part).collect())
    }

    pub async fn uploads(&self, bucket: &str) -> Result<Vec<OpenUpload>, DiskError> {
        let rows: Vec<(String, Vec<u8>, i64)> =
            sqlx::query_as("SELECT id, key, begun FROM uploads WHERE bucket = ? ORDER BY key, id")
                .bind(bucket)
                .fetch_all(&self.readers)
                .await?;
        let upload = |(id, key, begun)| OpenUpload {
            id,
            key: text(key),
            begun: UnixMillis(begun),
        };
        Ok(rows.into_iter().map(upload).collect())
    }

    pub async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        delimiter: Option<&str>,
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> Result<Listing, DiskError> {
        let mut listing = Listing::default();
        let end = successor(prefix.as_bytes());
        // Lowest key that may still be listed.
        let mut from = match after {
            Some(after) => {
                let grouped = delimiter.filter(|d| {
                    after.starts_with(prefix.as_bytes()) && after.ends_with(d.as_bytes())
                });
                match grouped {
                    // The page ended with a group: go on behind all of it.
                    Some(_) => successor(&after),
                    None => Some([after.as_slice(), &[0]].concat()),
                }
            }
            None => Some(vec![]),
        };
        let mut last = None;
        while let Some(start) = from.take() {
            let start = start.max(prefix.as_bytes().to_vec());
            let left = limit - listing.objects.len() - listing.prefixes.len();
            let page = self.page(bucket, &start, end.as_deref(), left + 1).await?;
            let full = page.len() == left + 1;
            for object in page {
                if listing.objects.len() + listing.prefixes.len() == limit {
                    listing.next = last;
                    return Ok(listing);
                }
                let rest = &object.key[prefix.len()..];
                let group = delimiter
                    .filter(|d| !d.is_empty())
                    .and_then(|d| rest.find(d).map(|at| prefix.len() + at + d.len()));
                if let Some(length) = group {
                    let group = object.key[..length].to_owned();
                    from = successor(group.as_bytes());
                    last = Some(group.clone().into_bytes());
                    listing.prefixes.push(group);
                    break;
                }
                last = Some(object.key.clone().into_bytes());
                listing.objects.push(object);
            }
            if from.is_none() && full {
                listing.next = last.clone();
            }
        }
        Ok(listing)
    }

    async fn page(
        &self,
        bucket: &str,
        start: &[u8],
        end: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Listed>, DiskError> {
        let rows: Vec<(Vec<u8>, i64, String, i64)> = sqlx::query_as(
            "SELECT key, bytes, etag, modified FROM objects \
             WHERE bucket = ?1 AND key >= ?2 AND (?3 IS NULL OR key < ?3) ORDER BY key LIMIT ?4",
        )
        .bind(bucket)
        .bind(start)
        .bind(end)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.readers)
        .await?;
        let listed = |(key, bytes, etag, modified)| Listed {
            key: text(key),
            bytes: length(bytes),
            etag,
            modified: UnixMillis(modified),
        };
        Ok(rows.into_iter().map(listed).collect())
    }
}

/// The least byte string above every one that starts with `prefix`.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut next = prefix.to_vec();
    while let Some(last) = next.pop() {
        if last < u8::MAX {
            next.push(last + 1);
            return Some(next);
        }
    }
    None
}

/// Lengths are written from `u64` below 2^63 and never negative.
fn length(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn attributes(json: &str) -> Attributes {
    serde_json::from_str(json).unwrap_or_default()
}

/// Keys are written from text.
fn text(key: Vec<u8>) -> String {
    String::from_utf8(key).unwrap_or_default()
}
