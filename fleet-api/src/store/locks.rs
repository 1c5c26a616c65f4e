//! Work that one process at a time does.

use super::{StoreResult, Tx};

/// Takes or extends the lock `name` for `holder` until `until`; `false` if another holds it.
///
/// In one transaction with the work, it also keeps a holder that lost the lock from writing.
pub async fn lock_hold(
    tx: &mut Tx,
    name: &str,
    holder: &str,
    until: i64,
    now: i64,
) -> StoreResult<bool> {
    let rows = execute!(
        tx,
        "UPDATE worker_locks SET holder = $2, held_until = $3 \
         WHERE name = $1 AND (holder = $2 OR held_until <= $4)",
        name,
        holder,
        until,
        now,
    )?;
    Ok(rows == 1)
}

/// Gives the lock back.
pub async fn lock_release(tx: &mut Tx, name: &str, holder: &str) -> StoreResult<()> {
    execute!(
        tx,
        "UPDATE worker_locks SET held_until = 0 WHERE name = $1 AND holder = $2",
        name,
        holder,
    )?;
    Ok(())
}
