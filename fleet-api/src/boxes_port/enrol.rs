//! Enrolment: challenge, evidence, certificate. Renewal takes the same way.

use http::StatusCode;
use longhaul_protocol::enrol::{Challenge, ChallengeRequest, Evidence, Issued};
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::inventory::InventoryRecord;
use longhaul_protocol::value::Jws;
use longhaul_provisioning::evidence::{self, Pending, Policy};

use super::Refusal;
use crate::fleet::{Actor, Fleet, FleetError};
use crate::store::boxes::{BoxRow, BoxState, box_get};
use crate::store::challenges::{ChallengeRow, challenge_insert, challenge_prune, challenge_take};

/// How long a box has to answer a challenge, in seconds: a slow TPM takes seconds, a slow line more.
const CHALLENGE_SECS: i64 = 120;
/// Who acts here, for the audit.
const ENROLMENT: &str = "enrolment";
/// How long answered and forgotten challenges are kept, in milliseconds.
const KEEP_MS: i64 = 3_600 * 1000;

/// Challenges a box to prove itself.
pub(super) async fn challenge(
    fleet: &Fleet,
    box_id: &BoxId,
    request: ChallengeRequest,
) -> Result<Challenge, Refusal> {
    let (row, record) = inventory(fleet, box_id).await?;
    // Which PCRs count is the factory's word; which values do is looked at with the answer.
    let policy = Policy::of(&record);
    let now = fleet.now();
    let expires = now.plus_secs(CHALLENGE_SECS);
    let (challenge, pending) = match evidence::challenge(&request, &record, &policy, expires) {
        Ok(made) => made,
        Err(refusal) => return Err(refused(fleet, &row, &refusal).await?),
    };
    let detail = serde_json::to_string(&pending)
        .map_err(|e| FleetError::internal("failed to write a challenge", e))?;
    let mut tx = fleet.db().write().await?;
    challenge_prune(&mut tx, now.0.saturating_sub(KEEP_MS)).await?;
    let row = ChallengeRow {
        challenge_id: pending.id.clone(),
        box_id: box_id.clone(),
        // The verifier keeps both in what it wants to remember.
        nonce: vec![],
        secret: vec![],
        detail,
        expires: expires.0,
        used: None,
    };
    challenge_insert(&mut tx, &row).await?;
    tx.commit().await?;
    Ok(challenge)
}

/// Verifies a box's answer and certifies its new key.
///
/// A box in a state that nobody has approved is the right box, but perhaps not with the right
/// software: it gets a certificate, so that it can connect and report, and is held back.
pub(super) async fn certificate(
    fleet: &Fleet,
    box_id: &BoxId,
    evidence: Evidence,
) -> Result<Issued, Refusal> {
    let (row, record) = inventory(fleet, box_id).await?;
    let now = fleet.now();
    // Used up before the answer is looked at: a challenge is good for one attempt.
    let mut tx = fleet.db().write().await?;
    let taken = challenge_take(&mut tx, &evidence.challenge, box_id, now.0).await?;
    tx.commit().await?;
    let Some(taken) = taken else {
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            "challenge-gone",
            "the challenge is unknown, used, expired or another box's: ask for a new one",
        ));
    };
    let pending: Pending = serde_json::from_str(&taken.detail)
        .map_err(|e| FleetError::internal("a stored challenge is unreadable", e))?;
    let accepted = fleet.accepted_states(&record).await?;
    let policy = &accepted.policy;
    let verified = match evidence::verify_enrolment(&evidence, &record, policy, &pending, now) {
        Ok(verified) => verified,
        Err(refusal) => return Err(refused(fleet, &row, &refusal).await?),
    };
    if let (false, Some(doubt)) = (verified.differs.is_empty(), accepted.doubt) {
        // Perhaps a release accounts for it: the box asks again.
        return Err(doubt.into());
    }
    let mut tx = fleet.db().write().await?;
    let enrolled = fleet.enrol_issue(&mut tx, &actor(), &verified, now).await?;
    let enrolled = enrolled.ok_or_else(|| revoked(box_id))?;
    tx.commit().await?;
    fleet.enrolled(box_id, &enrolled).await?;
    Ok(enrolled.issued)
}

async fn inventory(fleet: &Fleet, box_id: &BoxId) -> Result<(BoxRow, InventoryRecord), Refusal> {
    let mut tx = fleet.db().read().await?;
    let row = box_get(&mut tx, box_id).await?;
    let row = row
        .filter(|row| row.state != BoxState::Revoked)
        .ok_or_else(|| revoked(box_id))?;
    let record = fleet.inventory_record(&Jws(row.inventory_jws.clone()))?;
    Ok((row, record))
}

fn revoked(box_id: &BoxId) -> Refusal {
    Refusal::new(
        StatusCode::FORBIDDEN,
        "revoked",
        format!("box {box_id} is revoked or not in the inventory"),
    )
}

/// Takes a refusal down.
async fn refused(
    fleet: &Fleet,
    row: &BoxRow,
    refusal: &evidence::Refusal,
) -> Result<Refusal, Refusal> {
    let text = fleet.enrol_refuse(&actor(), row, refusal).await?;
    Ok(Refusal::new(StatusCode::FORBIDDEN, refusal.code(), text))
}

fn actor() -> Actor {
    Actor(ENROLMENT.to_owned())
}
