//! How an update goes from step to step. Pure: what comes out is written down, then acted on.

use longhaul_protocol::ids::CommandId;
use longhaul_protocol::release::{Assignment, UpdateStatus, UpdateStep};
use longhaul_protocol::value::Digest32;
use serde::{Deserialize, Serialize};

/// Characters of a reason at the most.
const MAX_REASON: usize = 2048;

/// An update under way, as it lies on the disk.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Update {
    /// What was assigned.
    pub assignment: Assignment,
    /// How far it has come.
    pub status: UpdateStatus,
    /// Whether that is in the journal.
    #[serde(default)]
    pub told: bool,
}

/// What can happen to an update.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// The step was begun that follows without a condition.
    Begin,
    /// The agent that runs is the release.
    AlreadyRuns,
    /// The signed metadata name this target.
    Listed {
        /// The version in the metadata.
        version: String,
        /// SHA-256 in the metadata.
        sha256: Digest32,
        /// Length in the metadata.
        length: u64,
    },
    /// There is room, and nothing is in the way.
    Clear,
    /// Every byte is on the disk.
    Fetched,
    /// What is on the disk was read and hashed.
    Hashed {
        /// What was computed.
        sha256: Digest32,
        /// How long it is.
        length: u64,
    },
    /// An update is allowed now.
    WindowOpen,
    /// The other slot is the one to try next.
    Armed,
    /// The new release runs.
    OnTrial,
    /// The supervisor believes the new release.
    Proved,
    /// The supervisor went back to the old release.
    FellBack(String),
    /// It cannot be done.
    Impossible(String),
}

impl Update {
    /// An update that was accepted.
    pub fn new(command: CommandId, assignment: Assignment) -> Self {
        let status = UpdateStatus {
            command,
            rollout: assignment.rollout.clone(),
            version: assignment.version.clone(),
            step: UpdateStep::Assigned,
            reason: None,
            fetched_bytes: None,
        };
        Self {
            assignment,
            status,
            told: false,
        }
    }

    /// Bytes of the image that are known to be on the disk.
    pub fn fetched(&self) -> u64 {
        self.status.fetched_bytes.unwrap_or(0)
    }

    /// The same, with more of the image on the disk.
    #[must_use]
    pub fn with_fetched(&self, bytes: u64) -> Self {
        let mut update = self.clone();
        update.status.fetched_bytes = Some(bytes);
        update.told = false;
        update
    }

    /// What `event` makes of it; `None` where it has no place in this step.
    #[must_use]
    pub fn after(&self, event: Event) -> Option<Self> {
        use UpdateStep as Step;
        let wanted = &self.assignment;
        let (step, reason) = match (self.status.step, event) {
            (Step::Assigned, Event::Begin) => (Step::Metadata, None),
            (Step::Assigned, Event::AlreadyRuns) => (
                Step::Committed,
                Some(format!("{} already runs", wanted.version)),
            ),
            (
                Step::Metadata,
                Event::Listed {
                    version,
                    sha256,
                    length,
                },
            ) => {
                if (&version, sha256, length) == (&wanted.version, wanted.sha256, wanted.length) {
                    (Step::Preflight, None)
                } else {
                    let text = format!(
                        "target {} is version {version:?}, {length} bytes, SHA-256 {sha256} in the \
                         signed metadata; assigned were version {:?}, {} bytes, {}",
                        wanted.target, wanted.version, wanted.length, wanted.sha256
                    );
                    (Step::Failed, Some(text))
                }
            }
            (Step::Preflight, Event::Clear) => (Step::Download, None),
            (Step::Download, Event::Fetched) => (Step::Verify, None),
            (Step::Verify, Event::Hashed { sha256, length }) => {
                if (sha256, length) == (wanted.sha256, wanted.length) {
                    (Step::WaitWindow, None)
                } else {
                    let text = format!(
                        "image has {length} bytes and SHA-256 {sha256}; signed were {} and {}",
                        wanted.length, wanted.sha256
                    );
                    (Step::Failed, Some(text))
                }
            }
            (Step::WaitWindow, Event::WindowOpen) => (Step::Arm, None),
            (Step::Arm, Event::Armed) => (Step::Reboot, None),
            (Step::Reboot, Event::OnTrial) => (Step::Trial, None),
            // The agent may be told the end before it noted that the trial began.
            (Step::Reboot | Step::Trial, Event::Proved) => (Step::Committed, None),
            (Step::Reboot | Step::Trial, Event::FellBack(why)) => (Step::RolledBack, Some(why)),
            (
                Step::Assigned
                | Step::Metadata
                | Step::Preflight
                | Step::Download
                | Step::Verify
                | Step::WaitWindow
                | Step::Arm,
                Event::Impossible(why),
            ) => (Step::Failed, Some(why)),
            _ => return None,
        };
        let mut after = self.clone();
        after.status.step = step;
        after.status.reason = reason.map(|text| text.chars().take(MAX_REASON).collect());
        after.status.fetched_bytes = None;
        after.told = false;
        Some(after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: Digest32 = Digest32([1; 32]);

    fn update() -> Update {
        let assignment = serde_json::json!({
            "rollout": "r-1", "version": "2.0.0", "target": "box-2",
            "sha256": GOOD.to_string(), "length": 9,
        });
        let assignment = serde_json::from_value(assignment).unwrap();
        let command = serde_json::from_value(serde_json::json!("c-1")).unwrap();
        Update::new(command, assignment)
    }

    fn listed(sha256: Digest32) -> Event {
        Event::Listed {
            version: "2.0.0".to_owned(),
            sha256,
            length: 9,
        }
    }

    fn hashed(sha256: Digest32) -> Event {
        Event::Hashed { sha256, length: 9 }
    }

    fn good_path() -> Vec<Event> {
        vec![
            Event::Begin,
            listed(GOOD),
            Event::Clear,
            Event::Fetched,
            hashed(GOOD),
            Event::WindowOpen,
            Event::Armed,
            Event::OnTrial,
            Event::Proved,
        ]
    }

    #[test]
    fn an_update_that_goes_well_is_committed() {
        let end = good_path()
            .into_iter()
            .fold(update(), |u, event| u.after(event).unwrap());

        assert_eq!(end.status.step, UpdateStep::Committed);
        assert_eq!(end.after(Event::FellBack(String::new())), None);
    }

    #[test]
    fn a_release_that_runs_is_committed_at_once() {
        let end = update().after(Event::AlreadyRuns).unwrap();

        assert_eq!(end.status.step, UpdateStep::Committed);
        assert!(end.status.reason.unwrap().contains("already runs"));
    }

    #[test]
    fn an_assignment_that_the_signed_metadata_do_not_bear_out_fails() {
        let before = update().after(Event::Begin).unwrap();
        let other_version = Event::Listed {
            version: "2.0.1".to_owned(),
            sha256: GOOD,
            length: 9,
        };
        let other_length = Event::Listed {
            version: "2.0.0".to_owned(),
            sha256: GOOD,
            length: 10,
        };

        for event in [listed(Digest32([2; 32])), other_version, other_length] {
            let failed = before.after(event).unwrap();
            assert_eq!(failed.status.step, UpdateStep::Failed);
            assert!(failed.status.reason.unwrap().contains("assigned"));
        }
    }

    #[test]
    fn an_image_that_is_not_the_signed_one_fails_with_both_digests() {
        let before = good_path()
            .into_iter()
            .take(4)
            .fold(update(), |u, event| u.after(event).unwrap());
        let failed = before.after(hashed(Digest32([2; 32]))).unwrap();

        assert_eq!(failed.status.step, UpdateStep::Failed);
        let reason = failed.status.reason.unwrap();
        assert!(
            reason.contains("0202") && reason.contains("0101"),
            "{reason}"
        );
    }

    fn event() -> impl Strategy<Value = Event> {
        let digest = || prop_oneof![Just(GOOD), Just(Digest32([2; 32]))];
        prop_oneof![
            Just(Event::Begin),
            Just(Event::Impossible("y".to_owned())),
            digest().prop_map(listed),
            Just(Event::Clear),
            Just(Event::Fetched),
            digest().prop_map(hashed),
            Just(Event::WindowOpen),
            Just(Event::Armed),
            Just(Event::OnTrial),
            Just(Event::Proved),
            Just(Event::FellBack("x".to_owned())),
        ]
    }

    proptest! {
        #[test]
        fn no_event_order_commits_an_unverified_image(
            noise in prop::collection::vec(event(), 0..40),
            mixed in prop::collection::vec((event(), any::<bool>()), 9),
        ) {
            // Half of the events go the right way, so that the end is reached, too.
            let steered = mixed.into_iter().zip(good_path());
            let steered = steered.flat_map(|((other, twice), good)| {
                if twice { vec![other, good] } else { vec![good] }
            });
            let mut now = update();
            let mut verified = false;
            for event in steered.chain(noise) {
                let right = now.status.step == UpdateStep::Verify && event == hashed(GOOD);
                if let Some(after) = now.after(event) {
                    verified |= right;
                    now = after;
                }
                if matches!(
                    now.status.step,
                    UpdateStep::Arm | UpdateStep::Reboot | UpdateStep::Trial | UpdateStep::Committed
                ) {
                    prop_assert!(verified);
                }
            }
        }
    }
}
