//! A get: objects come back from the box, in ranges, compared with its checksums, and are put in
//! their place by a rename, so that nobody sees half a file.

mod fetch;
mod part_file;
mod place;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt as _};
use longhaul_protocol::ids::{BoxId, ObjectKey};
use longhaul_protocol::value::Digest32;
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::client::BoxClient;
use crate::list;
use crate::progress::Progress;
use crate::push::SendError;
use crate::remote;
use crate::report::FailedFile;
use crate::retry::{Patience, S3Error};

pub(crate) use part_file::{PART_PREFIX, PART_SUFFIXES};

/// How to get.
#[derive(Clone, Debug)]
pub struct GetOptions {
    /// Files at once.
    pub files_at_once: usize,
    /// Ranges of all files at once.
    pub ranges_at_once: usize,
    /// Bytes in a range; a get that continues an earlier one needs the same.
    pub range_bytes: u64,
    /// How long to keep trying while the box does not answer.
    pub patience: Duration,
}

impl Default for GetOptions {
    fn default() -> Self {
        Self {
            files_at_once: 8,
            ranges_at_once: 8,
            range_bytes: 8 * 1024 * 1024,
            patience: Duration::from_mins(5),
        }
    }
}

/// Why a get ended before it had tried every object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// Nothing of that name is on the box.
    #[error("the box holds neither object {what:?} nor anything below {what:?}")]
    Absent {
        /// What was asked for.
        what: String,
    },
    /// The box does not say what it holds.
    #[error("the box does not say what it holds")]
    List(#[from] S3Error),
    /// What the box answered would be its answer to every object.
    #[error("the get stopped at {key}: {source}")]
    Stopped {
        /// The object that failed.
        key: ObjectKey,
        /// The answer.
        source: S3Error,
        /// What was achieved before.
        report: Box<GetReport>,
    },
}

/// What one get achieved.
#[derive(Clone, Debug, Serialize)]
pub struct GetReport {
    /// The box that it came from.
    pub box_id: BoxId,
    /// Where the box was found.
    pub address: String,
    /// The bucket.
    pub bucket: String,
    /// Files that are here, by key.
    pub files: Vec<GotFile>,
    /// Objects that are not.
    pub failed: Vec<FailedFile>,
    /// Bytes of `files`.
    pub bytes: u64,
    /// Bytes of `files` that came this time; the rest was here already.
    pub bytes_received: u64,
    /// Requests that had to be sent again.
    pub retries: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl GetReport {
    /// Whether nothing failed.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty()
    }
}

/// A file that is here, whole.
#[derive(Clone, Debug, Serialize)]
pub struct GotFile {
    /// The object.
    pub key: ObjectKey,
    /// Where it was put.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of its bytes, where it was computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blake3: Option<Digest32>,
    /// What proves that the bytes are the box's.
    pub verified_by: VerifiedBy,
    /// How it came here.
    pub outcome: GetOutcome,
}

/// What was compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifiedBy {
    /// BLAKE3 of all bytes.
    Blake3,
    /// CRC-64/NVME of all bytes.
    Crc64nvme,
    /// The length alone: the box knows no checksum of this object.
    Length,
}

/// How a file came here.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GetOutcome {
    /// All of it was fetched.
    Fetched,
    /// An earlier get had fetched some of its ranges.
    Resumed,
    /// It was here, with the same bytes.
    AlreadyThere,
}

/// An object and the place where it goes.
#[derive(Clone, Debug)]
struct Wanted {
    key: ObjectKey,
    size: u64,
    inner: PathBuf,
}

/// Fetches `what` from the box: the object of that key into the file or folder `to`, or everything
/// below that prefix into the folder `to`. The empty text is the whole bucket.
///
/// Dropping the future stops it; the next get to the same place continues.
///
/// # Errors
///
/// [`GetError`]. A single object that fails is in the report, not an error.
pub async fn get(
    client: &BoxClient,
    what: &str,
    to: &Path,
    options: &GetOptions,
    progress: &Arc<Progress>,
) -> Result<GetReport, GetError> {
    let began = Instant::now();
    let mut failed = Vec::new();
    let (root, wanted) = plan(client, what, to, options, progress, &mut failed).await?;
    progress.planned(wanted.len() as u64, wanted.iter().map(|w| w.size).sum());
    let getter = Getter {
        client,
        options,
        progress: Arc::clone(progress),
        root,
        ranges: Semaphore::new(options.ranges_at_once.max(1)),
    };
    let mut report = GetReport {
        box_id: client.ticket().box_id.clone(),
        address: client.endpoint().addr.to_string(),
        bucket: client.ticket().bucket.clone(),
        files: Vec::with_capacity(wanted.len()),
        failed,
        bytes: 0,
        bytes_received: 0,
        retries: 0,
        seconds: 0.0,
    };
    let stopped = getter.get_all(&wanted, &mut report).await;
    report.files.sort_by(|a, b| a.key.cmp(&b.key));
    report.bytes = report.files.iter().map(|f| f.size).sum();
    report.retries = progress.snapshot().retries;
    report.seconds = began.elapsed().as_secs_f64();
    match stopped {
        None => Ok(report),
        Some((key, source)) => Err(GetError::Stopped {
            key,
            source,
            report: Box::new(report),
        }),
    }
}

/// The folder that everything goes into, and what goes there.
async fn plan(
    client: &BoxClient,
    what: &str,
    to: &Path,
    options: &GetOptions,
    progress: &Progress,
    failed: &mut Vec<FailedFile>,
) -> Result<(PathBuf, Vec<Wanted>), GetError> {
    let patience = Patience::for_bytes(options.patience, 0);
    if !what.is_empty()
        && !what.ends_with('/')
        && let Ok(key) = what.parse::<ObjectKey>()
        && let Some(held) = remote::head(client, what, patience, progress).await?
    {
        let (root, inner) = one_place(&key, to);
        let wanted = Wanted {
            key,
            size: held.size,
            inner,
        };
        return Ok((root, vec![wanted]));
    }
    let prefix = match what {
        "" => String::new(),
        folder if folder.ends_with('/') => folder.to_owned(),
        folder => format!("{folder}/"),
    };
    let listed = list::list(client, &prefix, patience, progress).await?;
    if listed.is_empty() && !prefix.is_empty() {
        return Err(GetError::Absent {
            what: what.to_owned(),
        });
    }
    let mut wanted = Vec::with_capacity(listed.len());
    for object in listed {
        // A key that ends with a slash is a folder's marker: the folder comes with its files.
        if object.key.ends_with('/') {
            continue;
        }
        let Ok(key) = object.key.parse::<ObjectKey>() else {
            tracing::warn!(key = %object.key, "not fetched: its name is no path");
            continue;
        };
        match place::below(&key, &prefix) {
            Some(inner) => wanted.push(Wanted {
                key,
                size: object.size,
                inner,
            }),
            None => failed.push(FailedFile {
                path: to.to_owned(),
                key,
                reason: "its name is no path below the folder".to_owned(),
            }),
        }
    }
    Ok((to.to_owned(), wanted))
}

/// Where one object goes: into the folder `to`, or to the file `to`.
fn one_place(key: &ObjectKey, to: &Path) -> (PathBuf, PathBuf) {
    let name = key.as_str().rsplit('/').next().unwrap_or(key.as_str());
    let folder = to.as_os_str().is_empty()
        || to.as_os_str().as_encoded_bytes().ends_with(b"/")
        || to.is_dir();
    match (to.parent(), to.file_name()) {
        (Some(parent), Some(file)) if !folder => {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            (parent.to_owned(), PathBuf::from(file))
        }
        _ if to.as_os_str().is_empty() => (PathBuf::from("."), PathBuf::from(name)),
        _ => (to.to_owned(), PathBuf::from(name)),
    }
}

/// Everything that the requests of one get share.
struct Getter<'a> {
    client: &'a BoxClient,
    options: &'a GetOptions,
    progress: Arc<Progress>,
    root: PathBuf,
    ranges: Semaphore,
}

impl Getter<'_> {
    async fn get_all(
        &self,
        wanted: &[Wanted],
        report: &mut GetReport,
    ) -> Option<(ObjectKey, S3Error)> {
        // Owned, so that the whole future can be moved between threads.
        let mut results = stream::iter(wanted.to_vec())
            .map(|wanted| async move {
                let result = self.get_one(&wanted).await;
                (wanted, result)
            })
            .buffer_unordered(self.options.files_at_once.max(1));
        while let Some((wanted, result)) = results.next().await {
            let reason = match result {
                Ok((file, received)) => {
                    self.progress.file_on_box();
                    report.bytes_received += received;
                    report.files.push(file);
                    continue;
                }
                Err(SendError::S3(error)) if error.ends_everything() => {
                    return Some((wanted.key.clone(), error));
                }
                Err(SendError::S3(error)) => error.to_string(),
                Err(SendError::File(reason)) => reason,
            };
            self.progress.file_failed();
            report.failed.push(FailedFile {
                path: self.root.join(&wanted.inner),
                key: wanted.key.clone(),
                reason,
            });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_object_goes_into_a_folder_or_to_a_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let key: ObjectKey = "p/a.txt".parse().expect("a key");
        let pair = |root: &Path, name: &str| (root.to_owned(), PathBuf::from(name));

        assert_eq!(one_place(&key, dir.path()), pair(dir.path(), "a.txt"));
        let named = dir.path().join("b");
        assert_eq!(one_place(&key, &named), pair(dir.path(), "b"));
        assert_eq!(
            one_place(&key, Path::new("new/")),
            pair(Path::new("new/"), "a.txt")
        );
        assert_eq!(
            one_place(&key, Path::new("")),
            pair(Path::new("."), "a.txt")
        );
        assert_eq!(one_place(&key, Path::new("b")), pair(Path::new("."), "b"));
    }
}
