//! Vaults' keys, encrypted for the depot: one for each box, the newest. What is here opens nothing
//! without the recovery key, which is not in the cloud.

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::recovery::WrappedKey;

use super::tx::json_text;
use super::{StoreResult, Tx};

/// Keeps a box's wrapped key, instead of the one before.
pub async fn vault_key_set(tx: &mut Tx, wrapped: &WrappedKey, now: i64) -> StoreResult<()> {
    let detail = json_text("wrapped key", wrapped)?;
    execute!(
        tx,
        "INSERT INTO vault_keys (box_id, detail, received) VALUES ($1, $2, $3) \
         ON CONFLICT (box_id) DO UPDATE SET detail = excluded.detail, received = excluded.received",
        wrapped.box_id.as_str(),
        detail,
        now,
    )?;
    Ok(())
}

/// A box's wrapped key (JSON).
pub async fn vault_key_get(tx: &mut Tx, box_id: &BoxId) -> StoreResult<Option<String>> {
    let row = fetch!(
        optional,
        tx,
        (String,),
        "SELECT detail FROM vault_keys WHERE box_id = $1",
        box_id.as_str(),
    )?;
    Ok(row.map(|(detail,)| detail))
}
