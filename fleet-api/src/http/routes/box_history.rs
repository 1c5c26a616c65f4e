//! One box over time: telemetry, timeline, transfers.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::box_view::{BoxPath, find, find_for};
use super::endpoint;
use super::paging::{FilteredQuery, PartQuery, TimePlace, page};
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Scope};
use crate::http::problem::{Fault, Problem};
use crate::store::operators::Role;
use crate::store::telemetry::{Series, TelemetryPoint, telemetry_series};
use crate::store::timeline::{TimelinePlace, TimelineRow, TimelineSource, timeline_list};
use crate::store::uploads::{UPLOAD_FIELDS, UploadRow, UploadState, upload_list};

/// Points in a series, where the caller does not say.
const DEFAULT_POINTS: u32 = 300;
/// Points in a series at the most, but for the bucket at each end.
const MAX_POINTS: u32 = 2000;
/// Length of a series, where the caller does not say, in milliseconds.
const DEFAULT_SPAN_MS: i64 = 3600 * 1000;

pub(super) fn add(api: Api) -> Api {
    api.add::<TelemetryList>()
        .add::<TimelineList>()
        .add::<TransferList>()
}

endpoint! {
    /// For a chart.
    TelemetryList = GET "/v1/boxes/{box_id}/telemetry" as "telemetryList", Scope::Role(Role::Viewer), OK;
    "A box's telemetry, thinned out to what a chart can show."
    (BoxPath, TelemetryQuery, NoBody) -> Json<TelemetrySeries> = telemetry
}

/// Which part.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct TelemetryQuery {
    /// Begin, milliseconds; an hour ago if absent.
    #[param(minimum = 0)]
    since: Option<i64>,
    /// End, milliseconds, after the begin; now if absent.
    #[param(minimum = 1)]
    until: Option<i64>,
    /// Points at the most, 1 to 2,000.
    #[param(minimum = 1, maximum = 2000)]
    limit: Option<u32>,
}

/// A series.
#[derive(Serialize, ToSchema)]
pub struct TelemetrySeries {
    /// Length of a bucket in milliseconds; buckets without a sample are left out.
    step_ms: i64,
    /// The coarsest that was read: long ranges, and those whose samples are forgotten, are drawn
    /// from rollups by five minutes or by hours; their newest end from what is not rolled up yet.
    series: Series,
    /// Oldest first.
    items: Vec<TelemetryPoint>,
    /// The cloud's clock.
    server_time: i64,
}

async fn telemetry(call: Call<TelemetryList>) -> Result<Json<TelemetrySeries>, Problem> {
    let now = call.people.clock.now().0;
    let until = call.query.until.unwrap_or(now.saturating_add(1));
    let since = call
        .query
        .since
        .unwrap_or(until.saturating_sub(DEFAULT_SPAN_MS));
    let span = until.saturating_sub(since);
    // Within these bounds no arithmetic in the database can overflow.
    if since < 0 || span <= 0 {
        return Err(Problem::invalid(
            "since must be 0 or more, and before until",
        ));
    }
    let points = call.query.limit.unwrap_or(DEFAULT_POINTS);
    if !(1..=MAX_POINTS).contains(&points) {
        let text = format!("{points} is not within 1 to {MAX_POINTS}");
        return Err(Problem::faults(vec![Fault::parameter("limit", None, text)]));
    }
    let mut tx = call.people.db.read().await?;
    let id = &call.path.box_id;
    find(&mut tx, id).await?;
    let drawn = telemetry_series(&mut tx, id, (since, until), points).await?;
    Ok(Json(TelemetrySeries {
        step_ms: drawn.step,
        series: drawn.series,
        items: drawn.points,
        server_time: now,
    }))
}

endpoint! {
    /// What happened.
    TimelineList = GET "/v1/boxes/{box_id}/timeline" as "timelineList", Scope::Role(Role::Viewer), OK;
    "What happened to a box, newest first, in the order of causes."
    (BoxPath, PartQuery, NoBody) -> Json<TimelinePage> = timeline
}

/// Something that happened.
#[derive(Serialize, ToSchema)]
pub struct TimelineItem {
    /// Where it comes from.
    source: TimelineSource,
    /// What happened, in a word.
    kind: String,
    /// The cloud's clock when it learned of it.
    received: i64,
    /// When it happened; the box's clock for the journal.
    at: i64,
    /// Id of the command or presence, or the journal's epoch.
    id: String,
    /// Number in the journal, else 0.
    number: i64,
    /// State of a command, as it is now.
    state: Option<String>,
    /// What happened, as it was said.
    #[schema(value_type = Object)]
    detail: serde_json::Value,
}

impl From<TimelineRow> for TimelineItem {
    fn from(row: TimelineRow) -> Self {
        Self {
            source: row.source(),
            kind: row.kind,
            received: row.received,
            at: row.at,
            id: row.id,
            number: row.number,
            state: row.state,
            detail: serde_json::from_str(&row.detail).unwrap_or_default(),
        }
    }
}

page! {
    /// A page of a timeline.
    TimelinePage of TimelineItem
}

async fn timeline(call: Call<TimelineList>) -> Result<Json<TimelinePage>, Problem> {
    let part = call.query.part::<(i64, i64, String, i64)>()?;
    let before = part
        .place
        .clone()
        .map(|(received, rank, id, number)| TimelinePlace {
            received,
            rank,
            id: id.replace('\0', ""),
            number,
        });
    let mut tx = call.people.db.read().await?;
    let id = &call.path.box_id;
    find(&mut tx, id).await?;
    let rows = timeline_list(&mut tx, id, before.as_ref(), part.limit).await?;
    let next = part.next(&rows, |last| {
        let p = last.place();
        (p.received, p.rank, p.id, p.number)
    })?;
    Ok(Json(TimelinePage::new(rows, next, &call.people)))
}

endpoint! {
    /// What is on its way.
    TransferList = GET "/v1/boxes/{box_id}/transfers" as "transferList", Scope::Shared(Role::Viewer), OK;
    "A box's uploads to the object store, newest first."
    (BoxPath, FilteredQuery, NoBody) -> Json<TransferPage> = transfers
}

/// One upload.
#[derive(Serialize, ToSchema)]
pub struct Transfer {
    /// Its name.
    id: String,
    /// The bucket.
    bucket: String,
    /// The object's name there.
    key: String,
    /// The vault's version number.
    version: i64,
    /// Length in bytes.
    bytes: i64,
    /// BLAKE3 of the bytes.
    blake3: String,
    /// Length of a part in bytes; 0 for a single `PUT`.
    part_bytes: i64,
    /// How far it has come.
    state: UploadState,
    /// Why it failed.
    reason: Option<String>,
    /// The ticket under which the box took the object.
    ticket: String,
    /// When it was begun first.
    created: i64,
    /// When anything of it changed.
    updated: i64,
}

impl From<UploadRow> for Transfer {
    fn from(row: UploadRow) -> Self {
        Self {
            id: row.upload_id.to_string(),
            bucket: row.bucket,
            key: row.object_key.to_string(),
            version: row.version,
            bytes: row.bytes,
            blake3: row.blake3.to_string(),
            part_bytes: row.part_bytes,
            state: row.state,
            reason: row.reason,
            ticket: row.ticket_id.to_string(),
            created: row.created,
            updated: row.updated,
        }
    }
}

page! {
    /// A page of uploads.
    TransferPage of Transfer
}

async fn transfers(call: Call<TransferList>) -> Result<Json<TransferPage>, Problem> {
    let part = call.query.part::<TimePlace>()?;
    let filter = call.query.filter(&UPLOAD_FIELDS, &call.people)?;
    let mut tx = call.people.db.read().await?;
    let id = &call.path.box_id;
    find_for(&mut tx, id, &call.caller).await?;
    let before = part.place.as_ref().map(TimePlace::place);
    let tenant = call.caller.tenant();
    let rows = upload_list(&mut tx, id, tenant, &filter, before, part.limit).await?;
    let next = part.next(&rows, |last| (last.created, last.upload_id.to_string()))?;
    Ok(Json(TransferPage::new(rows, next, &call.people)))
}
