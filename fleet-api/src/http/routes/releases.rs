//! Releases and their rollouts.

use longhaul_protocol::ids::{BoxId, RolloutId};
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{Array, ArrayBuilder, ObjectBuilder, Type};
use utoipa::{IntoParams, ToSchema};

use super::endpoint;
use crate::fleet::{self, MAX_ROLLOUT_BOXES};
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::idempotency::answer_by;
use crate::http::problem::Problem;
use crate::store::operators::Role;
use crate::store::rollouts::{RolloutRow, rollout_list};

/// How long a box may begin, where the caller does not say.
const DEFAULT_VALID_SECS: u32 = 7 * 86_400;
/// Longest time that a box may begin.
const MAX_VALID_SECS: u32 = 90 * 86_400;
/// Rollouts in one answer.
const MAX_ROLLOUTS: u32 = 200;

pub(super) fn add(api: Api) -> Api {
    api.add::<ReleaseList>()
        .add::<RolloutCreate>()
        .add::<RolloutList>()
        .add::<RolloutGet>()
        .add::<RolloutAbort>()
}

endpoint! {
    /// What there is.
    ReleaseList = GET "/v1/releases" as "releaseList", Scope::Role(Role::Viewer), OK;
    "The releases that the signed repository offers."
    (Nothing, Nothing, NoBody) -> Json<Releases> = releases
}

/// What the repository offers.
#[derive(Serialize, ToSchema)]
pub struct Releases {
    /// Oldest first.
    items: Vec<Release>,
}

/// One release.
#[derive(Serialize, ToSchema)]
pub struct Release {
    /// Its version.
    version: String,
    /// Its target's name.
    target: String,
    /// SHA-256 of the target.
    sha256: String,
    /// Length of the target in bytes.
    length: u64,
}

async fn releases(call: Call<ReleaseList>) -> Result<Json<Releases>, Problem> {
    let releases = call.people.fleet.releases_list().await?;
    let items = releases.into_iter().map(|r| Release {
        version: r.version,
        target: r.target,
        sha256: r.sha256.to_string(),
        length: r.length,
    });
    Ok(Json(Releases {
        items: items.collect(),
    }))
}

/// A rollout and how far each of its boxes has come.
#[derive(Serialize, ToSchema)]
pub struct Rollout {
    /// Its name.
    id: String,
    /// The release's version.
    version: String,
    /// Who started it.
    started_by: String,
    /// When.
    started_at: i64,
    /// When it was aborted, if it was.
    aborted_at: Option<i64>,
    /// Who aborted it.
    aborted_by: Option<String>,
    /// Its boxes.
    boxes: Vec<RolloutBox>,
    /// The cloud's clock.
    server_time: i64,
}

/// How far one box has come.
#[derive(Serialize, ToSchema)]
pub struct RolloutBox {
    /// The box.
    box_id: String,
    /// The command that assigned the release.
    command: String,
    /// Where it stands: before the update's first step `offline`, `queued`, `sent`, `expired`,
    /// `cancelled` or `failed` (the box refused it), then the step's name.
    state: String,
    /// The update's step that the box reported last; after a failure, the step that ended it.
    step: Option<String>,
    /// Why it failed, was rolled back or was not begun: the check and the end of its log.
    reason: Option<String>,
    /// The version that the box ran when the rollout began.
    version_before: Option<String>,
    /// The version that the box ran when the update ended; absent until then.
    version_after: Option<String>,
    /// When the state was reached.
    since: i64,
}

fn view(rollout: fleet::RolloutView, server_time: i64) -> Json<Rollout> {
    let boxes = rollout.boxes.into_iter().map(|b| RolloutBox {
        box_id: b.box_id.to_string(),
        command: b.command.to_string(),
        state: b.state,
        step: b.step,
        reason: b.reason,
        version_before: b.version_before,
        version_after: b.version_after,
        since: b.since.0,
    });
    Json(Rollout {
        id: rollout.id.to_string(),
        version: rollout.version,
        started_by: rollout.started_by,
        started_at: rollout.started_at.0,
        aborted_at: rollout.aborted_at.map(|at| at.0),
        aborted_by: rollout.aborted_by,
        boxes: boxes.collect(),
        server_time,
    })
}

endpoint! {
    /// Begin.
    RolloutCreate = POST "/v1/rollouts" as "rolloutCreate", Scope::Role(Role::Operator), CREATED;
    "Assigns a release to boxes."
    (Nothing, Nothing, Json<NewRollout, { 512 * 1024 }>) -> Json<Rollout> = create
}

/// What goes where.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "version": "1.4.0", "boxes": ["7KQ2M9XV4D1H"], "expires_in_secs": 604_800 }))]
pub struct NewRollout {
    /// The release's version.
    version: String,
    /// The boxes that shall run it; a box named twice counts once.
    #[schema(schema_with = box_list)]
    boxes: Vec<BoxId>,
    /// How long a box may begin, in seconds; a week if absent.
    #[schema(minimum = 1, maximum = 7_776_000)]
    expires_in_secs: Option<u32>,
}

/// From the same constant as the check.
fn box_list() -> Array {
    ArrayBuilder::new()
        .items(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .pattern(Some("^[0-9A-HJKMNP-TV-Z]{12}$")),
        )
        .min_items(Some(1))
        .max_items(Some(MAX_ROLLOUT_BOXES))
        .build()
}

async fn create(call: Call<RolloutCreate>) -> Result<Json<Rollout>, Problem> {
    let new = call.body.0;
    let valid_for_secs = new.expires_in_secs.unwrap_or(DEFAULT_VALID_SECS);
    if !(1..=MAX_VALID_SECS).contains(&valid_for_secs) {
        return Err(Problem::invalid(format!(
            "expires_in_secs is {valid_for_secs}; it must be 1 to {MAX_VALID_SECS}"
        )));
    }
    let new = fleet::NewRollout {
        version: new.version,
        boxes: new.boxes,
        valid_for_secs,
    };
    let actor = call.caller.actor();
    let now = call.people.clock.now().0;
    answer_by(&call.people, move |tx, id| {
        Box::pin(async move {
            let id = id.parse().map_err(|e| Problem::internal("rollout", &e))?;
            let Json(made) = view(fleet::rollout_view(tx, &id).await?, now);
            Ok(made)
        })
    });
    let id = call.people.fleet.rollout_start(&actor, new).await?;
    let rollout = call.people.fleet.rollout_get(&id).await?;
    Ok(view(rollout, call.people.clock.now().0))
}

endpoint! {
    /// All of them.
    RolloutList = GET "/v1/rollouts" as "rolloutList", Scope::Role(Role::Viewer), OK;
    "The latest rollouts, newest first."
    (Nothing, Nothing, NoBody) -> Json<Rollouts> = list
}

/// The latest rollouts.
#[derive(Serialize, ToSchema)]
pub struct Rollouts {
    /// Newest first.
    items: Vec<RolloutItem>,
    /// The cloud's clock.
    server_time: i64,
}

/// One rollout, without its boxes.
#[derive(Serialize, ToSchema)]
pub struct RolloutItem {
    /// Its name.
    id: String,
    /// The release's version.
    version: String,
    /// The release's target.
    target: String,
    /// Who started it.
    started_by: String,
    /// When.
    started_at: i64,
    /// When it was aborted, if it was.
    aborted_at: Option<i64>,
}

impl From<RolloutRow> for RolloutItem {
    fn from(row: RolloutRow) -> Self {
        Self {
            id: row.rollout_id.to_string(),
            version: row.version,
            target: row.target,
            started_by: row.created_by,
            started_at: row.created,
            aborted_at: row.aborted,
        }
    }
}

async fn list(call: Call<RolloutList>) -> Result<Json<Rollouts>, Problem> {
    let mut tx = call.people.db.read().await?;
    let rows = rollout_list(&mut tx, MAX_ROLLOUTS).await?;
    Ok(Json(Rollouts {
        items: rows.into_iter().map(RolloutItem::from).collect(),
        server_time: call.people.clock.now().0,
    }))
}

/// Which rollout.
#[derive(Deserialize, IntoParams)]
pub struct RolloutPath {
    /// The rollout's id.
    #[param(value_type = String)]
    rollout_id: RolloutId,
}

endpoint! {
    /// One rollout.
    RolloutGet = GET "/v1/rollouts/{rollout_id}" as "rolloutGet", Scope::Role(Role::Viewer), OK;
    "One rollout and how far each of its boxes has come."
    (RolloutPath, Nothing, NoBody) -> Json<Rollout> = get
}

async fn get(call: Call<RolloutGet>) -> Result<Json<Rollout>, Problem> {
    let rollout = call.people.fleet.rollout_get(&call.path.rollout_id).await?;
    Ok(view(rollout, call.people.clock.now().0))
}

endpoint! {
    /// No further.
    RolloutAbort = POST "/v1/rollouts/{rollout_id}/abort" as "rolloutAbort", Scope::Role(Role::Operator), OK;
    "Ends a rollout: boxes that have not begun are not sent it any more, the others bring it to an end."
    (RolloutPath, Nothing, NoBody) -> Json<Rollout> = abort
}

async fn abort(call: Call<RolloutAbort>) -> Result<Json<Rollout>, Problem> {
    let (fleet, id) = (&call.people.fleet, &call.path.rollout_id);
    fleet.rollout_abort(&call.caller.actor(), id).await?;
    let rollout = fleet.rollout_get(id).await?;
    Ok(view(rollout, call.people.clock.now().0))
}
