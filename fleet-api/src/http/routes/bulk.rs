//! One command for every box that a filter finds.

use longhaul_protocol::ids::CommandId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::command_body::{
    AnyCommand, DEFAULT_DECIDE_SECS, DEFAULT_VALID_SECS, Loose, MAX_REASON, MAX_VALID_SECS, kind_of,
};
use super::endpoint;
use super::paging::{PartQuery, TimePlace, page};
use super::proposals::person;
use crate::fleet::{self, Blast, BulkError, MAX_DECIDE_SECS};
use crate::http::People;
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::idempotency::{answer_by, keep};
use crate::http::problem::{Fault, Problem};
use crate::store::Tx;
use crate::store::bulk::{
    BulkBoxRow, BulkRow, BulkState, bulk_boxes, bulk_count, bulk_get, bulk_list,
};
use crate::store::operators::Role;

pub(super) fn add(api: Api) -> Api {
    api.add::<BulkPreviewCreate>()
        .add::<BulkCreate>()
        .add::<BulkList>()
        .add::<BulkGet>()
        .add::<BulkBoxList>()
        .add::<BulkCancel>()
}

endpoint! {
    /// Whom would it reach?
    BulkPreviewCreate = POST "/v1/bulk-previews" as "bulkPreviewCreate", Scope::Role(Role::Operator), CREATED;
    "Says whom a command for all boxes of a filter would reach, and keeps that for ten minutes."
    (Nothing, Nothing, Json<NewPreview>) -> Json<BlastView> = preview
}

/// What would be done, and to which boxes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPreview {
    /// Which boxes, as in `filter` of the list of boxes; empty for all of them.
    #[schema(max_length = 1000)]
    filter: String,
    /// What to do.
    #[schema(value_type = AnyCommand)]
    command: Loose,
}

/// Whom a command would reach, and what it would disturb.
#[derive(Serialize, ToSchema)]
pub struct BlastView {
    /// Name it to send the command to these boxes.
    preview: String,
    /// Until when it can be used.
    expires: i64,
    /// Boxes that would get the command.
    boxes: usize,
    /// Those of them that are offline now.
    offline: usize,
    /// Boxes that the filter finds and that get no commands because they are quarantined.
    quarantined: usize,
    /// The same because they are revoked.
    revoked: usize,
    /// Boxes by site, those with the most first; the first hundred sites.
    sites: Vec<SiteCount>,
    /// How many sites.
    site_count: usize,
    /// Orders that the boxes serve; the first hundred.
    orders: Vec<String>,
    /// How many orders.
    order_count: usize,
    /// Transfers under way from them.
    active_transfers: i64,
    /// Whether somebody else has to approve it.
    takes_two_people: bool,
}

/// Boxes at a site.
#[derive(Serialize, ToSchema)]
pub struct SiteCount {
    /// The site; empty where none is set.
    site: String,
    /// How many boxes.
    boxes: usize,
}

async fn preview(call: Call<BulkPreviewCreate>) -> Result<Json<BlastView>, Problem> {
    let new = call.body.0;
    let command = kind_of(&new.command.0).map_err(|problem| problem.below("/command"))?;
    if matches!(command, longhaul_protocol::command::CommandKind::Update(_)) {
        let text = "updates are assigned by rollouts";
        return Err(Problem::faults(vec![Fault::pointing(
            "#/command/kind",
            text,
        )]));
    }
    let actor = call.caller.actor();
    let mut tx = call.people.db.write().await?;
    let fleet = &call.people.fleet;
    let blast = fleet.bulk_preview(&mut tx, &actor, &new.filter, &command);
    let blast = blast.await;
    let Blast {
        preview,
        expires,
        boxes,
        offline,
        quarantined,
        revoked,
        sites,
        site_count,
        orders,
        order_count,
        active_transfers,
    } = blast.map_err(|error| refused(error, |at, text| Fault::at("filter", text).position(at)))?;
    let view = BlastView {
        preview,
        expires,
        boxes,
        offline,
        quarantined,
        revoked,
        sites: sites
            .into_iter()
            .map(|(site, boxes)| SiteCount { site, boxes })
            .collect(),
        site_count,
        orders,
        order_count,
        active_transfers,
        takes_two_people: command.is_destructive(),
    };
    keep(&call.people, &view)?;
    tx.commit().await?;
    Ok(Json(view))
}

fn refused(error: BulkError, fault: impl FnOnce(usize, String) -> Fault) -> Problem {
    let text = error.to_string();
    match error {
        BulkError::Fleet(error) => error.into(),
        BulkError::Filter(error) => Problem::faults(vec![fault(error.position, error.text)]),
        BulkError::Changed(changed) => Problem::conflict(text)
            .with("added", changed.added)
            .with("added_count", changed.added_count)
            .with("removed", changed.removed)
            .with("removed_count", changed.removed_count),
    }
}

endpoint! {
    /// Send what was seen.
    BulkCreate = POST "/v1/bulk-commands" as "bulkCreate", Scope::Role(Role::Operator), CREATED;
    "Sends a command to the boxes of a preview. If the filter finds other boxes by now, nothing is sent and the answer (409) names them."
    (Nothing, Nothing, Json<NewBulk>) -> Json<BulkView> = create
}

/// What is sent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBulk {
    /// The preview: it is used once.
    #[schema(max_length = 64)]
    preview: String,
    /// How long each command may be begun, in seconds; an hour if absent.
    #[schema(minimum = 1, maximum = 2_592_000)]
    expires_in_secs: Option<u32>,
    /// Why; needed where it takes two people.
    #[schema(max_length = 1000, pattern = r"^[^\x00]*$")]
    reason: Option<String>,
    /// How long somebody else may decide, in seconds; a day if absent.
    #[schema(minimum = 60, maximum = 604_800)]
    decide_within_secs: Option<u32>,
}

async fn create(call: Call<BulkCreate>) -> Result<Json<BulkView>, Problem> {
    let new = call.body.0;
    let within = |name: &str, value: u32, min: u32, max: u32| {
        if (min..=max).contains(&value) {
            return Ok(value);
        }
        let text = format!("{value} is not within {min} to {max}");
        Err(Problem::faults(vec![Fault::at(name, text)]))
    };
    if new
        .reason
        .as_ref()
        .is_some_and(|r| r.chars().count() > MAX_REASON || r.contains('\0'))
    {
        let text = format!("a reason has at most {MAX_REASON} characters and no NUL");
        return Err(Problem::faults(vec![Fault::at("reason", text)]));
    }
    let valid = new.expires_in_secs.unwrap_or(DEFAULT_VALID_SECS);
    let decide = new.decide_within_secs.unwrap_or(DEFAULT_DECIDE_SECS);
    let made = fleet::NewBulk {
        preview: new.preview.replace('\0', ""),
        valid_for_secs: within("expires_in_secs", valid, 1, MAX_VALID_SECS)?,
        reason: new.reason,
        decide_within_secs: within("decide_within_secs", decide, 60, MAX_DECIDE_SECS)?,
    };
    let (actor, person) = (call.caller.actor(), person(&call.caller).ok());
    answer_by(&call.people, |tx, id| {
        Box::pin(async move {
            let row = row(tx, id).await?;
            BulkView::of(tx, row).await
        })
    });
    let id = call
        .people
        .fleet
        .bulk_make(&actor, person.as_ref(), made)
        .await;
    let id = id.map_err(|error| refused(error, |_, text| Fault::at("preview", text)))?;
    find(&call.people, &id).await
}

/// One bulk command and how far it has come.
#[derive(Serialize, ToSchema)]
pub struct BulkView {
    /// Its name.
    id: String,
    /// Which boxes were asked for.
    filter: String,
    /// Name of the command's kind.
    kind: String,
    /// What is done.
    #[schema(value_type = Object)]
    command: Value,
    /// How far signing has come.
    state: BulkState,
    /// The proposal that two people agreed on, or shall.
    #[serde(skip_serializing_if = "Option::is_none")]
    proposal: Option<String>,
    /// Who made it.
    created_by: String,
    /// When.
    created: i64,
    /// Who took it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled_by: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled: Option<i64>,
    /// Boxes by the state of their command; `waiting`: not signed yet, `left_out`: gets none.
    counts: std::collections::BTreeMap<String, i64>,
}

impl BulkView {
    async fn of(tx: &mut Tx, row: BulkRow) -> Result<Self, Problem> {
        Ok(Self {
            counts: bulk_count(tx, &row.bulk_id).await?.into_iter().collect(),
            id: row.bulk_id,
            filter: row.filter,
            kind: row.kind,
            command: serde_json::from_str(&row.detail).unwrap_or_default(),
            state: row.state,
            proposal: row.proposal_id,
            created_by: row.created_by,
            created: row.created,
            cancelled_by: row.cancelled_by,
            cancelled: row.cancelled,
        })
    }
}

async fn row(tx: &mut Tx, id: &str) -> Result<BulkRow, Problem> {
    let row = bulk_get(tx, id).await?;
    row.ok_or_else(|| Problem::not_found(format!("there is no bulk command {id}")))
}

async fn find(people: &People, id: &str) -> Result<Json<BulkView>, Problem> {
    let mut tx = people.db.read().await?;
    let row = row(&mut tx, id).await?;
    BulkView::of(&mut tx, row).await.map(Json)
}

endpoint! {
    /// All of them.
    BulkList = GET "/v1/bulk-commands" as "bulkList", Scope::Role(Role::Viewer), OK;
    "Bulk commands, newest first."
    (Nothing, PartQuery, NoBody) -> Json<BulkPage> = list
}

page! {
    /// A page of bulk commands.
    BulkPage of BulkView
}

async fn list(call: Call<BulkList>) -> Result<Json<BulkPage>, Problem> {
    let part = call.query.part::<TimePlace>()?;
    let mut tx = call.people.db.read().await?;
    let before = part.place.as_ref().map(TimePlace::place);
    let rows = bulk_list(&mut tx, before, part.limit).await?;
    let next = part.next(&rows, |last| (last.created, last.bulk_id.clone()))?;
    let mut views = Vec::with_capacity(rows.len());
    for row in rows {
        views.push(BulkView::of(&mut tx, row).await?);
    }
    Ok(Json(BulkPage::new(views, next, &call.people)))
}

/// Which bulk command.
#[derive(Deserialize, IntoParams)]
pub struct BulkPath {
    /// The bulk command's id.
    #[param(value_type = String)]
    bulk_id: CommandId,
}

endpoint! {
    /// One of them.
    BulkGet = GET "/v1/bulk-commands/{bulk_id}" as "bulkGet", Scope::Role(Role::Viewer), OK;
    "One bulk command and how far it has come."
    (BulkPath, Nothing, NoBody) -> Json<BulkView> = get
}

async fn get(call: Call<BulkGet>) -> Result<Json<BulkView>, Problem> {
    find(&call.people, call.path.bulk_id.as_str()).await
}

/// One box of a bulk command.
#[derive(Serialize, ToSchema)]
pub struct BulkBox {
    /// The box.
    box_id: String,
    /// Its command.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    /// The command's state; `waiting` while there is none, `left_out` if there will be none.
    state: String,
    /// Progress in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<i64>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// When that changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    updated: Option<i64>,
}

impl From<BulkBoxRow> for BulkBox {
    fn from(row: BulkBoxRow) -> Self {
        let none = if row.reason.is_some() {
            "left_out"
        } else {
            "waiting"
        };
        Self {
            box_id: row.box_id.to_string(),
            command: row.command_id,
            state: row.state.unwrap_or_else(|| none.to_owned()),
            percent: row.percent,
            reason: row.reason,
            updated: row.updated,
        }
    }
}

endpoint! {
    /// Its boxes.
    BulkBoxList = GET "/v1/bulk-commands/{bulk_id}/boxes" as "bulkBoxList", Scope::Role(Role::Viewer), OK;
    "The boxes of a bulk command in the order of their names, each with how far it has come."
    (BulkPath, PartQuery, NoBody) -> Json<BulkBoxPage> = boxes
}

page! {
    /// A page of a bulk command's boxes.
    BulkBoxPage of BulkBox
}

async fn boxes(call: Call<BulkBoxList>) -> Result<Json<BulkBoxPage>, Problem> {
    let part = call.query.part()?;
    let id = call.path.bulk_id.as_str();
    let mut tx = call.people.db.read().await?;
    row(&mut tx, id).await?;
    let rows = bulk_boxes(&mut tx, id, part.place.as_ref(), part.limit).await?;
    let next = part.next(&rows, |last| last.box_id.to_string())?;
    Ok(Json(BulkBoxPage::new(rows, next, &call.people)))
}

endpoint! {
    /// Taken back.
    BulkCancel = POST "/v1/bulk-commands/{bulk_id}/cancel" as "bulkCancel", Scope::Role(Role::Operator), OK;
    "Takes back a bulk command where no box has begun it."
    (BulkPath, Nothing, NoBody) -> Json<BulkView> = cancel
}

async fn cancel(call: Call<BulkCancel>) -> Result<Json<BulkView>, Problem> {
    let (actor, id) = (call.caller.actor(), call.path.bulk_id.as_str());
    call.people.fleet.bulk_cancel(&actor, id).await?;
    find(&call.people, id).await
}
