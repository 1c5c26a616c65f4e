//! Blobs: files with random names, written once, synced, and then named by the index.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio_util::io::ReaderStream;

use super::{DiskError, INLINE_BYTES};

/// Blobs lie in this many directories, so that none grows huge.
const SHARDS: u16 = 256;
/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;

/// A blob that the index can name: it is on disk.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Its file's name.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Content that has arrived: short enough for the index, or in a file.
#[derive(Debug)]
pub enum Content {
    /// The bytes themselves.
    Inline(Vec<u8>),
    /// A synced file.
    Blob(Blob),
}

/// What has arrived, and its digest.
#[derive(Debug)]
pub struct Incoming {
    pub(super) content: Content,
    pub(super) bytes: u64,
    /// BLAKE3 of the bytes.
    pub digest: blake3::Hash,
    guard: Option<Unnamed>,
}

impl Incoming {
    /// Gives up the guard: from here on, the index decides whether the blob stays.
    pub(super) fn into_content(mut self) -> Content {
        if let Some(mut guard) = self.guard.take() {
            guard.path = None;
        }
        self.content
    }
}

/// Removes a file that never got a name in the index.
#[derive(Debug)]
struct Unnamed {
    path: Option<PathBuf>,
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Left over at worst until the next start sweeps.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The directory of blobs.
#[derive(Clone, Debug)]
pub struct Files {
    dir: Arc<PathBuf>,
}

impl Files {
    pub async fn open(dir: &Path) -> Result<Self, DiskError> {
        for shard in 0..SHARDS {
            let path = dir.join(format!("{shard:02x}"));
            tokio::fs::create_dir_all(&path)
                .await
                .map_err(failed("make", &path))?;
        }
        sync_dir(dir).await?;
        Ok(Self {
            dir: Arc::new(dir.to_owned()),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(&name[..2]).join(name)
    }

    /// Takes in a body; `observe` sees every byte.
    pub async fn receive<S, E>(
        &self,
        body: S,
        mut observe: impl FnMut(&[u8]) + Send,
        inline: bool,
    ) -> Result<Incoming, DiskError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut body = std::pin::pin!(body);
        let mut hasher = blake3::Hasher::new();
        let mut small = Vec::new();
        let mut file: Option<(File, String, Unnamed)> = None;
        let mut bytes = 0_u64;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|e| DiskError::Body(e.into()))?;
            hasher.update(&chunk);
            observe(&chunk);
            bytes += chunk.len() as u64;
            match &mut file {
                Some((file, name, _)) => {
                    file.write_all(&chunk)
                        .await
                        .map_err(failed("write", &self.path(name)))?;
                }
                None if inline && small.len() + chunk.len() <= INLINE_BYTES => {
                    small.extend_from_slice(&chunk);
                }
                None => {
                    let (mut new, name, guard) = self.create().await?;
                    let path = self.path(&name);
                    new.write_all(&small)
                        .await
                        .map_err(failed("write", &path))?;
                    new.write_all(&chunk)
                        .await
                        .map_err(failed("write", &path))?;
                    small = Vec::new();
                    file = Some((new, name, guard));
                }
            }
        }
        if file.is_none() && !inline {
            file = Some(self.create().await?);
        }
        let digest = hasher.finalize();
        let Some((mut file, name, guard)) = file else {
            return Ok(Incoming {
                content: Content::Inline(small),
                bytes,
                digest,
                guard: None,
            });
        };
        let path = self.path(&name);
        file.flush().await.map_err(failed("write", &path))?;
        file.sync_data().await.map_err(failed("sync", &path))?;
        sync_dir(path.parent().unwrap_or(&self.dir)).await?;
        Ok(Incoming {
            content: Content::Blob(Blob { name, bytes }),
            bytes,
            digest,
            guard: Some(guard),
        })
    }

    async fn create(&self) -> Result<(File, String, Unnamed), DiskError> {
        let name = uuid::Uuid::new_v4().simple().to_string();
        let path = self.path(&name);
        let file = File::create_new(&path)
            .await
            .map_err(failed("make", &path))?;
        let guard = Unnamed { path: Some(path) };
        Ok((file, name, guard))
    }

    /// Removes blobs that the index no longer names.
    pub async fn remove(&self, names: &[String]) {
        for name in names {
            let path = self.path(name);
            if let Err(error) = tokio::fs::remove_file(&path).await {
                // Harmless: the next start sweeps.
                tracing::warn!(path = %path.display(), %error, "failed to remove a blob");
            }
        }
    }

    /// Removes every file that is not in `named`; only while nobody writes.
    pub async fn sweep(&self, named: HashSet<String>) -> Result<usize, DiskError> {
        let mut removed = 0;
        for shard in 0..SHARDS {
            let dir = self.dir.join(format!("{shard:02x}"));
            let mut entries = tokio::fs::read_dir(&dir)
                .await
                .map_err(failed("list", &dir))?;
            while let Some(entry) = entries.next_entry().await.map_err(failed("list", &dir))? {
                let known = entry
                    .file_name()
                    .to_str()
                    .is_some_and(|n| named.contains(n));
                if !known {
                    let path = entry.path();
                    tokio::fs::remove_file(&path)
                        .await
                        .map_err(failed("remove", &path))?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// Streams `length` bytes from `start` on of content that is inline or in pieces.
    pub fn stream(
        &self,
        inline: Option<Vec<u8>>,
        pieces: &[Blob],
        start: u64,
        length: u64,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
        let inline = inline.map(|data| {
            let clamp = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(data.len());
            let (from, to) = (clamp(start), clamp(start.saturating_add(length)));
            Ok(Bytes::from(data).slice(from..to))
        });
        let end = start.saturating_add(length);
        let mut at = 0_u64;
        let mut spans = Vec::new();
        for piece in pieces {
            let (from, to) = (at.max(start), (at + piece.bytes).min(end));
            if from < to {
                spans.push((self.path(&piece.name), from - at, to - from));
            }
            at += piece.bytes;
        }
        let read = futures::stream::iter(spans)
            .then(|(path, offset, length)| async move {
                let mut file = File::open(&path).await?;
                file.seek(io::SeekFrom::Start(offset)).await?;
                Ok::<_, io::Error>(exactly(file, length))
            })
            .try_flatten();
        futures::stream::iter(inline).chain(read)
    }
}

/// Reads `length` bytes; fewer are an error, so that a damaged blob never looks like a short object.
fn exactly(file: File, length: u64) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let mut left = length;
    ReaderStream::with_capacity(file.take(length), READ_BYTES)
        .map(Some)
        .chain(futures::stream::iter([None]))
        .map(move |chunk| match chunk {
            Some(Ok(bytes)) => {
                left = left.saturating_sub(bytes.len() as u64);
                Ok(bytes)
            }
            Some(Err(error)) => Err(error),
            None if left == 0 => Ok(Bytes::new()),
            None => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "a blob is shorter than the index says",
            )),
        })
        .try_filter(|bytes| futures::future::ready(!bytes.is_empty()))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError + use<> {
    let path = path.to_owned();
    move |source| DiskError::File { what, path, source }
}

async fn sync_dir(dir: &Path) -> Result<(), DiskError> {
    let sync = async { File::open(dir).await?.sync_all().await };
    sync.await.map_err(failed("sync", dir))
}
