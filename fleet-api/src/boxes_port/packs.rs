//! Packs towards the buckets: a box announces small objects, sends them as one, and is told what
//! became of each. [`crate::unpack`] does the work in between.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::StatusCode;
use longhaul_protocol::ids::{BoxId, PackId, UploadId};
use longhaul_protocol::upload::{
    CompleteResult, MAX_PACK_OBJECTS, MAX_PACKED_BYTES, PackCompleted, PackSent, PackStarted,
    StartPack, StartResult,
};

use super::Refusal;
use super::uploads::{Checker, may_deliver};
use crate::fleet::{Fleet, FleetError, held};
use crate::objects::bucket::PutHeaders;
use crate::store::batch::pack_add;
use crate::store::new_id;
use crate::store::packs::{PackState, pack_advance, pack_get, pack_insert, pack_uploads};
use crate::store::uploads::UploadState;

/// How long an answer waits for a pack to be taken apart before the box is told to ask again.
const WAIT: Duration = Duration::from_secs(20);
/// Between looks at it.
const LOOK: Duration = Duration::from_millis(100);

/// Begins a pack of up to 1,024 objects.
pub(super) async fn start(
    fleet: &Fleet,
    box_id: &BoxId,
    request: StartPack,
) -> Result<PackStarted, Refusal> {
    may_deliver(fleet, box_id)?;
    let invalid = |text: &str| Refusal::new(StatusCode::BAD_REQUEST, "invalid", text);
    if !(1..=MAX_PACK_OBJECTS).contains(&request.objects.len()) {
        return Err(invalid("a pack has 1 to 1,024 objects"));
    }
    let staging = fleet.buckets().staging().ok_or_else(|| {
        Refusal::new(
            StatusCode::CONFLICT,
            "no-staging",
            "packs cannot be staged at this object store: send the objects one by one",
        )
    })?;
    let (bucket, buckets) = (&request.objects[0].object.bucket, fleet.buckets());
    let mut names = BTreeSet::new();
    for object in &request.objects {
        if object.bytes > MAX_PACKED_BYTES {
            return Err(invalid("an object is too long for a pack"));
        }
        if object.object.bucket != *bucket {
            return Err(invalid("a pack is for one bucket"));
        }
        if !names.insert(&object.object.key) {
            return Err(invalid("a name comes twice in one pack"));
        }
    }
    let pack: PackId = new_id("pk")
        .parse()
        .map_err(|e| FleetError::internal("failed to make an identifier", e))?;
    buckets
        .ensure(staging.bucket())
        .await
        .map_err(FleetError::from)?;
    let denied = match buckets.ensure(bucket).await {
        Err(error) if error.is_denial() => fleet.destination_refused(bucket).await?.held,
        made => made.map(|()| None).map_err(FleetError::from)?,
    };
    let now = fleet.now();
    let mut tx = fleet.db().write().await?;
    let waits = match denied {
        None => held(&mut tx, bucket).await?,
        denied => denied,
    };
    pack_insert(&mut tx, &pack, box_id, now.0).await?;
    let keys: Vec<&str> = names.iter().map(|key| key.as_str()).collect();
    let mut checker = Checker::new(box_id, now);
    checker.look_ahead(&mut tx, bucket, &keys).await?;
    let mut packed = Vec::new();
    let mut uploads = Vec::with_capacity(request.objects.len());
    for object in &request.objects {
        let row = match checker.take_down(&mut tx, object).await? {
            Ok((row, _)) => row,
            Err(result) => {
                uploads.push(result);
                continue;
            }
        };
        let upload = row.upload_id;
        uploads.push(if row.state == UploadState::Verified {
            StartResult::Verified { upload }
        } else if let Some(reason) = waits.clone() {
            StartResult::Later { reason, held: true }
        } else {
            packed.push(upload.clone());
            StartResult::Packed { upload }
        });
    }
    let packed: Vec<&str> = packed.iter().map(UploadId::as_str).collect();
    pack_add(&mut tx, &pack, &packed).await?;
    tx.commit().await?;
    let headers = PutHeaders {
        content_type: Some(longhaul_protocol::pack::CONTENT_TYPE),
        metadata: &BTreeMap::new(),
        kept: &BTreeMap::new(),
        only_new: false,
    };
    let key = staging.key(&pack);
    let put = buckets.presign_put(staging.bucket(), &key, headers).await;
    Ok(PackStarted {
        put: put.map_err(FleetError::from)?,
        pack,
        uploads,
    })
}

/// Has a pack taken apart, and says what came of it.
pub(super) async fn sent(
    fleet: &Fleet,
    box_id: &BoxId,
    request: PackSent,
) -> Result<PackCompleted, Refusal> {
    may_deliver(fleet, box_id)?;
    let id = request.pack;
    let mut tx = fleet.db().write().await?;
    let row = pack_get(&mut tx, &id).await?;
    if row.is_none_or(|row| row.box_id != *box_id) {
        let reason = "no such pack of this box".to_owned();
        return Ok(PackCompleted::Restart { reason });
    }
    let step = (PackState::Started, PackState::Sent);
    pack_advance(&mut tx, &id, step, None, fleet.now().0).await?;
    tx.commit().await?;
    fleet.unpack_wake().ring();

    let result = tokio::time::timeout(WAIT, async {
        loop {
            if let Some(result) = result(fleet, &id).await? {
                return Ok(result);
            }
            tokio::time::sleep(LOOK).await;
        }
    });
    result.await.unwrap_or(Ok(PackCompleted::Unpacking))
}

async fn result(fleet: &Fleet, id: &PackId) -> Result<Option<PackCompleted>, Refusal> {
    let mut tx = fleet.db().read().await?;
    let Some(row) = pack_get(&mut tx, id).await? else {
        return Ok(None);
    };
    match row.state {
        PackState::Started | PackState::Sent => Ok(None),
        PackState::Lost => Ok(Some(PackCompleted::Restart {
            reason: row.reason.unwrap_or_else(|| "the pack is lost".to_owned()),
        })),
        PackState::Unpacked => {
            let uploads = pack_uploads(&mut tx, id).await?;
            let result = |state, reason: Option<String>| match state {
                UploadState::Verified => CompleteResult::Verified,
                _ => CompleteResult::Restart {
                    reason: reason.unwrap_or_else(|| "the upload was given up".to_owned()),
                },
            };
            let uploads = uploads
                .into_iter()
                .map(|row| (row.upload_id, result(row.state, row.reason)));
            Ok(Some(PackCompleted::Unpacked {
                uploads: uploads.collect(),
            }))
        }
    }
}
