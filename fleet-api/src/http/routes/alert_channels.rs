//! Channels: who is told of alerts.

use longhaul_protocol::ids::CommandId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::endpoint;
use super::paging::{FilteredQuery, TimePlace, page};
use crate::fleet;
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::idempotency::keep;
use crate::http::problem::Problem;
use crate::http::reply::Done;
use crate::store::alert_channels::{
    ChannelKind, ChannelRow, DELIVERY_FIELDS, DeliveryRow, DeliveryState, channel_get,
    channel_list, delivery_list,
};
use crate::store::alert_rules::Severity;
use crate::store::operators::Role;

pub(super) fn add(api: Api) -> Api {
    api.add::<ChannelList>()
        .add::<ChannelCreate>()
        .add::<ChannelDelete>()
        .add::<ChannelTest>()
        .add::<DeliveryList>()
}

/// One channel, without its secret.
#[derive(Serialize, ToSchema)]
pub struct Channel {
    /// Its name in URLs.
    id: String,
    /// Its name for people.
    name: String,
    /// How it tells.
    kind: ChannelKind,
    /// URL or address.
    target: String,
    /// The least severity that is told.
    severity: Severity,
    /// Who made it.
    created_by: String,
    /// When.
    created: i64,
}

impl From<ChannelRow> for Channel {
    fn from(row: ChannelRow) -> Self {
        Self {
            id: row.channel_id,
            name: row.name,
            kind: row.kind,
            target: row.target,
            severity: row.severity,
            created_by: row.created_by,
            created: row.created,
        }
    }
}

/// Every channel.
#[derive(Serialize, ToSchema)]
pub struct Channels {
    /// Oldest first.
    items: Vec<Channel>,
}

endpoint! {
    /// All of them.
    ChannelList = GET "/v1/alert-channels" as "alertChannelList", Scope::Role(Role::Admin), OK;
    "Who is told of alerts."
    (Nothing, Nothing, NoBody) -> Json<Channels> = list
}

async fn list(call: Call<ChannelList>) -> Result<Json<Channels>, Problem> {
    let mut tx = call.people.db.read().await?;
    let rows = channel_list(&mut tx).await?;
    Ok(Json(Channels {
        items: rows.into_iter().map(Channel::from).collect(),
    }))
}

endpoint! {
    /// A new one.
    ChannelCreate = POST "/v1/alert-channels" as "alertChannelCreate", Scope::Role(Role::Admin), CREATED;
    "Adds a webhook or a mail address that is told of alerts; a webhook's secret is shown in this answer only."
    (Nothing, Nothing, Json<NewChannel>) -> Json<MadeChannel> = create
}

/// Who is to be told.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewChannel {
    /// A name for people, 1 to 64 characters.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    name: String,
    /// How it tells.
    kind: ChannelKind,
    /// `https://..` for a webhook, an address for mail.
    #[schema(min_length = 3, max_length = 2000)]
    target: String,
    /// The least severity that is told.
    severity: Severity,
}

/// A channel that was just made.
#[derive(Serialize, ToSchema)]
pub struct MadeChannel {
    /// The channel.
    channel: Channel,
    /// What a webhook's messages are signed with, by standardwebhooks.com; it cannot be shown again.
    secret: Option<String>,
}

async fn create(call: Call<ChannelCreate>) -> Result<Json<MadeChannel>, Problem> {
    let new = call.body.0;
    let length = new.name.chars().count();
    if length == 0 || length > 64 || new.name.chars().any(char::is_control) {
        return Err(Problem::invalid(
            "a channel's name is 1 to 64 characters without control characters",
        ));
    }
    let new = fleet::NewChannel {
        name: new.name,
        kind: new.kind,
        target: new.target,
        severity: new.severity,
    };
    let actor = call.caller.actor();
    let mut tx = call.people.db.write().await?;
    let made = call.people.fleet.channel_create(&mut tx, &actor, new);
    let (row, secret) = made.await?;
    let made = MadeChannel {
        channel: row.into(),
        secret,
    };
    keep(&call.people, &made)?;
    tx.commit().await?;
    Ok(Json(made))
}

/// Which channel.
#[derive(Deserialize, IntoParams)]
pub struct ChannelPath {
    /// The channel's id.
    #[param(value_type = String)]
    channel_id: ChannelId,
}

/// Same rule as for the fleet's other names.
type ChannelId = CommandId;

endpoint! {
    /// Gone.
    ChannelDelete = DELETE "/v1/alert-channels/{channel_id}" as "alertChannelDelete", Scope::Role(Role::Admin), NO_CONTENT;
    "Removes a channel, and what it was still to be told."
    (ChannelPath, Nothing, NoBody) -> Done = delete
}

async fn delete(call: Call<ChannelDelete>) -> Result<Done, Problem> {
    let (actor, id) = (call.caller.actor(), call.path.channel_id.as_str());
    call.people.fleet.channel_remove(&actor, id).await?;
    Ok(Done)
}

endpoint! {
    /// Does it work?
    ChannelTest = POST "/v1/alert-channels/{channel_id}/test" as "alertChannelTest", Scope::Role(Role::Admin), ACCEPTED;
    "Sends a message by a channel; its deliveries say what became of it."
    (ChannelPath, Nothing, NoBody) -> Json<TestSent> = test
}

/// A message that is on its way.
#[derive(Serialize, ToSchema)]
pub struct TestSent {
    /// Its name among the deliveries.
    delivery: String,
}

async fn test(call: Call<ChannelTest>) -> Result<Json<TestSent>, Problem> {
    let (actor, id) = (call.caller.actor(), call.path.channel_id.as_str());
    let delivery = call.people.fleet.channel_test(&actor, id).await?;
    Ok(Json(TestSent { delivery }))
}

endpoint! {
    /// What became of it.
    DeliveryList = GET "/v1/alert-channels/{channel_id}/deliveries" as "alertDeliveryList", Scope::Role(Role::Admin), OK;
    "A channel's messages, newest first, and what became of them."
    (ChannelPath, FilteredQuery, NoBody) -> Json<DeliveryPage> = deliveries
}

/// One message to one channel.
#[derive(Serialize, ToSchema)]
pub struct Delivery {
    /// Its name, also in the header `webhook-id`.
    id: String,
    /// How far it has come.
    state: DeliveryState,
    /// Attempts so far.
    attempts: i64,
    /// When the next is due.
    due: Option<i64>,
    /// Why the last failed.
    reason: Option<String>,
    /// What it says.
    #[schema(value_type = Object)]
    body: serde_json::Value,
    /// When it was written.
    created: i64,
}

impl From<DeliveryRow> for Delivery {
    fn from(row: DeliveryRow) -> Self {
        Self {
            id: row.delivery_id,
            state: row.state,
            attempts: row.attempts,
            due: (row.state == DeliveryState::Waiting).then_some(row.due),
            reason: row.reason,
            body: serde_json::from_str(&row.body).unwrap_or_default(),
            created: row.created,
        }
    }
}

page! {
    /// A page of messages.
    DeliveryPage of Delivery
}

async fn deliveries(call: Call<DeliveryList>) -> Result<Json<DeliveryPage>, Problem> {
    let id = call.path.channel_id.as_str();
    let part = call.query.part::<TimePlace>()?;
    let filter = call.query.filter(&DELIVERY_FIELDS, &call.people)?;
    let before = part.place.as_ref().map(TimePlace::place);
    let mut tx = call.people.db.read().await?;
    if channel_get(&mut tx, id).await?.is_none() {
        return Err(Problem::not_found(format!("there is no channel {id}")));
    }
    let rows = delivery_list(&mut tx, id, &filter, before, part.limit).await?;
    let next = part.next(&rows, |last| (last.created, last.delivery_id.clone()))?;
    Ok(Json(DeliveryPage::new(rows, next, &call.people)))
}
