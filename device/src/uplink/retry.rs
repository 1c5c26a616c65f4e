//! Tries again what was given up, when an operator says so.

use std::sync::Arc;

use longhaul_protocol::command::RetryScope;
use longhaul_vault::{Delivery, DeliveryEvent, Error as VaultError, JobId, Vault, Version};
use tokio::sync::Notify;

use super::walk;

/// Sends objects on their way again whose delivery was given up.
#[derive(Clone)]
pub struct Retrier {
    vault: Vault,
    rung: Arc<Notify>,
}

impl Retrier {
    /// Over this vault.
    pub fn new(vault: Vault) -> Self {
        Self {
            vault,
            rung: Arc::default(),
        }
    }

    /// Resets every object in `scope` that was given up; says how many there were. Doing so twice
    /// does no harm.
    ///
    /// # Errors
    ///
    /// What the vault says, but not that an object has gone meanwhile.
    pub async fn retry(&self, scope: RetryScope) -> Result<u64, VaultError> {
        let vault = self.vault.clone();
        let failed = tokio::task::spawn_blocking(move || failed(&vault, &scope)).await;
        let mut reset = 0;
        for version in failed.unwrap_or(Err(VaultError::Closed))? {
            match self.vault.deliver(version, DeliveryEvent::Reset).await {
                Ok(()) => reset += 1,
                Err(VaultError::NoSuchVersion(_) | VaultError::InvalidTransition(_)) => {}
                Err(error) => return Err(error),
            }
        }
        if reset > 0 {
            self.rung.notify_one();
        }
        Ok(reset)
    }

    /// Resolves when objects were reset that the planner has passed by.
    pub(super) async fn rung(&self) {
        self.rung.notified().await;
    }
}

fn failed(vault: &Vault, scope: &RetryScope) -> Result<Vec<Version>, VaultError> {
    let is_failed = |delivery: &Delivery| matches!(delivery, Delivery::Failed { .. });
    if let RetryScope::Object { bucket, key } = scope {
        let Ok(job) = bucket.parse() else {
            return Ok(Vec::new());
        };
        return match vault.head(&job, key.as_str()) {
            Ok(info) if is_failed(&info.delivery) => Ok(vec![info.version]),
            Ok(_) | Err(VaultError::NoSuchJob(_) | VaultError::NoSuchObject(_)) => Ok(Vec::new()),
            Err(error) => Err(error),
        };
    }
    let mut jobs: Vec<JobId> = vault.jobs();
    jobs.retain(|job| {
        scope
            .bucket()
            .is_none_or(|bucket| job.to_string() == bucket)
    });
    let found = walk::versions(vault, &jobs, |info| is_failed(&info.delivery));
    Ok(found.into_iter().map(|(version, _)| version).collect())
}
