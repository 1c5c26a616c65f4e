//! How a box uses its way to the buckets: pause, limits by the hour of the week, priorities.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::diag::{Code, known_code};

/// The least limit other than zero, in bytes per second: an object store hangs up on whoever sends
/// nothing for some seconds.
pub const MIN_RATE: u64 = 16 << 10;
/// The highest limit, in bytes per second: more than any line.
pub const MAX_RATE: u64 = 1 << 40;
/// Buckets with a priority of their own at the most.
pub const MAX_PRIORITIES: usize = 200;
/// The farthest that clocks are set from UTC, in minutes.
pub const MAX_OFFSET_MINUTES: i16 = 14 * 60;
/// Minutes in a week.
const WEEK_MINUTES: i64 = 7 * 24 * 60;
/// From a Monday to 1970-01-01, which was a Thursday, in minutes.
const EPOCH_MINUTES: i64 = 3 * 24 * 60;

/// How a box shall use its way to the buckets.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct UplinkPolicy {
    /// Nothing is sent to a bucket; what was begun is kept, and files are taken as ever.
    #[serde(default)]
    pub paused: bool,
    /// Limits by the hour; absent: none at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub week: Option<Week>,
    /// Which buckets go before or after the others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub priorities: BTreeMap<String, Priority>,
}

/// Limits for each hour of the week.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Week {
    /// How far the grid's clock is before UTC, in minutes; it knows no summer time.
    #[serde(default)]
    pub utc_offset_minutes: i16,
    /// Seven days from Monday on, 24 hours each: bytes per second of all that is sent, `0` for
    /// nothing, `null` for as much as the line takes.
    pub limits: Box<[[Option<u64>; 24]; 7]>,
}

/// Whose turn comes more often. Nobody's never comes.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Before everything else.
    Urgent,
    /// As it comes.
    #[default]
    Normal,
    /// After everything else.
    Low,
}

impl Priority {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Urgent, Self::Normal, Self::Low];

    /// Turns that it gets for each turn of [`Priority::Low`], while all of them wait.
    #[must_use]
    pub const fn weight(self) -> u64 {
        match self {
            Self::Urgent => 64,
            Self::Normal => 8,
            Self::Low => 1,
        }
    }
}

/// How fast a box may send at some moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Rate {
    /// As fast as the line takes it.
    #[default]
    Unlimited,
    /// So many bytes per second, at least [`MIN_RATE`].
    Limited(u64),
    /// Not at all.
    Held,
}

/// What is in force on a box, as it reports it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct UplinkState {
    /// Whether anything is sent, and what keeps it from that.
    pub state: UplinkMode,
    /// Bytes per second at the most; absent where the line alone limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_sec: Option<u64>,
    /// Why some of it waits though it may be sent: a bucket that refuses everybody.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "known_code"
    )]
    pub code: Option<Code>,
}

/// Whether a box sends.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UplinkMode {
    /// It sends what there is.
    #[default]
    Sending,
    /// Somebody paused it.
    Paused,
    /// The grid allows nothing at this hour.
    Waiting,
}

/// A rule that a policy breaks.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// No place on Earth is that far from UTC.
    #[error("utc_offset_minutes is {0}; -{MAX_OFFSET_MINUTES} to {MAX_OFFSET_MINUTES}")]
    Offset(i16),
    /// A limit that no sending could keep.
    #[error(
        "the limit of {day} at {hour}:00 is {limit} bytes/s; 0, or {MIN_RATE} to {MAX_RATE}, or null"
    )]
    Limit {
        /// The day's name.
        day: &'static str,
        /// The hour.
        hour: usize,
        /// What is set.
        limit: u64,
    },
    /// Too many buckets.
    #[error("{0} buckets have a priority; at most {MAX_PRIORITIES}")]
    Priorities(usize),
    /// Not a bucket's name.
    #[error("{0:?} is not the name of a bucket")]
    Bucket(String),
}

impl UplinkPolicy {
    /// Whether it says anything.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks what the types leave open.
    ///
    /// # Errors
    ///
    /// The first [`PolicyError`] that it breaks.
    pub fn check(&self) -> Result<(), PolicyError> {
        if let Some(week) = &self.week {
            week.check()?;
        }
        if self.priorities.len() > MAX_PRIORITIES {
            return Err(PolicyError::Priorities(self.priorities.len()));
        }
        let named = |name: &&String| {
            (1..=63).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic())
        };
        match self.priorities.keys().find(|name| !named(name)) {
            Some(name) => Err(PolicyError::Bucket(name.chars().take(80).collect())),
            None => Ok(()),
        }
    }

    /// What it says for a moment, in milliseconds since 1970.
    #[must_use]
    pub fn rate_at(&self, wall_ms: i64) -> Rate {
        if self.paused {
            return Rate::Held;
        }
        let limit = self.week.as_ref().and_then(|week| week.limit_at(wall_ms));
        match limit {
            None => Rate::Unlimited,
            Some(0) => Rate::Held,
            Some(rate) => Rate::Limited(rate),
        }
    }

    /// The same, as it is reported.
    #[must_use]
    pub fn state_at(&self, wall_ms: i64) -> UplinkState {
        let (state, bytes_per_sec) = match self.rate_at(wall_ms) {
            _ if self.paused => (UplinkMode::Paused, None),
            Rate::Held => (UplinkMode::Waiting, None),
            Rate::Unlimited => (UplinkMode::Sending, None),
            Rate::Limited(rate) => (UplinkMode::Sending, Some(rate)),
        };
        UplinkState {
            state,
            bytes_per_sec,
            code: None,
        }
    }

    /// How urgent a bucket is.
    #[must_use]
    pub fn priority(&self, bucket: &str) -> Priority {
        self.priorities.get(bucket).copied().unwrap_or_default()
    }
}

impl Week {
    fn check(&self) -> Result<(), PolicyError> {
        const DAYS: [&str; 7] = [
            "Monday",
            "Tuesday",
            "Wednesday",
            "Thursday",
            "Friday",
            "Saturday",
            "Sunday",
        ];
        if !(-MAX_OFFSET_MINUTES..=MAX_OFFSET_MINUTES).contains(&self.utc_offset_minutes) {
            return Err(PolicyError::Offset(self.utc_offset_minutes));
        }
        for (day, hours) in DAYS.into_iter().zip(self.limits.iter()) {
            for (hour, limit) in hours.iter().enumerate() {
                match *limit {
                    Some(limit) if limit != 0 && !(MIN_RATE..=MAX_RATE).contains(&limit) => {
                        return Err(PolicyError::Limit { day, hour, limit });
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn limit_at(&self, wall_ms: i64) -> Option<u64> {
        let local = wall_ms.div_euclid(60_000) + i64::from(self.utc_offset_minutes);
        let minute = local.saturating_add(EPOCH_MINUTES).rem_euclid(WEEK_MINUTES);
        let hour = usize::try_from(minute / 60).unwrap_or(0);
        *self.limits.get(hour / 24)?.get(hour % 24)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn week(set: impl Fn(usize, usize) -> Option<u64>) -> Week {
        Week {
            utc_offset_minutes: 0,
            limits: Box::new(std::array::from_fn(|day| {
                std::array::from_fn(|hour| set(day, hour))
            })),
        }
    }

    fn policy(week: Week) -> UplinkPolicy {
        UplinkPolicy {
            week: Some(week),
            ..UplinkPolicy::default()
        }
    }

    /// Monday, 2026-11-23, 00:00 UTC.
    const MONDAY: i64 = 1_795_392_000_000;
    const HOUR: i64 = 3_600_000;

    #[test]
    fn each_hour_has_the_limit_of_its_place_in_the_grid() {
        let grid = policy(week(|day, hour| Some(MIN_RATE + (day * 24 + hour) as u64)));
        for index in 0..24 * 7 * 2 {
            let at = MONDAY + index * HOUR;
            let want = MIN_RATE + u64::try_from(index % 168).expect("positive");
            assert_eq!(grid.rate_at(at), Rate::Limited(want));
            assert_eq!(grid.rate_at(at + HOUR - 1), Rate::Limited(want));
            // Two thousand weeks earlier, before 1970, it is the same.
            let before = at - 4000 * 168 * HOUR;
            assert_eq!(grid.rate_at(before), Rate::Limited(want));
        }
    }

    #[test]
    fn the_grids_clock_is_its_own() {
        let mut grid = week(|day, hour| (day == 0 && hour == 0).then_some(MIN_RATE));
        grid.utc_offset_minutes = 330;
        let grid = policy(grid);
        let five_and_a_half = 330 * 60_000;

        let begin = MONDAY - five_and_a_half;
        assert_eq!(grid.rate_at(begin - 1), Rate::Unlimited);
        assert_eq!(grid.rate_at(begin), Rate::Limited(MIN_RATE));
        assert_eq!(grid.rate_at(begin + HOUR), Rate::Unlimited);
    }

    #[test]
    fn a_pause_holds_whatever_the_grid_says() {
        let mut grid = policy(week(|_, _| None));
        grid.paused = true;
        assert_eq!(grid.rate_at(MONDAY), Rate::Held);
        assert_eq!(grid.state_at(MONDAY).state, UplinkMode::Paused);

        let night = policy(week(|_, hour| (hour >= 6).then_some(0)));
        assert_eq!(night.state_at(MONDAY).state, UplinkMode::Sending);
        assert_eq!(night.state_at(MONDAY + 6 * HOUR).state, UplinkMode::Waiting);
    }

    #[test]
    fn what_no_sending_could_keep_is_refused_by_name() {
        let slow = policy(week(|day, hour| (day == 2 && hour == 7).then_some(5)));
        let error = slow.check().expect_err("too slow").to_string();
        assert!(error.contains("Wednesday at 7:00 is 5"), "{error}");

        let mut far = week(|_, _| None);
        far.utc_offset_minutes = i16::MIN;
        assert!(policy(far).check().is_err());

        let mut named = UplinkPolicy::default();
        named.priorities.insert(String::new(), Priority::Urgent);
        assert!(named.check().is_err());
    }

    #[test]
    fn a_grid_of_another_shape_is_no_grid() {
        for text in [
            r#"{"week":{"limits":[]}}"#,
            r#"{"week":{"limits":[[1,2],[],[],[],[],[],[]]}}"#,
            r#"{"paused":1}"#,
            r#"{"priorities":{"b":"first"}}"#,
        ] {
            assert!(
                serde_json::from_str::<UplinkPolicy>(text).is_err(),
                "{text}"
            );
        }
    }
}
