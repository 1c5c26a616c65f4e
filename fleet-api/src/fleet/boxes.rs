//! Boxes come in by the factory's word and go out by an operator's.

use longhaul_broker::Reason;
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::inventory::InventoryRecord;
use longhaul_protocol::value::Jws;
use longhaul_provisioning::jws::{self, Kind};
use serde_json::json;

use super::{Actor, Fleet, FleetError, FleetEventKind, Wish, audit};
use crate::store::boxes::{BoxRow, BoxState, NewBox, box_get, box_import, box_set_state};
use crate::store::idempotency::idempotency_made;
use crate::store::quarantines::{quarantine_end, quarantine_set};

impl Fleet {
    /// Takes a box into the inventory; the record must be signed by the factory. Importing a record
    /// again changes nothing.
    pub async fn inventory_import(&self, actor: &Actor, record: &Jws) -> Result<BoxId, FleetError> {
        let now = self.now();
        let parsed = self.inventory_record(record)?;
        let new = NewBox {
            box_id: &parsed.box_id,
            order: parsed.order.as_ref(),
            hardware: &parsed.hardware,
            inventory_jws: record,
            ek_sha256: &parsed.ek_sha256,
            iak_name: &parsed.iak_name.0,
            made_at: parsed.made_at.0,
        };
        let mut tx = self.db().write().await?;
        let is_new = match box_import(&mut tx, &new, now.0).await {
            Ok(is_new) => is_new,
            Err(error) if error.is_duplicate() => {
                return Err(FleetError::conflict(format!(
                    "the endorsement key of box {} belongs to another box",
                    parsed.box_id
                )));
            }
            Err(error) => return Err(error.into()),
        };
        if is_new {
            let detail = json!({ "hardware": parsed.hardware });
            let subject = parsed.box_id.as_str();
            audit(&mut tx, actor, "box.import", subject, detail, now).await?;
        }
        let state = box_get(&mut tx, &parsed.box_id).await?.map(|row| row.state);
        idempotency_made(parsed.box_id.as_str());
        tx.commit().await?;
        if let Some(state) = state {
            self.admit_as(&parsed.box_id, state);
        }
        if is_new {
            self.tell(Some(&parsed.box_id), FleetEventKind::BoxAdded);
        }
        Ok(parsed.box_id)
    }

    /// Verifies and reads a factory's record.
    pub(crate) fn inventory_record(&self, record: &Jws) -> Result<InventoryRecord, FleetError> {
        let verified = jws::verify(
            record,
            Kind::Inventory,
            self.identity().anchors(),
            self.now(),
        )
        .map_err(|e| {
            FleetError::invalid(format!(
                "not an inventory record of this fleet's factory: {e}"
            ))
            .with_source(e)
        })?;
        let parsed: InventoryRecord = serde_json::from_slice(&verified.payload).map_err(|e| {
            FleetError::invalid(format!("malformed inventory record: {e}")).with_source(e)
        })?;
        if parsed.v != VERSION {
            return Err(FleetError::invalid(format!(
                "inventory record has version {}; this cloud reads version {VERSION}",
                parsed.v
            )));
        }
        if BoxId::from_ek_sha256(&parsed.ek_sha256.0) != parsed.box_id {
            return Err(FleetError::invalid(format!(
                "box {} is not named after its endorsement key",
                parsed.box_id
            )));
        }
        Ok(parsed)
    }

    /// Throws a box out: no certificate any more, and its connection is cut at once.
    pub async fn box_revoke(&self, actor: &Actor, box_id: &BoxId) -> Result<(), FleetError> {
        let now = self.now();
        let mut tx = self.db().write().await?;
        known(box_get(&mut tx, box_id).await?, box_id)?;
        if box_set_state(&mut tx, box_id, BoxState::Revoked, now.0).await? {
            audit(
                &mut tx,
                actor,
                "box.revoke",
                box_id.as_str(),
                json!({}),
                now,
            )
            .await?;
        }
        tx.commit().await?;
        // In this order there is no gap: whoever connects after the first line is refused.
        self.admit_as(box_id, BoxState::Revoked);
        self.line().disconnect(box_id, Reason::Banned);
        self.tell(Some(box_id), FleetEventKind::BoxRevoked);
        Ok(())
    }

    /// Holds a box back until someone has looked: it stays connected, delivers nothing and gets no
    /// commands.
    pub async fn box_quarantine(&self, actor: &Actor, box_id: &BoxId) -> Result<(), FleetError> {
        let now = self.now();
        let mut tx = self.db().write().await?;
        let row = known(box_get(&mut tx, box_id).await?, box_id)?;
        if row.state != BoxState::Active {
            return Err(FleetError::conflict(format!(
                "box {box_id} is {}, not active",
                row.state
            )));
        }
        box_set_state(&mut tx, box_id, BoxState::Quarantined, now.0).await?;
        let reason = format!("quarantined by {actor}");
        quarantine_set(&mut tx, box_id, &actor.0, &reason, &[], now.0).await?;
        self.desired_renew(&mut tx, box_id, Wish::default()).await?;
        let (subject, detail) = (box_id.as_str(), json!({}));
        audit(&mut tx, actor, "box.quarantine", subject, detail, now).await?;
        tx.commit().await?;
        self.admit_as(box_id, BoxState::Quarantined);
        self.desired_send(box_id, None).await?;
        self.tell(Some(box_id), FleetEventKind::BoxRefused { reason });
        Ok(())
    }

    /// Lets a quarantined box back in, after someone has looked.
    pub async fn box_release(&self, actor: &Actor, box_id: &BoxId) -> Result<(), FleetError> {
        let now = self.now();
        let mut tx = self.db().write().await?;
        let row = known(box_get(&mut tx, box_id).await?, box_id)?;
        if row.state != BoxState::Quarantined {
            return Err(FleetError::conflict(format!(
                "box {box_id} is {}, not quarantined",
                row.state
            )));
        }
        box_set_state(&mut tx, box_id, BoxState::Active, now.0).await?;
        quarantine_end(&mut tx, box_id).await?;
        self.desired_renew(&mut tx, box_id, Wish::default()).await?;
        audit(
            &mut tx,
            actor,
            "box.release",
            box_id.as_str(),
            json!({}),
            now,
        )
        .await?;
        tx.commit().await?;
        self.admit_as(box_id, BoxState::Active);
        self.desired_send(box_id, None).await?;
        self.tell(Some(box_id), FleetEventKind::BoxEnrolled);
        Ok(())
    }
}

/// The box, or that there is none.
pub(super) fn known(row: Option<BoxRow>, box_id: &BoxId) -> Result<BoxRow, FleetError> {
    row.ok_or_else(|| {
        FleetError::not_found(format!(
            "no box {box_id}: import its inventory record first"
        ))
    })
}
