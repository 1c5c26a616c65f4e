//! Uploads from boxes to the object store, one for each version of an object.

use longhaul_protocol::ids::{BoxId, ObjectKey, TicketId, UploadId};
use longhaul_protocol::value::Digest32;
use sqlx::FromRow;

use super::filter::{Filter, FilterField, Holds};
use super::listing::{Listing, field};
use super::tenants::TenantId;
use super::tx::{plain, rows};
use super::{StoreResult, Tx, text_enum};

text_enum! {
    /// How far an upload has come.
    UploadState {
        /// The box may send.
        Started = "started",
        /// Every byte was sent; the store is being asked.
        Completing = "completing",
        /// In the bucket, compared. Terminal.
        Verified = "verified",
        /// Will not be taken. It can be begun anew.
        Failed = "failed",
        /// Given up by the box. It can be begun anew.
        Aborted = "aborted",
    }
}

/// One upload.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct UploadRow {
    /// Its name.
    #[sqlx(try_from = "String")]
    pub upload_id: UploadId,
    /// The box that sends.
    #[sqlx(try_from = "String")]
    pub box_id: BoxId,
    /// The bucket.
    pub bucket: String,
    /// The object's name there.
    #[sqlx(try_from = "String")]
    pub object_key: ObjectKey,
    /// The vault's version number.
    pub version: i64,
    /// The ticket under which the box took the object.
    #[sqlx(try_from = "String")]
    pub ticket_id: TicketId,
    /// The object store's name for a multipart upload; absent for a single `PUT`.
    pub s3_upload_id: Option<String>,
    /// Length in bytes.
    pub bytes: i64,
    /// BLAKE3 of the bytes.
    #[sqlx(try_from = "String")]
    pub blake3: Digest32,
    /// Content type.
    pub content_type: Option<String>,
    /// User metadata: JSON object of texts.
    pub metadata: String,
    /// Other headers that travel with it: JSON object of texts.
    pub headers: String,
    /// Length of a part in bytes; 0 for a single `PUT`.
    pub part_bytes: i64,
    /// How far it has come.
    #[sqlx(try_from = "String")]
    pub state: UploadState,
    /// Why it failed.
    pub reason: Option<String>,
    /// When it was begun first.
    pub created: i64,
    /// When anything of it changed.
    pub updated: i64,
}

/// Takes down a new upload, or finds the one of the same box, bucket, key and version: the box may
/// have lost the answer. Yields what is stored and whether it is new.
pub async fn upload_start(tx: &mut Tx, row: &UploadRow) -> StoreResult<(UploadRow, bool)> {
    let inserted = fetch!(
        optional,
        tx,
        UploadRow,
        "INSERT INTO uploads (upload_id, box_id, bucket, object_key, version, ticket_id, \
             s3_upload_id, bytes, blake3, content_type, metadata, part_bytes, state, created, \
             updated, headers) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) \
         ON CONFLICT (box_id, bucket, object_key, version) DO NOTHING RETURNING *",
        row.upload_id.as_str(),
        row.box_id.as_str(),
        row.bucket.as_str(),
        row.object_key.as_str(),
        row.version,
        row.ticket_id.as_str(),
        row.s3_upload_id.as_deref(),
        row.bytes,
        row.blake3.to_string(),
        row.content_type.as_deref().map(plain),
        row.metadata.as_str(),
        row.part_bytes,
        row.state.as_str(),
        row.created,
        row.updated,
        row.headers.as_str(),
    )?;
    if let Some(inserted) = inserted {
        return Ok((inserted, true));
    }
    let found = fetch!(
        one,
        tx,
        UploadRow,
        "SELECT * FROM uploads \
         WHERE box_id = $1 AND bucket = $2 AND object_key = $3 AND version = $4",
        row.box_id.as_str(),
        row.bucket.as_str(),
        row.object_key.as_str(),
        row.version,
    )?;
    Ok((found, false))
}

/// The upload of one version of an object.
pub async fn upload_find(
    tx: &mut Tx,
    box_id: &BoxId,
    bucket: &str,
    key: &ObjectKey,
    version: i64,
) -> StoreResult<Option<UploadRow>> {
    fetch!(
        optional,
        tx,
        UploadRow,
        "SELECT * FROM uploads \
         WHERE box_id = $1 AND bucket = $2 AND object_key = $3 AND version = $4",
        box_id.as_str(),
        bucket,
        key.as_str(),
        version,
    )
}

/// One upload.
pub async fn upload_get(tx: &mut Tx, id: &UploadId) -> StoreResult<Option<UploadRow>> {
    fetch!(
        optional,
        tx,
        UploadRow,
        "SELECT * FROM uploads WHERE upload_id = $1",
        id.as_str()
    )
}

/// Begins an upload anew, with the object store's new name for it; `false` if it is verified.
pub async fn upload_restart(
    tx: &mut Tx,
    id: &UploadId,
    s3_upload_id: Option<&str>,
    now: i64,
) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE uploads SET state = 'started', s3_upload_id = $2, reason = NULL, updated = $3 \
         WHERE upload_id = $1 AND state <> 'verified'",
        id.as_str(),
        s3_upload_id,
        now,
    )?;
    Ok(rows == 1)
}

/// Moves an upload to `state`; `false` if there is none or it is verified: that stays.
pub async fn upload_advance(
    tx: &mut Tx,
    id: &UploadId,
    state: UploadState,
    reason: Option<&str>,
    now: i64,
) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE uploads SET state = $2, reason = $3, updated = $4 \
         WHERE upload_id = $1 AND state <> 'verified'",
        id.as_str(),
        state.as_str(),
        reason.map(plain),
        now,
    )?;
    Ok(rows == 1)
}

/// Ends everything that was on its way from a box to a bucket whose key the box has destroyed, or
/// waited there for somebody's help; yields how many. What is just being taken out of a pack that
/// has arrived ends by itself.
pub async fn upload_erase(
    tx: &mut Tx,
    box_id: &BoxId,
    bucket: &str,
    reason: &str,
    now: i64,
) -> StoreResult<u64> {
    execute!(
        tx,
        "UPDATE uploads SET state = 'aborted', reason = $3, updated = $4 \
         WHERE box_id = $1 AND bucket = $2 AND state IN ('started', 'completing', 'failed') \
           AND NOT (state = 'completing' AND EXISTS (SELECT 1 FROM pack_entries \
             JOIN packs ON packs.pack_id = pack_entries.pack_id \
             WHERE pack_entries.upload_id = uploads.upload_id AND packs.state = 'sent'))",
        box_id.as_str(),
        plain(bucket),
        reason,
        now,
    )
}

/// What a box's uploads can be asked for by.
pub const UPLOAD_FIELDS: [FilterField; 9] = [
    field("id", "upload_id", Holds::Text),
    field("bucket", "bucket", Holds::Text),
    field("key", "object_key", Holds::Text),
    field("ticket", "ticket_id", Holds::Text),
    field(
        "state",
        "state",
        Holds::Word(&["started", "completing", "verified", "failed", "aborted"]),
    ),
    field("reason", "reason", Holds::Text),
    field("bytes", "bytes", Holds::Number),
    field("created", "created", Holds::Time),
    field("updated", "updated", Holds::Time),
];

/// A box's uploads that `filter` finds, newest first, from the one before `(created, id)`; for a
/// tenant, those to its buckets.
pub async fn upload_list(
    tx: &mut Tx,
    box_id: &BoxId,
    tenant: Option<&TenantId>,
    filter: &Filter,
    before: Option<(i64, &str)>,
    limit: u32,
) -> StoreResult<Vec<UploadRow>> {
    let list = Listing::of("SELECT * FROM uploads WHERE TRUE")
        .equal("box_id", Some(box_id.as_str()))
        .with(
            " AND bucket IN (SELECT o.bucket FROM bucket_owners o WHERE o.tenant_id = ",
            tenant,
            ")",
        )
        .filter(filter)
        .newest(("created", "upload_id"), before, limit);
    rows(tx, list).await
}

/// A box's uploads by state: `(state, count, bytes)`; for a tenant, those to its buckets.
pub async fn upload_count(
    tx: &mut Tx,
    box_id: &BoxId,
    tenant: Option<&TenantId>,
) -> StoreResult<Vec<(String, i64, i64)>> {
    fetch!(
        all,
        tx,
        (String, i64, i64),
        "SELECT state, count(*), CAST(coalesce(sum(bytes), 0) AS BIGINT) FROM uploads \
         WHERE box_id = $1 AND (CAST($2 AS TEXT) IS NULL OR bucket IN ( \
             SELECT o.bucket FROM bucket_owners o WHERE o.tenant_id = $2)) \
         GROUP BY state ORDER BY state",
        box_id.as_str(),
        tenant.map(TenantId::as_str),
    )
}

/// The fleet's uploads by state: `(state, count, bytes)`.
pub async fn upload_count_all(tx: &mut Tx) -> StoreResult<Vec<(String, i64, i64)>> {
    fetch!(
        all,
        tx,
        (String, i64, i64),
        "SELECT state, count(*), CAST(coalesce(sum(bytes), 0) AS BIGINT) FROM uploads \
         GROUP BY state ORDER BY state"
    )
}

/// Whether the object store's upload `s3_upload_id` is one that a box may still send to.
pub async fn upload_is_open(tx: &mut Tx, s3_upload_id: &str) -> StoreResult<bool> {
    let row = fetch!(
        optional,
        tx,
        (String,),
        "SELECT upload_id FROM uploads \
         WHERE s3_upload_id = $1 AND state IN ('started', 'completing')",
        s3_upload_id
    )?;
    Ok(row.is_some())
}

/// Buckets that uploads went to, by name.
pub async fn upload_buckets(tx: &mut Tx) -> StoreResult<Vec<String>> {
    let rows = fetch!(
        all,
        tx,
        (String,),
        "SELECT DISTINCT bucket FROM uploads ORDER BY bucket"
    )?;
    Ok(rows.into_iter().map(|(bucket,)| bucket).collect())
}
