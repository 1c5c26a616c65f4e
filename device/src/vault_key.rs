//! The vault's key: from the master key and a secret in the chip's own memory. Of a disk nobody can
//! say that what was overwritten is gone; of the chip's memory one can. So a bucket is erased by
//! changing that secret, too: every copy of the vault's old keyring, wherever the disk keeps one, is
//! sealed under a key that is nowhere.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::rand;
use longhaul_vault::{Clock, JobId, OpenError, RecoveryReport, Rekey, Vault, VaultConfig};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::chip::{Chip, ChipError, NvSlot};
use crate::sealed::{MasterKey, SealError};

/// What the vault's key is derived for.
const PURPOSE: &str = "vault";

/// Why the vault could not be opened, or a bucket not be erased.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaultKeyError {
    /// The chip did not do its part.
    #[error(transparent)]
    Chip(#[from] ChipError),
    /// A key could not be derived.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The vault could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The vault could not erase.
    #[error(transparent)]
    Vault(#[from] longhaul_vault::Error),
    /// An earlier erasure was interrupted by the disk.
    #[error("the vault's key is being changed: restart the box to finish that first")]
    Unsettled,
    /// It is noise on this disk, but the chip still keeps what opens an old copy.
    #[error(
        "the bucket is erased, and the chip did not forget the old key: the next start does that"
    )]
    NotForgotten(#[source] ChipError),
}

/// Where the secret lies that opens the vault now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    /// Nowhere: the vault was made by a release that took the master key alone.
    Bare,
    Slot(NvSlot),
    /// In one of both; the next opening will see.
    Unsettled,
}

/// Opens the vault, and changes its key.
pub struct VaultKey {
    master: Arc<MasterKey>,
    chip: Arc<dyn Chip>,
    place: Mutex<Place>,
}

impl VaultKey {
    /// Opens the vault, or makes one, and finishes a change of its key that was interrupted.
    /// Blocks for disk and chip.
    pub fn open(
        master: Arc<MasterKey>,
        chip: Arc<dyn Chip>,
        config: &VaultConfig,
        clock: &Clock,
    ) -> Result<(Self, Vault, RecoveryReport), VaultKeyError> {
        let made = Vault::is_in(&config.dir);
        let mut held = Vec::new();
        for slot in NvSlot::ALL {
            if let Some(secret) = chip.slot(slot)? {
                held.push((slot, secret));
            }
        }
        if !made && held.is_empty() {
            let secret = draw()?;
            chip.fill_slot(NvSlot::First, &secret)?;
            held.push((NvSlot::First, secret));
        }
        let mut keys = Vec::new();
        for (slot, secret) in &held {
            keys.push((Place::Slot(*slot), master.derive_with(PURPOSE, secret)?));
        }
        if made {
            keys.push((Place::Bare, master.derive(PURPOSE)?));
        }
        let (place, vault, report) = try_each(keys, config, clock)?;
        // What opens nothing here may open a copy of what was erased.
        let others = held.iter().map(|(slot, _)| *slot);
        for slot in others.filter(|slot| made && place != Place::Slot(*slot)) {
            chip.empty_slot(slot)?;
            tracing::info!(?slot, "a key that opens the vault no more is destroyed");
        }
        let place = Mutex::new(place);
        Ok((
            Self {
                master,
                chip,
                place,
            },
            vault,
            report,
        ))
    }

    /// The key that opens the vault now. Blocks for the chip.
    pub fn current(&self) -> Result<Zeroizing<[u8; 32]>, VaultKeyError> {
        match *self.place.lock() {
            Place::Bare => Ok(self.master.derive(PURPOSE)?),
            Place::Unsettled => Err(VaultKeyError::Unsettled),
            Place::Slot(slot) => {
                let secret = self.chip.slot(slot)?.ok_or(VaultKeyError::Unsettled)?;
                Ok(self.master.derive_with(PURPOSE, &secret)?)
            }
        }
    }

    /// Erases what `job` stored, for good; false if there is no such job. Blocks for disk and chip.
    pub fn erase(&self, vault: &Vault, job: &JobId) -> Result<bool, VaultKeyError> {
        let mut place = self.place.lock();
        let (old, new) = match *place {
            Place::Bare => (None, NvSlot::First),
            Place::Slot(slot) => (Some(slot), slot.other()),
            Place::Unsettled => return Err(VaultKeyError::Unsettled),
        };
        if !vault.jobs().contains(job) {
            return Ok(false);
        }
        let secret = draw()?;
        let key = self.master.derive_with(PURPOSE, &secret)?;
        let kept = Arc::new(AtomicBool::new(false));
        let (chip, done) = (Arc::clone(&self.chip), Arc::clone(&kept));
        let keep = Box::new(move || {
            chip.fill_slot(new, &secret).map_err(io::Error::other)?;
            done.store(true, Ordering::Release);
            Ok(())
        });
        let erased = vault.erase_job_and_rekey(job, Rekey { key, keep });
        match (erased, kept.load(Ordering::Acquire)) {
            (Ok(()), true) => *place = Place::Slot(new),
            (Ok(()), false) => return Ok(false),
            (Err(error), kept) => {
                if kept {
                    *place = Place::Unsettled;
                }
                return Err(error.into());
            }
        }
        if let Some(old) = old {
            let emptied = self.chip.empty_slot(old);
            emptied.map_err(VaultKeyError::NotForgotten)?;
        } else {
            tracing::warn!(
                "the vault was made by an earlier release: copies of its keyring in a flash drive's \
                 spare blocks still open on this box"
            );
        }
        Ok(true)
    }
}

fn draw() -> Result<Zeroizing<[u8; 32]>, SealError> {
    let mut secret = Zeroizing::new([0; 32]);
    rand::fill(secret.as_mut_slice()).map_err(|_| SealError::Crypto("draw a key"))?;
    Ok(secret)
}

/// Opens the vault with the first of the keys that does.
fn try_each(
    keys: Vec<(Place, Zeroizing<[u8; 32]>)>,
    config: &VaultConfig,
    clock: &Clock,
) -> Result<(Place, Vault, RecoveryReport), VaultKeyError> {
    let mut refused = None;
    for (place, key) in keys {
        match Vault::open(config.clone(), &key, Arc::clone(clock)) {
            Ok((vault, report)) => return Ok((place, vault, report)),
            Err(error @ OpenError::WrongKey { .. }) => refused = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    // There is at least one key; the text is for a vault that none of them opens.
    Err(refused.map_or(VaultKeyError::Unsettled, VaultKeyError::Open))
}
