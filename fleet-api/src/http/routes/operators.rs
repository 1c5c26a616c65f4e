//! Who may log in.

use longhaul_protocol::ticket::Secret;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::endpoint;
use super::tenants::{check_exists, check_tenant};
use crate::auth::password;
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::idempotency::keep;
use crate::http::problem::Problem;
use crate::http::reply::Done;
use crate::http::tag::{Changeable, Tagged};
use crate::store::audit::{AuditEntry, audit_append};
use crate::store::identities::identity_is_of;
use crate::store::operators::{
    OperatorRow, Role, operator_count_admins, operator_delete, operator_get, operator_insert,
    operator_list, operator_lock, operator_update, session_delete_of,
};
use crate::store::tenants::TenantId;

pub(super) fn add(api: Api) -> Api {
    api.add::<OperatorList>()
        .add::<OperatorGet>()
        .add::<OperatorCreate>()
        .add::<OperatorUpdate>()
        .add::<OperatorDelete>()
}

/// One operator.
#[derive(Serialize, ToSchema)]
pub struct Operator {
    /// Log-in name.
    name: String,
    /// What they may do.
    role: Role,
    /// The tenant that they belong to.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    /// Since when they are one.
    created: i64,
}

impl From<OperatorRow> for Operator {
    fn from(row: OperatorRow) -> Self {
        Self {
            name: row.name,
            role: row.role,
            tenant: row.tenant_id,
            created: row.created,
        }
    }
}

/// Every operator.
#[derive(Serialize, ToSchema)]
pub struct Operators {
    /// By name.
    items: Vec<Operator>,
}

/// Which operator.
#[derive(Deserialize, IntoParams)]
pub struct OperatorPath {
    /// Log-in name.
    name: String,
}

endpoint! {
    /// All of them.
    OperatorList = GET "/v1/operators" as "operatorList", Scope::Role(Role::Admin), OK;
    "Every operator."
    (Nothing, Nothing, NoBody) -> Json<Operators> = list
}

async fn list(call: Call<OperatorList>) -> Result<Json<Operators>, Problem> {
    let mut tx = call.people.db.read().await?;
    let rows = operator_list(&mut tx).await?;
    Ok(Json(Operators {
        items: rows.into_iter().map(Operator::from).collect(),
    }))
}

endpoint! {
    /// One of them.
    OperatorGet = GET "/v1/operators/{name}" as "operatorGet", Scope::Role(Role::Admin), OK;
    "One operator."
    (OperatorPath, Nothing, NoBody) -> Tagged<Operator> = get
}

impl Changeable for Operator {
    fn changeable(&self) -> serde_json::Value {
        json!([self.name, self.role, self.created])
    }
}

async fn get(call: Call<OperatorGet>) -> Result<Tagged<Operator>, Problem> {
    let name = call.path.name.as_str();
    check_name(name)?;
    let mut tx = call.people.db.read().await?;
    let row = operator_get(&mut tx, name).await?;
    row.map(|row| Tagged(row.into()))
        .ok_or_else(|| no_operator(name))
}

endpoint! {
    /// A new one.
    OperatorCreate = POST "/v1/operators" as "operatorCreate", Scope::Role(Role::Admin), CREATED;
    "Adds an operator."
    (Nothing, Nothing, Json<NewOperator>) -> Json<Operator> = create
}

/// Who is added.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOperator {
    /// Log-in name: 1 to 64 letters, digits, `.`, `-`, `_` and `@`.
    #[schema(pattern = r"^[A-Za-z0-9._@\-]{1,64}$")]
    name: String,
    /// What they may do.
    role: Role,
    /// The tenant that they belong to, for the role `customer`.
    #[schema(value_type = Option<String>, pattern = r"^[A-Za-z0-9_\-]{1,64}$")]
    tenant: Option<TenantId>,
    /// A first password, at least 12 characters.
    #[schema(value_type = String, min_length = 12, max_length = 256)]
    password: Secret,
}

async fn create(call: Call<OperatorCreate>) -> Result<Json<Operator>, Problem> {
    let new = call.body.0;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_@".contains(c);
    if new.name.is_empty() || new.name.len() > 64 || !new.name.chars().all(is_plain) {
        return Err(Problem::invalid(
            "a name is 1 to 64 letters, digits, '.', '-', '_' and '@'",
        ));
    }
    let tenant = check_tenant(&call.caller, new.role, new.tenant)?;
    password::check(&new.password.0).map_err(Problem::invalid)?;
    let hash = password::hash(new.password.0)
        .await
        .map_err(|e| Problem::internal("password", &e))?;
    let now = call.people.clock.now().0;
    let row = OperatorRow {
        name: new.name,
        password_hash: hash,
        role: new.role,
        created: now,
        tenant_id: tenant.as_ref().map(ToString::to_string),
    };
    let mut tx = call.people.db.write().await?;
    check_exists(&mut tx, tenant.as_ref()).await?;
    if !operator_insert(&mut tx, &row).await? {
        return Err(Problem::conflict(format!("{} exists", row.name)));
    }
    let entry = AuditEntry {
        actor: &call.caller.actor().0,
        action: "operator.create",
        subject: &row.name,
        detail: &json!({ "role": row.role, "tenant": row.tenant_id }),
    };
    audit_append(&mut tx, entry, now).await?;
    let made = Operator::from(row);
    keep(&call.people, &made)?;
    tx.commit().await?;
    Ok(Json(made))
}

endpoint! {
    /// Another role or password.
    OperatorUpdate = PATCH "/v1/operators/{name}" as "operatorUpdate", Scope::Role(Role::Admin), OK;
    "Changes an operator's role or password; a new password ends their sessions."
    (OperatorPath, Nothing, Json<OperatorChange>) -> Tagged<Operator> = update
}

/// What changes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OperatorChange {
    /// What they may do.
    role: Option<Role>,
    /// A new password, at least 12 characters.
    #[schema(value_type = Option<String>, min_length = 12, max_length = 256)]
    password: Option<Secret>,
}

async fn update(call: Call<OperatorUpdate>) -> Result<Tagged<Operator>, Problem> {
    let (name, change) = (call.path.name.as_str(), call.body.0);
    check_name(name)?;
    let hash = match change.password {
        Some(text) => {
            password::check(&text.0).map_err(Problem::invalid)?;
            let hash = password::hash(text.0).await;
            Some(hash.map_err(|e| Problem::internal("password", &e))?)
        }
        None => None,
    };
    let now = call.people.clock.now().0;
    let mut tx = call.people.db.write().await?;
    operator_lock(&mut tx, name).await?;
    let before = operator_get(&mut tx, name).await?;
    if let Some(before) = before.clone() {
        call.seen.check(&Operator::from(before))?;
    }
    if identity_is_of(&mut tx, name).await? {
        return Err(Problem::conflict(
            "this account logs in by the provider, whose groups decide what it may do",
        ));
    }
    let is_customer = |role| role == Role::Customer;
    if let (Some(before), Some(role)) = (before, change.role)
        && is_customer(before.role) != is_customer(role)
    {
        return Err(Problem::conflict(
            "nobody becomes a customer, or ceases to be one: remove them and add them anew",
        ));
    }
    if !operator_update(&mut tx, name, change.role, hash.as_deref()).await? {
        return Err(no_operator(name));
    }
    if operator_count_admins(&mut tx).await? == 0 {
        return Err(last_admin());
    }
    if hash.is_some() {
        session_delete_of(&mut tx, name).await?;
    }
    let entry = AuditEntry {
        actor: &call.caller.actor().0,
        action: "operator.update",
        subject: name,
        detail: &json!({ "role": change.role, "password": hash.is_some() }),
    };
    audit_append(&mut tx, entry, now).await?;
    let row = operator_get(&mut tx, name).await?;
    tx.commit().await?;
    row.map(|row| Tagged(row.into()))
        .ok_or_else(|| no_operator(name))
}

endpoint! {
    /// No longer one.
    OperatorDelete = DELETE "/v1/operators/{name}" as "operatorDelete", Scope::Role(Role::Admin), NO_CONTENT;
    "Removes an operator and ends their sessions."
    (OperatorPath, Nothing, NoBody) -> Done = delete
}

async fn delete(call: Call<OperatorDelete>) -> Result<Done, Problem> {
    let name = call.path.name.as_str();
    check_name(name)?;
    let now = call.people.clock.now().0;
    let mut tx = call.people.db.write().await?;
    operator_lock(&mut tx, name).await?;
    if let Some(before) = operator_get(&mut tx, name).await? {
        call.seen.check(&Operator::from(before))?;
    }
    if !operator_delete(&mut tx, name).await? {
        return Err(no_operator(name));
    }
    if operator_count_admins(&mut tx).await? == 0 {
        return Err(last_admin());
    }
    let entry = AuditEntry {
        actor: &call.caller.actor().0,
        action: "operator.delete",
        subject: name,
        detail: &serde_json::Value::Null,
    };
    audit_append(&mut tx, entry, now).await?;
    tx.commit().await?;
    Ok(Done)
}

/// A text that a database cannot hold is nobody's name.
fn check_name(name: &str) -> Result<(), Problem> {
    if name.contains('\0') {
        return Err(no_operator(name));
    }
    Ok(())
}

fn no_operator(name: &str) -> Problem {
    Problem::not_found(format!("there is no operator {}", name.escape_debug()))
}

fn last_admin() -> Problem {
    Problem::conflict("this is the last administrator; make another one first")
}
