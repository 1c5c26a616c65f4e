//! Walks through everything that the vault holds.

use longhaul_vault::{JobId, ObjectInfo, Vault, Version};

/// Objects in one step of the walk.
const STEP: usize = 1000;

/// Version and length of every object in `jobs` that fits, oldest first. Blocks.
pub(super) fn versions(
    vault: &Vault,
    jobs: &[JobId],
    fits: impl Fn(&ObjectInfo) -> bool,
) -> Vec<(Version, u64)> {
    let mut found = Vec::new();
    for job in jobs {
        let mut after: Option<String> = None;
        while let Ok(page) = vault.list(job, "", after.as_deref(), STEP) {
            after = page.items.last().map(|info| info.key.clone());
            let fitting = page.items.into_iter().filter(|info| fits(info));
            found.extend(fitting.map(|info| (info.version, info.size)));
            if !page.more {
                break;
            }
        }
    }
    found.sort_unstable();
    found
}
