//! Releases: what the repository of updates offers.

use longhaul_protocol::value::Digest32;
use sqlx::FromRow;

use super::tx::to_i64;
use super::{StoreResult, Tx};

/// One release.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct ReleaseRow {
    /// Name of its target in the repository.
    pub target: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its target.
    #[sqlx(try_from = "String")]
    pub sha256: Digest32,
    /// Length of its target in bytes.
    pub length: i64,
    /// When the cloud first saw it.
    pub created: i64,
}

/// Takes down a release; one of the same target is replaced, but keeps its age.
pub async fn release_set(
    tx: &mut Tx,
    target: &str,
    version: &str,
    sha256: &Digest32,
    length: u64,
    now: i64,
) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO releases (target, version, sha256, length, created) \
         VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (target) DO UPDATE SET version = excluded.version, \
             sha256 = excluded.sha256, length = excluded.length",
        target,
        version,
        sha256.to_string(),
        to_i64("length", length)?,
        now,
    )?;
    Ok(())
}

/// One release.
pub async fn release_get(tx: &mut Tx, target: &str) -> StoreResult<Option<ReleaseRow>> {
    fetch!(
        optional,
        tx,
        ReleaseRow,
        "SELECT * FROM releases WHERE target = $1",
        target
    )
}

/// Every release, newest first.
pub async fn release_list(tx: &mut Tx) -> StoreResult<Vec<ReleaseRow>> {
    fetch!(
        all,
        tx,
        ReleaseRow,
        "SELECT * FROM releases ORDER BY created DESC, target LIMIT 1000"
    )
}
