//! One line of the results: what was measured, what was wanted, and what stood beside it.

use serde::{Deserialize, Serialize};

/// Which direction is better.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Better {
    /// More is better: a rate.
    Higher,
    /// Less is better: a time, a cost.
    Lower,
}

/// What is measured, in which unit, and what is wanted of it.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// What is measured; the name of a row.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Which direction is better.
    pub better: Better,
    /// At least this, or at most.
    pub target: Option<f64>,
}

/// A row as `transfer.json` keeps it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Row {
    /// What was measured.
    pub metric: String,
    /// The median of all runs.
    pub value: f64,
    /// Of `value`, `target` and `beside_value`.
    pub unit: String,
    /// What was wanted, where something was.
    pub target: Option<f64>,
    /// Whether it was reached; `None` without a target.
    pub met: Option<bool>,
    /// What was measured in the same run, beside it.
    pub beside: Option<String>,
    /// The median of that.
    pub beside_value: Option<f64>,
    /// How many times better than what stood beside it; below 1 it is worse.
    pub ratio: Option<f64>,
    /// The command that measures it.
    pub command: String,
    /// Processor cores of the machine.
    pub cores: usize,
    /// Day of the measurement, UTC.
    pub date: String,
}

/// What every row of one run has in common.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The command that measures.
    pub command: String,
    /// Processor cores of the machine.
    pub cores: usize,
    /// Day of the measurement, UTC.
    pub date: String,
}

/// A peer, and its runs of the same.
#[derive(Clone, Debug)]
pub struct Beside {
    /// What it is.
    pub name: String,
    /// One value for each run.
    pub samples: Vec<f64>,
}

impl Metric {
    /// A row of this metric, from the values of its runs and those of a peer.
    ///
    /// `None` without a single run.
    pub fn row(&self, samples: &[f64], beside: Option<&Beside>, origin: &Origin) -> Option<Row> {
        let value = median(samples)?;
        let beside_value = beside.and_then(|b| median(&b.samples));
        let met = self.target.map(|target| match self.better {
            Better::Higher => value >= target,
            Better::Lower => value <= target,
        });
        let ratio = beside_value.and_then(|other| {
            let (over, under) = match self.better {
                Better::Higher => (value, other),
                Better::Lower => (other, value),
            };
            (under > 0.0).then(|| rounded(over / under))
        });
        Some(Row {
            metric: self.name.to_owned(),
            value: rounded(value),
            unit: self.unit.to_owned(),
            target: self.target,
            met,
            beside: beside_value.and(beside).map(|b| b.name.clone()),
            beside_value: beside_value.map(rounded),
            ratio,
            command: origin.command.clone(),
            cores: origin.cores,
            date: origin.date.clone(),
        })
    }
}

/// The middle of `samples`; the mean of the two middle ones of an even number.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = samples.iter().copied().filter(|s| s.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(sorted[middle - 1], upper))
}

/// Three significant digits, whole numbers from 100 on: more would be noise.
pub fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let mut scale = 1.0;
    while (value * scale).abs() < 100.0 && scale < 1e9 {
        scale *= 10.0;
    }
    (value * scale).round() / scale
}

/// The rows of a new run, and those of an older one that it did not measure.
pub fn merged(old: Vec<Row>, new: Vec<Row>) -> Vec<Row> {
    let measured: std::collections::BTreeSet<String> =
        new.iter().map(|row| row.metric.clone()).collect();
    let kept = old
        .into_iter()
        .filter(|row| !measured.contains(&row.metric));
    kept.chain(new).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn origin() -> Origin {
        Origin {
            command: "make bench-transfer".to_owned(),
            cores: 2,
            date: "2026-01-02".to_owned(),
        }
    }

    pub const RATE: Metric = Metric {
        name: "rate",
        unit: "GB",
        better: Better::Higher,
        target: Some(0.9),
    };
    pub const COST: Metric = Metric {
        name: "cost",
        unit: "ms",
        better: Better::Lower,
        target: Some(0.15),
    };

    fn beside(samples: &[f64]) -> Beside {
        Beside {
            name: "a peer".to_owned(),
            samples: samples.to_vec(),
        }
    }

    #[test]
    fn a_row_is_the_median_of_its_runs() {
        let row = RATE.row(&[1.0, 9.0, 1.2], Some(&beside(&[0.1, 0.2, 0.4])), &origin());
        let row = row.expect("there are runs");

        assert_eq!(row.value.to_string(), "1.2");
        assert_eq!(row.met, Some(true));
        assert_eq!(row.ratio.map(|r| r.to_string()).as_deref(), Some("6"));
        assert_eq!(
            median(&[4.0, 1.0]).map(|m| m.to_string()).as_deref(),
            Some("2.5")
        );
        assert_eq!(RATE.row(&[], None, &origin()), None);
    }

    #[test]
    fn where_less_is_better_the_ratio_and_the_target_turn_around() {
        let cheap = COST
            .row(&[0.1], Some(&beside(&[0.5])), &origin())
            .expect("a run");
        let dear = COST
            .row(&[0.2], Some(&beside(&[0.1])), &origin())
            .expect("a run");

        assert_eq!((cheap.met, dear.met), (Some(true), Some(false)));
        assert_eq!(cheap.ratio.map(|r| r.to_string()).as_deref(), Some("5"));
        assert_eq!(dear.ratio.map(|r| r.to_string()).as_deref(), Some("0.5"));
    }

    #[test]
    fn without_target_or_peer_the_row_says_so() {
        let free = Metric {
            target: None,
            ..RATE
        };
        let row = free
            .row(&[1.0], Some(&beside(&[])), &origin())
            .expect("a run");

        assert_eq!((row.met, row.ratio), (None, None));
        assert_eq!((row.beside, row.beside_value), (None, None));
    }

    #[test]
    fn numbers_keep_three_digits() {
        let texts = [20_345.6, 123.4, 1.2345, 0.012_345, 0.0].map(|n| rounded(n).to_string());
        assert_eq!(texts, ["20346", "123", "1.23", "0.0123", "0"]);
    }

    #[test]
    fn rows_that_were_not_measured_again_are_kept() {
        let old = ["a", "b"].map(|name| row_named(name, 1.0)).to_vec();
        let all = merged(old, vec![row_named("b", 2.0), row_named("c", 3.0)]);

        let seen: Vec<_> = all.iter().map(|r| (r.metric.as_str(), r.value)).collect();
        assert_eq!(seen, [("a", 1.0), ("b", 2.0), ("c", 3.0)]);
    }

    fn row_named(name: &'static str, value: f64) -> Row {
        let metric = Metric { name, ..RATE };
        metric.row(&[value], None, &origin()).expect("a run")
    }
}
