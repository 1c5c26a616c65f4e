//! A sync: a push that compares with what the box holds, whoever put it there, and, where asked to,
//! removes what is not here.
//!
//! A file is the same where length and time are those that the journal wrote down beside its BLAKE3
//! and the box still holds that object. Where the journal knows nothing, the file is read and its
//! BLAKE3 (or, where the box knows none, its CRC-64) compared with the box's: time alone is never
//! believed.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use futures::stream::{self, StreamExt as _};
use longhaul_protocol::ids::ObjectKey;
use serde::Serialize;
use tokio::task::spawn_blocking;

use crate::client::BoxClient;
use crate::journal::{Done, Origin};
use crate::list::{self, Listed};
use crate::plan::{Plan, Planned, folder_prefix};
use crate::progress::Progress;
use crate::push::{PushError, PushOptions, Sender, planned};
use crate::remote::{self, Held};
use crate::remove::RemoveReport;
use crate::report::PushReport;
use crate::retry::S3Error;
use crate::source::{Crc64, Source};

/// How to sync.
#[derive(Clone, Debug, Default)]
pub struct SyncOptions {
    /// How to send what is not there.
    pub push: PushOptions,
    /// Remove objects below the prefix that no file belongs to.
    pub delete: bool,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Read every file and compare it, also those that the journal knows.
    pub checksum: bool,
}

/// What one sync achieved, or would do.
#[derive(Clone, Debug, Serialize)]
pub struct SyncReport {
    /// What was sent, and what was there already; in a dry run only the latter.
    #[serde(flatten)]
    pub push: PushReport,
    /// What would be sent; only in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_send: Option<Vec<WouldSend>>,
    /// What was removed from the box, or would be in a dry run.
    pub removed: RemoveReport,
    /// Why nothing was removed though it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_removed_because: Option<String>,
}

impl SyncReport {
    /// Whether everything that was asked for was done.
    pub fn is_complete(&self) -> bool {
        self.push.is_complete()
            && self.removed.failed.is_empty()
            && self.not_removed_because.is_none()
    }
}

/// A file that a sync would send.
#[derive(Clone, Debug, Serialize)]
pub struct WouldSend {
    /// Where it is.
    pub path: PathBuf,
    /// The object that it would become.
    pub key: ObjectKey,
    /// Bytes.
    pub size: u64,
    /// Whether the box holds another object of that key.
    pub replaces: bool,
}

/// Makes the box hold what is in `paths`.
///
/// # Errors
///
/// [`PushError`], as a push.
pub async fn sync(
    client: &BoxClient,
    paths: &[PathBuf],
    options: &SyncOptions,
    progress: &Arc<Progress>,
) -> Result<SyncReport, PushError> {
    let began = Instant::now();
    let plan = planned(paths.to_vec(), options.push.prefix.clone()).await?;
    let sender = Sender::new(client, &options.push, progress).await;
    sender.expect(&plan.files);
    let prefix = folder_prefix(&options.push.prefix);
    let listed = list::list(client, &prefix, sender.patience(0), progress).await;
    let mut listed: HashMap<String, Listed> = match listed {
        Ok(listed) => listed.into_iter().map(|l| (l.key.clone(), l)).collect(),
        // The report says that nothing was done.
        Err(error) => {
            let push = sender.run(plan, Err(error), began).await?;
            return Ok(SyncReport::from(push));
        }
    };
    let known = compare(&sender, &plan.files, &listed, options.checksum).await;
    let mut keep: HashSet<String> = plan.files.iter().map(|f| f.key.to_string()).collect();
    let would_send = match (&known, options.dry_run) {
        (Ok(known), true) => Some(would_send(&plan.files, known, &listed)),
        _ => None,
    };
    let plan = match (&known, &would_send) {
        // A dry run goes through the files that are there, and sends nothing for them.
        (Ok(known), Some(_)) => only(plan, known),
        _ => plan,
    };
    let known = match (known, &would_send) {
        (Ok(known), Some(_)) => Ok(renumbered(known)),
        (known, _) => known,
    };
    let mut report = SyncReport::from(sender.run(plan, known, began).await?);
    report.would_send = would_send;
    if !options.delete {
        return Ok(report);
    }
    listed.retain(|key, _| !keep.remove(key));
    let mut spare: Vec<Listed> = listed.into_values().collect();
    spare.sort_by(|a, b| a.key.cmp(&b.key));
    if !report.push.is_complete() {
        report.not_removed_because = Some(
            "not every file arrived: what could not be read may be what would be removed"
                .to_owned(),
        );
    } else if options.dry_run {
        report.removed.removed = spare.into_iter().map(|l| l.key).collect();
    } else {
        match client.remove(&spare, options.push.patience).await {
            Ok(removed) => report.removed = removed,
            Err(error) => report.not_removed_because = Some(error.to_string()),
        }
    }
    Ok(report)
}

impl From<PushReport> for SyncReport {
    /// A sync that did no more than this push.
    fn from(push: PushReport) -> Self {
        Self {
            push,
            would_send: None,
            removed: RemoveReport::default(),
            not_removed_because: None,
        }
    }
}

fn would_send(
    files: &[Planned],
    known: &HashMap<usize, Done>,
    listed: &HashMap<String, Listed>,
) -> Vec<WouldSend> {
    let new = files.iter().enumerate();
    new.filter(|(index, _)| !known.contains_key(index))
        .map(|(_, file)| WouldSend {
            path: file.path.clone(),
            key: file.key.clone(),
            size: file.size(),
            replaces: listed.contains_key(file.key.as_str()),
        })
        .collect()
}

/// The plan's files that are known, in order.
fn only(mut plan: Plan, known: &HashMap<usize, Done>) -> Plan {
    let mut index = 0..;
    plan.files
        .retain(|_| index.next().is_some_and(|i| known.contains_key(&i)));
    plan
}

/// What is known about the files that [`only`] left.
fn renumbered(known: HashMap<usize, Done>) -> HashMap<usize, Done> {
    let mut known: Vec<(usize, Done)> = known.into_iter().collect();
    known.sort_by_key(|(index, _)| *index);
    known
        .into_iter()
        .map(|(_, done)| done)
        .enumerate()
        .collect()
}

/// The files, by their place in the plan, that the box holds.
async fn compare(
    sender: &Sender<'_>,
    files: &[Planned],
    listed: &HashMap<String, Listed>,
    checksum: bool,
) -> Result<HashMap<usize, Done>, S3Error> {
    let mut known = HashMap::new();
    let mut unsure = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let Some(there) = listed.get(file.key.as_str()) else {
            continue;
        };
        if there.size != file.size() {
            continue;
        }
        let origin = Origin::new(&file.path, file.stamp);
        match sender.journal.done(&file.key, &origin) {
            Some(done) if done.etag == there.etag && !checksum => {
                known.insert(index, done);
            }
            _ => unsure.push((index, file.clone())),
        }
    }
    let mut compared = stream::iter(unsure)
        .map(|(index, file)| async move {
            let same = same(sender, &file).await;
            (index, file, same)
        })
        .buffer_unordered(sender.options.files_at_once.max(1));
    while let Some((index, file, same)) = compared.next().await {
        if let Some(done) = same? {
            sender.journal.remember_done(&file.key, done.clone());
            known.insert(index, done);
        }
    }
    Ok(known)
}

/// Whether the box holds the bytes of `file`. A file that cannot be read is left to the push, which
/// reports it.
async fn same(sender: &Sender<'_>, file: &Planned) -> Result<Option<Done>, S3Error> {
    let key = file.key.as_str();
    let held = remote::head(sender.client, key, sender.patience(0), &sender.progress).await?;
    let Some(held) = held.filter(|held| held.size == file.size()) else {
        return Ok(None);
    };
    let path = file.path.clone();
    let read = spawn_blocking(move || -> std::io::Result<Option<(Source, Crc64)>> {
        let mut source = Source::open(&path)?;
        let crc = source.checksum()?;
        Ok((!source.changed(&path)).then_some((source, crc)))
    })
    .await
    .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
    Ok(match read {
        Ok(Some((source, crc))) if agree(&held, &source, crc) => Some(Done {
            origin: Origin::new(&file.path, source.stamp()),
            etag: held.etag,
            blake3: source.blake3(),
        }),
        _ => None,
    })
}

fn agree(held: &Held, source: &Source, crc: Crc64) -> bool {
    match (held.blake3, held.crc) {
        (Some(theirs), _) => theirs == source.blake3(),
        (None, Some(theirs)) => theirs == crc,
        (None, None) => false,
    }
}
