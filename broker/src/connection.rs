//! One connection's loop: bytes in, rules, answers and messages out, and every deadline.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::topic::Up;
use tokio::time::{Instant, sleep_until};

use crate::backbone::{Backbone, Credit, Message, Reserving};
use crate::config::EdgeConfig;
use crate::rate::Bucket;
use crate::reason::Reason;
use crate::registry::Handle;
use crate::session::{Session, Step};
use crate::stats::Counters;
use crate::transport::Transport;
use crate::wire::encode;
use crate::wire::frame::{self, Frame};
use crate::wire::packet::Packet;

/// Unwritten bytes at which a connection is neither read nor given more to write: a peer that
/// does not read its answers gets to ask no more.
const HIGH_WATER: usize = 64 * 1024;

/// How a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The box said goodbye.
    #[error("the box left")]
    Left { without_will: bool },
    /// The edge ends it and says why.
    #[error("closed: {0}")]
    Closed(Reason),
    /// The peer closed, or the network did.
    #[error("lost: {0}")]
    Lost(io::Error),
    /// The backbone has ended, and the process will.
    #[error("the backbone has ended")]
    NoBackbone,
}

/// A running connection. Dropping it drops the socket.
pub struct Connection {
    pub transport: Transport,
    box_id: BoxId,
    handle: Arc<Handle>,
    session: Session,
    backbone: Arc<dyn Backbone>,
    counters: Arc<Counters>,
    max_packet_len: usize,
    quota_wait: Duration,
    write_stall: Duration,
    keep_alive: Duration,
    certificate_end: Instant,
    packets: Bucket,
    bytes: Bucket,
    heard: Instant,
    /// Not to be read before.
    resume: Option<Instant>,
    /// A message that waits for room in the backlog.
    waiting: Option<Waiting>,
    /// The last message found no room: the next one does not wait for it again.
    out_of_room: bool,
}

struct Waiting {
    channel: Up,
    payload: Bytes,
    packet_id: u16,
    room: Reserving,
    give_up: Instant,
}

/// What a connection was granted at CONNECT.
#[derive(Clone, Copy, Debug)]
pub struct Granted {
    pub keep_alive_secs: u16,
    pub window: u16,
    pub certificate_end: Instant,
}

impl Connection {
    pub fn new(
        transport: Transport,
        box_id: BoxId,
        handle: Arc<Handle>,
        granted: Granted,
        config: &EdgeConfig,
        backbone: Arc<dyn Backbone>,
        counters: Arc<Counters>,
    ) -> Self {
        let now = Instant::now();
        Self {
            transport,
            session: Session::new(box_id.clone(), Arc::clone(&handle), granted.window),
            box_id,
            handle,
            backbone,
            counters,
            max_packet_len: config.max_packet_len(),
            quota_wait: config.quota_wait(),
            write_stall: config.write_stall(),
            // One and a half times what was agreed (MQTT 5.0, 3.1.2.10).
            keep_alive: Duration::from_millis(u64::from(granted.keep_alive_secs) * 1500),
            certificate_end: granted.certificate_end,
            packets: Bucket::new(config.max_packets_per_second, config.packet_burst, now),
            bytes: Bucket::new(config.max_bytes_per_second, config.byte_burst, now),
            heard: now,
            resume: None,
            waiting: None,
            out_of_room: false,
        }
    }

    pub fn into_transport(self) -> Transport {
        self.transport
    }

    /// Serves the connection until it ends.
    pub async fn run(&mut self) -> End {
        let mut alarm = pin!(sleep_until(Instant::now()));
        loop {
            if let Err(end) = self.work() {
                return end;
            }
            let deadline = self.deadline();
            // An alarm that is too early costs one more turn; re-arming at each turn costs more.
            if alarm.is_elapsed() || deadline < alarm.deadline() {
                alarm.as_mut().reset(deadline);
            }
            let (reading, mail) = (self.may_read(), self.may_write());
            tokio::select! {
                biased;
                reason = self.handle.ended() => return End::Closed(reason),
                result = poll_fn(|cx| self.transport.poll(cx, reading)) => {
                    if let Err(error) = result {
                        return End::Lost(error);
                    }
                }
                credit = room(self.waiting.as_mut()) => match credit {
                    Some(credit) => self.found_room(credit),
                    None => return End::NoBackbone,
                },
                () = self.handle.mailbox.ready(), if mail => {}
                () = &mut alarm => {}
            }
        }
    }

    /// Does everything that can be done without waiting.
    fn work(&mut self) -> Result<(), End> {
        let now = Instant::now();
        self.check_deadlines(now)?;
        self.take_packets(now)?;
        if !self.may_read() {
            // A box that is not read cannot be heard.
            self.heard = now;
        }
        while self.may_write() && self.session.write_next(&mut self.transport.outbox) {
            self.counters.messages_down.add(1);
        }
        Ok(())
    }

    fn check_deadlines(&mut self, now: Instant) -> Result<(), End> {
        if self.resume.is_some_and(|at| at <= now) {
            self.resume = None;
        }
        if self.waiting.as_ref().is_some_and(|w| w.give_up <= now)
            && let Some(waiting) = self.waiting.take()
        {
            self.out_of_room = true;
            self.refuse(waiting.packet_id);
        }
        if self.heard + self.keep_alive <= now {
            return Err(End::Closed(Reason::KeepAliveTimeout));
        }
        if self.certificate_end <= now {
            return Err(End::Closed(Reason::MaximumConnectTime));
        }
        match self.transport.blocked_since() {
            Some(since) if since + self.write_stall <= now => {
                Err(End::Lost(io::ErrorKind::TimedOut.into()))
            }
            _ => Ok(()),
        }
    }

    /// When [`Self::check_deadlines`] next has something to say.
    fn deadline(&self) -> Instant {
        let end = (self.heard + self.keep_alive).min(self.certificate_end);
        let stall = self
            .transport
            .blocked_since()
            .map(|at| at + self.write_stall);
        let give_up = self.waiting.as_ref().map(|waiting| waiting.give_up);
        [self.resume, stall, give_up]
            .into_iter()
            .flatten()
            .fold(end, Instant::min)
    }

    fn may_read(&self) -> bool {
        self.waiting.is_none() && self.resume.is_none() && self.has_outbox_room()
    }

    fn may_write(&self) -> bool {
        self.session.has_window() && self.has_outbox_room()
    }

    fn has_outbox_room(&self) -> bool {
        self.transport.outbox.len() < HIGH_WATER
    }

    /// Takes the whole packets that have arrived, as far as the box may be read.
    fn take_packets(&mut self, now: Instant) -> Result<(), End> {
        let mut inbox = std::mem::take(&mut self.transport.inbox);
        while self.may_read() {
            let frame = frame::first(&inbox, self.max_packet_len).map_err(End::Closed)?;
            let Some(frame) = frame else { break };
            let len = frame.len;
            self.take_packet(frame, now)?;
            inbox.advance(len);
        }
        if !inbox.is_empty() {
            self.transport.inbox = inbox;
        }
        Ok(())
    }

    fn take_packet(&mut self, frame: Frame<'_>, now: Instant) -> Result<(), End> {
        self.heard = now;
        let len = u32::try_from(frame.len).unwrap_or(u32::MAX);
        let wait = self.packets.take(1, now).max(self.bytes.take(len, now));
        if !wait.is_zero() {
            self.resume = Some(now + wait);
        }
        let step = Packet::parse(frame)
            .and_then(|packet| self.session.handle(packet, &mut self.transport.outbox))
            .map_err(End::Closed)?;
        match step {
            Step::Done => {}
            Step::Denied => self.counters.not_authorized.add(1),
            Step::Leave { without_will } => return Err(End::Left { without_will }),
            Step::Offer {
                channel,
                payload,
                packet_id,
            } => self.offer(channel, payload, packet_id, now),
        }
        Ok(())
    }

    fn offer(&mut self, channel: Up, payload: &[u8], packet_id: Option<u16>, now: Instant) {
        // Loss is acceptable at quality of service 0: the last of the room is for the rest.
        if packet_id.is_none() && !self.backbone.has_spare() {
            self.counters.qos0_dropped.add(1);
            return;
        }
        match (self.backbone.try_reserve(payload.len()), packet_id) {
            (Some(credit), _) => self.submit(channel, payload, packet_id, credit),
            (None, None) => self.counters.qos0_dropped.add(1),
            (None, Some(packet_id)) if self.out_of_room => self.refuse(packet_id),
            (None, Some(packet_id)) => {
                self.waiting = Some(Waiting {
                    channel,
                    room: self.backbone.reserve(payload.len()),
                    payload: Bytes::copy_from_slice(payload),
                    packet_id,
                    give_up: now + self.quota_wait,
                });
            }
        }
    }

    fn found_room(&mut self, credit: Credit) {
        if let Some(waiting) = self.waiting.take() {
            let packet_id = Some(waiting.packet_id);
            self.submit(waiting.channel, &waiting.payload, packet_id, credit);
        }
    }

    fn submit(&mut self, channel: Up, payload: &[u8], packet_id: Option<u16>, credit: Credit) {
        let message = Message {
            box_id: &self.box_id,
            channel,
            payload,
            received: Instant::now().into_std(),
        };
        self.out_of_room = false;
        self.counters.messages_up.add(1);
        let len = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        self.counters.bytes_up.add(len);
        self.backbone.submit(message, credit);
        if let Some(packet_id) = packet_id {
            encode::puback(&mut self.transport.outbox, packet_id, Reason::Success);
        }
    }

    fn refuse(&mut self, packet_id: u16) {
        self.counters.quota_exceeded.add(1);
        encode::puback(&mut self.transport.outbox, packet_id, Reason::QuotaExceeded);
    }
}

/// Room for the message that waits; for ever if none does.
async fn room(waiting: Option<&mut Waiting>) -> Option<Credit> {
    match waiting {
        Some(waiting) => waiting.room.as_mut().await,
        None => std::future::pending().await,
    }
}
