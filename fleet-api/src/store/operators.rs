//! Operators and their sessions.

use sqlx::FromRow;

use super::{StoreResult, Tx, text_enum};

text_enum! {
    /// What someone may do; each may also do what those after it may, with that what a customer
    /// sees is bound to their tenant.
    Role {
        /// Everything, operators and tokens included.
        Admin = "admin",
        /// Everything about the fleet.
        Operator = "operator",
        /// Look.
        Viewer = "viewer",
        /// See and use what is their tenant's, and nothing else.
        Customer = "customer",
    }
}

impl Role {
    /// Whether this role includes `needed`.
    pub fn includes(self, needed: Self) -> bool {
        self <= needed
    }
}

/// One operator.
#[derive(Clone, FromRow, PartialEq)]
pub struct OperatorRow {
    /// Log-in name.
    pub name: String,
    /// Argon2id, as a PHC string.
    pub password_hash: String,
    /// What they may do.
    #[sqlx(try_from = "String")]
    pub role: Role,
    /// Since when they are one.
    pub created: i64,
    /// The tenant that they belong to; for the role `customer` only.
    pub tenant_id: Option<String>,
}

impl std::fmt::Debug for OperatorRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OperatorRow")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// Someone who is logged in.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct SessionRow {
    /// Log-in name.
    pub operator: String,
    /// What they may do, as it is now.
    #[sqlx(try_from = "String")]
    pub role: Role,
    /// When the session ends.
    pub expires: i64,
    /// The tenant that they belong to; for the role `customer` only.
    pub tenant_id: Option<String>,
}

/// Adds an operator; `false` if the name is taken.
pub async fn operator_insert(tx: &mut Tx, row: &OperatorRow) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "INSERT INTO operators (name, password_hash, role, created, tenant_id) \
         VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (name) DO NOTHING",
        row.name.as_str(),
        row.password_hash.as_str(),
        row.role.as_str(),
        row.created,
        row.tenant_id.as_deref(),
    )?;
    Ok(rows == 1)
}

/// Keeps everybody else from changing an operator until the transaction ends.
pub async fn operator_lock(tx: &mut Tx, name: &str) -> StoreResult<bool> {
    let rows = execute!(tx, "UPDATE operators SET role = role WHERE name = $1", name)?;
    Ok(rows == 1)
}

/// One operator.
pub async fn operator_get(tx: &mut Tx, name: &str) -> StoreResult<Option<OperatorRow>> {
    fetch!(
        optional,
        tx,
        OperatorRow,
        "SELECT * FROM operators WHERE name = $1",
        name
    )
}

/// Every operator, by name.
pub async fn operator_list(tx: &mut Tx) -> StoreResult<Vec<OperatorRow>> {
    fetch!(
        all,
        tx,
        OperatorRow,
        "SELECT * FROM operators ORDER BY name LIMIT 1000"
    )
}

/// Operators who may do everything and have a password: somebody can log in while no provider can be
/// reached.
pub async fn operator_count_admins(tx: &mut Tx) -> StoreResult<i64> {
    let (count,) = fetch!(
        one,
        tx,
        (i64,),
        "SELECT count(*) FROM operators WHERE role = 'admin' AND password_hash <> ''"
    )?;
    Ok(count)
}

/// Changes what is given; `false` if there is no such operator.
pub async fn operator_update(
    tx: &mut Tx,
    name: &str,
    role: Option<Role>,
    password_hash: Option<&str>,
) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE operators SET role = coalesce($2, role), \
             password_hash = coalesce($3, password_hash) WHERE name = $1",
        name,
        role.map(Role::as_str),
        password_hash,
    )?;
    Ok(rows == 1)
}

/// Removes an operator and ends their sessions; `false` if there is none.
pub async fn operator_delete(tx: &mut Tx, name: &str) -> StoreResult<bool> {
    let rows = execute!(tx, "DELETE FROM operators WHERE name = $1", name)?;
    Ok(rows == 1)
}

/// Takes down a session under the hash of its token.
pub async fn session_insert(
    tx: &mut Tx,
    token_hash: &str,
    operator: &str,
    created: i64,
    expires: i64,
) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO sessions (token_hash, operator, created, expires) VALUES ($1, $2, $3, $4)",
        token_hash,
        operator,
        created,
        expires,
    )?;
    Ok(())
}

/// The session of that token, unless it has ended.
pub async fn session_get(
    tx: &mut Tx,
    token_hash: &str,
    now: i64,
) -> StoreResult<Option<SessionRow>> {
    fetch!(
        optional,
        tx,
        SessionRow,
        "SELECT s.operator, o.role, s.expires, o.tenant_id \
         FROM sessions s JOIN operators o ON o.name = s.operator \
         WHERE s.token_hash = $1 AND s.expires > $2",
        token_hash,
        now,
    )
}

/// Ends a session; `false` if there is none.
pub async fn session_delete(tx: &mut Tx, token_hash: &str) -> StoreResult<bool> {
    let rows = execute!(tx, "DELETE FROM sessions WHERE token_hash = $1", token_hash)?;
    Ok(rows == 1)
}

/// Ends every session of an operator.
pub async fn session_delete_of(tx: &mut Tx, operator: &str) -> StoreResult<u64> {
    execute!(tx, "DELETE FROM sessions WHERE operator = $1", operator)
}

/// Forgets sessions that have ended.
pub async fn session_prune(tx: &mut Tx, now: i64) -> StoreResult<u64> {
    execute!(tx, "DELETE FROM sessions WHERE expires <= $1", now)
}
