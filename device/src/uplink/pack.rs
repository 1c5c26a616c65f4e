//! Small objects on their way as one: gathered from the vault, sent to the store in one request,
//! taken apart beside the bucket by the cloud.
//!
//! A pack is nothing that the box remembers. Each version's own state says how far it has come, and
//! a box that was killed asks about its versions one by one, or in another pack.

use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use longhaul_protocol::ids::{PackId, UploadId};
use longhaul_protocol::pack::{EntryHeader, begin, end, entry};
use longhaul_protocol::upload::{
    CompleteResult, MAX_PACK_BYTES, MAX_PACK_OBJECTS, MAX_PACKED_BYTES, PackCompleted, PackSent,
    PresignedPut, StartPack, StartResult, UploadObject,
};
use longhaul_protocol::value::Digest32;
use longhaul_vault::{Delivery, DeliveryEvent, Error as VaultError, ObjectInfo, Vault, Version};

use super::UplinkError;
use super::carry::{Carrier, Next, Steps};
use super::cloud::AskError;
use super::send::SendError;
use crate::agent::backoff::Backoff;
use crate::clock;

/// Fewer objects than this are not worth a pack.
const MIN_OBJECTS: usize = 8;
/// Packs after which single requests are timed again: the line may have become short.
const PACKS_BETWEEN: u32 = 64;
/// Pauses between questions about a pack, in milliseconds.
const ASK_PAUSE_MS: (u64, u64) = (500, 60_000);

/// Pauses after packs were refused again and again, in milliseconds.
const REFUSED_PAUSE_MS: (u64, u64) = (300_000, 3_600_000);

/// Says whether packs pay: where a request takes long, many objects in one are faster than many
/// requests. Where it does not, one request each is as fast and needs no unpacking.
///
/// What counts is the bare round trip. An object that takes long because the box is busy or its
/// sending is limited says nothing about the line, so then the round trip is measured by itself.
#[derive(Debug)]
pub(super) struct Gauge {
    above: Duration,
    /// The shortest round trip that was seen since packs were last used.
    round_trip: Option<Duration>,
    measuring: bool,
    packs: u32,
    /// Packs that the store refused, one after the other.
    refusals: u32,
    pause: Backoff,
    /// No packs before this moment.
    from_ms: u64,
}

impl Gauge {
    /// Packs pay where the round trip takes `above` or longer; zero: always.
    pub fn new(above: Duration) -> Self {
        Self {
            above,
            round_trip: None,
            measuring: false,
            packs: 0,
            refusals: 0,
            pause: Backoff::new(REFUSED_PAUSE_MS.0, REFUSED_PAUSE_MS.1),
            from_ms: 0,
        }
    }

    pub fn pays(&self, now_ms: u64) -> bool {
        let long = self.round_trip.is_some_and(|found| found >= self.above);
        let due = self.packs >= PACKS_BETWEEN;
        now_ms >= self.from_ms && (self.above.is_zero() || (long && !due))
    }

    /// A single request took so long, which is the round trip at the most; says whether that must
    /// be measured.
    pub fn single(&mut self, took: Duration) -> bool {
        let stale = self.packs > 0;
        if took < self.above {
            self.measured(Some(took));
            return false;
        }
        let needed = !self.measuring && (stale || self.round_trip.is_none());
        self.measuring |= needed;
        needed
    }

    /// The round trip took so long; `None` if it could not be measured.
    pub fn measured(&mut self, round_trip: Option<Duration>) {
        self.measuring = false;
        let Some(found) = round_trip else {
            return;
        };
        let stale = std::mem::take(&mut self.packs) > 0;
        let before = self.round_trip.filter(|_| !stale);
        self.round_trip = Some(before.map_or(found, |before| before.min(found)));
    }

    /// A pack was begun.
    pub fn pack(&mut self) {
        self.packs = self.packs.saturating_add(1);
    }

    /// A pack has arrived.
    pub fn arrived(&mut self) {
        self.refusals = 0;
        self.pause.reset();
    }

    /// The store refused a pack. Its URL may have been too old, which the next one is not; the
    /// second time in a row it is the store that takes none for now.
    pub fn refused(&mut self, now_ms: u64) {
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals > 1 {
            self.forbid(now_ms);
        }
    }

    /// No packs for a while.
    pub fn forbid(&mut self, now_ms: u64) {
        // At least half of the ceiling: this is a pause, and not jitter.
        let pause = self.pause.next(u64::MAX);
        self.from_ms = now_ms.saturating_add(pause.max(REFUSED_PAUSE_MS.0 / 2));
    }
}

/// A pack that the cloud awaits.
#[derive(Debug)]
pub(super) struct PackJob {
    pack: PackId,
    put: PresignedPut,
    entries: Vec<Packed>,
}

#[derive(Debug)]
struct Packed {
    info: ObjectInfo,
    upload: UploadId,
    blake3: Digest32,
}

/// The objects that travel together, by their place in `objects`: small ones of one bucket, as many
/// as fit; none if there are too few.
pub(super) fn choose(objects: &[UploadObject]) -> Vec<usize> {
    let Some(bucket) = objects.iter().find(|o| o.bytes <= MAX_PACKED_BYTES) else {
        return Vec::new();
    };
    let bucket = &bucket.object.bucket;
    let mut room = MAX_PACK_BYTES;
    let mut fits = |object: &UploadObject| {
        // Escapes may make a name six times as long, which is still a short header.
        let cost = object.bytes + 6 * object.object.key.as_str().len() as u64 + 512;
        let fits =
            object.bytes <= MAX_PACKED_BYTES && object.object.bucket == *bucket && cost <= room;
        if fits {
            room -= cost;
        }
        fits
    };
    let chosen: Vec<usize> = objects
        .iter()
        .enumerate()
        .filter_map(|(at, object)| fits(object).then_some(at))
        .take(MAX_PACK_OBJECTS)
        .collect();
    if chosen.len() < MIN_OBJECTS {
        return Vec::new();
    }
    chosen
}

impl Carrier {
    /// Asks the cloud for a pack of these objects.
    pub async fn start_pack(
        &self,
        infos: Vec<ObjectInfo>,
        objects: Vec<UploadObject>,
    ) -> Result<Result<Vec<(Version, Next)>, AskError>, UplinkError> {
        let digests: Vec<Digest32> = objects.iter().map(|o| o.blake3).collect();
        let started = match self.parts.cloud.start_pack(StartPack { objects }).await {
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
        self.gauge.lock().pack();
        let mut entries = Vec::with_capacity(infos.len());
        let mut others = Vec::new();
        for ((info, result), blake3) in infos.into_iter().zip(started.uploads).zip(digests) {
            match result {
                StartResult::Packed { upload } => entries.push(Packed {
                    info,
                    upload,
                    blake3,
                }),
                result => others.push(self.begun(Box::new(info), result)),
            }
        }
        let mut steps = try_join_all(others).await?;
        if let Some(first) = entries.first().map(|entry| entry.info.version) {
            let job = PackJob {
                pack: started.pack,
                put: started.put,
                entries,
            };
            steps.push((first, Next::Pack(Box::new(job))));
        }
        Ok(Ok(steps))
    }

    /// Carries a pack to its end; yields what is to be done next with each of its versions.
    pub async fn carry_pack(&self, job: PackJob) -> Steps {
        let PackJob { pack, put, entries } = job;
        let bucket = entries.first().map(|entry| entry.info.job.to_string());
        let priority = self.throttle.priority(&bucket.unwrap_or_default());
        let _slot = self.packs.enter(priority).await;
        let mut steps = Vec::with_capacity(entries.len());
        let marked = entries.into_iter().map(|entry| async move {
            let goes = self.in_flight(&entry).await?;
            Ok::<_, UplinkError>((entry, goes))
        });
        let mut going = Vec::new();
        for (entry, goes) in try_join_all(marked).await? {
            if goes {
                going.push(entry);
            } else {
                steps.push((entry.info.version, Next::Done));
            }
        }
        let vault = self.parts.vault.clone();
        let built = tokio::task::spawn_blocking(move || build(&vault, going)).await;
        let Ok(built) = built else {
            return Err(VaultError::Closed.into());
        };
        for (entry, error) in built.left_out {
            let next = match SendError::from(error) {
                SendError::Gone => Next::Done,
                SendError::Unreadable(why) => self.give_up(&entry.info, &why).await?,
                error => self.anew(&entry, &error.to_string()).await?,
            };
            steps.push((entry.info.version, next));
        }
        let entries = built.entries;
        let sent = {
            let _stream = self.throttle.stream(priority).await;
            let bytes = built.bytes;
            self.store.put_bytes(&put, bytes, &self.throttle).await
        };
        if let Err(error) = sent {
            let passes = matches!(
                error,
                SendError::Later(_) | SendError::Busy { .. } | SendError::Held
            );
            if !passes {
                tracing::warn!(%error, "the store refused a pack");
                self.gauge.lock().refused(clock::now().mono_ms);
            }
            let why = error.to_string();
            steps.extend(self.all_anew(&entries, &why).await?);
            return Ok(steps);
        }
        self.gauge.lock().arrived();
        // Deleted or overwritten while the pack was on its way: the cloud leaves it out.
        let (gone, entries): (Vec<_>, Vec<_>) =
            (entries.into_iter()).partition(|entry| self.is_gone(entry.info.version));
        if !gone.is_empty() {
            self.abort(gone.iter().map(|entry| entry.upload.clone()).collect())
                .await;
            let gone = gone.iter().map(|entry| (entry.info.version, Next::Done));
            steps.extend(gone);
        }
        let arrived = entries
            .iter()
            .map(|entry| self.tell(entry.info.version, DeliveryEvent::Delivered));
        try_join_all(arrived).await?;
        steps.extend(self.unpacked(pack, entries).await?);
        Ok(steps)
    }

    /// Makes durable that the version is on its way; false if it is gone.
    async fn in_flight(&self, entry: &Packed) -> Result<bool, UplinkError> {
        let (version, upload) = (entry.info.version, entry.upload.to_string());
        match &entry.info.delivery {
            Delivery::InFlight { upload: known, .. } if *known == upload => return Ok(true),
            Delivery::OnBox => {}
            _ => {
                self.tell(version, DeliveryEvent::Reset).await?;
            }
        }
        self.tell(version, DeliveryEvent::Started { upload }).await
    }

    /// Asks until the pack was taken apart.
    async fn unpacked(&self, pack: PackId, entries: Vec<Packed>) -> Steps {
        let mut pause = Backoff::new(ASK_PAUSE_MS.0, ASK_PAUSE_MS.1);
        let results = loop {
            let asked = PackSent { pack: pack.clone() };
            match self.parts.cloud.pack_sent(asked).await {
                Ok(PackCompleted::Unpacked { uploads }) => break uploads,
                Ok(PackCompleted::Unpacking) => pause.reset(),
                Ok(PackCompleted::Restart { reason }) => {
                    return self.all_anew(&entries, &reason).await;
                }
                Err(AskError::Refused(reason)) => return self.all_anew(&entries, &reason).await,
                Err(AskError::Later(why)) => {
                    tracing::warn!(%pack, why, "the cloud does not answer about a pack");
                }
            }
            let pause = pause.next(rand::random());
            tokio::time::sleep(Duration::from_millis(pause)).await;
        };
        let steps = entries.iter().map(|entry| async {
            let version = entry.info.version;
            let info = match self.parts.vault.head_version(version) {
                Ok(info) => info,
                // Overwritten meanwhile: what the bucket has now is an earlier version, whole.
                Err(VaultError::NoSuchVersion(_)) => return Ok((version, Next::Done)),
                Err(error) => return Err(error.into()),
            };
            let next = match results.get(&entry.upload) {
                Some(CompleteResult::Verified) => self.settle(&info, &entry.upload).await?,
                Some(CompleteResult::Refused { reason }) => self.give_up(&info, reason).await?,
                Some(CompleteResult::Restart { reason }) => self.anew(entry, reason).await?,
                Some(CompleteResult::Later { reason, held }) => {
                    self.later(&info, reason.clone(), *held).await?
                }
                None => self.anew(entry, "it travels in another pack").await?,
            };
            Ok((version, next))
        });
        try_join_all(steps).await
    }

    async fn all_anew(&self, entries: &[Packed], why: &str) -> Steps {
        let steps = entries
            .iter()
            .map(|entry| async { Ok((entry.info.version, self.anew(entry, why).await?)) });
        try_join_all(steps).await
    }

    async fn anew(&self, entry: &Packed, why: &str) -> Result<Next, UplinkError> {
        self.tell(entry.info.version, DeliveryEvent::Reset).await?;
        Ok(Next::again(why))
    }
}

struct Built {
    bytes: Bytes,
    entries: Vec<Packed>,
    left_out: Vec<(Packed, VaultError)>,
}

/// Reads the versions into one pack; blocks. A version that was overwritten is left out: never are
/// other bytes read in its place.
fn build(vault: &Vault, going: Vec<Packed>) -> Built {
    let mut bytes = begin();
    let (mut entries, mut left_out) = (Vec::with_capacity(going.len()), Vec::new());
    for packed in going {
        match read(vault, packed.info.version) {
            Ok(body) => {
                let header = EntryHeader {
                    key: packed.info.key.clone(),
                    bytes: body.len() as u64,
                    blake3: packed.blake3,
                    // The cloud knows the rest.
                    content_type: None,
                    metadata: std::collections::BTreeMap::new(),
                };
                let Ok(header) = entry(&header) else {
                    left_out.push((packed, VaultError::EmptyKey));
                    continue;
                };
                bytes.extend(header);
                bytes.extend(body);
                entries.push(packed);
            }
            Err(error) => left_out.push((packed, error)),
        }
    }
    bytes.extend(end());
    Built {
        bytes: bytes.into(),
        entries,
        left_out,
    }
}

fn read(vault: &Vault, version: Version) -> Result<Vec<u8>, VaultError> {
    let mut reader = vault.get_version(version, None)?;
    let mut body = Vec::new();
    while let Some(chunk) = reader.next_chunk()? {
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use longhaul_protocol::journal::ObjectVersion;
    use proptest::prelude::*;

    fn object(bucket: bool, key: usize, bytes: u64) -> UploadObject {
        UploadObject {
            object: ObjectVersion {
                bucket: if bucket { "haul" } else { "other" }.to_owned(),
                key: format!("k{key}").parse().expect("a key"),
                version: 1,
            },
            ticket: "t".parse().expect("an id"),
            bytes,
            blake3: Digest32([0; 32]),
            content_type: None,
            headers: std::collections::BTreeMap::new(),
            metadata: std::collections::BTreeMap::new(),
        }
    }

    const SHORT: Duration = Duration::from_millis(2);
    const LONG: Duration = Duration::from_millis(100);

    fn gauge() -> Gauge {
        Gauge::new(Duration::from_millis(20))
    }

    #[test]
    fn packs_pay_on_a_long_line_and_the_line_is_looked_at_again() {
        let mut gauge = gauge();
        assert!(!gauge.pays(0), "nothing is known yet");
        assert!(gauge.single(LONG), "that may be the line");
        assert!(!gauge.single(LONG), "it is being measured");
        assert!(!gauge.pays(0));
        gauge.measured(Some(LONG));
        assert!(gauge.pays(0));
        for _ in 0..PACKS_BETWEEN {
            assert!(gauge.pays(0));
            gauge.pack();
        }
        assert!(!gauge.pays(0), "time to look again");
        gauge.single(SHORT);
        assert!(!gauge.pays(0), "the line is short now");
        assert!(Gauge::new(Duration::ZERO).pays(0), "always");
    }

    #[test]
    fn a_busy_box_on_a_short_line_sends_no_packs() {
        let mut gauge = gauge();

        assert!(gauge.single(LONG));
        gauge.measured(Some(SHORT));

        for _ in 0..100 {
            assert!(!gauge.single(LONG), "the line is known");
            assert!(!gauge.pays(0));
        }
    }

    #[test]
    fn a_measurement_that_failed_is_made_again() {
        let mut gauge = gauge();
        assert!(gauge.single(LONG));
        gauge.measured(None);
        assert!(gauge.single(LONG));
    }

    #[test]
    fn a_refused_pack_is_tried_once_more_and_then_after_a_while() {
        let mut gauge = gauge();
        gauge.measured(Some(LONG));
        gauge.refused(0);
        assert!(gauge.pays(0), "its URL may have been too old");
        gauge.refused(0);
        assert!(!gauge.pays(0));
        assert!(gauge.pays(REFUSED_PAUSE_MS.0), "for a time only");

        gauge.arrived();
        gauge.refused(REFUSED_PAUSE_MS.0);
        assert!(gauge.pays(REFUSED_PAUSE_MS.0));
    }

    proptest! {
        #[test]
        fn what_is_chosen_fits_one_pack_of_one_bucket(
            sizes in prop::collection::vec((any::<bool>(), 0..2 * MAX_PACKED_BYTES), 0..200),
        ) {
            let objects: Vec<_> = sizes
                .iter()
                .enumerate()
                .map(|(at, (bucket, bytes))| object(*bucket, at, *bytes))
                .collect();

            let chosen = choose(&objects);

            prop_assert!(chosen.is_empty() || chosen.len() >= MIN_OBJECTS);
            prop_assert!(chosen.len() <= MAX_PACK_OBJECTS);
            let chosen: Vec<_> = chosen.into_iter().map(|at| &objects[at]).collect();
            prop_assert!(chosen.iter().all(|o| o.bytes <= MAX_PACKED_BYTES));
            prop_assert!(chosen.windows(2).all(|w| w[0].object.bucket == w[1].object.bucket));
            let total: u64 = chosen.iter().map(|o| o.bytes + 300).sum();
            prop_assert!(total <= MAX_PACK_BYTES);
        }
    }
}
