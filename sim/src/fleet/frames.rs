//! MQTT 5 frames as a box sends them, written independently of the edge's codec.
//!
//! Source: OASIS MQTT 5.0, chapter 3. Only what a box needs: no properties are sent.

/// Keep alive of a simulated box, in seconds; the most that an edge grants.
pub const KEEP_ALIVE_SECS: u16 = 300;
/// PINGREQ.
pub const PINGREQ: [u8; 2] = [0xc0, 0];
/// DISCONNECT in good order.
pub const DISCONNECT: [u8; 2] = [0xe0, 0];
/// First byte of CONNACK.
pub const CONNACK: u8 = 0x20;
/// First byte of PUBACK.
pub const PUBACK: u8 = 0x40;
/// First byte of SUBACK.
pub const SUBACK: u8 = 0x90;

/// A whole packet: first byte, without its length, and body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Packet {
    /// Type and flags.
    pub first: u8,
    /// What follows the length.
    pub body: Vec<u8>,
}

/// What a PUBLISH carries.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Published {
    /// The topic.
    pub topic: String,
    /// Absent at quality of service 0.
    pub packet_id: Option<u16>,
    /// The message.
    pub payload: Vec<u8>,
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 5);
    out.push(first);
    let mut len = body.len();
    loop {
        let digit = u8::try_from(len % 128).unwrap_or(0);
        len /= 128;
        out.push(if len > 0 { digit | 0x80 } else { digit });
        if len == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    let text = &text[..text.len().min(usize::from(u16::MAX))];
    out.extend(u16::try_from(text.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(text);
}

/// CONNECT with a clean start; `will` is topic and message, quality of service 1.
pub fn connect(client_id: &str, will: Option<(&str, &[u8])>) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, b"MQTT");
    body.push(5);
    body.push(if will.is_some() { 0x0e } else { 0x02 });
    body.extend(KEEP_ALIVE_SECS.to_be_bytes());
    body.push(0);
    text(&mut body, client_id.as_bytes());
    if let Some((topic, payload)) = will {
        body.push(0);
        text(&mut body, topic.as_bytes());
        text(&mut body, payload);
    }
    packet(0x10, &body)
}

/// PUBLISH: of quality of service 1 with a `packet_id`, of 0 without.
pub fn publish(topic: &str, packet_id: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(topic.len() + payload.len() + 5);
    text(&mut body, topic.as_bytes());
    body.extend(packet_id.iter().flat_map(|id| id.to_be_bytes()));
    body.push(0);
    body.extend_from_slice(payload);
    packet(if packet_id.is_some() { 0x32 } else { 0x30 }, &body)
}

/// PUBACK.
pub fn puback(packet_id: u16) -> Vec<u8> {
    packet(PUBACK, &packet_id.to_be_bytes())
}

/// SUBSCRIBE to one filter at quality of service 1.
pub fn subscribe(filter: &str) -> Vec<u8> {
    let mut body = vec![0, 1, 0];
    text(&mut body, filter.as_bytes());
    body.push(1);
    packet(0x82, &body)
}

/// Takes the first whole packet out of `buffer`; `None` while there is none.
pub fn cut(buffer: &mut Vec<u8>) -> Option<Packet> {
    let (mut len, mut at) = (0_usize, 1_usize);
    loop {
        let byte = usize::from(*buffer.get(at)?);
        len |= (byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 || at > 4 {
            break;
        }
    }
    let body = buffer.get(at..at + len)?.to_vec();
    let first = buffer[0];
    if buffer.len() == at + len {
        // Thousands wait at once: none of them keeps what it once needed.
        *buffer = Vec::new();
    } else {
        buffer.drain(..at + len);
    }
    Some(Packet { first, body })
}

impl Packet {
    /// The identifier that an acknowledgement is for.
    pub fn acknowledged(&self) -> Option<u16> {
        let id = self.body.first_chunk()?;
        (self.first == PUBACK).then(|| u16::from_be_bytes(*id))
    }

    /// Whether an acknowledgement says that the server took the message: there is no reason, or one
    /// below 0x80.
    pub fn is_success(&self) -> bool {
        self.body.get(2).is_none_or(|reason| *reason < 0x80)
    }

    /// What a PUBLISH carries; `None` if it is none.
    pub fn published(&self) -> Option<Published> {
        if self.first & 0xf0 != 0x30 {
            return None;
        }
        let (len, rest) = self.body.split_first_chunk()?;
        let (topic, mut rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        let mut packet_id = None;
        if self.first & 0x06 != 0 {
            let (id, behind) = rest.split_first_chunk()?;
            (packet_id, rest) = (Some(u16::from_be_bytes(*id)), behind);
        }
        // Properties of a server to a box are short: their length is one byte.
        let (properties, rest) = rest.split_first()?;
        let payload = rest.get(usize::from(*properties)..)?;
        Some(Published {
            topic: std::str::from_utf8(topic).ok()?.to_owned(),
            packet_id,
            payload: payload.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_cut_out_and_read_again() {
        let message = vec![7; 300];
        let mut buffer = publish("a/b", Some(9), &message);
        buffer.extend(publish("c", None, b"x"));
        buffer.push(0x40);

        let first = cut(&mut buffer).and_then(|p| p.published());
        let second = cut(&mut buffer).and_then(|p| p.published());

        let expected = Published {
            topic: "a/b".to_owned(),
            packet_id: Some(9),
            payload: message,
        };
        assert_eq!(first, Some(expected));
        assert_eq!(
            second.map(|p| (p.topic, p.packet_id)),
            Some(("c".to_owned(), None))
        );
        assert_eq!(cut(&mut buffer), None);
        assert_eq!(buffer, [0x40]);
    }

    #[test]
    fn an_acknowledgement_names_its_message_and_may_refuse_it() {
        let ack = |body: &[u8]| Packet {
            first: PUBACK,
            body: body.to_vec(),
        };
        assert_eq!(ack(&[1, 2]).acknowledged(), Some(0x0102));
        assert!(ack(&[1, 2]).is_success());
        assert!(!ack(&[1, 2, 0x97]).is_success());
    }
}
