//! Tenants: customers who see what is theirs, and nothing else.

use longhaul_protocol::ids::BoxId;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::box_view::{BoxPath, BoxView, find};
use super::endpoint;
use super::paging::{PartQuery, page};
use crate::auth::Caller;
use crate::fleet::{FleetEventKind, Wish};
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::idempotency::keep;
use crate::http::problem::Problem;
use crate::http::reply::Done;
use crate::http::tag::Tagged;
use crate::objects::names::check_bucket;
use crate::store::Tx;
use crate::store::audit::{AuditEntry, audit_append};
use crate::store::boxes::box_lock;
use crate::store::boxes::box_set_tenant;
use crate::store::operators::Role;
use crate::store::tenants::{
    TenantId, TenantRow, bucket_give, bucket_list_of, tenant_get, tenant_insert, tenant_list,
};
use crate::store::tickets::ticket_list_valid;

pub(super) fn add(api: Api) -> Api {
    api.add::<TenantList>()
        .add::<TenantCreate>()
        .add::<TenantGet>()
        .add::<TenantBucketSet>()
        .add::<BoxTenantSet>()
}

/// One tenant.
#[derive(Serialize, ToSchema)]
pub struct Tenant {
    /// Its name in URLs.
    id: String,
    /// Its name for people.
    name: String,
    /// Who made it.
    created_by: String,
    /// When.
    created: i64,
}

impl From<TenantRow> for Tenant {
    fn from(row: TenantRow) -> Self {
        Self {
            id: row.tenant_id.to_string(),
            name: row.name,
            created_by: row.created_by,
            created: row.created,
        }
    }
}

page! {
    /// A page of tenants.
    TenantPage of Tenant
}

endpoint! {
    /// All of them.
    TenantList = GET "/v1/tenants" as "tenantList", Scope::Role(Role::Viewer), OK;
    "Tenants in the order of their names."
    (Nothing, PartQuery, NoBody) -> Json<TenantPage> = list
}

async fn list(call: Call<TenantList>) -> Result<Json<TenantPage>, Problem> {
    let part = call.query.part()?;
    let mut tx = call.people.db.read().await?;
    let rows = tenant_list(&mut tx, part.place.as_ref(), part.limit).await?;
    let next = part.next(&rows, |last| last.tenant_id.to_string())?;
    Ok(Json(TenantPage::new(rows, next, &call.people)))
}

endpoint! {
    /// A new one.
    TenantCreate = POST "/v1/tenants" as "tenantCreate", Scope::Role(Role::Admin), CREATED;
    "Adds a tenant."
    (Nothing, Nothing, Json<NewTenant>) -> Json<Tenant> = create
}

/// Who is added.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTenant {
    /// Its name in URLs: 1 to 64 letters, digits, `-` and `_`.
    #[schema(value_type = String, pattern = r"^[A-Za-z0-9_\-]{1,64}$")]
    id: TenantId,
    /// Its name for people, 1 to 200 characters.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"
    )]
    name: String,
}

async fn create(call: Call<TenantCreate>) -> Result<Json<Tenant>, Problem> {
    let new = call.body.0;
    let length = new.name.chars().count();
    if length == 0 || length > 200 || new.name.chars().any(char::is_control) {
        return Err(Problem::invalid(
            "a tenant's name is 1 to 200 characters without control characters",
        ));
    }
    let now = call.people.clock.now().0;
    let row = TenantRow {
        tenant_id: new.id,
        name: new.name,
        created_by: call.caller.actor().0,
        created: now,
    };
    let mut tx = call.people.db.write().await?;
    if !tenant_insert(&mut tx, &row).await? {
        return Err(Problem::conflict(format!(
            "tenant {} exists",
            row.tenant_id
        )));
    }
    let entry = AuditEntry {
        actor: &row.created_by,
        action: "tenant.create",
        subject: row.tenant_id.as_str(),
        detail: &json!({ "name": row.name }),
    };
    audit_append(&mut tx, entry, now).await?;
    let made = Tenant::from(row);
    keep(&call.people, &made)?;
    tx.commit().await?;
    Ok(Json(made))
}

/// Which tenant.
#[derive(Deserialize, IntoParams)]
pub struct TenantPath {
    /// The tenant's name.
    #[param(value_type = String)]
    tenant_id: TenantId,
}

endpoint! {
    /// One of them.
    TenantGet = GET "/v1/tenants/{tenant_id}" as "tenantGet", Scope::Role(Role::Viewer), OK;
    "One tenant and its buckets."
    (TenantPath, Nothing, NoBody) -> Json<TenantDetail> = get
}

/// One tenant and its buckets.
#[derive(Serialize, ToSchema)]
pub struct TenantDetail {
    /// The tenant.
    #[serde(flatten)]
    tenant: Tenant,
    /// Its buckets, by name.
    buckets: Vec<String>,
}

async fn get(call: Call<TenantGet>) -> Result<Json<TenantDetail>, Problem> {
    let id = &call.path.tenant_id;
    let mut tx = call.people.db.read().await?;
    let row = tenant_get(&mut tx, id).await?;
    let tenant = row.ok_or_else(|| no_tenant(id))?.into();
    let buckets = bucket_list_of(&mut tx, id).await?;
    Ok(Json(TenantDetail { tenant, buckets }))
}

/// Which bucket of which tenant.
#[derive(Deserialize, IntoParams)]
pub struct TenantBucketPath {
    /// The tenant's name.
    #[param(value_type = String)]
    tenant_id: TenantId,
    /// The bucket.
    bucket: String,
}

endpoint! {
    /// Theirs from now on.
    TenantBucketSet = PUT "/v1/tenants/{tenant_id}/buckets/{bucket}" as "tenantBucketSet", Scope::Role(Role::Admin), NO_CONTENT;
    "Gives a bucket that is no other tenant's to a tenant, with its objects, receipts, orders and tickets."
    (TenantBucketPath, Nothing, NoBody) -> Done = bucket_set
}

async fn bucket_set(call: Call<TenantBucketSet>) -> Result<Done, Problem> {
    let (id, bucket) = (&call.path.tenant_id, call.path.bucket.as_str());
    check_bucket(bucket).map_err(Problem::invalid)?;
    let now = call.people.clock.now().0;
    let mut tx = call.people.db.write().await?;
    if tenant_get(&mut tx, id).await?.is_none() {
        return Err(no_tenant(id));
    }
    if !bucket_give(&mut tx, bucket, id).await? {
        return Err(Problem::conflict(format!(
            "bucket {bucket} is another tenant's"
        )));
    }
    let entry = AuditEntry {
        actor: &call.caller.actor().0,
        action: "tenant.bucket",
        subject: id.as_str(),
        detail: &json!({ "bucket": bucket }),
    };
    audit_append(&mut tx, entry, now).await?;
    tx.commit().await?;
    Ok(Done)
}

endpoint! {
    /// Whose it is.
    BoxTenantSet = PUT "/v1/boxes/{box_id}/tenant" as "boxTenantSet", Scope::Role(Role::Operator), OK;
    "Gives a box to a tenant, or takes it back; it must hold no valid ticket of anybody else's."
    (BoxPath, Nothing, Json<BoxTenant>) -> Tagged<BoxView> = box_tenant_set
}

/// Who gets it.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BoxTenant {
    /// The tenant; absent to take the box back.
    #[schema(value_type = Option<String>, pattern = r"^[A-Za-z0-9_\-]{1,64}$")]
    tenant: Option<TenantId>,
}

async fn box_tenant_set(call: Call<BoxTenantSet>) -> Result<Tagged<BoxView>, Problem> {
    let (id, body): (&BoxId, _) = (&call.path.box_id, call.body.0);
    let tenant = body.tenant.as_ref();
    let now = call.people.clock.now().0;
    let mut tx = call.people.db.write().await?;
    box_lock(&mut tx, id).await?;
    let before: BoxView = find(&mut tx, id).await?.into();
    call.seen.check(&before)?;
    if !box_set_tenant(&mut tx, id, tenant, now)
        .await
        .map_err(|e| {
            if e.is_missing_reference() {
                Problem::conflict("there is no such tenant")
            } else {
                e.into()
            }
        })?
    {
        find(&mut tx, id).await?;
    }
    let tickets = ticket_list_valid(&mut tx, id, now).await?;
    let foreign = |owner: &Option<String>| owner.as_deref() != tenant.map(TenantId::as_str);
    if let Some(ticket) = tickets.iter().find(|t| foreign(&t.tenant_id)) {
        return Err(Problem::conflict(format!(
            "ticket {} of somebody else is valid: revoke it first",
            ticket.ticket_id
        )));
    }
    // Whoever has the box now is guided from where they are.
    let fleet = &call.people.fleet;
    fleet.desired_renew(&mut tx, id, Wish::default()).await?;
    let row = find(&mut tx, id).await?;
    let entry = AuditEntry {
        actor: &call.caller.actor().0,
        action: "box.tenant",
        subject: id.as_str(),
        detail: &json!(body),
    };
    audit_append(&mut tx, entry, now).await?;
    tx.commit().await?;
    fleet.desired_send(id, None).await?;
    fleet.tell(Some(id), FleetEventKind::BoxLabelled);
    Ok(Tagged(row.into()))
}

/// Whose a new account or token is: customers have a tenant, others have none, and who is bound to a
/// tenant makes nothing but its customers.
pub(super) fn check_tenant(
    caller: &Caller,
    role: Role,
    tenant: Option<TenantId>,
) -> Result<Option<TenantId>, Problem> {
    if let Some(own) = caller.tenant() {
        if role != Role::Customer || tenant.as_ref().is_some_and(|t| t != own) {
            return Err(Problem::forbidden(
                "customers make tokens of their own tenant only",
            ));
        }
        return Ok(Some(own.clone()));
    }
    if (role == Role::Customer) == tenant.is_some() {
        return Ok(tenant);
    }
    Err(Problem::invalid(
        "the role customer needs a tenant, and no other role has one",
    ))
}

/// Refuses a tenant that there is none of.
pub(super) async fn check_exists(tx: &mut Tx, tenant: Option<&TenantId>) -> Result<(), Problem> {
    if let Some(tenant) = tenant
        && tenant_get(tx, tenant).await?.is_none()
    {
        return Err(Problem::conflict(format!("there is no tenant {tenant}")));
    }
    Ok(())
}

fn no_tenant(id: &TenantId) -> Problem {
    Problem::not_found(format!("there is no tenant {id}"))
}
