//! Small facts about this machine and this life of the agent.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::Duration;

use longhaul_protocol::ids::{BootId, EpochId};
use longhaul_protocol::telemetry::VaultFill;
use longhaul_vault::Vault;
use nix::fcntl::{Flock, FlockArg};

use super::RunError;
use crate::agent::ladder::Boot;
use crate::clock::Now;
use crate::disk::{self, DiskError};
use crate::status::VaultMeter;

/// There while an agent runs; still there at a start if the one before was killed.
const MARKER: &str = "running";
/// Share of a file system that customers' files may take if nobody says otherwise, in tenths.
const CAPACITY_TENTHS: u64 = 8;

/// Makes sure that no other agent uses the state; held until the process ends.
pub(super) fn lock(run_dir: &Path) -> Result<Flock<File>, RunError> {
    let path = run_dir.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|source| DiskError::Write { path, source })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| RunError::AlreadyRunning(run_dir.parent().unwrap_or(run_dir).to_owned()))
}

/// Marks the start; whether the agent before this one ended without saying so.
pub(super) fn begin(run_dir: &Path) -> Result<bool, DiskError> {
    let marker = run_dir.join(MARKER);
    let unclean = marker.exists();
    disk::write_atomic(&marker, b"")?;
    Ok(unclean)
}

/// Marks the end.
pub(super) fn end(run_dir: &Path) -> Result<(), DiskError> {
    let marker = run_dir.join(MARKER);
    std::fs::remove_file(&marker).map_err(|source| DiskError::Write {
        path: marker,
        source,
    })
}

/// This boot, and how long it had lasted when `now` was zero.
pub(super) fn boot(now: Now) -> Boot {
    let lasted = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    let lasted = lasted.map_or(Duration::ZERO, Duration::from);
    let lasted_ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
    Boot {
        id: boot_id(),
        before_ms: lasted_ms.saturating_sub(now.mono_ms),
    }
}

/// The kernel's name of this boot.
fn boot_id() -> BootId {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim()
        .parse()
        .unwrap_or_else(|_| random_name().parse().unwrap_or_else(|_| unreachable!()))
}

/// A name for a new journal.
pub(super) fn fresh_epoch() -> EpochId {
    random_name().parse().unwrap_or_else(|_| unreachable!())
}

fn random_name() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The version of the operating system image (`IMAGE_VERSION` of os-release), where there is one.
pub(super) fn os_version() -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("IMAGE_VERSION="))?;
    Some(value.trim_matches('"').chars().take(64).collect())
}

/// What customers' files may take of the file system of `dir`, in bytes.
pub(super) fn default_capacity(dir: &Path) -> u64 {
    let total =
        nix::sys::statvfs::statvfs(dir).map_or(0, |s| s.blocks().saturating_mul(s.fragment_size()));
    total / 10 * CAPACITY_TENTHS
}

/// Shows a vault's fill.
pub(super) struct Meter(pub Vault);

impl VaultMeter for Meter {
    fn fill(&self) -> VaultFill {
        fill(&self.0)
    }
}

pub(super) fn fill(vault: &Vault) -> VaultFill {
    let stats = vault.stats();
    VaultFill {
        capacity_bytes: stats.capacity_bytes,
        used_bytes: stats.used_bytes,
        objects: stats.objects,
        pending_objects: stats.pending,
        pending_bytes: stats.pending_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_at_a_time_and_a_killed_one_is_noticed() {
        let dir = tempfile::tempdir().unwrap();

        let held = lock(dir.path()).unwrap();
        assert!(matches!(lock(dir.path()), Err(RunError::AlreadyRunning(_))));
        drop(held);
        lock(dir.path()).unwrap();

        assert!(!begin(dir.path()).unwrap());
        assert!(begin(dir.path()).unwrap());
        end(dir.path()).unwrap();
        assert!(!begin(dir.path()).unwrap());
    }

    #[test]
    fn this_boot_has_a_name() {
        assert_eq!(boot_id(), boot_id());
        assert_ne!(fresh_epoch(), fresh_epoch());
    }
}
