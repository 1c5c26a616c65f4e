//! API tokens for programs.

use longhaul_protocol::ids::CommandId;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::endpoint;
use super::tenants::{check_exists, check_tenant};
use crate::auth::secret;
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::idempotency::keep;
use crate::http::problem::{Fault, Problem};
use crate::http::reply::Done;
use crate::store::api_tokens::{ApiTokenRow, api_token_insert, api_token_list, api_token_revoke};
use crate::store::audit::{AuditEntry, audit_append};
use crate::store::new_id;
use crate::store::operators::Role;
use crate::store::tenants::TenantId;

/// Longest validity of a token that ends by itself: ten years.
const MAX_VALID_SECS: u32 = 315_360_000;

pub(super) fn add(api: Api) -> Api {
    api.add::<TokenList>()
        .add::<TokenCreate>()
        .add::<TokenRevoke>()
}

/// One token, without its secret.
#[derive(Serialize, ToSchema)]
pub struct Token {
    /// Its name in URLs.
    id: String,
    /// Its name for people.
    name: String,
    /// What its bearer may do.
    role: Role,
    /// The tenant that it speaks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    /// Who made it.
    created_by: String,
    /// When.
    created: i64,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<i64>,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<i64>,
}

impl From<ApiTokenRow> for Token {
    fn from(row: ApiTokenRow) -> Self {
        Self {
            id: row.token_id,
            name: row.name,
            role: row.role,
            tenant: row.tenant_id,
            created_by: row.created_by,
            created: row.created,
            expires: row.expires,
            revoked: row.revoked,
        }
    }
}

/// Every token.
#[derive(Serialize, ToSchema)]
pub struct Tokens {
    /// Newest first.
    items: Vec<Token>,
}

/// Which token.
#[derive(Deserialize, IntoParams)]
pub struct TokenPath {
    /// The token's id.
    #[param(value_type = String)]
    token_id: TokenId,
}

/// Same rule as for the fleet's other names.
type TokenId = CommandId;

endpoint! {
    /// All of them.
    TokenList = GET "/v1/tokens" as "tokenList", Scope::Shared(Role::Admin), OK;
    "Every API token, without its secret."
    (Nothing, Nothing, NoBody) -> Json<Tokens> = list
}

async fn list(call: Call<TokenList>) -> Result<Json<Tokens>, Problem> {
    let mut tx = call.people.db.read().await?;
    let rows = api_token_list(&mut tx, call.caller.tenant()).await?;
    Ok(Json(Tokens {
        items: rows.into_iter().map(Token::from).collect(),
    }))
}

endpoint! {
    /// A new one.
    TokenCreate = POST "/v1/tokens" as "tokenCreate", Scope::Shared(Role::Admin), CREATED;
    "Makes an API token; its secret is shown in this answer only."
    (Nothing, Nothing, Json<NewToken>) -> Json<MadeToken> = create
}

/// What is made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// A name for people, 1 to 64 characters.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    name: String,
    /// What its bearer may do.
    role: Role,
    /// The tenant that it speaks for, for the role `customer`; customers need not say it.
    #[schema(value_type = Option<String>, pattern = r"^[A-Za-z0-9_\-]{1,64}$")]
    tenant: Option<TenantId>,
    /// How long it is valid, in seconds, ten years at the most; absent for as long as it is not revoked.
    #[schema(minimum = 1, maximum = 315_360_000)]
    expires_in_secs: Option<u32>,
}

/// A token that was just made.
#[derive(Serialize, ToSchema)]
pub struct MadeToken {
    /// The token.
    token: Token,
    /// Send it as `Authorization: Bearer ..`; it cannot be shown again.
    secret: String,
}

async fn create(call: Call<TokenCreate>) -> Result<Json<MadeToken>, Problem> {
    let new = call.body.0;
    let length = new.name.chars().count();
    if length == 0 || length > 64 || new.name.chars().any(char::is_control) {
        return Err(Problem::invalid(
            "a token's name is 1 to 64 characters without control characters",
        ));
    }
    if new
        .expires_in_secs
        .is_some_and(|s| !(1..=MAX_VALID_SECS).contains(&s))
    {
        let text = format!("it is 1 to {MAX_VALID_SECS}, or absent");
        return Err(Problem::faults(vec![Fault::at("expires_in_secs", text)]));
    }
    let tenant = check_tenant(&call.caller, new.role, new.tenant)?;
    let now = call.people.clock.now();
    let text = secret::new_secret("lh_").map_err(|e| Problem::internal("token", &e))?;
    let row = ApiTokenRow {
        token_id: new_id("tok"),
        name: new.name,
        role: new.role,
        created_by: call.caller.actor().0,
        created: now.0,
        expires: new.expires_in_secs.map(|s| now.plus_secs(s.into()).0),
        revoked: None,
        tenant_id: tenant.as_ref().map(ToString::to_string),
        owner: call.caller.account().map(str::to_owned),
    };
    let mut tx = call.people.db.write().await?;
    check_exists(&mut tx, tenant.as_ref()).await?;
    api_token_insert(&mut tx, &secret::hash(&text), &row).await?;
    let entry = AuditEntry {
        actor: &row.created_by,
        action: "token.create",
        subject: &row.token_id,
        detail: &json!({ "name": row.name, "role": row.role, "tenant": row.tenant_id }),
    };
    audit_append(&mut tx, entry, now.0).await?;
    let made = MadeToken {
        token: row.into(),
        secret: text,
    };
    keep(&call.people, &made)?;
    tx.commit().await?;
    Ok(Json(made))
}

endpoint! {
    /// Ended.
    TokenRevoke = DELETE "/v1/tokens/{token_id}" as "tokenRevoke", Scope::Shared(Role::Admin), NO_CONTENT;
    "Ends an API token at once."
    (TokenPath, Nothing, NoBody) -> Done = revoke
}

async fn revoke(call: Call<TokenRevoke>) -> Result<Done, Problem> {
    let (id, now) = (call.path.token_id.as_str(), call.people.clock.now().0);
    let mut tx = call.people.db.write().await?;
    if !api_token_revoke(&mut tx, id, call.caller.tenant(), now).await? {
        return Err(Problem::not_found(format!("there is no valid token {id}")));
    }
    let entry = AuditEntry {
        actor: &call.caller.actor().0,
        action: "token.revoke",
        subject: id,
        detail: &serde_json::Value::Null,
    };
    audit_append(&mut tx, entry, now).await?;
    tx.commit().await?;
    Ok(Done)
}
