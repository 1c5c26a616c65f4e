//! Packs of small objects on their way from a box to the buckets, and which uploads they carry.

use longhaul_protocol::ids::{BoxId, ObjectKey, PackId, UploadId};
use sqlx::FromRow;

use super::tx::plain;
use super::uploads::UploadRow;
use super::{StoreResult, Tx, text_enum};

text_enum! {
    /// How far a pack has come.
    PackState {
        /// The box may send it.
        Started = "started",
        /// Every byte was sent; it is to be taken apart.
        Sent = "sent",
        /// Taken apart. Terminal.
        Unpacked = "unpacked",
        /// Not there, or no pack. Terminal: its objects begin anew.
        Lost = "lost",
    }
}

/// One pack.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct PackRow {
    /// Its name; the staged object has the same.
    #[sqlx(try_from = "String")]
    pub pack_id: PackId,
    /// The box that sends it.
    #[sqlx(try_from = "String")]
    pub box_id: BoxId,
    /// How far it has come.
    #[sqlx(try_from = "String")]
    pub state: PackState,
    /// Why it is lost.
    pub reason: Option<String>,
    /// Until when a worker is at it.
    pub claimed: i64,
    /// When it was begun.
    pub created: i64,
    /// When anything of it changed.
    pub updated: i64,
}

/// Takes down a new pack.
pub async fn pack_insert(tx: &mut Tx, id: &PackId, box_id: &BoxId, now: i64) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO packs (pack_id, box_id, state, claimed, created, updated) \
         VALUES ($1, $2, 'started', 0, $3, $3)",
        id.as_str(),
        box_id.as_str(),
        now,
    )?;
    Ok(())
}

/// One pack.
pub async fn pack_get(tx: &mut Tx, id: &PackId) -> StoreResult<Option<PackRow>> {
    fetch!(
        optional,
        tx,
        PackRow,
        "SELECT * FROM packs WHERE pack_id = $1",
        id.as_str()
    )
}

/// The uploads that a pack carries.
pub async fn pack_uploads(tx: &mut Tx, id: &PackId) -> StoreResult<Vec<UploadRow>> {
    fetch!(
        all,
        tx,
        UploadRow,
        "SELECT uploads.* FROM uploads \
         JOIN pack_entries ON pack_entries.upload_id = uploads.upload_id \
         WHERE pack_entries.pack_id = $1 ORDER BY uploads.upload_id",
        id.as_str()
    )
}

/// Moves a pack from one state to the next; `false` if it is in another.
pub async fn pack_advance(
    tx: &mut Tx,
    id: &PackId,
    (from, to): (PackState, PackState),
    reason: Option<&str>,
    now: i64,
) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE packs SET state = $3, reason = $4, updated = $5 \
         WHERE pack_id = $1 AND state = $2",
        id.as_str(),
        from.as_str(),
        to.as_str(),
        reason.map(plain),
        now,
    )?;
    Ok(rows == 1)
}

/// Claims the oldest pack that is to be taken apart and that nobody is at; until `until` nobody
/// else gets it.
pub async fn pack_claim(tx: &mut Tx, now: i64, until: i64) -> StoreResult<Option<PackRow>> {
    fetch!(
        optional,
        tx,
        PackRow,
        "UPDATE packs SET claimed = $2, updated = $1 WHERE pack_id = ( \
             SELECT pack_id FROM packs WHERE state = 'sent' AND claimed <= $1 \
             ORDER BY created, pack_id LIMIT 1) AND claimed <= $1 \
         RETURNING *",
        now,
        until,
    )
}

/// Extends or shortens a claim.
pub async fn pack_claim_until(tx: &mut Tx, id: &PackId, until: i64) -> StoreResult<()> {
    execute!(
        tx,
        "UPDATE packs SET claimed = $2 WHERE pack_id = $1",
        id.as_str(),
        until,
    )?;
    Ok(())
}

/// Ends every claim: no other process is at work.
pub async fn pack_claims_end(tx: &mut Tx) -> StoreResult<u64> {
    execute!(tx, "UPDATE packs SET claimed = 0 WHERE claimed > 0")
}

/// Whether this upload is being put into its bucket out of a pack right now: nobody else may touch
/// the object until that has ended.
pub async fn pack_entry_is_busy(tx: &mut Tx, upload: &UploadId) -> StoreResult<bool> {
    let row = fetch!(
        optional,
        tx,
        (String,),
        "SELECT uploads.upload_id FROM uploads \
         JOIN pack_entries ON pack_entries.upload_id = uploads.upload_id \
         JOIN packs ON packs.pack_id = pack_entries.pack_id \
         WHERE uploads.upload_id = $1 AND uploads.state = 'completing' AND packs.state = 'sent'",
        upload.as_str(),
    )?;
    Ok(row.is_some())
}

/// Readies the way for `version` of an object: earlier versions that wait in a pack will not be
/// taken out of it. `false` if one of them, or this one, is being put into the bucket right now.
pub async fn pack_make_way(
    tx: &mut Tx,
    box_id: &BoxId,
    (bucket, key): (&str, &ObjectKey),
    version: i64,
    now: i64,
) -> StoreResult<bool> {
    execute!(
        tx,
        "UPDATE uploads SET state = 'aborted', updated = $5 \
         WHERE box_id = $1 AND bucket = $2 AND object_key = $3 AND version < $4 \
           AND state = 'started' \
           AND EXISTS (SELECT 1 FROM pack_entries e WHERE e.upload_id = uploads.upload_id)",
        box_id.as_str(),
        bucket,
        key.as_str(),
        version,
        now,
    )?;
    let busy = fetch!(
        optional,
        tx,
        (String,),
        "SELECT uploads.upload_id FROM uploads \
         JOIN pack_entries ON pack_entries.upload_id = uploads.upload_id \
         JOIN packs ON packs.pack_id = pack_entries.pack_id \
         WHERE uploads.box_id = $1 AND uploads.bucket = $2 AND uploads.object_key = $3 \
           AND uploads.version <= $4 AND uploads.state = 'completing' AND packs.state = 'sent' \
         LIMIT 1",
        box_id.as_str(),
        bucket,
        key.as_str(),
        version,
    )?;
    Ok(busy.is_none())
}
