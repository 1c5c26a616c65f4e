//! What enrolment does to a box, whichever way it asked: by wire or by a stick.

use longhaul_protocol::enrol::Issued;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::value::{Blob, UnixMillis};
use longhaul_provisioning::ca::MAX_LDEVID_SECS;
use longhaul_provisioning::evidence::{self, Difference, Verified};
use serde_json::json;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Actor, Fleet, FleetError, FleetEventKind, Wish, audit};
use crate::identity::expires;
use crate::store::Tx;
use crate::store::boxes::{BoxRow, BoxState, box_get, box_set_certificate, box_set_state};
use crate::store::quarantines::{quarantine_accepted, quarantine_set};

/// What enrolment did.
pub(crate) struct Enrolled {
    /// What the box gets.
    pub issued: Issued,
    /// What it was before.
    before: BoxState,
    /// Why it is held back from now on, where it was not before.
    held: Option<String>,
    /// Whether its state is one that is not accepted.
    unknown: bool,
}

impl Enrolled {
    /// Whether somebody has to look at the box before it gets tickets.
    pub fn is_held_back(&self) -> bool {
        self.unknown || self.before == BoxState::Quarantined
    }
}

impl Fleet {
    /// Certifies a box's new key, which was verified; the caller commits, and then calls
    /// [`Fleet::enrolled`]. `None` if the box was thrown out meanwhile.
    ///
    /// A box in a state that nobody has approved is the right box, but perhaps not with the right
    /// software: it gets a certificate, so that it can connect and report, and is held back.
    pub(crate) async fn enrol_issue(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        verified: &Verified,
        now: UnixMillis,
    ) -> Result<Option<Enrolled>, FleetError> {
        let box_id = &verified.box_id;
        let chain = self
            .identity()
            .pki()
            .issue_ldevid(box_id, &verified.ldevid_spki, MAX_LDEVID_SECS, now)
            .map_err(|e| FleetError::internal("failed to issue a certificate", e))?;
        let leaf = &chain[0];
        let not_after =
            expires(leaf).ok_or_else(|| FleetError::internal("failed to issue", "no expiry"))?;
        let serial = X509Certificate::from_der(leaf)
            .map(|(_, parsed)| hex::encode(parsed.raw_serial()))
            .map_err(|e| {
                FleetError::internal("an issued certificate is unreadable", e.to_string())
            })?;
        // Looked at again under the writer's lock: it may have been thrown out meanwhile.
        let before = match box_get(tx, box_id).await?.map(|row| row.state) {
            Some(BoxState::Revoked) | None => return Ok(None),
            Some(state) => state,
        };
        let unknown = !verified.differs.is_empty();
        let mut held = None;
        match before {
            _ if unknown => held = self.hold(tx, actor, verified, now).await?,
            BoxState::Inventoried => {
                box_set_state(tx, box_id, BoxState::Active, now.0).await?;
            }
            BoxState::Quarantined => quarantine_accepted(tx, box_id, now.0).await?,
            BoxState::Active | BoxState::Revoked => {}
        }
        box_set_certificate(tx, box_id, &serial, not_after.0, now.0).await?;
        let detail = json!({ "serial": serial, "expires": not_after });
        audit(tx, actor, "box.enrol", box_id.as_str(), detail, now).await?;
        tracing::info!(%box_id, serial, "issued a box's certificate");
        let issued = Issued {
            certificate_chain: chain.iter().map(|c| Blob(c.to_vec())).collect(),
            expires: not_after,
            endpoints: self.endpoints().to_vec(),
            server_time: now,
        };
        Ok(Some(Enrolled {
            issued,
            before,
            held,
            unknown,
        }))
    }

    /// Tells whoever must know, once it is committed.
    pub(crate) async fn enrolled(
        &self,
        box_id: &BoxId,
        enrolled: &Enrolled,
    ) -> Result<(), FleetError> {
        if let Some(reason) = enrolled.held.clone() {
            self.admit_as(box_id, BoxState::Quarantined);
            self.desired_send(box_id, None).await?;
            self.tell(Some(box_id), FleetEventKind::BoxRefused { reason });
        } else if enrolled.before == BoxState::Inventoried {
            self.admitted().activate(box_id);
            self.tell_states();
        }
        self.tell(Some(box_id), FleetEventKind::BoxEnrolled);
        Ok(())
    }

    /// Holds a box back for the state that it is in; yields why, if it was not held back before.
    async fn hold(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        verified: &Verified,
        now: UnixMillis,
    ) -> Result<Option<String>, FleetError> {
        let (box_id, differs) = (&verified.box_id, &verified.differs);
        let name = |d: &Difference| format!("PCR {} ({})", d.pcr, d.measures());
        let names: Vec<_> = differs.iter().map(name).collect();
        let reason = format!(
            "the machine is in a state that neither the factory nor a release knows: {}",
            names.join(", ")
        );
        let changed = box_set_state(tx, box_id, BoxState::Quarantined, now.0).await?;
        quarantine_set(tx, box_id, &actor.0, &reason, differs, now.0).await?;
        if !changed {
            return Ok(None);
        }
        self.desired_renew(tx, box_id, Wish::default()).await?;
        let detail = json!({ "differs": differs });
        audit(tx, actor, "box.quarantine", box_id.as_str(), detail, now).await?;
        tracing::warn!(%box_id, reason, "quarantined");
        Ok(Some(reason))
    }

    /// Takes a refusal down; yields it in words.
    pub(crate) async fn enrol_refuse(
        &self,
        actor: &Actor,
        row: &BoxRow,
        refusal: &evidence::Refusal,
    ) -> Result<String, FleetError> {
        let (box_id, now) = (&row.box_id, self.now());
        let text = chain(refusal);
        let mut tx = self.db().write().await?;
        let detail = json!({ "code": refusal.code(), "text": text });
        audit(&mut tx, actor, "box.refuse", box_id.as_str(), detail, now).await?;
        tx.commit().await?;
        let reason = text.clone();
        self.tell(Some(box_id), FleetEventKind::BoxRefused { reason });
        Ok(text)
    }
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
