//! rumqttd's Router in this process, used as a hub.
//!
//! Everything from boxes crosses it over one permanent pair of links on one fixed topic, with the
//! box's own topic inside. A link for each box would cost 40 KiB and more, and its topics and
//! filters would never be freed (`docs/adr/0001`). The Router drops messages without a word when
//! its log is full, so the bank hands out less room than the log has; and it can panic, so a
//! canary crosses it every second and its end is reported.

use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{Packet, Publish};
use rumqttd::{Forward, Notification, Router, RouterConfig};
use tokio::sync::{mpsc, oneshot};

use super::hub_message::{self, HubMessage};
use super::{Backbone, BackboneError, Bank, Credit, Message, Reserving};
use crate::incoming::{Incoming, Upward};

/// The one topic inside the Router.
///
/// Its length makes the Router's log bound its memory. The log counts four bytes, the topic and
/// the payload of a message; what it allocates is 330 to 550 bytes more than the payload. With a
/// topic of three characters, a log of 32 MiB full of tiny messages was measured at 450 MB; with
/// this one, at 55. The topic itself is static: it is never copied.
const HUB_TOPIC: &str = match str::from_utf8(&[b'h'; 512]) {
    Ok(topic) => topic,
    Err(_) => panic!("not ASCII"),
};

/// Messages that the Router hands to the outgoing link at once.
const MAX_OUTGOING: u64 = 200;

/// Messages that are handed to the Router at once.
const MAX_BATCH: usize = 256;

const CANARY_EVERY: Duration = Duration::from_secs(1);
const CANARY_LIMIT: Duration = Duration::from_secs(15);
const START_LIMIT: Duration = Duration::from_secs(15);

/// The way into the Router.
#[derive(Debug)]
pub struct RouterBackbone {
    feed: flume::Sender<Bytes>,
    bank: Bank,
    epoch: Instant,
}

/// The way out of the Router; must be run for messages to arrive.
#[derive(Debug)]
pub struct Outlet {
    link: LinkRx,
    feed: flume::Sender<Bytes>,
    bank: Bank,
    out: mpsc::UnboundedSender<Upward>,
    epoch: Instant,
    last_offset: Option<u64>,
    canary: Canary,
}

#[derive(Debug, Default)]
struct Canary {
    number: u64,
    sent: Option<Instant>,
}

/// Starts a Router that holds up to `backlog_bytes` of messages that were not taken yet.
pub async fn start(
    backlog_bytes: usize,
) -> Result<(RouterBackbone, Outlet, Incoming), BackboneError> {
    start_on(HUB_TOPIC, backlog_bytes).await
}

async fn start_on(
    topic: &'static str,
    backlog_bytes: usize,
) -> Result<(RouterBackbone, Outlet, Incoming), BackboneError> {
    let (feed, inflow) = flume::unbounded();
    let (ready, link) = oneshot::channel();
    thread::Builder::new()
        .name("edge-backbone".to_owned())
        .spawn(move || feed_router(topic, backlog_bytes, &inflow, ready))
        .map_err(|_| BackboneError::RouterDied)?;
    let link = tokio::time::timeout(START_LIMIT, link)
        .await
        .map_err(|_| BackboneError::RouterStalled(START_LIMIT.as_secs()))?
        .map_err(|_| BackboneError::RouterDied)?;
    let bank = Bank::new(backlog_bytes);
    let epoch = Instant::now();
    // Unbounded in form; in fact the bank bounds it.
    let (out, queue) = mpsc::unbounded_channel();
    let incoming = Incoming::new(queue, bank.semaphore());
    let backbone = RouterBackbone {
        feed: feed.clone(),
        bank: bank.clone(),
        epoch,
    };
    let outlet = Outlet {
        link,
        feed,
        bank,
        out,
        epoch,
        last_offset: None,
        canary: Canary::default(),
    };
    Ok((backbone, outlet, incoming))
}

/// A log that holds `backlog_bytes` whatever the boundaries of its segments.
fn router_config(backlog_bytes: usize) -> RouterConfig {
    let max_segment_size = (backlog_bytes / 16).clamp(64 * 1024, 4 * 1024 * 1024);
    RouterConfig {
        max_connections: 8,
        max_outgoing_packet_count: MAX_OUTGOING,
        max_segment_size,
        // One for the rounding, one for the segment that is dropped to begin another, and one for
        // canaries, which pass without credit.
        max_segment_count: backlog_bytes / max_segment_size + 3,
        ..RouterConfig::default()
    }
}

/// Makes the links and feeds the Router, on a thread of its own because both can block.
///
/// A Router's handle has a type that cannot be named outside rumqttd, so it never leaves here.
fn feed_router(
    topic: &'static str,
    backlog_bytes: usize,
    inflow: &flume::Receiver<Bytes>,
    ready: oneshot::Sender<LinkRx>,
) {
    let router = Router::new(0, router_config(backlog_bytes)).spawn();
    let links = || {
        let (inlet, acks, _) = LinkBuilder::new("edge-in", router.clone()).build().ok()?;
        let (mut subscriber, link, _) = LinkBuilder::new("edge-out", router).build().ok()?;
        subscriber.subscribe(topic).ok()?;
        Some((inlet, acks, subscriber, link))
    };
    // Links that cannot be made, and later a message that cannot be handed over, mean that the
    // Router is gone; the other end notices by itself.
    let Some((mut inlet, _acks, _subscriber, link)) = links() else {
        return;
    };
    if ready.send(link).is_err() {
        return;
    }
    while let Ok(first) = inflow.recv() {
        if !feed_batch(topic, &mut inlet, first, inflow) {
            return;
        }
    }
}

/// Hands over `first` and what else waits, waking the Router once; `false` if it is gone.
fn feed_batch(
    topic: &'static str,
    inlet: &mut LinkTx,
    first: Bytes,
    inflow: &flume::Receiver<Bytes>,
) -> bool {
    let mut last = first;
    let mut batch = inlet.buffer();
    for next in inflow.try_iter().take(MAX_BATCH) {
        let message = std::mem::replace(&mut last, next);
        batch.push_back(packet(topic, message));
    }
    drop(batch);
    inlet.publish(topic, last).is_ok()
}

fn packet(topic: &'static str, payload: Bytes) -> Packet {
    let publish = Publish::new(Bytes::from_static(topic.as_bytes()), payload, false);
    Packet::Publish(publish, None)
}

impl Backbone for RouterBackbone {
    fn try_reserve(&self, payload_len: usize) -> Option<Credit> {
        self.bank.try_reserve(payload_len)
    }

    fn has_spare(&self) -> bool {
        self.bank.has_spare()
    }

    fn reserve(&self, payload_len: usize) -> Reserving {
        self.bank.reserve(payload_len)
    }

    fn submit(&self, message: Message<'_>, credit: Credit) {
        credit.spend();
        // Fails only when the Router is gone, which ends the process.
        let _ = self.feed.send(hub_message::encode(message, self.epoch));
    }
}

impl RouterBackbone {
    /// Lets what was submitted come out, then ends the outlet.
    pub fn end(&self) {
        let _ = self.feed.send(hub_message::end());
    }
}

impl Outlet {
    /// Carries messages out until [`RouterBackbone::end`], or until the Router fails.
    pub async fn run(mut self) -> Result<(), BackboneError> {
        let result = self.carry().await;
        // Nobody should wait for room that will never come.
        self.bank.close();
        result
    }

    async fn carry(&mut self) -> Result<(), BackboneError> {
        let mut tick = tokio::time::interval(CANARY_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                notification = self.link.next() => {
                    let notification = notification.map_err(|_| BackboneError::RouterDied)?;
                    if self.notified(notification).await? {
                        return Ok(());
                    }
                }
                _ = tick.tick() => self.check_canary()?,
            }
        }
    }

    /// Whether this was the end.
    async fn notified(
        &mut self,
        notification: Option<Notification>,
    ) -> Result<bool, BackboneError> {
        match notification {
            Some(Notification::Forward(forward)) => return self.forward(forward),
            // The Router filled the link's window and waits to be told that it was read. It panics
            // if told so by a link that has left; this one never leaves.
            Some(Notification::Unschedule) => {
                match tokio::time::timeout(CANARY_LIMIT, self.link.wake()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Err(BackboneError::RouterDied),
                    Err(_) => return Err(BackboneError::RouterStalled(CANARY_LIMIT.as_secs())),
                }
            }
            _ => {}
        }
        Ok(false)
    }

    fn forward(&mut self, forward: Forward) -> Result<bool, BackboneError> {
        // One filter's offsets are consecutive; a gap is a loss that the Router did not report.
        if let Some((_, offset)) = forward.cursor {
            let expected = self.last_offset.map_or(offset, |last| last + 1);
            if offset > expected {
                return Err(BackboneError::RouterLost(offset - expected));
            }
            self.last_offset = Some(offset);
        }
        match hub_message::decode(forward.publish.payload, self.epoch) {
            Some(HubMessage::Message(message)) => {
                self.out
                    .send(message)
                    .map_err(|_| BackboneError::ConsumerGone)?;
                Ok(false)
            }
            Some(HubMessage::Canary(number)) => {
                if number == self.canary.number {
                    self.canary.sent = None;
                }
                Ok(false)
            }
            Some(HubMessage::End) => Ok(true),
            None => Err(BackboneError::RouterGarbled),
        }
    }

    fn check_canary(&mut self) -> Result<(), BackboneError> {
        if self.out.is_closed() {
            return Err(BackboneError::ConsumerGone);
        }
        match self.canary.sent {
            Some(sent) if sent.elapsed() >= CANARY_LIMIT => {
                Err(BackboneError::RouterStalled(sent.elapsed().as_secs()))
            }
            Some(_) => Ok(()),
            None => {
                self.canary.number += 1;
                self.canary.sent = Some(Instant::now());
                self.feed
                    .send(hub_message::canary(self.canary.number))
                    .map_err(|_| BackboneError::RouterDied)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use longhaul_protocol::ids::BoxId;
    use longhaul_protocol::topic::Up;

    use super::*;

    fn box_id() -> BoxId {
        "0123456789AB".parse().expect("a box id")
    }

    fn submit(backbone: &RouterBackbone, payload: &[u8], credit: Credit) {
        let message = Message {
            box_id: &box_id(),
            channel: Up::Journal,
            payload,
            received: Instant::now(),
        };
        backbone.submit(message, credit);
    }

    #[tokio::test]
    async fn a_backlog_far_below_the_traffic_loses_nothing() {
        let (backbone, outlet, mut incoming) = start(256 * 1024).await.expect("a router");
        let outlet = tokio::spawn(outlet.run());
        let count = 20_000_u32;

        let sender = tokio::spawn(async move {
            for number in 0..count {
                let mut payload = vec![0; 300];
                payload[..4].copy_from_slice(&number.to_be_bytes());
                let credit = backbone.reserve(payload.len()).await.expect("room");
                submit(&backbone, &payload, credit);
            }
            backbone.end();
        });
        let mut expected = 0_u32;
        while let Some(message) = incoming.recv().await {
            assert_eq!(&message.payload[..4], &expected.to_be_bytes());
            expected += 1;
        }

        assert_eq!(expected, count);
        sender.await.expect("sent");
        assert_eq!(outlet.await.expect("ran"), Ok(()));
    }

    #[tokio::test]
    async fn room_runs_out_when_nothing_is_taken_and_comes_back_when_it_is() {
        let (backbone, outlet, mut incoming) = start(6000).await.expect("a router");
        let outlet = tokio::spawn(outlet.run());
        let mut accepted = 0;
        while let Some(credit) = backbone.try_reserve(1000) {
            submit(&backbone, &[7; 1000], credit);
            accepted += 1;
        }
        assert_eq!(accepted, 3);

        incoming.recv().await.expect("the first");

        assert!(backbone.try_reserve(1000).is_some());
        drop(incoming);
        assert_eq!(outlet.await.expect("ran"), Err(BackboneError::ConsumerGone));
    }

    #[tokio::test]
    async fn the_death_of_the_router_is_reported_and_nobody_waits_for_room() {
        // A topic that begins with a character of two bytes makes the Router panic.
        let (backbone, outlet, _incoming) = start_on("é", 4096).await.expect("a router");
        let mut held = Vec::new();
        while let Some(credit) = backbone.try_reserve(1000) {
            held.push(credit);
        }
        let waiting = tokio::spawn(backbone.reserve(1000));

        let result = outlet.run().await;

        assert_eq!(result, Err(BackboneError::RouterDied));
        assert!(waiting.await.expect("ran").is_none());
    }
}
