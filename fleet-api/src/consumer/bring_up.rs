//! From the journal to how a box came online. The fold is pure and sees each entry once; what it
//! yields is written in the transaction that commits the entry.

use longhaul_protocol::diag::{Code, Fix, Rung};
use longhaul_protocol::ids::{BootId, BoxId, EpochId};
use longhaul_protocol::journal::{Fact, JournalEntry};
use longhaul_protocol::value::UnixMillis;

use super::apply::plausible;
use crate::fleet::FleetError;
use crate::store::Tx;
use crate::store::bring_up::{
    BootRow, BringUpFix, FailureRow, StoredCode, bring_up_boot_get, bring_up_boot_set,
    bring_up_failure_set, bring_up_open,
};

/// A clock that says an earlier time was never set: there were no boxes then.
const FIRST_BOX: UnixMillis = UnixMillis(1_700_000_000_000);

/// Takes in a start of the agent.
pub(super) async fn started(
    tx: &mut Tx,
    box_id: &BoxId,
    entry: &JournalEntry,
    now: UnixMillis,
) -> Result<(), FleetError> {
    let Fact::Started {
        agent_version,
        boot,
        since_boot_ms: Some(since_boot_ms),
        ..
    } = &entry.fact
    else {
        return Ok(());
    };
    let since = millis(*since_boot_ms);
    let row = match bring_up_boot_get(tx, box_id, boot).await? {
        // The agent was started again: while it was gone, nothing held it up.
        Some(known) => BootRow {
            release: agent_version.clone(),
            last_ms: known.last_ms.max(since),
            ..known
        },
        None => BootRow {
            box_id: box_id.clone(),
            boot_id: boot.clone(),
            began: believed(entry.at, now).0.saturating_sub(since).max(0),
            release: agent_version.clone(),
            power_to_start_ms: since,
            start_to_online_ms: None,
            reached: 0,
            last_ms: since,
        },
    };
    bring_up_boot_set(tx, &row).await?;
    Ok(())
}

/// Takes in what became of a rung.
pub(super) async fn rung(
    tx: &mut Tx,
    box_id: &BoxId,
    epoch: &EpochId,
    entry: &JournalEntry,
    now: UnixMillis,
) -> Result<(), FleetError> {
    let Fact::Rung {
        rung,
        code,
        evidence,
        boot: Some(boot_id),
        since_boot_ms: Some(since_boot_ms),
        fix,
        ..
    } = &entry.fact
    else {
        return Ok(());
    };
    let Some(boot) = bring_up_boot_get(tx, box_id, boot_id).await? else {
        return Ok(());
    };
    let told = Told {
        epoch,
        number: entry.number,
        at: believed(entry.at, now),
        boot_id,
        since_boot_ms: millis(*since_boot_ms),
        rung: *rung,
        code: *code,
        evidence,
        fix: *fix,
    };
    let open = bring_up_open(tx, box_id).await?;
    let (boot, changed) = fold(boot, open, &told);
    bring_up_boot_set(tx, &boot).await?;
    for failure in &changed {
        bring_up_failure_set(tx, failure).await?;
    }
    Ok(())
}

/// What an entry says of a rung.
struct Told<'a> {
    epoch: &'a EpochId,
    number: u64,
    at: UnixMillis,
    boot_id: &'a BootId,
    since_boot_ms: i64,
    rung: Rung,
    code: Option<Code>,
    evidence: &'a str,
    fix: Option<Fix>,
}

/// The boot after an entry, and the failures that it begins, ends or prolongs.
fn fold(mut boot: BootRow, open: Vec<FailureRow>, told: &Told<'_>) -> (BootRow, Vec<FailureRow>) {
    let mut changed: Vec<(bool, FailureRow)> = open.into_iter().map(|row| (false, row)).collect();
    let since = told.since_boot_ms.max(boot.last_ms);
    // Until now it was the lowest failing rung that held the box up.
    if let Some((touched, lowest)) = changed.iter_mut().min_by_key(|(_, row)| rung_of(row)) {
        let more = since - boot.last_ms;
        lowest.held_up_ms = lowest.held_up_ms.saturating_add(more);
        *touched |= more > 0;
    }
    boot.last_ms = since;
    let mut goes_on = false;
    for (touched, row) in changed.iter_mut().filter(|(_, r)| rung_of(r) == told.rung) {
        if told.code == Some(row.code.0) {
            goes_on = true;
            continue;
        }
        // Two boots have no steady clock in common.
        let lasted = if row.boot_id == *told.boot_id {
            since.saturating_sub(row.since_boot_ms)
        } else {
            told.at.0.saturating_sub(row.began)
        };
        let fix = match (told.code, told.fix) {
            (Some(_), _) => BringUpFix::Another,
            (None, Some(fix)) => fix.into(),
            (None, None) => BringUpFix::Restart,
        };
        row.lasted_ms = Some(lasted.max(row.held_up_ms));
        row.fix = Some(fix.to_string());
        *touched = true;
    }
    let mut changed: Vec<_> = changed
        .into_iter()
        .filter_map(|(touched, row)| touched.then_some(row))
        .collect();
    match told.code {
        Some(code) if !goes_on => changed.push(FailureRow {
            box_id: boot.box_id.clone(),
            epoch: told.epoch.clone(),
            number: i64::try_from(told.number).unwrap_or(i64::MAX),
            boot_id: told.boot_id.clone(),
            code: StoredCode(code),
            evidence: told.evidence.to_owned(),
            release: boot.release.clone(),
            began: told.at.0,
            since_boot_ms: since,
            held_up_ms: 0,
            lasted_ms: None,
            fix: None,
        }),
        Some(_) => {}
        None => {
            let held = told.rung as i64 + 1;
            boot.reached = boot.reached.max(held);
            if told.rung == Rung::Broker && boot.start_to_online_ms.is_none() {
                boot.start_to_online_ms = Some(since.saturating_sub(boot.power_to_start_ms).max(0));
            }
        }
    }
    (boot, changed)
}

fn rung_of(row: &FailureRow) -> Rung {
    row.code.0.entry().rung
}

/// The box's calendar, where it can be right.
fn believed(at: UnixMillis, now: UnixMillis) -> UnixMillis {
    if at < FIRST_BOX {
        now
    } else {
        plausible(at, now)
    }
}

/// A time as the database holds it; no boot lasts so long that it is cut.
fn millis(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX).min(MAX_MS)
}

/// A hundred years: sums of a fleet stay within the database's integers.
const MAX_MS: i64 = 100 * 366 * 86_400_000;

#[cfg(test)]
#[path = "bring_up_tests.rs"]
mod tests;
