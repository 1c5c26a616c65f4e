//! The second step of a version: its bytes, in one request or in parts, to the object store.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use longhaul_protocol::ids::UploadId;
use longhaul_protocol::upload::{CompleteUpload, PartUrlsRequest, PresignedPut, StartResult};
use longhaul_vault::{Delivery, DeliveryEvent, Error as VaultError, ObjectInfo, Version};
use tokio_util::sync::CancellationToken;

use super::UplinkError;
use super::carry::{Again, Carrier, Next, Steps};
use super::send::SendError;
use super::turns::class;

/// Part URLs asked for at a time, signed shortly before they are used.
const URLS: usize = 16;

impl Carrier {
    /// Sends one version as the cloud said.
    pub async fn send(&self, info: ObjectInfo, result: StartResult) -> Steps {
        let version = info.version;
        let priority = self.throttle.priority(&info.job.to_string());
        let next = match result {
            StartResult::Single { upload, put } => {
                let _slot = self.singles.enter(priority).await;
                let _stream = self.throttle.stream(priority).await;
                let began = Instant::now();
                let sent = self
                    .store
                    .put(&self.parts.vault, version, None, &put, &self.throttle)
                    .await;
                match sent {
                    Ok(_) => {
                        self.gauge_single(began.elapsed(), &put).await;
                        self.sent(version, upload, Vec::new()).await
                    }
                    // An earlier request whose answer was lost, or somebody else: the cloud looks.
                    Err(SendError::Exists) => self.sent(version, upload, Vec::new()).await,
                    Err(error) => self.not_sent(&info, &upload, error, false).await?,
                }
            }
            StartResult::Multipart {
                upload,
                part_bytes,
                parts,
            } => {
                let _slot = self.multiparts[class(priority)].enter(priority).await;
                self.send_parts(&info, &upload, part_bytes, parts).await?
            }
            // These are settled where they are told.
            StartResult::Verified { .. }
            | StartResult::Refused { .. }
            | StartResult::Packed { .. }
            | StartResult::Later { .. } => Next::Done,
        };
        Ok(vec![(version, next)])
    }

    async fn send_parts(
        &self,
        info: &ObjectInfo,
        upload: &UploadId,
        part_bytes: u64,
        count: u32,
    ) -> Result<Next, UplinkError> {
        let version = info.version;
        let mut done = match self.parts.vault.head_version(version) {
            Ok(info) => match info.delivery {
                Delivery::InFlight { parts, .. } => parts,
                _ => BTreeMap::new(),
            },
            Err(VaultError::NoSuchVersion(_)) => return Ok(Next::Done),
            Err(error) => return Err(error.into()),
        };
        let mut progressed = false;
        let missing: Vec<u32> = (1..=count).filter(|n| !done.contains_key(n)).collect();
        for numbers in missing.chunks(URLS) {
            let puts = match self.urls(upload, numbers).await {
                Ok(puts) => puts,
                Err(why) => {
                    return Ok(Next::Again(Again {
                        why,
                        progressed,
                        ..Again::default()
                    }));
                }
            };
            let sends = numbers
                .iter()
                .copied()
                .zip(puts)
                .map(|(number, put)| async move {
                    let result = self.part(info, upload, part_bytes, number, put).await;
                    (number, result)
                });
            let stop = CancellationToken::new();
            let sends = futures::stream::iter(sends).take_until(stop.cancelled());
            let mut sends = pin!(sends.buffer_unordered(self.most_parts));
            let mut failed = None;
            while let Some((number, result)) = sends.next().await {
                let etag = match result {
                    Ok(etag) => etag,
                    // No more set out, but those that have may yet arrive and are not sent again.
                    Err(
                        error @ (SendError::Later(_) | SendError::Busy { .. } | SendError::Held),
                    ) => {
                        stop.cancel();
                        failed.get_or_insert(error);
                        continue;
                    }
                    Err(error) => return self.not_sent(info, upload, error, progressed).await,
                };
                let event = DeliveryEvent::PartDone {
                    number,
                    etag: etag.clone(),
                };
                if !self.tell(version, event).await? {
                    return Ok(Next::Done);
                }
                progressed = true;
                self.refusals.lock().remove(&version);
                done.insert(number, etag);
            }
            if let Some(error) = failed {
                return self.not_sent(info, upload, error, progressed).await;
            }
        }
        Ok(self
            .sent(version, upload.clone(), done.into_values().collect())
            .await)
    }

    async fn part(
        &self,
        info: &ObjectInfo,
        upload: &UploadId,
        part_bytes: u64,
        number: u32,
        put: PresignedPut,
    ) -> Result<String, SendError> {
        let priority = self.throttle.priority(&info.job.to_string());
        let turn = self.pace.turn(priority).await;
        let _stream = self.throttle.stream(priority).await;
        if self.is_gone(info.version) {
            return Err(SendError::Gone);
        }
        let sent = self
            .part_in_turn(info, upload, part_bytes, number, put)
            .await;
        match &sent {
            Ok(_) => turn.went_well(),
            Err(SendError::Later(_) | SendError::Busy { .. }) => turn.congested(),
            // Says nothing about the way.
            Err(_) => {}
        }
        sent
    }

    async fn part_in_turn(
        &self,
        info: &ObjectInfo,
        upload: &UploadId,
        part_bytes: u64,
        number: u32,
        put: PresignedPut,
    ) -> Result<String, SendError> {
        let begin = part_bytes.saturating_mul(u64::from(number) - 1);
        let end = begin.saturating_add(part_bytes).min(info.size);
        let vault = &self.parts.vault;
        let range = Some(begin..end);
        let sent = self
            .store
            .put(vault, info.version, range.clone(), &put, &self.throttle)
            .await;
        let Err(SendError::Stale(why)) = sent else {
            return sent;
        };
        // It may have expired while it waited for its turn.
        let fresh = self
            .urls(upload, &[number])
            .await
            .map_err(SendError::Later)?;
        let Some(put) = fresh.first() else {
            return Err(SendError::Later(why));
        };
        self.store
            .put(vault, info.version, range, put, &self.throttle)
            .await
    }

    /// A single request has ended: says whether packs would pay, which the bare round trip tells.
    async fn gauge_single(&self, took: Duration, put: &PresignedPut) {
        if self.gauge.lock().single(took) {
            let round_trip = self.store.round_trip(put).await;
            self.gauge.lock().measured(round_trip);
        }
    }

    async fn urls(&self, upload: &UploadId, numbers: &[u32]) -> Result<Vec<PresignedPut>, String> {
        let request = PartUrlsRequest {
            upload: upload.clone(),
            parts: numbers.to_vec(),
        };
        let answer = self.parts.cloud.parts(request).await;
        let puts = answer.map_err(|error| error.to_string())?.puts;
        if puts.len() != numbers.len() {
            return Err(format!(
                "the cloud signed {} of {} parts",
                puts.len(),
                numbers.len()
            ));
        }
        Ok(puts)
    }

    /// Every byte is there; an object that was overwritten meanwhile is not completed.
    async fn sent(&self, version: Version, upload: UploadId, etags: Vec<String>) -> Next {
        self.refusals.lock().remove(&version);
        if self.is_gone(version) {
            self.abort(vec![upload]).await;
            return Next::Done;
        }
        Next::Complete(CompleteUpload { upload, etags })
    }
}
