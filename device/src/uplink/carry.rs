//! The steps of one version on its way: begin at the cloud, send to the store, complete, settle.
//!
//! Each step ends with what is to be done next with each version that it was given. What a step
//! has learnt is durable in the vault before the step ends.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use longhaul_protocol::ids::UploadId;
use longhaul_protocol::uplink::Priority;
use longhaul_protocol::upload::{
    CompleteResult, CompleteUpload, CompleteUploads, KEPT_HEADERS, MAX_ITEMS, PartUrlsRequest,
    PresignedPut, StartResult, StartUploads, UploadObject,
};
use longhaul_vault::{Delivery, DeliveryEvent, Error as VaultError, ObjectInfo, Version};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::cloud::AskError;
use super::pace::Pace;
use super::pack::{Gauge, PackJob, choose};
use super::record::blake3;
use super::send::{SendError, Store};
use super::settle::identity;
use super::throttle::Throttle;
use super::turns::{Gate, class};
use super::{UplinkConfig, UplinkError, UplinkParts};
use crate::clock;
use crate::intake::TICKET_HEADER;

/// Part URLs asked for at a time, signed shortly before they are used.
const URLS: usize = 16;

/// A version whose requests the store refuses so often in a row has failed, though each was fresh.
const REFUSALS: u32 = 3;

/// Packs on their way at a time; each lies in memory.
const PACKS: usize = 2;

/// A version that failed for now.
#[derive(Debug, Default)]
pub(super) struct Again {
    pub why: String,
    /// It came a good way: the next pause is short.
    pub progressed: bool,
    /// The pause is no shorter than this.
    pub pause: Duration,
}

impl Next {
    /// It failed for now, and nothing was won.
    pub fn again(why: impl Into<String>) -> Self {
        Self::Again(Again {
            why: why.into(),
            ..Again::default()
        })
    }
}

/// What is to be done next with a version.
#[derive(Debug)]
pub(super) enum Next {
    /// Send it as the cloud said.
    Send(Box<ObjectInfo>, StartResult),
    /// Carry this pack: the version is its first, and it tells what becomes of all of them.
    Pack(Box<PackJob>),
    /// Every byte was sent: complete it.
    Complete(CompleteUpload),
    /// It failed for now.
    Again(Again),
    /// Nothing more: it arrived, was given up or is gone.
    Done,
}

/// What a step made of its versions, or why the cloud would not hear about them.
pub(super) enum Asked {
    Answered(Vec<(Version, Next)>),
    Failed(AskError),
}

/// What every step works with.
#[derive(Clone)]
pub(super) struct Carrier {
    pub parts: UplinkParts,
    pub store: Store,
    pub throttle: Throttle,
    pub singles: Gate,
    /// Objects in parts, by priority: one may take days, and must not hold up what is urgent.
    pub multiparts: [Gate; 3],
    /// Parts of all objects that are on their way, and how many wait for their turn.
    pub pace: Pace,
    pub most_parts: usize,
    pub packs: Gate,
    pub gauge: Arc<Mutex<Gauge>>,
    /// How often in a row the store refused a version's requests.
    refusals: Arc<Mutex<HashMap<Version, u32>>>,
}

pub(super) type Steps = Result<Vec<(Version, Next)>, UplinkError>;

impl Carrier {
    pub fn new(
        config: &UplinkConfig,
        parts: &UplinkParts,
        store: Store,
        throttle: Throttle,
    ) -> Self {
        Self {
            parts: parts.clone(),
            store,
            throttle,
            singles: Gate::new(config.singles.get()),
            multiparts: Priority::ALL.map(|_| Gate::new(config.multiparts.get())),
            pace: Pace::new(config.parts, config.most_parts),
            most_parts: config.most_parts.get(),
            packs: Gate::new(PACKS),
            gauge: Arc::new(Mutex::new(Gauge::new(config.pack_above))),
            refusals: Arc::default(),
        }
    }

    /// Asks the cloud how to send these versions.
    pub async fn start(&self, versions: &[Version]) -> Result<Asked, UplinkError> {
        let mut next = Vec::with_capacity(versions.len());
        let (mut infos, mut objects): (Vec<ObjectInfo>, Vec<UploadObject>) = <_>::default();
        for &version in versions {
            match self.describe(version).await? {
                Described::Object(info, object) => {
                    infos.push(*info);
                    objects.push(*object);
                }
                Described::Not(step) => next.push((version, step)),
            }
        }
        if objects.is_empty() {
            return Ok(Asked::Answered(next));
        }
        if self.gauge.lock().pays(clock::now().mono_ms) {
            let chosen = choose(&objects);
            if !chosen.is_empty() {
                let (packed, others): (Vec<_>, Vec<_>) = infos
                    .into_iter()
                    .zip(objects)
                    .enumerate()
                    .partition(|(at, _)| chosen.binary_search(at).is_ok());
                let apart = |pairs: Vec<(usize, (_, _))>| -> (Vec<_>, Vec<_>) {
                    pairs.into_iter().map(|(_, pair)| pair).unzip()
                };
                let (packed, others) = (apart(packed), apart(others));
                let versions: Vec<Version> = packed.0.iter().map(|info| info.version).collect();
                match self.start_pack(packed.0, packed.1).await? {
                    Ok(steps) => next.extend(steps),
                    Err(AskError::Refused(why)) => {
                        tracing::warn!(why, "the cloud takes no packs: objects go one by one");
                        self.gauge.lock().forbid(clock::now().mono_ms);
                        let again = |version| (version, Next::again(&why));
                        next.extend(versions.into_iter().map(again));
                    }
                    Err(error) => return Ok(Asked::Failed(error)),
                }
                (infos, objects) = others;
            }
        }
        while !objects.is_empty() {
            let rest = objects.split_off(objects.len().min(MAX_ITEMS));
            let rest_infos = infos.split_off(objects.len());
            let versions: Vec<Version> = infos.iter().map(|info| info.version).collect();
            match self.start_each(infos, objects).await? {
                Ok(steps) => next.extend(steps),
                Err(error) if next.is_empty() => return Ok(Asked::Failed(error)),
                // What was answered before is not asked again.
                Err(error) => {
                    let again = |version| (version, Next::again(error.to_string()));
                    next.extend(versions.into_iter().map(again));
                }
            }
            (infos, objects) = (rest_infos, rest);
        }
        Ok(Asked::Answered(next))
    }

    async fn start_each(
        &self,
        infos: Vec<ObjectInfo>,
        objects: Vec<UploadObject>,
    ) -> Result<Result<Vec<(Version, Next)>, AskError>, UplinkError> {
        let conditions = true;
        let request = StartUploads {
            objects,
            conditions,
        };
        let started = match self.parts.cloud.start(request).await {
            Ok(started) => started,
            Err(error) => return Ok(Err(error)),
        };
        if started.uploads.len() != infos.len() {
            return Ok(Err(AskError::Later(format!(
                "the cloud answered {} of {} objects",
                started.uploads.len(),
                infos.len()
            ))));
        }
        let steps = infos.into_iter().zip(started.uploads);
        let steps = steps.map(|(info, result)| self.begun(Box::new(info), result));
        Ok(Ok(futures::future::try_join_all(steps).await?))
    }

    async fn describe(&self, version: Version) -> Result<Described, UplinkError> {
        let info = match self.parts.vault.head_version(version) {
            Ok(info) if info.delivery.is_pending() => info,
            Ok(_) | Err(VaultError::NoSuchVersion(_)) => {
                return Ok(Described::Not(Next::Done));
            }
            Err(error) => return Err(error.into()),
        };
        let Some(blake3) = blake3(&self.parts.vault, version).await? else {
            let next = if self.is_gone(version) {
                Next::Done
            } else {
                self.give_up(
                    &info,
                    "the box cannot read the bytes back: push the file again",
                )
                .await?
            };
            return Ok(Described::Not(next));
        };
        let ticket = info.metadata.headers.get(TICKET_HEADER);
        let ticket = ticket.and_then(|ticket| ticket.parse().ok());
        let (Some(ticket), Some(object)) = (ticket, identity(&info)) else {
            let next = self
                .give_up(&info, "the object carries no ticket: push the file again")
                .await?;
            return Ok(Described::Not(next));
        };
        let object = UploadObject {
            object,
            ticket,
            bytes: info.size,
            blake3,
            content_type: info.metadata.content_type.clone(),
            metadata: info.metadata.user.clone(),
            headers: kept(&info.metadata.headers),
        };
        Ok(Described::Object(Box::new(info), Box::new(object)))
    }

    /// Makes durable which upload carries the version, before a byte of it is sent.
    pub(super) async fn begun(
        &self,
        info: Box<ObjectInfo>,
        result: StartResult,
    ) -> Result<(Version, Next), UplinkError> {
        let version = info.version;
        let upload = match &result {
            StartResult::Verified { upload } => {
                let next = self.settle(&info, upload).await?;
                return Ok((version, next));
            }
            StartResult::Refused { reason } => {
                return Ok((version, self.give_up(&info, reason).await?));
            }
            StartResult::Later { reason } => {
                return Ok((version, Next::again(reason)));
            }
            StartResult::Packed { .. } => {
                return Ok((version, Next::again("the cloud awaits a pack")));
            }
            StartResult::Single { upload, .. } | StartResult::Multipart { upload, .. } => upload,
        };
        let wanted = matches!(result, StartResult::Multipart { .. });
        let known = match &info.delivery {
            Delivery::InFlight { upload: known, .. } => *known == upload.to_string(),
            Delivery::OnBox => !wanted,
            _ => false,
        };
        if !known {
            if info.delivery != Delivery::OnBox {
                self.tell(version, DeliveryEvent::Reset).await?;
            }
            // A single request leaves nothing behind that would have to be resumed.
            if wanted {
                let upload = upload.to_string();
                if !self
                    .tell(version, DeliveryEvent::Started { upload })
                    .await?
                {
                    return Ok((version, Next::Done));
                }
            }
        }
        Ok((version, Next::Send(info, result)))
    }

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

    /// Every byte is there; an object that was overwritten meanwhile is not completed.
    async fn sent(&self, version: Version, upload: UploadId, etags: Vec<String>) -> Next {
        self.refusals.lock().remove(&version);
        if self.is_gone(version) {
            self.abort(vec![upload]).await;
            return Next::Done;
        }
        Next::Complete(CompleteUpload { upload, etags })
    }

    async fn not_sent(
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
                self.abort(vec![upload.clone()]).await;
                let reason = format!(
                    "the object store refuses the requests that the cloud signs, fresh ones too: \
                     have the destination tried out, then deliver again; {why}"
                );
                self.give_up(info, &reason).await
            }
            SendError::Lost(why) if self.refused_often(info.version) => {
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
        let steps = sent.iter().zip(completed).map(|((version, upload), result)| async move {
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
            };
            Ok((*version, next))
        });
        Ok(Asked::Answered(futures::future::try_join_all(steps).await?))
    }
}

/// What travels with the object of what the vault keeps beside its bytes.
fn kept(headers: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let travels = |name: &str| KEPT_HEADERS.contains(&name);
    let kept = headers.iter().filter(|(name, _)| travels(name));
    kept.map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

enum Described {
    Object(Box<ObjectInfo>, Box<UploadObject>),
    Not(Next),
}
