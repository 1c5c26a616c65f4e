//! Begins uploads. Asking twice for the same version of an object yields the same upload.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use futures::{StreamExt, TryStreamExt};
use longhaul_protocol::ids::{BoxId, TicketId, UploadId};
use longhaul_protocol::upload::{StartResult, StartUploads, Started, UploadObject};
use longhaul_protocol::value::UnixMillis;

use super::complete::{Compared, compare, settle};
use super::plan;
use super::{AT_ONCE, Refusal, check_count, length, may_deliver};
use crate::fleet::{Fleet, FleetError, abilities, held};
use crate::objects::bucket::{BucketError, PutHeaders, texts};
use crate::objects::names::{MAX_OBJECT_BYTES, check_bucket, check_headers, check_kept};
use crate::store::batch::{keys_in_packs, objects_there};
use crate::store::objects::object_get;
use crate::store::packs::pack_make_way;
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
    let mut checker = Checker::new(box_id, now);
    let mut taken = Vec::with_capacity(request.objects.len());
    let mut conditional = HashMap::new();
    let mut waits = HashMap::new();
    for object in &request.objects {
        let bucket = &object.object.bucket;
        if !waits.contains_key(bucket) {
            waits.insert(bucket.clone(), held(&mut tx, bucket).await?);
        }
        let down = checker.take_down(&mut tx, object).await?;
        taken.push(match waits.get(bucket).cloned().flatten() {
            // What is there already is said all the same.
            Some(reason) if !is_verified(&down) => Err(StartResult::Later { reason, held: true }),
            _ => down,
        });
        if request.conditions && !conditional.contains_key(bucket) {
            let able = abilities(&mut tx, bucket).await?;
            conditional.insert(bucket.clone(), able.is_some_and(|a| a.conditional_put));
        }
    }
    tx.commit().await?;
    let results = taken.into_iter().map(|taken| {
        let taken = taken.map(|(row, first)| {
            // Nothing is there that this could be meant to replace: if its answer is lost, the
            // second try finds the first.
            let only_new = first && conditional.get(&row.bucket) == Some(&true);
            (row, only_new)
        });
        begin(fleet, taken)
    });
    let uploads = futures::stream::iter(results)
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(Started { uploads })
}

fn is_verified(down: &Result<(UploadRow, bool), StartResult>) -> bool {
    match down {
        Ok((row, _)) => row.state == UploadState::Verified,
        Err(result) => matches!(result, StartResult::Refused { .. }),
    }
}

/// Checks the objects of one request and writes their uploads down.
pub(in crate::boxes_port) struct Checker<'a> {
    box_id: &'a BoxId,
    now: UnixMillis,
    tickets: HashMap<TicketId, Option<TicketRow>>,
    ahead: Option<Ahead>,
}

/// What was looked up for all objects of a request together, which are of one bucket.
struct Ahead {
    /// Names that are taken in the bucket.
    there: HashSet<String>,
    /// Names of which a version waits in a pack.
    packed: HashSet<String>,
}

impl<'a> Checker<'a> {
    pub fn new(box_id: &'a BoxId, now: UnixMillis) -> Self {
        Self {
            box_id,
            now,
            tickets: HashMap::new(),
            ahead: None,
        }
    }

    /// Looks up all `keys` at once; afterwards only these of `bucket` may be taken down.
    pub async fn look_ahead(
        &mut self,
        tx: &mut Tx,
        bucket: &str,
        keys: &[&str],
    ) -> Result<(), Refusal> {
        self.ahead = Some(Ahead {
            there: objects_there(tx, bucket, keys).await?,
            packed: keys_in_packs(tx, self.box_id, bucket, keys).await?,
        });
        Ok(())
    }

    /// Writes the upload down, or finds it, and says whether nothing of this name was ever sent
    /// before; `Err` is the answer if it cannot be begun.
    pub async fn take_down(
        &mut self,
        tx: &mut Tx,
        object: &UploadObject,
    ) -> Result<Result<(UploadRow, bool), StartResult>, Refusal> {
        let ticket = match self.tickets.entry(object.ticket.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(ticket_get(tx, &object.ticket).await?),
        };
        if let Err(reason) = check(self.box_id, object, ticket.as_ref()) {
            return Ok(Err(StartResult::Refused { reason }));
        }
        take_down(tx, self.box_id, object, self.ahead.as_ref(), self.now).await
    }
}

/// What no amount of trying again changes. A ticket that has ended since is fine: the box took the
/// object while it was valid.
fn check(box_id: &BoxId, object: &UploadObject, ticket: Option<&TicketRow>) -> Result<(), String> {
    check_bucket(&object.object.bucket)?;
    check_headers(object.content_type.as_deref(), &object.metadata)?;
    check_kept(&object.headers)?;
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

async fn take_down(
    tx: &mut Tx,
    box_id: &BoxId,
    object: &UploadObject,
    ahead: Option<&Ahead>,
    now: UnixMillis,
) -> Result<Result<(UploadRow, bool), StartResult>, Refusal> {
    let refused = |reason: String| Ok(Err(StartResult::Refused { reason }));
    let (Ok(version), Ok(bytes)) = (
        i64::try_from(object.object.version),
        i64::try_from(object.bytes),
    ) else {
        return refused("version or length is larger than any".to_owned());
    };
    let name = (object.object.bucket.as_str(), &object.object.key);
    let key = object.object.key.as_str();
    let packed = ahead.is_none_or(|ahead| ahead.packed.contains(key));
    if packed && !pack_make_way(tx, box_id, name, version, now.0).await? {
        let reason = "this object is just being taken out of a pack".to_owned();
        return Ok(Err(StartResult::Later {
            reason,
            held: false,
        }));
    }
    let there = if ahead.is_none_or(|ahead| ahead.there.contains(key)) {
        object_get(tx, &object.object.bucket, &object.object.key).await?
    } else {
        None
    };
    let known = there.is_some();
    if there.is_some_and(|there| there.box_id == *box_id && there.version > version) {
        return refused("a later version of this object is in the bucket already".to_owned());
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
        headers: serde_json::to_string(&object.headers)
            .map_err(|e| FleetError::internal("failed to write headers", e))?,
        part_bytes: i64::try_from(part_bytes).unwrap_or(i64::MAX),
        state: UploadState::Started,
        reason: None,
        created: now.0,
        updated: now.0,
    };
    let (mut row, _) = upload_start(tx, &new).await?;
    if row.blake3 != object.blake3 || row.bytes != bytes {
        return refused(format!(
            "version {version} was begun before with other content, as upload {}",
            row.upload_id
        ));
    }
    // An upload that was begun anew is not as it was written down first.
    let first = !known && row.state == UploadState::Started && row.created == row.updated;
    if matches!(row.state, UploadState::Failed | UploadState::Aborted) {
        upload_restart(tx, &row.upload_id, None, now.0).await?;
        row.state = UploadState::Started;
        row.s3_upload_id = None;
    }
    Ok(Ok((row, first)))
}

/// Says how an upload that is written down goes on.
async fn begin(
    fleet: &Fleet,
    taken: Result<(UploadRow, bool), StartResult>,
) -> Result<StartResult, Refusal> {
    let (row, only_new) = match taken {
        Ok(taken) => taken,
        Err(result) => return Ok(result),
    };
    let upload = row.upload_id.clone();
    if row.state == UploadState::Verified {
        return Ok(StartResult::Verified { upload });
    }
    let (bucket, key) = (row.bucket.as_str(), row.object_key.as_str());
    if let Err(error) = fleet.buckets().ensure(bucket).await {
        return later(fleet, bucket, error).await;
    }
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
    let (metadata, kept) = (texts(&row.metadata), texts(&row.headers));
    let headers = PutHeaders {
        content_type: row.content_type.as_deref(),
        metadata: &metadata,
        kept: &kept,
        only_new,
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
        let begun = match begun {
            Ok(begun) => begun,
            Err(error) => return later(fleet, bucket, error).await,
        };
        restart(fleet, &upload, Some(&begun)).await?;
    }
    Ok(StartResult::Multipart {
        upload,
        part_bytes,
        parts: plan::part_count(length(row.bytes), part_bytes),
    })
}

/// The store did not do its part for one object: that is no reason to keep the others waiting.
async fn later(fleet: &Fleet, bucket: &str, error: BucketError) -> Result<StartResult, Refusal> {
    let held = if error.is_denial() {
        fleet.destination_refused(bucket).await?.held
    } else {
        None
    };
    Ok(StartResult::Later {
        held: held.is_some(),
        reason: held.unwrap_or_else(|| error.to_string()),
    })
}

async fn restart(fleet: &Fleet, id: &UploadId, s3_upload: Option<&str>) -> Result<(), Refusal> {
    let mut tx = fleet.db().write().await?;
    upload_restart(&mut tx, id, s3_upload, fleet.now().0).await?;
    tx.commit().await?;
    Ok(())
}
