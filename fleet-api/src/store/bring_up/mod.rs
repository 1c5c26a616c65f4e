//! How boxes come online: their boots, and the failures that held them up. Folded from the journal by
//! the consumer; [`report`] asks about it.

pub mod report;

use longhaul_protocol::diag::Code;
use longhaul_protocol::ids::{BootId, BoxId, EpochId};
use sqlx::FromRow;

use super::tx::plain;
use super::{StoreResult, Tx, UnknownText, text_enum};

/// Characters of evidence that are kept: what a box sends, too.
const MAX_EVIDENCE: usize = 400;

text_enum! {
    /// What ended a failure.
    BringUpFix {
        /// A cable was plugged in, or an interface came up.
        Cable = "cable",
        /// The box got another address, gateway or DNS server.
        Address = "address",
        /// Somebody set something on the box: its proxy, its clock.
        Setting = "setting",
        /// Nothing changed on the box: whoever it talks to does now what it did not.
        OtherSide = "other_side",
        /// Nothing changed that could be seen, and failures of this kind come and go.
        ByItself = "by_itself",
        /// The box, or its agent, was started anew.
        Restart = "restart",
        /// Nothing: another failure of the same rung took its place.
        Another = "another",
    }
}

impl From<longhaul_protocol::diag::Fix> for BringUpFix {
    fn from(fix: longhaul_protocol::diag::Fix) -> Self {
        use longhaul_protocol::diag::Fix;
        match fix {
            Fix::Cable => Self::Cable,
            Fix::Address => Self::Address,
            Fix::Setting => Self::Setting,
            Fix::OtherSide => Self::OtherSide,
            Fix::ByItself => Self::ByItself,
        }
    }
}

/// A code as the database holds it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StoredCode(pub Code);

impl TryFrom<String> for StoredCode {
    type Error = UnknownText;

    fn try_from(text: String) -> Result<Self, UnknownText> {
        let unknown = |_| UnknownText {
            kind: "code",
            text: text.chars().take(64).collect(),
        };
        text.parse().map(Self).map_err(unknown)
    }
}

/// One boot of a box.
#[derive(Clone, Debug, Eq, FromRow, PartialEq)]
pub struct BootRow {
    /// The box.
    #[sqlx(try_from = "String")]
    pub box_id: BoxId,
    /// The kernel's name of the boot.
    #[sqlx(try_from = "String")]
    pub boot_id: BootId,
    /// When it began, as far as clocks can be believed.
    pub began: i64,
    /// Version of the agent that started last in it.
    pub release: String,
    /// From the boot to the agent's first start, in milliseconds.
    pub power_to_start_ms: i64,
    /// From there until every rung held, for the first time in this boot.
    pub start_to_online_ms: Option<i64>,
    /// How many rungs have held at once, from the cable up, at best.
    pub reached: i64,
    /// How far of the boot was told, in milliseconds.
    pub last_ms: i64,
}

/// One failure of a rung.
#[derive(Clone, Debug, Eq, FromRow, PartialEq)]
pub struct FailureRow {
    /// The box.
    #[sqlx(try_from = "String")]
    pub box_id: BoxId,
    /// The journal that tells of it.
    #[sqlx(try_from = "String")]
    pub epoch: EpochId,
    /// Its number there.
    pub number: i64,
    /// The boot in which it began.
    #[sqlx(try_from = "String")]
    pub boot_id: BootId,
    /// Why the rung did not hold.
    #[sqlx(try_from = "String")]
    pub code: StoredCode,
    /// What was seen.
    pub evidence: String,
    /// Version of the agent.
    pub release: String,
    /// When it began, as far as clocks can be believed.
    pub began: i64,
    /// How long the boot had lasted then, in milliseconds.
    pub since_boot_ms: i64,
    /// How long it was the lowest rung that failed, in milliseconds.
    pub held_up_ms: i64,
    /// How long it lasted, in milliseconds; absent while it does.
    pub lasted_ms: Option<i64>,
    /// What ended it; see [`BringUpFix`].
    pub fix: Option<String>,
}

/// One boot of a box, if it was told of.
pub async fn bring_up_boot_get(
    tx: &mut Tx,
    box_id: &BoxId,
    boot_id: &BootId,
) -> StoreResult<Option<BootRow>> {
    fetch!(
        optional,
        tx,
        BootRow,
        "SELECT * FROM bring_up_boots WHERE box_id = $1 AND boot_id = $2",
        box_id.as_str(),
        boot_id.as_str(),
    )
}

/// Writes a boot; when it began stays.
pub async fn bring_up_boot_set(tx: &mut Tx, row: &BootRow) -> StoreResult<()> {
    execute!(
        tx,
        "INSERT INTO bring_up_boots (box_id, boot_id, began, release, power_to_start_ms, \
             start_to_online_ms, reached, last_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
         ON CONFLICT (box_id, boot_id) DO UPDATE SET release = excluded.release, \
             reached = excluded.reached, start_to_online_ms = excluded.start_to_online_ms, last_ms = excluded.last_ms",
        row.box_id.as_str(),
        row.boot_id.as_str(),
        row.began,
        plain(&row.release),
        row.power_to_start_ms,
        row.start_to_online_ms,
        row.reached,
        row.last_ms,
    )?;
    Ok(())
}

/// The failures of a box that last.
pub async fn bring_up_open(tx: &mut Tx, box_id: &BoxId) -> StoreResult<Vec<FailureRow>> {
    fetch!(
        all,
        tx,
        FailureRow,
        "SELECT * FROM bring_up_failures WHERE box_id = $1 AND lasted_ms IS NULL \
         ORDER BY epoch, number",
        box_id.as_str(),
    )
}

/// Writes a failure, or how it goes on.
pub async fn bring_up_failure_set(tx: &mut Tx, row: &FailureRow) -> StoreResult<()> {
    let evidence: String = plain(&row.evidence).chars().take(MAX_EVIDENCE).collect();
    execute!(
        tx,
        "INSERT INTO bring_up_failures (box_id, epoch, number, boot_id, code, evidence, release, \
             began, since_boot_ms, held_up_ms, lasted_ms, fix) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
         ON CONFLICT (box_id, epoch, number) DO UPDATE SET held_up_ms = excluded.held_up_ms, \
             lasted_ms = excluded.lasted_ms, fix = excluded.fix",
        row.box_id.as_str(),
        row.epoch.as_str(),
        row.number,
        row.boot_id.as_str(),
        row.code.0.to_string(),
        evidence,
        plain(&row.release),
        row.began,
        row.since_boot_ms,
        row.held_up_ms,
        row.lasted_ms,
        row.fix.as_deref(),
    )?;
    Ok(())
}
