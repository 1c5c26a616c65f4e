//! A box's own network settings, as operators want them: part of the desired state. A box tries each
//! change once, and goes back by itself where it does not find its way to the cloud with it.

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::network_settings::{NetworkReport, NetworkSettings, NetworkWish};
use longhaul_protocol::twin::Reported;
use serde_json::json;

use super::boxes::known;
use super::desired::{Wish, desired_of};
use super::{Actor, Fleet, FleetError, FleetEventKind, audit};
use crate::store::boxes::{BoxState, box_get, box_lock};
use crate::store::twins::reported_get;

/// What an operator wants of a box's network settings, and what became of it.
#[derive(Clone, Debug)]
pub struct SiteNetwork {
    /// The last change that an operator wanted; absent if there never was one.
    pub wanted: Option<NetworkWish>,
    /// What the box said last of the last change, whoever made it.
    pub last: Option<NetworkReport>,
    /// Whether the box has taken what is wanted, whatever became of it.
    pub taken: bool,
}

impl Fleet {
    /// What is wanted of a box's network settings, and what became of it.
    pub async fn network(&self, box_id: &BoxId) -> Result<SiteNetwork, FleetError> {
        let mut tx = self.db().read().await?;
        let row = known(box_get(&mut tx, box_id).await?, box_id)?;
        let desired = desired_of(&mut tx, box_id).await?;
        let reported = reported_get(&mut tx, box_id).await?;
        let reported: Option<Reported> =
            reported.and_then(|row| serde_json::from_str(&row.detail).ok());
        Ok(SiteNetwork {
            wanted: desired.and_then(|d| d.network),
            last: reported.and_then(|r| r.network),
            taken: row.applied_version == row.desired_version,
        })
    }

    /// Has a box try these settings, or those that it was prepared with, unless `seen` refuses what
    /// was wanted before.
    pub async fn network_change<E: From<FleetError>>(
        &self,
        actor: &Actor,
        box_id: &BoxId,
        settings: Option<NetworkSettings>,
        seen: impl FnOnce(Option<&NetworkWish>) -> Result<(), E> + Send,
    ) -> Result<SiteNetwork, E> {
        self.network_wish(actor, box_id, settings, seen).await?;
        self.desired_send(box_id, None).await?;
        self.tell(Some(box_id), FleetEventKind::Network);
        Ok(self.network(box_id).await?)
    }

    async fn network_wish<E: From<FleetError>>(
        &self,
        actor: &Actor,
        box_id: &BoxId,
        settings: Option<NetworkSettings>,
        seen: impl FnOnce(Option<&NetworkWish>) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        let now = self.now();
        if let Some(Err(error)) = settings.as_ref().map(NetworkSettings::check) {
            return Err(FleetError::invalid(error.to_string()).into());
        }
        let mut tx = self.db().write().await.map_err(FleetError::from)?;
        box_lock(&mut tx, box_id).await.map_err(FleetError::from)?;
        let row = box_get(&mut tx, box_id).await.map_err(FleetError::from)?;
        if known(row, box_id)?.state == BoxState::Revoked {
            let gone = format!("box {box_id} is revoked and obeys nobody");
            return Err(FleetError::conflict(gone).into());
        }
        let before = desired_of(&mut tx, box_id).await?.and_then(|d| d.network);
        seen(before.as_ref())?;
        // Rises also where the desired state before was lost with its database.
        let after = before.map_or(0, |wish| wish.change) + 1;
        let change = after.max(u64::try_from(now.0 / 1000).unwrap_or(0));
        let shown = settings.as_ref().map(NetworkSettings::without_secrets);
        let wish = Wish {
            network: Some(NetworkWish { change, settings }),
            ..Wish::default()
        };
        self.desired_renew(&mut tx, box_id, wish).await?;
        let what = json!({ "change": change, "settings": shown });
        audit(&mut tx, actor, "network.change", box_id.as_str(), what, now).await?;
        tx.commit().await.map_err(FleetError::from)?;
        Ok(())
    }
}
