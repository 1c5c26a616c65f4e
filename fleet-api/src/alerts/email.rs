//! Mail about alerts.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;

use super::message::Message;
use super::smtp::{Server, SmtpError};

/// The longest that one attempt takes.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest address, in bytes (RFC 5321 section 4.5.3.1.3, without its angle brackets).
const MAX_ADDRESS: usize = 254;
/// Bytes of a subject in one encoded word: 75 characters at the most (RFC 2047 section 2).
const WORD: usize = 42;

/// Why a mail was not delivered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MailError {
    /// No server is configured.
    #[error("no mail server is configured: start the cloud with --smtp-url and --smtp-from")]
    NoServer,
    /// Not an address.
    #[error("not a mail address: name@host, or Name <name@host>")]
    Address,
    /// The time has no date.
    #[error("the time is not one that a mail can carry")]
    Date,
    /// The server was too slow.
    #[error("the mail server did not answer in time")]
    Slow,
    /// The server did not take it.
    #[error(transparent)]
    Server(#[from] SmtpError),
}

/// Sends mail through one server.
#[derive(Clone, Debug)]
pub struct Mailer {
    server: Server,
    /// The sender's name, empty for none.
    name: String,
    from: Address,
}

/// A mail address, checked: holding one proves that it cannot end a line or a command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Address(String);

impl std::str::FromStr for Address {
    type Err = MailError;

    /// Takes the addresses that are in use: ASCII, without quotes and comments.
    fn from_str(text: &str) -> Result<Self, MailError> {
        let is_local = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
        let is_host = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let (local, host) = text.rsplit_once('@').ok_or(MailError::Address)?;
        let dots = |part: &str| part.split('.').all(|label| !label.is_empty());
        let fits = text.len() <= MAX_ADDRESS
            && local.len() <= 64
            && local.chars().all(is_local)
            && dots(local)
            && dots(host)
            && host.split('.').all(|label| label.chars().all(is_host));
        fits.then(|| Self(text.to_owned()))
            .ok_or(MailError::Address)
    }
}

impl Mailer {
    /// By a URL: `smtps://user:password@host`, or `smtp://host:587?tls=required`; the sender is an
    /// address, or `Name <address>`.
    ///
    /// # Errors
    ///
    /// [`MailError`] if URL or sender are not as they must be.
    pub fn new(url: &str, from: &str, tls: Arc<ClientConfig>) -> Result<Self, MailError> {
        let (name, address) = match from.strip_suffix('>').and_then(|f| f.split_once('<')) {
            Some((name, address)) => (name.trim(), address),
            None => ("", from),
        };
        if name.chars().any(|c| c.is_control() || "\"<>\\".contains(c)) {
            return Err(MailError::Address);
        }
        Ok(Self {
            server: Server::new(url, tls)?,
            name: name.to_owned(),
            from: address.trim().parse()?,
        })
    }

    /// Makes one attempt. The mail's id is the message's, so that one that comes twice is known.
    ///
    /// # Errors
    ///
    /// [`MailError`] says why it was not taken.
    pub async fn send(&self, to: &str, id: &str, message: &Message) -> Result<(), MailError> {
        let to: Address = to.parse()?;
        let mail = self.write(&to, id, message)?;
        let sent = self.server.send(&self.from.0, &to.0, &mail);
        let sent = tokio::time::timeout(TIMEOUT, sent).await;
        Ok(sent.map_err(|_| MailError::Slow)??)
    }

    /// The whole message (RFC 5322), with CRLF line ends.
    fn write(&self, to: &Address, id: &str, message: &Message) -> Result<String, MailError> {
        let at =
            jiff::Timestamp::from_millisecond(message.timestamp).map_err(|_| MailError::Date)?;
        let date = jiff::fmt::rfc2822::to_string(&at.to_zoned(jiff::tz::TimeZone::UTC))
            .map_err(|_| MailError::Date)?;
        let from = &self.from.0;
        let sender = if self.name.is_empty() {
            from.clone()
        } else {
            format!("{} <{from}>", words(&self.name))
        };
        let domain = from.rsplit('@').next().unwrap_or_default();
        let mut mail = format!(
            "From: {sender}\r\nTo: {}\r\nSubject: {}\r\nDate: {date}\r\nMessage-ID: <{id}@{domain}>\r\n\
             Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n",
            to.0,
            words(&message.subject()),
        );
        let body = STANDARD.encode(message.text().replace('\n', "\r\n"));
        for line in body.as_bytes().chunks(76) {
            mail.push_str(&String::from_utf8_lossy(line));
            mail.push_str("\r\n");
        }
        Ok(mail)
    }
}

/// A header's text: as it is if it is short and plain, in encoded words (RFC 2047) otherwise.
fn words(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || " .,:%()[]/+-_'".contains(c);
    if text.len() <= 60 && text.chars().all(plain) {
        return text.to_owned();
    }
    let (mut words, mut word) = (Vec::new(), String::new());
    for c in text.chars() {
        if word.len() + c.len_utf8() > WORD {
            words.push(std::mem::take(&mut word));
        }
        word.push(c);
    }
    words.push(word);
    let encoded = words
        .iter()
        .map(|w| format!("=?UTF-8?B?{}?=", STANDARD.encode(w)));
    encoded.collect::<Vec<_>>().join("\r\n ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_end_a_command_is_no_address() {
        for good in ["ops@customer.test", "a.b+c@x-y.example", "root@localhost"] {
            assert!(good.parse::<Address>().is_ok(), "{good}");
        }
        let long = format!("{}@x.test", "a".repeat(65));
        for bad in [
            "",
            "ops",
            "@x",
            "a@",
            "a@b\r\nDATA",
            "a b@c",
            "a@b c",
            "<a@b>",
            "a@b>",
            "a..b@c",
            "a@b..c",
            "ä@b",
            "\"a\"@b",
            &long,
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_header_stays_within_its_lines_whatever_it_says() {
        assert_eq!(
            words("[critical] Box is offline: B (opened)"),
            "[critical] Box is offline: B (opened)"
        );
        let encoded = words(&"Büro\r\nBcc: x ".repeat(20));
        for line in encoded.split("\r\n ") {
            assert!(
                line.len() <= 75 && line.starts_with("=?UTF-8?B?") && line.is_ascii(),
                "{line}"
            );
        }
        assert_eq!(words("ü"), "=?UTF-8?B?w7w=?=");
    }
}
