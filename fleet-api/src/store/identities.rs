//! Accounts that log in by a provider's word: known by issuer and subject, whatever they are called.

use super::operators::Role;
use super::tenants::TenantId;
use super::{StoreResult, Tx};

/// The account of somebody whom `issuer` calls `subject`.
pub async fn identity_find(
    tx: &mut Tx,
    issuer: &str,
    subject: &str,
) -> StoreResult<Option<String>> {
    let row = fetch!(
        optional,
        tx,
        (String,),
        "SELECT operator FROM identities WHERE issuer = $1 AND subject = $2",
        issuer,
        subject,
    )?;
    Ok(row.map(|(operator,)| operator))
}

/// Whether an account logs in by a provider's word.
pub async fn identity_is_of(tx: &mut Tx, operator: &str) -> StoreResult<bool> {
    let row = fetch!(
        optional,
        tx,
        (String,),
        "SELECT operator FROM identities WHERE operator = $1",
        operator,
    )?;
    Ok(row.is_some())
}

/// Takes down whose account it is; it goes with the account.
pub async fn identity_insert(
    tx: &mut Tx,
    issuer: &str,
    subject: &str,
    operator: &str,
    now: i64,
) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO identities (issuer, subject, operator, created) VALUES ($1, $2, $3, $4)",
        issuer,
        subject,
        operator,
        now,
    )?;
    Ok(())
}

/// Gives an account another role, and another tenant with it.
pub async fn identity_grant(
    tx: &mut Tx,
    operator: &str,
    role: Role,
    tenant: Option<&TenantId>,
) -> StoreResult<()> {
    execute!(
        tx,
        "UPDATE operators SET role = $2, tenant_id = $3 WHERE name = $1",
        operator,
        role.as_str(),
        tenant.map(TenantId::as_str),
    )?;
    Ok(())
}

/// Takes down that an attempt to log in was answered; `false` if it was before. Forgets those that
/// have ended by themselves.
pub async fn attempt_use(tx: &mut Tx, hash: &str, expires: i64, now: i64) -> StoreResult<bool> {
    execute!(tx, "DELETE FROM log_in_attempts WHERE expires <= $1", now)?;
    let rows = execute!(
        tx,
        "INSERT INTO log_in_attempts (state_hash, expires) VALUES ($1, $2) \
         ON CONFLICT (state_hash) DO NOTHING",
        hash,
        expires,
    )?;
    Ok(rows == 1)
}
