//! What becomes of a version whose bytes did not arrive, and the last step of one whose bytes did.

use std::time::Duration;

use longhaul_protocol::ids::UploadId;
use longhaul_protocol::upload::{BucketRefused, CompleteResult, CompleteUpload, CompleteUploads};
use longhaul_vault::{DeliveryEvent, Error as VaultError, ObjectInfo, Version};

use super::UplinkError;
use super::carry::{Again, Asked, Carrier, Next};
use super::cloud::AskError;
use super::send::SendError;

/// A version whose requests the store refuses so often in a row has failed, though each was fresh,
/// unless its bucket is to blame.
const REFUSALS: u32 = 3;
/// What waits for its bucket is tried again no sooner.
const HELD_PAUSE: Duration = Duration::from_secs(5);

impl Carrier {
    /// Counts that a request was refused whose URL was fresh; whether that is enough.
    fn refused_often(&self, version: Version) -> bool {
        let mut refusals = self.refusals.lock();
        let count = refusals.entry(version).or_insert(0);
        *count += 1;
        let often = *count >= REFUSALS;
        if often {
            refusals.remove(&version);
        }
        often
    }

    /// Has the cloud try the bucket out: one that refuses everybody makes its objects wait, and is told
    /// of once. `None` where the object itself is refused.
    async fn bucket_is_to_blame(
        &self,
        info: &ObjectInfo,
        why: &str,
    ) -> Result<Option<Next>, UplinkError> {
        let bucket = info.job.to_string();
        let request = BucketRefused {
            bucket: bucket.clone(),
            reason: why.to_owned(),
        };
        let held = match self.parts.cloud.refused(request).await {
            Ok(state) if state.again => {
                let why = "the bucket took something a moment ago, and refuses this".to_owned();
                return Ok(Some(waiting(why)));
            }
            Ok(state) => state.held,
            // Nobody knows: it is not failed for that.
            Err(AskError::Later(why)) => return Ok(Some(waiting(why))),
            // A cloud that cannot tell.
            Err(AskError::Refused(_)) => None,
        };
        let Some(reason) = held else {
            self.bucket_takes(&bucket).await?;
            return Ok(None);
        };
        Ok(Some(self.bucket_waits(&bucket, reason).await?))
    }

    /// The bucket refuses everybody: told once, and its objects wait.
    pub(super) async fn bucket_waits(
        &self,
        bucket: &str,
        reason: String,
    ) -> Result<Next, UplinkError> {
        if let Some(fact) = self.parts.holds.hold(bucket, &reason) {
            self.write_down(fact).await?;
        }
        Ok(waiting(reason))
    }

    /// The bucket does not refuse everybody.
    pub(super) async fn bucket_takes(&self, bucket: &str) -> Result<(), UplinkError> {
        if let Some(fact) = self.parts.holds.free(bucket) {
            self.write_down(fact).await?;
        }
        Ok(())
    }

    /// What the cloud could not say yet about a version.
    pub(super) async fn later(
        &self,
        info: &ObjectInfo,
        reason: String,
        held: bool,
    ) -> Result<Next, UplinkError> {
        if held {
            return self.bucket_waits(&info.job.to_string(), reason).await;
        }
        Ok(Next::again(reason))
    }

    pub(super) async fn not_sent(
        &self,
        info: &ObjectInfo,
        upload: &UploadId,
        error: SendError,
        progressed: bool,
    ) -> Result<Next, UplinkError> {
        match error {
            SendError::Busy { why, pause } => Ok(Next::Again(Again {
                why,
                progressed,
                pause,
            })),
            // Only what is begun anew is told so: the cloud compares.
            SendError::Exists => Ok(Next::again(error.to_string())),
            // What was begun stays begun: it goes on there.
            SendError::Held => Ok(Next::Again(Again {
                why: error.to_string(),
                progressed: true,
                ..Again::default()
            })),
            SendError::Stale(why) if self.refused_often(info.version) => {
                if let Some(waits) = self.bucket_is_to_blame(info, &why).await? {
                    return Ok(waits);
                }
                self.abort(vec![upload.clone()]).await;
                let reason = format!(
                    "the object store refuses the requests that the cloud signs, fresh ones too: \
                     have the destination tried out, then deliver again; {why}"
                );
                self.give_up(info, &reason).await
            }
            SendError::Lost(why) if self.refused_often(info.version) => {
                if let Some(waits) = self.bucket_is_to_blame(info, &why).await? {
                    return Ok(waits);
                }
                self.abort(vec![upload.clone()]).await;
                let reason = format!("the object store loses every upload that is begun; {why}");
                self.give_up(info, &reason).await
            }
            SendError::Later(why) | SendError::Stale(why) => Ok(Next::Again(Again {
                why,
                progressed,
                ..Again::default()
            })),
            SendError::Lost(why) => {
                self.abort(vec![upload.clone()]).await;
                self.tell(info.version, DeliveryEvent::Reset).await?;
                Ok(Next::again(why))
            }
            SendError::Gone => {
                self.abort(vec![upload.clone()]).await;
                Ok(Next::Done)
            }
            SendError::Refused(reason) | SendError::Unreadable(reason) => {
                self.abort(vec![upload.clone()]).await;
                self.give_up(info, &reason).await
            }
        }
    }

    /// Completes uploads of which every byte was sent.
    pub async fn complete(&self, sent: &[(Version, CompleteUpload)]) -> Result<Asked, UplinkError> {
        // Deleted or overwritten while it waited for the cloud: completed, it would come back.
        let (gone, sent): (Vec<_>, Vec<_>) =
            sent.iter().partition(|(version, _)| self.is_gone(*version));
        if !gone.is_empty() {
            self.abort(
                gone.iter()
                    .map(|(_, upload)| upload.upload.clone())
                    .collect(),
            )
            .await;
        }
        let gone = gone.iter().map(|(version, _)| (*version, Next::Done));
        let mut steps: Vec<_> = gone.collect();
        if sent.is_empty() {
            return Ok(Asked::Answered(steps));
        }
        let uploads = sent.iter().map(|(_, upload)| upload.clone()).collect();
        let completed = match self.parts.cloud.complete(CompleteUploads { uploads }).await {
            Ok(completed) => completed.uploads,
            Err(error) => return Ok(Asked::Failed(error)),
        };
        if completed.len() != sent.len() {
            return Ok(Asked::Failed(AskError::Later(format!(
                "the cloud answered {} of {} uploads",
                completed.len(),
                sent.len()
            ))));
        }
        let settled = sent.iter().zip(completed).map(|((version, upload), result)| async move {
            let info = match self.parts.vault.head_version(*version) {
                Ok(info) => info,
                Err(VaultError::NoSuchVersion(_)) => return Ok((*version, Next::Done)),
                Err(error) => return Err(UplinkError::from(error)),
            };
            let next = match result {
                CompleteResult::Verified => self.settle(&info, &upload.upload).await?,
                CompleteResult::Restart { reason } => {
                    tracing::warn!(key = info.key, %version, reason, "the delivery begins anew");
                    self.tell(*version, DeliveryEvent::Reset).await?;
                    Next::again(reason)
                }
                CompleteResult::Refused { reason } => self.give_up(&info, &reason).await?,
                CompleteResult::Later { reason, held } => self.later(&info, reason, held).await?,
            };
            Ok((*version, next))
        });
        steps.extend(futures::future::try_join_all(settled).await?);
        Ok(Asked::Answered(steps))
    }
}

/// It waits for its bucket.
fn waiting(why: String) -> Next {
    Next::Again(Again {
        why,
        pause: HELD_PAUSE,
        ..Again::default()
    })
}
