//! The tickets' secrets: fetched over HTTPS, kept sealed, handed to the intake.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use longhaul_protocol::enrol::CREDENTIALS_PATH;
use longhaul_protocol::ids::TicketId;
use longhaul_protocol::ticket::CredentialSet;

use super::RunError;
use crate::agent::Event;
use crate::cloud::{CloudClient, chain};
use crate::credentials::CredentialStore;
use crate::sealed::{MasterKey, SealError};

/// Tickets of one box at the most.
const MAX_TICKETS: usize = 1_000;

pub(super) struct Tickets {
    path: PathBuf,
    key: Arc<MasterKey>,
    cloud: CloudClient,
    store: CredentialStore,
}

impl Tickets {
    /// Takes up what lies on the disk. What cannot be opened is fetched again.
    pub fn open(state: &Path, key: Arc<MasterKey>, cloud: CloudClient) -> Self {
        let tickets = Self {
            path: state.join("tickets.sealed"),
            key,
            cloud,
            store: CredentialStore::default(),
        };
        match tickets.read() {
            Ok(Some(set)) => tickets.store.replace(set),
            Ok(None) => {}
            Err(error) => tracing::warn!(error = chain(&error), "tickets on disk are unusable"),
        }
        tickets
    }

    pub fn store(&self) -> CredentialStore {
        self.store.clone()
    }

    fn read(&self) -> Result<Option<CredentialSet>, SealError> {
        let Some(clear) = self.key.read(&self.path)? else {
            return Ok(None);
        };
        let set = serde_json::from_slice(&clear).map_err(|_| SealError::Forged {
            path: self.path.clone(),
        })?;
        Ok(Some(set))
    }

    /// Forgets every ticket but these, on the disk first.
    pub async fn keep_only(&self, tickets: &[TicketId]) -> Result<(), RunError> {
        let mut credentials = self.store.all();
        let before = credentials.len();
        credentials.retain(|c| tickets.contains(&c.ticket));
        if credentials.len() != before {
            let set = CredentialSet {
                // What is kept is of the old version, so that the new one is still fetched.
                desired_version: self.store.version(),
                credentials,
            };
            self.keep(set).await?;
        }
        Ok(())
    }

    /// Fetches the set in force.
    pub async fn fetch(&self) -> Event {
        let fetched = self.cloud.get::<CredentialSet>(CREDENTIALS_PATH).await;
        let kept = match fetched {
            Ok(set) => self.hold(set).await,
            Err(error) => Err(chain(&error)),
        };
        match kept {
            Ok(version) => Event::CredentialsHeld { version },
            Err(evidence) => Event::CredentialsFailed { evidence },
        }
    }

    /// Takes a set that came another way.
    pub async fn hold(&self, set: CredentialSet) -> Result<u64, String> {
        if set.credentials.len() > MAX_TICKETS {
            return Err(format!("{} tickets are too many", set.credentials.len()));
        }
        let version = set.desired_version;
        self.keep(set).await.map_err(|e| chain(&e))?;
        Ok(version)
    }

    async fn keep(&self, set: CredentialSet) -> Result<(), RunError> {
        let clear = serde_json::to_vec(&set).map(zeroize::Zeroizing::new);
        let clear = clear.map_err(|_| SealError::Crypto("encode the tickets"))?;
        let (key, path) = (Arc::clone(&self.key), self.path.clone());
        tokio::task::spawn_blocking(move || key.write(&path, &clear))
            .await
            .map_err(|_| RunError::Panicked("storing the tickets"))??;
        self.store.replace(set);
        Ok(())
    }
}
