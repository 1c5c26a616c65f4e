//! How a message looks inside the router: one topic for all, the box and channel in the payload.

use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use longhaul_protocol::topic::Up;

use super::Message;
use crate::incoming::Upward;

const MESSAGE: u8 = 0;
const CANARY: u8 = 1;
const END: u8 = 2;

/// Characters of a box id.
const BOX_ID_LEN: usize = 12;

/// What comes out of the router.
#[derive(Debug)]
pub enum HubMessage {
    Message(Upward),
    /// A test message that proves the router alive.
    Canary(u64),
    /// Nothing comes after this.
    End,
}

/// Writes a message; times are kept as the distance from `epoch`.
pub fn encode(message: Message<'_>, epoch: Instant) -> Bytes {
    let after = message.received.saturating_duration_since(epoch);
    let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
    let mut out = BytesMut::with_capacity(1 + 1 + 8 + BOX_ID_LEN + message.payload.len());
    out.put_u8(MESSAGE);
    out.put_u8(channel_code(message.channel));
    out.put_u64(micros);
    out.put_slice(message.box_id.as_str().as_bytes());
    out.put_slice(message.payload);
    out.freeze()
}

pub fn canary(number: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(9);
    out.put_u8(CANARY);
    out.put_u64(number);
    out.freeze()
}

pub fn end() -> Bytes {
    Bytes::from_static(&[END])
}

/// Reads what [`encode`], [`canary`] or [`end`] wrote; `None` for anything else.
pub fn decode(mut bytes: Bytes, epoch: Instant) -> Option<HubMessage> {
    match bytes.try_get_u8().ok()? {
        MESSAGE => {
            let code = usize::from(bytes.try_get_u8().ok()?);
            let channel = *Up::ALL.get(code)?;
            let received = epoch + Duration::from_micros(bytes.try_get_u64().ok()?);
            if bytes.len() < BOX_ID_LEN {
                return None;
            }
            let box_id = bytes.split_to(BOX_ID_LEN);
            Some(HubMessage::Message(Upward {
                box_id: std::str::from_utf8(&box_id).ok()?.parse().ok()?,
                channel,
                payload: bytes,
                received,
                edge: None,
            }))
        }
        CANARY => Some(HubMessage::Canary(bytes.try_get_u64().ok()?)),
        END => Some(HubMessage::End),
        _ => None,
    }
}

/// The position of `channel` in [`Up::ALL`].
fn channel_code(channel: Up) -> u8 {
    let index = Up::ALL.iter().position(|c| *c == channel);
    // A channel that `ALL` left out would come out of the router as garbled, which is fatal.
    index.and_then(|i| u8::try_from(i).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_comes_out_as_it_went_in() {
        let epoch = Instant::now();
        let box_id = "0123456789AB".parse().expect("a box id");
        for channel in Up::ALL {
            let received = epoch + Duration::from_micros(1_234_567);
            let message = Message {
                box_id: &box_id,
                channel,
                payload: b"hello",
                received,
            };

            let Some(HubMessage::Message(out)) = decode(encode(message, epoch), epoch) else {
                panic!("{channel:?} did not come out");
            };

            assert_eq!(out.box_id, box_id);
            assert_eq!(out.channel, channel);
            assert_eq!(&out.payload[..], b"hello");
            assert_eq!(out.received, received);
        }
    }

    #[test]
    fn garbage_is_not_a_message() {
        let epoch = Instant::now();
        for bytes in [&b""[..], &[9], &[MESSAGE], &[MESSAGE, 77], &[CANARY, 1]] {
            assert!(decode(Bytes::copy_from_slice(bytes), epoch).is_none());
        }
        let mut short = vec![MESSAGE, 0];
        short.extend([0; 8]);
        short.extend(b"0123456789");
        assert!(decode(Bytes::from(short), epoch).is_none());
    }
}
