//! What a rule sees of a box: a number from what the cloud knows of it. Pure.

use longhaul_protocol::telemetry::Telemetry;

use super::step::Seen;
use crate::store::alert_rules::AlertKind;
use crate::store::alerts::AlertSubject;
use crate::store::boxes::BoxState;

/// A sample that arrived longer ago says nothing about now, in milliseconds. Boxes send every minute,
/// at the least every quarter of an hour.
const SAMPLE_MS: i64 = 20 * 60_000;
/// Failures are counted over an hour, in milliseconds.
pub const FAILURES_MS: i64 = 3_600_000;

/// A box, its sample read once for all rules.
#[derive(Debug)]
pub struct Subject<'a> {
    row: &'a AlertSubject,
    sample: Option<Telemetry>,
}

impl<'a> Subject<'a> {
    /// Reads the sample, unless it is too old to count at `now`.
    pub fn new(row: &'a AlertSubject, now: i64) -> Self {
        let fresh = row
            .sampled
            .is_some_and(|at| now.saturating_sub(at) <= SAMPLE_MS);
        let sample = row.sample.as_deref().filter(|_| fresh);
        Self {
            row,
            sample: sample.and_then(|text| serde_json::from_str(text).ok()),
        }
    }

    /// What a rule of this kind sees at `now`.
    pub fn seen(&self, kind: AlertKind, now: i64) -> Seen {
        // A box that never came is nobody's trouble yet, one that was thrown out nobody's any more.
        let serves = matches!(self.row.state, BoxState::Active | BoxState::Quarantined);
        let Some(since) = self.row.connected_since.filter(|_| serves) else {
            return Seen::Gone;
        };
        let ago = |at: i64| now.saturating_sub(at).max(0);
        match kind {
            AlertKind::OfflineMinutes if self.row.connected => Seen::Value(0.0),
            AlertKind::OfflineMinutes => Seen::Value(float(ago(since)) / 60_000.0),
            // It renews on its own when it comes back; until then its absence is the trouble.
            AlertKind::CertificateHours if !self.row.connected => Seen::Unknown,
            AlertKind::CertificateHours => match self.row.certificate_expires {
                Some(expires) => Seen::Value(float(expires.saturating_sub(now)) / 3_600_000.0),
                None => Seen::Unknown,
            },
            AlertKind::DiskFreePercent => self.sampled(|sample| {
                let free = sample.disks.iter().filter(|d| d.total_bytes > 0);
                free.map(|d| percent(d.free_bytes, d.total_bytes))
                    .reduce(f64::min)
            }),
            AlertKind::Celsius => self.sampled(|sample| {
                let hot = sample.temperatures.iter().map(|t| t.celsius);
                hot.filter(|c| c.is_finite()).reduce(f64::max)
            }),
            AlertKind::VaultFillPercent => self.sampled(|sample| {
                let vault = sample.vault.filter(|v| v.capacity_bytes > 0)?;
                Some(percent(vault.used_bytes, vault.capacity_bytes))
            }),
            AlertKind::TransferMinutes => {
                let moved = self.row.upload_moved.map_or(0, ago);
                Seen::Value(float(moved) / 60_000.0)
            }
            AlertKind::FailuresPerHour => Seen::Value(float(self.row.failures)),
        }
    }

    fn sampled(&self, measure: impl FnOnce(&Telemetry) -> Option<f64>) -> Seen {
        let value = self.sample.as_ref().and_then(measure);
        value.map_or(Seen::Unknown, Seen::Value)
    }
}

/// A number in words: what it measures, and its unit.
pub fn say(kind: AlertKind, value: f64) -> String {
    match kind {
        AlertKind::OfflineMinutes => format!("offline for {value:.0} min"),
        AlertKind::DiskFreePercent => format!("{value:.1} % of a disk free"),
        AlertKind::Celsius => format!("{value:.1} °C"),
        AlertKind::CertificateHours => format!("certificate good for {value:.1} h"),
        AlertKind::VaultFillPercent => format!("vault {value:.1} % full"),
        AlertKind::TransferMinutes => format!("an upload has not moved for {value:.0} min"),
        AlertKind::FailuresPerHour => format!("{value:.0} failures within an hour"),
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    let share = u128::from(part).saturating_mul(10_000) / u128::from(whole.max(1));
    float(i64::try_from(share).unwrap_or(i64::MAX)) / 100.0
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nobody tells minutes or shares apart to 53 bits"
)]
fn float(value: i64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn subject() -> AlertSubject {
        let sample = json!({
            "uptime_secs": 1, "load_1m": 0.1, "memory_total_bytes": 2, "memory_available_bytes": 1,
            "disks": [
                { "mount": "/", "total_bytes": 1000, "free_bytes": 500 },
                { "mount": "/data", "total_bytes": 1000, "free_bytes": 55 },
                { "mount": "/none", "total_bytes": 0, "free_bytes": 0 },
            ],
            "temperatures": [{ "sensor": "cpu", "celsius": 61.5 }, { "sensor": "ssd", "celsius": 40.0 }],
            "vault": { "capacity_bytes": 200, "used_bytes": 50, "objects": 1, "pending_objects": 1, "pending_bytes": 1 },
        });
        AlertSubject {
            box_id: "TESTB0X00001".parse().expect("a box id"),
            label: String::new(),
            site: String::new(),
            state: BoxState::Active,
            connected: true,
            connected_since: Some(NOW - 600_000),
            certificate_expires: Some(NOW + 5_400_000),
            sampled: Some(NOW - 60_000),
            sample: Some(sample.to_string()),
            upload_moved: Some(NOW - 120_000),
            failures: 2,
        }
    }

    fn seen(row: &AlertSubject) -> Vec<Seen> {
        let subject = Subject::new(row, NOW);
        AlertKind::ALL
            .iter()
            .map(|kind| subject.seen(*kind, NOW))
            .collect()
    }

    #[test]
    fn every_kind_measures_what_it_says() {
        let values = [0.0, 5.5, 61.5, 1.5, 25.0, 2.0, 2.0];
        assert_eq!(seen(&subject()), values.map(Seen::Value));
    }

    #[test]
    fn of_a_box_that_is_away_only_that_and_its_transfers_are_known() {
        let mut row = subject();
        (row.connected, row.sampled) = (false, Some(NOW - 3_600_000));
        let all = seen(&row);
        assert_eq!(all[0], Seen::Value(10.0));
        assert!(all[1..5].iter().all(|s| *s == Seen::Unknown), "{all:?}");
        assert_eq!(all[5], Seen::Value(2.0));
    }

    #[test]
    fn what_never_came_or_was_thrown_out_concerns_no_rule() {
        let mut row = subject();
        row.connected_since = None;
        assert!(seen(&row).iter().all(|s| *s == Seen::Gone));
        let mut row = subject();
        row.state = BoxState::Revoked;
        assert!(seen(&row).iter().all(|s| *s == Seen::Gone));
    }

    #[test]
    fn a_sample_that_does_not_read_is_unknown() {
        let mut row = subject();
        row.sample = Some("{\"disks\": 7}".into());
        assert_eq!(seen(&row)[1], Seen::Unknown);
    }
}
