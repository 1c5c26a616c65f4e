//! One session's rules: what a packet from a box leads to.
//!
//! No IO and no clock: packets go in, answers are appended to `out`, and what concerns the cloud
//! comes back as a [`Step`].

use std::sync::Arc;

use bytes::BytesMut;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::topic::{self, Channel, Topic, Up};

use crate::reason::Reason;
use crate::registry::Handle;
use crate::subscriptions::Filter;
use crate::wire::encode;
use crate::wire::packet::{Packet, Publish, Qos};

/// What to do after a packet.
#[derive(Debug, Eq, PartialEq)]
pub enum Step<'a> {
    /// Nothing but to send what was appended.
    Done,
    /// A publish or subscription outside the box's topics was refused; otherwise as `Done`.
    Denied,
    /// Offer a message to the backbone, and acknowledge it when that has it.
    Offer {
        channel: Up,
        payload: &'a [u8],
        packet_id: Option<u16>,
    },
    /// The box says goodbye.
    Leave { without_will: bool },
}

/// One box's session; it lives as long as its connection.
#[derive(Debug)]
pub struct Session {
    box_id: BoxId,
    handle: Arc<Handle>,
    in_flight: Vec<u16>,
    window: usize,
    last_packet_id: u16,
}

impl Session {
    /// A new session that leaves at most `window` messages to the box unacknowledged.
    pub fn new(box_id: BoxId, handle: Arc<Handle>, window: u16) -> Self {
        Self {
            box_id,
            handle,
            in_flight: Vec::new(),
            window: usize::from(window),
            last_packet_id: 0,
        }
    }

    /// Applies one packet. The error is the reason to end the connection with.
    pub fn handle<'a>(
        &mut self,
        packet: Packet<'a>,
        out: &mut BytesMut,
    ) -> Result<Step<'a>, Reason> {
        match packet {
            Packet::Publish(publish) => self.publish(publish, out),
            Packet::PubAck { packet_id } => {
                if let Some(index) = self.in_flight.iter().position(|id| *id == packet_id) {
                    self.in_flight.swap_remove(index);
                }
                Ok(Step::Done)
            }
            Packet::Subscribe { packet_id, filters } => {
                Ok(self.subscribe(packet_id, &filters, out))
            }
            Packet::Unsubscribe { packet_id, filters } => {
                let codes: Vec<u8> = filters.iter().map(|f| self.unsubscribe(f)).collect();
                encode::unsuback(out, packet_id, &codes);
                Ok(Step::Done)
            }
            Packet::PingReq => {
                encode::pingresp(out);
                Ok(Step::Done)
            }
            Packet::Disconnect { without_will } => Ok(Step::Leave { without_will }),
        }
    }

    fn publish<'a>(&self, publish: Publish<'a>, out: &mut BytesMut) -> Result<Step<'a>, Reason> {
        let Some(channel) = own_channel(&self.box_id, publish.topic) else {
            // Without an acknowledgement there is no gentler way to say so.
            let packet_id = publish.packet_id.ok_or(Reason::NotAuthorized)?;
            encode::puback(out, packet_id, Reason::NotAuthorized);
            return Ok(Step::Denied);
        };
        Ok(Step::Offer {
            channel,
            payload: publish.payload,
            packet_id: publish.packet_id,
        })
    }

    fn subscribe(
        &self,
        packet_id: u16,
        filters: &[(&str, Qos)],
        out: &mut BytesMut,
    ) -> Step<'static> {
        let mut step = Step::Done;
        let mut codes = Vec::with_capacity(filters.len());
        for (filter, qos) in filters {
            codes.push(match Filter::parse(&self.box_id, filter) {
                Ok(filter) => {
                    self.handle.mailbox.subscribe(filter, *qos);
                    match qos {
                        Qos::AtMostOnce => 0,
                        Qos::AtLeastOnce => 1,
                    }
                }
                Err(reason) => {
                    step = Step::Denied;
                    reason.code()
                }
            });
        }
        encode::suback(out, packet_id, &codes);
        step
    }

    fn unsubscribe(&self, filter: &str) -> u8 {
        match Filter::parse(&self.box_id, filter) {
            Ok(filter) if self.handle.mailbox.unsubscribe(filter) => Reason::Success.code(),
            Ok(_) => Reason::NoSubscriptionExisted.code(),
            Err(reason) => reason.code(),
        }
    }

    /// Whether the box may be sent another message.
    pub fn has_window(&self) -> bool {
        self.in_flight.len() < self.window
    }

    /// Writes the next message that waits for the box, if there is one and it may be sent.
    pub fn write_next(&mut self, out: &mut BytesMut) -> bool {
        if !self.has_window() {
            return false;
        }
        let Some(letter) = self.handle.mailbox.pop() else {
            return false;
        };
        let packet_id = match letter.qos {
            Qos::AtMostOnce => 0,
            Qos::AtLeastOnce => {
                let packet_id = self.free_packet_id();
                self.in_flight.push(packet_id);
                packet_id
            }
        };
        let topic = Topic::dn(self.box_id.clone(), letter.channel).to_string();
        encode::publish(out, &topic, letter.qos, packet_id, &letter.payload);
        true
    }

    /// The next identifier that is not in flight; the window is far smaller than their number.
    fn free_packet_id(&mut self) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            if !self.in_flight.contains(&self.last_packet_id) {
                return self.last_packet_id;
            }
        }
    }
}

/// The channel of `topic`, if it is one that `box_id` may publish.
pub fn own_channel(box_id: &BoxId, topic: &str) -> Option<Up> {
    if !topic::may_publish(box_id, topic) {
        return None;
    }
    match topic.parse::<Topic>().ok()?.channel {
        Channel::Up(channel) => Some(channel),
        Channel::Dn(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use longhaul_protocol::topic::Dn;

    use super::*;
    use crate::mailbox::{Delivery, Limits, Mailbox};
    use crate::registry::Registry;

    const ME: &str = "0123456789AB";

    fn session(window: u16) -> Session {
        let id: BoxId = ME.parse().expect("a box id");
        let mailbox = Mailbox::new(Limits {
            messages: 10,
            bytes: 1000,
            payload_bytes: 100,
        });
        let seat = Arc::new(Registry::new(1))
            .enter(&id, mailbox)
            .expect("room for one");
        let handle = Arc::clone(seat.handle());
        // The seat would close the mailbox; these tests are about the session alone.
        std::mem::forget(seat);
        Session::new(id, handle, window)
    }

    fn publish(topic: &str, packet_id: Option<u16>) -> Packet<'_> {
        Packet::Publish(Publish {
            topic,
            payload: b"x",
            packet_id,
        })
    }

    #[test]
    fn a_message_on_an_own_topic_is_offered_and_not_yet_acknowledged() {
        let (mut session, mut out) = (session(1), BytesMut::new());
        let topic = format!("fleet/v1/{ME}/up/journal");

        let step = session.handle(publish(&topic, Some(9)), &mut out);

        assert_eq!(
            step,
            Ok(Step::Offer {
                channel: Up::Journal,
                payload: b"x",
                packet_id: Some(9)
            })
        );
        assert!(out.is_empty());
    }

    #[test]
    fn a_message_elsewhere_is_refused_and_ends_the_session_if_it_cannot_be_told() {
        let (mut session, mut out) = (session(1), BytesMut::new());
        for topic in [
            "fleet/v1/ZZZZZZZZZZZZ/up/journal",
            "fleet/v1/0123456789AB/dn/command",
            "x",
        ] {
            out.clear();
            let step = session.handle(publish(topic, Some(9)), &mut out);
            assert_eq!(step, Ok(Step::Denied), "{topic}");
            assert_eq!(&out[..], [0x40, 3, 0, 9, 0x87], "{topic}");

            let step = session.handle(publish(topic, None), &mut out);
            assert_eq!(step, Err(Reason::NotAuthorized), "{topic}");
        }
    }

    #[test]
    fn messages_to_the_box_wait_for_its_window() {
        let (mut session, mut out) = (session(2), BytesMut::new());
        let filter = format!("fleet/v1/{ME}/dn/#");
        let filters = vec![(filter.as_str(), Qos::AtLeastOnce), ("#", Qos::AtMostOnce)];

        let step = session.handle(
            Packet::Subscribe {
                packet_id: 3,
                filters,
            },
            &mut out,
        );
        assert_eq!(step, Ok(Step::Denied));
        assert_eq!(&out[..], [0x90, 5, 0, 3, 0, 1, 0x87]);
        for _ in 0..3 {
            let delivery = session.handle.mailbox.push(Dn::Ack, Bytes::from("1"));
            assert_eq!(delivery, Delivery::Queued);
        }

        assert!(session.write_next(&mut out));
        assert!(session.write_next(&mut out));
        assert!(!session.write_next(&mut out), "two are in flight");
        let ack = Packet::PubAck { packet_id: 1 };
        assert_eq!(session.handle(ack, &mut out), Ok(Step::Done));
        assert!(session.write_next(&mut out));
        assert_eq!(
            session.in_flight,
            [3, 2]
                .map(|id: u16| id)
                .iter()
                .rev()
                .copied()
                .collect::<Vec<_>>()
        );
    }
}
