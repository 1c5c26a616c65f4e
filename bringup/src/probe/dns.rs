//! Each DNS server asked by itself: does it answer, what, and does it make things up?

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use longhaul_protocol::probe::DnsServer;
use tokio::net::UdpSocket;

/// How long a server is waited for, and how often it is asked.
const WAIT: Duration = Duration::from_secs(2);
const TRIES: u8 = 2;
/// The longest answer over UDP without extensions (RFC 1035 section 4.2.1), and some.
const MAX_ANSWER: usize = 1232;
const PORT: u16 = 53;
/// Records of an answer that are looked at at the most.
const MAX_RECORDS: u16 = 32;
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;

/// Asks `server` for `host`, and for a name that nobody has.
pub async fn ask(server: IpAddr, host: &str) -> DnsServer {
    let begun = Instant::now();
    let nobody = format!(
        "nobody-{:016x}.longhaul-probe.invalid",
        rand::random::<u64>()
    );
    let (answers, invented) =
        tokio::join!(timed(server, host, begun), timed(server, &nobody, begun));
    DnsServer {
        address: server,
        took_ms: answers
            .as_ref()
            .map(|(_, took)| u32::try_from(took.as_millis()).unwrap_or(u32::MAX)),
        invents: invented.map(|(addresses, _)| !addresses.is_empty()),
        answers: answers.map(|(addresses, _)| addresses).unwrap_or_default(),
    }
}

async fn timed(server: IpAddr, name: &str, begun: Instant) -> Option<(Vec<IpAddr>, Duration)> {
    let id = rand::random();
    let question = question(id, name)?;
    let socket = super::udp(server).await?;
    socket.connect(SocketAddr::new(server, PORT)).await.ok()?;
    for _ in 0..TRIES {
        socket.send(&question).await.ok()?;
        if let Ok(answer) = tokio::time::timeout(WAIT, heard(&socket, id)).await {
            return Some((answer?, begun.elapsed()));
        }
    }
    None
}

async fn heard(socket: &UdpSocket, id: u16) -> Option<Vec<IpAddr>> {
    let mut answer = [0; MAX_ANSWER];
    loop {
        let length = socket.recv(&mut answer).await.ok()?;
        if let Some(addresses) = addresses(&answer[..length], id) {
            return Some(addresses);
        }
    }
}

/// A question for the IPv4 addresses of a name (RFC 1035 section 4.1); `None` for what is no name.
fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut bytes = id.to_be_bytes().to_vec();
    // Recursion is desired; one question.
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|n| (1..=63).contains(n))?;
        bytes.push(length);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(TYPE_A.to_be_bytes());
    bytes.extend(CLASS_IN.to_be_bytes());
    (bytes.len() < 300).then_some(bytes)
}

/// The addresses of an answer to question `id`; `None` where it is none.
fn addresses(answer: &[u8], id: u16) -> Option<Vec<IpAddr>> {
    let word = |at: usize| Some(u16::from_be_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    let is_answer = word(0)? == id && word(2)? & 0x8000 != 0;
    if !is_answer {
        return None;
    }
    let mut at = 12;
    for _ in 0..word(4)?.min(MAX_RECORDS) {
        at = skip_name(answer, at)? + 4;
    }
    let mut found = Vec::new();
    for _ in 0..word(6)?.min(MAX_RECORDS) {
        at = skip_name(answer, at)?;
        let (kind, length) = (word(at)?, usize::from(word(at + 8)?));
        let data = answer.get(at + 10..at + 10 + length)?;
        if kind == TYPE_A
            && let Ok(octets) = <[u8; 4]>::try_from(data)
        {
            found.push(IpAddr::V4(Ipv4Addr::from(octets)));
        }
        at += 10 + length;
    }
    Some(found)
}

/// Where a name ends that begins at `at`.
fn skip_name(answer: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *answer.get(at)? {
            0 => return Some(at + 1),
            // A pointer to another name ends this one.
            0xc0.. => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(id: u16, name: &str, address: Option<[u8; 4]>) -> Vec<u8> {
        let mut bytes = question(id, name).unwrap();
        bytes[2] |= 0x80;
        bytes[7] = u8::from(address.is_some());
        if let Some(address) = address {
            bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            bytes.extend(address);
        }
        bytes
    }

    #[test]
    fn an_answer_has_addresses_or_none() {
        let some = answer(7, "cloud.example", Some([192, 0, 2, 7]));

        assert_eq!(
            addresses(&some, 7),
            Some(vec![IpAddr::from([192, 0, 2, 7])])
        );
        assert_eq!(
            addresses(&answer(7, "cloud.example", None), 7),
            Some(Vec::new())
        );
        assert_eq!(addresses(&some, 8), None, "to another question");
        assert_eq!(
            addresses(&question(7, "cloud.example").unwrap(), 7),
            None,
            "no answer"
        );
    }

    #[test]
    fn what_is_no_name_is_not_asked_for() {
        for name in ["", "a..b", &"x".repeat(64), &"abc.".repeat(100)] {
            assert_eq!(question(1, name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            addresses(&bytes, 0);
            if bytes.len() > 4 {
                bytes[..4].copy_from_slice(&[0, 0, 0x80, 0]);
                addresses(&bytes, 0);
            }
        }
    }
}
