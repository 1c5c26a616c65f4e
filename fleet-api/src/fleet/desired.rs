//! Desired state: always the full document, signed, with a version that rises.

use std::collections::BTreeSet;

use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::journey::{Guide, Step};
use longhaul_protocol::network_settings::NetworkWish;
use longhaul_protocol::topic::Dn;
use longhaul_protocol::twin::{Desired, SignedDesired, TicketRef};
use longhaul_protocol::uplink::UplinkPolicy;
use longhaul_protocol::value::{Jws, UnixMillis};
use longhaul_provisioning::jws::Kind;

use super::{Fleet, FleetError};
use crate::store::Tx;
use crate::store::boxes::{BoxState, box_get, box_next_desired};
use crate::store::quarantines::quarantine_get;
use crate::store::tickets::ticket_list_valid;
use crate::store::twins::{DesiredRow, desired_get, desired_set};

/// Telemetry interval of a box that was never told another one, in seconds.
const DEFAULT_TELEMETRY_SECS: u16 = 10;

/// What changes in the desired state; what is absent stays.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    /// The telemetry interval, in seconds.
    pub telemetry_secs: Option<u16>,
    /// How the way to the buckets is used.
    pub uplink: Option<UplinkPolicy>,
    /// A change of the box's own network settings.
    pub network: Option<NetworkWish>,
}

impl Fleet {
    /// Writes the next version, with what the database has now; the caller commits and publishes.
    pub(crate) async fn desired_renew(
        &self,
        tx: &mut Tx,
        box_id: &BoxId,
        wish: Wish,
    ) -> Result<(), FleetError> {
        let now = self.now();
        let before = desired_of(tx, box_id).await?;
        let (interval, uplink, network) = match before {
            Some(before) => (
                Some(before.telemetry_interval_secs),
                before.uplink,
                before.network,
            ),
            None => (None, UplinkPolicy::default(), None),
        };
        let held = held_back(tx, box_id).await?;
        let tickets = match held {
            Some(_) => Vec::new(),
            None => ticket_list_valid(tx, box_id, now.0).await?,
        };
        let owned = box_get(tx, box_id)
            .await?
            .is_some_and(|row| row.tenant_id.is_some());
        let guide = guide(owned, tickets.iter().map(|row| row.bucket.as_str()));
        let version = box_next_desired(tx, box_id, now.0 / 1000)
            .await?
            .ok_or_else(|| FleetError::not_found(format!("no box {box_id}")))?;
        let desired = Desired {
            v: VERSION,
            box_id: box_id.clone(),
            version: u64::try_from(version).unwrap_or(0),
            telemetry_interval_secs: wish
                .telemetry_secs
                .or(interval)
                .unwrap_or(DEFAULT_TELEMETRY_SECS),
            tickets: tickets
                .into_iter()
                .map(|row| TicketRef {
                    id: row.ticket_id,
                    access_key: row.access_key,
                    expires: UnixMillis(row.expires),
                })
                .collect(),
            uplink: wish.uplink.unwrap_or(uplink),
            network: wish.network.or(network),
            held,
            journey: Some(guide),
        };
        let detail = serde_json::to_string(&desired)
            .map_err(|e| FleetError::internal("failed to write desired state", e))?;
        let jws = self
            .identity()
            .signer()
            .sign(Kind::Desired, detail.as_bytes())
            .map_err(|e| {
                FleetError::conflict(format!(
                    "the desired state of box {box_id} cannot be signed: {e}; revoke old tickets"
                ))
            })?;
        let row = DesiredRow {
            box_id: box_id.clone(),
            version,
            detail,
            jws: jws.0,
            updated: now.0,
        };
        desired_set(tx, &row).await?;
        Ok(())
    }

    /// Sends the desired state to a box, if it has one that differs from `applied`.
    pub(crate) async fn desired_send(
        &self,
        box_id: &BoxId,
        applied: Option<u64>,
    ) -> Result<(), FleetError> {
        let mut tx = self.db().read().await?;
        let state = box_get(&mut tx, box_id).await?.map(|row| row.state);
        let row = desired_get(&mut tx, box_id).await?;
        drop(tx);
        // Also that it is held back, and has no tickets, is something that the box must know.
        let hears = matches!(state, Some(BoxState::Active | BoxState::Quarantined));
        let Some(row) = row.filter(|_| hears) else {
            return Ok(());
        };
        if applied != u64::try_from(row.version).ok() {
            self.publish(box_id, Dn::Desired, &SignedDesired { jws: Jws(row.jws) });
        }
        Ok(())
    }
}

/// Why the box is held back, where it is.
async fn held_back(tx: &mut Tx, box_id: &BoxId) -> Result<Option<String>, FleetError> {
    let state = box_get(tx, box_id).await?.map(|row| row.state);
    if state != Some(BoxState::Quarantined) {
        return Ok(None);
    }
    let row = quarantine_get(tx, box_id).await?;
    let reason = row.map_or_else(|| "quarantined".to_owned(), |row| row.reason);
    Ok(Some(reason))
}

/// Where the customer is, as far as the cloud decides it: the box sees what becomes of the files.
fn guide<'a>(owned: bool, buckets: impl Iterator<Item = &'a str>) -> Guide {
    let buckets: BTreeSet<&str> = buckets.collect();
    let step = match (owned, buckets.is_empty()) {
        (_, false) => Step::Push,
        (true, true) => Step::Ticket,
        (false, true) => Step::Claim,
    };
    let text = match buckets.iter().next() {
        Some(bucket) if buckets.len() == 1 => format!(
            "Run `longhaul push FOLDER` with the ticket for {bucket}, or use any S3 client with its keys: your files go to the bucket {bucket}."
        ),
        Some(_) => format!(
            "Run `longhaul push FOLDER` with one of the tickets: each is for one of {} buckets.",
            buckets.len()
        ),
        None => step.text().to_owned(),
    };
    Guide { step, text }
}

/// The desired state that was signed last.
pub(super) async fn desired_of(tx: &mut Tx, box_id: &BoxId) -> Result<Option<Desired>, FleetError> {
    let row = desired_get(tx, box_id).await?;
    Ok(row.and_then(|row| serde_json::from_str(&row.detail).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_customer_is_guided_from_claim_to_ticket_to_push() {
        let claim = guide(false, [].into_iter());
        let ticket = guide(true, [].into_iter());
        let push = guide(true, ["survey", "survey"].into_iter());
        let many = guide(false, ["a", "b"].into_iter());

        assert_eq!((claim.step, ticket.step), (Step::Claim, Step::Ticket));
        assert_eq!(push.step, Step::Push);
        assert!(push.text.ends_with("the bucket survey."), "{}", push.text);
        assert!(many.text.contains("one of 2 buckets"), "{}", many.text);
    }
}
