//! Commands to boxes.

use longhaul_protocol::command::{CommandKind, RetryScope};
use longhaul_protocol::ids::{CommandId, ObjectKey};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::box_view::{BoxPath, find};
use super::endpoint;
use super::paging::{PartQuery, TimePlace, page};
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::problem::Problem;
use crate::objects::names::check_bucket;
use crate::store::Tx;
use crate::store::commands::{CommandRow, CommandState, command_get, command_list};
use crate::store::operators::Role;

/// How long a command may be begun, where the caller does not say.
const DEFAULT_VALID_SECS: u32 = 3600;
/// Longest time that a command may be begun: what waits longer surprises whoever has forgotten it.
const MAX_VALID_SECS: u32 = 30 * 86_400;

pub(super) fn add(api: Api) -> Api {
    api.add::<CommandCreate>()
        .add::<CommandList>()
        .add::<CommandGet>()
        .add::<CommandCancel>()
}

endpoint! {
    /// Do something.
    CommandCreate = POST "/v1/boxes/{box_id}/commands" as "commandCreate", Scope::Role(Role::Operator), CREATED;
    "Signs a command and sends it, now or when the box connects before it expires."
    (BoxPath, Nothing, Json<NewCommand>) -> Json<CommandView> = create
}

/// What to do, and until when it may be begun.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[schema(example = json!({ "kind": "identify", "seconds": 60 }))]
pub enum NewCommand {
    /// Blink and say on every indicator which box this is.
    Identify {
        /// For how long, 1 to 600 seconds.
        seconds: u16,
        /// How long it may be begun, in seconds; an hour if absent.
        expires_in_secs: Option<u32>,
    },
    /// Try again to deliver objects that were given up: all of them, those of a bucket, or one.
    Retry {
        /// Only those bound for this bucket.
        bucket: Option<String>,
        /// Only this object of the bucket.
        #[schema(value_type = Option<String>)]
        key: Option<ObjectKey>,
        /// How long it may be begun, in seconds; an hour if absent.
        expires_in_secs: Option<u32>,
    },
    /// Send telemetry and reported state now.
    ReportNow {
        /// How long it may be begun, in seconds; an hour if absent.
        expires_in_secs: Option<u32>,
    },
    /// Send telemetry at this interval from now on.
    SetTelemetryInterval {
        /// 1 to 3,600 seconds.
        seconds: u16,
        /// How long it may be begun, in seconds; an hour if absent.
        expires_in_secs: Option<u32>,
    },
}

impl NewCommand {
    fn split(self) -> Result<(CommandKind, Option<u32>), Problem> {
        Ok(match self {
            Self::Retry {
                bucket,
                key,
                expires_in_secs,
            } => {
                let scope = match (bucket, key) {
                    (None, None) => RetryScope::All,
                    (Some(bucket), None) => RetryScope::Bucket { bucket },
                    (Some(bucket), Some(key)) => RetryScope::Object { bucket, key },
                    (None, Some(_)) => {
                        return Err(Problem::invalid("a key needs the bucket that it is in"));
                    }
                };
                if let Some(bucket) = scope.bucket() {
                    check_bucket(bucket).map_err(Problem::invalid)?;
                }
                (CommandKind::Retry(scope), expires_in_secs)
            }
            Self::Identify {
                seconds,
                expires_in_secs,
            } => (CommandKind::Identify { seconds }, expires_in_secs),
            Self::ReportNow { expires_in_secs } => (CommandKind::ReportNow, expires_in_secs),
            Self::SetTelemetryInterval {
                seconds,
                expires_in_secs,
            } => (
                CommandKind::SetTelemetryInterval { seconds },
                expires_in_secs,
            ),
        })
    }
}

/// One command.
#[derive(Serialize, ToSchema)]
pub struct CommandView {
    /// Its name.
    id: String,
    /// The box that it is for.
    box_id: String,
    /// Name of its kind.
    kind: String,
    /// What to do, as it was signed.
    #[schema(value_type = Object)]
    command: serde_json::Value,
    /// Its counter.
    counter: i64,
    /// Who asked for it.
    created_by: String,
    /// When.
    created: i64,
    /// Not to be begun after.
    expires: i64,
    /// How far it has come.
    state: CommandState,
    /// Progress in percent.
    percent: Option<i64>,
    /// What is being done.
    progress: Option<String>,
    /// Why it was refused or failed.
    reason: Option<String>,
    /// What it yielded.
    #[schema(value_type = Option<Object>)]
    result: Option<serde_json::Value>,
    /// When any of this changed.
    updated: i64,
    /// The rollout that it belongs to.
    rollout: Option<String>,
}

impl From<CommandRow> for CommandView {
    fn from(row: CommandRow) -> Self {
        Self {
            id: row.command_id.to_string(),
            box_id: row.box_id.to_string(),
            kind: row.kind,
            command: serde_json::from_str(&row.detail).unwrap_or_default(),
            counter: row.counter,
            created_by: row.created_by,
            created: row.created,
            expires: row.expires,
            state: row.state,
            percent: row.percent,
            progress: row.progress,
            reason: row.reason,
            result: row.result.and_then(|text| serde_json::from_str(&text).ok()),
            updated: row.updated,
            rollout: row.rollout_id,
        }
    }
}

async fn create(call: Call<CommandCreate>) -> Result<Json<CommandView>, Problem> {
    let (command, valid) = call.body.0.split()?;
    command
        .check()
        .map_err(|e| Problem::invalid(e.to_string()))?;
    let valid = valid.unwrap_or(DEFAULT_VALID_SECS);
    if !(1..=MAX_VALID_SECS).contains(&valid) {
        return Err(Problem::invalid(format!(
            "expires_in_secs is {valid}; it must be 1 to {MAX_VALID_SECS}"
        )));
    }
    let actor = call.caller.actor();
    let id = call
        .people
        .fleet
        .command_send(&actor, &call.path.box_id, command, valid)
        .await?;
    let mut tx = call.people.db.read().await?;
    find_command(&mut tx, &id).await.map(|c| Json(c.into()))
}

async fn find_command(tx: &mut Tx, id: &CommandId) -> Result<CommandRow, Problem> {
    command_get(tx, id)
        .await?
        .ok_or_else(|| Problem::not_found(format!("there is no command {id}")))
}

endpoint! {
    /// A box's commands.
    CommandList = GET "/v1/boxes/{box_id}/commands" as "commandList", Scope::Role(Role::Viewer), OK;
    "A box's commands, newest first."
    (BoxPath, PartQuery, NoBody) -> Json<CommandPage> = list
}

page! {
    /// A page of commands.
    CommandPage of CommandView
}

async fn list(call: Call<CommandList>) -> Result<Json<CommandPage>, Problem> {
    let part = call.query.part::<TimePlace>()?;
    let mut tx = call.people.db.read().await?;
    let id = &call.path.box_id;
    find(&mut tx, id).await?;
    let before = part.place.as_ref().map(TimePlace::place);
    let rows = command_list(&mut tx, id, before, part.limit).await?;
    let next = part.next(&rows, |last| (last.created, last.command_id.to_string()))?;
    Ok(Json(CommandPage::new(rows, next, &call.people)))
}

/// Which command.
#[derive(Deserialize, IntoParams)]
pub struct CommandPath {
    /// The command's id.
    #[param(value_type = String)]
    command_id: CommandId,
}

endpoint! {
    /// One command.
    CommandGet = GET "/v1/commands/{command_id}" as "commandGet", Scope::Role(Role::Viewer), OK;
    "One command and how far it has come."
    (CommandPath, Nothing, NoBody) -> Json<CommandView> = get
}

async fn get(call: Call<CommandGet>) -> Result<Json<CommandView>, Problem> {
    let mut tx = call.people.db.read().await?;
    let row = find_command(&mut tx, &call.path.command_id).await?;
    Ok(Json(row.into()))
}

endpoint! {
    /// Taken back.
    CommandCancel = POST "/v1/commands/{command_id}/cancel" as "commandCancel", Scope::Role(Role::Operator), OK;
    "Takes back a command that its box has not begun."
    (CommandPath, Nothing, NoBody) -> Json<CommandView> = cancel
}

async fn cancel(call: Call<CommandCancel>) -> Result<Json<CommandView>, Problem> {
    let (actor, id) = (call.caller.actor(), &call.path.command_id);
    call.people.fleet.command_cancel(&actor, id).await?;
    let mut tx = call.people.db.read().await?;
    find_command(&mut tx, id).await.map(|c| Json(c.into()))
}
