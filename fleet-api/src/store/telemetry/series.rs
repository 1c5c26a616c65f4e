//! Telemetry as a chart wants it: the finest series that answers, thinned out by the database.

use longhaul_protocol::ids::BoxId;
use sqlx::FromRow;

use super::rollups::{MINUTES_5, fold, of_rollup, of_samples};
use crate::store::{StoreResult, Tx, text_enum};

text_enum! {
    /// One of the series that telemetry is kept in.
    Series {
        /// As it came.
        Samples = "samples",
        /// Rolled up by five minutes.
        FiveMinutes = "5m",
        /// Rolled up by hours.
        Hours = "1h",
    }
}

impl Series {
    /// Length of one of its buckets, in milliseconds; samples have none.
    pub const fn bucket_ms(self) -> i64 {
        match self {
            Self::Samples => 1,
            Self::FiveMinutes => MINUTES_5,
            Self::Hours => 12 * MINUTES_5,
        }
    }
}

/// One bucket of a series; the values are means over it, extremes where they matter.
#[derive(Clone, Debug, FromRow, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub struct TelemetryPoint {
    /// Begin of the bucket.
    pub at: i64,
    /// Samples in it.
    pub samples: i64,
    /// Load average over one minute.
    pub load_1m: f64,
    /// The least.
    pub load_1m_min: f64,
    /// The most.
    pub load_1m_max: f64,
    /// Memory in use, in bytes.
    pub memory_used_bytes: f64,
    /// The least.
    pub memory_used_bytes_min: f64,
    /// The most.
    pub memory_used_bytes_max: f64,
    /// Least space on any of the box's file systems, in bytes.
    pub disk_free_bytes: Option<f64>,
    /// The mean over the bucket.
    pub disk_free_bytes_avg: Option<f64>,
    /// The most in the bucket.
    pub disk_free_bytes_max: Option<f64>,
    /// Hottest sensor, degrees Celsius.
    pub celsius: Option<f64>,
    /// The least in the bucket.
    pub celsius_min: Option<f64>,
    /// The mean over the bucket.
    pub celsius_avg: Option<f64>,
    /// Bytes sent since boot, all interfaces, at the end of the bucket.
    pub network_sent_bytes: f64,
    /// Bytes received since boot, all interfaces, at the end of the bucket.
    pub network_received_bytes: f64,
    /// What the vault holds, in bytes.
    pub vault_used_bytes: Option<f64>,
    /// The least.
    pub vault_used_bytes_min: Option<f64>,
    /// The most.
    pub vault_used_bytes_max: Option<f64>,
    /// Objects waiting for delivery, the most in the bucket.
    pub pending_objects: Option<f64>,
    /// The least in the bucket.
    pub pending_objects_min: Option<f64>,
    /// The mean over the bucket.
    pub pending_objects_avg: Option<f64>,
    /// Their bytes, the most in the bucket.
    pub pending_bytes: Option<f64>,
    /// The least in the bucket.
    pub pending_bytes_min: Option<f64>,
    /// The mean over the bucket.
    pub pending_bytes_avg: Option<f64>,
}

/// How far a series has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Until when it is rolled up, milliseconds; of samples it means nothing.
    pub through: i64,
    /// Since when it is kept whole.
    pub kept_since: i64,
}

/// All three of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Of samples.
    pub samples: Mark,
    /// Of five minutes.
    pub five: Mark,
    /// Of hours.
    pub hours: Mark,
}

/// A series, drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// Length of a bucket, in milliseconds.
    pub step: i64,
    /// The coarsest that was read; what is not rolled up yet is read finer.
    pub series: Series,
    /// Oldest first; buckets without a sample are left out.
    pub points: Vec<TelemetryPoint>,
}

/// What is read to answer: hours until one time, five minutes until another, samples from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    series: Series,
    step: i64,
    since: i64,
    hours_until: i64,
    five_until: i64,
}

/// Chooses what to read for at most `points` buckets from `since` until before `until`.
fn plan(since: i64, until: i64, points: u32, marks: &Marks) -> Plan {
    let span = until.saturating_sub(since).max(1);
    let step = (span / i64::from(points.max(1))).saturating_add(1);
    let series = if step >= Series::Hours.bucket_ms() || since < marks.five.kept_since {
        Series::Hours
    } else if step >= MINUTES_5 || since < marks.samples.kept_since {
        Series::FiveMinutes
    } else {
        Series::Samples
    };
    let bucket = series.bucket_ms();
    let step = (step.saturating_add(bucket - 1) / bucket).saturating_mul(bucket);
    // A bucket stands at its begin: the one that `since` lies in is read whole.
    let since = since - since.rem_euclid(bucket);
    let rolled = |at_least, through: i64| {
        if series >= at_least {
            through.clamp(since, until.max(since))
        } else {
            since
        }
    };
    let hours_until = rolled(Series::Hours, marks.hours.through);
    let five_until = rolled(Series::FiveMinutes, marks.five.through);
    Plan {
        series,
        step,
        since,
        hours_until,
        five_until: five_until.max(hours_until),
    }
}

/// A box's telemetry from `since` until before `until`, in at most about `points` buckets.
pub async fn telemetry_series(
    tx: &mut Tx,
    box_id: &BoxId,
    (since, until): (i64, i64),
    points: u32,
) -> StoreResult<Drawn> {
    let marks = marks_get(tx).await?;
    let plan = plan(since, until, points, &marks);
    let points = fetch!(
        all,
        tx,
        TelemetryPoint,
        concat!(
            "SELECT (at / $6) * $6 AS at, ",
            fold!(),
            " FROM (SELECT ",
            of_rollup!(),
            " FROM telemetry_1h AS t WHERE box_id = $1 AND at >= $2 AND at < $3 UNION ALL SELECT ",
            of_rollup!(),
            " FROM telemetry_5m AS t WHERE box_id = $1 AND at >= $3 AND at < $4 UNION ALL SELECT ",
            of_samples!(),
            " FROM telemetry AS t WHERE box_id = $1 AND at >= $4 AND at < $5) AS s \
             GROUP BY (at / $6) * $6 ORDER BY (at / $6) * $6"
        ),
        box_id.as_str(),
        plan.since,
        plan.hours_until,
        plan.five_until,
        until,
        plan.step,
    )?;
    Ok(Drawn {
        step: plan.step,
        series: plan.series,
        points,
    })
}

/// How far the series have come.
pub async fn marks_get(tx: &mut Tx) -> StoreResult<Marks> {
    let rows = fetch!(
        all,
        tx,
        (String, i64, i64),
        "SELECT series, through, kept_since FROM telemetry_marks"
    )?;
    let mut marks = Marks::default();
    for (series, through, kept_since) in rows {
        let mark = Mark {
            through,
            kept_since,
        };
        match series.parse() {
            Ok(Series::Samples) => marks.samples = mark,
            Ok(Series::FiveMinutes) => marks.five = mark,
            Ok(Series::Hours) => marks.hours = mark,
            // A later release's.
            Err(_) => {}
        }
    }
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;

    fn marks() -> Marks {
        Marks {
            samples: Mark {
                through: 0,
                kept_since: 70 * DAY,
            },
            five: Mark {
                through: 100 * DAY - MINUTES_5,
                kept_since: 20 * DAY,
            },
            hours: Mark {
                through: 100 * DAY - HOUR,
                kept_since: 0,
            },
        }
    }

    #[test]
    fn an_hour_is_drawn_from_samples_and_a_month_from_hours() {
        let now = 100 * DAY;
        let hour = plan(now - HOUR, now, 300, &marks());
        assert_eq!((hour.series, hour.step), (Series::Samples, 12_001));
        assert_eq!(
            (hour.hours_until, hour.five_until),
            (hour.since, hour.since)
        );

        let month = plan(now - 30 * DAY, now, 300, &marks());
        assert_eq!((month.series, month.step), (Series::Hours, 3 * HOUR));
        assert_eq!(month.hours_until, now - HOUR);
        assert_eq!(month.five_until, now - MINUTES_5);

        let days = plan(now - 3 * DAY + 1, now, 300, &marks());
        assert_eq!(
            (days.series, days.step),
            (Series::FiveMinutes, 3 * MINUTES_5)
        );
        assert_eq!(days.since, now - 3 * DAY);
        assert_eq!(days.hours_until, days.since);
    }

    #[test]
    fn what_is_forgotten_is_drawn_from_what_is_kept_longer() {
        let at = 60 * DAY;
        assert_eq!(
            plan(at, at + HOUR, 300, &marks()).series,
            Series::FiveMinutes
        );
        let at = 10 * DAY;
        let old = plan(at, at + HOUR, 300, &marks());
        assert_eq!((old.series, old.step), (Series::Hours, HOUR));
        assert_eq!((old.hours_until, old.five_until), (at + HOUR, at + HOUR));
    }

    #[test]
    fn nothing_rolled_up_is_all_samples() {
        let all = plan(0, 100 * DAY, 10, &Marks::default());
        assert_eq!(
            (all.series, all.hours_until, all.five_until),
            (Series::Hours, 0, 0)
        );
    }

    #[test]
    fn absurd_ranges_do_not_overflow() {
        for (since, until) in [(0, i64::MAX), (i64::MAX - 1, i64::MAX), (0, 1), (5, 5)] {
            for points in [0, 1, 2000, u32::MAX] {
                let plan = plan(since, until, points, &marks());
                assert!(plan.step > 0 && plan.since <= plan.hours_until, "{plan:?}");
                assert!(plan.hours_until <= plan.five_until, "{plan:?}");
            }
        }
    }
}
