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

/// Fewer objects than this are not worth a pack.
const MIN_OBJECTS: usize = 8;
/// Packs after which single requests are timed again: the line may have become short.
const PACKS_BETWEEN: u32 = 64;
/// Pauses between questions about a pack, in milliseconds.
const ASK_PAUSE_MS: (u64, u64) = (500, 60_000);

/// Says whether packs pay: where a request takes long, many objects in one are faster than many
/// requests. Where it does not, one request each is as fast and needs no unpacking.
#[derive(Debug)]
pub(super) struct Gauge {
    above: Duration,
    /// The fastest single request since packs were last used.
    fastest: Option<Duration>,
    packs: u32,
    forbidden: bool,
}

impl Gauge {
    /// Packs pay where the fastest single request takes `above` or longer; zero: always.
    pub fn new(above: Duration) -> Self {
        Self {
            above,
            fastest: None,
            packs: 0,
            forbidden: false,
        }
    }

    pub fn pays(&self) -> bool {
        let slow = self.fastest.is_some_and(|fastest| fastest >= self.above);
        let due = self.packs >= PACKS_BETWEEN;
        !self.forbidden && (self.above.is_zero() || (slow && !due))
    }

    /// A single request took so long.
    pub fn single(&mut self, took: Duration) {
        let stale = std::mem::take(&mut self.packs) > 0;
        let before = self.fastest.filter(|_| !stale);
        self.fastest = Some(before.map_or(took, |before| before.min(took)));
    }

    /// A pack was begun.
    pub fn pack(&mut self) {
        self.packs = self.packs.saturating_add(1);
    }

    /// The store does not take packs.
    pub fn forbid(&mut self) {
        self.forbidden = true;
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
        let _slot = self.packs.acquire().await;
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
        if let Err(error) = self.store.put_bytes(&put, built.bytes).await {
            if !matches!(error, SendError::Later(_)) {
                tracing::warn!(%error, "the store takes no packs: objects go one by one");
                self.gauge.lock().forbid();
            }
            let why = error.to_string();
            steps.extend(self.all_anew(&entries, &why).await?);
            return Ok(steps);
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
        Ok(Next::Again {
            progressed: false,
            why: why.to_owned(),
        })
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
            metadata: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn packs_pay_on_a_long_line_and_the_line_is_looked_at_again() {
        let (short, long) = (Duration::from_millis(2), Duration::from_millis(100));
        let mut gauge = Gauge::new(Duration::from_millis(20));
        assert!(!gauge.pays(), "nothing is known yet");
        gauge.single(long);
        assert!(gauge.pays());
        gauge.single(short);
        assert!(!gauge.pays(), "the fastest counts");

        let mut gauge = Gauge::new(Duration::from_millis(20));
        gauge.single(long);
        for _ in 0..PACKS_BETWEEN {
            assert!(gauge.pays());
            gauge.pack();
        }
        assert!(!gauge.pays(), "time to look again");
        gauge.single(short);
        assert!(!gauge.pays(), "the line is short now");

        let mut always = Gauge::new(Duration::ZERO);
        assert!(always.pays());
        always.forbid();
        assert!(!always.pays());
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
