//! Takes packs apart: small objects arrive as one staged object that customers do not see, and
//! leave it as ordinary objects of their buckets, each compared before it is called verified.
//!
//! The state is in the database before each step: an entry is marked before it is put, and settled
//! after it was read back. A process that dies leaves marks that the next one finds; putting the
//! same bytes twice is harmless, and an object is there whole or not at all.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use longhaul_protocol::ids::{ObjectKey, PackId};
use longhaul_protocol::pack::{Decoder, Event, PackError};
use longhaul_protocol::upload::MAX_PACKED_BYTES;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::boxes_port::{Compared, Refusal, compare, settle};
use crate::fleet::{Fleet, FleetError, abilities};
use crate::objects::bucket::{Content, PutHeaders, texts};
use crate::store::batch::{objects_there, pack_entries_begin};
use crate::store::packs::{
    PackRow, PackState, pack_advance, pack_claim, pack_claim_until, pack_claims_end, pack_get,
    pack_uploads,
};
use crate::store::uploads::{UploadRow, UploadState, upload_advance};

/// Entries that are put at a time, between two commits.
const ENTRIES: usize = 256;
/// Bytes of entries that lie in memory for that, at the most.
const ENTRIES_BYTES: usize = 4 << 20;
/// Requests to the object store at a time.
const AT_ONCE: usize = 64;
/// How long a claim holds, in milliseconds; extended while the work goes on.
const CLAIM_MS: i64 = 8_000;
/// How often it is extended.
const EXTEND: Duration = Duration::from_secs(2);
/// A pack that could not be taken apart is tried again after this, in milliseconds.
const AGAIN_MS: i64 = 5_000;
/// How often work is looked for where nobody wakes the worker: another process was told of it.
const LOOK: Duration = Duration::from_secs(2);
/// A pack that was begun and not sent within a day is given up, in milliseconds: its URL has ended.
const ABANDONED_MS: i64 = 86_400_000;

/// Wakes the worker of this process.
#[derive(Debug, Default)]
pub struct Wake(Notify);

impl Wake {
    /// Says that there is a pack to take apart.
    pub fn ring(&self) {
        self.0.notify_one();
    }
}

/// Why a pack was not taken apart this time.
#[derive(Debug, thiserror::Error)]
enum UnpackError {
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It never will be.
    #[error("{0}")]
    Lost(String),
}

impl From<crate::store::StoreError> for UnpackError {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Fleet(error.into())
    }
}

impl From<crate::objects::bucket::BucketError> for UnpackError {
    fn from(error: crate::objects::bucket::BucketError) -> Self {
        Self::Fleet(error.into())
    }
}

/// Takes packs apart until `stop`.
pub async fn run(fleet: Fleet, stop: CancellationToken) {
    loop {
        let worked = tokio::select! {
            () = stop.cancelled() => return,
            worked = next(&fleet) => worked,
        };
        match worked {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "a pack was not taken apart");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = fleet.unpack_wake().0.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Ends the claims of a process that is no more; only where no other process takes packs apart.
///
/// # Errors
///
/// [`FleetError`] if the database fails.
pub async fn resume(fleet: &Fleet) -> Result<(), FleetError> {
    let mut tx = fleet.db().write().await?;
    pack_claims_end(&mut tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Deletes staged packs that nobody will take apart any more.
///
/// # Errors
///
/// [`FleetError`] if the database or the object store fails.
pub async fn sweep(fleet: &Fleet) -> Result<(), FleetError> {
    let Some(staging) = fleet.buckets().staging() else {
        return Ok(());
    };
    let query = crate::fleet::ObjectQuery {
        bucket: staging.bucket().to_owned(),
        prefix: staging.prefix().to_owned(),
        limit: 1000,
        ..crate::fleet::ObjectQuery::default()
    };
    let now = fleet.now().0;
    for staged in fleet.buckets().list(&query).await?.objects {
        // What is no pack is not ours to delete.
        let Some(id) = staging.pack(&staged.key) else {
            continue;
        };
        let row = pack_get(&mut fleet.db().read().await?, &id).await?;
        let wanted = row.as_ref().is_some_and(|row| match row.state {
            PackState::Sent => true,
            PackState::Started => now.saturating_sub(row.created) < ABANDONED_MS,
            PackState::Unpacked | PackState::Lost => false,
        });
        if wanted {
            continue;
        }
        if let Some(row) = row.filter(|row| row.state == PackState::Started) {
            let mut tx = fleet.db().write().await?;
            let step = (PackState::Started, PackState::Lost);
            pack_advance(&mut tx, &row.pack_id, step, Some("never sent whole"), now).await?;
            tx.commit().await?;
        }
        let (bucket, key) = (staging.bucket(), &staged.key);
        fleet.buckets().delete(bucket, key).await?;
    }
    Ok(())
}

/// Takes the next pack apart; `false` if there is none.
async fn next(fleet: &Fleet) -> Result<bool, UnpackError> {
    let now = fleet.now().0;
    let mut tx = fleet.db().write().await?;
    let claimed = pack_claim(&mut tx, now, now.saturating_add(CLAIM_MS)).await?;
    tx.commit().await?;
    let Some(row) = claimed else {
        return Ok(false);
    };
    let unpacked = tokio::select! {
        unpacked = unpack(fleet, &row) => unpacked,
        lost = extend(fleet, &row.pack_id) => Err(lost.into()),
    };
    match unpacked {
        Ok(()) => finish(fleet, &row, PackState::Unpacked, None).await?,
        Err(UnpackError::Lost(reason)) => {
            tracing::warn!(pack = %row.pack_id, box_id = %row.box_id, reason, "a pack is lost");
            finish(fleet, &row, PackState::Lost, Some(&reason)).await?;
        }
        Err(error) => {
            let mut tx = fleet.db().write().await?;
            let again = fleet.now().0.saturating_add(AGAIN_MS);
            pack_claim_until(&mut tx, &row.pack_id, again).await?;
            tx.commit().await?;
            return Err(error);
        }
    }
    Ok(true)
}

/// Extends a claim again and again; ends only where that fails.
async fn extend(fleet: &Fleet, id: &PackId) -> FleetError {
    loop {
        tokio::time::sleep(EXTEND).await;
        let extended = async {
            let until = fleet.now().0.saturating_add(CLAIM_MS);
            let mut tx = fleet.db().write().await?;
            pack_claim_until(&mut tx, id, until).await?;
            tx.commit().await
        };
        if let Err(error) = extended.await {
            return error.into();
        }
    }
}

/// Ends a pack: what is not verified by now begins anew.
async fn finish(
    fleet: &Fleet,
    row: &PackRow,
    state: PackState,
    reason: Option<&str>,
) -> Result<(), UnpackError> {
    let now = fleet.now().0;
    let mut tx = fleet.db().write().await?;
    for upload in pack_uploads(&mut tx, &row.pack_id).await? {
        if matches!(upload.state, UploadState::Started | UploadState::Completing) {
            let why = reason.unwrap_or("it was not in the pack");
            let failed = UploadState::Failed;
            upload_advance(&mut tx, &upload.upload_id, failed, Some(why), now).await?;
        }
    }
    let step = (PackState::Sent, state);
    pack_advance(&mut tx, &row.pack_id, step, reason, now).await?;
    tx.commit().await?;
    // What stays behind if this process dies here is swept later.
    if let Some(staging) = fleet.buckets().staging() {
        let (bucket, key) = (staging.bucket(), staging.key(&row.pack_id));
        fleet.buckets().delete(bucket, &key).await?;
    }
    Ok(())
}

/// Puts what the pack holds into the buckets; what was done before is passed over.
async fn unpack(fleet: &Fleet, row: &PackRow) -> Result<(), UnpackError> {
    let mut tx = fleet.db().read().await?;
    let uploads = pack_uploads(&mut tx, &row.pack_id).await?;
    drop(tx);
    let mut wanted: HashMap<ObjectKey, UploadRow> = uploads
        .into_iter()
        .filter(|u| matches!(u.state, UploadState::Started | UploadState::Completing))
        .map(|u| (u.object_key.clone(), u))
        .collect();
    let staged = match fleet.buckets().staging() {
        Some(staging) => {
            let (bucket, key) = (staging.bucket(), staging.key(&row.pack_id));
            fleet.buckets().open(bucket, &key).await?
        }
        None => None,
    };
    let Some(staged) = staged else {
        let lost = "the store does not have it".to_owned();
        return Err(UnpackError::Lost(lost));
    };
    let mut body = staged.body;
    let mut decoder = Decoder::default();
    let mut entry: Option<(UploadRow, Vec<u8>)> = None;
    let (mut batch, mut batch_bytes) = (Vec::new(), 0);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|e| FleetError::internal("failed to read a pack", e))?;
        let mut input = &chunk[..];
        while let Some(event) = decoder.next(&mut input).map_err(|e| lost(&e))? {
            match event {
                Event::Entry(header) => {
                    let key = header.key.parse::<ObjectKey>().ok();
                    entry = key
                        .and_then(|key| wanted.remove(&key))
                        .filter(|u| u64::try_from(u.bytes) == Ok(header.bytes))
                        .filter(|_| header.bytes <= MAX_PACKED_BYTES)
                        .map(|upload| (upload, Vec::new()));
                }
                Event::Body(bytes) => {
                    if let Some((_, held)) = &mut entry {
                        held.extend_from_slice(bytes);
                    }
                }
                Event::EntryEnd => {
                    if let Some((upload, held)) = entry.take() {
                        batch_bytes += held.len();
                        batch.push((upload, Bytes::from(held)));
                    }
                    if batch.len() >= ENTRIES || batch_bytes >= ENTRIES_BYTES {
                        put(fleet, row, std::mem::take(&mut batch)).await?;
                        batch_bytes = 0;
                    }
                }
                Event::End => {}
            }
        }
    }
    // Also of a pack that ends early, each whole entry is good.
    put(fleet, row, batch).await?;
    decoder.finish().map_err(|e| lost(&e))
}

fn lost(error: &PackError) -> UnpackError {
    UnpackError::Lost(error.to_string())
}

/// Puts some entries into their buckets, reads them back, and settles those that are the very bytes.
async fn put(
    fleet: &Fleet,
    pack: &PackRow,
    batch: Vec<(UploadRow, Bytes)>,
) -> Result<(), UnpackError> {
    if batch.is_empty() {
        return Ok(());
    }
    let now = fleet.now().0;
    let mut tx = fleet.db().write().await?;
    let able = abilities(&mut tx, &batch[0].0.bucket).await?;
    let conditional = able.is_some_and(|able| able.conditional_put);
    let bucket = batch[0].0.bucket.clone();
    let mut good = Vec::with_capacity(batch.len());
    for (upload, bytes) in batch {
        if Content::of(&bytes).blake3 == upload.blake3 {
            good.push((upload, bytes));
            continue;
        }
        let why = Some("its bytes in the pack are not the ones that were announced");
        let failed = UploadState::Failed;
        upload_advance(&mut tx, &upload.upload_id, failed, why, now).await?;
    }
    let ids: Vec<&str> = good.iter().map(|(u, _)| u.upload_id.as_str()).collect();
    let keys: Vec<&str> = good.iter().map(|(u, _)| u.object_key.as_str()).collect();
    let ours = pack_entries_begin(&mut tx, &pack.pack_id, &ids, now).await?;
    // What this pack, or another process, has put before is found and not put twice.
    let there = objects_there(&mut tx, &bucket, &keys).await?;
    let begun = good
        .into_iter()
        .filter(|(upload, _)| ours.contains(upload.upload_id.as_str()))
        .map(|(upload, bytes)| {
            let only_new = conditional && !there.contains(upload.object_key.as_str());
            (upload, bytes, only_new)
        });
    pack_claim_until(&mut tx, &pack.pack_id, now.saturating_add(CLAIM_MS)).await?;
    tx.commit().await?;

    let puts = begun.map(|(upload, bytes, only_new)| put_one(fleet, upload, bytes, only_new));
    let arrived: Vec<Option<UploadRow>> = futures::stream::iter(puts)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let arrived: Vec<&UploadRow> = arrived.iter().flatten().collect();
    settle(fleet, &arrived).await?;
    Ok(())
}

/// Yields the upload if the bucket has its very bytes afterwards.
async fn put_one(
    fleet: &Fleet,
    upload: UploadRow,
    bytes: Bytes,
    only_new: bool,
) -> Result<Option<UploadRow>, UnpackError> {
    let (bucket, key) = (upload.bucket.as_str(), upload.object_key.as_str());
    let (metadata, kept) = (texts(&upload.metadata), texts(&upload.headers));
    let headers = PutHeaders {
        content_type: upload.content_type.as_deref(),
        metadata: &metadata,
        kept: &kept,
        only_new,
    };
    let buckets = fleet.buckets();
    let made = buckets.put(bucket, key, headers, bytes.clone()).await?;
    if !made && compare(fleet, &upload).await? != Compared::Equal {
        let headers = PutHeaders {
            only_new: false,
            ..headers
        };
        buckets.put(bucket, key, headers, bytes).await?;
    }
    Ok(match compare(fleet, &upload).await? {
        Compared::Equal => Some(upload),
        // Somebody else wrote there meanwhile: the box sends it again by itself.
        Compared::Absent | Compared::Differs(_) => None,
    })
}
