//! The cloud's repository of releases, as TUF reads it: nothing in it is believed unsigned.

use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream;
use longhaul_protocol::enrol::TUF_PATH;
use longhaul_protocol::release::Assignment;
use longhaul_protocol::value::Digest32;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tough::error::Error as TufError;
use tough::{
    RepositoryLoader, TargetName, Transport, TransportError, TransportErrorKind, TransportStream,
};
use url::Url;

use crate::cloud::{CloudClient, CloudError, chain};
use crate::disk::{self, DiskError};

/// The longest metadata file, in bytes.
const MAX_METADATA: usize = 4 * 1024 * 1024;
/// Never asked: the transport takes the path, and the cloud's address from the box's papers.
const BASE: &str = "https://repository.invalid/";
/// The newest root that was verified.
const NEWEST_ROOT: &str = "root.json";
/// What is remembered of the metadata that were seen, so that older ones are refused.
const MEMORY: [&str; 5] = [
    NEWEST_ROOT,
    "latest_known_time.json",
    "timestamp.json",
    "snapshot.json",
    "targets.json",
];

/// Fetches metadata from the cloud.
#[derive(Clone)]
struct CloudTransport(CloudClient);

impl std::fmt::Debug for CloudTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CloudTransport")
    }
}

#[async_trait]
impl Transport for CloudTransport {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let failed = |error: CloudError| {
            let kind = match &error {
                CloudError::Refused { problem, .. } if problem.status == 404 => {
                    TransportErrorKind::FileNotFound
                }
                _ => TransportErrorKind::Other,
            };
            TransportError::new_with_cause(kind, url.as_str(), error)
        };
        let path = format!("{TUF_PATH}{}", url.path());
        let mut response = self.0.stream(&path, 0).await.map_err(failed)?;
        let mut bytes = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if bytes.len() + chunk.len() <= MAX_METADATA => {
                    bytes.extend_from_slice(&chunk);
                }
                Ok(Some(_)) => return Err(failed(CloudError::TooLong { path })),
                Ok(None) => break,
                Err(source) => return Err(failed(CloudError::Cut { path, source })),
            }
        }
        let whole = Ok(Bytes::from(bytes));
        Ok(Box::pin(stream::once(std::future::ready(whole))))
    }
}

/// What the signed metadata say about a target.
#[derive(Debug)]
pub(super) struct Listed {
    pub version: String,
    pub sha256: Digest32,
    pub length: u64,
}

/// Why something was not had.
#[derive(Debug)]
pub(super) enum Refused {
    /// Asking again may help.
    Later(String),
    /// It never will.
    Never(String),
}

impl From<CloudError> for Refused {
    fn from(error: CloudError) -> Self {
        if error.is_retryable() {
            Self::Later(chain(&error))
        } else {
            Self::Never(chain(&error))
        }
    }
}

impl From<DiskError> for Refused {
    fn from(error: DiskError) -> Self {
        Self::Never(chain(&error))
    }
}

/// Where an image lies at the cloud: with its digest in its name, so that a new release never
/// changes what is being fetched.
pub(super) fn target_path(assignment: &Assignment) -> String {
    let name = utf8_percent_encode(&assignment.target, NON_ALPHANUMERIC);
    format!("{TUF_PATH}/targets/{}.{name}", assignment.sha256)
}

/// Refreshes the metadata from the factory's `root` on and looks `target` up. What was seen is
/// remembered in `memory`.
pub(super) async fn look_up(
    cloud: &CloudClient,
    root: &Path,
    memory: &Path,
    target: &str,
) -> Result<Listed, Refused> {
    // A root that replaced the factory's stays in force, also where the cloud withholds it now.
    let newest = disk::read(&memory.join(NEWEST_ROOT))?;
    let trusted = match newest {
        Some(newest) => Some(newest),
        None => disk::read(root)?,
    };
    let trusted = trusted.ok_or_else(|| {
        Refused::Never(format!(
            "{} is missing: the factory gave this box no root of releases to trust",
            root.display()
        ))
    })?;
    // tough writes its files in place. It works on a copy, so that a power cut tears none of them:
    // of a torn one it would silently forget what it had seen.
    let desk = memory.join("desk");
    clear(&desk)?;
    transfer(memory, &desk)?;
    let url = |folder: &str| {
        Url::parse(&format!("{BASE}{folder}/"))
            .map_err(|_| Refused::Never("the repository has no address".to_owned()))
    };
    let repository = RepositoryLoader::new(&trusted, url("metadata")?, url("targets")?)
        .transport(CloudTransport(cloud.clone()))
        .datastore(&desk)
        .load()
        .await
        .map_err(|error| refused(&error))?;
    transfer(&desk, memory)?;

    let root = &repository.root().signed;
    let unusable = |what: &str| Refused::Never(format!("target {target:?} {what}"));
    if !root.consistent_snapshot {
        return Err(unusable(
            "lies in a repository without digests in its names",
        ));
    }
    let absent = || unusable("is not in the signed metadata");
    let name = TargetName::new(target).map_err(|_| absent())?;
    let targets = &repository.targets().signed.targets;
    let found = targets.get(&name).ok_or_else(absent)?;
    let sha256 = <[u8; 32]>::try_from(found.hashes.sha256.as_ref())
        .map_err(|_| unusable("has no SHA-256 in the signed metadata"))?;
    let version = found.custom.get("version").and_then(|v| v.as_str());
    let version = version.ok_or_else(|| unusable("has no version in the signed metadata"))?;
    Ok(Listed {
        version: version.to_owned(),
        sha256: Digest32(sha256),
        length: found.length,
    })
}

fn clear(desk: &Path) -> Result<(), DiskError> {
    match std::fs::remove_dir_all(desk) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(DiskError::Write {
            path: desk.to_owned(),
            source,
        }),
        _ => disk::make_dir(desk),
    }
}

fn transfer(from: &Path, to: &Path) -> Result<(), DiskError> {
    for name in MEMORY {
        if let Some(bytes) = disk::read(&from.join(name))? {
            disk::write_atomic(&to.join(name), &bytes)?;
        }
    }
    Ok(())
}

fn refused(error: &TufError) -> Refused {
    let text = format!("release metadata refused: {}", chain(error));
    // A file that should be there and is not will not come by asking for it again.
    let later = matches!(error, TufError::Transport { source, .. }
        if source.kind() == TransportErrorKind::Other && retryable(source));
    if later {
        Refused::Later(text)
    } else {
        Refused::Never(text)
    }
}

/// Whether the cloud was not heard. Anything else is what tough found wrong with what it got.
fn retryable(error: &TransportError) -> bool {
    let cause = std::error::Error::source(error).and_then(|e| e.downcast_ref::<CloudError>());
    cause.is_some_and(CloudError::is_retryable)
}
