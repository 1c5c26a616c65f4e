//! What the box says of itself, to whoever asks on the LAN or at its console.

use longhaul_protocol::lan::LanStatus;
use longhaul_protocol::telemetry::VaultFill;
use tokio::sync::watch;

/// Follows the box's status.
#[derive(Clone)]
pub struct StatusSource(watch::Receiver<LanStatus>);

impl StatusSource {
    /// A source and the sender that feeds it.
    pub fn channel(first: LanStatus) -> (watch::Sender<LanStatus>, Self) {
        let (sender, receiver) = watch::channel(first);
        (sender, Self(receiver))
    }

    /// The status now.
    pub fn current(&self) -> LanStatus {
        self.0.borrow().clone()
    }

    /// Waits for another status; false when there will be none, because the agent stops.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// Says how full the store is.
pub trait VaultMeter: Send + Sync {
    /// Its fill now; must not block.
    fn fill(&self) -> VaultFill;
}
