//! The request that waits for its answer, as it lies on the disk: `offline.json`.

use std::path::{Path, PathBuf};

use longhaul_protocol::offline::Request;
use longhaul_protocol::value::{Digest32, UnixMillis};
use longhaul_provisioning::offline;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::disk::{self, DiskError};

/// A request that was made.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Pending {
    /// Its text, as it is told.
    pub text: String,
    /// Its name: what an answer must be to.
    pub name: Digest32,
    /// Where in the TPM the key is that it asks a certificate for.
    pub slot: u8,
    /// When it was made, by the box's clock.
    pub made: UnixMillis,
}

impl Pending {
    /// A request for the key in this place.
    pub fn of(request: &Request, slot: u8) -> Self {
        Self {
            text: request.text(),
            name: offline::name(request),
            slot,
            made: request.made,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Kept {
    #[serde(default)]
    open: Option<Pending>,
    /// The request whose answer was taken last.
    #[serde(default)]
    taken: Option<Digest32>,
    /// Until when that registered the box.
    #[serde(default)]
    until: Option<UnixMillis>,
}

/// The box's requests: one at a time.
#[derive(Debug)]
pub struct Requests {
    path: PathBuf,
    kept: Mutex<Kept>,
}

impl Requests {
    /// As the state directory has them. A file that is no longer one counts as none: the box asks anew.
    pub fn open(state: &Path) -> Self {
        let path = state.join("offline.json");
        let kept = disk::read_json(&path).unwrap_or_else(|error| {
            tracing::warn!(%error, "the request on disk is left out");
            None
        });
        Self {
            path,
            kept: Mutex::new(kept.unwrap_or_default()),
        }
    }

    /// The request that waits.
    pub fn pending(&self) -> Option<Pending> {
        self.kept.lock().open.clone()
    }

    /// The request whose answer was taken last.
    pub fn taken(&self) -> Option<Digest32> {
        self.kept.lock().taken
    }

    /// Until when the answer that was taken last registered the box.
    pub fn until(&self) -> Option<UnixMillis> {
        self.kept.lock().until
    }

    /// From now on this one waits; it is on the disk when this returns.
    pub fn ask(&self, pending: Pending) -> Result<(), DiskError> {
        self.change(|kept| kept.open = Some(pending))
    }

    /// Its key is about to be replaced: no answer is one any more.
    pub fn withdraw(&self) -> Result<(), DiskError> {
        if self.pending().is_none() {
            return Ok(());
        }
        self.change(|kept| kept.open = None)
    }

    /// It was answered, and everything that the answer holds is on the disk.
    pub fn take(&self, name: Digest32, until: UnixMillis) -> Result<(), DiskError> {
        self.change(|kept| {
            *kept = Kept {
                open: None,
                taken: Some(name),
                until: Some(until),
            }
        })
    }

    fn change(&self, change: impl FnOnce(&mut Kept)) -> Result<(), DiskError> {
        let mut kept = self.kept.lock();
        let mut next = kept.clone();
        change(&mut next);
        disk::write_json(&self.path, &next)?;
        *kept = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_waits_until_it_is_taken_or_withdrawn_also_after_a_power_cut() {
        let dir = tempfile::tempdir().unwrap();
        let pending = Pending {
            text: "LH1/..".to_owned(),
            name: Digest32([1; 32]),
            slot: 1,
            made: UnixMillis(5),
        };
        let requests = Requests::open(dir.path());
        assert_eq!(requests.pending(), None);

        requests.ask(pending.clone()).unwrap();
        assert_eq!(Requests::open(dir.path()).pending(), Some(pending.clone()));
        requests.take(pending.name, UnixMillis(9)).unwrap();
        let again = Requests::open(dir.path());
        assert_eq!((again.pending(), again.taken()), (None, Some(pending.name)));
        assert_eq!(again.until(), Some(UnixMillis(9)));
        again.ask(pending).unwrap();
        again.withdraw().unwrap();
        assert_eq!(Requests::open(dir.path()).pending(), None);

        std::fs::write(dir.path().join("offline.json"), b"{\"open\":[]}").unwrap();
        assert_eq!(Requests::open(dir.path()).pending(), None);
    }
}
