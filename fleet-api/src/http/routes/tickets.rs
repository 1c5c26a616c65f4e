//! Tickets: what a customer needs to push files to a box.

use bytes::Bytes;
use longhaul_protocol::ids::{OrderId, TicketId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::box_view::{BoxPath, find_for};
use super::endpoint;
use super::paging::{Part, TimePlace, filter, page};
use crate::fleet;
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::idempotency::answer_by;
use crate::http::problem::Problem;
use crate::http::reply::{Done, File};
use crate::store::Tx;
use crate::store::operators::Role;
use crate::store::tickets::{TICKET_FIELDS, TicketRow, ticket_get, ticket_list, ticket_list_all};

/// How long a ticket is valid, where the caller does not say.
const DEFAULT_VALID_SECS: u32 = 7 * 86_400;
/// Longest validity of a ticket.
const MAX_VALID_SECS: u32 = 366 * 86_400;
/// Tickets of a box in one answer.
const MAX_TICKETS: u32 = 1000;

pub(super) fn add(api: Api) -> Api {
    api.add::<TicketCreate>()
        .add::<TicketList>()
        .add::<TicketListAll>()
        .add::<TicketDownload>()
        .add::<TicketRevoke>()
}

/// One ticket, without its secret.
#[derive(Serialize, ToSchema)]
pub struct TicketView {
    /// Its name.
    id: String,
    /// The box that it is for.
    box_id: String,
    /// The order that it belongs to.
    order: Option<String>,
    /// The tenant that it belongs to.
    tenant: Option<String>,
    /// The bucket that it reaches.
    bucket: String,
    /// Its public half.
    access_key: String,
    /// Who made it.
    created_by: String,
    /// When.
    created: i64,
    /// When it ends.
    expires: i64,
    /// When it was revoked.
    revoked: Option<i64>,
}

impl From<TicketRow> for TicketView {
    fn from(row: TicketRow) -> Self {
        Self {
            id: row.ticket_id.to_string(),
            box_id: row.box_id.to_string(),
            order: row.order_id,
            tenant: row.tenant_id,
            bucket: row.bucket,
            access_key: row.access_key,
            created_by: row.created_by,
            created: row.created,
            expires: row.expires,
            revoked: row.revoked,
        }
    }
}

endpoint! {
    /// A new one.
    TicketCreate = POST "/v1/boxes/{box_id}/tickets" as "ticketCreate", Scope::Shared(Role::Operator), CREATED;
    "Makes a ticket: a key pair with which a customer may write to one box, for one bucket."
    (BoxPath, Nothing, Json<NewTicket>) -> Json<TicketView> = create
}

/// What it is for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "bucket": "survey-2026", "expires_in_secs": 604_800 }))]
pub struct NewTicket {
    /// The order that it belongs to.
    #[schema(value_type = Option<String>, pattern = r"^[A-Za-z0-9_\-]{1,64}$")]
    order: Option<OrderId>,
    /// The bucket that it reaches.
    #[schema(
        min_length = 3,
        max_length = 63,
        pattern = r"^[a-z0-9](\.?[a-z0-9\-])*\.?[a-z0-9]$"
    )]
    bucket: String,
    /// How long it is valid, in seconds; a week if absent.
    #[schema(minimum = 1, maximum = 31_622_400)]
    expires_in_secs: Option<u32>,
}

async fn create(call: Call<TicketCreate>) -> Result<Json<TicketView>, Problem> {
    let new = call.body.0;
    let valid_for_secs = new.expires_in_secs.unwrap_or(DEFAULT_VALID_SECS);
    if !(1..=MAX_VALID_SECS).contains(&valid_for_secs) {
        return Err(Problem::invalid(format!(
            "expires_in_secs is {valid_for_secs}; it must be 1 to {MAX_VALID_SECS}"
        )));
    }
    let new = fleet::NewTicket {
        box_id: call.path.box_id,
        order: new.order,
        bucket: new.bucket,
        valid_for_secs,
    };
    let actor = call.caller.actor();
    let tenant = call.caller.tenant();
    answer_by(&call.people, |tx, id| Box::pin(view(tx, id)));
    let ticket = call
        .people
        .fleet
        .ticket_create_for(&actor, tenant, new)
        .await?;
    let mut tx = call.people.db.read().await?;
    view(&mut tx, ticket.id.as_str()).await.map(Json)
}

async fn view(tx: &mut Tx, id: &str) -> Result<TicketView, Problem> {
    let id = id.parse().map_err(|e| Problem::internal("ticket", &e))?;
    let row = ticket_get(tx, &id).await?;
    row.map(TicketView::from)
        .ok_or_else(|| Problem::conflict("the ticket is gone already"))
}

endpoint! {
    /// A box's tickets.
    TicketList = GET "/v1/boxes/{box_id}/tickets" as "ticketList", Scope::Shared(Role::Viewer), OK;
    "A box's tickets, newest first, without their secrets."
    (BoxPath, Nothing, NoBody) -> Json<TicketViews> = list
}

/// A box's tickets.
#[derive(Serialize, ToSchema)]
pub struct TicketViews {
    /// Newest first.
    items: Vec<TicketView>,
    /// The cloud's clock.
    server_time: i64,
}

async fn list(call: Call<TicketList>) -> Result<Json<TicketViews>, Problem> {
    let mut tx = call.people.db.read().await?;
    let id = &call.path.box_id;
    find_for(&mut tx, id, &call.caller).await?;
    let rows = ticket_list(&mut tx, id, call.caller.tenant(), MAX_TICKETS).await?;
    Ok(Json(TicketViews {
        items: rows.into_iter().map(TicketView::from).collect(),
        server_time: call.people.clock.now().0,
    }))
}

endpoint! {
    /// The fleet's tickets.
    TicketListAll = GET "/v1/tickets" as "ticketListAll", Scope::Shared(Role::Viewer), OK;
    "Tickets of all boxes, or of one order, newest first, without their secrets."
    (Nothing, TicketQuery, NoBody) -> Json<TicketPage> = list_all
}

/// Which tickets.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct TicketQuery {
    /// Of this order only.
    #[param(value_type = Option<String>)]
    order: Option<OrderId>,
    /// Which rows.
    #[param(max_length = 1000)]
    filter: Option<String>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Rows at the most, 1 to 1,000.
    limit: Option<u32>,
}

page! {
    /// A page of tickets.
    TicketPage of TicketView
}

async fn list_all(call: Call<TicketListAll>) -> Result<Json<TicketPage>, Problem> {
    let query = call.query;
    let part = Part::<TimePlace>::new(query.cursor.as_deref(), query.limit)?;
    let before = part.place.as_ref().map(TimePlace::place);
    let filter = filter(query.filter.as_deref(), &TICKET_FIELDS, &call.people)?;
    let mut tx = call.people.db.read().await?;
    let rows = ticket_list_all(
        &mut tx,
        call.caller.tenant(),
        query.order.as_ref(),
        &filter,
        before,
        part.limit,
    )
    .await?;
    let next = part.next(&rows, |last| (last.created, last.ticket_id.to_string()))?;
    Ok(Json(TicketPage::new(rows, next, &call.people)))
}

/// Which ticket.
#[derive(Deserialize, IntoParams)]
pub struct TicketPath {
    /// The ticket's id.
    #[param(value_type = String)]
    ticket_id: TicketId,
}

endpoint! {
    /// For the customer.
    TicketDownload = GET "/v1/tickets/{ticket_id}/download" as "ticketDownload", Scope::Shared(Role::Operator), OK;
    "The ticket's file for the customer, with its secret."
    (TicketPath, Nothing, NoBody) -> File = download
}

async fn download(call: Call<TicketDownload>) -> Result<File, Problem> {
    let actor = call.caller.actor();
    let ticket = call
        .people
        .fleet
        .ticket_file(&actor, call.caller.tenant(), &call.path.ticket_id)
        .await?;
    let mut text =
        serde_json::to_vec_pretty(&ticket).map_err(|e| Problem::internal("ticket", &e))?;
    text.push(b'\n');
    Ok(File {
        name: format!("longhaul-{}-{}.ticket.json", ticket.box_id, ticket.id),
        content_type: "application/json".to_owned(),
        bytes: text.len() as u64,
        body: Box::pin(futures::stream::iter([Ok(Bytes::from(text))])),
    })
}

endpoint! {
    /// Ended.
    TicketRevoke = DELETE "/v1/tickets/{ticket_id}" as "ticketRevoke", Scope::Shared(Role::Operator), NO_CONTENT;
    "Ends a ticket; the box learns of it with its next desired state."
    (TicketPath, Nothing, NoBody) -> Done = revoke
}

async fn revoke(call: Call<TicketRevoke>) -> Result<Done, Problem> {
    let actor = call.caller.actor();
    call.people
        .fleet
        .ticket_revoke_for(&actor, call.caller.tenant(), &call.path.ticket_id)
        .await?;
    Ok(Done)
}
