//! Delivery: the cloud begins uploads and hands out presigned requests, the box sends, the cloud
//! compares what is in the bucket.
//!
//! Every step is in the database before it is taken at the object store, so that whichever of the
//! three dies at whatever moment, asking again goes on where it stopped.

mod complete;
mod plan;
mod start;

use futures::{StreamExt, TryStreamExt};
use http::StatusCode;
use longhaul_protocol::ids::{BoxId, UploadId};
use longhaul_protocol::upload::{
    AbortUploads, BucketRefused, BucketState, MAX_ITEMS, PartUrls, PartUrlsRequest,
};

use super::Refusal;
use crate::fleet::{Fleet, FleetError};
use crate::store::boxes::BoxState;
use crate::store::packs::pack_entry_is_busy;
use crate::store::tickets::ticket_names;
use crate::store::uploads::{UploadRow, UploadState, upload_advance, upload_get};

pub(super) use complete::complete;
pub(crate) use complete::{Compared, compare, settle};
pub(super) use start::{Checker, start};

/// Requests to the object store at once, for one request of a box.
const AT_ONCE: usize = 8;
/// Characters of what a store said that are kept in the log.
const REASON_CHARS: usize = 400;

/// Presigns parts of an upload.
pub(super) async fn parts(
    fleet: &Fleet,
    box_id: &BoxId,
    request: PartUrlsRequest,
) -> Result<PartUrls, Refusal> {
    may_deliver(fleet, box_id)?;
    check_count(request.parts.len())?;
    let mut tx = fleet.db().read().await?;
    let row = own(
        upload_get(&mut tx, &request.upload).await?,
        box_id,
        &request.upload,
    )?;
    drop(tx);
    let gone = || {
        Refusal::new(
            StatusCode::CONFLICT,
            "upload-not-open",
            format!("upload {} is {}: start it again", request.upload, row.state),
        )
    };
    let s3_upload = row.s3_upload_id.as_deref().ok_or_else(gone)?;
    if row.state != UploadState::Started {
        return Err(gone());
    }
    let count = plan::part_count(length(row.bytes), length(row.part_bytes));
    if let Some(beyond) = request.parts.iter().find(|n| !(1..=count).contains(*n)) {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "invalid",
            format!("part {beyond} of upload {}: it has {count}", request.upload),
        ));
    }
    let puts = request.parts.into_iter().map(|number| {
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        let key = row.object_key.as_str();
        fleet
            .buckets()
            .presign_part(&row.bucket, key, s3_upload, number)
    });
    let puts = futures::stream::iter(puts)
        .buffered(AT_ONCE)
        .try_collect()
        .await
        .map_err(FleetError::from)?;
    Ok(PartUrls { puts })
}

/// Says whether a bucket that refuses what a box sends refuses everything.
pub(super) async fn refused(
    fleet: &Fleet,
    box_id: &BoxId,
    request: BucketRefused,
) -> Result<BucketState, Refusal> {
    may_deliver(fleet, box_id)?;
    let mut tx = fleet.db().read().await?;
    let theirs = ticket_names(&mut tx, box_id, &request.bucket).await?;
    drop(tx);
    if !theirs {
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "unknown-bucket",
            "no ticket of this box names that bucket",
        ));
    }
    let reason: String = request.reason.chars().take(REASON_CHARS).collect();
    tracing::warn!(%box_id, bucket = request.bucket, reason, "the object store refuses a box");
    Ok(fleet.destination_refused(&request.bucket).await?)
}

/// Gives uploads up.
pub(super) async fn abort(
    fleet: &Fleet,
    box_id: &BoxId,
    request: AbortUploads,
) -> Result<(), Refusal> {
    check_count(request.uploads.len())?;
    let now = fleet.now().0;
    let mut tx = fleet.db().write().await?;
    let mut to_abort = Vec::new();
    for id in &request.uploads {
        let Some(row) = upload_get(&mut tx, id)
            .await?
            .filter(|row| row.box_id == *box_id)
        else {
            continue;
        };
        // It ends by itself in a moment, and must not be overtaken meanwhile.
        if pack_entry_is_busy(&mut tx, id).await? {
            continue;
        }
        if upload_advance(&mut tx, id, UploadState::Aborted, None, now).await? {
            to_abort.push(row);
        }
    }
    tx.commit().await?;
    for row in to_abort {
        abort_at_store(fleet, &row).await;
    }
    Ok(())
}

/// Frees what the store holds of an upload that the database has given up already. If the store
/// does not answer, the periodic search for orphans does it later.
async fn abort_at_store(fleet: &Fleet, row: &UploadRow) {
    let Some(s3_upload) = &row.s3_upload_id else {
        return;
    };
    let (bucket, key) = (row.bucket.as_str(), row.object_key.as_str());
    if let Err(error) = fleet
        .buckets()
        .multipart_abort(bucket, key, s3_upload)
        .await
    {
        tracing::warn!(
            upload = %row.upload_id,
            error = &error as &dyn std::error::Error,
            "an upload is orphaned for now"
        );
    }
}

pub(super) fn may_deliver(fleet: &Fleet, box_id: &BoxId) -> Result<(), Refusal> {
    match fleet.admitted().get(box_id) {
        Some(BoxState::Active) => Ok(()),
        _ => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "quarantined",
            format!(
                "box {box_id} is quarantined: it gets no tickets and delivers nothing until it is \
                 released"
            ),
        )),
    }
}

fn check_count(count: usize) -> Result<(), Refusal> {
    if (1..=MAX_ITEMS).contains(&count) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::BAD_REQUEST,
        "invalid",
        format!("1 to {MAX_ITEMS} items in one request, not {count}"),
    ))
}

/// The upload, if it is this box's.
fn own(row: Option<UploadRow>, box_id: &BoxId, id: &UploadId) -> Result<UploadRow, Refusal> {
    row.filter(|row| row.box_id == *box_id).ok_or_else(|| {
        Refusal::new(
            StatusCode::NOT_FOUND,
            "unknown-upload",
            format!("no upload {id} of this box: start it again"),
        )
    })
}

/// Lengths in the database were written from `u64` and are never negative.
fn length(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
