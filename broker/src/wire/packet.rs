//! The packets of a running session (MQTT 5.0, 3.3 to 3.14).

use super::frame::{Frame, Kind};
use super::property::{Properties, id};
use super::reader::Reader;
use crate::reason::Reason;

/// A quality of service that the edge offers.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Qos {
    AtMostOnce,
    AtLeastOnce,
}

/// A packet of a running session, borrowed from the stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Packet<'a> {
    Publish(Publish<'a>),
    PubAck {
        packet_id: u16,
    },
    Subscribe {
        packet_id: u16,
        filters: Vec<(&'a str, Qos)>,
    },
    Unsubscribe {
        packet_id: u16,
        filters: Vec<&'a str>,
    },
    PingReq,
    Disconnect {
        /// The reason was 0x00: the will is not to be published.
        without_will: bool,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Publish<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    /// The packet to acknowledge; `None` is quality of service 0.
    pub packet_id: Option<u16>,
}

/// Filters in one SUBSCRIBE or UNSUBSCRIBE; a box needs one.
const MAX_FILTERS: usize = 16;

const PUBLISH_PROPERTIES: &[u8] = &[
    id::PAYLOAD_FORMAT_INDICATOR,
    id::MESSAGE_EXPIRY_INTERVAL,
    id::TOPIC_ALIAS,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::USER_PROPERTY,
    id::CONTENT_TYPE,
];
const ACK_PROPERTIES: &[u8] = &[id::REASON_STRING, id::USER_PROPERTY];
const SUBSCRIBE_PROPERTIES: &[u8] = &[id::SUBSCRIPTION_IDENTIFIER, id::USER_PROPERTY];
const UNSUBSCRIBE_PROPERTIES: &[u8] = &[id::USER_PROPERTY];
const DISCONNECT_PROPERTIES: &[u8] = &[
    id::SESSION_EXPIRY_INTERVAL,
    id::REASON_STRING,
    id::USER_PROPERTY,
];

/// DISCONNECT's 0x04: leave, but publish the will.
const DISCONNECT_WITH_WILL: u8 = 0x04;

impl<'a> Packet<'a> {
    /// Parses a frame. The error is the reason to put into DISCONNECT.
    pub fn parse(frame: Frame<'a>) -> Result<Self, Reason> {
        let reader = Reader::new(frame.body);
        match frame.kind {
            // A second CONNECT on one connection (MQTT 5.0, 3.1).
            Kind::Connect => Err(Reason::ProtocolError),
            Kind::Publish => Publish::parse(frame.flags, reader).map(Self::Publish),
            Kind::PubAck => pub_ack(reader),
            Kind::Subscribe => subscribe(reader),
            Kind::Unsubscribe => unsubscribe(reader),
            Kind::PingReq if reader.is_empty() => Ok(Self::PingReq),
            Kind::PingReq => Err(Reason::MalformedPacket),
            Kind::Disconnect => disconnect(reader),
        }
    }
}

impl<'a> Publish<'a> {
    fn parse(flags: u8, mut reader: Reader<'a>) -> Result<Self, Reason> {
        let (dup, qos, retain) = (flags & 0x08 != 0, (flags >> 1) & 0x03, flags & 0x01 != 0);
        if retain {
            return Err(Reason::RetainNotSupported);
        }
        if qos > 1 {
            return Err(Reason::QosNotSupported);
        }
        if dup && qos == 0 {
            return Err(Reason::MalformedPacket);
        }
        let topic = reader.text()?;
        let packet_id = (qos == 1).then(|| reader.packet_id()).transpose()?;
        let mut properties = Properties::take(&mut reader, PUBLISH_PROPERTIES)?;
        while let Some((id, _)) = properties.next()? {
            if id == id::TOPIC_ALIAS {
                return Err(Reason::TopicAliasInvalid);
            }
        }
        Ok(Self {
            topic,
            payload: reader.rest(),
            packet_id,
        })
    }
}

fn pub_ack(mut reader: Reader<'_>) -> Result<Packet<'_>, Reason> {
    let packet_id = reader.packet_id()?;
    // The reason and the properties may be left out (MQTT 5.0, 3.4.2.1).
    if !reader.is_empty() {
        reader.u8()?;
    }
    if !reader.is_empty() {
        Properties::skip(&mut reader, ACK_PROPERTIES)?;
    }
    at_end(&reader)?;
    Ok(Packet::PubAck { packet_id })
}

fn subscribe(mut reader: Reader<'_>) -> Result<Packet<'_>, Reason> {
    let packet_id = reader.packet_id()?;
    let mut properties = Properties::take(&mut reader, SUBSCRIBE_PROPERTIES)?;
    while let Some((id, _)) = properties.next()? {
        if id == id::SUBSCRIPTION_IDENTIFIER {
            return Err(Reason::SubscriptionIdentifiersNotSupported);
        }
    }
    let mut filters = Vec::new();
    while !reader.is_empty() {
        let filter = reader.text()?;
        let options = reader.u8()?;
        let (reserved, retain_handling) = (options & 0xc0, (options >> 4) & 0x03);
        if reserved != 0 || retain_handling == 3 {
            return Err(Reason::MalformedPacket);
        }
        let qos = match options & 0x03 {
            0 => Qos::AtMostOnce,
            // The server may grant less than 2 (MQTT 5.0, 3.9.3).
            1 | 2 => Qos::AtLeastOnce,
            _ => return Err(Reason::MalformedPacket),
        };
        bounded_push(&mut filters, (filter, qos))?;
    }
    if filters.is_empty() {
        return Err(Reason::ProtocolError);
    }
    Ok(Packet::Subscribe { packet_id, filters })
}

fn unsubscribe(mut reader: Reader<'_>) -> Result<Packet<'_>, Reason> {
    let packet_id = reader.packet_id()?;
    Properties::skip(&mut reader, UNSUBSCRIBE_PROPERTIES)?;
    let mut filters = Vec::new();
    while !reader.is_empty() {
        bounded_push(&mut filters, reader.text()?)?;
    }
    if filters.is_empty() {
        return Err(Reason::ProtocolError);
    }
    Ok(Packet::Unsubscribe { packet_id, filters })
}

fn disconnect(mut reader: Reader<'_>) -> Result<Packet<'_>, Reason> {
    let mut without_will = true;
    if !reader.is_empty() {
        match reader.u8()? {
            0 => {}
            DISCONNECT_WITH_WILL | 0x80.. => without_will = false,
            _ => return Err(Reason::ProtocolError),
        }
    }
    if !reader.is_empty() {
        Properties::skip(&mut reader, DISCONNECT_PROPERTIES)?;
    }
    at_end(&reader)?;
    Ok(Packet::Disconnect { without_will })
}

fn bounded_push<T>(filters: &mut Vec<T>, filter: T) -> Result<(), Reason> {
    if filters.len() == MAX_FILTERS {
        return Err(Reason::QuotaExceeded);
    }
    filters.push(filter);
    Ok(())
}

fn at_end(reader: &Reader<'_>) -> Result<(), Reason> {
    if reader.is_empty() {
        Ok(())
    } else {
        Err(Reason::MalformedPacket)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame;
    use super::*;
    use proptest::prelude::*;

    fn parse(bytes: &[u8]) -> Result<Packet<'_>, Reason> {
        let frame = frame::first(bytes, 1 << 16)?.expect("a complete packet");
        assert_eq!(frame.len, bytes.len(), "one packet: {bytes:x?}");
        Packet::parse(frame)
    }

    #[test]
    fn packets_of_a_session_are_read() {
        for (bytes, packet) in [
            (
                &b"\x32\x08\0\x01t\0\x07\0hi"[..],
                Packet::Publish(Publish {
                    topic: "t",
                    payload: b"hi",
                    packet_id: Some(7),
                }),
            ),
            (
                b"\x30\x04\0\x01t\0",
                Packet::Publish(Publish {
                    topic: "t",
                    payload: b"",
                    packet_id: None,
                }),
            ),
            (b"\x40\x02\0\x07", Packet::PubAck { packet_id: 7 }),
            (b"\x40\x04\0\x07\x10\0", Packet::PubAck { packet_id: 7 }),
            (
                b"\x82\x07\0\x01\0\0\x01a\x01",
                Packet::Subscribe {
                    packet_id: 1,
                    filters: vec![("a", Qos::AtLeastOnce)],
                },
            ),
            (
                b"\xa2\x06\0\x01\0\0\x01a",
                Packet::Unsubscribe {
                    packet_id: 1,
                    filters: vec!["a"],
                },
            ),
            (b"\xc0\0", Packet::PingReq),
            (b"\xe0\0", Packet::Disconnect { without_will: true }),
            (
                b"\xe0\x01\x04",
                Packet::Disconnect {
                    without_will: false,
                },
            ),
        ] {
            assert_eq!(parse(bytes), Ok(packet), "{bytes:x?}");
        }
    }

    #[test]
    fn what_the_edge_does_not_offer_is_refused_with_its_own_reason() {
        for (bytes, reason) in [
            (&b"\x31\x04\0\x01t\0"[..], Reason::RetainNotSupported),
            (b"\x34\x06\0\x01t\0\x07\0", Reason::QosNotSupported),
            (b"\x38\x04\0\x01t\0", Reason::MalformedPacket),
            (b"\x36\x06\0\x01t\0\x07\0", Reason::MalformedPacket),
            (b"\x32\x06\0\x01t\0\0\0", Reason::ProtocolError),
            (b"\x30\x07\0\x01t\x03\x23\0\x01", Reason::TopicAliasInvalid),
            (b"\x30\x06\0\x01t\x02\x0b\x01", Reason::ProtocolError),
            (
                b"\x82\x09\0\x01\x02\x0b\x01\0\x01a\x01",
                Reason::SubscriptionIdentifiersNotSupported,
            ),
            (b"\x82\x03\0\x01\0", Reason::ProtocolError),
            (b"\x82\x07\0\x01\0\0\x01a\x03", Reason::MalformedPacket),
            (b"\x82\x07\0\x01\0\0\x01a\x81", Reason::MalformedPacket),
            (b"\xc0\x01\0", Reason::MalformedPacket),
            (b"\xe0\x01\x01", Reason::ProtocolError),
            (b"\x10\0", Reason::ProtocolError),
        ] {
            assert_eq!(parse(bytes), Err(reason), "{bytes:x?}");
        }
    }

    #[test]
    fn a_packet_full_of_filters_is_refused() {
        let mut body = b"\0\x01\0".to_vec();
        for _ in 0..=MAX_FILTERS {
            body.extend(b"\0\x01a\x01");
        }
        let mut bytes = vec![0x82, u8::try_from(body.len()).expect("short")];
        bytes.extend(&body);

        assert_eq!(parse(&bytes), Err(Reason::QuotaExceeded));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            first in any::<u8>(),
            body in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut bytes = vec![first, u8::try_from(body.len()).expect("short")];
            bytes.extend(&body);
            if let Ok(Some(frame)) = frame::first(&bytes, 1 << 16) {
                let _ = Packet::parse(frame);
            }
        }

        #[test]
        fn no_stream_panics(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            let _ = frame::first(&bytes, 16);
        }
    }
}
