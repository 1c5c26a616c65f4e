//! Which versions go next, and when one that failed goes again. Pure: time and randomness come in.

use std::collections::{BTreeMap, HashMap};

use longhaul_vault::Version;

use crate::agent::backoff::Backoff;

/// First and highest ceiling of the pause after a failure, in milliseconds.
const FIRST_PAUSE_MS: u64 = 1_000;
const LONGEST_PAUSE_MS: u64 = 300_000;

/// The name under which a version goes to the bucket; two versions of one name never overlap.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Name {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
}

#[derive(Debug)]
struct Item {
    name: Name,
    stage: Stage,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// May go from this moment on, in milliseconds of a clock that only rises.
    Waiting { from_ms: u64 },
    /// On its way.
    Active,
}

/// What is to be delivered, and how far each has come in this process.
#[derive(Debug)]
pub struct Planner {
    items: BTreeMap<Version, Item>,
    /// The version of each name that is on its way.
    active: HashMap<Name, Version>,
    window: usize,
}

impl Planner {
    /// A planner that lets `window` versions be on their way at a time.
    pub fn new(window: usize) -> Self {
        Self {
            items: BTreeMap::new(),
            active: HashMap::new(),
            window,
        }
    }

    /// Lets so many versions be on their way from now on; those that are go on.
    pub fn set_window(&mut self, window: usize) {
        self.window = window;
    }

    /// Versions that it knows.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Versions that are on their way.
    pub fn in_flight(&self) -> usize {
        self.active.len()
    }

    /// Takes a version in; one that is known stays as it is.
    pub fn offer(&mut self, version: Version, name: Name) {
        self.items.entry(version).or_insert(Item {
            name,
            stage: Stage::Waiting { from_ms: 0 },
            backoff: Backoff::new(FIRST_PAUSE_MS, LONGEST_PAUSE_MS),
        });
    }

    /// The oldest versions that may go now, at most `limit` and never more than the window; they
    /// are on their way from here on.
    pub fn take(&mut self, now_ms: u64, limit: usize) -> Vec<Version> {
        let room = self.window.saturating_sub(self.active.len()).min(limit);
        let mut taken = Vec::new();
        for (version, item) in &mut self.items {
            if taken.len() == room {
                break;
            }
            let due = matches!(item.stage, Stage::Waiting { from_ms } if from_ms <= now_ms);
            if due && !self.active.contains_key(&item.name) {
                item.stage = Stage::Active;
                self.active.insert(item.name.clone(), *version);
                taken.push(*version);
            }
        }
        taken
    }

    /// A version failed for now: it goes again after a pause that grows with every failure.
    pub fn failed(&mut self, version: Version, now_ms: u64, entropy: u64) {
        if let Some(item) = self.items.get_mut(&version) {
            let pause = item.backoff.next(entropy);
            item.stage = Stage::Waiting {
                from_ms: now_ms.saturating_add(pause),
            };
            self.active.remove(&item.name);
        }
    }

    /// A version came a good way before it failed: the next pause is short again.
    pub fn progressed(&mut self, version: Version) {
        if let Some(item) = self.items.get_mut(&version) {
            item.backoff.reset();
        }
    }

    /// A version needs nothing more: it arrived, was given up, or is gone.
    pub fn done(&mut self, version: Version) {
        if let Some(item) = self.items.remove(&version)
            && self.active.get(&item.name) == Some(&version)
        {
            self.active.remove(&item.name);
        }
    }

    /// When the next version that waits may go; `None` where none waits for time to pass.
    pub fn next_due_ms(&self) -> Option<u64> {
        let waiting = self.items.values().filter_map(|item| match item.stage {
            Stage::Waiting { from_ms } if !self.active.contains_key(&item.name) => Some(from_ms),
            _ => None,
        });
        waiting.min().filter(|_| self.active.len() < self.window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(key: &str) -> Name {
        Name {
            bucket: "b".to_owned(),
            key: key.to_owned(),
        }
    }

    #[test]
    fn two_versions_of_one_name_never_overlap() {
        let mut planner = Planner::new(8);
        planner.offer(Version(1), name("a"));
        planner.offer(Version(2), name("a"));
        planner.offer(Version(3), name("b"));

        assert_eq!(planner.take(0, 8), [Version(1), Version(3)]);
        assert_eq!(planner.take(0, 8), []);
        planner.done(Version(1));
        assert_eq!(planner.take(0, 8), [Version(2)]);
    }

    #[test]
    fn a_failure_pauses_only_its_own_version() {
        let mut planner = Planner::new(1);
        planner.offer(Version(1), name("a"));
        planner.offer(Version(2), name("b"));
        assert_eq!(planner.take(0, 8), [Version(1)]);

        planner.failed(Version(1), 0, 999);

        assert_eq!(planner.take(0, 8), [Version(2)]);
        planner.done(Version(2));
        let due = planner.next_due_ms().expect("one waits");
        assert!(due > 0);
        assert_eq!(planner.take(due - 1, 8), []);
        assert_eq!(planner.take(due, 8), [Version(1)]);
    }

    proptest! {
        #[test]
        fn whatever_happens_the_window_holds_and_everything_arrives(
            keys in proptest::collection::vec(0..4_u8, 1..20),
            steps in proptest::collection::vec((any::<bool>(), any::<u64>()), 0..200),
            window in 1..5_usize,
        ) {
            let mut planner = Planner::new(window);
            for (version, key) in (1..).zip(&keys) {
                planner.offer(Version(version), name(&key.to_string()));
            }
            let mut now = 0;
            let mut flying: Vec<Version> = Vec::new();
            let mut arrived = 0;
            let mut steps = steps.into_iter();
            while !planner.is_empty() {
                flying.extend(planner.take(now, 3));
                prop_assert!(flying.len() <= window);
                let Some(version) = flying.pop() else {
                    now = planner.next_due_ms().expect("something waits");
                    continue;
                };
                // When the faults run out, everything succeeds.
                if let Some((false, entropy)) = steps.next() {
                    planner.failed(version, now, entropy);
                } else {
                    planner.done(version);
                    arrived += 1;
                }
            }
            prop_assert_eq!(arrived, keys.len());
            prop_assert_eq!(planner.in_flight(), 0);
        }
    }
}
