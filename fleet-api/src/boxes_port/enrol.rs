//! Enrolment: challenge, evidence, certificate. Renewal takes the same way.

use http::StatusCode;
use longhaul_protocol::enrol::{Challenge, ChallengeRequest, Evidence, Issued};
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::inventory::InventoryRecord;
use longhaul_protocol::value::{Blob, Jws};
use longhaul_provisioning::ca::MAX_LDEVID_SECS;
use longhaul_provisioning::evidence::{self, Difference, Pending, Policy};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Refusal;
use crate::fleet::{Actor, Fleet, FleetError, FleetEventKind, Wish};
use crate::identity::expires;
use crate::store::Tx;
use crate::store::audit::{AuditEntry, audit_append};
use crate::store::boxes::{BoxRow, BoxState, box_get, box_set_certificate, box_set_state};
use crate::store::challenges::{ChallengeRow, challenge_insert, challenge_prune, challenge_take};
use crate::store::quarantines::{quarantine_accepted, quarantine_set};

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
    let unknown = !verified.differs.is_empty();
    if let (true, Some(doubt)) = (unknown, accepted.doubt) {
        // Perhaps a release accounts for it: the box asks again.
        return Err(doubt.into());
    }
    let chain = fleet
        .identity()
        .pki()
        .issue_ldevid(box_id, &verified.ldevid_spki, MAX_LDEVID_SECS, now)
        .map_err(|e| FleetError::internal("failed to issue a certificate", e))?;
    let leaf = &chain[0];
    let not_after =
        expires(leaf).ok_or_else(|| FleetError::internal("failed to issue", "no expiry"))?;
    let serial = X509Certificate::from_der(leaf)
        .map(|(_, parsed)| hex::encode(parsed.raw_serial()))
        .map_err(|e| FleetError::internal("an issued certificate is unreadable", e.to_string()))?;

    let mut tx = fleet.db().write().await?;
    // Looked at again under the writer's lock: it may have been thrown out meanwhile.
    let state = box_get(&mut tx, box_id).await?.map(|row| row.state);
    let mut held = None;
    match state {
        Some(BoxState::Revoked) | None => return Err(revoked(box_id)),
        Some(_) if unknown => {
            held = hold(fleet, &mut tx, box_id, &verified.differs, now.0).await?;
        }
        Some(BoxState::Inventoried) => {
            box_set_state(&mut tx, box_id, BoxState::Active, now.0).await?;
        }
        Some(BoxState::Quarantined) => quarantine_accepted(&mut tx, box_id, now.0).await?,
        Some(BoxState::Active) => {}
    }
    box_set_certificate(&mut tx, box_id, &serial, not_after.0, now.0).await?;
    let detail = serde_json::json!({ "serial": serial, "expires": not_after });
    note(&mut tx, "box.enrol", box_id, &detail, now.0).await?;
    tx.commit().await?;
    if let Some(reason) = held {
        fleet.admit_as(box_id, BoxState::Quarantined);
        fleet.desired_send(box_id, None).await?;
        fleet.tell(Some(box_id), FleetEventKind::BoxRefused { reason });
    } else if state == Some(BoxState::Inventoried) {
        fleet.admitted().activate(box_id);
        fleet.tell_states();
    }
    fleet.tell(Some(box_id), FleetEventKind::BoxEnrolled);
    tracing::info!(%box_id, serial, "issued a box's certificate");
    Ok(Issued {
        certificate_chain: chain.iter().map(|c| Blob(c.to_vec())).collect(),
        expires: not_after,
        endpoints: fleet.endpoints().to_vec(),
        server_time: now,
    })
}

/// Holds a box back for the state that it is in; yields why, if it was not held back before.
async fn hold(
    fleet: &Fleet,
    tx: &mut Tx,
    box_id: &BoxId,
    differs: &[Difference],
    now: i64,
) -> Result<Option<String>, Refusal> {
    let name = |d: &Difference| format!("PCR {} ({})", d.pcr, d.measures());
    let names: Vec<_> = differs.iter().map(name).collect();
    let reason = format!(
        "the machine is in a state that neither the factory nor a release knows: {}",
        names.join(", ")
    );
    let changed = box_set_state(tx, box_id, BoxState::Quarantined, now).await?;
    quarantine_set(tx, box_id, ENROLMENT, &reason, differs, now).await?;
    if !changed {
        return Ok(None);
    }
    fleet.desired_renew(tx, box_id, Wish::default()).await?;
    let detail = serde_json::json!({ "differs": differs });
    note(tx, "box.quarantine", box_id, &detail, now).await?;
    tracing::warn!(%box_id, reason, "quarantined");
    Ok(Some(reason))
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
    let (box_id, now) = (&row.box_id, fleet.now());
    let text = chain(refusal);
    let mut tx = fleet.db().write().await?;
    let detail = serde_json::json!({ "code": refusal.code(), "text": text });
    note(&mut tx, "box.refuse", box_id, &detail, now.0).await?;
    tx.commit().await?;
    let reason = text.clone();
    fleet.tell(Some(box_id), FleetEventKind::BoxRefused { reason });
    Ok(Refusal::new(StatusCode::FORBIDDEN, refusal.code(), text))
}

async fn note(
    tx: &mut Tx,
    action: &str,
    box_id: &BoxId,
    detail: &serde_json::Value,
    now: i64,
) -> Result<(), Refusal> {
    let actor = Actor(ENROLMENT.to_owned());
    let entry = AuditEntry {
        actor: &actor.0,
        action,
        subject: box_id.as_str(),
        detail,
    };
    audit_append(tx, entry, now).await?;
    Ok(())
}

/// The error and where it came from, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
