//! Buckets that refuse everybody: their objects wait, which is told once and shown until it ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use longhaul_protocol::diag::Code;
use longhaul_protocol::journal::Fact;
use parking_lot::Mutex;

/// Which buckets are held, and why. Clones share what they know.
#[derive(Clone, Debug, Default)]
pub struct Holds(Arc<Mutex<BTreeMap<String, String>>>);

impl Holds {
    /// Why everything for `bucket` waits, if it does.
    #[must_use]
    pub fn reason(&self, bucket: &str) -> Option<String> {
        self.0.lock().get(bucket).cloned()
    }

    /// What indicators show while any bucket is held.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        (!self.0.lock().is_empty()).then_some(Code::BUCKET_HELD)
    }

    /// The bucket refuses everybody: what is to be told, if that is news.
    pub(super) fn hold(&self, bucket: &str, reason: &str) -> Option<Fact> {
        let known = self.0.lock().insert(bucket.to_owned(), reason.to_owned());
        let code = Code::BUCKET_HELD;
        let title = code.entry().title;
        known.is_none().then(|| {
            notice(format!(
                "{code} {title}: deliveries to {bucket} wait: {reason}"
            ))
        })
    }

    /// The bucket took something, or refuses an object alone: what is to be told, if that is news.
    pub(super) fn free(&self, bucket: &str) -> Option<Fact> {
        let known = self.0.lock().remove(bucket);
        known.map(|_| notice(format!("deliveries to {bucket} go on")))
    }

    /// Nothing waits for anything.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

fn notice(text: String) -> Fact {
    Fact::Notice {
        part: "uplink".to_owned(),
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(fact: Option<Fact>) -> Option<String> {
        match fact? {
            Fact::Notice { text, .. } => Some(text),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_held_bucket_is_told_of_once_and_again_when_it_goes_on() {
        let holds = Holds::default();
        assert_eq!(holds.code(), None);

        let told = text(holds.hold("survey", "access was withdrawn")).expect("news");
        assert!(told.contains("LH-951") && told.contains("survey"), "{told}");
        assert_eq!(holds.hold("survey", "access was withdrawn"), None);
        assert!(holds.hold("other", "it does not exist").is_some());
        assert_eq!(
            holds.reason("survey").as_deref(),
            Some("access was withdrawn")
        );

        assert!(text(holds.free("survey")).is_some_and(|told| told.contains("go on")));
        assert_eq!(holds.free("survey"), None);
        assert_eq!(holds.code(), Some(Code::BUCKET_HELD), "the other one");
        holds.free("other");
        assert_eq!(holds.code(), None);
    }
}
