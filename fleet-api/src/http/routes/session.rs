//! Logging in and out.

use ::http::{HeaderMap, HeaderValue, header};
use longhaul_protocol::ticket::Secret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::endpoint;
use crate::auth::{Caller, SESSION_COOKIE, SESSION_SECS, password, secret};
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::network;
use crate::http::problem::Problem;
use crate::http::reply::{Done, WithHeaders};
use crate::store::audit::{AuditEntry, audit_append};
use crate::store::operators::{
    Role, operator_get, operator_update, session_delete, session_delete_of, session_insert,
    session_prune,
};

pub(super) fn add(api: Api) -> Api {
    api.add::<SessionCreate>()
        .add::<SessionDelete>()
        .add::<MeGet>()
        .add::<MyPasswordSet>()
}

endpoint! {
    /// Log in.
    SessionCreate = POST "/v1/session" as "sessionCreate", Scope::Public, CREATED;
    "Logs in; the answer sets the session's cookie."
    (Nothing, Nothing, Json<LogIn>) -> WithHeaders<Json<Me>> = session_create
}

/// Who wants to log in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogIn {
    /// Log-in name.
    name: String,
    /// Password.
    #[schema(value_type = String)]
    password: Secret,
}

/// Who is calling.
#[derive(Serialize, ToSchema)]
pub struct Me {
    /// Log-in name, or the token's.
    name: String,
    /// What they may do.
    role: Role,
    /// The tenant that they belong to.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    /// When the session ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<i64>,
}

async fn session_create(call: Call<SessionCreate>) -> Result<WithHeaders<Json<Me>>, Problem> {
    let (people, log_in) = (&call.people, call.body.0);
    let (now, from) = (people.clock.now().0, network(call.address));
    people
        .throttle
        .lock()
        .attempt(&log_in.name, from, now)
        .map_err(Problem::too_many)?;
    let mut tx = people.db.read().await?;
    // A text that a database cannot hold is nobody's name.
    let known = if log_in.name.contains('\0') {
        None
    } else {
        operator_get(&mut tx, &log_in.name).await?
    };
    drop(tx);
    // Whoever logs in by a provider has no password; that takes as long to say as of nobody.
    let stored = known.as_ref().map(|row| row.password_hash.clone());
    let stored = stored.filter(|hash| !hash.is_empty());
    let right = password::verify(log_in.password.0, stored)
        .await
        .map_err(|e| Problem::internal("password", &e))?;
    let Some(operator) = known.filter(|_| right) else {
        tracing::warn!(name = %log_in.name.escape_debug(), address = ?call.address, "log-in refused");
        return Err(Problem::unauthenticated("name or password is wrong"));
    };
    people.throttle.lock().succeeded(&log_in.name, from);
    let token = secret::new_secret("").map_err(|e| Problem::internal("session", &e))?;
    let expires = now.saturating_add(SESSION_SECS * 1000);
    let mut tx = people.db.write().await?;
    session_prune(&mut tx, now).await?;
    session_insert(&mut tx, &secret::hash(&token), &operator.name, now, expires).await?;
    let detail = serde_json::json!({ "address": call.address });
    let entry = AuditEntry {
        actor: &operator.name,
        action: "session.create",
        subject: &operator.name,
        detail: &detail,
    };
    audit_append(&mut tx, entry, now).await?;
    tx.commit().await?;
    let me = Me {
        name: operator.name,
        role: operator.role,
        tenant: operator.tenant_id,
        expires: Some(expires),
    };
    Ok(WithHeaders(Json(me), cookie(&token, SESSION_SECS)?))
}

fn cookie(token: &str, max_age_secs: i64) -> Result<HeaderMap, Problem> {
    let value = session_cookie(token, max_age_secs)?;
    Ok(HeaderMap::from_iter([(header::SET_COOKIE, value)]))
}

/// The session's cookie.
pub(super) fn session_cookie(token: &str, max_age_secs: i64) -> Result<HeaderValue, Problem> {
    let text = format!(
        "{SESSION_COOKIE}={token}; Max-Age={max_age_secs}; Path=/; Secure; HttpOnly; SameSite=Strict"
    );
    HeaderValue::from_str(&text).map_err(|e| Problem::internal("cookie", &e))
}

endpoint! {
    /// Log out.
    SessionDelete = DELETE "/v1/session" as "sessionDelete", Scope::Shared(Role::Viewer), NO_CONTENT;
    "Logs out."
    (Nothing, Nothing, NoBody) -> WithHeaders<Done> = session_end
}

async fn session_end(call: Call<SessionDelete>) -> Result<WithHeaders<Done>, Problem> {
    if let Caller::Operator { session, .. } = &call.caller {
        let mut tx = call.people.db.write().await?;
        session_delete(&mut tx, session).await?;
        tx.commit().await?;
    }
    Ok(WithHeaders(Done, cookie("", 0)?))
}

endpoint! {
    /// Who am I?
    MeGet = GET "/v1/me" as "meGet", Scope::Shared(Role::Viewer), OK;
    "Who is calling, and what they may do."
    (Nothing, Nothing, NoBody) -> Json<Me> = me_get
}

async fn me_get(call: Call<MeGet>) -> Result<Json<Me>, Problem> {
    let role = call.caller.role().unwrap_or(Role::Viewer);
    Ok(Json(Me {
        name: call.caller.actor().0,
        role,
        tenant: call.caller.tenant().map(ToString::to_string),
        expires: None,
    }))
}

endpoint! {
    /// A new password for oneself.
    MyPasswordSet = POST "/v1/me/password" as "myPasswordSet", Scope::Shared(Role::Viewer), NO_CONTENT;
    "Changes the caller's own password and ends all of their sessions."
    (Nothing, Nothing, Json<NewPassword>) -> Done = my_password_set
}

/// The old and the new one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPassword {
    /// The password so far.
    #[schema(value_type = String)]
    old: Secret,
    /// The password from now on, at least 12 characters.
    #[schema(value_type = String, min_length = 12, max_length = 256)]
    new: Secret,
}

async fn my_password_set(call: Call<MyPasswordSet>) -> Result<Done, Problem> {
    password::check(&call.body.0.new.0).map_err(Problem::invalid)?;
    let Caller::Operator { name, .. } = &call.caller else {
        return Err(Problem::conflict("a token has no password"));
    };
    let (people, from) = (&call.people, network(call.address));
    let now = people.clock.now().0;
    people
        .throttle
        .lock()
        .attempt(name, from, now)
        .map_err(Problem::too_many)?;
    let mut tx = people.db.read().await?;
    let stored = operator_get(&mut tx, name)
        .await?
        .map(|row| row.password_hash)
        .filter(|hash| !hash.is_empty());
    drop(tx);
    let internal = |e| Problem::internal("password", &e);
    let right = password::verify(call.body.0.old.0, stored).await;
    if !right.map_err(internal)? {
        return Err(Problem::forbidden("the old password is wrong"));
    }
    people.throttle.lock().succeeded(name, from);
    let hash = password::hash(call.body.0.new.0).await.map_err(internal)?;
    let mut tx = people.db.write().await?;
    operator_update(&mut tx, name, None, Some(&hash)).await?;
    session_delete_of(&mut tx, name).await?;
    let entry = AuditEntry {
        actor: name,
        action: "operator.password",
        subject: name,
        detail: &serde_json::Value::Null,
    };
    audit_append(&mut tx, entry, now).await?;
    tx.commit().await?;
    Ok(Done)
}
