//! The key pairs of the tickets that may write to this box.

use std::collections::BTreeMap;
use std::sync::Arc;

use longhaul_protocol::ticket::{Credential, CredentialSet};
use parking_lot::RwLock;

#[derive(Default)]
struct Held {
    by_access_key: BTreeMap<String, Credential>,
    version: u64,
}

/// Finds the secret of an access key; clones see the same set.
///
/// Expiry is the caller's to check: it holds the clock.
#[derive(Clone, Default)]
pub struct CredentialStore(Arc<RwLock<Held>>);

impl CredentialStore {
    /// The credential of `access_key`, if a ticket of this box has it.
    pub fn lookup(&self, access_key: &str) -> Option<Credential> {
        self.0.read().by_access_key.get(access_key).cloned()
    }

    /// The version of the desired state that the set belongs to; 0 for none.
    pub fn version(&self) -> u64 {
        self.0.read().version
    }

    /// Every credential, by access key.
    pub fn all(&self) -> Vec<Credential> {
        self.0.read().by_access_key.values().cloned().collect()
    }

    /// Replaces the whole set; the caller has stored it.
    pub fn replace(&self, set: CredentialSet) {
        let mut held = self.0.write();
        held.version = set.desired_version;
        held.by_access_key = set
            .credentials
            .into_iter()
            .map(|c| (c.access_key.clone(), c))
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longhaul_protocol::ticket::Secret;
    use longhaul_protocol::value::UnixMillis;

    #[test]
    fn a_new_set_replaces_the_old_one() {
        let credential = |access_key: &str| Credential {
            ticket: "t".parse().unwrap(),
            bucket: "b".to_owned(),
            access_key: access_key.to_owned(),
            secret_key: Secret("s".to_owned()),
            expires: UnixMillis(1),
        };
        let set = |version, keys: &[&str]| CredentialSet {
            desired_version: version,
            credentials: keys.iter().map(|k| credential(k)).collect(),
        };
        let store = CredentialStore::default();
        let clone = store.clone();

        store.replace(set(1, &["a", "b"]));
        store.replace(set(2, &["b"]));

        assert_eq!(clone.version(), 2);
        assert!(clone.lookup("a").is_none());
        assert!(clone.lookup("b").is_some());
    }
}
