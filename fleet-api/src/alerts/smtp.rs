//! One conversation with a mail server (RFC 5321), over TLS from the first byte or by STARTTLS
//! (RFC 3207).
//!
//! Written here because it is small: the crates for it bring a second stack of their own along.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::BufReader;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

/// Longest line of an answer that is read, in bytes; the standard allows 512.
const MAX_LINE: u64 = 2000;
/// Most lines of one answer.
const MAX_LINES: usize = 100;

/// How the conversation is protected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Protection {
    /// TLS from the first byte.
    Tls,
    /// TLS after STARTTLS, or none of it.
    StartTls,
    /// Nothing.
    Plain,
}

/// A mail server.
#[derive(Clone)]
pub struct Server {
    host: String,
    port: u16,
    protection: Protection,
    /// User name and password.
    credentials: Option<(String, String)>,
    tls: Arc<ClientConfig>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("protection", &self.protection)
            .finish_non_exhaustive()
    }
}

/// Why a mail server did not take a mail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SmtpError {
    /// The URL is not one of a mail server.
    #[error(
        "a mail server is smtps://user:password@host, or smtp://host:587?tls=required; a password needs TLS"
    )]
    Url,
    /// The line broke, or was never there.
    #[error("the line to the mail server failed")]
    Line(#[from] std::io::Error),
    /// The server does not offer what is needed.
    #[error("the mail server does not offer {0}")]
    Missing(&'static str),
    /// The server said something that no server says.
    #[error("the mail server does not speak SMTP")]
    Garbage,
    /// The server refused a step.
    #[error("the mail server answered {code} to {step}: {text}")]
    Refused {
        /// Which step.
        step: &'static str,
        /// Its code.
        code: u16,
        /// Its words.
        text: String,
    },
}

/// An answer of the server.
struct Answer {
    code: u16,
    lines: Vec<String>,
}

trait Line: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Line for T {}

/// The line, whatever it runs over.
struct Talk(BufReader<Box<dyn Line>>);

impl Server {
    /// Reads a URL; TLS trusts what `tls` trusts.
    ///
    /// # Errors
    ///
    /// [`SmtpError::Url`] if it is none of a mail server.
    pub fn new(url: &str, tls: Arc<ClientConfig>) -> Result<Self, SmtpError> {
        let url = Url::parse(url).map_err(|_| SmtpError::Url)?;
        let (protection, port) = match (url.scheme(), url.query()) {
            ("smtps", None) => (Protection::Tls, 465),
            ("smtp", Some("tls=required")) => (Protection::StartTls, 587),
            ("smtp", None) => (Protection::Plain, 25),
            _ => return Err(SmtpError::Url),
        };
        let decode = |text: &str| {
            let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
            decoded.map(String::from).map_err(|_| SmtpError::Url)
        };
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, Some(password)) if protection != Protection::Plain => {
                Some((decode(user)?, decode(password)?))
            }
            _ => return Err(SmtpError::Url),
        };
        let host = url
            .host_str()
            .filter(|h| !h.is_empty())
            .ok_or(SmtpError::Url)?;
        Ok(Self {
            host: host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port: url.port().unwrap_or(port),
            protection,
            credentials,
            tls,
        })
    }

    /// Hands one mail over; `mail` is the whole message with CRLF line ends.
    ///
    /// # Errors
    ///
    /// [`SmtpError`] says at which step it was not taken.
    pub async fn send(&self, from: &str, to: &str, mail: &str) -> Result<(), SmtpError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let mut talk = match self.protection {
            Protection::Tls => self.encrypt(stream).await?,
            Protection::StartTls => {
                let mut talk = Talk::plain(stream);
                talk.expect("the greeting", 220).await?;
                let offers = talk.hello().await?;
                if !offers.iter().any(|o| o == "STARTTLS") {
                    return Err(SmtpError::Missing("STARTTLS"));
                }
                talk.say("STARTTLS", "STARTTLS", 220).await?;
                // What came before the handshake was not the server's to say (CVE-2011-0411).
                if !talk.0.buffer().is_empty() {
                    return Err(SmtpError::Garbage);
                }
                self.encrypt(talk.0.into_inner()).await?
            }
            Protection::Plain => Talk::plain(stream),
        };
        if self.protection != Protection::StartTls {
            talk.expect("the greeting", 220).await?;
        }
        let offers = talk.hello().await?;
        if let Some((user, password)) = &self.credentials {
            let plain = |o: &String| o.starts_with("AUTH ") && o.split(' ').any(|m| m == "PLAIN");
            if !offers.iter().any(plain) {
                return Err(SmtpError::Missing("AUTH PLAIN"));
            }
            let token = STANDARD.encode(format!("\0{user}\0{password}"));
            talk.say("AUTH", &format!("AUTH PLAIN {token}"), 235)
                .await?;
        }
        talk.say("MAIL", &format!("MAIL FROM:<{from}>"), 250)
            .await?;
        talk.say("RCPT", &format!("RCPT TO:<{to}>"), 250).await?;
        talk.say("DATA", "DATA", 354).await?;
        let mut text = String::with_capacity(mail.len() + 8);
        for line in mail.split_inclusive("\r\n") {
            if line.starts_with('.') {
                text.push('.');
            }
            text.push_str(line);
        }
        text.push('.');
        talk.say("the mail", &text, 250).await?;
        // The mail is theirs; how they take leave does not matter.
        let _ = talk.say("QUIT", "QUIT", 221).await;
        Ok(())
    }

    async fn encrypt<S: Line + 'static>(&self, stream: S) -> Result<Talk, SmtpError> {
        let name = ServerName::try_from(self.host.clone()).map_err(|_| SmtpError::Url)?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(name, stream).await?;
        Ok(Talk(BufReader::new(Box::new(stream))))
    }
}

impl Talk {
    fn plain(stream: TcpStream) -> Self {
        Self(BufReader::new(Box::new(stream)))
    }

    /// Introduces us; yields what the server offers.
    async fn hello(&mut self) -> Result<Vec<String>, SmtpError> {
        let mut answer = self.say("EHLO", "EHLO longhaul", 250).await?;
        for line in &mut answer.lines {
            line.make_ascii_uppercase();
        }
        Ok(answer.lines)
    }

    async fn say(
        &mut self,
        step: &'static str,
        text: &str,
        code: u16,
    ) -> Result<Answer, SmtpError> {
        self.0.write_all(format!("{text}\r\n").as_bytes()).await?;
        self.0.flush().await?;
        self.expect(step, code).await
    }

    async fn expect(&mut self, step: &'static str, code: u16) -> Result<Answer, SmtpError> {
        let answer = self.read().await?;
        if answer.code == code {
            return Ok(answer);
        }
        let text = answer.lines.join(" ");
        Err(SmtpError::Refused {
            step,
            code: answer.code,
            text: text.chars().filter(|c| !c.is_control()).take(200).collect(),
        })
    }

    async fn read(&mut self) -> Result<Answer, SmtpError> {
        let mut lines = Vec::new();
        loop {
            let mut bytes = Vec::new();
            (&mut self.0)
                .take(MAX_LINE)
                .read_until(b'\n', &mut bytes)
                .await?;
            if bytes.is_empty() {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
            if bytes.last() != Some(&b'\n') || lines.len() >= MAX_LINES {
                return Err(SmtpError::Garbage);
            }
            let line = String::from_utf8_lossy(&bytes);
            let line = line.trim_end();
            let code = line.get(..3).and_then(|c| c.parse().ok());
            let code: u16 = code.ok_or(SmtpError::Garbage)?;
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            match line.as_bytes().get(3) {
                Some(b'-') => {}
                Some(b' ') | None => return Ok(Answer { code, lines }),
                Some(_) => return Err(SmtpError::Garbage),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::trust;

    #[test]
    fn a_password_never_goes_in_the_clear() {
        let tls = trust::public().expect("TLS");
        let server = |url: &str| Server::new(url, Arc::clone(&tls));
        for good in [
            "smtps://u:p%40@mail.test",
            "smtp://u:p@mail.test?tls=required",
            "smtp://127.0.0.1:2525",
            "smtps://[::1]:1",
        ] {
            assert!(server(good).is_ok(), "{good}");
        }
        for bad in [
            "smtp://u:p@mail.test",
            "smtps://u@mail.test",
            "smtps://",
            "https://mail.test",
            "smtp://m?tls=maybe",
            "mail.test",
        ] {
            assert!(server(bad).is_err(), "{bad}");
        }
        let shown = format!(
            "{:?}",
            server("smtps://u:hidden@mail.test").expect("a server")
        );
        assert!(!shown.contains("hidden"));
    }
}
