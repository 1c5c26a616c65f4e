//! How often the cloud is asked in vain before an update is given up.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::repository::Refused;
use super::state::Event;
use super::updater::{Done, Ended};
use crate::agent::backoff::Backoff;
use crate::cloud::CloudClient;

/// Waits between tries at the cloud: first ceiling and last, in milliseconds.
const RETRY_MS: (u64, u64) = (1_000, 120_000);
/// Tries without a new byte before an update is given up: more than a day.
const TRIES: u32 = 2_000;

/// How often the cloud has been asked in vain.
pub(super) struct Patience {
    backoff: Backoff,
    left: u32,
}

impl Patience {
    pub fn new() -> Self {
        Self {
            backoff: Backoff::new(RETRY_MS.0, RETRY_MS.1),
            left: TRIES,
        }
    }

    /// Waits until it may be tried again; `Some` where it may not.
    pub async fn wait(
        &mut self,
        refused: Refused,
        cloud: &CloudClient,
        stop: &CancellationToken,
    ) -> Option<Done> {
        let why = match refused {
            Refused::Never(why) => return Some(Done::Event(Event::Impossible(why))),
            Refused::Later(why) => why,
        };
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            let why = format!("given up after {TRIES} tries: {why}");
            return Some(Done::Event(Event::Impossible(why)));
        }
        let pause = Duration::from_millis(self.backoff.next(rand::random()));
        tracing::warn!(why, ?pause, "the update goes on later");
        let again = async {
            tokio::time::sleep(pause).await;
            cloud.enrolled().await
        };
        tokio::select! {
            () = stop.cancelled() => Some(Done::Ended(Ended::Stopped)),
            enrolled = again => (!enrolled).then_some(Done::Ended(Ended::Stopped)),
        }
    }
}
