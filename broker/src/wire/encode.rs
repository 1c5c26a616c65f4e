//! What the server says.

use bytes::{BufMut, BytesMut};

use super::packet::Qos;
use super::property::id;
use crate::reason::Reason;

/// What CONNACK tells a client about the edge.
#[derive(Clone, Copy, Debug)]
pub struct ServerTerms {
    pub receive_maximum: u16,
    pub max_packet_bytes: u32,
    /// Set where the client's own keep alive is overruled.
    pub server_keep_alive_secs: Option<u16>,
}

/// CONNACK of an accepted connection: a new session that ends with its connection.
pub fn connack(out: &mut BytesMut, terms: ServerTerms) {
    let mut body = BytesMut::with_capacity(32);
    body.put_u8(id::SESSION_EXPIRY_INTERVAL);
    body.put_u32(0);
    body.put_u8(id::RECEIVE_MAXIMUM);
    body.put_u16(terms.receive_maximum);
    body.put_u8(id::MAXIMUM_PACKET_SIZE);
    body.put_u32(terms.max_packet_bytes);
    for (property, value) in [
        (id::MAXIMUM_QOS, 1),
        (id::RETAIN_AVAILABLE, 0),
        (id::SUBSCRIPTION_IDENTIFIER_AVAILABLE, 0),
        (id::SHARED_SUBSCRIPTION_AVAILABLE, 0),
    ] {
        body.put_u8(property);
        body.put_u8(value);
    }
    if let Some(secs) = terms.server_keep_alive_secs {
        body.put_u8(id::SERVER_KEEP_ALIVE);
        body.put_u16(secs);
    }
    out.put_u8(0x20);
    put_varint(out, 2 + 1 + body.len());
    out.put_u8(0);
    out.put_u8(Reason::Success.code());
    put_varint(out, body.len());
    out.put_slice(&body);
}

/// CONNACK of a refused connection.
pub fn connack_refused(out: &mut BytesMut, reason: Reason) {
    out.put_slice(&[0x20, 3, 0, reason.code(), 0]);
}

pub fn puback(out: &mut BytesMut, packet_id: u16, reason: Reason) {
    let [high, low] = packet_id.to_be_bytes();
    if reason == Reason::Success {
        out.put_slice(&[0x40, 2, high, low]);
    } else {
        out.put_slice(&[0x40, 3, high, low, reason.code()]);
    }
}

/// SUBACK or UNSUBACK: one code for each filter.
fn filter_ack(out: &mut BytesMut, first: u8, packet_id: u16, codes: &[u8]) {
    out.put_u8(first);
    put_varint(out, 3 + codes.len());
    out.put_u16(packet_id);
    out.put_u8(0);
    out.put_slice(codes);
}

pub fn suback(out: &mut BytesMut, packet_id: u16, codes: &[u8]) {
    filter_ack(out, 0x90, packet_id, codes);
}

pub fn unsuback(out: &mut BytesMut, packet_id: u16, codes: &[u8]) {
    filter_ack(out, 0xb0, packet_id, codes);
}

pub fn pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xd0, 0]);
}

pub fn disconnect(out: &mut BytesMut, reason: Reason) {
    out.put_slice(&[0xe0, 1, reason.code()]);
}

/// Bytes that a PUBLISH takes on the wire, at most.
pub fn publish_len(topic: &str, payload: &[u8]) -> usize {
    // First byte, length (up to 4), topic length, packet id, no properties.
    1 + 4 + 2 + topic.len() + 2 + 1 + payload.len()
}

/// A PUBLISH: `packet_id` goes out only with quality of service 1.
pub fn publish(out: &mut BytesMut, topic: &str, qos: Qos, packet_id: u16, payload: &[u8]) {
    let Ok(topic_len) = u16::try_from(topic.len()) else {
        // Fleet topics have a fixed length far below this.
        return;
    };
    out.reserve(publish_len(topic, payload));
    let (first, id_len) = match qos {
        Qos::AtMostOnce => (0x30, 0),
        Qos::AtLeastOnce => (0x32, 2),
    };
    out.put_u8(first);
    put_varint(out, 2 + topic.len() + id_len + 1 + payload.len());
    out.put_u16(topic_len);
    out.put_slice(topic.as_bytes());
    if qos == Qos::AtLeastOnce {
        out.put_u16(packet_id);
    }
    out.put_u8(0);
    out.put_slice(payload);
}

fn put_varint(out: &mut BytesMut, mut value: usize) {
    loop {
        // The mask keeps it within seven bits.
        #[expect(clippy::cast_possible_truncation, reason = "masked to seven bits")]
        let digit = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.put_u8(digit);
            return;
        }
        out.put_u8(digit | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame;
    use super::super::packet::{Packet, Publish};
    use super::*;

    #[test]
    fn a_publish_reads_back_as_it_was_written() {
        for len in [0, 100, 127, 128, 20_000] {
            let payload = vec![0x5a; len];
            let mut out = BytesMut::new();

            publish(&mut out, "a/b", Qos::AtLeastOnce, 513, &payload);

            let frame = frame::first(&out, 1 << 20)
                .expect("valid")
                .expect("complete");
            assert_eq!(frame.len, out.len());
            assert!(out.len() <= publish_len("a/b", &payload));
            assert_eq!(
                Packet::parse(frame),
                Ok(Packet::Publish(Publish {
                    topic: "a/b",
                    payload: &payload,
                    packet_id: Some(513)
                }))
            );
        }
    }
}
