//! Orders: a customer's journey of a box.

use longhaul_protocol::ids::OrderId;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::endpoint;
use super::paging::{FilteredQuery, page};
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::idempotency::keep;
use crate::http::problem::Problem;
use crate::objects::names::check_bucket;
use crate::store::audit::{AuditEntry, audit_append};
use crate::store::new_id;
use crate::store::operators::Role;
use crate::store::orders::{ORDER_FIELDS, OrderRow, order_get, order_insert, order_list};
use crate::store::tenants::{TenantId, bucket_claim, tenant_get};

pub(super) fn add(api: Api) -> Api {
    api.add::<OrderCreate>()
        .add::<OrderList>()
        .add::<OrderGet>()
}

/// One order.
#[derive(Serialize, ToSchema)]
pub struct Order {
    /// Its name.
    id: String,
    /// Whose it is, in words.
    customer: String,
    /// The tenant that it belongs to.
    tenant: Option<String>,
    /// The bucket that its objects go to.
    bucket: String,
    /// What an operator wrote.
    note: String,
    /// Who made it.
    created_by: String,
    /// When.
    created: i64,
}

impl From<OrderRow> for Order {
    fn from(row: OrderRow) -> Self {
        Self {
            id: row.order_id.to_string(),
            customer: row.customer,
            tenant: row.tenant_id,
            bucket: row.bucket,
            note: row.note,
            created_by: row.created_by,
            created: row.created,
        }
    }
}

endpoint! {
    /// A new one.
    OrderCreate = POST "/v1/orders" as "orderCreate", Scope::Role(Role::Operator), CREATED;
    "Adds an order."
    (Nothing, Nothing, Json<NewOrder>) -> Json<Order> = create
}

/// What is ordered.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "customer": "Northern Survey", "bucket": "survey-2026", "note": "two boxes" }))]
pub struct NewOrder {
    /// Its name: 1 to 64 letters, digits, `-` and `_`; made up if absent.
    #[schema(value_type = Option<String>, pattern = r"^[A-Za-z0-9_\-]{1,64}$")]
    id: Option<OrderId>,
    /// Whose it is, at most 200 characters.
    #[schema(max_length = 200, pattern = r"^[^\x00]*$")]
    customer: String,
    /// The tenant that it belongs to, and its bucket with it; absent for the fleet's own.
    #[schema(value_type = Option<String>, pattern = r"^[A-Za-z0-9_\-]{1,64}$")]
    tenant: Option<TenantId>,
    /// The bucket that its objects go to.
    #[schema(
        min_length = 3,
        max_length = 63,
        pattern = r"^[a-z0-9](\.?[a-z0-9\-])*\.?[a-z0-9]$"
    )]
    bucket: String,
    /// Anything worth knowing, at most 2,000 characters.
    #[serde(default)]
    #[schema(max_length = 2000, pattern = r"^[^\x00]*$")]
    note: String,
}

async fn create(call: Call<OrderCreate>) -> Result<Json<Order>, Problem> {
    let new = call.body.0;
    let too_long = |text: &str, max| text.chars().count() > max || text.contains('\0');
    if too_long(&new.customer, 200) || too_long(&new.note, 2000) {
        return Err(Problem::invalid(
            "customer has at most 200 characters, note 2,000, and neither has a NUL",
        ));
    }
    check_bucket(&new.bucket).map_err(Problem::invalid)?;
    let order_id = match new.id {
        Some(id) => id,
        None => new_id("or")
            .parse()
            .map_err(|e| Problem::internal("order id", &e))?,
    };
    let now = call.people.clock.now().0;
    let row = OrderRow {
        order_id,
        customer: new.customer,
        bucket: new.bucket,
        note: new.note,
        created_by: call.caller.actor().0,
        created: now,
        tenant_id: new.tenant.as_ref().map(ToString::to_string),
    };
    let mut tx = call.people.db.write().await?;
    if let Some(tenant) = &new.tenant
        && tenant_get(&mut tx, tenant).await?.is_none()
    {
        return Err(Problem::conflict(format!("there is no tenant {tenant}")));
    }
    if !bucket_claim(&mut tx, &row.bucket, new.tenant.as_ref()).await? {
        return Err(Problem::conflict(format!(
            "bucket {} is somebody else's",
            row.bucket
        )));
    }
    if !order_insert(&mut tx, &row).await? {
        return Err(Problem::conflict(format!("order {} exists", row.order_id)));
    }
    let entry = AuditEntry {
        actor: &row.created_by,
        action: "order.create",
        subject: row.order_id.as_str(),
        detail: &json!({ "customer": row.customer, "bucket": row.bucket, "tenant": row.tenant_id }),
    };
    audit_append(&mut tx, entry, now).await?;
    let made = Order::from(row);
    keep(&call.people, &made)?;
    tx.commit().await?;
    Ok(Json(made))
}

endpoint! {
    /// All of them.
    OrderList = GET "/v1/orders" as "orderList", Scope::Shared(Role::Viewer), OK;
    "Orders in the order of their names."
    (Nothing, FilteredQuery, NoBody) -> Json<OrderPage> = list
}

page! {
    /// A page of orders.
    OrderPage of Order
}

async fn list(call: Call<OrderList>) -> Result<Json<OrderPage>, Problem> {
    let part = call.query.part()?;
    let filter = call.query.filter(&ORDER_FIELDS, &call.people)?;
    let mut tx = call.people.db.read().await?;
    let rows = order_list(
        &mut tx,
        call.caller.tenant(),
        &filter,
        part.place.as_ref(),
        part.limit,
    )
    .await?;
    let next = part.next(&rows, |last| last.order_id.to_string())?;
    Ok(Json(OrderPage::new(rows, next, &call.people)))
}

/// Which order.
#[derive(Deserialize, IntoParams)]
pub struct OrderPath {
    /// The order's name.
    #[param(value_type = String)]
    pub(super) order_id: OrderId,
}

endpoint! {
    /// One order.
    OrderGet = GET "/v1/orders/{order_id}" as "orderGet", Scope::Shared(Role::Viewer), OK;
    "One order."
    (OrderPath, Nothing, NoBody) -> Json<Order> = get
}

async fn get(call: Call<OrderGet>) -> Result<Json<Order>, Problem> {
    let id = &call.path.order_id;
    let mut tx = call.people.db.read().await?;
    let row = order_get(&mut tx, id, call.caller.tenant()).await?;
    row.map(|row| Json(row.into()))
        .ok_or_else(|| Problem::not_found(format!("there is no order {id}")))
}
