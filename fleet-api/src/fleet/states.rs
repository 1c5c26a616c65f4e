//! Which states of a box are accepted: the factory's, and those that the fleet signed with a release
//! that the box was assigned.

use longhaul_protocol::inventory::InventoryRecord;
use longhaul_provisioning::evidence::Policy;
use longhaul_provisioning::tuf;
use serde_json::json;

use super::{Actor, Fleet, FleetError, audit};
use crate::store::rollouts::{RolloutBoxState, rollout_box_assigned};
use crate::store::settings::{setting_get, setting_set};

/// The setting that holds the root of releases as this cloud saw it first.
const ROOT_SETTING: &str = "releases.root";

/// What is accepted of a box now.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The states.
    pub policy: Policy,
    /// Why there may be more: releases that the box was assigned cannot be read.
    pub doubt: Option<FleetError>,
}

impl Fleet {
    /// What is accepted of a box: the states of the releases that it was assigned, back to the last
    /// that it committed; before that, what the factory saw.
    pub(crate) async fn accepted_states(
        &self,
        record: &InventoryRecord,
    ) -> Result<Accepted, FleetError> {
        let mut tx = self.db().read().await?;
        let assigned = rollout_box_assigned(&mut tx, &record.box_id).await?;
        drop(tx);
        let mut policy = Policy::of(record);
        if assigned.is_empty() {
            return Ok(Accepted {
                policy,
                doubt: None,
            });
        }
        let releases = match self.releases_signed().await {
            Ok(releases) => releases,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "releases are not believed"
                );
                let doubt = Some(error);
                return Ok(Accepted { policy, doubt });
            }
        };
        for row in assigned {
            let brings = releases
                .iter()
                .filter(|r| r.target == row.target && r.sha256.to_string() == row.sha256)
                .flat_map(|r| &r.states)
                .filter(|s| s.hardware.as_ref().is_none_or(|h| *h == record.hardware));
            let mut any = false;
            for state in brings {
                policy = policy.or_pcrs(&state.pcrs);
                any = true;
            }
            if any && row.state == RolloutBoxState::Committed {
                policy = policy.without_factory();
                break;
            }
        }
        Ok(Accepted {
            policy,
            doubt: None,
        })
    }

    /// The releases with every signature verified, from the root that this cloud saw first.
    async fn releases_signed(&self) -> Result<Vec<tuf::Release>, FleetError> {
        let mut tx = self.db().read().await?;
        let pinned = setting_get(&mut tx, ROOT_SETTING).await?;
        drop(tx);
        let dir = self.tuf_dir();
        let root = match &pinned {
            Some(text) => text.clone(),
            None => match self.release_root().await? {
                Some(text) => text,
                None => return Ok(Vec::new()),
            },
        };
        let contents = tuf::show_from(root.as_bytes(), dir).await.map_err(|e| {
            let what = format!(
                "the release repository in {} is not the one that this cloud saw first, or is damaged",
                dir.display()
            );
            FleetError::internal(what, e)
        })?;
        if pinned.is_none() {
            self.pin_root(&root).await?;
        }
        Ok(contents.releases)
    }

    async fn release_root(&self) -> Result<Option<String>, FleetError> {
        let dir = self.tuf_dir().to_owned();
        let read = tokio::task::spawn_blocking(move || tuf::trusted_root(&dir)).await;
        let failed = |e| FleetError::internal("failed to read the root of releases", e);
        let bytes = match read {
            Ok(read) => read.map_err(failed)?,
            Err(error) => return Err(FleetError::internal("reading panicked", error)),
        };
        let text = bytes.map(String::from_utf8).transpose();
        text.map_err(|e| FleetError::internal("the root of releases is no text", e))
    }

    async fn pin_root(&self, root: &str) -> Result<(), FleetError> {
        let now = self.now();
        let mut tx = self.db().write().await?;
        // Another process may have been first.
        if setting_get(&mut tx, ROOT_SETTING).await?.is_none() {
            setting_set(&mut tx, ROOT_SETTING, root).await?;
            let what = json!({ "sha256": sha256(root.as_bytes()) });
            let actor = Actor("releases".to_owned());
            audit(&mut tx, &actor, "releases.trust", "releases", what, now).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}

/// SHA-256, hexadecimal.
fn sha256(bytes: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
}
