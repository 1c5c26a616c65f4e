//! The ladder from a cable to the broker: what is known of each rung, and what changed.

use longhaul_protocol::diag::{Code, Fix, Rung, RungReport, RungStatus};
use longhaul_protocol::ids::BootId;
use longhaul_protocol::journal::Fact;
use longhaul_protocol::value::UnixMillis;

pub use longhaul_bringup::observation::Observation;

use crate::clock::Now;

/// Evidence longer than this is cut, in characters.
const MAX_EVIDENCE: usize = 400;

/// Failures that end like this without anybody's doing.
const COME_AND_GO: [Code; 5] = [
    Code::NO_CABLE,
    Code::NO_INTERFACE,
    Code::DNS_SLOW,
    Code::LINE_POOR,
    Code::BROKER_LOST,
];

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
    /// What has changed around the box since the rung fails.
    changed: Option<Fix>,
}

/// The boot in which the ladder is climbed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Boot {
    /// The kernel's name of it.
    pub id: BootId,
    /// How long it had lasted where the steady clock of [`Now`] began, in milliseconds.
    pub before_ms: u64,
}

impl Boot {
    /// How long it has lasted.
    pub fn lasted_ms(&self, now: Now) -> u64 {
        self.before_ms.saturating_add(now.mono_ms)
    }
}

/// Every rung as last observed.
#[derive(Clone, Debug)]
pub struct Ladder {
    steps: [Step; Rung::ALL.len()],
    boot: Option<Boot>,
}

impl Ladder {
    /// Nothing is known yet.
    pub fn new(boot: Option<Boot>, now: Now) -> Self {
        let steps = Rung::ALL.map(|rung| Step {
            report: RungReport {
                rung,
                status: RungStatus::Trying,
                code: None,
                evidence: String::new(),
                since: now.wall,
            },
            since_mono_ms: now.mono_ms,
            journalled: Journalled::Nothing,
            changed: None,
        });
        Self { steps, boot }
    }

    /// Something changed around the box: it may be what ends the failures that there are.
    pub fn changed(&mut self, change: Fix) {
        for step in &mut self.steps {
            if matches!(step.journalled, Journalled::Fails(_)) {
                step.changed = Some(step.changed.map_or(change, |known| known.min(change)));
            }
        }
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
            .steps
            .iter()
            .position(|s| s.report.status == RungStatus::Failed);
        let mut facts = Vec::new();
        let boot = self.boot.as_ref();
        for (index, step) in self.steps.iter_mut().enumerate() {
            match failed {
                Some(failed) if index > failed => {
                    step.set(RungStatus::NotReached, None, "", now.wall);
                }
                _ => facts.extend(step.journal(boot, now)),
            }
        }
        facts
    }

    /// The lowest rung that does not hold, with its code.
    pub fn failing(&self) -> Option<Code> {
        self.steps.iter().find_map(|s| s.report.code)
    }

    /// Whether every rung below `rung` holds.
    pub fn holds_below(&self, rung: Rung) -> bool {
        self.steps
            .iter()
            .take_while(|s| s.report.rung < rung)
            .all(|s| s.report.status == RungStatus::Ok)
    }

    /// Every rung, from the cable up.
    pub fn report(&self) -> Vec<RungReport> {
        self.steps.iter().map(|s| s.report.clone()).collect()
    }

    fn step(&mut self, rung: Rung) -> &mut Step {
        &mut self.steps[rung as usize]
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
    fn journal(&mut self, boot: Option<&Boot>, now: Now) -> Option<Fact> {
        let known = matches!(self.report.status, RungStatus::Ok | RungStatus::Failed);
        let state = self
            .report
            .code
            .map_or(Journalled::Holds, Journalled::Fails);
        if !known || self.journalled == state {
            return None;
        }
        let fix = match (self.journalled, state) {
            (Journalled::Fails(code), Journalled::Holds) => {
                Some(self.changed.unwrap_or_else(|| unseen(code)))
            }
            _ => None,
        };
        self.changed = None;
        self.journalled = state;
        let lasted_ms = now.mono_ms.saturating_sub(self.since_mono_ms);
        self.since_mono_ms = now.mono_ms;
        Some(Fact::Rung {
            rung: self.report.rung,
            code: self.report.code,
            evidence: self.report.evidence.clone(),
            lasted_ms,
            boot: boot.map(|boot| boot.id.clone()),
            since_boot_ms: boot.map(|boot| boot.lasted_ms(now)),
            fix,
        })
    }
}

/// What ended a failure where nothing around the box was seen to change.
fn unseen(code: Code) -> Fix {
    if COME_AND_GO.contains(&code) {
        Fix::ByItself
    } else {
        Fix::OtherSide
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

    fn boot() -> Boot {
        Boot {
            id: "boot".parse().unwrap(),
            before_ms: 9_000,
        }
    }

    fn fix_of(facts: &[Fact]) -> Vec<Option<Fix>> {
        let fixes = facts.iter().filter_map(|fact| match fact {
            Fact::Rung { fix, .. } => Some(*fix),
            _ => None,
        });
        fixes.collect()
    }

    fn all_ok() -> Vec<Observation> {
        Rung::ALL.map(|r| Observation::ok(r, "fine")).to_vec()
    }

    #[test]
    fn rungs_above_a_failing_one_are_not_reached() {
        let mut ladder = Ladder::new(Some(boot()), at(0));
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
                boot: Some("boot".parse().unwrap()),
                since_boot_ms: Some(9_501),
                fix: None,
            }]
        );
        let statuses: Vec<_> = ladder.report().iter().map(|r| r.status).collect();
        assert_eq!(statuses[..3], [RungStatus::Ok; 3]);
        assert_eq!(statuses[3], RungStatus::Failed);
        assert_eq!(statuses[4..], [RungStatus::NotReached; 6]);
        assert_eq!(ladder.failing(), Some(Code::DNS_SILENT));
    }

    #[test]
    fn what_changed_while_a_rung_failed_is_what_fixed_it() {
        let fixed_by = |code: Code, changes: &[Fix]| {
            let mut ladder = Ladder::new(Some(boot()), at(0));
            ladder.observe(&all_ok(), at(1));
            // What changed before is the cause rather than the cure.
            ladder.changed(Fix::Cable);
            let failed = ladder.observe(&[Observation::failed(code, "")], at(2));
            assert_eq!(fix_of(&failed), [None]);
            for change in changes {
                ladder.changed(*change);
            }
            fix_of(&ladder.observe(&all_ok(), at(3)))
        };

        let dns = Code::DNS_PRIVATE;
        assert_eq!(fixed_by(dns, &[]), [Some(Fix::OtherSide)]);
        assert_eq!(fixed_by(Code::LINE_POOR, &[]), [Some(Fix::ByItself)]);
        assert_eq!(fixed_by(dns, &[Fix::Setting]), [Some(Fix::Setting)]);
        let both = [Fix::Address, Fix::Cable, Fix::Address];
        assert_eq!(fixed_by(dns, &both), [Some(Fix::Cable)]);
    }

    #[test]
    fn a_failure_that_takes_anothers_place_has_no_fix() {
        let mut ladder = Ladder::new(Some(boot()), at(0));
        ladder.observe(&[Observation::failed(Code::DNS_SILENT, "")], at(1));
        ladder.changed(Fix::Cable);

        let other = ladder.observe(&[Observation::failed(Code::DNS_PRIVATE, "")], at(2));
        let holds = ladder.observe(&all_ok(), at(3));

        assert_eq!(fix_of(&other), [None]);
        assert!(fix_of(&holds).contains(&Some(Fix::OtherSide)));
    }

    #[test]
    fn the_same_observation_is_journalled_once() {
        let mut ladder = Ladder::new(Some(boot()), at(0));

        assert_eq!(ladder.observe(&all_ok(), at(1)).len(), 10);
        assert_eq!(ladder.observe(&all_ok(), at(2)).len(), 0);
    }

    proptest! {
        #[test]
        fn there_is_one_failing_rung_at_the_most_and_nothing_holds_above_it(
            codes in proptest::collection::vec(0..longhaul_protocol::diag::CODES.len(), 0..20),
        ) {
            let mut ladder = Ladder::new(Some(boot()), at(0));
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
