//! API tokens, known by their hashes.

use sqlx::FromRow;

use super::operators::Role;
use super::tenants::TenantId;
use super::{StoreResult, Tx};

/// One token, without its secret.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct ApiTokenRow {
    /// Its name in URLs.
    pub token_id: String,
    /// Its name for people.
    pub name: String,
    /// What its bearer may do.
    #[sqlx(try_from = "String")]
    pub role: Role,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created: i64,
    /// When it ends.
    pub expires: Option<i64>,
    /// When it was revoked.
    pub revoked: Option<i64>,
    /// The tenant that it speaks for; for the role `customer` only.
    pub tenant_id: Option<String>,
    /// The account that answers for it: whoever made it, or made the token that made it.
    pub owner: Option<String>,
}

/// Takes down a token under the hash of its secret.
pub async fn api_token_insert(tx: &mut Tx, token_hash: &str, row: &ApiTokenRow) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO api_tokens (token_id, token_hash, name, role, created_by, created, expires, \
             tenant_id, owner) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        row.token_id.as_str(),
        token_hash,
        row.name.as_str(),
        row.role.as_str(),
        row.created_by.as_str(),
        row.created,
        row.expires,
        row.tenant_id.as_deref(),
        row.owner.as_deref(),
    )?;
    Ok(())
}

/// The token of that secret, unless it has ended.
pub async fn api_token_find(
    tx: &mut Tx,
    token_hash: &str,
    now: i64,
) -> StoreResult<Option<ApiTokenRow>> {
    fetch!(
        optional,
        tx,
        ApiTokenRow,
        "SELECT token_id, name, role, created_by, created, expires, revoked, tenant_id, owner \
         FROM api_tokens \
         WHERE token_hash = $1 AND revoked IS NULL AND (expires IS NULL OR expires > $2)",
        token_hash,
        now,
    )
}

/// Tokens, newest first; for a tenant, its own.
pub async fn api_token_list(
    tx: &mut Tx,
    tenant: Option<&TenantId>,
) -> StoreResult<Vec<ApiTokenRow>> {
    fetch!(
        all,
        tx,
        ApiTokenRow,
        "SELECT token_id, name, role, created_by, created, expires, revoked, tenant_id, owner \
         FROM api_tokens WHERE (CAST($1 AS TEXT) IS NULL OR tenant_id = $1) \
         ORDER BY created DESC, token_id LIMIT 1000",
        tenant.map(TenantId::as_str)
    )
}

/// Ends a token at once, for a tenant only of its own; `false` if there is none or it is revoked
/// already.
pub async fn api_token_revoke(
    tx: &mut Tx,
    id: &str,
    tenant: Option<&TenantId>,
    now: i64,
) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE api_tokens SET revoked = $2 WHERE token_id = $1 AND revoked IS NULL \
           AND (CAST($3 AS TEXT) IS NULL OR tenant_id = $3)",
        id,
        now,
        tenant.map(TenantId::as_str),
    )?;
    Ok(rows == 1)
}
