//! Messages on their way to one box.

use std::collections::VecDeque;

use bytes::Bytes;
use longhaul_protocol::topic::Dn;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::subscriptions::{Filter, Subscriptions};
use crate::wire::packet::Qos;

/// What became of a message to a box.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Delivery {
    /// It goes out next. Not proof that it arrives: the connection may end first.
    Queued,
    /// The box is not connected, or has not subscribed the channel.
    NotConnected,
    /// As much as may wait for one box is waiting already.
    Full,
    /// The box said, when it connected, that it takes no packet of this size.
    TooLarge,
}

/// The bounded queue between the cloud and one connection; it ends with the connection.
#[derive(Debug)]
pub struct Mailbox {
    limits: Limits,
    state: Mutex<State>,
    ready: Notify,
}

/// How much may wait, and how large a message may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub messages: usize,
    pub bytes: usize,
    pub payload_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    subscriptions: Subscriptions,
    letters: VecDeque<Letter>,
    bytes: usize,
}

/// One message to the box.
#[derive(Debug)]
pub struct Letter {
    pub channel: Dn,
    pub qos: Qos,
    pub payload: Bytes,
}

impl Mailbox {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: Mutex::default(),
            ready: Notify::new(),
        }
    }

    pub fn push(&self, channel: Dn, payload: Bytes) -> Delivery {
        let mut state = self.state.lock();
        let Some(qos) = state.subscriptions.qos(channel).filter(|_| !state.closed) else {
            return Delivery::NotConnected;
        };
        if payload.len() > self.limits.payload_bytes {
            return Delivery::TooLarge;
        }
        let bytes = state.bytes + payload.len();
        if state.letters.len() >= self.limits.messages || bytes > self.limits.bytes {
            return Delivery::Full;
        }
        state.bytes = bytes;
        state.letters.push_back(Letter {
            channel,
            qos,
            payload,
        });
        drop(state);
        self.ready.notify_one();
        Delivery::Queued
    }

    pub fn pop(&self) -> Option<Letter> {
        let mut state = self.state.lock();
        let letter = state.letters.pop_front()?;
        state.bytes -= letter.payload.len();
        if state.letters.is_empty() {
            // An idle connection holds no buffer.
            state.letters = VecDeque::new();
        }
        Some(letter)
    }

    /// Waits until something was pushed since the last wait; [`Self::pop`] may still find nothing.
    pub async fn ready(&self) {
        self.ready.notified().await;
    }

    pub fn subscribe(&self, filter: Filter, qos: Qos) {
        self.state.lock().subscriptions.add(filter, qos);
    }

    pub fn unsubscribe(&self, filter: Filter) -> bool {
        self.state.lock().subscriptions.remove(filter)
    }

    /// Refuses whatever comes and forgets what waits.
    pub fn close(&self) {
        *self.state.lock() = State {
            closed: true,
            ..State::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox() -> Mailbox {
        Mailbox::new(Limits {
            messages: 2,
            bytes: 100,
            payload_bytes: 80,
        })
    }

    fn payload(len: usize) -> Bytes {
        Bytes::from(vec![7; len])
    }

    #[test]
    fn nothing_is_queued_for_a_channel_that_is_not_subscribed() {
        let mailbox = mailbox();
        assert_eq!(mailbox.push(Dn::Ack, payload(1)), Delivery::NotConnected);

        mailbox.subscribe(Filter::One(Dn::Ack), Qos::AtLeastOnce);

        assert_eq!(mailbox.push(Dn::Ack, payload(1)), Delivery::Queued);
        assert_eq!(
            mailbox.push(Dn::Command, payload(1)),
            Delivery::NotConnected
        );
    }

    #[test]
    fn a_full_mailbox_says_so_and_takes_again_once_read() {
        let mailbox = mailbox();
        mailbox.subscribe(Filter::All, Qos::AtLeastOnce);

        assert_eq!(mailbox.push(Dn::Ack, payload(81)), Delivery::TooLarge);
        assert_eq!(mailbox.push(Dn::Ack, payload(60)), Delivery::Queued);
        assert_eq!(mailbox.push(Dn::Ack, payload(60)), Delivery::Full);
        assert_eq!(mailbox.push(Dn::Ack, payload(40)), Delivery::Queued);
        assert_eq!(mailbox.push(Dn::Ack, payload(0)), Delivery::Full);
        let first = mailbox.pop().expect("a letter");

        assert_eq!(first.payload.len(), 60);
        assert_eq!(mailbox.push(Dn::Ack, payload(60)), Delivery::Queued);
        mailbox.close();
        assert!(mailbox.pop().is_none());
        assert_eq!(mailbox.push(Dn::Ack, payload(1)), Delivery::NotConnected);
    }
}
