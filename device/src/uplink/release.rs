//! Releases the bytes of delivered objects when space is needed, oldest first: until then the box
//! can still give them back.

use std::time::Duration;

use longhaul_vault::{DeliveryEvent, Error as VaultError, Vault};
use tokio_util::sync::CancellationToken;

use super::{UplinkConfig, UplinkError};

/// How often the fill is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Objects that are looked up at a time.
const STEP: usize = 256;

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
        let mut after = None;
        while excess > 0 && !stop.is_cancelled() {
            let asked = vault.clone();
            let some = tokio::task::spawn_blocking(move || asked.releasable(after, STEP));
            let some = some.await.unwrap_or_default();
            let Some((last, _)) = some.last() else { break };
            after = Some(*last);
            for (version, size) in some {
                if excess == 0 || stop.is_cancelled() {
                    break;
                }
                match vault.deliver(version, DeliveryEvent::Released).await {
                    Ok(()) => {
                        excess = excess.saturating_sub(size);
                        tracing::debug!(%version, size, "released");
                    }
                    // Overwritten or deleted meanwhile, or told of as damaged.
                    Err(
                        VaultError::NoSuchVersion(_)
                        | VaultError::InvalidTransition(_)
                        | VaultError::Damaged(_),
                    ) => {}
                    Err(VaultError::Closed) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
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
