//! The ladder from a cable to the broker: what is known of each rung, and what changed.

use longhaul_protocol::diag::{Code, Rung, RungReport, RungStatus};
use longhaul_protocol::journal::Fact;
use longhaul_protocol::value::UnixMillis;

use crate::clock::Now;

/// Evidence longer than this is cut, in characters.
const MAX_EVIDENCE: usize = 400;

/// What a probe saw of one rung.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Observation {
    pub rung: Rung,
    /// Why it does not hold; `None` where it holds.
    pub code: Option<Code>,
    /// What was seen.
    pub evidence: String,
}

impl Observation {
    /// The rung holds.
    pub fn ok(rung: Rung, evidence: impl Into<String>) -> Self {
        Self {
            rung,
            code: None,
            evidence: evidence.into(),
        }
    }

    /// The code's rung does not hold.
    pub fn failed(code: Code, evidence: impl Into<String>) -> Self {
        Self {
            rung: code.entry().rung,
            code: Some(code),
            evidence: evidence.into(),
        }
    }
}

/// What the journal says of a rung.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Journalled {
    Nothing,
    Holds,
    Fails(Code),
}

/// What is known of one rung by itself, whatever the rungs below it do.
#[derive(Clone, Debug)]
struct Step {
    report: RungReport,
    since_mono_ms: u64,
    journalled: Journalled,
}

/// Every rung as last observed.
#[derive(Clone, Debug)]
pub struct Ladder([Step; Rung::ALL.len()]);

impl Ladder {
    /// Nothing is known yet.
    pub fn new(now: Now) -> Self {
        Self(Rung::ALL.map(|rung| Step {
            report: RungReport {
                rung,
                status: RungStatus::Trying,
                code: None,
                evidence: String::new(),
                since: now.wall,
            },
            since_mono_ms: now.mono_ms,
            journalled: Journalled::Nothing,
        }))
    }

    /// Takes over what was seen and returns the changes worth journalling. A rung above one that
    /// fails is not reached, whatever was known of it.
    pub fn observe(&mut self, seen: &[Observation], now: Now) -> Vec<Fact> {
        for observation in seen {
            let status = match observation.code {
                None => RungStatus::Ok,
                Some(_) => RungStatus::Failed,
            };
            self.step(observation.rung).set(
                status,
                observation.code,
                &observation.evidence,
                now.wall,
            );
        }
        let failed = self
            .0
            .iter()
            .position(|s| s.report.status == RungStatus::Failed);
        let mut facts = Vec::new();
        for (index, step) in self.0.iter_mut().enumerate() {
            match failed {
                Some(failed) if index > failed => {
                    step.set(RungStatus::NotReached, None, "", now.wall);
                }
                _ => facts.extend(step.journal(now)),
            }
        }
        facts
    }

    /// The lowest rung that does not hold, with its code.
    pub fn failing(&self) -> Option<Code> {
        self.0.iter().find_map(|s| s.report.code)
    }

    /// Whether every rung below `rung` holds.
    pub fn holds_below(&self, rung: Rung) -> bool {
        self.0
            .iter()
            .take_while(|s| s.report.rung < rung)
            .all(|s| s.report.status == RungStatus::Ok)
    }

    /// Every rung, from the cable up.
    pub fn report(&self) -> Vec<RungReport> {
        self.0.iter().map(|s| s.report.clone()).collect()
    }

    fn step(&mut self, rung: Rung) -> &mut Step {
        &mut self.0[rung as usize]
    }
}

impl Step {
    fn set(&mut self, status: RungStatus, code: Option<Code>, evidence: &str, now: UnixMillis) {
        let report = &mut self.report;
        if report.status != status || report.code != code {
            report.status = status;
            report.code = code;
            report.since = now;
        }
        report.evidence = evidence.chars().take(MAX_EVIDENCE).collect();
    }

    /// The change, where the rung is known and the journal says something else of it.
    fn journal(&mut self, now: Now) -> Option<Fact> {
        let known = matches!(self.report.status, RungStatus::Ok | RungStatus::Failed);
        let state = self
            .report
            .code
            .map_or(Journalled::Holds, Journalled::Fails);
        if !known || self.journalled == state {
            return None;
        }
        self.journalled = state;
        let lasted_ms = now.mono_ms.saturating_sub(self.since_mono_ms);
        self.since_mono_ms = now.mono_ms;
        Some(Fact::Rung {
            rung: self.report.rung,
            code: self.report.code,
            evidence: self.report.evidence.clone(),
            lasted_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(mono_ms: u64) -> Now {
        Now {
            mono_ms,
            wall: UnixMillis(1_000_000),
        }
    }

    fn all_ok() -> Vec<Observation> {
        Rung::ALL.map(|r| Observation::ok(r, "fine")).to_vec()
    }

    #[test]
    fn rungs_above_a_failing_one_are_not_reached() {
        let mut ladder = Ladder::new(at(0));
        ladder.observe(&all_ok(), at(1));

        let facts = ladder.observe(
            &[Observation::failed(Code::DNS_SILENT, "no answer")],
            at(501),
        );

        assert_eq!(
            facts,
            [Fact::Rung {
                rung: Rung::Dns,
                code: Some(Code::DNS_SILENT),
                evidence: "no answer".to_owned(),
                lasted_ms: 500,
            }]
        );
        let statuses: Vec<_> = ladder.report().iter().map(|r| r.status).collect();
        assert_eq!(statuses[..3], [RungStatus::Ok; 3]);
        assert_eq!(statuses[3], RungStatus::Failed);
        assert_eq!(statuses[4..], [RungStatus::NotReached; 6]);
        assert_eq!(ladder.failing(), Some(Code::DNS_SILENT));
    }

    #[test]
    fn the_same_observation_is_journalled_once() {
        let mut ladder = Ladder::new(at(0));

        assert_eq!(ladder.observe(&all_ok(), at(1)).len(), 10);
        assert_eq!(ladder.observe(&all_ok(), at(2)).len(), 0);
    }

    proptest! {
        #[test]
        fn there_is_one_failing_rung_at_the_most_and_nothing_holds_above_it(
            codes in proptest::collection::vec(0..longhaul_protocol::diag::CODES.len(), 0..20),
        ) {
            let mut ladder = Ladder::new(at(0));
            ladder.observe(&all_ok(), at(1));
            for index in codes {
                let number = longhaul_protocol::diag::CODES[index].number;
                let code: Code = format!("LH-{number}").parse().unwrap();
                ladder.observe(&[Observation::failed(code, "")], at(2));
                let report = ladder.report();
                let failed: Vec<_> = report.iter().filter(|r| r.status == RungStatus::Failed).collect();
                prop_assert_eq!(failed.len(), 1);
                for rung in &report {
                    prop_assert_eq!(rung.status == RungStatus::NotReached, rung.rung > failed[0].rung);
                    prop_assert_eq!(rung.code.is_some(), rung.status == RungStatus::Failed);
                }
            }
        }
    }
}
