//! Whether multicast works on this LAN: does another machine answer a question to all (RFC 6762)?

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;

/// How long answers are waited for.
const WAIT: Duration = Duration::from_secs(2);
const MDNS: (Ipv4Addr, u16) = (Ipv4Addr::new(224, 0, 0, 251), 5353);

/// `Some(true)` where another machine answered; `None` where nobody did, which has two reasons.
pub async fn multicast() -> Option<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.ok()?;
    let question = question();
    let own: Vec<_> = crate::rungs::lan_addresses();
    let asked = async {
        socket
            .send_to(&question, SocketAddr::from(MDNS))
            .await
            .ok()?;
        let mut answer = [0; 2048];
        loop {
            let (length, from) = socket.recv_from(&mut answer).await.ok()?;
            if is_answer(&answer[..length]) && !own.contains(&from.ip()) {
                return Some(true);
            }
        }
    };
    tokio::time::timeout(WAIT, asked).await.ok()?
}

/// Which services are there? Answers are wanted by unicast (section 5.4): they come to any port.
fn question() -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["_services", "_dns-sd", "_udp", "local"] {
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 12, 0x80, 1]);
    bytes
}

fn is_answer(bytes: &[u8]) -> bool {
    bytes.len() >= 12 && bytes[2] & 0x80 != 0
}
