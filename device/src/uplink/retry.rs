//! Tries again what was given up, when an operator says so.

use std::sync::Arc;

use longhaul_protocol::command::RetryScope;
use longhaul_vault::{
    Delivery, DeliveryEvent, Error as VaultError, JobId, ObjectInfo, Vault, Version,
};
use tokio::sync::Notify;

/// Objects that are looked at together.
const STEP: usize = 1000;

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
    /// does no harm. They go again while the rest is still being looked for.
    ///
    /// # Errors
    ///
    /// What the vault says, but not that an object has gone meanwhile.
    pub async fn retry(&self, scope: RetryScope) -> Result<u64, VaultError> {
        if let RetryScope::Object { bucket, key } = &scope {
            let failed = failed_object(&self.vault, bucket, key.as_str())?;
            return self.reset(failed.into_iter().collect()).await;
        }
        let mut jobs: Vec<JobId> = self.vault.jobs();
        let bucket = scope.bucket();
        jobs.retain(|job| bucket.is_none_or(|bucket| job.as_str() == bucket));
        let mut reset = 0;
        for job in jobs {
            let mut after = None;
            loop {
                let (vault, job) = (self.vault.clone(), job.clone());
                let page =
                    tokio::task::spawn_blocking(move || page(&vault, &job, after.as_deref())).await;
                let (failed, last) = page.unwrap_or(Err(VaultError::Closed))?;
                reset += self.reset(failed).await?;
                if last.is_none() {
                    break;
                }
                after = last;
            }
        }
        Ok(reset)
    }

    /// Sends these on their way again; says how many there still were.
    async fn reset(&self, failed: Vec<Version>) -> Result<u64, VaultError> {
        let mut reset = 0;
        for version in failed {
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

/// The object, if its delivery was given up.
fn failed_object(vault: &Vault, bucket: &str, key: &str) -> Result<Option<Version>, VaultError> {
    let Ok(job) = bucket.parse() else {
        return Ok(None);
    };
    match vault.head(&job, key) {
        Ok(info) => Ok(is_failed(&info).then_some(info.version)),
        Err(VaultError::NoSuchJob(_) | VaultError::NoSuchObject(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Those of the next [`STEP`] objects behind `after` that were given up, and the last one looked at if
/// there are more. However many have failed, no more are held in memory. Blocks.
fn page(
    vault: &Vault,
    job: &JobId,
    after: Option<&str>,
) -> Result<(Vec<Version>, Option<String>), VaultError> {
    let page = match vault.list(job, "", after, STEP) {
        Ok(page) => page,
        // Erased meanwhile.
        Err(VaultError::NoSuchJob(_)) => return Ok((Vec::new(), None)),
        Err(error) => return Err(error),
    };
    let last = page.items.last().filter(|_| page.more);
    let last = last.map(|info| info.key.clone());
    let failed = page.items.iter().filter(|info| is_failed(info));
    Ok((failed.map(|info| info.version).collect(), last))
}

fn is_failed(info: &ObjectInfo) -> bool {
    matches!(info.delivery, Delivery::Failed { .. })
}
