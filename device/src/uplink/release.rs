//! Releases the bytes of delivered objects when space is needed, oldest first: until then the box
//! can still give them back.

use std::time::Duration;

use longhaul_vault::{Delivery, DeliveryEvent, Error as VaultError, Vault, Version};
use tokio_util::sync::CancellationToken;

use super::{UplinkConfig, UplinkError};

/// How often the fill is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Objects in one step of the walk.
const STEP: usize = 1000;

pub(super) async fn run(
    config: &UplinkConfig,
    vault: Vault,
    stop: CancellationToken,
) -> Result<(), UplinkError> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
        let mut excess = excess(&vault, config.release_above_percent);
        if excess == 0 {
            continue;
        }
        let walked = vault.clone();
        let delivered = tokio::task::spawn_blocking(move || delivered(&walked)).await;
        for (version, size) in delivered.unwrap_or_default() {
            if excess == 0 || stop.is_cancelled() {
                break;
            }
            match vault.deliver(version, DeliveryEvent::Released).await {
                Ok(()) => {
                    excess = excess.saturating_sub(size);
                    tracing::debug!(%version, size, "released");
                }
                // Overwritten or deleted meanwhile.
                Err(VaultError::NoSuchVersion(_) | VaultError::InvalidTransition(_)) => {}
                Err(VaultError::Closed) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Bytes above the mark.
fn excess(vault: &Vault, percent: u8) -> u64 {
    let stats = vault.stats();
    let mark = stats.capacity_bytes / 100 * u64::from(percent.min(100));
    stats.used_bytes.saturating_sub(mark)
}

/// Delivered versions whose bytes are still here, oldest first.
fn delivered(vault: &Vault) -> Vec<(Version, u64)> {
    let mut found = Vec::new();
    for job in vault.jobs() {
        let mut after: Option<String> = None;
        while let Ok(page) = vault.list(&job, "", after.as_deref(), STEP) {
            after = page.items.last().map(|info| info.key.clone());
            let fits = page
                .items
                .into_iter()
                .filter(|info| info.resident && info.delivery == Delivery::Verified);
            found.extend(fits.map(|info| (info.version, info.size)));
            if !page.more {
                break;
            }
        }
    }
    found.sort_unstable();
    found
}
