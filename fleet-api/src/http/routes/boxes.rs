//! Boxes: the fleet's table, one box, what an operator calls it, throwing it out.

use longhaul_protocol::telemetry::Telemetry;
use longhaul_protocol::twin::Reported;
use longhaul_protocol::value::Jws;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::box_view::{BoxPath, BoxView, QuarantineView, find, find_for};
use super::endpoint;
use super::paging::{Part, filter, page};
use crate::fleet::FleetEventKind;
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::idempotency::answer_by;
use crate::http::problem::Problem;
use crate::http::reply::Done;
use crate::http::tag::{Changeable, Tagged};
use crate::store::audit::{AuditEntry, audit_append};
use crate::store::boxes::{
    BoxFilter, BoxSample, BoxState, box_count, box_list_sampled, box_lock, box_set_label,
};
use crate::store::bulk::BOX_FIELDS;
use crate::store::operators::Role;
use crate::store::quarantines::quarantine_get;
use crate::store::telemetry::telemetry_latest;
use crate::store::twins::reported_get;
use crate::store::uploads::upload_count;

pub(super) fn add(api: Api) -> Api {
    api.add::<BoxList>()
        .add::<BoxSummary>()
        .add::<BoxGet>()
        .add::<BoxUpdate>()
        .add::<BoxRevoke>()
        .add::<BoxQuarantine>()
        .add::<BoxRelease>()
        .add::<InventoryImport>()
}

endpoint! {
    /// The fleet's table.
    BoxList = GET "/v1/boxes" as "boxList", Scope::Shared(Role::Viewer), OK;
    "Boxes in the order of their names."
    (Nothing, BoxQuery, NoBody) -> Json<BoxPage> = list
}

/// Which boxes.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct BoxQuery {
    /// In this state only.
    #[param(inline)]
    state: Option<BoxState>,
    /// With (`true`) or without (`false`) a session only.
    online: Option<bool>,
    /// With this text in name, label, site or hardware only.
    q: Option<String>,
    /// Which boxes, in the filter grammar: `state:active and site~"pier 4" and seen>1h`.
    #[param(max_length = 1000)]
    filter: Option<String>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Rows at the most, 1 to 1,000.
    limit: Option<u32>,
}

page! {
    /// A page of the fleet's table.
    BoxPage of BoxLine
}

/// One line of the fleet's table.
#[derive(Serialize, ToSchema)]
pub struct BoxLine {
    /// The box.
    #[serde(flatten)]
    row: BoxView,
    /// When the last sample was taken, by the box's clock.
    telemetry_at: Option<i64>,
    /// How often it takes one, in seconds; absent if it has not said.
    telemetry_interval_secs: Option<u16>,
    /// How full its store was then.
    vault: Option<VaultView>,
    /// Alerts on it that are not over.
    alerts: i64,
}

/// How full a box's store is, and what waits for delivery.
#[derive(Serialize, ToSchema)]
pub struct VaultView {
    /// What it may hold, in bytes.
    capacity_bytes: u64,
    /// What it holds, in bytes.
    used_bytes: u64,
    /// Objects that are not yet verified in the cloud.
    pending_objects: u64,
    /// Their bytes.
    pending_bytes: u64,
}

impl From<BoxSample> for BoxLine {
    fn from(sampled: BoxSample) -> Self {
        let sample: Option<Telemetry> = sampled
            .sample
            .and_then(|text| serde_json::from_str(&text).ok());
        let vault = sample.and_then(|s| s.vault).map(|v| VaultView {
            capacity_bytes: v.capacity_bytes,
            used_bytes: v.used_bytes,
            pending_objects: v.pending_objects,
            pending_bytes: v.pending_bytes,
        });
        let reported: Option<Reported> = sampled
            .reported
            .and_then(|text| serde_json::from_str(&text).ok());
        Self {
            row: sampled.row.into(),
            telemetry_at: sampled.sample_at,
            telemetry_interval_secs: reported.map(|r| r.telemetry_interval_secs),
            vault,
            alerts: sampled.alerts,
        }
    }
}

async fn list(call: Call<BoxList>) -> Result<Json<BoxPage>, Problem> {
    let query = call.query;
    let part = Part::new(query.cursor.as_deref(), query.limit)?;
    let filter = BoxFilter {
        state: query.state,
        online: query.online,
        tenant: call.caller.tenant().cloned(),
        text: query.q.filter(|q| !q.is_empty()),
        filter: filter(query.filter.as_deref(), &BOX_FIELDS, &call.people)?,
    };
    let mut tx = call.people.db.read().await?;
    let rows = box_list_sampled(&mut tx, &filter, part.place.as_ref(), part.limit).await?;
    let next = part.next(&rows, |last| last.row.box_id.to_string())?;
    Ok(Json(BoxPage::new(rows, next, &call.people)))
}

endpoint! {
    /// The fleet in numbers.
    BoxSummary = GET "/v1/summary" as "boxSummary", Scope::Role(Role::Viewer), OK;
    "How many boxes there are, by state and session."
    (Nothing, Nothing, NoBody) -> Json<Summary> = summary
}

/// The fleet in numbers.
#[derive(Serialize, ToSchema)]
pub struct Summary {
    /// One for each state and session that occurs.
    items: Vec<SummaryItem>,
    /// The cloud's clock.
    server_time: i64,
}

/// Boxes that are alike.
#[derive(Serialize, ToSchema)]
pub struct SummaryItem {
    /// What they may do.
    state: String,
    /// Whether they have a session.
    online: bool,
    /// How many.
    count: i64,
}

async fn summary(call: Call<BoxSummary>) -> Result<Json<Summary>, Problem> {
    let mut tx = call.people.db.read().await?;
    let counts = box_count(&mut tx).await?;
    let items = counts
        .into_iter()
        .map(|(state, online, count)| SummaryItem {
            state,
            online,
            count,
        });
    Ok(Json(Summary {
        items: items.collect(),
        server_time: call.people.clock.now().0,
    }))
}

endpoint! {
    /// One box.
    BoxGet = GET "/v1/boxes/{box_id}" as "boxGet", Scope::Shared(Role::Viewer), OK;
    "One box, with its last telemetry and reported state."
    (BoxPath, Nothing, NoBody) -> Tagged<BoxDetail> = get
}

/// One box with all that is known of it now.
#[derive(Serialize, ToSchema)]
pub struct BoxDetail {
    /// The box.
    #[serde(rename = "box")]
    row: BoxView,
    /// When the last sample was taken, by the box's clock.
    telemetry_at: Option<i64>,
    /// The last sample.
    #[schema(value_type = Option<Object>)]
    telemetry: Option<serde_json::Value>,
    /// When the reported state came.
    reported_at: Option<i64>,
    /// What the box has made of the desired state: slots, tickets, problems.
    #[schema(value_type = Option<Object>)]
    reported: Option<serde_json::Value>,
    /// The update that it was assigned last.
    update: Option<BoxUpdateView>,
    /// Why it is held back, where it is; for operators.
    quarantine: Option<QuarantineView>,
    /// Its uploads by state.
    uploads: Vec<UploadCount>,
    /// The cloud's clock.
    server_time: i64,
}

/// An update and how far a box has come with it.
#[derive(Serialize, ToSchema)]
pub struct BoxUpdateView {
    /// The rollout.
    rollout: String,
    /// The release's version.
    version: String,
    /// Where it stands, as in the rollout.
    state: String,
    /// Why it failed or was rolled back.
    reason: Option<String>,
    /// When the state was reached.
    since: i64,
}

/// Uploads in one state.
#[derive(Serialize, ToSchema)]
pub struct UploadCount {
    /// The state.
    state: String,
    /// How many.
    count: i64,
    /// Their bytes.
    bytes: i64,
}

impl Changeable for BoxDetail {
    fn changeable(&self) -> serde_json::Value {
        self.row.changeable()
    }
}

async fn get(call: Call<BoxGet>) -> Result<Tagged<BoxDetail>, Problem> {
    let id = &call.path.box_id;
    let mut tx = call.people.db.read().await?;
    let row = find_for(&mut tx, id, &call.caller).await?;
    let sample = telemetry_latest(&mut tx, id).await?;
    let reported = reported_get(&mut tx, id).await?;
    let uploads = upload_count(&mut tx, id, call.caller.tenant()).await?;
    let quarantine = match call.caller.tenant() {
        Some(_) => None,
        None => quarantine_get(&mut tx, id).await?,
    };
    drop(tx);
    let rollout = call.people.fleet.rollout_last(id).await?;
    let update = rollout.and_then(|mut of| {
        let last = of.boxes.pop()?;
        Some(BoxUpdateView {
            rollout: of.id.to_string(),
            version: of.version,
            state: last.state,
            reason: last.reason,
            since: last.since.0,
        })
    });
    let json = |text: &str| serde_json::from_str(text).ok();
    Ok(Tagged(BoxDetail {
        row: row.into(),
        telemetry_at: sample.as_ref().map(|(at, _)| *at),
        telemetry: sample.and_then(|(_, text)| json(&text)),
        reported_at: reported.as_ref().map(|r| r.updated),
        reported: reported.and_then(|r| json(&r.detail)),
        update,
        quarantine: quarantine.map(QuarantineView::from),
        uploads: uploads
            .into_iter()
            .map(|(state, count, bytes)| UploadCount {
                state,
                count,
                bytes,
            })
            .collect(),
        server_time: call.people.clock.now().0,
    }))
}

endpoint! {
    /// What it is called.
    BoxUpdate = PATCH "/v1/boxes/{box_id}" as "boxUpdate", Scope::Role(Role::Operator), OK;
    "Sets what operators call a box and where it stands."
    (BoxPath, Nothing, Json<BoxChange>) -> Tagged<BoxView> = update
}

/// What changes; what is absent stays.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BoxChange {
    /// A name for it, at most 200 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 200, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    label: Option<String>,
    /// Where it stands, at most 200 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 200, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    site: Option<String>,
}

async fn update(call: Call<BoxUpdate>) -> Result<Tagged<BoxView>, Problem> {
    let (id, change) = (&call.path.box_id, call.body.0);
    for text in [&change.label, &change.site].into_iter().flatten() {
        if text.chars().count() > 200 || text.chars().any(char::is_control) {
            return Err(Problem::invalid(
                "label and site have at most 200 characters, none of them a control character",
            ));
        }
    }
    let now = call.people.clock.now().0;
    let mut tx = call.people.db.write().await?;
    box_lock(&mut tx, id).await?;
    let before: BoxView = find(&mut tx, id).await?.into();
    call.seen.check(&before)?;
    let (label, site) = (change.label.as_deref(), change.site.as_deref());
    box_set_label(&mut tx, id, label, site, now).await?;
    let row = find(&mut tx, id).await?;
    let entry = AuditEntry {
        actor: &call.caller.actor().0,
        action: "box.update",
        subject: id.as_str(),
        detail: &json!(change),
    };
    audit_append(&mut tx, entry, now).await?;
    tx.commit().await?;
    let fleet = &call.people.fleet;
    fleet.tell(Some(id), FleetEventKind::BoxLabelled);
    Ok(Tagged(row.into()))
}

endpoint! {
    /// Out.
    BoxRevoke = POST "/v1/boxes/{box_id}/revoke" as "boxRevoke", Scope::Role(Role::Operator), NO_CONTENT;
    "Throws a box out for ever: no certificate any more, and its connection is cut at once."
    (BoxPath, Nothing, NoBody) -> Done = revoke
}

async fn revoke(call: Call<BoxRevoke>) -> Result<Done, Problem> {
    let actor = call.caller.actor();
    call.people
        .fleet
        .box_revoke(&actor, &call.path.box_id)
        .await?;
    Ok(Done)
}

endpoint! {
    /// Into quarantine.
    BoxQuarantine = POST "/v1/boxes/{box_id}/quarantine" as "boxQuarantine", Scope::Role(Role::Operator), NO_CONTENT;
    "Holds an active box back until it is released: it stays connected and reports, has no tickets, delivers nothing and gets no commands."
    (BoxPath, Nothing, NoBody) -> Done = quarantine
}

async fn quarantine(call: Call<BoxQuarantine>) -> Result<Done, Problem> {
    let actor = call.caller.actor();
    call.people
        .fleet
        .box_quarantine(&actor, &call.path.box_id)
        .await?;
    Ok(Done)
}

endpoint! {
    /// Out of quarantine.
    BoxRelease = POST "/v1/boxes/{box_id}/release" as "boxRelease", Scope::Role(Role::Operator), NO_CONTENT;
    "Lets a quarantined box back in, after someone has looked at why it was quarantined."
    (BoxPath, Nothing, NoBody) -> Done = release
}

async fn release(call: Call<BoxRelease>) -> Result<Done, Problem> {
    let actor = call.caller.actor();
    call.people
        .fleet
        .box_release(&actor, &call.path.box_id)
        .await?;
    Ok(Done)
}

endpoint! {
    /// A new box.
    InventoryImport = POST "/v1/inventory" as "inventoryImport", Scope::Role(Role::Operator), CREATED;
    "Takes a box into the inventory by the record that the factory signed."
    (Nothing, Nothing, Json<Record, { 64 * 1024 }>) -> Json<Imported> = import
}

/// The factory's record.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The record as a compact JWS.
    #[schema(value_type = String)]
    jws: Jws,
}

/// What was taken in.
#[derive(Serialize, ToSchema)]
pub struct Imported {
    /// The box.
    id: String,
}

async fn import(call: Call<InventoryImport>) -> Result<Json<Imported>, Problem> {
    let actor = call.caller.actor();
    answer_by(&call.people, |_, id| {
        let id = id.to_owned();
        Box::pin(async move { Ok(Imported { id }) })
    });
    let id = call
        .people
        .fleet
        .inventory_import(&actor, &call.body.0.jws)
        .await?;
    Ok(Json(Imported { id: id.to_string() }))
}
