//! Opening a vault: lock, keys, log, segments, in this order.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, OnceLock, atomic::AtomicU64},
};

use parking_lot::{Mutex, RwLock};
use zeroize::Zeroizing;

use crate::{
    Clock, OpenError, RecoveryReport, VaultConfig, committer,
    config::Geometry,
    core::Core,
    disk::{Access, Disk},
    index::Index,
    keyring::Keyring,
    log::{files::LogFiles, record::Kind, recover, writer::LogWriter},
    runs::RunFiles,
    segments::Segments,
};

/// A vault's core and its threads.
pub(crate) type Running = (Arc<Core>, Vec<std::thread::JoinHandle<()>>);

pub(crate) fn open(
    disk: Arc<dyn Disk>,
    config: &VaultConfig,
    master: &Zeroizing<[u8; 32]>,
    clock: Clock,
) -> Result<(Running, RecoveryReport), OpenError> {
    config.check()?;
    let fail = |what: &str| {
        let what = format!("{what} {}", config.dir.display());
        move |source: io::Error| OpenError::Io { what, source }
    };
    let (log_dir, segment_dir) = (config.dir.join("log"), config.dir.join("segments"));
    let run_dir = config.dir.join("index");
    for dir in [&log_dir, &segment_dir, &run_dir] {
        disk.create_dir(dir).map_err(fail("make"))?;
    }
    let lock = disk
        .lock(&config.dir.join("lock"))
        .map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => OpenError::InUse {
                path: config.dir.clone(),
            },
            _ => fail("lock")(source),
        })?;

    let mut report = RecoveryReport::default();
    let files = Arc::new(LogFiles::new(Arc::clone(&disk), log_dir));
    let runs = Arc::new(RunFiles::new(Arc::clone(&disk), run_dir));
    let mut keyring = keyring(&*disk, config, master, &files, &mut report)?;
    let geometry = Geometry::of(config);
    let mut index = Index::new(geometry);
    for (no, job) in keyring.jobs() {
        index.add_job(no, job);
    }
    let end = recover::recover(&files, &runs, &keyring, &mut index, &mut report)?;
    if keyring.begun && end.last.is_none() {
        let (path, reason) = (files.path(Kind::Log, 1), "the log is missing".to_owned());
        return Err(OpenError::Damaged {
            path,
            offset: 0,
            reason,
        });
    }
    let segments = Segments::open(
        Arc::clone(&disk),
        segment_dir,
        geometry,
        config.direct_io,
        &index.space.ends(),
    )?;
    if let Some((number, _)) = end.last {
        // After a process died its last records may be in the page cache only. They were read as
        // the truth just now, so they have to stay it.
        let path = files.path(Kind::Log, number);
        let sync = disk.open(&path, Access::Write).and_then(|file| file.sync());
        sync.map_err(fail("sync the log of"))?;
    }
    let writer = LogWriter::begin(
        Arc::clone(&files),
        keyring.vault,
        config.log_bytes,
        end.last,
        end.next_lsn,
    )
    .map_err(fail("begin a log file in"))?;
    if !keyring.begun {
        keyring
            .begin(&*disk)
            .map_err(fail("store the keyring of"))?;
    }
    remove_old(&files, &index, end.checkpoint).map_err(fail("clean the log of"))?;
    let named: Vec<u32> = index.claims().iter().map(|claim| claim.number).collect();
    runs.remove_others(&named)
        .map_err(fail("clean the index of"))?;

    let counts = index.counts();
    report.objects = counts.objects;
    report.uploads = counts.uploads;
    report.pending = counts.pending;
    let core = Arc::new(Core {
        config: config.clone(),
        geometry,
        disk,
        clock,
        keyring: RwLock::new(keyring),
        index: RwLock::new(index),
        files,
        runs,
        closing: Arc::default(),
        segments,
        part_lens: Mutex::default(),
        used: AtomicU64::new(0),
        beginning: Mutex::new(()),
        queues: RwLock::new(None),
        witness: OnceLock::new(),
        _lock: lock,
    });
    if let Err(error) = core.files.stock_reserve(config.log_bytes) {
        // Reading and deleting work without; new objects try again.
        tracing::warn!(%error, "no space could be set aside for the log");
    }
    core.measure();
    let threads =
        committer::start(&core, writer, end.checkpoint).map_err(fail("start the threads of"))?;
    Ok(((core, threads), report))
}

/// Opens the keyring, or makes that of a new vault.
fn keyring(
    disk: &dyn Disk,
    config: &VaultConfig,
    master: &Zeroizing<[u8; 32]>,
    files: &LogFiles,
    report: &mut RecoveryReport,
) -> Result<Keyring, OpenError> {
    if let Some(keyring) = Keyring::open(disk, config, master)? {
        return Ok(keyring);
    }
    let fail = |what: &str| {
        let what = format!("{what} {}", config.dir.display());
        move |source: io::Error| OpenError::Io { what, source }
    };
    // Without its keyring a vault is noise; a new one must not be made over it.
    let (logs, checkpoints) = files.list().map_err(fail("list the log of"))?;
    if !logs.is_empty() || !checkpoints.is_empty() {
        let (path, reason) = (config.dir.join("keyring"), "the file is missing".to_owned());
        return Err(OpenError::Damaged {
            path,
            offset: 0,
            reason,
        });
    }
    disk.sync_dir(&config.dir).map_err(fail("sync"))?;
    if let Some(parent) = config.dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        disk.sync_dir(parent).map_err(fail("sync what holds"))?;
    }
    report.created = true;
    Keyring::create(disk, config, master).map_err(fail("make the keyring of"))
}

/// Removes what a checkpoint replaced but did not come to remove.
fn remove_old(files: &LogFiles, index: &Index, checkpoint: Option<u32>) -> io::Result<()> {
    let Some(newest) = checkpoint else {
        return Ok(());
    };
    let (logs, checkpoints) = files.list()?;
    let needed: BTreeSet<u32> = logs
        .iter()
        .copied()
        .filter(|log| index.space.live_in_log(*log) > 0)
        .collect();
    for log in logs
        .into_iter()
        .filter(|log| *log < newest && !needed.contains(log))
    {
        files.remove(Kind::Log, log)?;
    }
    for old in checkpoints.into_iter().filter(|number| *number < newest) {
        files.remove(Kind::Checkpoint, old)?;
    }
    Ok(())
}
