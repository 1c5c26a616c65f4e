//! What was folded, asked about: a funnel, times, causes, and the boots one by one.

use longhaul_protocol::ids::BoxId;
use sqlx::FromRow;

use super::{BootRow, FailureRow, StoredCode};
use crate::store::tenants::TenantId;
use crate::store::{StoreResult, Tx, text_enum};

/// Times that are looked at for the middle and the slowest, newest boots first.
const MAX_TIMES: i64 = 10_000;
/// Failures of a page of boots that are read at the most.
const MAX_FAILURES: i64 = 5_000;

text_enum! {
    /// What causes are told apart by.
    BringUpGroup {
        /// Where the box stands, as an operator wrote it.
        Site = "site",
        /// Hardware type.
        Hardware = "hardware",
        /// Version of the agent.
        Release = "release",
    }
}

/// Which part of the past, and whose.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// From this time on.
    pub from: i64,
    /// Before this time.
    pub to: i64,
    /// This tenant's boxes only.
    pub tenant: Option<&'a TenantId>,
}

/// Boxes that came as far as `reached` and no further.
#[derive(Clone, Copy, Debug, Eq, FromRow, PartialEq)]
pub struct Reached {
    /// How many rungs have held at once.
    pub reached: i64,
    /// How many boxes.
    pub boxes: i64,
    /// How many of them are somebody's: they have a tenant or a ticket.
    pub claimed: i64,
    /// How many of those have begun to send an object.
    pub sending: i64,
}

/// How far the boxes came that were switched on in a span.
pub async fn bring_up_reached(tx: &mut Tx, span: Span<'_>) -> StoreResult<Vec<Reached>> {
    fetch!(
        all,
        tx,
        Reached,
        "SELECT reached, count(*) AS boxes, CAST(sum(claimed) AS BIGINT) AS claimed, \
             CAST(sum(claimed * sending) AS BIGINT) AS sending FROM ( \
           SELECT max(o.reached) AS reached, \
             max(CASE WHEN b.tenant_id IS NOT NULL OR EXISTS \
               (SELECT 1 FROM tickets t WHERE t.box_id = b.box_id) THEN 1 ELSE 0 END) AS claimed, \
             max(CASE WHEN EXISTS \
               (SELECT 1 FROM uploads u WHERE u.box_id = b.box_id) THEN 1 ELSE 0 END) AS sending \
           FROM bring_up_boots o JOIN boxes b ON b.box_id = o.box_id \
           WHERE o.began >= $1 AND o.began < $2 AND (CAST($3 AS TEXT) IS NULL OR b.tenant_id = $3) \
           GROUP BY b.box_id) AS f GROUP BY reached ORDER BY reached",
        span.from,
        span.to,
        span.tenant.map(TenantId::as_str),
    )
}

/// From power to online for the boots of a span, `None` for those that never were; newest first.
pub async fn bring_up_times(tx: &mut Tx, span: Span<'_>) -> StoreResult<Vec<Option<i64>>> {
    let rows = fetch!(
        all,
        tx,
        (Option<i64>,),
        "SELECT o.power_to_start_ms + o.start_to_online_ms FROM bring_up_boots o \
         JOIN boxes b ON b.box_id = o.box_id \
         WHERE o.began >= $1 AND o.began < $2 AND (CAST($3 AS TEXT) IS NULL OR b.tenant_id = $3) \
         ORDER BY o.began DESC, o.box_id, o.boot_id LIMIT $4",
        span.from,
        span.to,
        span.tenant.map(TenantId::as_str),
        MAX_TIMES,
    )?;
    Ok(rows.into_iter().map(|(time,)| time).collect())
}

/// What one code did in one group.
#[derive(Clone, Debug, Eq, FromRow, PartialEq)]
pub struct CauseRow {
    /// The group; empty where nothing is told apart, or nobody wrote it down.
    pub name: String,
    /// The code.
    #[sqlx(try_from = "String")]
    pub code: StoredCode,
    /// How many failures.
    pub failures: i64,
    /// Of how many boxes.
    pub boxes: i64,
    /// How many of them last.
    pub lasting: i64,
    /// How long they held boxes up, in milliseconds.
    pub held_up_ms: i64,
    /// The longest of them.
    pub longest_ms: i64,
    /// How many were ended by a cable,
    pub cable: i64,
    /// another address,
    pub address: i64,
    /// a setting,
    pub setting: i64,
    /// the other side,
    pub other_side: i64,
    /// themselves,
    pub by_itself: i64,
    /// a start anew,
    pub restart: i64,
    /// another failure.
    pub another: i64,
}

/// The causes of a span, those first that cost most; from the one after `after`: held up, group, code.
pub async fn bring_up_causes(
    tx: &mut Tx,
    span: Span<'_>,
    group: Option<BringUpGroup>,
    after: Option<(i64, &str, &str)>,
    limit: u32,
) -> StoreResult<Vec<CauseRow>> {
    let (held, name, code) = after.unwrap_or((i64::MAX, "", ""));
    fetch!(
        all,
        tx,
        CauseRow,
        "SELECT * FROM (SELECT name, code, count(*) AS failures, \
             count(DISTINCT box_id) AS boxes, \
             CAST(sum(CASE WHEN lasted_ms IS NULL THEN 1 ELSE 0 END) AS BIGINT) AS lasting, \
             CAST(sum(held_up_ms) AS BIGINT) AS held_up_ms, max(held_up_ms) AS longest_ms, \
             CAST(sum(CASE WHEN fix = 'cable' THEN 1 ELSE 0 END) AS BIGINT) AS cable, \
             CAST(sum(CASE WHEN fix = 'address' THEN 1 ELSE 0 END) AS BIGINT) AS address, \
             CAST(sum(CASE WHEN fix = 'setting' THEN 1 ELSE 0 END) AS BIGINT) AS setting, \
             CAST(sum(CASE WHEN fix = 'other_side' THEN 1 ELSE 0 END) AS BIGINT) AS other_side, \
             CAST(sum(CASE WHEN fix = 'by_itself' THEN 1 ELSE 0 END) AS BIGINT) AS by_itself, \
             CAST(sum(CASE WHEN fix = 'restart' THEN 1 ELSE 0 END) AS BIGINT) AS restart, \
             CAST(sum(CASE WHEN fix = 'another' THEN 1 ELSE 0 END) AS BIGINT) AS another \
           FROM (SELECT f.*, CASE CAST($4 AS TEXT) WHEN 'site' THEN b.site \
               WHEN 'hardware' THEN b.hardware WHEN 'release' THEN f.release ELSE '' END AS name \
             FROM bring_up_failures f JOIN boxes b ON b.box_id = f.box_id \
             WHERE f.began >= $1 AND f.began < $2 \
               AND (CAST($3 AS TEXT) IS NULL OR b.tenant_id = $3)) AS n \
           GROUP BY name, code) AS c \
         WHERE held_up_ms < $5 OR (held_up_ms = $5 AND (name > $6 OR (name = $6 AND code > $7))) \
         ORDER BY held_up_ms DESC, name, code LIMIT $8",
        span.from,
        span.to,
        span.tenant.map(TenantId::as_str),
        group.map(BringUpGroup::as_str),
        held,
        name,
        code,
        i64::from(limit),
    )
}

/// A boot and the box's own words.
#[derive(Clone, Debug, Eq, FromRow, PartialEq)]
pub struct BootOfBox {
    /// The boot.
    #[sqlx(flatten)]
    pub boot: BootRow,
    /// Where the box stands, as an operator wrote it.
    pub site: String,
    /// Hardware type.
    pub hardware: String,
}

/// The boots of a span, newest first, from the one after `after`: begin, box, boot.
pub async fn bring_up_boots(
    tx: &mut Tx,
    span: Span<'_>,
    box_id: Option<&BoxId>,
    after: Option<(i64, &str, &str)>,
    limit: u32,
) -> StoreResult<Vec<BootOfBox>> {
    let (began, of, boot) = after.unwrap_or((i64::MAX, "", ""));
    fetch!(
        all,
        tx,
        BootOfBox,
        "SELECT o.*, b.site, b.hardware FROM bring_up_boots o JOIN boxes b ON b.box_id = o.box_id \
         WHERE o.began >= $1 AND o.began < $2 AND (CAST($3 AS TEXT) IS NULL OR b.tenant_id = $3) \
           AND (CAST($4 AS TEXT) IS NULL OR o.box_id = $4) \
           AND (o.began < $5 OR (o.began = $5 AND \
             (o.box_id > $6 OR (o.box_id = $6 AND o.boot_id > $7)))) \
         ORDER BY o.began DESC, o.box_id, o.boot_id LIMIT $8",
        span.from,
        span.to,
        span.tenant.map(TenantId::as_str),
        box_id.map(BoxId::as_str),
        began,
        of,
        boot,
        i64::from(limit),
    )
}

/// The failures of the boots that began within these times, in the order in which they began.
pub async fn bring_up_failures(
    tx: &mut Tx,
    span: Span<'_>,
    box_id: Option<&BoxId>,
) -> StoreResult<Vec<FailureRow>> {
    fetch!(
        all,
        tx,
        FailureRow,
        "SELECT f.* FROM bring_up_failures f \
         JOIN bring_up_boots o ON o.box_id = f.box_id AND o.boot_id = f.boot_id \
         JOIN boxes b ON b.box_id = f.box_id \
         WHERE o.began >= $1 AND o.began < $2 AND (CAST($3 AS TEXT) IS NULL OR b.tenant_id = $3) \
           AND (CAST($4 AS TEXT) IS NULL OR f.box_id = $4) \
         ORDER BY f.began, f.epoch, f.number LIMIT $5",
        span.from,
        span.to,
        span.tenant.map(TenantId::as_str),
        box_id.map(BoxId::as_str),
        MAX_FAILURES,
    )
}
