//! Waiting for a condition, never for a time.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

/// A condition did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("waited {} s for {what}; last seen: {seen}", waited.as_secs())]
pub struct TimedOut {
    /// What was waited for.
    pub what: String,
    /// What was there instead.
    pub seen: String,
    /// For how long.
    pub waited: Duration,
}

/// Polls `probe` until it yields a value; what it yields otherwise is said on failure.
///
/// # Errors
///
/// [`TimedOut`] after `limit`.
pub async fn until<T, S: Display, F: Future<Output = Result<T, S>>>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> F,
) -> Result<T, TimedOut> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(20);
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(seen) if start.elapsed() >= limit => {
                return Err(TimedOut {
                    what: what.to_owned(),
                    seen: seen.to_string(),
                    waited: start.elapsed(),
                });
            }
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 3 / 2).min(Duration::from_millis(500));
    }
}
