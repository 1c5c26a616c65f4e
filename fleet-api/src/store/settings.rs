//! Settings: a text by name.

use super::{StoreResult, Tx};

/// A setting's text.
pub async fn setting_get(tx: &mut Tx, name: &str) -> StoreResult<Option<String>> {
    let row = fetch!(
        optional,
        tx,
        (String,),
        "SELECT value FROM settings WHERE name = $1",
        name
    )?;
    Ok(row.map(|(value,)| value))
}

/// Sets a setting.
pub async fn setting_set(tx: &mut Tx, name: &str, value: &str) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO settings (name, value) VALUES ($1, $2) \
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        name,
        value
    )?;
    Ok(())
}
