//! API tokens, known by their hashes.

use sqlx::FromRow;

use super::operators::Role;
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
}

/// Takes down a token under the hash of its secret.
pub async fn api_token_insert(tx: &mut Tx, token_hash: &str, row: &ApiTokenRow) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO api_tokens (token_id, token_hash, name, role, created_by, created, expires) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        row.token_id.as_str(),
        token_hash,
        row.name.as_str(),
        row.role.as_str(),
        row.created_by.as_str(),
        row.created,
        row.expires,
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
        "SELECT token_id, name, role, created_by, created, expires, revoked FROM api_tokens \
         WHERE token_hash = $1 AND revoked IS NULL AND (expires IS NULL OR expires > $2)",
        token_hash,
        now,
    )
}

/// Every token, newest first.
pub async fn api_token_list(tx: &mut Tx) -> StoreResult<Vec<ApiTokenRow>> {
    fetch!(
        all,
        tx,
        ApiTokenRow,
        "SELECT token_id, name, role, created_by, created, expires, revoked FROM api_tokens \
         ORDER BY created DESC, token_id LIMIT 1000"
    )
}

/// Ends a token at once; `false` if there is none or it is revoked already.
pub async fn api_token_revoke(tx: &mut Tx, id: &str, now: i64) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE api_tokens SET revoked = $2 WHERE token_id = $1 AND revoked IS NULL",
        id,
        now,
    )?;
    Ok(rows == 1)
}
