//! Fetches an image, going on from what is on the disk.

use std::path::{Path, PathBuf};

use http::StatusCode;
use http::header::CONTENT_RANGE;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncSeekExt, AsyncWriteExt, SeekFrom};

use super::repository::Refused;
use crate::cloud::CloudClient;
use crate::disk::DiskError;

/// An image that is being fetched.
pub(super) struct Download {
    path: PathBuf,
    file: File,
    length: u64,
    /// Bytes in the file.
    have: u64,
    /// Bytes that survive a power cut.
    synced: u64,
}

impl Download {
    /// Goes on with the first `synced` bytes of the file, which has `length` bytes when it is
    /// whole. What lies behind them may be torn.
    pub async fn open(path: &Path, synced: u64, length: u64) -> Result<Self, DiskError> {
        let failed = |source| DiskError::Write {
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .await
            .map_err(failed)?;
        let there = file.metadata().await.map_err(failed)?.len();
        let mut download = Self {
            path: path.to_owned(),
            file,
            length,
            have: 0,
            synced: 0,
        };
        download.go_on_at(synced.min(there).min(length)).await?;
        Ok(download)
    }

    /// Bytes that survive a power cut.
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// Whether every byte is there, and survives a power cut.
    pub fn is_whole(&self) -> bool {
        self.synced == self.length
    }

    /// Makes what was received durable.
    pub async fn sync(&mut self) -> Result<(), DiskError> {
        let flushed = self.file.flush().await;
        let synced = match flushed {
            Ok(()) => self.file.sync_all().await,
            Err(error) => Err(error),
        };
        synced.map_err(|e| self.failed(e))?;
        self.synced = self.have;
        Ok(())
    }

    /// Asks the cloud for what is missing.
    pub async fn ask(
        &mut self,
        cloud: &CloudClient,
        path: &str,
    ) -> Result<reqwest::Response, Refused> {
        let response = cloud.stream(path, self.have).await?;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = response.headers().get(CONTENT_RANGE);
            let range = range.and_then(|v| v.to_str().ok()).unwrap_or_default();
            let wanted = format!("bytes {}-", self.have);
            if !range.starts_with(&wanted) {
                let text = format!("{path} answered with {range:?}, asked was {wanted}");
                return Err(Refused::Never(text));
            }
        } else if self.have > 0 {
            // Somebody on the way knows no ranges.
            self.go_on_at(0).await?;
        }
        let offered = response.content_length().unwrap_or(0);
        if self.have.saturating_add(offered) > self.length {
            return Err(self.too_long(path));
        }
        Ok(response)
    }

    /// Takes in what came. More than the signed length never comes to the disk.
    pub async fn take(&mut self, path: &str, chunk: &[u8]) -> Result<(), Refused> {
        let have = self.have.saturating_add(chunk.len() as u64);
        if have > self.length {
            return Err(self.too_long(path));
        }
        let written = self.file.write_all(chunk).await;
        written.map_err(|e| self.failed(e))?;
        self.have = have;
        Ok(())
    }

    /// Bytes that a power cut would lose.
    pub fn unsynced(&self) -> u64 {
        self.have - self.synced
    }

    async fn go_on_at(&mut self, have: u64) -> Result<(), DiskError> {
        let moved = match self.file.set_len(have).await {
            Ok(()) => self.file.seek(SeekFrom::Start(have)).await.map(drop),
            Err(error) => Err(error),
        };
        moved.map_err(|e| self.failed(e))?;
        self.have = have;
        self.synced = have;
        Ok(())
    }

    fn too_long(&self, path: &str) -> Refused {
        Refused::Never(format!(
            "{path} is longer than the {} bytes that were signed",
            self.length
        ))
    }

    fn failed(&self, source: std::io::Error) -> DiskError {
        DiskError::Write {
            path: self.path.clone(),
            source,
        }
    }
}
