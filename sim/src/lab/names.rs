//! A resolver that knows two names, and can be silent, slow, or lie.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::{CLOUD, CLOUD_V4, CLOUD_V6, RESOLVER_V4, RESOLVER_V6, STATUS, STATUS_V4};
use crate::system::SystemError;

/// How a resolver behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Manner {
    Honest,
    Silent,
    Slow(Duration),
    /// Every name is a machine on the customer's network.
    Lying,
}

/// Where a liar sends everybody.
const LIE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 77);
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;

pub struct Names {
    manner: Arc<Mutex<Manner>>,
    _tasks: JoinSet<()>,
}

impl Names {
    pub async fn serve() -> Result<Self, SystemError> {
        let manner = Arc::new(Mutex::new(Manner::Honest));
        let mut tasks = JoinSet::new();
        for address in [RESOLVER_V4, RESOLVER_V6] {
            let address: SocketAddr = super::servers::at(address, 53)?;
            let socket = UdpSocket::bind(address).await.map_err(|e| failed(&e))?;
            tasks.spawn(answer_all(Arc::new(socket), Arc::clone(&manner)));
        }
        Ok(Self {
            manner,
            _tasks: tasks,
        })
    }

    pub fn behave(&self, manner: Manner) {
        *self.manner.lock() = manner;
    }
}

fn failed(error: &io::Error) -> SystemError {
    SystemError::Unexpected {
        what: "the lab's resolver cannot listen",
        text: error.to_string(),
    }
}

async fn answer_all(socket: Arc<UdpSocket>, manner: Arc<Mutex<Manner>>) {
    let mut waiting = JoinSet::new();
    let mut question = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut question).await {
        while waiting.try_join_next().is_some() {}
        let manner = *manner.lock();
        let Some(answer) = answer(&question[..length], manner == Manner::Lying) else {
            continue;
        };
        let wait = match manner {
            Manner::Silent => continue,
            Manner::Slow(wait) => wait,
            Manner::Honest | Manner::Lying => Duration::ZERO,
        };
        let socket = Arc::clone(&socket);
        waiting.spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = socket.send_to(&answer, from).await;
        });
    }
}

/// The answer to one question (RFC 1035 section 4).
fn answer(question: &[u8], lying: bool) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        name.push(String::from_utf8_lossy(question.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(question.get(at..at + 2)?.try_into().ok()?);
    let asked = question.get(12..at + 4)?;
    let name = name.join(".");
    let v4 = match name.as_str() {
        _ if lying => Some(LIE),
        CLOUD => CLOUD_V4.parse().ok(),
        STATUS => STATUS_V4.parse().ok(),
        _ => None,
    };
    let v6: Option<Ipv6Addr> = CLOUD_V6.parse().ok().filter(|_| name == CLOUD && !lying);
    let data = match kind {
        TYPE_A => v4.map(|v4| v4.octets().to_vec()),
        TYPE_AAAA => v6.map(|v6| v6.octets().to_vec()),
        _ => None,
    };
    let mut answer = question.get(..2)?.to_vec();
    // A response, recursion available; 3 is "no such name".
    answer.extend([0x81, if v4.is_some() { 0x80 } else { 0x83 }]);
    answer.extend([0, 1, 0, u8::from(data.is_some()), 0, 0, 0, 0]);
    answer.extend(asked);
    if let Some(data) = data {
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        // Class IN, good for a second.
        answer.extend([0, 1, 0, 0, 0, 1, 0, u8::try_from(data.len()).ok()?]);
        answer.extend(data);
    }
    Some(answer)
}
