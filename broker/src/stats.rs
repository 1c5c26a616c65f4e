//! Counters.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// A counter that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the edge counts while it runs.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub accepted: Counter,
    pub turned_away: Counter,
    pub handshakes_failed: Counter,
    pub handshakes_timed_out: Counter,
    pub connects_refused: Counter,
    pub connects: Counter,
    pub messages_up: Counter,
    pub bytes_up: Counter,
    pub messages_down: Counter,
    pub not_authorized: Counter,
    pub quota_exceeded: Counter,
    pub qos0_dropped: Counter,
    pub wills: Counter,
    pub panics: Counter,
}

/// The edge's counters at one moment; all but the first two only grow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Stats {
    /// Boxes connected.
    pub connected: u64,
    /// Connections that have not finished CONNECT.
    pub half_open: u64,
    /// TCP connections accepted.
    pub accepted: u64,
    /// TCP connections closed at once because too many were unfinished.
    pub turned_away: u64,
    /// Handshakes that failed: TLS, certificate or first packet.
    pub handshakes_failed: u64,
    /// Handshakes that took too long.
    pub handshakes_timed_out: u64,
    /// CONNECTs refused with a reason.
    pub connects_refused: u64,
    /// CONNECTs accepted.
    pub connects: u64,
    /// Messages accepted from boxes.
    pub messages_up: u64,
    /// Their payloads, in bytes.
    pub bytes_up: u64,
    /// Messages written to boxes.
    pub messages_down: u64,
    /// Publishes and subscriptions outside a box's own topics.
    pub not_authorized: u64,
    /// Messages of quality of service 1 refused because the backlog was full.
    pub quota_exceeded: u64,
    /// Messages of quality of service 0 dropped because the backlog was full.
    pub qos0_dropped: u64,
    /// Wills published.
    pub wills: u64,
    /// Connection tasks that panicked.
    pub panics: u64,
}

impl Counters {
    pub fn snapshot(&self, connected: usize, half_open: usize) -> Stats {
        let len = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        Stats {
            connected: len(connected),
            half_open: len(half_open),
            accepted: self.accepted.get(),
            turned_away: self.turned_away.get(),
            handshakes_failed: self.handshakes_failed.get(),
            handshakes_timed_out: self.handshakes_timed_out.get(),
            connects_refused: self.connects_refused.get(),
            connects: self.connects.get(),
            messages_up: self.messages_up.get(),
            bytes_up: self.bytes_up.get(),
            messages_down: self.messages_down.get(),
            not_authorized: self.not_authorized.get(),
            quota_exceeded: self.quota_exceeded.get(),
            qos0_dropped: self.qos0_dropped.get(),
            wills: self.wills.get(),
            panics: self.panics.get(),
        }
    }
}
