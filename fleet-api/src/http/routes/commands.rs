//! Commands to boxes.

use longhaul_protocol::ids::CommandId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::box_view::{BoxPath, find};
use super::command_body::NewCommand;
use super::endpoint;
use super::paging::{FilteredQuery, TimePlace, page};
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::idempotency::answer_by;
use crate::http::problem::Problem;
use crate::store::Tx;
use crate::store::commands::{COMMAND_FIELDS, CommandRow, CommandState, command_get, command_list};
use crate::store::operators::Role;
use crate::store::proposals::{ProposalRow, proposal_get};

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
    /// What two people agreed on, where it took two.
    #[serde(skip_serializing_if = "Option::is_none")]
    proposal: Option<Agreed>,
}

/// The proposal behind a command that took two people.
#[derive(Serialize, ToSchema)]
pub struct Agreed {
    /// The proposal.
    id: String,
    /// Who proposed it.
    proposed_by: String,
    /// When.
    proposed: i64,
    /// Why.
    reason: String,
    /// Who approved it.
    approved_by: Option<String>,
    /// When.
    approved: Option<i64>,
}

impl From<ProposalRow> for Agreed {
    fn from(row: ProposalRow) -> Self {
        Self {
            id: row.proposal_id,
            proposed_by: row.proposed_by,
            proposed: row.created,
            reason: row.reason,
            approved_by: row.decided_by,
            approved: row.decided,
        }
    }
}

impl CommandView {
    async fn of(tx: &mut Tx, row: CommandRow) -> Result<Self, Problem> {
        let proposal = match &row.proposal_id {
            Some(id) => proposal_get(tx, id).await?.map(Agreed::from),
            None => None,
        };
        Ok(Self {
            proposal,
            ..row.into()
        })
    }
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
            proposal: None,
        }
    }
}

async fn create(call: Call<CommandCreate>) -> Result<Json<CommandView>, Problem> {
    let (command, valid) = call.body.0.read()?;
    let actor = call.caller.actor();
    answer_by(&call.people, |tx, id| {
        Box::pin(async move {
            let id = id.parse().map_err(|e| Problem::internal("command", &e))?;
            let row = find_command(tx, &id).await?;
            CommandView::of(tx, row).await
        })
    });
    let id = call
        .people
        .fleet
        .command_send(&actor, &call.path.box_id, command, valid)
        .await?;
    let mut tx = call.people.db.read().await?;
    let row = find_command(&mut tx, &id).await?;
    CommandView::of(&mut tx, row).await.map(Json)
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
    (BoxPath, FilteredQuery, NoBody) -> Json<CommandPage> = list
}

page! {
    /// A page of commands.
    CommandPage of CommandView
}

async fn list(call: Call<CommandList>) -> Result<Json<CommandPage>, Problem> {
    let part = call.query.part::<TimePlace>()?;
    let filter = call.query.filter(&COMMAND_FIELDS, &call.people)?;
    let mut tx = call.people.db.read().await?;
    let id = &call.path.box_id;
    find(&mut tx, id).await?;
    let before = part.place.as_ref().map(TimePlace::place);
    let rows = command_list(&mut tx, id, &filter, before, part.limit).await?;
    let next = part.next(&rows, |last| (last.created, last.command_id.to_string()))?;
    let mut views = Vec::with_capacity(rows.len());
    for row in rows {
        views.push(CommandView::of(&mut tx, row).await?);
    }
    Ok(Json(CommandPage::new(views, next, &call.people)))
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
    CommandView::of(&mut tx, row).await.map(Json)
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
    let row = find_command(&mut tx, id).await?;
    CommandView::of(&mut tx, row).await.map(Json)
}
