//! What takes two people: one proposes, another decides.

use longhaul_protocol::ids::{BoxId, CommandId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::box_view::BoxPath;
use super::command_body::NewProposal;
use super::endpoint;
use super::paging::{Part, TimePlace, filter, page};
use crate::auth::Caller;
use crate::fleet::{self, Person};
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::idempotency::answer_by;
use crate::http::problem::Problem;
use crate::store::Tx;
use crate::store::operators::Role;
use crate::store::proposals::{
    PROPOSAL_FIELDS, ProposalRow, ProposalState, proposal_get, proposal_list,
};

pub(super) fn add(api: Api) -> Api {
    api.add::<ProposalCreate>()
        .add::<ProposalList>()
        .add::<ProposalGet>()
        .add::<ProposalApprove>()
        .add::<ProposalRefuse>()
        .add::<ProposalWithdraw>()
}

/// Who calls, as somebody who answers for it.
pub(super) fn person(caller: &Caller) -> Result<Person, Problem> {
    let account = caller.account().ok_or_else(|| {
        Problem::forbidden("nobody is known to answer for this token: make one with your account")
    })?;
    Ok(Person {
        actor: caller.actor(),
        account: account.to_owned(),
    })
}

/// One proposal.
#[derive(Serialize, ToSchema)]
pub struct Proposal {
    /// Its name.
    id: String,
    /// The box that it is about; absent for a bulk command.
    #[serde(skip_serializing_if = "Option::is_none")]
    box_id: Option<String>,
    /// The bulk command that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    bulk: Option<String>,
    /// Name of the command's kind.
    kind: String,
    /// What shall be done.
    #[schema(value_type = Object)]
    command: serde_json::Value,
    /// Why.
    reason: String,
    /// Who proposed it.
    proposed_by: String,
    /// The account that answers for that: it cannot approve it.
    proposer: String,
    /// When.
    created: i64,
    /// Until when somebody else may decide.
    expires: i64,
    /// What became of it.
    state: ProposalState,
    /// Who decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_by: Option<String>,
    /// The account that answers for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    decider: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    decided: Option<i64>,
    /// What they said.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    /// The command that was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<String>,
}

impl From<ProposalRow> for Proposal {
    fn from(row: ProposalRow) -> Self {
        Self {
            id: row.proposal_id,
            box_id: row.box_id,
            bulk: row.bulk_id,
            kind: row.kind,
            command: serde_json::from_str(&row.detail).unwrap_or_default(),
            reason: row.reason,
            proposed_by: row.proposed_by,
            proposer: row.proposer,
            created: row.created,
            expires: row.expires,
            state: row.state,
            decided_by: row.decided_by,
            decider: row.decider,
            decided: row.decided,
            note: row.note,
            sent: row.command_id,
        }
    }
}

endpoint! {
    /// A wish for two.
    ProposalCreate = POST "/v1/boxes/{box_id}/proposals" as "proposalCreate", Scope::Role(Role::Operator), CREATED;
    "Proposes a command that takes something away for good: it is sent once another account approves."
    (BoxPath, Nothing, Json<NewProposal>) -> Json<Proposal> = create
}

async fn create(call: Call<ProposalCreate>) -> Result<Json<Proposal>, Problem> {
    let person = person(&call.caller)?;
    let said = call.body.0.read()?;
    let new = fleet::NewProposal {
        box_id: call.path.box_id,
        command: said.command,
        reason: said.reason,
        valid_for_secs: said.valid_for_secs,
        decide_within_secs: said.decide_within_secs,
    };
    answer_by(&call.people, |tx, id| {
        Box::pin(async move { find(tx, id).await.map(|Json(view)| view) })
    });
    let id = call.people.fleet.proposal_make(&person, new).await?;
    let mut tx = call.people.db.read().await?;
    find(&mut tx, &id).await
}

async fn find(tx: &mut Tx, id: &str) -> Result<Json<Proposal>, Problem> {
    let row = proposal_get(tx, id).await?;
    row.map(|row| Json(row.into()))
        .ok_or_else(|| Problem::not_found(format!("there is no proposal {id}")))
}

/// Which proposals.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ProposalQuery {
    /// In this state only.
    #[param(inline)]
    state: Option<ProposalState>,
    /// About this box only.
    #[param(value_type = Option<String>)]
    box_id: Option<BoxId>,
    /// Which rows.
    #[param(max_length = 1000)]
    filter: Option<String>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Rows at the most, 1 to 1,000; 100 if absent.
    limit: Option<u32>,
}

endpoint! {
    /// What waits for a second person, and what became of the rest.
    ProposalList = GET "/v1/proposals" as "proposalList", Scope::Role(Role::Viewer), OK;
    "Proposals, newest first."
    (Nothing, ProposalQuery, NoBody) -> Json<ProposalPage> = list
}

page! {
    /// A page of proposals.
    ProposalPage of Proposal
}

async fn list(call: Call<ProposalList>) -> Result<Json<ProposalPage>, Problem> {
    let query = call.query;
    let part = Part::<TimePlace>::new(query.cursor.as_deref(), query.limit)?;
    let before = part.place.as_ref().map(TimePlace::place);
    let filter = filter(query.filter.as_deref(), &PROPOSAL_FIELDS, &call.people)?;
    let mut tx = call.people.db.read().await?;
    let about = (query.state, query.box_id.as_ref());
    let rows = proposal_list(&mut tx, about, &filter, before, part.limit).await?;
    let next = part.next(&rows, |last| (last.created, last.proposal_id.clone()))?;
    Ok(Json(ProposalPage::new(rows, next, &call.people)))
}

/// Which proposal.
#[derive(Deserialize, IntoParams)]
pub struct ProposalPath {
    /// The proposal's id.
    #[param(value_type = String)]
    proposal_id: ProposalId,
}

/// Same rule as for the fleet's other names.
type ProposalId = CommandId;

endpoint! {
    /// One proposal.
    ProposalGet = GET "/v1/proposals/{proposal_id}" as "proposalGet", Scope::Role(Role::Viewer), OK;
    "One proposal."
    (ProposalPath, Nothing, NoBody) -> Json<Proposal> = get
}

async fn get(call: Call<ProposalGet>) -> Result<Json<Proposal>, Problem> {
    let mut tx = call.people.db.read().await?;
    find(&mut tx, call.path.proposal_id.as_str()).await
}

endpoint! {
    /// The second person's yes.
    ProposalApprove = POST "/v1/proposals/{proposal_id}/approve" as "proposalApprove", Scope::Role(Role::Operator), OK;
    "Approves what another account proposed: the command is signed and sent."
    (ProposalPath, Nothing, NoBody) -> Json<Proposal> = approve
}

async fn approve(call: Call<ProposalApprove>) -> Result<Json<Proposal>, Problem> {
    let (person, id) = (person(&call.caller)?, call.path.proposal_id.as_str());
    call.people.fleet.proposal_approve(&person, id).await?;
    let mut tx = call.people.db.read().await?;
    find(&mut tx, id).await
}

/// Why not.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Why, at most 1,000 characters.
    #[serde(default)]
    #[schema(max_length = 1000)]
    note: String,
}

endpoint! {
    /// The second person's no.
    ProposalRefuse = POST "/v1/proposals/{proposal_id}/refuse" as "proposalRefuse", Scope::Role(Role::Operator), OK;
    "Refuses what another account proposed."
    (ProposalPath, Nothing, Json<Refusal>) -> Json<Proposal> = refuse
}

async fn refuse(call: Call<ProposalRefuse>) -> Result<Json<Proposal>, Problem> {
    let (person, id) = (person(&call.caller)?, call.path.proposal_id.as_str());
    let note = call.body.0.note.replace('\0', "\u{fffd}");
    if note.chars().count() > 1000 {
        return Err(Problem::invalid("a note has at most 1,000 characters"));
    }
    call.people
        .fleet
        .proposal_refuse(&person, id, &note)
        .await?;
    let mut tx = call.people.db.read().await?;
    find(&mut tx, id).await
}

endpoint! {
    /// The first person's second thought.
    ProposalWithdraw = POST "/v1/proposals/{proposal_id}/withdraw" as "proposalWithdraw", Scope::Role(Role::Operator), OK;
    "Takes back what the same account proposed."
    (ProposalPath, Nothing, NoBody) -> Json<Proposal> = withdraw
}

async fn withdraw(call: Call<ProposalWithdraw>) -> Result<Json<Proposal>, Problem> {
    let (person, id) = (person(&call.caller)?, call.path.proposal_id.as_str());
    call.people.fleet.proposal_withdraw(&person, id).await?;
    let mut tx = call.people.db.read().await?;
    find(&mut tx, id).await
}
