//! Names that are being written: what is not in the vault yet clashes all the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use longhaul_protocol::ids::ObjectKey;
use longhaul_protocol::names::Folded;
use longhaul_vault::JobId;
use parking_lot::Mutex;

/// Folded name by bucket, and who writes under it: once for each body that is being received.
type Names = BTreeMap<(String, String), Vec<ObjectKey>>;

/// The names that are being written. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims(Arc<Mutex<Names>>);

/// One name that is being written; ends when dropped, which must be after the vault has it.
#[derive(Debug)]
pub(crate) struct Claim {
    names: Arc<Mutex<Names>>,
    place: (String, String),
    key: ObjectKey,
}

impl Claims {
    /// Says that `key` is being written from now on; the second value is another name, being written
    /// as well, that some systems cannot tell from it.
    pub fn claim(&self, job: &JobId, key: &ObjectKey) -> (Claim, Option<ObjectKey>) {
        let place = (job.as_str().to_owned(), Folded::of(key).as_str().to_owned());
        let mut names = self.0.lock();
        let writers = names.entry(place.clone()).or_default();
        let other = writers.iter().find(|other| *other != key).cloned();
        writers.push(key.clone());
        let claim = Claim {
            names: Arc::clone(&self.0),
            place,
            key: key.clone(),
        };
        (claim, other)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut names = self.names.lock();
        let Some(writers) = names.get_mut(&self.place) else {
            return;
        };
        if let Some(at) = writers.iter().position(|key| *key == self.key) {
            writers.swap_remove(at);
        }
        if writers.is_empty() {
            names.remove(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ObjectKey {
        text.parse().expect("a key")
    }

    #[test]
    fn two_names_that_look_the_same_and_are_written_at_once_know_of_each_other() {
        let claims = Claims::default();
        let job: JobId = "survey".parse().expect("a job");
        let other: JobId = "other".parse().expect("a job");

        let (first, none) = claims.claim(&job, &key("caf\u{e9}"));
        assert_eq!(none, None);
        let (second, clash) = claims.claim(&job, &key("cafe\u{301}"));
        assert_eq!(clash, Some(key("caf\u{e9}")));
        let (third, clash) = claims.claim(&job, &key("CAF\u{c9}"));
        assert!(clash.is_some());
        let (_, elsewhere) = claims.claim(&other, &key("CAF\u{c9}"));
        assert_eq!(elsewhere, None, "another bucket is another place");

        drop((first, second));
        let (_, same) = claims.claim(&job, &key("CAF\u{c9}"));
        assert_eq!(same, None, "who writes one name twice does not clash");
        drop(third);
        assert!(claims.0.lock().is_empty(), "nothing is left behind");
    }
}
