//! The statements behind each change; all run in the transaction of their group.

use longhaul_protocol::value::UnixMillis;
use sqlx::{Sqlite, Transaction};

use super::files::{Blob, Content};
use super::write::{Answer, Change, Done, Put};
use super::{Attributes, DiskError};

/// The least length of a part that is not the last (Amazon S3 user guide, "multipart upload limits").
const MIN_PART_BYTES: i64 = 5 * 1024 * 1024;

/// Applies one change. It refuses before it writes anything: the group's transaction goes on.
pub(super) async fn apply(tx: &mut Transaction<'static, Sqlite>, change: Change) -> Answer {
    match change {
        Change::BucketMake { bucket, now } => {
            sqlx::query("INSERT INTO buckets (name, made_at) VALUES (?, ?) ON CONFLICT DO NOTHING")
                .bind(bucket)
                .bind(now.0)
                .execute(&mut **tx)
                .await?;
            Ok(Done::default())
        }
        Change::BucketRemove { bucket } => bucket_remove(tx, bucket).await,
        Change::Put(put) => object_replace(tx, put).await,
        Change::Delete { bucket, key } => {
            bucket_check(tx, &bucket).await?;
            let Some(content) = object_content(tx, &bucket, &key).await? else {
                return Ok(Done::default());
            };
            sqlx::query("DELETE FROM objects WHERE bucket = ? AND key = ?")
                .bind(bucket)
                .bind(key.into_bytes())
                .execute(&mut **tx)
                .await?;
            let unnamed = content_drop(tx, &content).await?;
            Ok(Done {
                unnamed,
                ..Done::default()
            })
        }
        Change::UploadBegin {
            upload,
            bucket,
            key,
            attributes,
            now,
        } => {
            bucket_check(tx, &bucket).await?;
            sqlx::query(
                "INSERT INTO uploads (id, bucket, key, begun, attributes) VALUES (?, ?, ?, ?, ?)",
            )
            .bind(upload)
            .bind(bucket)
            .bind(key.into_bytes())
            .bind(now.0)
            .bind(json(&attributes))
            .execute(&mut **tx)
            .await?;
            Ok(Done::default())
        }
        Change::PartPut {
            upload,
            bucket,
            key,
            number,
            etag,
            blob,
        } => {
            upload_check(tx, &upload, &bucket, &key).await?;
            let unnamed = piece_drop(tx, &upload, number).await?;
            piece_put(tx, &upload, number, &etag, &blob).await?;
            Ok(Done {
                etag,
                bytes: blob.bytes,
                unnamed,
            })
        }
        Change::UploadComplete {
            upload,
            bucket,
            key,
            parts,
            now,
        } => upload_complete(tx, upload, bucket, key, parts, now).await,
        Change::UploadAbort {
            upload,
            bucket,
            key,
        } => {
            upload_check(tx, &upload, &bucket, &key).await?;
            upload_forget(tx, &upload).await?;
            let unnamed = content_drop(tx, &upload).await?;
            Ok(Done {
                unnamed,
                ..Done::default()
            })
        }
    }
}

async fn object_replace(tx: &mut Transaction<'static, Sqlite>, put: Put) -> Answer {
    let Put {
        bucket,
        key,
        etag,
        bytes,
        attributes,
        content,
        now,
        only_new,
    } = put;
    let name = uuid::Uuid::new_v4().simple().to_string();
    let attributes = json(&attributes);
    let unnamed = if object_add(tx, &bucket, &key, bytes, &etag, now, &attributes, &name).await? {
        vec![]
    } else {
        bucket_check(tx, &bucket).await?;
        if only_new {
            return Err(DiskError::Condition(key));
        }
        let unnamed = match object_content(tx, &bucket, &key).await? {
            Some(old) => content_drop(tx, &old).await?,
            None => vec![],
        };
        object_put(tx, &bucket, &key, bytes, &etag, now, &attributes, &name).await?;
        unnamed
    };
    match content {
        Content::Inline(data) => {
            sqlx::query("INSERT INTO inlined (content, data) VALUES (?, ?)")
                .bind(&name)
                .bind(data)
                .execute(&mut **tx)
                .await?;
        }
        Content::Blob(blob) => piece_put(tx, &name, 1, &etag, &blob).await?,
    }
    Ok(Done {
        etag,
        bytes,
        unnamed,
    })
}

async fn bucket_remove(tx: &mut Transaction<'static, Sqlite>, bucket: String) -> Answer {
    bucket_check(tx, &bucket).await?;
    let used: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM objects WHERE bucket = ?1) \
         OR EXISTS (SELECT 1 FROM uploads WHERE bucket = ?1)",
    )
    .bind(&bucket)
    .fetch_one(&mut **tx)
    .await?;
    if used {
        return Err(DiskError::BucketNotEmpty(bucket));
    }
    sqlx::query("DELETE FROM buckets WHERE name = ?")
        .bind(bucket)
        .execute(&mut **tx)
        .await?;
    Ok(Done::default())
}

async fn upload_complete(
    tx: &mut Transaction<'static, Sqlite>,
    upload: String,
    bucket: String,
    key: String,
    parts: Vec<(u32, String)>,
    now: UnixMillis,
) -> Answer {
    let attributes = upload_check(tx, &upload, &bucket, &key).await?;
    let there: Vec<(i64, i64, String)> =
        sqlx::query_as("SELECT number, bytes, etag FROM pieces WHERE content = ? ORDER BY number")
            .bind(&upload)
            .fetch_all(&mut **tx)
            .await?;
    let mut digest = blake3::Hasher::new();
    let mut total = 0_i64;
    for (i, (number, etag)) in parts.iter().enumerate() {
        let found = there
            .binary_search_by_key(&i64::from(*number), |(n, ..)| *n)
            .ok()
            .map(|at| &there[at])
            .filter(|(.., e)| e == etag);
        let Some((_, bytes, etag)) = found else {
            return Err(DiskError::NoPart {
                upload,
                number: *number,
            });
        };
        if i + 1 < parts.len() && *bytes < MIN_PART_BYTES {
            return Err(DiskError::PartTooSmall {
                upload,
                number: *number,
            });
        }
        digest.update(etag.as_bytes());
        total += bytes;
    }
    let mut unnamed = match object_content(tx, &bucket, &key).await? {
        Some(old) => content_drop(tx, &old).await?,
        None => vec![],
    };
    for (number, ..) in &there {
        let number = u32::try_from(*number).unwrap_or(0);
        if !parts.iter().any(|(n, _)| *n == number) {
            unnamed.extend(piece_drop(tx, &upload, number).await?);
        }
    }
    let etag = format!("{}-{}", &digest.finalize().to_hex()[..32], parts.len());
    let bytes = u64::try_from(total).unwrap_or(0);
    object_put(tx, &bucket, &key, bytes, &etag, now, &attributes, &upload).await?;
    upload_forget(tx, &upload).await?;
    Ok(Done {
        etag,
        bytes,
        unnamed,
    })
}

async fn bucket_check(
    tx: &mut Transaction<'static, Sqlite>,
    bucket: &str,
) -> Result<(), DiskError> {
    sqlx::query("SELECT 1 FROM buckets WHERE name = ?")
        .bind(bucket)
        .fetch_optional(&mut **tx)
        .await?
        .map(|_| ())
        .ok_or_else(|| DiskError::NoBucket(bucket.to_owned()))
}

async fn upload_check(
    tx: &mut Transaction<'static, Sqlite>,
    upload: &str,
    bucket: &str,
    key: &str,
) -> Result<String, DiskError> {
    sqlx::query_scalar("SELECT attributes FROM uploads WHERE id = ? AND bucket = ? AND key = ?")
        .bind(upload)
        .bind(bucket)
        .bind(key.as_bytes())
        .fetch_optional(&mut **tx)
        .await?
        .ok_or_else(|| DiskError::NoUpload(upload.to_owned()))
}

async fn upload_forget(
    tx: &mut Transaction<'static, Sqlite>,
    upload: &str,
) -> Result<(), DiskError> {
    sqlx::query("DELETE FROM uploads WHERE id = ?")
        .bind(upload)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn object_content(
    tx: &mut Transaction<'static, Sqlite>,
    bucket: &str,
    key: &str,
) -> Result<Option<String>, DiskError> {
    Ok(
        sqlx::query_scalar("SELECT content FROM objects WHERE bucket = ? AND key = ?")
            .bind(bucket)
            .bind(key.as_bytes())
            .fetch_optional(&mut **tx)
            .await?,
    )
}

/// Writes an object down in one statement if it is new and its bucket exists; most are and do.
#[expect(clippy::too_many_arguments, reason = "one per column")]
async fn object_add(
    tx: &mut Transaction<'static, Sqlite>,
    bucket: &str,
    key: &str,
    bytes: u64,
    etag: &str,
    now: UnixMillis,
    attributes: &str,
    content: &str,
) -> Result<bool, DiskError> {
    let added = sqlx::query(
        "INSERT INTO objects (bucket, key, bytes, etag, modified, attributes, content) \
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE EXISTS (SELECT 1 FROM buckets WHERE name = ?1) \
         ON CONFLICT (bucket, key) DO NOTHING",
    )
    .bind(bucket)
    .bind(key.as_bytes())
    .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
    .bind(etag)
    .bind(now.0)
    .bind(attributes)
    .bind(content)
    .execute(&mut **tx)
    .await?;
    Ok(added.rows_affected() == 1)
}

#[expect(clippy::too_many_arguments, reason = "one per column")]
async fn object_put(
    tx: &mut Transaction<'static, Sqlite>,
    bucket: &str,
    key: &str,
    bytes: u64,
    etag: &str,
    now: UnixMillis,
    attributes: &str,
    content: &str,
) -> Result<(), DiskError> {
    sqlx::query(
        "INSERT INTO objects (bucket, key, bytes, etag, modified, attributes, content) \
         VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (bucket, key) DO UPDATE SET \
         bytes = excluded.bytes, etag = excluded.etag, modified = excluded.modified, \
         attributes = excluded.attributes, content = excluded.content",
    )
    .bind(bucket)
    .bind(key.as_bytes())
    .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
    .bind(etag)
    .bind(now.0)
    .bind(attributes)
    .bind(content)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Forgets content; yields its blobs.
async fn content_drop(
    tx: &mut Transaction<'static, Sqlite>,
    content: &str,
) -> Result<Vec<String>, DiskError> {
    sqlx::query("DELETE FROM inlined WHERE content = ?")
        .bind(content)
        .execute(&mut **tx)
        .await?;
    Ok(
        sqlx::query_scalar("DELETE FROM pieces WHERE content = ? RETURNING blob")
            .bind(content)
            .fetch_all(&mut **tx)
            .await?,
    )
}

async fn piece_drop(
    tx: &mut Transaction<'static, Sqlite>,
    content: &str,
    number: u32,
) -> Result<Vec<String>, DiskError> {
    Ok(
        sqlx::query_scalar("DELETE FROM pieces WHERE content = ? AND number = ? RETURNING blob")
            .bind(content)
            .bind(i64::from(number))
            .fetch_all(&mut **tx)
            .await?,
    )
}

async fn piece_put(
    tx: &mut Transaction<'static, Sqlite>,
    content: &str,
    number: u32,
    etag: &str,
    blob: &Blob,
) -> Result<(), DiskError> {
    sqlx::query("INSERT INTO pieces (content, number, blob, bytes, etag) VALUES (?, ?, ?, ?, ?)")
        .bind(content)
        .bind(i64::from(number))
        .bind(&blob.name)
        .bind(i64::try_from(blob.bytes).unwrap_or(i64::MAX))
        .bind(etag)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Text to text always has a JSON form.
fn json(attributes: &Attributes) -> String {
    serde_json::to_string(attributes).unwrap_or_else(|_| "{}".to_owned())
}
