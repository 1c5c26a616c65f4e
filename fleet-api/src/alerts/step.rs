//! When a measurement becomes an alert, and when the alert is over. Pure.
//!
//! Two thresholds and two times keep it from flapping: trouble begins at one threshold and must last,
//! it ends at another and must stay away. What is not known changes nothing for the better.

use crate::store::alert_rules::{AlertKind, AlertRuleRow};

/// Longest that a rule may wait, in seconds.
const MAX_SECS: i64 = 7 * 86_400;

/// Which side of a threshold is trouble.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// The threshold itself and what is above.
    Above,
    /// The threshold itself and what is below.
    Below,
}

/// A rule as [`step`] needs it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Which side is trouble.
    pub side: Side,
    /// From here on it is trouble.
    pub raise_at: f64,
    /// From here on it is none any more.
    pub clear_at: f64,
    /// How long it must be trouble, in milliseconds.
    pub hold_ms: i64,
    /// How long it must be none, in milliseconds.
    pub clear_ms: i64,
}

/// What a box looks like to one rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seen {
    /// It was measured.
    Value(f64),
    /// It cannot be known now.
    Unknown,
    /// The rule does not concern it any more.
    Gone,
}

/// Where one rule stands with one box.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// No trouble.
    Quiet,
    /// Trouble since then, not for long enough.
    Pending {
        /// Since when.
        since: i64,
    },
    /// An alert.
    Open {
        /// Since when it has looked as if it were over.
        clear_since: Option<i64>,
    },
}

/// What is to be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Turn {
    /// There is an alert.
    Opened,
    /// It is over.
    Resolved,
}

/// What is wrong with a rule.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct BadLimits(&'static str);

impl Limits {
    /// Reads a rule.
    ///
    /// # Errors
    ///
    /// [`BadLimits`] if the rule makes no sense.
    pub fn of(rule: &AlertRuleRow) -> Result<Self, BadLimits> {
        let side = side(rule.kind);
        if !rule.raise_at.is_finite() || !rule.clear_at.is_finite() {
            return Err(BadLimits("raise_at and clear_at are numbers"));
        }
        if !(0..=MAX_SECS).contains(&rule.hold_secs) || !(0..=MAX_SECS).contains(&rule.clear_secs) {
            return Err(BadLimits("hold_secs and clear_secs are 0 to 604800"));
        }
        let apart = match side {
            Side::Above => rule.clear_at < rule.raise_at,
            Side::Below => rule.clear_at > rule.raise_at,
        };
        if !apart {
            return Err(BadLimits(
                "clear_at is on the good side of raise_at: lower where more is worse, higher where less is",
            ));
        }
        Ok(Self {
            side,
            raise_at: rule.raise_at,
            clear_at: rule.clear_at,
            hold_ms: rule.hold_secs * 1000,
            clear_ms: rule.clear_secs * 1000,
        })
    }

    fn is_trouble(&self, value: f64) -> bool {
        match self.side {
            Side::Above => value >= self.raise_at,
            Side::Below => value <= self.raise_at,
        }
    }

    fn is_clear(&self, value: f64) -> bool {
        match self.side {
            Side::Above => value <= self.clear_at,
            Side::Below => value >= self.clear_at,
        }
    }
}

/// Which side of its thresholds is trouble.
pub const fn side(kind: AlertKind) -> Side {
    match kind {
        AlertKind::DiskFreePercent | AlertKind::CertificateHours => Side::Below,
        AlertKind::OfflineMinutes
        | AlertKind::Celsius
        | AlertKind::VaultFillPercent
        | AlertKind::TransferMinutes
        | AlertKind::FailuresPerHour => Side::Above,
    }
}

/// Applies what is seen at `now`; the caller stores the phase together with what is to be told.
#[must_use]
pub fn step(limits: &Limits, phase: Phase, seen: Seen, now: i64) -> (Phase, Option<Turn>) {
    match (phase, seen) {
        (Phase::Open { .. }, Seen::Gone) => (Phase::Quiet, Some(Turn::Resolved)),
        // Until it has been seen again for long enough, nobody is told of it.
        (Phase::Quiet | Phase::Pending { .. }, Seen::Gone | Seen::Unknown) => (Phase::Quiet, None),
        // What cannot be seen is not over.
        (Phase::Open { .. }, Seen::Unknown) => (Phase::Open { clear_since: None }, None),
        (Phase::Quiet, Seen::Value(value)) => raise(limits, value, now, now),
        (Phase::Pending { since }, Seen::Value(value)) => raise(limits, value, since, now),
        (Phase::Open { clear_since }, Seen::Value(value)) => {
            if !limits.is_clear(value) {
                return (Phase::Open { clear_since: None }, None);
            }
            // A clock that was set back must not hold an alert open for ever.
            let since = clear_since.unwrap_or(now).min(now);
            if now.saturating_sub(since) >= limits.clear_ms {
                (Phase::Quiet, Some(Turn::Resolved))
            } else {
                let clear_since = Some(since);
                (Phase::Open { clear_since }, None)
            }
        }
    }
}

fn raise(limits: &Limits, value: f64, since: i64, now: i64) -> (Phase, Option<Turn>) {
    if !limits.is_trouble(value) {
        return (Phase::Quiet, None);
    }
    let since = since.min(now);
    if now.saturating_sub(since) >= limits.hold_ms {
        (Phase::Open { clear_since: None }, Some(Turn::Opened))
    } else {
        (Phase::Pending { since }, None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOT: Limits = Limits {
        side: Side::Above,
        raise_at: 80.0,
        clear_at: 70.0,
        hold_ms: 300,
        clear_ms: 200,
    };

    fn run(limits: &Limits, seen: &[(i64, Seen)]) -> Vec<(i64, Turn)> {
        let (mut phase, mut turns) = (Phase::Quiet, Vec::new());
        for (at, seen) in seen {
            let turn;
            (phase, turn) = step(limits, phase, *seen, *at);
            turns.extend(turn.map(|turn| (*at, turn)));
        }
        turns
    }

    #[test]
    fn trouble_that_lasts_opens_and_what_stays_away_resolves() {
        let seen = [
            (0, 85.0),
            (100, 90.0),
            (300, 81.0),
            (400, 75.0),
            (500, 70.0),
            (600, 72.0),
            (700, 60.0),
            (900, 60.0),
        ];
        let seen = seen.map(|(at, value)| (at, Seen::Value(value)));

        assert_eq!(
            run(&HOT, &seen),
            [(300, Turn::Opened), (900, Turn::Resolved)]
        );
    }

    #[test]
    fn what_cannot_be_seen_opens_nothing_and_resolves_nothing() {
        let hot = Seen::Value(99.0);
        let seen = [(0, hot), (200, Seen::Unknown), (400, hot), (600, hot)];
        assert_eq!(run(&HOT, &seen), []);

        let cool = Seen::Value(1.0);
        let seen = [
            (0, hot),
            (300, hot),
            (400, cool),
            (500, Seen::Unknown),
            (700, cool),
            (800, Seen::Unknown),
            (9000, Seen::Unknown),
        ];
        assert_eq!(run(&HOT, &seen), [(300, Turn::Opened)]);
    }

    #[test]
    fn a_box_that_is_gone_has_no_alert() {
        let hot = Seen::Value(99.0);
        let seen = [(0, hot), (300, hot), (301, Seen::Gone), (302, Seen::Gone)];
        assert_eq!(
            run(&HOT, &seen),
            [(300, Turn::Opened), (301, Turn::Resolved)]
        );
    }

    #[test]
    fn a_rule_whose_thresholds_are_crossed_is_refused() {
        let mut rule = AlertRuleRow {
            rule_id: "r".into(),
            name: "R".into(),
            kind: AlertKind::DiskFreePercent,
            raise_at: 10.0,
            clear_at: 12.0,
            hold_secs: 1,
            clear_secs: 1,
            severity: crate::store::alert_rules::Severity::Warning,
            enabled: true,
            changed: 0,
            changed_by: String::new(),
        };
        assert!(Limits::of(&rule).is_ok());
        rule.clear_at = 10.0;
        assert!(Limits::of(&rule).is_err());
        rule.clear_at = f64::NAN;
        assert!(Limits::of(&rule).is_err());
        (rule.clear_at, rule.hold_secs) = (12.0, -1);
        assert!(Limits::of(&rule).is_err());
    }

    fn limits() -> impl Strategy<Value = Limits> {
        (any::<bool>(), 0_i64..500, 0_i64..500).prop_map(|(above, hold_ms, clear_ms)| Limits {
            side: if above { Side::Above } else { Side::Below },
            raise_at: 50.0,
            clear_at: if above { 40.0 } else { 60.0 },
            hold_ms,
            clear_ms,
        })
    }

    fn seen() -> impl Strategy<Value = Seen> {
        prop_oneof![
            8 => (0.0..100.0_f64).prop_map(Seen::Value),
            4 => prop::sample::select(vec![0.0, 40.0, 50.0, 60.0, 100.0]).prop_map(Seen::Value),
            2 => Just(Seen::Unknown),
            1 => Just(Seen::Gone),
        ]
    }

    /// Observations at rising times.
    fn history() -> impl Strategy<Value = Vec<(i64, Seen)>> {
        prop::collection::vec((0_i64..200, seen()), 0..200).prop_map(|all| {
            let mut at = 0;
            all.into_iter()
                .map(|(wait, seen)| {
                    at += wait;
                    (at, seen)
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn alerts_open_and_resolve_in_turn_and_never_faster_than_the_rule_says(limits in limits(), history in history()) {
            let turns = run(&limits, &history);
            for (n, (_, turn)) in turns.iter().enumerate() {
                let expected = if n % 2 == 0 { Turn::Opened } else { Turn::Resolved };
                prop_assert_eq!(*turn, expected, "no alert twice, none resolved twice");
            }
            for pair in turns.windows(2) {
                let (began, ended) = (pair[0].0, pair[1].0);
                let gone = history.iter().any(|(at, seen)| *at == ended && *seen == Seen::Gone);
                let least = match pair[1].1 {
                    Turn::Opened => limits.hold_ms,
                    Turn::Resolved if gone => 0,
                    Turn::Resolved => limits.clear_ms,
                };
                prop_assert!(ended - began >= least, "{began} to {ended}, at least {least}");
            }
        }

        #[test]
        fn an_alert_opens_only_after_trouble_without_a_break(limits in limits(), history in history()) {
            for (opened, turn) in run(&limits, &history) {
                if turn != Turn::Opened { continue }
                let lasted = history.iter().rev()
                    .skip_while(|(at, _)| *at > opened)
                    .skip_while(|(at, seen)| *at == opened && !matches!(seen, Seen::Value(v) if limits.is_trouble(*v)))
                    .take_while(|(_, seen)| matches!(seen, Seen::Value(v) if limits.is_trouble(*v)))
                    .last();
                let begin = lasted.map_or(i64::MAX, |(at, _)| *at);
                prop_assert!(begin <= opened - limits.hold_ms, "trouble since {begin}, opened {opened}");
            }
        }

        #[test]
        fn every_alert_resolves_once_the_box_is_well_for_long_enough(limits in limits(), history in history(), steps in 1_i64..20) {
            let good = Seen::Value(if limits.side == Side::Above { 0.0 } else { 100.0 });
            let last = history.last().map_or(0, |(at, _)| *at);
            let mut history = history;
            for n in 0..=steps {
                history.push((last + n * limits.clear_ms / steps, good));
            }
            prop_assert_eq!(run(&limits, &history).len() % 2, 0);
        }

        #[test]
        fn seeing_the_same_twice_at_once_tells_nothing_new(limits in limits(), history in history()) {
            prop_assume!(limits.hold_ms > 0 && limits.clear_ms > 0);
            let twice: Vec<_> = history.iter().flat_map(|seen| [*seen, *seen]).collect();
            prop_assert_eq!(run(&limits, &twice), run(&limits, &history));
        }

        #[test]
        fn a_clock_that_jumps_does_no_harm(limits in limits(), history in prop::collection::vec((any::<i64>(), seen()), 0..50)) {
            for (n, (_, turn)) in run(&limits, &history).iter().enumerate() {
                prop_assert_eq!(*turn == Turn::Opened, n % 2 == 0);
            }
        }
    }
}
