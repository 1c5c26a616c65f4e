//! Births and deaths of sessions, as history; the present is in the box's row.

use longhaul_protocol::ids::BoxId;
use sqlx::FromRow;

use super::{StoreResult, Tx, new_id, text_enum};

text_enum! {
    /// What happened to a session.
    PresenceKind {
        /// It began.
        Birth = "birth",
        /// It ended.
        Death = "death",
    }
}

/// One birth or death.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct PresenceRow {
    /// Names it.
    pub presence_id: String,
    /// Whose session.
    #[sqlx(try_from = "String")]
    pub box_id: BoxId,
    /// When the cloud heard of it.
    pub at: i64,
    /// Which session.
    pub session_id: String,
    /// What happened.
    #[sqlx(try_from = "String")]
    pub kind: PresenceKind,
    /// The message: JSON.
    pub detail: String,
}

/// Takes down a birth or death.
pub async fn presence_insert(
    tx: &mut Tx,
    box_id: &BoxId,
    kind: PresenceKind,
    session: &str,
    detail: &str,
    now: i64,
) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO presence (presence_id, box_id, at, session_id, kind, detail) \
         VALUES ($1, $2, $3, $4, $5, $6)",
        new_id("pr"),
        box_id.as_str(),
        now,
        session,
        kind.as_str(),
        detail,
    )?;
    Ok(())
}
