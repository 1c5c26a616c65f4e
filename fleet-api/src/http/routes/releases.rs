//! Releases and their rollouts.

use longhaul_protocol::ids::{BoxId, RolloutId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::endpoint;
use crate::fleet;
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::problem::Problem;
use crate::store::operators::Role;
use crate::store::rollouts::{RolloutRow, rollout_list};

/// Boxes of one rollout at the most.
const MAX_BOXES: usize = 10_000;
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
    /// Where it stands: before the update's first step `offline`, `sent`, `expired` or `refused`,
    /// then the step's name.
    state: String,
    /// Why it failed or was rolled back.
    reason: Option<String>,
    /// When the state was reached.
    since: i64,
}

fn view(rollout: fleet::RolloutView, server_time: i64) -> Json<Rollout> {
    let boxes = rollout.boxes.into_iter().map(|b| RolloutBox {
        box_id: b.box_id.to_string(),
        command: b.command.to_string(),
        state: b.state,
        reason: b.reason,
        since: b.since.0,
    });
    Json(Rollout {
        id: rollout.id.to_string(),
        version: rollout.version,
        started_by: rollout.started_by,
        started_at: rollout.started_at.0,
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
pub struct NewRollout {
    /// The release's version.
    version: String,
    /// 1 to 10,000 boxes.
    #[schema(value_type = Vec<String>)]
    boxes: Vec<BoxId>,
    /// How long a box may begin, in seconds; a week if absent.
    expires_in_secs: Option<u32>,
}

async fn create(call: Call<RolloutCreate>) -> Result<Json<Rollout>, Problem> {
    let new = call.body.0;
    let valid_for_secs = new.expires_in_secs.unwrap_or(DEFAULT_VALID_SECS);
    if !(1..=MAX_VALID_SECS).contains(&valid_for_secs) {
        return Err(Problem::invalid(format!(
            "expires_in_secs is {valid_for_secs}; it must be 1 to {MAX_VALID_SECS}"
        )));
    }
    if !(1..=MAX_BOXES).contains(&new.boxes.len()) {
        return Err(Problem::invalid(format!(
            "a rollout has 1 to {MAX_BOXES} boxes"
        )));
    }
    let new = fleet::NewRollout {
        version: new.version,
        boxes: new.boxes,
        valid_for_secs,
    };
    let actor = call.caller.actor();
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
}

impl From<RolloutRow> for RolloutItem {
    fn from(row: RolloutRow) -> Self {
        Self {
            id: row.rollout_id.to_string(),
            version: row.version,
            target: row.target,
            started_by: row.created_by,
            started_at: row.created,
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
