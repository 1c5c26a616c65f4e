//! Who may change the network settings on the box's own page: whoever has the claim code.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::header::{self, HeaderMap};
use longhaul_protocol::network_settings::NetworkSettings;
use longhaul_protocol::value::Digest32;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::attempts::Attempts;
use crate::agent::Event;
use crate::clock;

/// The answer is at the browser before the box's address is another.
const BEFORE: Duration = Duration::from_secs(1);

/// Takes what somebody wants to change.
pub struct Desk {
    /// SHA-256 of the claim code; absent where the box's papers have none.
    claim: Option<Digest32>,
    /// In every form: only a page of this box knows it.
    token: String,
    attempts: Mutex<Attempts>,
    events: mpsc::Sender<Event>,
    /// Takes answers to the box's request to be registered without a line.
    answers: Option<mpsc::Sender<Vec<u8>>>,
    /// How long new settings are tried, in seconds.
    pub trial_secs: u32,
}

/// Why a claim code was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotClaimed {
    /// It is another one.
    Wrong,
    /// It is not looked at for so many seconds.
    Wait(u64),
    /// The box's papers have none.
    NoCode,
}

impl Desk {
    /// A desk that tells the agent.
    pub fn new(claim: Option<Digest32>, trial_secs: u32, events: mpsc::Sender<Event>) -> Self {
        Self {
            claim,
            token: format!("{:032x}", rand::random::<u128>()),
            attempts: Mutex::default(),
            events,
            answers: None,
            trial_secs,
        }
    }

    /// The same; answers to the box's request go there.
    #[must_use]
    pub fn with_answers(self, answers: mpsc::Sender<Vec<u8>>) -> Self {
        let answers = Some(answers);
        Self { answers, ..self }
    }

    /// Hands an answer on; whether somebody looks at it. It proves itself: no claim code is needed.
    pub fn answer(&self, file: Vec<u8>) -> bool {
        let answers = self.answers.as_ref();
        answers.is_some_and(|answers| answers.try_send(file).is_ok())
    }

    /// Whether there is a claim code at all.
    pub fn is_open(&self) -> bool {
        self.claim.is_some()
    }

    /// What a form of this page holds.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Whether a form comes from this page.
    pub fn is_own(&self, token: &str) -> bool {
        same(token.as_bytes(), self.token.as_bytes())
    }

    /// Whether `code` is the one that is printed on the box. Every attempt counts, a wrong one is in
    /// the journal.
    pub fn claim(&self, code: &str, peer: IpAddr) -> Result<(), NotClaimed> {
        let claim = self.claim.as_ref().ok_or(NotClaimed::NoCode)?;
        let now = clock::now().mono_ms;
        let begun = self.attempts.lock().begin(peer, now);
        begun.map_err(NotClaimed::Wait)?;
        if is_claim(code, claim) {
            self.attempts.lock().right(peer);
            return Ok(());
        }
        let told = self.attempts.lock().wrong(now);
        let peer = peer.to_canonical();
        tracing::warn!(%peer, "wrong claim code");
        if told {
            let text = format!("a wrong claim code came from {peer}");
            let part = "page".to_owned();
            // Without a place in the queue it stays in the log.
            let _ = self.events.try_send(Event::Notice { part, text });
        }
        Err(NotClaimed::Wrong)
    }

    /// Has the agent try the settings, once the answer is away.
    pub async fn set(&self, settings: Option<NetworkSettings>) {
        let events = self.events.clone();
        tokio::time::sleep(BEFORE).await;
        let _ = events.send(Event::NetworkSet(settings)).await;
    }
}

/// Whether `code`, as a person types it, is the claim code of this digest.
pub fn is_claim(code: &str, claim: &Digest32) -> bool {
    let printed = as_printed(code);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, printed.as_bytes());
    same(digest.as_ref(), &claim.0)
}

fn same(one: &[u8], other: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one, other).is_ok()
}

/// The code as it is printed, from what a person types: groups of four capitals and digits.
fn as_printed(typed: &str) -> String {
    let letters = typed.chars().filter_map(|c| match c.to_ascii_uppercase() {
        'O' => Some('0'),
        'I' | 'L' => Some('1'),
        c if c.is_ascii_alphanumeric() => Some(c),
        _ => None,
    });
    let mut code = String::new();
    for (at, letter) in letters.take(64).enumerate() {
        if at > 0 && at % 4 == 0 {
            code.push('-');
        }
        code.push(letter);
    }
    code
}

/// Whether the request names this box as people do: by its address or a name of the LAN. A page of
/// the internet whose name points here names itself (DNS rebinding).
pub fn names_box(headers: &HeaderMap) -> bool {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    host.is_some_and(|host| {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        let literal = name.trim_start_matches('[').trim_end_matches(']');
        let lan = name.to_ascii_lowercase();
        literal.parse::<IpAddr>().is_ok()
            || host.parse::<SocketAddr>().is_ok()
            || lan == "localhost"
            || lan
                .strip_suffix(".local")
                .is_some_and(|rest| !rest.is_empty() && !rest.contains('.'))
    })
}

/// Whether a form was sent by a page of the same origin, as far as the browser says.
pub fn same_origin(headers: &HeaderMap) -> bool {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &http::HeaderValue| value.to_str().ok())
    };
    let site = text(header::HeaderName::from_static("sec-fetch-site"));
    let own = |origin: &str| {
        let host = origin.strip_prefix("http://");
        host.is_some() && host == text(header::HOST)
    };
    text(header::ORIGIN).is_none_or(own) && site.is_none_or(|site| site == "same-origin")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (
                header::HeaderName::from_static(name),
                value.parse().unwrap(),
            )
        });
        pairs.collect()
    }

    #[test]
    fn a_name_of_somebody_else_is_not_this_box() {
        for host in [
            "192.168.1.40",
            "192.168.1.40:80",
            "[fe80::1]",
            "[fe80::1]:8080",
            "localhost:1",
            "Longhaul-3M7Q.local",
        ] {
            assert!(names_box(&headers(&[("host", host)])), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "192.168.1.40.evil.example",
            "evil.example:80",
            "a.b.local",
            ".local",
            "x:y",
        ] {
            assert!(!names_box(&headers(&[("host", host)])), "{host}");
        }
        assert!(!names_box(&HeaderMap::new()));
    }

    #[test]
    fn a_page_of_another_origin_sends_no_form() {
        let host = ("host", "192.168.1.40");
        assert!(same_origin(&headers(&[host])));
        assert!(same_origin(&headers(&[
            host,
            ("origin", "http://192.168.1.40"),
            ("sec-fetch-site", "same-origin")
        ])));
        for (name, value) in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("origin", "https://192.168.1.40"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert!(
                !same_origin(&headers(&[host, (name, value)])),
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn a_code_is_read_as_people_type_it() {
        for typed in [
            "0AB1-C2D3-E4F5-G6H7",
            "oabl c2d3 e4f5 g6h7",
            " OABIC2D3E4F5G6H7\n",
        ] {
            assert_eq!(as_printed(typed), "0AB1-C2D3-E4F5-G6H7", "{typed}");
        }
        assert!(as_printed(&"x".repeat(1 << 20)).len() < 100);
    }

    #[test]
    fn only_the_printed_code_is_taken_and_wrong_ones_are_told_and_slowed() {
        let code = "0AB1-C2D3-E4F5-G6H7";
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, code.as_bytes());
        let digest = Digest32(digest.as_ref().try_into().unwrap());
        let (events, mut told) = mpsc::channel(16);
        let desk = Desk::new(Some(digest), 120, events.clone());
        let (mallory, ada) = ("192.0.2.66".parse().unwrap(), "192.0.2.7".parse().unwrap());

        for _ in 0..5 {
            assert_eq!(
                desk.claim("0AB1-C2D3-E4F5-G6H8", mallory),
                Err(NotClaimed::Wrong)
            );
        }

        assert!(matches!(
            desk.claim(code, mallory),
            Err(NotClaimed::Wait(_))
        ));
        assert_eq!(desk.claim(code, ada), Ok(()));
        let Ok(Event::Notice { text, .. }) = told.try_recv() else {
            panic!("the journal was not told");
        };
        assert_eq!(text, "a wrong claim code came from 192.0.2.66");
        let none = Desk::new(None, 120, events);
        assert_eq!(none.claim("", ada), Err(NotClaimed::NoCode));
    }
}
