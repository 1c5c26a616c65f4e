//! Keeps the vault's key recoverable: encrypted to the fleet's recovery key, beside the vault and in
//! the cloud.

use std::path::PathBuf;
use std::sync::Arc;

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::journal::Fact;
use longhaul_protocol::recovery::WrappedKey;
use longhaul_provisioning::recovery::{RecoveryPublic, key_id};

use super::{RunError, blocking};
use crate::disk;
use crate::journal::JournalHandle;
use crate::vault_key::VaultKey;

/// The wrapped key's name in the vault's folder: who has the disk has it, and the cloud is not needed.
const FILE: &str = "recovery.json";

/// Wraps the vault's key when it has changed.
#[derive(Clone)]
pub(super) struct Recovery {
    pub key: Arc<VaultKey>,
    pub to: RecoveryPublic,
    pub box_id: BoxId,
    pub vault_dir: PathBuf,
    pub journal: JournalHandle,
}

impl Recovery {
    /// Wraps the key, tells the cloud, and then writes it down, unless that was done before.
    pub(super) async fn keep(&self) -> Result<(), RunError> {
        let this = self.clone();
        let wrapped = blocking("wrapping the vault's key", move || this.wrap()).await?;
        let Some(wrapped) = wrapped else {
            return Ok(());
        };
        // Told first: the file says that it was.
        self.journal.append(Fact::VaultKey(wrapped.clone())).await?;
        let path = self.path();
        blocking("keeping the wrapped key", move || {
            disk::write_json(&path, &wrapped).map_err(RunError::from)
        })
        .await?;
        tracing::info!(recipient = ?self.to.id(), "the vault's key is wrapped for the depot");
        Ok(())
    }

    /// `None` where what is there is right.
    fn wrap(&self) -> Result<Option<WrappedKey>, RunError> {
        let key = self.key.current()?;
        // What cannot be read is replaced.
        let there: Option<WrappedKey> = disk::read_json(&self.path()).unwrap_or_default();
        let right = |there: &WrappedKey| {
            there.recipient == self.to.id()
                && there.key_id == key_id(&key)
                && there.box_id == self.box_id
        };
        if there.as_ref().is_some_and(right) {
            return Ok(None);
        }
        let wrapped = self.to.wrap(&self.box_id, &key, crate::clock::wall());
        wrapped.map(Some).map_err(|source| RunError::Part {
            part: "wrapping the vault's key",
            source: Box::new(source),
        })
    }

    fn path(&self) -> PathBuf {
        self.vault_dir.join(FILE)
    }
}
