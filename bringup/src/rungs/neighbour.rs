//! Asks neighbours on the wire: ARP (RFC 826) and IPv6 neighbour discovery (RFC 4861), not the
//! kernel's memory of them, which outlives a gateway by many seconds.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};
use tokio::io::unix::AsyncFd;

/// How often a question is asked, and how long each is waited for.
const ASK: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_millis(300),
    Duration::from_millis(500),
];
/// Bytes of a frame that are looked at.
const FRAME: usize = 128;
const BROADCAST: Mac = [0xff; 6];
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// A hardware address.
pub type Mac = [u8; 6];

/// Something to find out about a neighbour.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Question {
    /// Who has `neighbour`? Asked as `own`.
    WhoHas { neighbour: IpAddr, own: IpAddr },
    /// Does anybody else have `own` (RFC 5227 section 2.1.1)?
    Mine { own: Ipv4Addr },
}

/// Asks on `link`; the hardware address of whoever answers, `None` where nobody does.
///
/// # Errors
///
/// What the system says, above all that this process may not look at frames.
pub async fn ask(link: &LinkAddr, question: Question) -> io::Result<Option<Mac>> {
    let mac = link.addr().ok_or(io::ErrorKind::Unsupported)?;
    let Some(frame) = encode(question, mac) else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    #[expect(
        deprecated,
        reason = "unsound for descriptors that change; an OwnedFd does not"
    )]
    let socket = AsyncFd::new(open(link)?)?;
    for wait in ASK {
        sendto(socket.as_raw_fd(), &frame, link, MsgFlags::empty())?;
        if let Ok(answer) = tokio::time::timeout(wait, answer(&socket, question, mac)).await {
            return answer.map(Some);
        }
    }
    Ok(None)
}

fn open(link: &LinkAddr) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        flags,
        SockProtocol::EthAll,
    )?;
    bind(socket.as_raw_fd(), link)?;
    Ok(socket)
}

async fn answer(socket: &AsyncFd<OwnedFd>, question: Question, own: Mac) -> io::Result<Mac> {
    let mut frame = [0; FRAME];
    loop {
        let mut ready = socket.readable().await?;
        let read = ready.try_io(|socket| {
            recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()).map_err(io::Error::from)
        });
        match read {
            Ok(length) => {
                if let Some(mac) = decode(&frame[..length?], question, own) {
                    return Ok(mac);
                }
                // A busy wire must not keep everybody else waiting.
                tokio::task::consume_budget().await;
            }
            Err(_would_block) => {}
        }
    }
}

fn encode(question: Question, mac: Mac) -> Option<Vec<u8>> {
    match question {
        Question::WhoHas {
            neighbour: IpAddr::V4(neighbour),
            own: IpAddr::V4(own),
        } => Some(arp(mac, own, neighbour)),
        Question::WhoHas {
            neighbour: IpAddr::V6(neighbour),
            own: IpAddr::V6(own),
        } => Some(solicitation(mac, own, neighbour)),
        Question::WhoHas { .. } => None,
        Question::Mine { own } => Some(arp(mac, Ipv4Addr::UNSPECIFIED, own)),
    }
}

fn arp(mac: Mac, own: Ipv4Addr, asked: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend(BROADCAST);
    frame.extend(mac);
    frame.extend(ARP);
    // Ethernet, IPv4, lengths of their addresses, request.
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(own.octets());
    frame.extend([0; 6]);
    frame.extend(asked.octets());
    frame
}

fn solicitation(mac: Mac, own: Ipv6Addr, asked: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = asked.octets();
    let mut group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    group[13..].copy_from_slice(&[a, b, c]);
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(asked.octets());
    // Option: the asker's hardware address.
    message.extend([1, 1]);
    message.extend(mac);
    let sum = checksum(&own.octets(), &group, &message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    let mut frame = vec![0x33, 0x33, 0xff, a, b, c];
    frame.extend(mac);
    frame.extend(IPV6);
    frame.extend([0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
    frame.extend(own.octets());
    frame.extend(group);
    frame.extend(message);
    frame
}

/// The checksum of an `ICMPv6` message with its pseudo header (RFC 4443 section 2.3).
fn checksum(source: &[u8; 16], destination: &[u8; 16], message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or(0).to_be_bytes();
    let tail = [0, 0, 0, ICMPV6];
    let all = [&source[..], &destination[..], &length, &tail, message].concat();
    let words = all.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// The hardware address of whoever answers `question` with `frame`.
fn decode(frame: &[u8], question: Question, own: Mac) -> Option<Mac> {
    let kind: [u8; 2] = frame.get(12..14)?.try_into().ok()?;
    let body = frame.get(14..)?;
    match (kind, question) {
        (ARP, Question::WhoHas { neighbour, .. }) => {
            let (operation, mac, address) = arp_sender(body)?;
            (operation == 2 && IpAddr::V4(address) == neighbour && mac != own).then_some(mac)
        }
        // Whoever speaks as the address has it, whether it asks or answers.
        (ARP, Question::Mine { own: mine }) => {
            let (_, mac, address) = arp_sender(body)?;
            (address == mine && mac != own).then_some(mac)
        }
        (
            IPV6,
            Question::WhoHas {
                neighbour: IpAddr::V6(neighbour),
                ..
            },
        ) => {
            let message = (*body.get(6)? == ICMPV6).then_some(body.get(40..)?)?;
            let target: [u8; 16] = message.get(8..24)?.try_into().ok()?;
            let answers = *message.first()? == ADVERTISEMENT && Ipv6Addr::from(target) == neighbour;
            let mac: Mac = frame.get(6..12)?.try_into().ok()?;
            (answers && mac != own).then_some(mac)
        }
        _ => None,
    }
}

fn arp_sender(body: &[u8]) -> Option<(u16, Mac, Ipv4Addr)> {
    let operation = u16::from_be_bytes(body.get(6..8)?.try_into().ok()?);
    let mac: Mac = body.get(8..14)?.try_into().ok()?;
    let address: [u8; 4] = body.get(14..18)?.try_into().ok()?;
    Some((operation, mac, address.into()))
}

/// A hardware address as people write it.
pub fn show(mac: Mac) -> String {
    let parts: Vec<_> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    parts.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ME: Mac = [2, 0, 0, 0, 0, 1];
    const OTHER: Mac = [2, 0, 0, 0, 0, 2];

    fn v4(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    fn reply(mac: Mac, from: Ipv4Addr) -> Vec<u8> {
        let mut frame = arp(mac, from, v4("192.0.2.7"));
        frame[21] = 2;
        frame
    }

    #[test]
    fn only_the_neighbour_itself_answers() {
        let asked = Question::WhoHas {
            neighbour: v4("192.0.2.1").into(),
            own: v4("192.0.2.7").into(),
        };

        assert_eq!(
            decode(&reply(OTHER, v4("192.0.2.1")), asked, ME),
            Some(OTHER)
        );
        assert_eq!(decode(&reply(OTHER, v4("192.0.2.9")), asked, ME), None);
        // A question of the neighbour's own is no answer, and neither is our own frame.
        let question = arp(OTHER, v4("192.0.2.1"), v4("192.0.2.7"));
        assert_eq!(decode(&question, asked, ME), None);
        assert_eq!(decode(&reply(ME, v4("192.0.2.1")), asked, ME), None);
    }

    #[test]
    fn whoever_else_speaks_as_our_address_has_it() {
        let mine = Question::Mine {
            own: v4("192.0.2.7"),
        };
        let speaks = arp(OTHER, v4("192.0.2.7"), v4("192.0.2.1"));

        assert_eq!(
            decode(&reply(OTHER, v4("192.0.2.7")), mine, ME),
            Some(OTHER)
        );
        assert_eq!(decode(&speaks, mine, ME), Some(OTHER));
        assert_eq!(decode(&encode(mine, ME).unwrap(), mine, ME), None);
    }

    #[test]
    fn a_solicitation_has_a_checksum_that_holds() {
        let (own, asked) = ("fe80::2".parse().unwrap(), "fe80::abcd:1".parse().unwrap());
        let frame = solicitation(ME, own, asked);
        let group: [u8; 16] = frame[38..54].try_into().unwrap();

        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0xcd, 0, 1]);
        // With the right sum inside, the sum over everything is zero.
        assert_eq!(checksum(&own.octets(), &group, &frame[54..]), 0);
        let question = Question::WhoHas {
            neighbour: asked.into(),
            own: own.into(),
        };
        let mut answer = frame.clone();
        answer[6..12].copy_from_slice(&OTHER);
        answer[54] = ADVERTISEMENT;
        assert_eq!(decode(&answer, question, ME), Some(OTHER));
        assert_eq!(decode(&frame, question, OTHER), None);
    }

    proptest! {
        #[test]
        fn no_frame_panics(frame in proptest::collection::vec(any::<u8>(), 0..FRAME)) {
            let own = v4("192.0.2.7");
            let six = "fe80::1".parse().unwrap();
            decode(&frame, Question::Mine { own }, ME);
            decode(&frame, Question::WhoHas { neighbour: own.into(), own: own.into() }, ME);
            decode(&frame, Question::WhoHas { neighbour: six, own: six }, ME);
        }
    }
}
