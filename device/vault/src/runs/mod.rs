//! The index on the disk: per job, sorted files that are written once and merged behind everybody's
//! back. What the index in memory does not say about a version that lives, the newest run that
//! mentions it does.
//!
//! Which versions live is known in memory, so a run is never wrong about that: it may mention
//! versions that are gone, and nobody asks for them.

mod bloom;
mod cache;
mod file;
mod layout;
pub(crate) mod merge;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

pub(crate) use file::{Claim, Run, RunError};
pub(crate) use layout::{Logs, Record};

use crate::{
    codec::{Malformed, narrow},
    crypto::Secret,
    disk::{Access, Disk, read_full},
    keyring::JobNo,
    log::record::{FileHeader, HEADER_LEN, Kind},
};
use bloom::NameHash;
use cache::Cache;
use file::RunWriter;

/// The runs of one job, newest first.
pub(crate) type Runs = Arc<Vec<Arc<Run>>>;

/// The directory of the runs.
pub(crate) struct RunFiles {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    cache: Arc<Cache>,
    next: AtomicU32,
    bytes: AtomicU64,
}

impl RunFiles {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self {
            disk,
            dir,
            cache: Arc::default(),
            next: AtomicU32::new(1),
            bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("run-{number:08x}"))
    }

    /// Opens a run that a checkpoint names.
    pub(crate) fn open(
        &self,
        claim: Claim,
        (vault, job): ([u8; 16], JobNo),
        secret: &Secret,
    ) -> Result<Run, RunError> {
        let path = self.path(claim.number);
        let fail = |source: io::Error| RunError {
            path: path.clone(),
            offset: 0,
            source: match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => None,
                _ => Some(Arc::new(source)),
            },
        };
        let file = self.disk.open(&path, Access::Read).map_err(fail)?;
        let mut block = [0; HEADER_LEN];
        read_full(&*file, &mut block, 0).map_err(fail)?;
        let fits = |header: &FileHeader| {
            let said = (header.kind, header.number, header.extra);
            said == (Kind::Run, claim.number, job)
                && header.vault == vault
                && header.salt() == claim.salt
        };
        let header = FileHeader::decode(&block).filter(fits);
        let header = header.ok_or_else(|| fail(io::ErrorKind::UnexpectedEof.into()))?;
        let run = Run::open(file, path, (claim, &header), secret, &self.cache)?;
        self.next.fetch_max(claim.number + 1, Ordering::Relaxed);
        self.bytes.fetch_add(claim.bytes(), Ordering::Relaxed);
        Ok(run)
    }

    /// Writes a run of `job`; durable, name and all, when this returns, but nobody's yet.
    pub(crate) fn write(
        &self,
        (vault, job): ([u8; 16], JobNo),
        secret: &Secret,
        names: u64,
        pour: impl FnOnce(&mut RunOutput) -> io::Result<()>,
    ) -> io::Result<Run> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path(number);
        let written = (|| {
            let file = self.disk.open(&path, Access::Create)?;
            let header = FileHeader::run(vault, number, job);
            let mut output = RunOutput(RunWriter::new(file, header, secret, narrow(names)));
            pour(&mut output)?;
            let run = output.0.finish(path.clone(), &self.cache)?;
            self.disk.sync_dir(&self.dir)?;
            Ok(run)
        })();
        match &written {
            Ok(run) => {
                let bytes = run.claim().bytes();
                self.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            // What no checkpoint names the next opening removes, too.
            Err(_) => drop(self.disk.remove(&path)),
        }
        written
    }

    /// Removes runs that no checkpoint on the disk names any more. Whoever reads them goes on.
    pub(crate) fn remove(&self, claims: impl IntoIterator<Item = Claim>) {
        for claim in claims {
            self.bytes.fetch_sub(claim.bytes(), Ordering::Relaxed);
            if let Err(source) = self.disk.remove(&self.path(claim.number)) {
                let run = claim.number;
                tracing::warn!(%source, run, "a run of the index that nobody needs was not removed");
            }
        }
    }

    /// Removes what is not in `named`: what a power cut left behind.
    pub(crate) fn remove_others(&self, named: &[u32]) -> io::Result<()> {
        for name in self.disk.list(&self.dir)? {
            let digits = name.strip_prefix("run-").filter(|d| d.len() == 8);
            let Some(number) = digits.and_then(|d| u32::from_str_radix(d, 16).ok()) else {
                continue;
            };
            self.next
                .fetch_max(number.saturating_add(1), Ordering::Relaxed);
            if !named.contains(&number) {
                self.disk.remove(&self.path(number))?;
            }
        }
        Ok(())
    }

    /// Bytes on disk of all runs.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A run that is being written.
pub(crate) struct RunOutput(RunWriter);

impl RunOutput {
    /// The next version.
    pub(crate) fn record(&mut self, record: &Record<'_>) -> io::Result<()> {
        self.0.record(record)
    }

    /// Behind the last version, before the first name.
    pub(crate) fn end_records(&mut self) -> io::Result<()> {
        self.0.end_records()
    }

    /// The next name.
    pub(crate) fn name(&mut self, name: &str, version: u64) -> io::Result<()> {
        self.0.name(name, version)
    }
}

/// What the newest run that mentions `version` says about it.
pub(crate) fn find_version<T>(
    runs: &[Arc<Run>],
    version: u64,
    parse: impl Fn(&[u8]) -> Result<T, Malformed>,
) -> Result<Option<T>, RunError> {
    for run in runs {
        if let Some(found) = run.find(version, &parse)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Every version that `name` had, in no order; at most one of them lives.
pub(crate) fn find_name(runs: &[Arc<Run>], name: &str) -> Result<Vec<u64>, RunError> {
    let mut found = Vec::new();
    if runs.is_empty() {
        return Ok(found);
    }
    let hash = NameHash::of(name);
    for run in runs.iter().filter(|run| run.may_hold(hash)) {
        let mut cursor = run.names(name)?;
        while let Some((_, version)) = cursor.name().filter(|(other, _)| *other == name) {
            found.push(version);
            cursor.advance()?;
        }
    }
    Ok(found)
}

/// Names and versions that they had, from `from` on: all of at least `limit` names, or to the end.
/// The second says whether that is the end.
pub(crate) fn names_from(
    runs: &[Arc<Run>],
    from: &str,
    prefix: &str,
    limit: usize,
) -> Result<(Vec<(String, u64)>, bool), RunError> {
    let cursors = runs.iter().map(|run| run.names(from));
    let mut cursors: Vec<_> = cursors.collect::<Result<_, _>>()?;
    let mut found: Vec<(String, u64)> = Vec::new();
    let mut names = 0;
    loop {
        let heads = cursors.iter_mut().filter(|cursor| {
            cursor
                .name()
                .is_some_and(|(name, _)| name.starts_with(prefix))
        });
        let Some(first) = heads.min_by(|one, other| one.name().cmp(&other.name())) else {
            return Ok((found, true));
        };
        if let Some((name, version)) = first.name() {
            let known = found.last().is_some_and(|(last, _)| last == name);
            if !known && names >= limit {
                return Ok((found, false));
            }
            names += usize::from(!known);
            found.push((name.to_owned(), version));
        }
        first.advance()?;
    }
}

/// What a fuzzer is let into: bytes behind a seal.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzzed(bytes: &[u8]) {
    layout::fuzzed(bytes);
}

#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz_seeds() -> Vec<Vec<u8>> {
    layout::fuzz_seeds()
}
