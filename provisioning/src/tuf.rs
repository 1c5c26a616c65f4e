//! Releases: a repository after The Update Framework (TUF 1.0), signed with threshold keys.
//!
//! `metadata/` says what is in `targets/`; boxes trust nothing but a root that they were given at
//! the factory. Three of five root keys and two of three targets keys must agree; they belong in
//! different hands, offline. The snapshot and timestamp keys stay where the repository is kept.

mod keys;

use std::collections::HashMap;
use std::error::Error;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use jiff::Timestamp;
use longhaul_protocol::release::MachineState;
use longhaul_protocol::value::{Digest32, UnixMillis};
use serde::Serialize;
use tough::editor::RepositoryEditor;
use tough::editor::signed::{PathExists, SignedRepository, SignedRole};
use tough::key_source::KeySource;
use tough::schema::{KeyHolder, Root, Target};
use tough::{ExpirationEnforcement, FilesystemTransport, Repository, RepositoryLoader, TargetName};
use url::Url;

use crate::files::{self, FileError};
use keys::{ROOT, SNAPSHOT, TARGETS, TIMESTAMP};

const DAY_MILLIS: i64 = 86_400_000;
/// How long metadata is good for. A box that lay in a crate for longer refreshes first.
const ROOT_DAYS: i64 = 5 * 365;
const TARGETS_DAYS: i64 = 365;
const SNAPSHOT_DAYS: i64 = 90;
const TIMESTAMP_DAYS: i64 = 14;
/// Characters in a version or a target's name.
const MAX_NAME: usize = 128;
/// States of machines that one release may bring.
const MAX_STATES: usize = 64;
/// What they are called in a target's custom metadata.
const STATES: &str = "states";
/// Says which metadata are in force.
const TIMESTAMP_FILE: &str = "timestamp.json";
/// The version of TUF that tough speaks.
const SPEC_VERSION: &str = "1.0.0";

/// Why a repository could not be made, signed or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TufError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Something is there already and is not overwritten.
    #[error("{0} exists already: choose another directory, or use `tuf add` on it")]
    Exists(PathBuf),
    /// There is no repository here.
    #[error("no release repository in {0}: make one with `longhaul-factory tuf init`")]
    Missing(PathBuf),
    /// A signing key is missing or unusable.
    #[error("missing or unusable signing key {0}: it must hold one Ed25519 key (PKCS #8, PEM)")]
    Key(PathBuf),
    /// Not enough keys to sign.
    #[error("{dir} holds {held} {role} keys, {needed} must sign: bring the keys of others")]
    TooFewKeys {
        /// The role.
        role: &'static str,
        /// Keys that were found.
        held: usize,
        /// Keys that must sign.
        needed: u64,
        /// Where they were looked for.
        dir: PathBuf,
    },
    /// A version or target cannot be called so.
    #[error("{0:?} cannot name a release: 1 to 128 letters, digits, '.', '-', '_' and '+'")]
    Name(String),
    /// The target is there with other contents.
    #[error("target {0:?} exists already: a release never changes, choose another name")]
    TargetExists(String),
    /// The version is there already, in another target.
    #[error("version {version:?} exists already, as target {target:?}")]
    VersionExists {
        /// The version.
        version: String,
        /// The target that has it.
        target: String,
    },
    /// A release cannot bring such states.
    #[error("a release brings at most 64 states, each of 1 to 24 PCRs (0 to 23)")]
    States,
    /// The system has no randomness.
    #[error("the system has no randomness")]
    Randomness,
    /// A date is out of range.
    #[error("the clock shows an impossible date")]
    Date,
    /// A directory has no URL.
    #[error("{0} is not a usable path")]
    Path(PathBuf),
    /// Signing failed.
    #[error("failed to sign: {0}")]
    Sign(#[source] Box<dyn Error + Send + Sync>),
    /// The repository is broken, or was altered, or has expired.
    #[error("the release repository in {dir} is not acceptable")]
    Repository {
        /// Which repository.
        dir: PathBuf,
        /// What is wrong with it.
        source: Box<tough::error::Error>,
    },
}

/// A release in a repository.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Release {
    /// The target's name.
    pub target: String,
    /// The release's version, from the target's custom metadata.
    pub version: Option<String>,
    /// SHA-256 of the target.
    pub sha256: Digest32,
    /// Length of the target in bytes.
    pub length: u64,
    /// States that machines are in once they run it, where they differ from what the factory saw.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<MachineState>,
}

/// A repository whose signatures were verified.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Contents {
    /// The releases, in the order of their targets' names.
    pub releases: Vec<Release>,
    /// When the root metadata expire.
    pub root_expires: UnixMillis,
    /// When the targets metadata expire.
    pub targets_expires: UnixMillis,
    /// When the snapshot expires.
    pub snapshot_expires: UnixMillis,
    /// When the timestamp expires; `longhaul-factory tuf refresh` signs it again.
    pub timestamp_expires: UnixMillis,
}

/// The root metadata of a repository: what a box is given to trust. `None` if there are none.
pub fn trusted_root(repository: &Path) -> Result<Option<Vec<u8>>, TufError> {
    Ok(files::read(&root_path(repository))?)
}

/// Makes keys in the new directory `keys` and an empty repository in the new directory
/// `repository`.
pub async fn init(keys: &Path, repository: &Path, now: UnixMillis) -> Result<(), TufError> {
    for dir in [keys, &repository.join("metadata")] {
        if dir.exists() {
            return Err(TufError::Exists(dir.to_owned()));
        }
    }
    files::make_dir(keys)?;
    let mut root = Root {
        spec_version: SPEC_VERSION.to_owned(),
        consistent_snapshot: true,
        version: NonZeroU64::MIN,
        expires: after(now, ROOT_DAYS)?,
        keys: HashMap::new(),
        roles: HashMap::new(),
        _extra: HashMap::new(),
    };
    for role in [ROOT, TARGETS, SNAPSHOT, TIMESTAMP] {
        role.generate(keys)?;
        role.enter(keys, &mut root).await?;
    }
    let holder = KeyHolder::Root(root.clone());
    let signed = SignedRole::new(root, &holder, &ROOT.held(keys)?, &SystemRandom::new())
        .await
        .map_err(|e| TufError::Sign(Box::new(e)))?;
    files::make_dir(&repository.join("metadata"))?;
    files::make_dir(&repository.join("targets"))?;
    files::write(&root_path(repository), signed.buffer())?;
    let editor = RepositoryEditor::new(root_path(repository))
        .await
        .map_err(|e| broken(repository, e))?;
    let first = NonZeroU64::MIN;
    let versions = Versions {
        targets: first,
        snapshot: first,
        timestamp: first,
    };
    let signed = sign(editor, keys, repository, &versions, now).await?;
    write(&signed, repository).await
}

/// Adds `file` as a release of this `version`, called `target`, that brings machines into these
/// `states`. Adding the same again is no error.
pub async fn add(
    keys: &Path,
    repository: &Path,
    file: &Path,
    target: &str,
    version: &str,
    states: &[MachineState],
    now: UnixMillis,
) -> Result<Release, TufError> {
    for name in [target, version] {
        let fits = (1..=MAX_NAME).contains(&name.len())
            && !name.starts_with('.')
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.+".contains(&b));
        if !fits {
            return Err(TufError::Name(name.chars().take(MAX_NAME).collect()));
        }
    }
    let sound = |state: &MachineState| {
        (1..=24).contains(&state.pcrs.len()) && state.pcrs.keys().all(|pcr| *pcr < 24)
    };
    if states.len() > MAX_STATES || !states.iter().all(sound) {
        return Err(TufError::States);
    }
    let opened = open(repository).await?;
    let failed = |e| broken(repository, e);
    let mut entry = Target::from_path(file)
        .await
        .map_err(|e| TufError::Sign(Box::new(e)))?;
    entry.custom.insert("version".to_owned(), version.into());
    if !states.is_empty() {
        let states = serde_json::to_value(states).map_err(|e| TufError::Sign(Box::new(e)))?;
        entry.custom.insert(STATES.to_owned(), states);
    }
    let release = release(target, &entry);
    let there = contents(&opened).releases;
    if there.contains(&release) {
        return Ok(release);
    }
    if there.iter().any(|r| r.target == target) {
        return Err(TufError::TargetExists(target.to_owned()));
    }
    if let Some(other) = there.iter().find(|r| r.version == release.version) {
        return Err(TufError::VersionExists {
            version: version.to_owned(),
            target: other.target.clone(),
        });
    }

    let versions = Versions::after(&opened, true);
    let mut editor = RepositoryEditor::from_repo(root_path(repository), opened)
        .await
        .map_err(failed)?;
    editor.add_target(target, entry).map_err(failed)?;
    let signed = sign(editor, keys, repository, &versions, now).await?;
    let name = TargetName::new(target).map_err(failed)?;
    // The file before the metadata that name it: a box never sees a release that is not there.
    signed
        .copy_target(
            file,
            &repository.join("targets"),
            PathExists::Skip,
            Some(&name),
        )
        .await
        .map_err(failed)?;
    write(&signed, repository).await?;
    Ok(release)
}

/// Signs snapshot and timestamp again, so that they do not expire. Needs the online keys only.
pub async fn refresh(
    keys: &Path,
    repository: &Path,
    now: UnixMillis,
) -> Result<Contents, TufError> {
    let opened = open(repository).await?;
    let versions = Versions::after(&opened, false);
    let holder = KeyHolder::Root(opened.root().signed.clone());
    let random = SystemRandom::new();
    let failed = |e: tough::error::Error| TufError::Sign(Box::new(e));

    let mut snapshot = opened.snapshot().signed.clone();
    snapshot.version = versions.snapshot;
    snapshot.expires = after(now, SNAPSHOT_DAYS)?;
    let snapshot = SignedRole::new(snapshot, &holder, &SNAPSHOT.held(keys)?, &random)
        .await
        .map_err(failed)?;

    let mut timestamp = opened.timestamp().signed.clone();
    timestamp.version = versions.timestamp;
    timestamp.expires = after(now, TIMESTAMP_DAYS)?;
    let meta = timestamp
        .meta
        .get_mut("snapshot.json")
        .ok_or_else(|| TufError::Missing(repository.to_owned()))?;
    meta.version = versions.snapshot;
    meta.length = Some(*snapshot.length());
    if let Some(hashes) = &mut meta.hashes {
        hashes.sha256 = snapshot.sha256().to_vec().into();
    }
    let timestamp = SignedRole::new(timestamp, &holder, &TIMESTAMP.held(keys)?, &random)
        .await
        .map_err(failed)?;

    // The timestamp last: it makes the rest the one in force.
    let metadata = repository.join("metadata");
    let name = format!("{}.snapshot.json", versions.snapshot);
    files::write(&metadata.join(name), snapshot.buffer())?;
    files::write(&metadata.join(TIMESTAMP_FILE), timestamp.buffer())?;
    Ok(contents(&open(repository).await?))
}

/// Verifies every signature of a repository and says what is in it. Dates are not judged.
pub async fn show(repository: &Path) -> Result<Contents, TufError> {
    Ok(contents(&open(repository).await?))
}

/// The same, from a root that was trusted before, whatever root lies there now.
pub async fn show_from(root: &[u8], repository: &Path) -> Result<Contents, TufError> {
    Ok(contents(&open_from(root, repository).await?))
}

struct Versions {
    targets: NonZeroU64,
    snapshot: NonZeroU64,
    timestamp: NonZeroU64,
}

impl Versions {
    fn after(repository: &Repository, new_targets: bool) -> Self {
        Self {
            targets: repository
                .targets()
                .signed
                .version
                .saturating_add(u64::from(new_targets)),
            snapshot: repository.snapshot().signed.version.saturating_add(1),
            timestamp: repository.timestamp().signed.version.saturating_add(1),
        }
    }
}

async fn sign(
    mut editor: RepositoryEditor,
    keys: &Path,
    repository: &Path,
    versions: &Versions,
    now: UnixMillis,
) -> Result<SignedRepository, TufError> {
    let targets_expire = after(now, TARGETS_DAYS)?;
    editor
        .targets_version(versions.targets)
        .map_err(|e| broken(repository, e))?
        .targets_expires(targets_expire)
        .map_err(|e| broken(repository, e))?
        .snapshot_version(versions.snapshot)
        .snapshot_expires(after(now, SNAPSHOT_DAYS)?)
        .timestamp_version(versions.timestamp)
        .timestamp_expires(after(now, TIMESTAMP_DAYS)?);
    let mut sources: Vec<Box<dyn KeySource>> = Vec::new();
    for role in [TARGETS, SNAPSHOT, TIMESTAMP] {
        sources.extend(role.held(keys)?);
    }
    editor
        .sign(&sources)
        .await
        .map_err(|e| TufError::Sign(Box::new(e)))
}

/// Writes signed metadata beside what is there. Each file appears whole, and the timestamp last:
/// it makes the rest the one in force.
async fn write(signed: &SignedRepository, repository: &Path) -> Result<(), TufError> {
    let staging = repository.join("metadata.new");
    // What an interrupted attempt left behind is worth nothing.
    let _ = std::fs::remove_dir_all(&staging);
    files::make_dir(&staging)?;
    signed
        .write(&staging)
        .await
        .map_err(|e| broken(repository, e))?;
    let read = |source| FileError::Read {
        path: staging.clone(),
        source,
    };
    let mut names: Vec<_> = std::fs::read_dir(&staging)
        .and_then(Iterator::collect::<Result<_, _>>)
        .map_err(read)?;
    names.sort_by_key(|entry: &std::fs::DirEntry| entry.file_name() == TIMESTAMP_FILE);
    for entry in names {
        let bytes = std::fs::read(entry.path()).map_err(read)?;
        files::write(&repository.join("metadata").join(entry.file_name()), &bytes)?;
    }
    let _ = std::fs::remove_dir_all(&staging);
    Ok(())
}

async fn open(dir: &Path) -> Result<Repository, TufError> {
    let root = trusted_root(dir)?.ok_or_else(|| TufError::Missing(dir.to_owned()))?;
    open_from(&root, dir).await
}

async fn open_from(root: &[u8], dir: &Path) -> Result<Repository, TufError> {
    let url = |name: &str| {
        let path = dir
            .join(name)
            .canonicalize()
            .map_err(|_| TufError::Missing(dir.to_owned()))?;
        Url::from_directory_path(&path).map_err(|()| TufError::Path(path))
    };
    RepositoryLoader::new(&root, url("metadata")?, url("targets")?)
        .transport(FilesystemTransport)
        // The signer must be able to renew what has expired.
        .expiration_enforcement(ExpirationEnforcement::Unsafe)
        .load()
        .await
        .map_err(|e| broken(dir, e))
}

fn contents(repository: &Repository) -> Contents {
    let mut releases: Vec<_> = repository
        .targets()
        .signed
        .targets
        .iter()
        .map(|(name, target)| release(name.raw(), target))
        .collect();
    releases.sort_by(|a, b| a.target.cmp(&b.target));
    let millis = |t: Timestamp| UnixMillis(t.as_millisecond());
    Contents {
        releases,
        root_expires: millis(repository.root().signed.expires),
        targets_expires: millis(repository.targets().signed.expires),
        snapshot_expires: millis(repository.snapshot().signed.expires),
        timestamp_expires: millis(repository.timestamp().signed.expires),
    }
}

fn release(name: &str, target: &Target) -> Release {
    let mut sha256 = [0; 32];
    if let Ok(digest) = <[u8; 32]>::try_from(target.hashes.sha256.as_ref()) {
        sha256 = digest;
    }
    let version = target.custom.get("version").and_then(|v| v.as_str());
    let states = target.custom.get(STATES).cloned();
    Release {
        target: name.to_owned(),
        version: version.map(str::to_owned),
        sha256: Digest32(sha256),
        length: target.length,
        // What no signer of ours writes accepts nothing.
        states: states
            .and_then(|value| serde_json::from_value(value).ok())
            .unwrap_or_default(),
    }
}

fn root_path(repository: &Path) -> PathBuf {
    repository.join("metadata/1.root.json")
}

fn after(now: UnixMillis, days: i64) -> Result<Timestamp, TufError> {
    // Whole seconds: TUF dates have no fractions.
    let millis = now.plus_millis(days.saturating_mul(DAY_MILLIS)).0;
    Timestamp::from_second(millis.div_euclid(1000)).map_err(|_| TufError::Date)
}

fn broken(dir: &Path, error: tough::error::Error) -> TufError {
    TufError::Repository {
        dir: dir.to_owned(),
        source: Box::new(error),
    }
}

#[cfg(test)]
mod tests;
