//! What the cloud's UDP echo sees: how addresses are translated, and how long a packet may be.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use longhaul_protocol::probe::{ECHO_ASK, ECHO_MIN, ECHO_SAY, Nat};
use tokio::net::UdpSocket;

/// How long an answer is waited for, and how often it is asked for.
const WAIT: Duration = Duration::from_millis(700);
const TRIES: u8 = 3;
/// Bytes of the headers of IPv4 and UDP.
const HEAD: u16 = 28;
/// The smallest and the largest packet that are looked for: what every IPv4 host takes (RFC 791), and
/// Ethernet's.
const LEAST: u16 = 576;
const MOST: u16 = 1500;
/// A measured size may be this much too small.
const CLOSE: u16 = 8;

/// Has the kernel send packets whole or not at all, whatever it believes of the path.
#[expect(unsafe_code, reason = "an option of Linux that no safe function sets")]
fn keep_whole(socket: &UdpSocket) -> bool {
    use nix::libc;
    let value: libc::c_int = libc::IP_PMTUDISC_PROBE;
    let length = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or(0);
    // SAFETY: the descriptor is open, and the value is as long as is said.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const value).cast(),
            length,
        )
    };
    set == 0
}

/// How the ports `ports` of `cloud` see one socket of this machine.
pub async fn nat(cloud: IpAddr, ports: [u16; 2]) -> Nat {
    let Some(socket) = super::udp(cloud).await else {
        return Nat::Unknown;
    };
    let first = seen(&socket, SocketAddr::new(cloud, ports[0]), ECHO_MIN).await;
    let second = if ports[0] == ports[1] {
        None
    } else {
        seen(&socket, SocketAddr::new(cloud, ports[1]), ECHO_MIN).await
    };
    let own = socket.local_addr().ok().map(|own| own.port());
    let routed = local_towards(cloud).await;
    classify(routed.zip(own), first, second)
}

/// From the own address and port, and what two ports of the cloud saw.
fn classify(
    own: Option<(IpAddr, u16)>,
    first: Option<SocketAddr>,
    second: Option<SocketAddr>,
) -> Nat {
    let Some(seen) = first.or(second) else {
        return Nat::Unknown;
    };
    let own = own.map(|(address, port)| SocketAddr::new(address, port));
    match first.zip(second) {
        Some((first, second)) if first != second => Nat::Symmetric,
        _ if own == Some(seen) => Nat::None,
        Some(_) => Nat::Cone,
        None => Nat::Translated,
    }
}

/// The own address that packets to `cloud` leave from.
async fn local_towards(cloud: IpAddr) -> Option<IpAddr> {
    let socket = super::udp(cloud).await?;
    socket.connect(SocketAddr::new(cloud, 9)).await.ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The largest packet that reaches the echo at `cloud` whole; `None` where none does, and for
/// IPv6.
pub async fn path_mtu(cloud: SocketAddr) -> Option<u16> {
    let socket = super::udp(cloud.ip()).await?;
    if !cloud.is_ipv4() || !keep_whole(&socket) {
        return None;
    }
    let passes = async |size: u16| {
        let length = usize::from(size - HEAD);
        seen(&socket, cloud, length).await.is_some()
    };
    if !passes(LEAST).await {
        return None;
    }
    if passes(MOST).await {
        return Some(MOST);
    }
    let (mut whole, mut lost) = (LEAST, MOST);
    while lost - whole > CLOSE {
        let middle = whole + (lost - whole) / 2;
        if passes(middle).await {
            whole = middle;
        } else {
            lost = middle;
        }
    }
    Some(whole)
}

/// As whom the echo at `cloud` sees `socket`, asked by `length` bytes.
async fn seen(socket: &UdpSocket, cloud: SocketAddr, length: usize) -> Option<SocketAddr> {
    let nonce: [u8; 16] = rand::random();
    let mut question = [&ECHO_ASK[..], &nonce].concat();
    question.resize(length.max(ECHO_MIN), 0);
    for _ in 0..TRIES {
        // Longer than the own line takes: it does not pass.
        socket.send_to(&question, cloud).await.ok()?;
        if let Ok(seen) = tokio::time::timeout(WAIT, heard(socket, &nonce)).await {
            return seen;
        }
    }
    None
}

async fn heard(socket: &UdpSocket, nonce: &[u8; 16]) -> Option<SocketAddr> {
    let mut answer = [0; 128];
    loop {
        // An earlier question may have been refused by whoever is on the way.
        let Ok((length, _)) = socket.recv_from(&mut answer).await else {
            continue;
        };
        if let Some(seen) = read(&answer[..length], nonce) {
            return Some(seen);
        }
    }
}

fn read(answer: &[u8], nonce: &[u8; 16]) -> Option<SocketAddr> {
    let text = answer.strip_prefix(&ECHO_SAY)?.strip_prefix(nonce)?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_way_of_translating_is_told_and_what_was_not_seen_is_not() {
        let at = |port: u16| Some(SocketAddr::from(([198, 51, 100, 1], port)));
        let own = Some((IpAddr::from([192, 0, 2, 7]), 4000));
        let itself = Some(SocketAddr::from(([192, 0, 2, 7], 4000)));

        assert_eq!(classify(own, itself, itself), Nat::None);
        assert_eq!(classify(own, itself, None), Nat::None);
        assert_eq!(classify(own, at(1), at(1)), Nat::Cone);
        assert_eq!(classify(own, at(1), at(2)), Nat::Symmetric);
        assert_eq!(classify(own, None, at(1)), Nat::Translated);
        assert_eq!(classify(own, None, None), Nat::Unknown);
        assert_eq!(classify(None, at(1), at(1)), Nat::Cone);
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            read(&bytes, &[0; 16]);
            let whole = [&ECHO_SAY[..], &[0; 16], &bytes].concat();
            read(&whole, &[0; 16]);
        }
    }
}
