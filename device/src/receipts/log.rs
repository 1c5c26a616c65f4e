//! The leaves of the open epoch, in a file that only grows; and epochs that wait for a signature.
//!
//! Each line is a check and a JSON document: first the epoch's name, then its leaves' hashes. A torn end is
//! cut off: what was not durable was told to nobody. Only the tree's right edge is in memory.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use longhaul_protocol::ids::EpochId;
use longhaul_protocol::receipt::{Leaf, LeafPlace, MAX_EPOCH_LEAVES};
use longhaul_protocol::value::{Digest32, UnixMillis};
use longhaul_provisioning::receipt::tree::{Frontier, leaf_hash};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::disk::{self, DiskError};

/// The longest line that is read, in bytes.
const MAX_LINE: u64 = 1024;
/// Hexadecimal digits of the check before each line.
const CHECK: usize = 16;
/// Leaves whose places are remembered: the recorder repeats less than this after a power cut.
const RECENT: usize = 4096;

#[derive(Deserialize, Serialize)]
struct Header {
    epoch: EpochId,
}

/// What is kept of a leaf: names stay in the vault, which is encrypted.
#[derive(Deserialize, Serialize)]
struct Kept {
    version: u64,
    stored: UnixMillis,
    hash: Digest32,
}

/// An epoch that is complete and waits for the box's signature.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Closed {
    /// The epoch.
    pub epoch: EpochId,
    /// Its root.
    pub root: Digest32,
    /// Leaves below it.
    pub leaves: u64,
}

/// The open epoch.
pub(super) struct Log {
    dir: PathBuf,
    file: File,
    epoch: EpochId,
    tree: Frontier,
    /// When its first and its last leaf came.
    span: Option<(UnixMillis, UnixMillis)>,
    recent: Recent,
}

/// Where the latest leaves are, by version.
#[derive(Default)]
struct Recent {
    order: VecDeque<u64>,
    places: HashMap<u64, LeafPlace>,
}

impl Recent {
    fn keep(&mut self, version: u64, place: LeafPlace) {
        if self.places.insert(version, place).is_none() {
            self.order.push_back(version);
        }
        if self.order.len() > RECENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.places.remove(&oldest);
        }
    }
}

impl Log {
    /// Opens what lies in `dir`; `fresh` names new epochs.
    pub fn open(dir: &Path, fresh: fn() -> EpochId) -> Result<Self, DiskError> {
        disk::make_dir(dir)?;
        let path = dir.join("open");
        let read = |source| DiskError::Read {
            path: path.clone(),
            source,
        };
        let file = OpenOptions::new().read(true).append(true).open(&path);
        let file = match file {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Self::begin(dir, fresh());
            }
            Err(error) => return Err(read(error)),
        };
        let mut reader = BufReader::new(file);
        let mut valid = 0;
        let Some(Header { epoch }) = line(&mut reader, &mut valid).map_err(read)? else {
            return Self::begin(dir, fresh());
        };
        // Closed before a power cut kept the next one from beginning.
        if closed_path(dir, &epoch).exists() {
            return Self::begin(dir, fresh());
        }
        let mut log = Self {
            dir: dir.to_owned(),
            file: reader.get_ref().try_clone().map_err(read)?,
            epoch,
            tree: Frontier::default(),
            span: None,
            recent: Recent::default(),
        };
        while let Some(kept) = line::<Kept>(&mut reader, &mut valid).map_err(read)? {
            log.grow(&kept);
        }
        let written = log.file.set_len(valid).and_then(|()| log.file.sync_all());
        written.map_err(|source| DiskError::Write { path, source })?;
        Ok(log)
    }

    fn begin(dir: &Path, epoch: EpochId) -> Result<Self, DiskError> {
        let path = dir.join("open");
        let header = written(
            &path,
            &Header {
                epoch: epoch.clone(),
            },
        )?;
        disk::write_atomic(&path, &header)?;
        let file = OpenOptions::new().append(true).mode(0o600).open(&path);
        let file = file.map_err(|source| DiskError::Write { path, source })?;
        Ok(Self {
            dir: dir.to_owned(),
            file,
            epoch,
            tree: Frontier::default(),
            span: None,
            recent: Recent::default(),
        })
    }

    /// Leaves that the open epoch has room for.
    pub fn room(&self) -> u64 {
        MAX_EPOCH_LEAVES.saturating_sub(self.tree.leaves())
    }

    /// Where a version's leaf is, if it came not long ago.
    pub fn place(&self, version: u64) -> Option<&LeafPlace> {
        self.recent.places.get(&version)
    }

    /// Adds leaves; they are durable when this returns. After an error the file has to be opened
    /// anew.
    pub fn append(&mut self, leaves: &[Leaf]) -> Result<(), DiskError> {
        let path = self.dir.join("open");
        let (mut bytes, mut grown) = (Vec::new(), Vec::with_capacity(leaves.len()));
        for leaf in leaves {
            let kept = Kept {
                version: leaf.object.version,
                stored: leaf.stored,
                hash: leaf_hash(leaf).map_err(|source| DiskError::Malformed {
                    path: path.clone(),
                    source,
                })?,
            };
            bytes.extend(written(&path, &kept)?);
            grown.push(kept);
        }
        let synced = self.file.write_all(&bytes);
        let synced = synced.and_then(|()| self.file.sync_data());
        synced.map_err(|source| DiskError::Write { path, source })?;
        for kept in &grown {
            self.grow(kept);
        }
        Ok(())
    }

    fn grow(&mut self, kept: &Kept) {
        let place = LeafPlace {
            epoch: self.epoch.clone(),
            index: self.tree.leaves(),
            stored: kept.stored,
        };
        self.recent.keep(kept.version, place);
        self.tree.push(kept.hash);
        let first = self.span.map_or(kept.stored, |(first, _)| first);
        self.span = Some((first, kept.stored));
    }

    /// Whether nothing has come for `idle_ms`, or the first leaf waits for `longest_ms`.
    pub fn is_due(&self, now: UnixMillis, idle_ms: i64, longest_ms: i64) -> bool {
        self.span.is_some_and(|(first, last)| {
            let (whole, quiet) = (now.millis_since(first), now.millis_since(last));
            // A clock that was set back must not keep an epoch open.
            whole >= longest_ms || quiet >= idle_ms || quiet < 0
        })
    }

    /// Ends the open epoch, if it has a leaf, and begins the next.
    pub fn close(&mut self, fresh: fn() -> EpochId) -> Result<(), DiskError> {
        let Some(root) = self.tree.root() else {
            return Ok(());
        };
        let closed = Closed {
            epoch: self.epoch.clone(),
            root,
            leaves: self.tree.leaves(),
        };
        disk::write_json(&closed_path(&self.dir, &closed.epoch), &closed)?;
        let recent = std::mem::take(&mut self.recent);
        *self = Self::begin(&self.dir, fresh())?;
        self.recent = recent;
        Ok(())
    }
}

fn closed_path(dir: &Path, epoch: &EpochId) -> PathBuf {
    dir.join(format!("closed-{epoch}.json"))
}

/// Epochs that wait for a signature.
pub(super) fn closed(dir: &Path) -> Result<Vec<Closed>, DiskError> {
    let read = |source| DiskError::Read {
        path: dir.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(read)? {
        let entry = entry.map_err(read)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("closed-") && name.ends_with(".json") {
            found.extend(disk::read_json(&entry.path())?);
        }
    }
    Ok(found)
}

/// Forgets an epoch whose signed root the journal has.
pub(super) fn forget(dir: &Path, epoch: &EpochId) -> Result<(), DiskError> {
    let path = closed_path(dir, epoch);
    let removed = fs::remove_file(&path).and_then(|()| disk::sync_dir(dir));
    removed.map_err(|source| DiskError::Write { path, source })
}

fn check(json: &[u8]) -> String {
    let mut check = blake3::hash(json).to_hex().to_string();
    check.truncate(CHECK);
    check
}

fn written<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, DiskError> {
    let json = serde_json::to_vec(value).map_err(|source| DiskError::Malformed {
        path: path.to_owned(),
        source,
    })?;
    let mut line = check(&json).into_bytes();
    line.push(b' ');
    line.extend(json);
    line.push(b'\n');
    Ok(line)
}

/// The next line, if it is whole; `valid` then counts it.
fn line<T: DeserializeOwned>(
    reader: &mut impl io::BufRead,
    valid: &mut u64,
) -> io::Result<Option<T>> {
    let mut bytes = Vec::new();
    let read = reader
        .by_ref()
        .take(MAX_LINE)
        .read_until(b'\n', &mut bytes)?;
    let parsed = bytes.strip_suffix(b"\n").and_then(|line| {
        let (head, json) = line.split_at_checked(CHECK + 1)?;
        let whole = head.strip_suffix(b" ")? == check(json).as_bytes();
        whole.then(|| serde_json::from_slice(json).ok()).flatten()
    });
    if parsed.is_some() {
        *valid += read as u64;
    }
    Ok(parsed)
}

/// Reads bytes as the file of the open epoch; what stands behind no check gets the right one.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzzed(bytes: &[u8]) {
    let mut file = Vec::new();
    for text in bytes.split(|byte| *byte == b'\n') {
        if text.first() == Some(&b'{') {
            file.extend(check(text).into_bytes());
            file.push(b' ');
        }
        file.extend_from_slice(text);
        file.push(b'\n');
    }
    let mut reader = file.as_slice();
    let mut valid = 0;
    let first = line::<Header>(&mut reader, &mut valid).ok().flatten();
    let mut tree = Frontier::default();
    while first.is_some()
        && let Ok(Some(Kept { hash, .. })) = line(&mut reader, &mut valid)
    {
        tree.push(hash);
    }
    assert!(valid <= file.len() as u64);
    assert_eq!(tree.root().is_some(), tree.leaves() > 0);
}
