//! Boxes without a line: their requests answered, their journals taken, from files that somebody
//! carries.

use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::inventory::InventoryRecord;
use longhaul_protocol::journal::JournalEntry;
use longhaul_protocol::offline::{Answer, AnswerClaims, Grant, MAX_JOURNAL_FILE, Request};
use longhaul_protocol::twin::SignedDesired;
use longhaul_protocol::value::{Jws, UnixMillis};
use longhaul_provisioning::jws::Kind;
use longhaul_provisioning::{offline, receipt};
use serde_json::json;

use super::{Actor, Fleet, FleetError, audit, is_local};
use crate::consumer::take_file;
use crate::store::boxes::{BoxRow, BoxState, box_get};
use crate::store::offline::{AnswerRow, offline_answer_insert, offline_answer_latest};
use crate::store::tenants::TenantId;
use crate::store::twins::desired_get;

/// How old a request may be, in milliseconds, as far as the box knows the time: the state of the
/// machine that it quotes is that old.
const MAX_AGE_MS: i64 = 14 * 86_400_000;
/// A box whose clock is ahead by more than this has a wrong one.
const AHEAD_MS: i64 = 86_400_000;
/// A clock that says an earlier time was never set: there were no boxes then.
const FIRST_BOX: UnixMillis = UnixMillis(1_700_000_000_000);
/// An answer, ready for the stick.
#[derive(Clone, Debug)]
pub struct OfflineAnswer {
    /// For whom.
    pub box_id: BoxId,
    /// The file.
    pub file: String,
}

/// What became of a file with a part of a journal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JournalTaken {
    /// Whose.
    pub box_id: BoxId,
    /// Entries in it that were not known.
    pub taken: usize,
    /// Entries in it that were.
    pub known: usize,
    /// Everything up to this number is here now.
    pub through: u64,
}

impl Fleet {
    /// Answers the request of a box that has no line to us; for a tenant, of its own boxes only. The
    /// same request has the same answer.
    pub async fn offline_answer(
        &self,
        actor: &Actor,
        tenant: Option<&TenantId>,
        text: &str,
    ) -> Result<OfflineAnswer, FleetError> {
        let request = Request::read(text)
            .map_err(|e| FleetError::invalid(format!("not a box's request: {e}")))?;
        let now = self.now();
        let (row, record) = self.offline_box(tenant, &request.box_id).await?;
        check_age(&request, now)?;
        let box_id = &row.box_id;
        let accepted = self.accepted_states(&record).await?;
        let verified = match offline::verify(&request, &record, &accepted.policy) {
            Ok(verified) => verified,
            Err(refusal) => {
                let text = self.enrol_refuse(actor, &row, &refusal).await?;
                return Err(FleetError::forbidden(format!(
                    "the request of box {box_id} is refused: {text}"
                )));
            }
        };
        if let (false, Some(doubt)) = (verified.differs.is_empty(), accepted.doubt) {
            return Err(doubt);
        }
        let name = offline::name(&request);
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let (resets, clock_ms) = (
            i64::from(verified.tpm.resets),
            count(verified.tpm.clock_millis),
        );
        let mut tx = self.db().write().await?;
        let latest = offline_answer_latest(&mut tx, box_id, record.made_at.0).await?;
        match latest {
            Some(same) if same.request_id == name && same.expires > now.0 => {
                let file = same.answer;
                let box_id = box_id.clone();
                return Ok(OfflineAnswer { box_id, file });
            }
            Some(other)
                if other.request_id != name
                    && (other.resets, other.clock_ms) >= (resets, clock_ms) =>
            {
                return Err(FleetError::conflict(format!(
                    "a newer request of box {box_id} was answered already: plug the stick into the box again, and bring the request that is on it then"
                )));
            }
            _ => {}
        }
        let enrolled = self.enrol_issue(&mut tx, actor, &verified, now).await?;
        let enrolled = enrolled.ok_or_else(|| revoked(box_id))?;
        let certificate_expires = enrolled.issued.expires;
        let addresses: Vec<_> = request
            .addresses
            .iter()
            .copied()
            .filter(|ip| is_local(*ip))
            .collect();
        let lan = self
            .lan_certificate(box_id, &request.lan_public.0, &addresses)
            .map_err(|e| FleetError::invalid(format!("the request's LAN key is unusable: {e}")))?;
        // As by wire: a box that somebody must look at first gets no tickets.
        let (desired, credentials) = if enrolled.is_held_back() {
            (None, None)
        } else {
            let row = desired_get(&mut tx, box_id).await?;
            let desired = row.map(|row| SignedDesired { jws: Jws(row.jws) });
            (desired, Some(self.credentials_in(&mut tx, box_id).await?))
        };
        let grant = Grant {
            issued: enrolled.issued.clone(),
            lan,
            desired,
            credentials,
        };
        let file = self.offline_seal(&request, &record, &grant, now)?;
        let answer = AnswerRow {
            box_id: box_id.clone(),
            request_id: name,
            made_at: record.made_at.0,
            resets,
            clock_ms,
            answered: now.0,
            answered_by: actor.0.clone(),
            expires: certificate_expires.0,
            answer: file.clone(),
        };
        offline_answer_insert(&mut tx, &answer).await?;
        let detail = json!({ "request": name, "made": request.made });
        audit(&mut tx, actor, "box.answer", box_id.as_str(), detail, now).await?;
        tx.commit().await?;
        self.enrolled(box_id, &enrolled).await?;
        Ok(OfflineAnswer {
            box_id: box_id.clone(),
            file,
        })
    }

    fn offline_seal(
        &self,
        request: &Request,
        record: &InventoryRecord,
        grant: &Grant,
        now: UnixMillis,
    ) -> Result<String, FleetError> {
        let failed = |e: serde_json::Error| FleetError::internal("failed to write an answer", e);
        let clear = serde_json::to_vec(grant).map(zeroize::Zeroizing::new);
        let sealed = offline::seal(&clear.map_err(failed)?, request, record)
            .map_err(|e| FleetError::internal("failed to seal an answer", e))?;
        let claims = AnswerClaims {
            v: VERSION,
            box_id: request.box_id.clone(),
            request: offline::name(request),
            issued: now,
            expires: grant.issued.expires,
            credential_blob: sealed.credential_blob,
            encrypted_secret: sealed.encrypted_secret,
            sealed_sha256: offline::sha256(&sealed.sealed.0),
        };
        let claims = serde_json::to_vec(&claims).map_err(failed)?;
        let answer = Answer {
            answer: self
                .identity()
                .signer()
                .sign(Kind::Answer, &claims)
                .map_err(|e| FleetError::internal("failed to sign an answer", e))?,
            sealed: sealed.sealed,
        };
        let mut file = serde_json::to_string_pretty(&answer).map_err(failed)?;
        file.push('\n');
        Ok(file)
    }

    /// Takes a file with a part of a box's journal; what came by wire before, or comes later, counts
    /// once.
    pub async fn offline_journal(
        &self,
        actor: &Actor,
        tenant: Option<&TenantId>,
        text: &str,
    ) -> Result<JournalTaken, FleetError> {
        let bad = |what: String| FleetError::invalid(format!("not a box's journal file: {what}"));
        if text.len() > MAX_JOURNAL_FILE {
            return Err(bad(format!("longer than {MAX_JOURNAL_FILE} bytes")));
        }
        let (first, rest) = text
            .split_once('\n')
            .ok_or_else(|| bad("it has one line".to_owned()))?;
        let statement = Jws(first.trim_end().to_owned());
        let claims = receipt::verify_journal(&statement, self.identity().anchors(), self.now())
            .map_err(|e| bad(format!("{e}, or the file was changed or cut short")))?;
        if offline::sha256(rest.as_bytes()) != claims.sha256 {
            return Err(bad("it was changed or cut short".to_owned()));
        }
        let entries: Result<Vec<JournalEntry>, _> =
            rest.lines().map(serde_json::from_str).collect();
        let entries = entries.map_err(|e| bad(e.to_string()))?;
        let numbers = (
            entries.first().map(|entry| entry.number),
            entries.last().map(|entry| entry.number),
        );
        if numbers != (Some(claims.first), Some(claims.last)) {
            return Err(bad("its entries are not those that it names".to_owned()));
        }
        let (row, _) = self.offline_box(tenant, &claims.box_id).await?;
        let (through, taken) = take_file(self, &row.box_id, &claims.epoch, &entries).await?;
        let now = self.now();
        let mut tx = self.db().write().await?;
        let detail = json!({ "epoch": claims.epoch, "first": claims.first, "last": claims.last, "taken": taken });
        audit(
            &mut tx,
            actor,
            "box.journal",
            row.box_id.as_str(),
            detail,
            now,
        )
        .await?;
        tx.commit().await?;
        Ok(JournalTaken {
            box_id: row.box_id,
            taken,
            known: entries.len().saturating_sub(taken),
            through,
        })
    }

    /// A box that may be spoken for, and the factory's word for it. To a tenant, another's box is none.
    async fn offline_box(
        &self,
        tenant: Option<&TenantId>,
        box_id: &BoxId,
    ) -> Result<(BoxRow, InventoryRecord), FleetError> {
        let mut tx = self.db().read().await?;
        let row = box_get(&mut tx, box_id).await?;
        let theirs = |row: &BoxRow| {
            tenant.is_none_or(|tenant| row.tenant_id.as_deref() == Some(tenant.as_str()))
        };
        let row = row
            .filter(theirs)
            .ok_or_else(|| FleetError::not_found(format!("there is no box {box_id}")))?;
        if row.state == BoxState::Revoked {
            return Err(revoked(box_id));
        }
        let record = self.inventory_record(&Jws(row.inventory_jws.clone()))?;
        Ok((row, record))
    }
}

fn revoked(box_id: &BoxId) -> FleetError {
    FleetError::forbidden(format!("box {box_id} is revoked"))
}

/// An old request says how the machine was, not how it is.
fn check_age(request: &Request, now: UnixMillis) -> Result<(), FleetError> {
    let box_id = &request.box_id;
    let age = now.millis_since(request.made);
    if request.made >= FIRST_BOX && age > MAX_AGE_MS {
        return Err(FleetError::conflict(format!(
            "the request of box {box_id} is {} days old: plug the stick into the box again, and bring the request that is on it then",
            age / 86_400_000
        )));
    }
    if age < -AHEAD_MS {
        return Err(FleetError::conflict(format!(
            "the clock of box {box_id} is ahead by {} days: set it, and make another request",
            -age / 86_400_000
        )));
    }
    Ok(())
}
