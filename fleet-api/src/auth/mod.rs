//! Who calls: operators with a session, programs with a token.

pub mod password;
pub mod secret;
pub mod throttle;

use ::http::header::{AUTHORIZATION, COOKIE};
use ::http::{HeaderMap, Method};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use longhaul_protocol::ids::{BoxId, TicketId};

use crate::fleet::Actor;
use crate::http::People;
use crate::http::api::Head;
use crate::http::endpoint::Scope;
use crate::http::problem::Problem;
use crate::store::api_tokens::api_token_find;
use crate::store::audit::{AuditEntry, audit_append};
use crate::store::operators::{
    OperatorRow, Role, operator_count_admins, operator_insert, session_get,
};
use crate::store::tenants::TenantId;
use crate::store::{Db, StoreError};

/// The cookie that carries a session. The prefix makes browsers refuse it without `Secure`, from
/// a sub-domain, or for a part of the site only (RFC 6265bis section 4.1.3).
pub const SESSION_COOKIE: &str = "__Host-longhaul-session";
/// A header that no foreign site can make a browser send without asking first.
pub const CSRF_HEADER: &str = "x-longhaul-csrf";
/// How long a session lasts.
pub const SESSION_SECS: i64 = 12 * 3600;

/// Who calls.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Caller {
    /// Nobody in particular; only on routes that are open to all.
    Nobody,
    /// An operator who is logged in.
    Operator {
        /// Log-in name.
        name: String,
        /// What they may do.
        role: Role,
        /// Hash of the session's token.
        session: String,
        /// The tenant that they belong to; a customer always has one, others never.
        tenant: Option<TenantId>,
    },
    /// A program with a token.
    Token {
        /// The token's name.
        name: String,
        /// What it may do.
        role: Role,
        /// Hash of the token.
        hash: String,
        /// The tenant that it speaks for; a customer always has one, others never.
        tenant: Option<TenantId>,
        /// The account that answers for it.
        owner: Option<String>,
    },
    /// A customer with a ticket, on the few routes that are open to them.
    Customer(TicketHolder),
}

/// A ticket whose key pair was shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TicketHolder {
    /// The ticket.
    pub ticket: TicketId,
    /// Its box.
    pub box_id: BoxId,
    /// The bucket that it reaches.
    pub bucket: String,
}

impl Caller {
    /// What they may do.
    pub fn role(&self) -> Option<Role> {
        match self {
            Self::Nobody | Self::Customer(_) => None,
            Self::Operator { role, .. } | Self::Token { role, .. } => Some(*role),
        }
    }

    /// The tenant that everything the caller sees and does is bound to; none for the fleet's own
    /// people.
    pub fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Nobody | Self::Customer(_) => None,
            Self::Operator { tenant, .. } | Self::Token { tenant, .. } => tenant.as_ref(),
        }
    }

    /// The account that answers for what they do; a program whose maker is not known has none.
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::Nobody | Self::Customer(_) => None,
            Self::Operator { name, .. } => Some(name),
            Self::Token { owner, .. } => owner.as_deref(),
        }
    }

    /// Their name in the audit.
    pub fn actor(&self) -> Actor {
        Actor(match self {
            Self::Nobody => "nobody".to_owned(),
            Self::Operator { name, .. } => name.clone(),
            Self::Token { name, .. } => format!("token:{name}"),
            Self::Customer(holder) => format!("ticket:{}", holder.ticket),
        })
    }
}

/// Finds out who calls and whether they may call what has this scope.
pub async fn identify(people: &People, head: &Head, scope: Scope) -> Result<Caller, Problem> {
    let caller = if let Some(value) = head.headers.get(AUTHORIZATION) {
        let token = value
            .to_str()
            .ok()
            .and_then(|v| v.strip_prefix("Bearer "))
            .ok_or_else(|| Problem::unauthenticated("send `Authorization: Bearer TOKEN`"))?;
        by_token(people, &secret::hash(token.trim())).await?
    } else if let Some(token) = session_token(&head.headers) {
        check_origin(head)?;
        by_session(people, &secret::hash(token)).await?
    } else {
        None
    };
    let caller = caller.ok_or_else(|| {
        Problem::unauthenticated("log in, or send an API token that is still valid")
    })?;
    match caller.role() {
        Some(role) if scope.admits(role) => Ok(caller),
        _ => Err(Problem::forbidden(match scope {
            Scope::Role(needed) | Scope::Shared(needed) | Scope::RoleOrTicket(needed) => {
                format!("this takes the role {needed}")
            }
            Scope::Public => String::new(),
        })),
    }
}

/// Whether a caller who was identified a while ago still may do what takes `needed`.
pub async fn still_valid(people: &People, caller: &Caller, needed: Role) -> bool {
    let found = match caller {
        Caller::Nobody | Caller::Customer(_) => return false,
        Caller::Operator { session, .. } => by_session(people, session).await,
        Caller::Token { hash, .. } => by_token(people, hash).await,
    };
    matches!(found, Ok(Some(caller)) if caller.role().is_some_and(|r| r.includes(needed)))
}

/// The customer whose ticket's key pair is given as user and password (HTTP Basic); `None` where
/// nobody tries that.
pub async fn by_ticket(people: &People, head: &Head) -> Result<Option<Caller>, Problem> {
    let given = head.headers.get(AUTHORIZATION);
    let Some(pair) = given.and_then(|value| value.as_bytes().strip_prefix(b"Basic ")) else {
        return Ok(None);
    };
    let pair = STANDARD.decode(pair).ok();
    let pair = pair.and_then(|pair| String::from_utf8(pair).ok());
    let shown = pair.as_deref().and_then(|pair| pair.split_once(':'));
    let holder = match shown {
        Some((access_key, secret)) => people.fleet.ticket_holder(access_key, secret).await?,
        None => None,
    };
    holder.map(Caller::Customer).map(Some).ok_or_else(|| {
        Problem::unauthenticated(
            "the ticket is not known here, or it was revoked or ended long ago",
        )
    })
}

async fn by_token(people: &People, hash: &str) -> Result<Option<Caller>, Problem> {
    let mut tx = people.db.read().await?;
    let row = api_token_find(&mut tx, hash, people.clock.now().0).await?;
    let Some(row) = row else { return Ok(None) };
    let Some(tenant) = tenant(row.role, row.tenant_id) else {
        return Ok(None);
    };
    Ok(Some(Caller::Token {
        name: row.name,
        role: row.role,
        hash: hash.to_owned(),
        tenant,
        owner: row.owner,
    }))
}

async fn by_session(people: &People, hash: &str) -> Result<Option<Caller>, Problem> {
    let mut tx = people.db.read().await?;
    let row = session_get(&mut tx, hash, people.clock.now().0).await?;
    let Some(row) = row else { return Ok(None) };
    let Some(tenant) = tenant(row.role, row.tenant_id) else {
        return Ok(None);
    };
    Ok(Some(Caller::Operator {
        name: row.operator,
        role: row.role,
        session: hash.to_owned(),
        tenant,
    }))
}

/// A customer without a tenant, or anybody else with one, is nobody: what is not bound would see
/// everything.
#[expect(
    clippy::option_option,
    reason = "nobody, somebody of the fleet, somebody of a tenant"
)]
fn tenant(role: Role, stored: Option<String>) -> Option<Option<TenantId>> {
    match (role, stored) {
        (Role::Customer, Some(text)) => Some(Some(text.parse().ok()?)),
        (Role::Admin | Role::Operator | Role::Viewer, None) => Some(None),
        _ => None,
    }
}

/// The token in the session's cookie.
fn session_token(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(SESSION_COOKIE)?.strip_prefix('='))
}

/// A cookie comes along whoever made the browser ask; this header does not.
fn check_origin(head: &Head) -> Result<(), Problem> {
    if head.method == Method::GET {
        return Ok(());
    }
    if head.headers.get(CSRF_HEADER).is_some_and(|v| v == "1") {
        return Ok(());
    }
    Err(Problem::forbidden(
        "with a session's cookie, send the header X-Longhaul-Csrf: 1 as well",
    ))
}

/// Why there is no first administrator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FirstAdminError {
    /// The database failed.
    #[error("failed to make the first administrator")]
    Store(#[from] StoreError),
    /// The password could not be made or hashed.
    #[error("failed to make the first administrator's password")]
    Password(#[from] password::PasswordError),
}

/// Makes the operator `admin` with a random password if nobody may do everything yet; yields name
/// and password, which are shown once and kept nowhere.
pub async fn first_admin(db: &Db, now: i64) -> Result<Option<(String, String)>, FirstAdminError> {
    let mut tx = db.read().await?;
    if operator_count_admins(&mut tx).await? > 0 {
        return Ok(None);
    }
    drop(tx);
    let text = secret::new_password()?;
    let row = OperatorRow {
        name: "admin".to_owned(),
        password_hash: password::hash(text.clone()).await?,
        role: Role::Admin,
        created: now,
        tenant_id: None,
    };
    let mut tx = db.write().await?;
    if operator_count_admins(&mut tx).await? > 0 || !operator_insert(&mut tx, &row).await? {
        return Ok(None);
    }
    let detail = serde_json::json!({ "role": Role::Admin });
    let entry = AuditEntry {
        actor: "first start",
        action: "operator.create",
        subject: &row.name,
        detail: &detail,
    };
    audit_append(&mut tx, entry, now).await?;
    tx.commit().await?;
    Ok(Some((row.name, text)))
}
