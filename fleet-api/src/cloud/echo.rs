//! Tells probes over UDP from where they are seen. An answer is shorter than its question, so that
//! nobody can be flooded by asking in their name.

use std::net::SocketAddr;

use longhaul_protocol::probe::{ECHO_ASK, ECHO_MIN, ECHO_SAY};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

/// Bytes of a question that are read; longer ones probe the path's MTU, and count as whole.
const MAX_ASK: usize = 64;
/// What an answer repeats.
const NONCE: usize = 16;

/// Answers until `stop`.
pub(super) async fn answer(socket: UdpSocket, stop: CancellationToken) {
    let mut question = [0; MAX_ASK + ECHO_MIN];
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return,
            received = socket.recv_from(&mut question) => received,
        };
        // An error is about somebody who was answered before.
        let Ok((length, from)) = received else {
            continue;
        };
        if let Some(answer) = say(&question[..length], from) {
            let _ = socket.try_send_to(&answer, from);
        }
    }
}

fn say(question: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
    let nonce = question.strip_prefix(&ECHO_ASK)?.get(..NONCE)?;
    if question.len() < ECHO_MIN {
        return None;
    }
    let from = SocketAddr::new(from.ip().to_canonical(), from.port()).to_string();
    Some([&ECHO_SAY, nonce, from.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_never_longer_than_its_question() {
        let from = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535"
            .parse()
            .unwrap();
        let mut question = ECHO_ASK.to_vec();
        for length in question.len()..200 {
            question.resize(length, 7);
            match say(&question, from) {
                Some(answer) => assert!(length >= ECHO_MIN && answer.len() <= length),
                None => assert!(length < ECHO_MIN),
            }
        }
        assert_eq!(say(&[0; 100], from), None);
        assert_eq!(say(b"", from), None);
    }
}
