//! The vault, its key, and what the cloud has to know about both.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::journal::Fact;
use longhaul_protocol::value::Blob;
use longhaul_provisioning::recovery::RecoveryPublic;
use longhaul_vault::{Damage, JobId, OpenError, RecoveryReport, Vault, VaultConfig};
use tokio::sync::mpsc;

use super::recovery::Recovery;
use super::supervisor::Supervisor;
use super::{Options, RunError, blocking, machine};
use crate::chip::Chip;
use crate::disk;
use crate::journal::{JournalError, JournalHandle};
use crate::sealed::MasterKey;
use crate::vault_key::{VaultKey, VaultKeyError};

/// The part that failed, in the cloud's timeline.
const PART: &str = "vault";
/// Findings that wait to be told; more of them are in the log only.
const QUEUE: usize = 256;
/// Findings that are remembered, so that each is told once between two starts.
const REMEMBERED: usize = 10_000;

/// The vault, or why there is none.
pub(super) struct Store {
    /// Absent where its key stays closed, or where the disk does not hold what was written.
    pub vault: Option<Vault>,
    /// Erases buckets.
    pub eraser: Option<Eraser>,
    /// What is wrong on the disk, for the cloud.
    pub failure: Option<String>,
    dir: PathBuf,
    damages: Option<mpsc::Receiver<Damage>>,
}

/// Erases buckets.
pub(super) struct Eraser {
    vault: Vault,
    key: Arc<VaultKey>,
    recovery: Option<Recovery>,
}

impl Eraser {
    /// Destroys the key of what a bucket holds; how many objects that were. A bucket that the box
    /// does not know is erased already. The error is for a person.
    pub(super) async fn erase(&self, bucket: String) -> Result<u64, String> {
        let job: JobId = bucket
            .parse()
            .map_err(|_| format!("{bucket:?} is no name of a bucket"))?;
        let (vault, key) = (self.vault.clone(), Arc::clone(&self.key));
        let erased = blocking("erasing a bucket", move || {
            let before = vault.stats().objects;
            key.erase(&vault, &job).map_err(RunError::from)?;
            Ok::<_, RunError>(before.saturating_sub(vault.stats().objects))
        });
        let objects = erased.await.map_err(|error| crate::cloud::chain(&error))?;
        // What was wrapped before opens what is no more.
        if let Some(recovery) = &self.recovery
            && let Err(error) = recovery.keep().await
        {
            tracing::error!(error = %crate::cloud::chain(&error), "the vault's key is not wrapped");
        }
        tracing::warn!(bucket, objects, "bucket erased");
        Ok(objects)
    }
}

/// Opens the vault. One that is damaged is no reason to fall silent: the box runs without it and
/// says so.
pub(super) async fn open(
    options: &Options,
    master: Option<&Arc<MasterKey>>,
    chip: Arc<dyn Chip>,
) -> Result<Store, RunError> {
    let config = &options.config;
    let dir = config.vault_dir.clone();
    let dir = dir.unwrap_or_else(|| options.state.join("vault"));
    let none = |failure| Store {
        vault: None,
        eraser: None,
        failure,
        dir: dir.clone(),
        damages: None,
    };
    let Some(master) = master.map(Arc::clone) else {
        return Ok(none(None));
    };
    disk::make_dir(&dir)?;
    let capacity = config.vault_capacity_bytes.map_or_else(
        || machine::default_capacity(&dir),
        std::num::NonZeroU64::get,
    );
    let mut vault_config = VaultConfig::new(dir.clone(), capacity);
    vault_config.direct_io = config.vault_direct_io;
    let clock: longhaul_vault::Clock = Arc::new(|| crate::clock::wall().0);
    let opened = blocking("opening the vault", move || {
        VaultKey::open(master, chip, &vault_config, &clock).map_err(RunError::from)
    });
    let (key, vault, report) = match opened.await {
        Ok(opened) => opened,
        Err(RunError::Vault(VaultKeyError::Open(
            error @ (OpenError::Damaged { .. } | OpenError::WrongKey { .. }),
        ))) => {
            tracing::error!(%error, "no data plane");
            return Ok(none(Some(format!("the vault cannot be opened: {error}"))));
        }
        Err(error) => return Err(error),
    };
    tracing::info!(?report, "vault is open");
    let (tell, damages) = mpsc::channel(QUEUE);
    vault.on_damage(move |damage| {
        // What finds no room is in the log, and is found again.
        let _ = tell.try_send(damage.clone());
    });
    let eraser = Eraser {
        vault: vault.clone(),
        key: Arc::new(key),
        recovery: None,
    };
    Ok(Store {
        vault: Some(vault),
        eraser: Some(eraser),
        failure: dropped(&report),
        dir,
        damages: Some(damages),
    })
}

/// An end of the log that was not taken over: after a power cut it is a batch that nobody was
/// promised; without one it is worth a look at the disk.
fn dropped(report: &RecoveryReport) -> Option<String> {
    (report.dropped_bytes > 0).then(|| {
        format!(
            "{} bytes at the end of the log were not whole and are dropped; nothing in them was \
             acknowledged, unless the disk has changed them since",
            report.dropped_bytes
        )
    })
}

impl Store {
    /// Encrypts the vault's key for the depot, now and whenever it changes. A failure is told, and
    /// is no reason to take no files.
    pub(super) async fn recoverable(
        &mut self,
        to: Option<Blob>,
        box_id: &BoxId,
        journal: &JournalHandle,
    ) {
        let (Some(Blob(point)), Some(eraser)) = (to, &mut self.eraser) else {
            return;
        };
        let kept = match RecoveryPublic::parse(&point) {
            Ok(to) => {
                let recovery = Recovery {
                    key: Arc::clone(&eraser.key),
                    to,
                    box_id: box_id.clone(),
                    vault_dir: self.dir.clone(),
                    journal: journal.clone(),
                };
                eraser.recovery = Some(recovery.clone());
                recovery.keep().await.map_err(|e| crate::cloud::chain(&e))
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = kept {
            tracing::error!(error, "the vault's key is not wrapped for the depot");
            let text = format!("its key is not wrapped for the depot: {error}");
            self.failure.get_or_insert(text);
        }
    }

    /// Tells the cloud of damage, once for each place.
    pub(super) fn watch(&mut self, journal: &JournalHandle, supervisor: &mut Supervisor) {
        let Some(mut damages) = self.damages.take() else {
            return;
        };
        let journal = journal.clone();
        supervisor.spawn("the vault's witness", |stop| async move {
            let mut told = BTreeSet::new();
            loop {
                let found = tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    found = damages.recv() => found,
                };
                let Some(damage) = found else {
                    // The vault is closed, and nothing is read any more.
                    stop.cancelled().await;
                    return Ok(());
                };
                if told.len() < REMEMBERED && !told.insert((damage.version, damage.place.clone())) {
                    continue;
                }
                let (part, text) = (PART.to_owned(), of_bucket(&damage));
                match journal.append(Fact::Failure { part, text }).await {
                    Ok(_) => {}
                    Err(error @ (JournalError::Full { .. } | JournalError::TooLong { .. })) => {
                        tracing::error!(%error, "damage not told");
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        });
    }
}

fn of_bucket(damage: &Damage) -> String {
    format!("{damage}, bucket {:?}", damage.job)
}
