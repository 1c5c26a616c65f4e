//! Completes uploads: joins the parts, reads the object back, compares, and only then says so.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt};
use longhaul_protocol::ids::{BoxId, ObjectKey};
use longhaul_protocol::upload::{CompleteResult, CompleteUpload, CompleteUploads, Completed};

use super::plan;
use super::{AT_ONCE, Refusal, abort_at_store, check_count, length, may_deliver};
use crate::fleet::{Fleet, FleetError, FleetEventKind};
use crate::objects::bucket::Content;
use crate::store::batch::uploads_verified;
use crate::store::objects::object_get;
use crate::store::uploads::{UploadRow, UploadState, upload_advance, upload_get};

/// What the bucket has in place of an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Compared {
    /// The very bytes.
    Equal,
    /// Nothing.
    Absent,
    /// Something else.
    Differs(Content),
}

/// Where one upload stands on its way through completion.
enum Step {
    Verified(UploadRow),
    Restart(UploadRow, String),
    Said(CompleteResult),
}

/// Completes up to 256 uploads. Completing twice is harmless.
pub(in crate::boxes_port) async fn complete(
    fleet: &Fleet,
    box_id: &BoxId,
    request: CompleteUploads,
) -> Result<Completed, Refusal> {
    may_deliver(fleet, box_id)?;
    check_count(request.uploads.len())?;
    let now = fleet.now().0;
    let mut tx = fleet.db().write().await?;
    let mut rows = Vec::with_capacity(request.uploads.len());
    for upload in &request.uploads {
        let row = upload_get(&mut tx, &upload.upload).await?;
        let row = row.filter(|row| row.box_id == *box_id);
        if let Some(row) = &row
            && row.state == UploadState::Started
        {
            let state = UploadState::Completing;
            upload_advance(&mut tx, &row.upload_id, state, None, now).await?;
        }
        rows.push(row);
    }
    tx.commit().await?;

    let steps = rows
        .into_iter()
        .zip(request.uploads)
        .map(|(row, upload)| step(fleet, row, upload));
    let steps: Vec<Step> = futures::stream::iter(steps)
        .buffered(AT_ONCE)
        .try_collect()
        .await?;

    let verified: Vec<&UploadRow> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Verified(row) => Some(row),
            _ => None,
        })
        .collect();
    settle(fleet, &verified).await?;
    let mut uploads = Vec::with_capacity(steps.len());
    for step in steps {
        uploads.push(match step {
            Step::Verified(_) => CompleteResult::Verified,
            Step::Restart(row, reason) => restart(fleet, &row, reason).await?,
            Step::Said(result) => result,
        });
    }
    Ok(Completed { uploads })
}

async fn step(
    fleet: &Fleet,
    row: Option<UploadRow>,
    upload: CompleteUpload,
) -> Result<Step, Refusal> {
    let again = |reason: &str| {
        let reason = reason.to_owned();
        Ok(Step::Said(CompleteResult::Restart { reason }))
    };
    let Some(row) = row else {
        return again("no such upload of this box");
    };
    match row.state {
        UploadState::Verified => return Ok(Step::Said(CompleteResult::Verified)),
        UploadState::Failed | UploadState::Aborted => return again("the upload was given up"),
        UploadState::Started | UploadState::Completing => {}
    }
    let (bucket, key) = (row.bucket.as_str(), row.object_key.as_str());
    if length(row.part_bytes) > 0 {
        let count = plan::part_count(length(row.bytes), length(row.part_bytes));
        if usize::try_from(count) != Ok(upload.etags.len()) {
            let reason = format!("{} ETags for {count} parts", upload.etags.len());
            return Ok(Step::Restart(row, reason));
        }
        let Some(s3_upload) = &row.s3_upload_id else {
            return again("the upload was not begun at the object store");
        };
        let joined = fleet
            .buckets()
            .multipart_complete(bucket, key, s3_upload, &upload.etags)
            .await;
        match joined {
            Ok(()) => {}
            // Completed before, by a process that died before it could say so: the bytes tell.
            Err(error) if error.is_absent() => {}
            Err(error) if error.is_bad_part() => {
                let reason = error.to_string();
                return Ok(Step::Restart(row, reason));
            }
            Err(error) if error.is_denial() => return later(fleet, bucket).await,
            Err(error) => return Err(FleetError::from(error).into()),
        }
    }
    let content = match fleet.buckets().content(bucket, key).await {
        Err(error) if error.is_denial() => return later(fleet, bucket).await,
        content => content.map_err(FleetError::from)?,
    };
    match compared(&row, content) {
        Compared::Equal => Ok(Step::Verified(row)),
        Compared::Absent => Ok(Step::Restart(
            row,
            "the bucket has no such object".to_owned(),
        )),
        Compared::Differs(found) => {
            let mut tx = fleet.db().read().await?;
            let there = object_get(&mut tx, bucket, &row.object_key).await?;
            if there.is_some_and(|o| o.box_id == row.box_id && o.version > row.version) {
                return Ok(Step::Said(CompleteResult::Refused {
                    reason: "a later version of this object is in the bucket already".to_owned(),
                }));
            }
            let reason = format!(
                "the bucket has {} bytes with BLAKE3 {}, not {} bytes with {}",
                found.bytes, found.blake3, row.bytes, row.blake3
            );
            Ok(Step::Restart(row, reason))
        }
    }
}

/// Reads the object back from the bucket.
pub(crate) async fn compare(fleet: &Fleet, row: &UploadRow) -> Result<Compared, Refusal> {
    let found = fleet
        .buckets()
        .content(&row.bucket, row.object_key.as_str())
        .await
        .map_err(FleetError::from)?;
    Ok(compared(row, found))
}

fn compared(row: &UploadRow, found: Option<Content>) -> Compared {
    let want = Content {
        bytes: length(row.bytes),
        blake3: row.blake3,
    };
    match found {
        None => Compared::Absent,
        Some(found) if found == want => Compared::Equal,
        Some(found) => Compared::Differs(found),
    }
}

/// The store denies us this one: what was sent stays, and the others need not wait for it.
async fn later(fleet: &Fleet, bucket: &str) -> Result<Step, Refusal> {
    let held = fleet.destination_refused(bucket).await?.held;
    Ok(Step::Said(CompleteResult::Later {
        held: held.is_some(),
        reason: held.unwrap_or_else(|| format!("the object store denied access to {bucket}")),
    }))
}

/// Takes down that objects are in the bucket, byte for byte.
pub(crate) async fn settle(fleet: &Fleet, rows: &[&UploadRow]) -> Result<(), Refusal> {
    if rows.is_empty() {
        return Ok(());
    }
    let now = fleet.now().0;
    // One statement takes an object once: versions of the same object follow each other.
    let mut rounds: Vec<Vec<&str>> = Vec::new();
    let mut times: HashMap<(&str, &ObjectKey), usize> = HashMap::new();
    for row in rows {
        let time = times.entry((&row.bucket, &row.object_key)).or_default();
        if rounds.len() == *time {
            rounds.push(Vec::new());
        }
        rounds[*time].push(row.upload_id.as_str());
        *time += 1;
    }
    let mut tx = fleet.db().write().await?;
    for uploads in rounds {
        uploads_verified(&mut tx, &uploads, now).await?;
    }
    tx.commit().await?;
    for row in rows {
        let kind = FleetEventKind::ObjectVerified {
            bucket: row.bucket.clone(),
            key: row.object_key.clone(),
            bytes: length(row.bytes),
        };
        fleet.tell(Some(&row.box_id), kind);
    }
    Ok(())
}

/// Gives the attempt up, so that the next start begins anew.
async fn restart(
    fleet: &Fleet,
    row: &UploadRow,
    reason: String,
) -> Result<CompleteResult, Refusal> {
    tracing::warn!(upload = %row.upload_id, box_id = %row.box_id, reason, "upload begins anew");
    let (state, why) = (UploadState::Failed, Some(reason.as_str()));
    let mut tx = fleet.db().write().await?;
    upload_advance(&mut tx, &row.upload_id, state, why, fleet.now().0).await?;
    tx.commit().await?;
    abort_at_store(fleet, row).await;
    Ok(CompleteResult::Restart { reason })
}
