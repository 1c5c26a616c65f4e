//! Changes. Whoever finds the writer free commits everything that waits, so that many small
//! objects share one sync.

use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use longhaul_protocol::value::UnixMillis;
use tokio::sync::oneshot;

use super::apply::apply;
use super::files::{Blob, Content, Incoming};
use super::index::Index;
use super::{Attributes, DiskError, DiskStore};

/// Changes in one commit at the most.
const GROUP: usize = 256;

/// What became of a write.
#[derive(Clone, Debug)]
pub struct Written {
    /// The ETag, without quotes.
    pub etag: String,
    /// Length in bytes.
    pub bytes: u64,
}

/// What becomes an object.
pub(super) struct Put {
    pub bucket: String,
    pub key: String,
    pub etag: String,
    pub bytes: u64,
    pub attributes: Attributes,
    pub content: Content,
    pub now: UnixMillis,
    /// Only if there is no such object yet.
    pub only_new: bool,
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
    Put(Put),
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
    pub etag: String,
    pub bytes: u64,
    pub unnamed: Vec<String>,
}

pub(super) type Answer = Result<Done, DiskError>;

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
        self.change(Change::Put(Put {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            etag,
            bytes,
            attributes,
            content: incoming.into_content(),
            now,
            only_new,
        }))
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
            Change::Put(Put {
                content: Content::Blob(blob),
                ..
            })
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
