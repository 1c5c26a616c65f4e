//! How a version's way ends: in the bucket, given up, or gone; each durable before it is told.

use longhaul_protocol::ids::UploadId;
use longhaul_protocol::journal::{Fact, ObjectVersion};
use longhaul_protocol::upload::AbortUploads;
use longhaul_vault::{Delivery, DeliveryEvent, Error as VaultError, ObjectInfo, Version};

use super::UplinkError;
use super::carry::{Again, Carrier, Next, Steps};
use super::cloud::AskError;
use crate::journal::JournalError;

/// The longest reason that is kept, in characters.
const REASON_CHARS: usize = 1000;

impl Carrier {
    /// The object is in the bucket. The fact comes first: a power cut repeats it, never loses it.
    pub(super) async fn settle(
        &self,
        info: &ObjectInfo,
        upload: &UploadId,
    ) -> Result<Next, UplinkError> {
        let Some(object) = identity(info) else {
            return Ok(Next::Done);
        };
        let upload = upload.clone();
        if let Some(again) = self.write_down(Fact::Delivered { object, upload }).await? {
            return Ok(again);
        }
        if info.delivery != Delivery::InCloud {
            self.tell(info.version, DeliveryEvent::Delivered).await?;
        }
        self.tell(info.version, DeliveryEvent::Verified).await?;
        tracing::debug!(
            key = info.key,
            version = info.version.0,
            bytes = info.size,
            "delivered"
        );
        self.bucket_takes(&info.job.to_string()).await?;
        Ok(Next::Done)
    }

    /// The object cannot be delivered without someone's help.
    pub(super) async fn give_up(
        &self,
        info: &ObjectInfo,
        reason: &str,
    ) -> Result<Next, UplinkError> {
        let reason: String = reason.chars().take(REASON_CHARS).collect();
        tracing::error!(
            key = info.key,
            version = info.version.0,
            reason,
            "not deliverable"
        );
        if let Some(object) = identity(info) {
            let fact = Fact::DeliveryFailed {
                object,
                reason: reason.clone(),
            };
            if let Some(again) = self.write_down(fact).await? {
                return Ok(again);
            }
        }
        self.tell(info.version, DeliveryEvent::Failed { reason })
            .await?;
        Ok(Next::Done)
    }

    /// Gives up a version that the cloud will not even hear about.
    pub(super) async fn give_up_version(&self, version: Version, reason: &str) -> Steps {
        let next = match self.parts.vault.head_version(version) {
            Ok(info) => self.give_up(&info, reason).await?,
            Err(VaultError::NoSuchVersion(_)) => Next::Done,
            Err(error) => return Err(error.into()),
        };
        Ok(vec![(version, next)])
    }

    /// Appends a fact; a journal that is full for now makes the version wait.
    pub(super) async fn write_down(&self, fact: Fact) -> Result<Option<Next>, UplinkError> {
        match self.parts.journal.append(fact).await {
            Ok(_) => Ok(None),
            Err(error @ JournalError::Full { .. }) => Ok(Some(Next::Again(Again {
                why: error.to_string(),
                progressed: true,
                ..Again::default()
            }))),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes an event durable; false if the version is gone or has come further already.
    pub(super) async fn tell(
        &self,
        version: Version,
        event: DeliveryEvent,
    ) -> Result<bool, UplinkError> {
        match self.parts.vault.deliver(version, event).await {
            Ok(()) => Ok(true),
            Err(VaultError::NoSuchVersion(_) | VaultError::InvalidTransition(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Tells the cloud that uploads are given up. Best effort: it finds orphans by itself.
    pub(super) async fn abort(&self, uploads: Vec<UploadId>) -> bool {
        let aborted = self.parts.cloud.abort(AbortUploads { uploads }).await;
        if let Err(error) = &aborted {
            tracing::debug!(%error, "uploads could not be given up");
        }
        !matches!(aborted, Err(AskError::Later(_)))
    }

    pub(super) fn is_gone(&self, version: Version) -> bool {
        matches!(
            self.parts.vault.head_version(version),
            Err(VaultError::NoSuchVersion(_))
        )
    }
}

/// The version as the cloud knows it.
pub(super) fn identity(info: &ObjectInfo) -> Option<ObjectVersion> {
    Some(ObjectVersion {
        bucket: info.job.to_string(),
        key: info.key.parse().ok()?,
        version: info.version.0,
    })
}
