//! Begins uploads. Asking twice for the same version of an object yields the same upload.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt};
use longhaul_protocol::ids::{BoxId, TicketId, UploadId};
use longhaul_protocol::upload::{StartResult, StartUploads, Started, UploadObject};
use longhaul_protocol::value::UnixMillis;

use super::complete::{Compared, compare, settle};
use super::plan;
use super::{AT_ONCE, Refusal, check_count, length, may_deliver};
use crate::fleet::{Fleet, FleetError};
use crate::objects::bucket::PutHeaders;
use crate::objects::names::{MAX_OBJECT_BYTES, check_bucket, check_headers};
use crate::store::objects::object_get;
use crate::store::tickets::{TicketRow, ticket_get};
use crate::store::uploads::{UploadRow, UploadState, upload_restart, upload_start};
use crate::store::{Tx, new_id};

/// Begins uploads of up to 256 objects.
pub(in crate::boxes_port) async fn start(
    fleet: &Fleet,
    box_id: &BoxId,
    request: StartUploads,
) -> Result<Started, Refusal> {
    may_deliver(fleet, box_id)?;
    check_count(request.objects.len())?;
    let now = fleet.now();
    let mut tx = fleet.db().write().await?;
    let mut tickets = HashMap::new();
    let mut taken = Vec::with_capacity(request.objects.len());
    for object in &request.objects {
        let ticket = ticket(&mut tx, &mut tickets, &object.ticket).await?;
        taken.push(match check(box_id, object, ticket) {
            Err(reason) => Err(reason),
            Ok(()) => take_down(&mut tx, box_id, object, now).await?,
        });
    }
    tx.commit().await?;
    let results = taken.into_iter().map(|taken| begin(fleet, taken));
    let uploads = futures::stream::iter(results)
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(Started { uploads })
}

async fn ticket<'a>(
    tx: &mut Tx,
    known: &'a mut HashMap<TicketId, Option<TicketRow>>,
    id: &TicketId,
) -> Result<Option<&'a TicketRow>, Refusal> {
    if !known.contains_key(id) {
        let row = ticket_get(tx, id).await?;
        known.insert(id.clone(), row);
    }
    Ok(known.get(id).and_then(Option::as_ref))
}

/// What no amount of trying again changes. A ticket that has ended since is fine: the box took the
/// object while it was valid.
fn check(box_id: &BoxId, object: &UploadObject, ticket: Option<&TicketRow>) -> Result<(), String> {
    check_bucket(&object.object.bucket)?;
    check_headers(object.content_type.as_deref(), &object.metadata)?;
    if object.bytes > MAX_OBJECT_BYTES {
        return Err(format!(
            "{} bytes are more than a bucket holds in one object ({MAX_OBJECT_BYTES})",
            object.bytes
        ));
    }
    let ticket = ticket
        .filter(|ticket| ticket.box_id == *box_id)
        .ok_or_else(|| format!("ticket {} was not made for this box", object.ticket))?;
    if ticket.bucket != object.object.bucket {
        return Err(format!(
            "ticket {} is for bucket {}, not {}",
            object.ticket, ticket.bucket, object.object.bucket
        ));
    }
    Ok(())
}

/// Writes the upload down, or finds it; `Err` in words if it will not be taken.
async fn take_down(
    tx: &mut Tx,
    box_id: &BoxId,
    object: &UploadObject,
    now: UnixMillis,
) -> Result<Result<UploadRow, String>, Refusal> {
    let (Ok(version), Ok(bytes)) = (
        i64::try_from(object.object.version),
        i64::try_from(object.bytes),
    ) else {
        return Ok(Err("version or length is larger than any".to_owned()));
    };
    let there = object_get(tx, &object.object.bucket, &object.object.key).await?;
    if there.is_some_and(|there| there.box_id == *box_id && there.version > version) {
        return Ok(Err(
            "a later version of this object is in the bucket already".to_owned(),
        ));
    }
    let id: UploadId = new_id("up")
        .parse()
        .map_err(|e| FleetError::internal("failed to make an identifier", e))?;
    let part_bytes = plan::part_bytes(object.bytes);
    let new = UploadRow {
        upload_id: id,
        box_id: box_id.clone(),
        bucket: object.object.bucket.clone(),
        object_key: object.object.key.clone(),
        version,
        ticket_id: object.ticket.clone(),
        s3_upload_id: None,
        bytes,
        blake3: object.blake3,
        content_type: object.content_type.clone(),
        metadata: serde_json::to_string(&object.metadata)
            .map_err(|e| FleetError::internal("failed to write metadata", e))?,
        part_bytes: i64::try_from(part_bytes).unwrap_or(i64::MAX),
        state: UploadState::Started,
        reason: None,
        created: now.0,
        updated: now.0,
    };
    let (mut row, _) = upload_start(tx, &new).await?;
    if row.blake3 != object.blake3 || row.bytes != bytes {
        return Ok(Err(format!(
            "version {version} was begun before with other content, as upload {}",
            row.upload_id
        )));
    }
    if matches!(row.state, UploadState::Failed | UploadState::Aborted) {
        upload_restart(tx, &row.upload_id, None, now.0).await?;
        row.state = UploadState::Started;
        row.s3_upload_id = None;
    }
    Ok(Ok(row))
}

/// Says how an upload that is written down goes on.
async fn begin(fleet: &Fleet, taken: Result<UploadRow, String>) -> Result<StartResult, Refusal> {
    let row = match taken {
        Ok(row) => row,
        Err(reason) => return Ok(StartResult::Refused { reason }),
    };
    let upload = row.upload_id.clone();
    if row.state == UploadState::Verified {
        return Ok(StartResult::Verified { upload });
    }
    let (bucket, key) = (row.bucket.as_str(), row.object_key.as_str());
    fleet
        .buckets()
        .ensure(bucket)
        .await
        .map_err(FleetError::from)?;
    let mut s3_upload = row.s3_upload_id.clone();
    if row.state == UploadState::Completing {
        // The answer to its completion was lost. It is either in the bucket, or begins anew.
        if compare(fleet, &row).await? == Compared::Equal {
            settle(fleet, &[&row]).await?;
            return Ok(StartResult::Verified { upload });
        }
        super::abort_at_store(fleet, &row).await;
        s3_upload = None;
    }
    let metadata = serde_json::from_str(&row.metadata).unwrap_or_default();
    let headers = PutHeaders {
        content_type: row.content_type.as_deref(),
        metadata: &metadata,
    };
    let part_bytes = length(row.part_bytes);
    if part_bytes == 0 {
        if row.state == UploadState::Completing {
            restart(fleet, &upload, None).await?;
        }
        let put = fleet.buckets().presign_put(bucket, key, headers).await;
        let put = put.map_err(FleetError::from)?;
        return Ok(StartResult::Single { upload, put });
    }
    if s3_upload.is_none() {
        // If this process dies before the next line is done, the search for orphans frees it.
        let begun = fleet.buckets().multipart_begin(bucket, key, headers).await;
        let begun = begun.map_err(FleetError::from)?;
        restart(fleet, &upload, Some(&begun)).await?;
    }
    Ok(StartResult::Multipart {
        upload,
        part_bytes,
        parts: plan::part_count(length(row.bytes), part_bytes),
    })
}

async fn restart(fleet: &Fleet, id: &UploadId, s3_upload: Option<&str>) -> Result<(), Refusal> {
    let mut tx = fleet.db().write().await?;
    upload_restart(&mut tx, id, s3_upload, fleet.now().0).await?;
    tx.commit().await?;
    Ok(())
}
