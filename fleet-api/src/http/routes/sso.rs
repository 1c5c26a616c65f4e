//! Logging in by a provider's word (OIDC).

use ::http::{HeaderMap, HeaderValue, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::endpoint;
use super::session::session_cookie;
use crate::auth::{SESSION_SECS, secret};
use crate::http::People;
use crate::http::api::Api;
use crate::http::endpoint::{Call, Endpoint as _, Json, NoBody, Nothing, Scope};
use crate::http::network;
use crate::http::problem::Problem;
use crate::http::reply::Redirect;
use crate::sso::attempt::{Attempt, COOKIE, VALID_SECS};
use crate::sso::{Answer, Person, Sso, SsoError};
use crate::store::Tx;
use crate::store::audit::{AuditEntry, audit_append};
use crate::store::identities::{attempt_use, identity_find, identity_grant, identity_insert};
use crate::store::operators::{
    OperatorRow, operator_get, operator_insert, operator_lock, session_delete_of, session_insert,
    session_prune,
};
use crate::store::tenants::{TenantId, tenant_get};

/// Where the provider sends browsers back to.
const CALLBACK: &str = "/v1/session/oidc/callback";

pub(super) fn add(api: Api) -> Api {
    api.add::<LogInWays>().add::<SsoBegin>().add::<SsoFinish>()
}

endpoint! {
    /// How can one log in?
    LogInWays = GET "/v1/session/ways" as "logInWays", Scope::Public, OK;
    "How people log in: by name and password always, by a provider where one is configured."
    (Nothing, Nothing, NoBody) -> Json<Ways> = ways
}

/// How people log in.
#[derive(Serialize, ToSchema)]
pub struct Ways {
    /// The provider beside name and password.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<Way>,
}

/// A provider that vouches for people.
#[derive(Serialize, ToSchema)]
pub struct Way {
    /// What it is called.
    name: String,
    /// Where a browser goes to log in by it.
    url: &'static str,
}

async fn ways(call: Call<LogInWays>) -> Result<Json<Ways>, Problem> {
    let provider = call.people.sso.as_ref().map(|sso| Way {
        name: sso.name().to_owned(),
        url: SsoBegin::PATH,
    });
    Ok(Json(Ways { provider }))
}

endpoint! {
    /// Off to the provider.
    SsoBegin = GET "/v1/session/oidc" as "ssoBegin", Scope::Public, SEE_OTHER;
    "Sends a browser to the provider to log in there; 404 where none is configured."
    (Nothing, Nothing, NoBody) -> Redirect = begin
}

fn configured(people: &People) -> Result<&Sso, Problem> {
    let none = || Problem::not_found("no provider is configured to log in by");
    people.sso.as_deref().ok_or_else(none)
}

fn redirect_uri(people: &People) -> String {
    format!("{}{CALLBACK}", people.fleet.people_url())
}

async fn begin(call: Call<SsoBegin>) -> Result<Redirect, Problem> {
    let people = &call.people;
    let (sso, now) = (configured(people)?, people.clock.now().0);
    let attempt = Attempt::new(now).map_err(|e| Problem::internal("log-in", &e))?;
    let url = match sso.begin(&attempt, &redirect_uri(people), now).await {
        Ok(url) => url,
        Err(error) => return Ok(refused(&error)),
    };
    let sealed = attempt.seal(people.fleet.seal());
    let sealed = sealed.ok_or_else(|| Problem::unavailable("a log-in cannot be begun now"))?;
    let mut headers = HeaderMap::new();
    headers.append(header::SET_COOKIE, attempt_cookie(&sealed, VALID_SECS)?);
    Ok(Redirect(url.into(), headers))
}

/// `Lax`: the browser comes back from another site, and must bring it along.
fn attempt_cookie(value: &str, max_age_secs: i64) -> Result<HeaderValue, Problem> {
    let text =
        format!("{COOKIE}={value}; Max-Age={max_age_secs}; Path=/; Secure; HttpOnly; SameSite=Lax");
    HeaderValue::from_str(&text).map_err(|e| Problem::internal("cookie", &e))
}

/// Back to the log-in page, which says why in its own words: nothing of what came in an address or from
/// the provider is repeated.
fn refused(error: &SsoError) -> Redirect {
    let why = match error {
        SsoError::Stray => "stray",
        SsoError::Denied => "denied",
        SsoError::Unknown => "unknown",
        SsoError::Name => "name",
        _ => "provider",
    };
    tracing::warn!(
        error = error as &dyn std::error::Error,
        "log-in by the provider refused"
    );
    back(why)
}

fn back(why: &str) -> Redirect {
    Redirect(format!("/?log-in={why}"), HeaderMap::new())
}

endpoint! {
    /// Back from the provider.
    SsoFinish = GET "/v1/session/oidc/callback" as "ssoFinish", Scope::Public, SEE_OTHER;
    "Where the provider sends a browser back to: sets the session's cookie and leads to the dashboard, or to its log-in page, which says why not."
    (Nothing, FinishQuery, NoBody) -> Redirect = finish
}

/// What the provider says; providers add more, which is passed over.
#[derive(Deserialize, IntoParams)]
pub struct FinishQuery {
    /// What the log-in was begun with.
    state: Option<String>,
    /// What the cloud exchanges for who it is.
    code: Option<String>,
    /// The provider.
    iss: Option<String>,
}

async fn finish(call: Call<SsoFinish>) -> Result<Redirect, Problem> {
    let people = &call.people;
    let (sso, now) = (configured(people)?, people.clock.now().0);
    let from = network(call.address);
    if people.throttle.lock().attempt_from(from, now).is_err() {
        return Ok(back("busy"));
    }
    let done = match attempt(&call, now) {
        Some(attempt) => log_in(&call, sso, &attempt, now).await?,
        None => Err(SsoError::Stray),
    };
    let Redirect(to, mut headers) = match done {
        Ok(token) => {
            people.throttle.lock().succeeded_from(from);
            let mut headers = HeaderMap::new();
            headers.append(header::SET_COOKIE, session_cookie(&token, SESSION_SECS)?);
            Redirect("/".to_owned(), headers)
        }
        Err(error) => refused(&error),
    };
    headers.append(header::SET_COOKIE, attempt_cookie("", 0)?);
    Ok(Redirect(to, headers))
}

/// The attempt that this browser began.
fn attempt(call: &Call<SsoFinish>, now: i64) -> Option<Attempt> {
    let mut pairs = call.cookies.iter().flat_map(|text| text.split(';'));
    let cookie = pairs.find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))?;
    Attempt::open(call.people.fleet.seal(), cookie, now)
}

/// A session's token, or why there is none.
async fn log_in(
    call: &Call<SsoFinish>,
    sso: &Sso,
    attempt: &Attempt,
    now: i64,
) -> Result<Result<String, SsoError>, Problem> {
    let people = &call.people;
    let answer = Answer {
        state: call.query.state.clone(),
        code: call.query.code.clone(),
        iss: call.query.iss.clone(),
    };
    if answer.state.as_deref() != Some(attempt.state.as_str()) {
        return Ok(Err(SsoError::Stray));
    }
    // An attempt is good for one answer, whatever the provider thinks of its code.
    let used = secret::hash(&attempt.state);
    let mut tx = people.db.write().await?;
    if !attempt_use(&mut tx, &used, attempt.expires, now).await? {
        return Ok(Err(SsoError::Stray));
    }
    tx.commit().await?;
    let redirect = redirect_uri(people);
    let person = match sso.finish(attempt, &answer, &redirect, now).await {
        Ok(person) => person,
        Err(error) => return Ok(Err(error)),
    };
    let mut tx = people.db.write().await?;
    let name = match account(&mut tx, sso.issuer(), &person, now).await? {
        Ok(name) => name,
        Err(error) => {
            tx.commit().await?;
            return Ok(Err(error));
        }
    };
    let token = secret::new_secret("").map_err(|e| Problem::internal("session", &e))?;
    let expires = now.saturating_add(SESSION_SECS * 1000);
    session_prune(&mut tx, now).await?;
    session_insert(&mut tx, &secret::hash(&token), &name, now, expires).await?;
    let detail = json!({
        "address": call.address, "issuer": sso.issuer(), "subject": person.subject,
    });
    say(&mut tx, &name, "session.create", &detail, now).await?;
    tx.commit().await?;
    Ok(Ok(token))
}

/// The person's account as their groups want it now; made where there is none.
async fn account(
    tx: &mut Tx,
    issuer: &str,
    person: &Person,
    now: i64,
) -> Result<Result<String, SsoError>, Problem> {
    let known = identity_find(tx, issuer, &person.subject).await?;
    let mut grant = person.grant.clone();
    if let Some(tenant) = grant.as_ref().and_then(|g| g.tenant.as_ref())
        && tenant_get(tx, tenant).await?.is_none()
    {
        tracing::warn!(%tenant, "a provider's group leads to a tenant that there is none of");
        grant = None;
    }
    let who = json!({ "issuer": issuer, "subject": person.subject });
    let Some(grant) = grant else {
        let subject = known.as_deref().unwrap_or("nobody");
        if let Some(name) = &known {
            // Whoever may do nothing any more is out at once.
            session_delete_of(tx, name).await?;
        }
        say(tx, subject, "session.refuse", &who, now).await?;
        return Ok(Err(SsoError::Unknown));
    };
    let tenant = grant.tenant.as_ref();
    let detail = json!({
        "role": grant.role, "tenant": tenant, "issuer": issuer, "subject": person.subject,
    });
    if let Some(name) = known {
        operator_lock(tx, &name).await?;
        let row = operator_get(tx, &name).await?;
        let same = row.is_some_and(|row| {
            row.role == grant.role && row.tenant_id.as_deref() == tenant.map(TenantId::as_str)
        });
        if !same {
            identity_grant(tx, &name, grant.role, tenant).await?;
            say(tx, &name, "operator.update", &detail, now).await?;
        }
        return Ok(Ok(name));
    }
    let Some(name) = person.name.clone() else {
        return Ok(Err(SsoError::Name));
    };
    let row = OperatorRow {
        name,
        // No password fits it.
        password_hash: String::new(),
        role: grant.role,
        created: now,
        tenant_id: tenant.map(ToString::to_string),
    };
    // A name that somebody has stays theirs, whatever the provider calls others.
    if !operator_insert(tx, &row).await? {
        // Unless it is theirs since a moment ago: somebody who came twice at once.
        let now_known = identity_find(tx, issuer, &person.subject).await?;
        return Ok(now_known.ok_or(SsoError::Name));
    }
    identity_insert(tx, issuer, &person.subject, &row.name, now).await?;
    say(tx, &row.name, "operator.create", &detail, now).await?;
    Ok(Ok(row.name))
}

/// The provider's word is what acts here; the account is who it is about.
async fn say(
    tx: &mut Tx,
    name: &str,
    action: &str,
    detail: &serde_json::Value,
    now: i64,
) -> Result<(), Problem> {
    let actor = if action == "session.create" {
        name
    } else {
        // No account can be called this.
        "log-in provider"
    };
    let entry = AuditEntry {
        actor,
        action,
        subject: name,
        detail,
    };
    audit_append(tx, entry, now).await?;
    Ok(())
}
