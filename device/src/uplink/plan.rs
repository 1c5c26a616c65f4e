//! Which versions go next, and when one that failed goes again. Pure: time and randomness come in.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use longhaul_protocol::uplink::Priority;
use longhaul_vault::Version;

use super::turns::{Shares, class};
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
    priority: Priority,
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
    /// Those that wait, by priority.
    waiting: [BTreeSet<Version>; 3],
    /// The version of each name that is on its way.
    active: HashMap<Name, Version>,
    /// How many of each priority are on their way.
    flying: [usize; 3],
    shares: Shares,
    window: usize,
}

impl Planner {
    /// A planner that lets `window` versions of each priority be on their way at a time.
    pub fn new(window: usize) -> Self {
        Self {
            items: BTreeMap::new(),
            waiting: <_>::default(),
            active: HashMap::new(),
            flying: [0; 3],
            shares: Shares::default(),
            window,
        }
    }

    /// Lets so many versions of each priority be on their way from now on; those that are go on.
    pub fn set_window(&mut self, window: usize) {
        self.window = window;
    }

    /// Versions of this priority that it knows.
    pub fn len_of(&self, priority: Priority) -> usize {
        self.waiting[class(priority)].len() + self.flying[class(priority)]
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
    pub fn offer(&mut self, version: Version, name: Name, priority: Priority) {
        if self.items.contains_key(&version) {
            return;
        }
        self.waiting[class(priority)].insert(version);
        let item = Item {
            name,
            priority,
            stage: Stage::Waiting { from_ms: 0 },
            backoff: Backoff::new(FIRST_PAUSE_MS, LONGEST_PAUSE_MS),
        };
        self.items.insert(version, item);
    }

    /// Other buckets are urgent from now on.
    pub fn prioritize(&mut self, priority: impl Fn(&str) -> Priority) {
        self.waiting = <_>::default();
        self.flying = [0; 3];
        for (version, item) in &mut self.items {
            item.priority = priority(&item.name.bucket);
            match item.stage {
                Stage::Waiting { .. } => {
                    self.waiting[class(item.priority)].insert(*version);
                }
                Stage::Active => self.flying[class(item.priority)] += 1,
            }
        }
    }

    /// Versions that may go now, at most `limit` and never more than the window; they are on their
    /// way from here on. The oldest of a priority go first, and the priorities share the turns.
    pub fn take(&mut self, now_ms: u64, limit: usize) -> Vec<Version> {
        let mut ready = Priority::ALL.map(|priority| self.ready(priority, now_ms, limit));
        for queue in &mut ready {
            queue.reverse();
        }
        let mut taken = Vec::new();
        while taken.len() < limit {
            let waits = [0, 1, 2].map(|class: usize| !ready[class].is_empty());
            let Some(priority) = self.shares.next(waits) else {
                break;
            };
            let class = class(priority);
            let Some(version) = ready[class].pop() else {
                break;
            };
            if let Some(item) = self.items.get_mut(&version) {
                item.stage = Stage::Active;
                self.active.insert(item.name.clone(), version);
                self.waiting[class].remove(&version);
                self.flying[class] += 1;
                taken.push(version);
            }
        }
        taken
    }

    /// The oldest of a priority that may go now, as many as there is room for.
    fn ready(&self, priority: Priority, now_ms: u64, limit: usize) -> Vec<Version> {
        let class = class(priority);
        let room = self.window.saturating_sub(self.flying[class]).min(limit);
        let mut names = HashSet::new();
        let due = self.waiting[class].iter().filter(|version| {
            let Some(item) = self.items.get(version) else {
                return false;
            };
            matches!(item.stage, Stage::Waiting { from_ms } if from_ms <= now_ms)
                && !self.active.contains_key(&item.name)
                && names.insert(&item.name)
        });
        due.take(room).copied().collect()
    }

    /// A version failed for now: it goes again after a pause that grows with every failure.
    pub fn failed(&mut self, version: Version, now_ms: u64, entropy: u64) {
        if let Some(item) = self.items.get_mut(&version) {
            let pause = item.backoff.next(entropy);
            item.stage = Stage::Waiting {
                from_ms: now_ms.saturating_add(pause),
            };
            if self.active.remove(&item.name).is_some() {
                self.flying[class(item.priority)] -= 1;
                self.waiting[class(item.priority)].insert(version);
            }
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
        let Some(item) = self.items.remove(&version) else {
            return;
        };
        self.waiting[class(item.priority)].remove(&version);
        if self.active.get(&item.name) == Some(&version) {
            self.active.remove(&item.name);
            self.flying[class(item.priority)] -= 1;
        }
    }

    /// When the next version that waits may go; `None` where none waits for time to pass.
    pub fn next_due_ms(&self) -> Option<u64> {
        let waiting = self.items.values().filter_map(|item| match item.stage {
            Stage::Waiting { from_ms }
                if !self.active.contains_key(&item.name)
                    && self.flying[class(item.priority)] < self.window =>
            {
                Some(from_ms)
            }
            _ => None,
        });
        waiting.min()
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
        planner.offer(Version(1), name("a"), Priority::Normal);
        planner.offer(Version(2), name("a"), Priority::Normal);
        planner.offer(Version(3), name("b"), Priority::Normal);

        assert_eq!(planner.take(0, 8), [Version(1), Version(3)]);
        assert_eq!(planner.take(0, 8), []);
        planner.done(Version(1));
        assert_eq!(planner.take(0, 8), [Version(2)]);
    }

    #[test]
    fn a_failure_pauses_only_its_own_version() {
        let mut planner = Planner::new(1);
        planner.offer(Version(1), name("a"), Priority::Normal);
        planner.offer(Version(2), name("b"), Priority::Normal);
        assert_eq!(planner.take(0, 8), [Version(1)]);

        planner.failed(Version(1), 0, 999);

        assert_eq!(planner.take(0, 8), [Version(2)]);
        planner.done(Version(2));
        let due = planner.next_due_ms().expect("one waits");
        assert!(due > 0);
        assert_eq!(planner.take(due - 1, 8), []);
        assert_eq!(planner.take(due, 8), [Version(1)]);
    }

    #[test]
    fn an_urgent_bucket_overtakes_and_the_others_go_on() {
        let mut planner = Planner::new(20);
        for version in 1..=100 {
            planner.offer(
                Version(version),
                name(&version.to_string()),
                Priority::Normal,
            );
        }
        assert_eq!(planner.take(0, 100).len(), 20, "the window is full");
        for version in 101..=200 {
            let name = Name {
                bucket: "urgent".to_owned(),
                key: version.to_string(),
            };
            planner.offer(Version(version), name, Priority::Urgent);
        }

        let next = planner.take(0, 100);
        assert_eq!(next.len(), 20, "it has a window of its own");
        assert!(next.iter().all(|version| version.0 > 100));
        for version in next {
            planner.done(version);
        }
        for version in 1..=20 {
            planner.done(Version(version));
        }
        let next = planner.take(0, 20);
        let urgent = next.iter().filter(|version| version.0 > 100).count();
        assert!((17..20).contains(&urgent), "{next:?}");

        planner.prioritize(|bucket| match bucket {
            "urgent" => Priority::Low,
            _ => Priority::Normal,
        });
        for version in next {
            planner.done(version);
        }
        let next = planner.take(0, 18);
        let late = next.iter().filter(|version| version.0 > 100).count();
        assert!((1..4).contains(&late), "{next:?}");
    }

    proptest! {
        #[test]
        fn whatever_happens_the_window_holds_and_everything_arrives(
            keys in proptest::collection::vec(0..4_u8, 1..20),
            steps in proptest::collection::vec((any::<bool>(), any::<u64>()), 0..200),
            window in 1..5_usize,
            changes in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut changes = changes.into_iter();
            let mut planner = Planner::new(window);
            for (version, key) in (1..).zip(&keys) {
                let priority = Priority::ALL[usize::from(*key) % 3];
                planner.offer(Version(version), name(&key.to_string()), priority);
            }
            let mut now = 0;
            let mut flying: Vec<Version> = Vec::new();
            let mut arrived = 0;
            let mut steps = steps.into_iter();
            while !planner.is_empty() {
                flying.extend(planner.take(now, 3));
                prop_assert!(flying.len() <= 3 * window);
                let Some(version) = flying.pop() else {
                    now = planner.next_due_ms().expect("something waits");
                    continue;
                };
                // When the faults run out, everything succeeds.
                if let Some((false, entropy)) = steps.next() {
                    planner.failed(version, now, entropy);
                    if let Some(change) = changes.next() {
                        planner.prioritize(|_| Priority::ALL[usize::from(change) % 3]);
                    }
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
