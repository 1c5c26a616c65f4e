//! How a box uses its way to the buckets, as operators want it: part of the desired state.

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::twin::Reported;
use longhaul_protocol::uplink::{UplinkPolicy, UplinkState};
use serde_json::json;

use super::boxes::known;
use super::desired::{Wish, desired_of};
use super::{Actor, Fleet, FleetError, FleetEventKind, audit};
use crate::store::boxes::{BoxState, box_get, box_lock};
use crate::store::twins::reported_get;

/// What an operator wants of a box's uplink, and what is in force.
#[derive(Clone, Debug)]
pub struct Uplink {
    /// What is wanted.
    pub wanted: UplinkPolicy,
    /// What the box said last; absent if it never did.
    pub in_force: Option<UplinkState>,
    /// Whether the box has applied what is wanted.
    pub applied: bool,
}

impl Fleet {
    /// What is wanted of a box's uplink, and what is in force.
    pub async fn uplink(&self, box_id: &BoxId) -> Result<Uplink, FleetError> {
        let mut tx = self.db().read().await?;
        let row = known(box_get(&mut tx, box_id).await?, box_id)?;
        let desired = desired_of(&mut tx, box_id).await?;
        let reported = reported_get(&mut tx, box_id).await?;
        let reported: Option<Reported> =
            reported.and_then(|row| serde_json::from_str(&row.detail).ok());
        Ok(Uplink {
            wanted: desired.map(|d| d.uplink).unwrap_or_default(),
            in_force: reported.and_then(|r| r.uplink),
            applied: row.applied_version == row.desired_version,
        })
    }

    /// Has a box use its way to the buckets otherwise: `change` makes the policy from the one that
    /// is wanted now.
    pub async fn uplink_change(
        &self,
        actor: &Actor,
        box_id: &BoxId,
        change: impl FnOnce(UplinkPolicy) -> UplinkPolicy + Send,
    ) -> Result<Uplink, FleetError> {
        let now = self.now();
        let mut tx = self.db().write().await?;
        box_lock(&mut tx, box_id).await?;
        let row = known(box_get(&mut tx, box_id).await?, box_id)?;
        if row.state == BoxState::Revoked {
            return Err(FleetError::conflict(format!(
                "box {box_id} is revoked and obeys nobody"
            )));
        }
        let before = desired_of(&mut tx, box_id).await?;
        let before = before.map(|d| d.uplink).unwrap_or_default();
        let wanted = change(before.clone());
        wanted
            .check()
            .map_err(|error| FleetError::invalid(error.to_string()))?;
        if wanted != before {
            let wish = Wish {
                uplink: Some(wanted.clone()),
                ..Wish::default()
            };
            self.desired_renew(&mut tx, box_id, wish).await?;
            let action = match (before.paused, wanted.paused) {
                (false, true) => "uplink.pause",
                (true, false) => "uplink.resume",
                _ => "uplink.change",
            };
            let what = json!({
                "paused": wanted.paused,
                "limited": wanted.week.is_some(),
                "priorities": wanted.priorities,
            });
            audit(&mut tx, actor, action, box_id.as_str(), what, now).await?;
        }
        tx.commit().await?;
        if wanted != before {
            self.desired_send(box_id, None).await?;
            self.tell(Some(box_id), FleetEventKind::Uplink);
        }
        self.uplink(box_id).await
    }
}
