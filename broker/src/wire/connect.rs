//! CONNECT: the first packet of a connection (MQTT 5.0, 3.1).

use super::property::{Properties, Value, id};
use super::reader::Reader;
use crate::reason::Reason;

/// What a client asks for when it connects.
///
/// The clean-start flag and the session expiry are checked and left: a session here never
/// outlives its connection, and CONNACK says so. User name and password are ignored: the
/// certificate has already said who this is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Connect<'a> {
    pub client_id: &'a str,
    /// Seconds; zero is "never", which the edge overrules.
    pub keep_alive_secs: u16,
    /// Messages of quality of service 1 that the client takes unacknowledged; at least one.
    pub receive_maximum: u16,
    /// Largest packet that the client takes, in bytes.
    pub max_packet_bytes: Option<u32>,
    pub will: Option<Will<'a>>,
}

/// What to publish if the connection ends without a goodbye. Its delay is left unread: it may
/// not outlast the session, which ends with the connection (MQTT 5.0, 3.1.3.2.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Will<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
}

const CONNECT_PROPERTIES: &[u8] = &[
    id::SESSION_EXPIRY_INTERVAL,
    id::RECEIVE_MAXIMUM,
    id::MAXIMUM_PACKET_SIZE,
    id::TOPIC_ALIAS_MAXIMUM,
    id::REQUEST_RESPONSE_INFORMATION,
    id::REQUEST_PROBLEM_INFORMATION,
    id::USER_PROPERTY,
    id::AUTHENTICATION_METHOD,
    id::AUTHENTICATION_DATA,
];

const WILL_PROPERTIES: &[u8] = &[
    id::WILL_DELAY_INTERVAL,
    id::PAYLOAD_FORMAT_INDICATOR,
    id::MESSAGE_EXPIRY_INTERVAL,
    id::CONTENT_TYPE,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::USER_PROPERTY,
];

/// The bits of the connect flags (MQTT 5.0, 3.1.2.3).
mod flag {
    pub const RESERVED: u8 = 0x01;
    pub const WILL: u8 = 0x04;
    pub const WILL_QOS: u8 = 0x18;
    pub const WILL_QOS_1: u8 = 0x08;
    pub const WILL_RETAIN: u8 = 0x20;
    pub const PASSWORD: u8 = 0x40;
    pub const USER_NAME: u8 = 0x80;
}

impl<'a> Connect<'a> {
    /// Parses the body of a CONNECT. The error is the reason to put into CONNACK.
    pub fn parse(body: &'a [u8]) -> Result<Self, Reason> {
        let mut reader = Reader::new(body);
        if reader.binary()? != b"MQTT" || reader.u8()? != 5 {
            return Err(Reason::UnsupportedProtocolVersion);
        }
        let flags = reader.u8()?;
        check_flags(flags)?;
        let keep_alive_secs = reader.u16()?;
        let (receive_maximum, max_packet_bytes) = connect_properties(&mut reader)?;
        let client_id = reader.text()?;
        let will = if flags & flag::WILL == 0 {
            None
        } else {
            Properties::skip(&mut reader, WILL_PROPERTIES)?;
            Some(Will {
                topic: reader.text()?,
                payload: reader.binary()?,
            })
        };
        if flags & flag::USER_NAME != 0 {
            reader.text()?;
        }
        if flags & flag::PASSWORD != 0 {
            reader.binary()?;
        }
        if !reader.is_empty() {
            return Err(Reason::MalformedPacket);
        }
        Ok(Self {
            client_id,
            keep_alive_secs,
            receive_maximum,
            max_packet_bytes,
            will,
        })
    }
}

fn check_flags(flags: u8) -> Result<(), Reason> {
    if flags & flag::RESERVED != 0 {
        return Err(Reason::MalformedPacket);
    }
    if flags & flag::WILL == 0 {
        return match flags & (flag::WILL_QOS | flag::WILL_RETAIN) {
            0 => Ok(()),
            _ => Err(Reason::MalformedPacket),
        };
    }
    match flags & flag::WILL_QOS {
        0 | flag::WILL_QOS_1 => {}
        flag::WILL_QOS => return Err(Reason::MalformedPacket),
        _ => return Err(Reason::QosNotSupported),
    }
    if flags & flag::WILL_RETAIN != 0 {
        return Err(Reason::RetainNotSupported);
    }
    Ok(())
}

/// The receive maximum and the maximum packet size.
fn connect_properties(reader: &mut Reader<'_>) -> Result<(u16, Option<u32>), Reason> {
    let mut properties = Properties::take(reader, CONNECT_PROPERTIES)?;
    let (mut receive_maximum, mut max_packet_bytes) = (u16::MAX, None);
    while let Some(property) = properties.next()? {
        match property {
            (id::RECEIVE_MAXIMUM | id::MAXIMUM_PACKET_SIZE, Value::Number(0)) => {
                return Err(Reason::ProtocolError);
            }
            (id::RECEIVE_MAXIMUM, Value::Number(n)) => {
                receive_maximum = u16::try_from(n).map_err(|_| Reason::MalformedPacket)?;
            }
            (id::MAXIMUM_PACKET_SIZE, Value::Number(n)) => max_packet_bytes = Some(n),
            (id::AUTHENTICATION_METHOD, _) => return Err(Reason::BadAuthenticationMethod),
            _ => {}
        }
    }
    Ok((receive_maximum, max_packet_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `MQTT`, version 5, the flags, keep alive 60 s.
    fn head(flags: u8) -> Vec<u8> {
        let mut bytes = b"\0\x04MQTT\x05".to_vec();
        bytes.extend([flags, 0, 60]);
        bytes
    }

    fn with(flags: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = head(flags);
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn a_connect_with_everything_is_read() {
        let body = with(
            0b1100_1110,
            b"\x08\x21\0\x05\x27\0\0\x10\0\0\x03box\0\0\x01t\0\x02hi\0\x01u\0\x01p",
        );

        let connect = Connect::parse(&body).expect("valid");

        assert_eq!(
            connect,
            Connect {
                client_id: "box",
                keep_alive_secs: 60,
                receive_maximum: 5,
                max_packet_bytes: Some(4096),
                will: Some(Will {
                    topic: "t",
                    payload: b"hi"
                }),
            }
        );
    }

    #[test]
    fn what_the_edge_does_not_offer_is_refused_with_its_own_reason() {
        let will = b"\0\0\x03box\0\0\x01t\0\0";
        for (body, reason) in [
            (with(0b0001_0100, will), Reason::QosNotSupported),
            (with(0b0010_0100, will), Reason::RetainNotSupported),
            (with(0b0001_1100, will), Reason::MalformedPacket),
            (with(0b0000_1000, b"\0\0\x03box"), Reason::MalformedPacket),
            (with(0b0000_0001, b"\0\0\x03box"), Reason::MalformedPacket),
            (
                with(0, b"\x04\x15\0\x01x\0\x03box"),
                Reason::BadAuthenticationMethod,
            ),
            (with(0, b"\x03\x21\0\0\0\x03box"), Reason::ProtocolError),
            (
                with(0, b"\x06\x21\0\x01\x21\0\x01\0\x03box"),
                Reason::ProtocolError,
            ),
            (with(0, b"\x03\x23\0\x01\0\x03box"), Reason::ProtocolError),
            (with(0, b"\0\0\x03boxx"), Reason::MalformedPacket),
            (
                b"\0\x04MQTT\x04\x02\0\x3c\0\x03box".to_vec(),
                Reason::UnsupportedProtocolVersion,
            ),
            (
                b"\0\x06MQIsdp\x03\x02\0\x3c".to_vec(),
                Reason::UnsupportedProtocolVersion,
            ),
        ] {
            assert_eq!(Connect::parse(&body), Err(reason), "{body:x?}");
        }
    }

    #[test]
    fn every_cut_of_a_connect_is_refused() {
        let body = with(0b0000_1100, b"\x05\x11\0\0\0\x09\0\x03box\0\0\x01t\0\x02hi");
        assert!(Connect::parse(&body).is_ok());

        for len in 0..body.len() {
            assert!(Connect::parse(&body[..len]).is_err(), "{len}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Connect::parse(&body);
            let _ = Connect::parse(&with(body.first().copied().unwrap_or(0), &body));
        }
    }
}
