//! Framing: cuts packets out of a byte stream (MQTT 5.0, 2.1).

use super::reader::varint;
use crate::reason::Reason;

/// The packets that a client may send to this edge.
///
/// The rest never gets as far as a parser: what only servers send, and the exchanges of quality
/// of service 2 and of extended authentication, which the edge does not offer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Connect,
    Publish,
    PubAck,
    Subscribe,
    Unsubscribe,
    PingReq,
    Disconnect,
}

/// One packet: its kind, the flags of its first byte, and its body.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub kind: Kind,
    pub flags: u8,
    pub body: &'a [u8],
    /// Bytes that the whole packet takes in the stream.
    pub len: usize,
}

/// Cuts the first packet out of `stream`; `None` while it is incomplete.
///
/// A type that is not allowed, wrong flags and a length above `max_len` are refused as soon as
/// they can be seen, not when the whole packet has arrived.
pub fn first(stream: &[u8], max_len: usize) -> Result<Option<Frame<'_>>, Reason> {
    let Some((&byte, after)) = stream.split_first() else {
        return Ok(None);
    };
    let flags = byte & 0x0f;
    let (kind, flags_ok) = match byte >> 4 {
        1 => (Kind::Connect, flags == 0),
        3 => (Kind::Publish, flags & 0b0110 != 0b0110),
        4 => (Kind::PubAck, flags == 0),
        8 => (Kind::Subscribe, flags == 0b0010),
        10 => (Kind::Unsubscribe, flags == 0b0010),
        12 => (Kind::PingReq, flags == 0),
        14 => (Kind::Disconnect, flags == 0),
        0 => return Err(Reason::MalformedPacket),
        _ => return Err(Reason::ProtocolError),
    };
    if !flags_ok {
        return Err(Reason::MalformedPacket);
    }
    let Some((body_len, len_len)) = varint(after)? else {
        return Ok(None);
    };
    let len = 1 + len_len + body_len;
    if len > max_len {
        return Err(Reason::PacketTooLarge);
    }
    Ok(stream.get(1 + len_len..len).map(|body| Frame {
        kind,
        flags,
        body,
        len,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_that_only_servers_send_are_refused_at_their_first_byte() {
        for byte in [0x20_u8, 0x90, 0xb0, 0xd0, 0x50, 0x62, 0x70, 0xf0] {
            assert_eq!(
                first(&[byte], 1024).err(),
                Some(Reason::ProtocolError),
                "{byte:#x}"
            );
        }
        assert_eq!(first(&[0x00], 1024).err(), Some(Reason::MalformedPacket));
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_its_bytes_arrive() {
        let head = [0x30_u8, 0xff, 0xff, 0xff, 0x7f];

        assert_eq!(first(&head, 1 << 20).err(), Some(Reason::PacketTooLarge));
    }

    #[test]
    fn packets_are_cut_one_by_one() {
        let stream = [0xc0_u8, 0x00, 0x40, 0x02, 0x00, 0x07, 0x30];

        let ping = first(&stream, 64).expect("valid").expect("complete");
        let ack = first(&stream[ping.len..], 64)
            .expect("valid")
            .expect("complete");
        let rest = first(&stream[ping.len + ack.len..], 64).expect("valid");

        assert_eq!((ping.kind, ping.body), (Kind::PingReq, &[][..]));
        assert_eq!((ack.kind, ack.body), (Kind::PubAck, &[0, 7][..]));
        assert!(rest.is_none());
    }
}
