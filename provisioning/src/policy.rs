//! Which states of a machine are accepted: what the factory saw, and what releases bring. Pure.

use std::collections::BTreeMap;

use longhaul_protocol::inventory::InventoryRecord;
use longhaul_protocol::value::Digest32;
use serde::{Deserialize, Serialize};

/// Values of PCRs of the SHA-256 bank, by number.
pub type Pcrs = BTreeMap<u8, Digest32>;

/// Which states of a box are accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// What the factory saw; it says which PCRs count, also where it is accepted no more.
    factory: Pcrs,
    factory_holds: bool,
    /// What releases bring; the same PCRs each.
    releases: Vec<Pcrs>,
}

/// A PCR that is not what was expected.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Difference {
    /// Which one.
    pub pcr: u8,
    /// What the TPM quoted.
    pub found: Digest32,
    /// What the accepted state has that is nearest.
    pub expected: Digest32,
}

impl Difference {
    /// What is measured into the PCR, in a few words.
    pub fn measures(&self) -> &'static str {
        measures(self.pcr)
    }
}

impl Policy {
    /// Accepts what the factory saw and nothing else.
    pub fn of(record: &InventoryRecord) -> Self {
        Self {
            factory: record.expected_pcrs.clone(),
            factory_holds: true,
            releases: Vec::new(),
        }
    }

    /// Accepts as well what the factory saw, changed by these values: those of a release. PCRs that
    /// the factory did not record do not count.
    #[must_use]
    pub fn or_pcrs(mut self, changed: &Pcrs) -> Self {
        let mut state = self.factory.clone();
        for (pcr, value) in &mut state {
            if let Some(new) = changed.get(pcr) {
                *value = *new;
            }
        }
        self.releases.push(state);
        self
    }

    /// Accepts what the factory saw no more: a release has taken its place. Without a release that
    /// brings a state it stays.
    #[must_use]
    pub fn without_factory(mut self) -> Self {
        self.factory_holds = self.releases.is_empty();
        self
    }

    /// The PCRs that a quote must cover.
    pub fn pcrs(&self) -> Vec<u8> {
        self.factory.keys().copied().collect()
    }

    fn accepted(&self) -> impl Iterator<Item = &Pcrs> {
        let factory = self.factory_holds.then_some(&self.factory);
        self.releases.iter().chain(factory)
    }

    /// How a state differs from the nearest that is accepted: empty if it is one of them, `None` if it
    /// is of other PCRs.
    pub fn differences(&self, found: &Pcrs) -> Option<Vec<Difference>> {
        if !found.keys().eq(self.factory.keys()) {
            return None;
        }
        let differs = |expected: &Pcrs| -> Vec<Difference> {
            let both = found.iter().zip(expected);
            both.filter(|((_, found), (_, expected))| found != expected)
                .map(|((pcr, found), (_, expected))| Difference {
                    pcr: *pcr,
                    found: *found,
                    expected: *expected,
                })
                .collect()
        };
        self.accepted().map(differs).min_by_key(Vec::len)
    }
}

/// What is measured into a PCR (TCG PC Client Platform Firmware Profile, section 3.3.4; from 8 on the
/// UAPI Group's Linux TPM PCR Registry).
pub fn measures(pcr: u8) -> &'static str {
    match pcr {
        0 => "the firmware",
        1 => "the firmware's settings",
        2 => "firmware of cards",
        3 => "settings of cards' firmware",
        4 => "the boot loader",
        5 => "the boot loader's settings and the disk's partitions",
        6 => "the machine's maker",
        7 => "Secure Boot: whether it is on, and whose keys it trusts",
        8 => "the boot loader's commands, the kernel's command line",
        9 => "files that the boot loader read, the kernel",
        10 => "files that ran (IMA)",
        11 => "the system's image",
        12 => "additions to the kernel's command line",
        13 => "extensions of the system",
        14 => "keys of the boot loader's shim",
        15 => "the system's identity and its disks",
        16 | 23 => "programs' own measurements",
        _ => "nothing that is fixed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pcrs(values: &[(u8, u8)]) -> Pcrs {
        let digest = |(pcr, byte): &(u8, u8)| (*pcr, Digest32([*byte; 32]));
        values.iter().map(digest).collect()
    }

    fn policy() -> Policy {
        Policy {
            factory: pcrs(&[(0, 1), (4, 1), (7, 1)]),
            factory_holds: true,
            releases: Vec::new(),
        }
    }

    fn differing(policy: &Policy, found: &[(u8, u8)]) -> Option<Vec<u8>> {
        let differences = policy.differences(&pcrs(found))?;
        Some(differences.into_iter().map(|d| d.pcr).collect())
    }

    #[test]
    fn a_state_is_compared_with_the_nearest_that_is_accepted() {
        let policy = policy().or_pcrs(&pcrs(&[(4, 2), (7, 2)]));

        assert_eq!(differing(&policy, &[(0, 1), (4, 1), (7, 1)]), Some(vec![]));
        assert_eq!(differing(&policy, &[(0, 1), (4, 2), (7, 2)]), Some(vec![]));
        assert_eq!(differing(&policy, &[(0, 9), (4, 2), (7, 2)]), Some(vec![0]));
        assert_eq!(
            differing(&policy, &[(0, 1), (4, 2), (7, 1)]).map(|d| d.len()),
            Some(1),
            "half of a release is no state"
        );
        assert_eq!(differing(&policy, &[(0, 1), (4, 1)]), None);
        assert_eq!(differing(&policy, &[(0, 1), (4, 1), (8, 1)]), None);
    }

    #[test]
    fn a_release_that_brings_a_state_takes_the_factorys_place_and_no_other_does() {
        let old = [(0, 1), (4, 1), (7, 1)];

        let moved = policy().or_pcrs(&pcrs(&[(4, 2)])).without_factory();
        let stayed = policy().without_factory();
        let elsewhere = policy().or_pcrs(&pcrs(&[(11, 2)])).without_factory();

        assert_eq!(differing(&moved, &old), Some(vec![4]));
        assert_eq!(differing(&stayed, &old), Some(vec![]));
        assert_eq!(differing(&elsewhere, &old), Some(vec![]));
        assert_eq!(elsewhere.pcrs(), [0, 4, 7]);
    }
}
