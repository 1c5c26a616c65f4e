//! Scenarios: what a fleet goes through, step by step, read from a file.
//!
//! A step does something to the boxes or to the cloud and says how soon everybody must be back; the
//! run fails where they are not. Boxes speak the real protocol throughout, to a real cloud.

mod run;

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use run::{Stage, carry_out};

/// The most boxes that a scenario may have.
const MAX_BOXES: u32 = 100_000;
/// The longest that a step may take, in seconds: a day.
const MAX_SECS: u32 = 86_400;

/// What a fleet goes through.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows, in a sentence.
    pub title: String,
    /// How many boxes.
    pub boxes: NonZeroU32,
    /// How often each sends telemetry, in seconds.
    pub telemetry_secs: NonZeroU32,
    /// What certificates boxes begin with; without, ones that last for the whole scenario.
    pub certificates: Option<Certificates>,
    /// What happens, one after the other.
    #[serde(rename = "step")]
    pub steps: Vec<Step>,
}

/// What certificates boxes begin with; those that they enrol for are as long as the cloud makes them.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Certificates {
    /// The first of them ends after so long, in seconds.
    pub first_ends_secs: NonZeroU32,
    /// The last of them so much later, in seconds; the rest evenly between.
    pub wave_secs: u32,
    /// When boxes get the next.
    pub renewed: Renewed,
}

/// When boxes get the next certificate.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Renewed {
    /// At half life, give or take a tenth, while they are connected.
    AtHalfLife,
    /// When it has ended and the edge has thrown them out: by their initial identity, as after months
    /// on a shelf.
    AfterTheEnd,
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// All boxes come for the first time.
    Connect {
        /// All are online after so long at the most, in seconds.
        within_secs: NonZeroU32,
    },
    /// Nothing happens for a while, and no session may end.
    Steady {
        /// How long, in seconds.
        secs: NonZeroU32,
    },
    /// Boxes lose their power at the same moment and have it again at the same moment; their old connections
    /// stand, silent, until they come back.
    PowerCut {
        /// How many of a hundred.
        percent: u8,
        /// How long they are dark, in seconds.
        dark_secs: NonZeroU32,
        /// All are online so long after the power is back, in seconds.
        within_secs: NonZeroU32,
    },
    /// The cloud is killed (`SIGKILL`) and started again after a while.
    CloudDown {
        /// How long it is away, in seconds.
        secs: NonZeroU32,
        /// All are online so long after it is back, in seconds.
        within_secs: NonZeroU32,
    },
    /// Boxes start again in good order, one group after the other: the next when the one before is back.
    RestartBoxes {
        /// How many groups.
        groups: NonZeroU32,
        /// All of a group are online after so long, in seconds.
        within_secs: NonZeroU32,
    },
    /// The cloud is started again in good order (`SIGTERM`), several times, each time when everybody is back.
    RestartCloud {
        /// How often.
        times: NonZeroU32,
        /// All are online so long after each, in seconds.
        within_secs: NonZeroU32,
    },
    /// Until every box has another certificate than it began with.
    Renewals {
        /// After so long at the most, in seconds.
        within_secs: NonZeroU32,
    },
}

/// Why there is no scenario.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// The file could not be read.
    #[error("failed to read scenario {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no scenario.
    #[error("scenario is wrong: {0}")]
    Wrong(String),
}

impl Scenario {
    /// Reads a TOML file.
    ///
    /// # Errors
    ///
    /// [`ScenarioError`].
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let text = std::fs::read_to_string(path).map_err(|source| ScenarioError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text)
    }

    /// Reads TOML.
    ///
    /// # Errors
    ///
    /// [`ScenarioError::Wrong`].
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let wrong = |text: &str| ScenarioError::Wrong(text.to_owned());
        let scenario: Self = toml::from_str(text).map_err(|e| wrong(&e.to_string()))?;
        if scenario.boxes.get() > MAX_BOXES {
            return Err(wrong("more than 100,000 boxes"));
        }
        if !matches!(scenario.steps.first(), Some(Step::Connect { .. })) {
            return Err(wrong("the first step must be `connect`"));
        }
        for step in &scenario.steps {
            let longest = match *step {
                Step::Steady { secs } => secs,
                Step::PowerCut {
                    percent,
                    dark_secs,
                    within_secs,
                } => {
                    if !(1..=100).contains(&percent) {
                        return Err(wrong("percent is 1 to 100"));
                    }
                    dark_secs.max(within_secs)
                }
                Step::CloudDown { secs, within_secs } => secs.max(within_secs),
                Step::RestartBoxes {
                    groups,
                    within_secs,
                } => {
                    if groups > scenario.boxes {
                        return Err(wrong("more groups than boxes"));
                    }
                    within_secs
                }
                Step::Connect { within_secs }
                | Step::Renewals { within_secs }
                | Step::RestartCloud { within_secs, .. } => within_secs,
            };
            if longest.get() > MAX_SECS {
                return Err(wrong("a step of more than a day"));
            }
            if matches!(step, Step::Renewals { .. }) && scenario.certificates.is_none() {
                return Err(wrong("`renewals` needs [certificates]"));
            }
        }
        Ok(scenario)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEADY: &str = "title = \"t\"\nboxes = 10\ntelemetry_secs = 60\n\
        [[step]]\ndo = \"connect\"\nwithin_secs = 60\n";

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert!(Scenario::parse(STEADY).is_ok());
        for more in [
            "[[step]]\ndo = \"dance\"\n",
            "[[step]]\ndo = \"steady\"\nsecs = 0\n",
            "[[step]]\ndo = \"steady\"\nsecs = 86401\n",
            "[[step]]\ndo = \"steady\"\nsecs = 1\nmore = 2\n",
            "[[step]]\ndo = \"renewals\"\nwithin_secs = 1\n",
            "[[step]]\ndo = \"restart_boxes\"\ngroups = 11\nwithin_secs = 1\n",
            "[[step]]\ndo = \"power_cut\"\npercent = 101\ndark_secs = 1\nwithin_secs = 1\n",
        ] {
            assert!(
                Scenario::parse(&format!("{STEADY}{more}")).is_err(),
                "{more}"
            );
        }
        assert!(Scenario::parse(&STEADY.replace("10", "100001")).is_err());
        assert!(Scenario::parse(&STEADY.replace("connect", "steady")).is_err());
    }
}
