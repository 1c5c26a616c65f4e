//! Numbers and words as people read them.

use longhaul_sdk::protocol::lan::Delivery;

/// Bytes in decimal units with three digits: `1.25 GB`.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    // What rounds to 1000 is written in the next unit.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A count with its noun, digits in groups: `4,005 files`.
pub fn count(count: u64, noun: &str) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let plural = if count == 1 { "" } else { "s" };
    format!("{grouped} {noun}{plural}")
}

/// A time span in seconds: `0.8 s`, `42 s`, `3 min 20 s`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds of one push"
)]
pub fn seconds(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

/// Text from files and from the network, without what would move the cursor.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// How far an object has come.
pub fn delivery(delivery: Option<&Delivery>) -> String {
    match delivery {
        None => "unknown".to_owned(),
        Some(Delivery::OnBox) => "on box".to_owned(),
        Some(Delivery::InFlight) => "in flight".to_owned(),
        Some(Delivery::InCloud) => "in cloud".to_owned(),
        Some(Delivery::Verified) => "verified".to_owned(),
        Some(Delivery::Failed { reason }) => format!("failed: {}", printable(reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_254_000), "1.25 MB");
        assert_eq!(bytes(999_999), "1.00 MB");
        assert_eq!(bytes(268_435_456), "268 MB");
        assert_eq!(bytes(u64::MAX), "18447 PB");
        assert_eq!(count(1, "file"), "1 file");
        assert_eq!(count(1_234_567, "file"), "1,234,567 files");
        assert_eq!(seconds(0.84), "0.8 s");
        assert_eq!(seconds(200.2), "3 min 20 s");
        assert_eq!(printable("a\u{1b}[2Jb"), "a\u{fffd}[2Jb");
    }
}
