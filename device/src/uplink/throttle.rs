//! Holds everything that leaves for the buckets to the policy in force.

use std::sync::Arc;
use std::time::Duration;

use longhaul_protocol::uplink::{Priority, UplinkMode, UplinkPolicy, UplinkState};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::holds::Holds;
use super::meter::{Leave, Meter};
use super::turns::{Gate, Pass};
use crate::clock::Now;

/// The hour is looked at this often, whatever rings.
const LOOK: Duration = Duration::from_millis(500);
/// A request that is held in its middle is cut off after this: the store would hang up soon.
const HOLD: Duration = Duration::from_secs(5);

/// Sending was held up for long: by a pause, or by the hour.
#[derive(Debug, thiserror::Error)]
#[error("sending is paused")]
pub(super) struct Held;

/// What every sender asks. Clones share one limit.
#[derive(Clone)]
pub(super) struct Throttle {
    meter: Arc<Mutex<Meter>>,
    /// Rung when another policy or hour has begun.
    changed: Arc<Notify>,
    streams: Gate,
    holds: Holds,
    state: watch::Sender<UplinkState>,
    clock: fn() -> Now,
}

impl Throttle {
    /// By this policy, until [`Throttle::run`] hears of another.
    pub fn new(
        policy: UplinkPolicy,
        holds: Holds,
        state: watch::Sender<UplinkState>,
        clock: fn() -> Now,
    ) -> Self {
        let now = clock();
        let mut meter = Meter::new(policy, now);
        let streams = Gate::new(meter.streams(now));
        state.send_replace(meter.state(now));
        Self {
            meter: Arc::new(Mutex::new(meter)),
            changed: Arc::default(),
            streams,
            holds,
            state,
            clock,
        }
    }

    /// Follows the policy and the hour until `stop`.
    pub async fn run(&self, mut policy: watch::Receiver<UplinkPolicy>, stop: CancellationToken) {
        loop {
            self.look(Some(policy.borrow_and_update().clone()));
            tokio::select! {
                () = stop.cancelled() => return,
                changed = policy.changed() => {
                    if changed.is_err() {
                        return self.watch_hours(stop).await;
                    }
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn watch_hours(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.look(None);
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn look(&self, policy: Option<UplinkPolicy>) {
        let now = (self.clock)();
        let (room, state) = {
            let mut meter = self.meter.lock();
            if let Some(policy) = policy.filter(|policy| policy != meter.policy()) {
                tracing::info!(
                    paused = policy.paused,
                    limited = policy.week.is_some(),
                    "another policy of the uplink is in force"
                );
                meter.set(policy, now);
            }
            let state = UplinkState {
                code: self.holds.code(),
                ..meter.state(now)
            };
            (meter.streams(now), state)
        };
        self.streams.set_room(room);
        let changed = self.state.send_if_modified(|shown| {
            let changed = *shown != state;
            *shown = state;
            changed
        });
        if changed {
            self.changed.notify_waiters();
        }
    }

    /// What is in force, as it changes.
    pub fn watch(&self) -> watch::Receiver<UplinkState> {
        self.state.subscribe()
    }

    /// Whether nothing may be sent now.
    pub fn is_held(&self) -> bool {
        self.state.borrow().state != UplinkMode::Sending
    }

    /// How urgent a bucket is.
    pub fn priority(&self, bucket: &str) -> Priority {
        self.meter.lock().policy().priority(bucket)
    }

    /// The priorities in force.
    pub fn policy(&self) -> UplinkPolicy {
        self.meter.lock().policy().clone()
    }

    /// Waits until another request may begin.
    pub async fn stream(&self, priority: Priority) -> Pass {
        self.streams.enter(priority).await
    }

    /// The longest piece to ask for, in bytes.
    pub fn piece(&self) -> usize {
        self.meter.lock().piece()
    }

    /// Waits until `bytes` may go.
    pub async fn pass(&self, bytes: usize) -> Result<(), Held> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let mut held_since: Option<Instant> = None;
        loop {
            let now = (self.clock)();
            let pause = match self.meter.lock().take(bytes, now) {
                Leave::Go => return Ok(()),
                Leave::Wait(until) => {
                    held_since = None;
                    Duration::from_millis(until.saturating_sub(now.mono_ms))
                }
                Leave::Held => {
                    let since = *held_since.get_or_insert_with(Instant::now);
                    HOLD.checked_sub(since.elapsed()).ok_or(Held)?
                }
            };
            // A change that is missed here is seen after a moment.
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(pause.min(LOOK)) => {}
            }
        }
    }
}
