//! Properties: the optional part of most packets (MQTT 5.0, 2.2.2).

use super::reader::Reader;
use crate::reason::Reason;

/// Identifiers of the properties that the edge reads or writes.
pub mod id {
    pub const PAYLOAD_FORMAT_INDICATOR: u8 = 1;
    pub const MESSAGE_EXPIRY_INTERVAL: u8 = 2;
    pub const CONTENT_TYPE: u8 = 3;
    pub const RESPONSE_TOPIC: u8 = 8;
    pub const CORRELATION_DATA: u8 = 9;
    pub const SUBSCRIPTION_IDENTIFIER: u8 = 11;
    pub const SESSION_EXPIRY_INTERVAL: u8 = 17;
    pub const SERVER_KEEP_ALIVE: u8 = 19;
    pub const AUTHENTICATION_METHOD: u8 = 21;
    pub const AUTHENTICATION_DATA: u8 = 22;
    pub const REQUEST_PROBLEM_INFORMATION: u8 = 23;
    pub const WILL_DELAY_INTERVAL: u8 = 24;
    pub const REQUEST_RESPONSE_INFORMATION: u8 = 25;
    pub const REASON_STRING: u8 = 31;
    pub const RECEIVE_MAXIMUM: u8 = 33;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 34;
    pub const TOPIC_ALIAS: u8 = 35;
    pub const MAXIMUM_QOS: u8 = 36;
    pub const RETAIN_AVAILABLE: u8 = 37;
    pub const USER_PROPERTY: u8 = 38;
    pub const MAXIMUM_PACKET_SIZE: u8 = 39;
    pub const SUBSCRIPTION_IDENTIFIER_AVAILABLE: u8 = 41;
    pub const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 42;
}

/// A property's value as far as the edge needs it; text and data are checked and skipped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Value {
    Number(u32),
    Skipped,
}

/// The properties of one packet, read one at a time.
pub struct Properties<'a> {
    reader: Reader<'a>,
    allowed: &'static [u8],
    seen: u64,
}

impl<'a> Properties<'a> {
    /// Takes the properties off `packet`; each must be in `allowed`.
    pub fn take(packet: &mut Reader<'a>, allowed: &'static [u8]) -> Result<Self, Reason> {
        let len = packet.varint()?;
        Ok(Self {
            reader: Reader::new(packet.bytes(len)?),
            allowed,
            seen: 0,
        })
    }

    /// Takes and checks properties whose values do not matter.
    pub fn skip(packet: &mut Reader<'a>, allowed: &'static [u8]) -> Result<(), Reason> {
        let mut properties = Self::take(packet, allowed)?;
        while properties.next()?.is_some() {}
        Ok(())
    }

    /// The next identifier and value; `None` at the end.
    pub fn next(&mut self) -> Result<Option<(u8, Value)>, Reason> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let id = self.reader.u8()?;
        let value = self.value(id)?;
        if !self.allowed.contains(&id) {
            return Err(Reason::ProtocolError);
        }
        if id != id::USER_PROPERTY {
            // `value` knows no identifier above 42, so the shift stays in range.
            let bit = 1_u64 << id;
            if self.seen & bit != 0 {
                return Err(Reason::ProtocolError);
            }
            self.seen |= bit;
        }
        Ok(Some((id, value)))
    }

    fn value(&mut self, id: u8) -> Result<Value, Reason> {
        let reader = &mut self.reader;
        Ok(match id {
            id::PAYLOAD_FORMAT_INDICATOR
            | id::REQUEST_PROBLEM_INFORMATION
            | id::REQUEST_RESPONSE_INFORMATION => match reader.u8()? {
                flag @ (0 | 1) => Value::Number(u32::from(flag)),
                _ => return Err(Reason::ProtocolError),
            },
            id::MESSAGE_EXPIRY_INTERVAL
            | id::SESSION_EXPIRY_INTERVAL
            | id::WILL_DELAY_INTERVAL
            | id::MAXIMUM_PACKET_SIZE => Value::Number(reader.u32()?),
            id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM | id::TOPIC_ALIAS => {
                Value::Number(u32::from(reader.u16()?))
            }
            id::SUBSCRIPTION_IDENTIFIER => {
                reader.varint()?;
                Value::Skipped
            }
            id::CONTENT_TYPE
            | id::RESPONSE_TOPIC
            | id::AUTHENTICATION_METHOD
            | id::REASON_STRING => {
                reader.text()?;
                Value::Skipped
            }
            id::CORRELATION_DATA | id::AUTHENTICATION_DATA => {
                reader.binary()?;
                Value::Skipped
            }
            id::USER_PROPERTY => {
                reader.text()?;
                reader.text()?;
                Value::Skipped
            }
            // Server-to-client properties and unassigned numbers.
            _ => return Err(Reason::MalformedPacket),
        })
    }
}
