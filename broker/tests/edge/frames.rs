//! MQTT 5 frames, written independently of the edge's codec.

/// Wraps a body: first byte, length, body.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut len = body.len();
    loop {
        let digit = u8::try_from(len % 128).expect("seven bits");
        len /= 128;
        out.push(if len > 0 { digit | 0x80 } else { digit });
        if len == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

pub fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(u16::try_from(text.len()).expect("short").to_be_bytes());
    out.extend_from_slice(text);
}

/// A CONNECT with what matters to a test.
pub struct Connect<'a> {
    pub client_id: &'a str,
    pub keep_alive_secs: u16,
    pub properties: &'a [u8],
    pub will: Option<(&'a str, &'a [u8])>,
    pub extra_flags: u8,
}

impl<'a> Connect<'a> {
    pub fn new(client_id: &'a str) -> Self {
        Self {
            client_id,
            keep_alive_secs: 60,
            properties: &[],
            will: None,
            extra_flags: 0,
        }
    }

    pub fn will(mut self, topic: &'a str, payload: &'a [u8]) -> Self {
        self.will = Some((topic, payload));
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        text(&mut body, b"MQTT");
        body.push(5);
        let will_flags = if self.will.is_some() { 0x0c } else { 0 };
        body.push(0x02 | will_flags | self.extra_flags);
        body.extend(self.keep_alive_secs.to_be_bytes());
        body.push(u8::try_from(self.properties.len()).expect("short"));
        body.extend_from_slice(self.properties);
        text(&mut body, self.client_id.as_bytes());
        if let Some((topic, payload)) = self.will {
            body.push(0);
            text(&mut body, topic.as_bytes());
            text(&mut body, payload);
        }
        packet(0x10, &body)
    }
}

/// A PUBLISH with the flags of `first`; the packet id goes out unless it is zero.
pub fn publish_with(first: u8, topic: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic.as_bytes());
    if packet_id > 0 {
        body.extend(packet_id.to_be_bytes());
    }
    body.push(0);
    body.extend_from_slice(payload);
    packet(first, &body)
}

/// A PUBLISH of quality of service 1.
pub fn publish(topic: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    publish_with(0x32, topic, packet_id, payload)
}

/// A PUBLISH of quality of service 0.
pub fn publish_0(topic: &str, payload: &[u8]) -> Vec<u8> {
    publish_with(0x30, topic, 0, payload)
}

pub fn subscribe(packet_id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    body.push(0);
    for filter in filters {
        text(&mut body, filter.as_bytes());
        body.push(1);
    }
    packet(0x82, &body)
}

pub fn unsubscribe(packet_id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    body.push(0);
    for filter in filters {
        text(&mut body, filter.as_bytes());
    }
    packet(0xa2, &body)
}

pub fn puback(packet_id: u16) -> Vec<u8> {
    packet(0x40, &packet_id.to_be_bytes())
}

pub const PINGREQ: [u8; 2] = [0xc0, 0];
pub const DISCONNECT: [u8; 2] = [0xe0, 0];
