//! Changes. Whoever finds the writer free commits everything that waits, so that many small
//! objects share one sync.

use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use longhaul_protocol::value::UnixMillis;
use sqlx::{Sqlite, Transaction};
use tokio::sync::oneshot;

use super::files::{Blob, Content, Incoming};
use super::index::Index;
use super::{Attributes, DiskError, DiskStore};

/// Changes in one commit at the most.
const GROUP: usize = 256;
/// The least length of a part that is not the last (Amazon S3 user guide, "multipart upload limits").
const MIN_PART_BYTES: i64 = 5 * 1024 * 1024;

/// What became of a write.
#[derive(Clone, Debug)]
pub struct Written {
    /// The ETag, without quotes.
    pub etag: String,
    /// Length in bytes.
    pub bytes: u64,
}

/// One change to the index.
pub(super) enum Change {
    BucketMake {
        bucket: String,
        now: UnixMillis,
    },
    BucketRemove {
        bucket: String,
    },
    Put {
        bucket: String,
        key: String,
        etag: String,
        bytes: u64,
        attributes: Attributes,
        content: Content,
        now: UnixMillis,
        /// Only if there is no such object yet.
        only_new: bool,
    },
    Delete {
        bucket: String,
        key: String,
    },
    UploadBegin {
        upload: String,
        bucket: String,
        key: String,
        attributes: Attributes,
        now: UnixMillis,
    },
    PartPut {
        upload: String,
        bucket: String,
        key: String,
        number: u32,
        etag: String,
        blob: Blob,
    },
    UploadComplete {
        upload: String,
        bucket: String,
        key: String,
        parts: Vec<(u32, String)>,
        now: UnixMillis,
    },
    UploadAbort {
        upload: String,
        bucket: String,
        key: String,
    },
}

/// What a change yields, and the blobs that nothing names any more.
#[derive(Debug, Default)]
pub(super) struct Done {
    etag: String,
    bytes: u64,
    unnamed: Vec<String>,
}

type Answer = Result<Done, DiskError>;

/// A change that waits for its commit.
pub struct Waiting {
    change: Change,
    answer: oneshot::Sender<Answer>,
}

impl Index {
    /// Makes `change` durable, together with whatever else waits.
    async fn change(self: &Arc<Self>, change: Change) -> Answer {
        let (answer, mut answered) = oneshot::channel();
        self.waiting.lock().push(Waiting { change, answer });
        let index = self.clone();
        // Its own task: whoever hangs up must not undo the others' changes.
        let turn = tokio::spawn(async move {
            let _turn = index.turn.lock().await;
            let group: Vec<Waiting> = {
                let mut waiting = index.waiting.lock();
                let length = waiting.len().min(GROUP);
                waiting.drain(..length).collect()
            };
            if !group.is_empty() {
                index.commit(group).await;
            }
        });
        let lost = |_| DiskError::Group("the writer ended".to_owned());
        // Every change brings a turn, so there are at least as many turns as groups.
        turn.await.map_err(|e| DiskError::Group(e.to_string()))?;
        if let Ok(answer) = answered.try_recv() {
            return answer;
        }
        answered.await.map_err(lost)?
    }

    async fn commit(&self, group: Vec<Waiting>) {
        let (mut done, mut answers) = (Vec::new(), Vec::new());
        let result: Result<(), sqlx::Error> = async {
            let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
            for waiting in group {
                answers.push(waiting.answer);
                match apply(&mut tx, waiting.change).await {
                    Err(DiskError::Index(error)) => return Err(error),
                    result => done.push(result),
                }
            }
            tx.commit().await
        }
        .await;
        match result {
            Ok(()) => {
                for (answer, result) in answers.into_iter().zip(done) {
                    // The asker may have hung up; its change stays.
                    let _ = answer.send(result);
                }
            }
            Err(error) => {
                for answer in answers {
                    let _ = answer.send(Err(DiskError::Group(error.to_string())));
                }
            }
        }
    }
}

/// Applies one change. It refuses before it writes anything: the group's transaction goes on.
async fn apply(tx: &mut Transaction<'static, Sqlite>, change: Change) -> Answer {
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
        Change::Put {
            bucket,
            key,
            etag,
            bytes,
            attributes,
            content,
            now,
            only_new,
        } => {
            bucket_check(tx, &bucket).await?;
            let old = object_content(tx, &bucket, &key).await?;
            if only_new && old.is_some() {
                return Err(DiskError::Condition(key));
            }
            let unnamed = match &old {
                Some(old) => content_drop(tx, old).await?,
                None => vec![],
            };
            let name = uuid::Uuid::new_v4().simple().to_string();
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
            object_put(
                tx,
                &bucket,
                &key,
                bytes,
                &etag,
                now,
                &json(&attributes),
                &name,
            )
            .await?;
            Ok(Done {
                etag,
                bytes,
                unnamed,
            })
        }
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

impl DiskStore {
    /// Makes a bucket; one that exists stays as it is.
    pub async fn bucket_make(&self, bucket: &str, now: UnixMillis) -> Result<(), DiskError> {
        let bucket = bucket.to_owned();
        self.change(Change::BucketMake { bucket, now }).await?;
        Ok(())
    }

    /// Removes an empty bucket.
    pub async fn bucket_remove(&self, bucket: &str) -> Result<(), DiskError> {
        let bucket = bucket.to_owned();
        self.change(Change::BucketRemove { bucket }).await?;
        Ok(())
    }

    /// Takes in the bytes of an object, without making it one yet; `observe` sees every byte.
    pub async fn receive<S, E>(
        &self,
        body: S,
        observe: impl FnMut(&[u8]) + Send,
    ) -> Result<Incoming, DiskError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.files.receive(body, observe, true).await
    }

    /// Takes in the bytes of a part, which always lie in a file.
    pub async fn receive_part<S, E>(
        &self,
        body: S,
        observe: impl FnMut(&[u8]) + Send,
    ) -> Result<Incoming, DiskError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.files.receive(body, observe, false).await
    }

    /// Makes what has arrived the object `key`.
    pub async fn put(
        &self,
        bucket: &str,
        key: &str,
        incoming: Incoming,
        attributes: Attributes,
        only_new: bool,
        now: UnixMillis,
    ) -> Result<Written, DiskError> {
        let (etag, bytes) = (etag(&incoming), incoming.bytes);
        self.change(Change::Put {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            etag,
            bytes,
            attributes,
            content: incoming.into_content(),
            now,
            only_new,
        })
        .await
    }

    /// Deletes an object; one that is absent is deleted already.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<(), DiskError> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.change(Change::Delete { bucket, key }).await?;
        Ok(())
    }

    /// Begins a multipart upload and yields its name.
    pub async fn upload_begin(
        &self,
        bucket: &str,
        key: &str,
        attributes: Attributes,
        now: UnixMillis,
    ) -> Result<String, DiskError> {
        let upload = uuid::Uuid::new_v4().simple().to_string();
        self.change(Change::UploadBegin {
            upload: upload.clone(),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            attributes,
            now,
        })
        .await?;
        Ok(upload)
    }

    /// Makes what has arrived a part of an upload, in place of an earlier one with its number.
    pub async fn part_put(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
        number: u32,
        incoming: Incoming,
    ) -> Result<Written, DiskError> {
        let etag = etag(&incoming);
        let Content::Blob(blob) = incoming.into_content() else {
            return Err(DiskError::Group("a part arrived without a file".to_owned()));
        };
        self.change(Change::PartPut {
            upload: upload.to_owned(),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            number,
            etag,
            blob,
        })
        .await
    }

    /// Makes an upload's parts, numbers rising, the object.
    pub async fn upload_complete(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
        parts: Vec<(u32, String)>,
        now: UnixMillis,
    ) -> Result<Written, DiskError> {
        self.change(Change::UploadComplete {
            upload: upload.to_owned(),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            parts,
            now,
        })
        .await
    }

    /// Gives an upload up and frees its parts.
    pub async fn upload_abort(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
    ) -> Result<(), DiskError> {
        self.change(Change::UploadAbort {
            upload: upload.to_owned(),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
        })
        .await?;
        Ok(())
    }

    async fn change(&self, change: Change) -> Result<Written, DiskError> {
        let blob = match &change {
            Change::Put {
                content: Content::Blob(blob),
                ..
            }
            | Change::PartPut { blob, .. } => Some(blob.name.clone()),
            _ => None,
        };
        match self.index.change(change).await {
            Ok(done) => {
                self.files.remove(&done.unnamed).await;
                Ok(Written {
                    etag: done.etag,
                    bytes: done.bytes,
                })
            }
            Err(error) => {
                // Refused, so nothing names it. After a failed commit nobody knows: the next
                // start's sweep decides.
                if let (Some(blob), false) = (blob, matches!(error, DiskError::Group(_))) {
                    self.files.remove(&[blob]).await;
                }
                Err(error)
            }
        }
    }
}

/// Never 32 hexadecimal digits alone: clients would take that for an MD5.
fn etag(incoming: &Incoming) -> String {
    format!("{}-1", &incoming.digest.to_hex()[..32])
}
