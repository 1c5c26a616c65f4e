//! Speed and delay to the cloud, and what it says: HTTP/1.1 over the way that the ladder found.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use longhaul_protocol::inventory::CloudEndpoint;
use longhaul_protocol::probe::{
    ALPN, BYTES_PATH, Line, MAX_TRANSFER, REPORT_PATH, SEEN_PATH, Seen,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::proxy::Proxy;
use crate::rungs::connect_to;

/// How long a transfer may take.
const TRANSFER: Duration = Duration::from_secs(5);
/// How long anything else may take.
const STEP: Duration = Duration::from_secs(6);
/// The longest answer that is read, beside a measured one, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Connections whose delay is measured.
const DELAYS: usize = 5;

/// The cloud, as a probe talks to it.
pub struct Cloud<'a> {
    endpoint: &'a CloudEndpoint,
    proxy: Option<&'a Proxy>,
    tls: Arc<ClientConfig>,
    /// What proves that it may ask.
    ticket: &'a str,
}

/// What was answered.
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

impl<'a> Cloud<'a> {
    /// The cloud at `endpoint`, proven by `roots`.
    pub fn new(
        endpoint: &'a CloudEndpoint,
        proxy: Option<&'a Proxy>,
        roots: RootCertStore,
        ticket: &'a str,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN.to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            endpoint,
            proxy,
            tls: Arc::new(tls),
            ticket,
        })
    }

    /// What the cloud sees, and when it did by the steady clock's middle of question and answer.
    pub async fn seen(&self) -> io::Result<Seen> {
        let answer = within(STEP, self.ask("GET", SEEN_PATH, b"")).await?;
        serde_json::from_slice(&answer.body).map_err(io::Error::other)
    }

    /// Hands a signed report in; the status of the answer.
    pub async fn report(&self, report: &[u8]) -> io::Result<Answer> {
        within(STEP, self.ask("POST", REPORT_PATH, report)).await
    }

    /// Delay and speed; `None` where there is not even a connection.
    pub async fn measure(&self) -> Option<Line> {
        let mut delays = Vec::new();
        for _ in 0..DELAYS {
            let begun = Instant::now();
            if within(STEP, self.connect()).await.is_ok() {
                delays.push(begun.elapsed());
            }
        }
        delays.sort_unstable();
        let middle = delays.get(delays.len() / 2)?;
        Some(Line {
            latency_ms: u32::try_from(middle.as_millis()).unwrap_or(u32::MAX),
            down_bits_per_sec: self.down().await.ok(),
            up_bits_per_sec: self.up().await.ok(),
        })
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        connect_to(self.endpoint, self.proxy, STEP)
            .await
            .map_err(|failure| io::Error::other(failure.evidence))
    }

    async fn open(&self) -> io::Result<TlsStream<TcpStream>> {
        let stream = self.connect().await?;
        let name = ServerName::try_from(self.endpoint.host.clone()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await
    }

    fn head(&self, method: &str, path: &str, length: u64) -> String {
        let (host, ticket) = (&self.endpoint.host, self.ticket);
        format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {ticket}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        )
    }

    async fn ask(&self, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
        let mut stream = self.open().await?;
        let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
        stream
            .write_all(self.head(method, path, length).as_bytes())
            .await?;
        stream.write_all(body).await?;
        let mut answer = Vec::new();
        let limit = u64::try_from(MAX_ANSWER).unwrap_or(u64::MAX);
        // Some servers cut the connection rather than close it: what came, came.
        let read = stream.take(limit).read_to_end(&mut answer).await;
        match parse(&answer) {
            Some(answer) => Ok(answer),
            None => Err(read
                .err()
                .unwrap_or_else(|| io::Error::other("no HTTP answer"))),
        }
    }

    async fn down(&self) -> io::Result<u64> {
        let mut stream = within(STEP, self.open()).await?;
        stream
            .write_all(self.head("GET", BYTES_PATH, 0).as_bytes())
            .await?;
        let (begun, mut took, mut buffer) = (Instant::now(), 0_u64, vec![0; 64 * 1024]);
        let all = async {
            while took < MAX_TRANSFER {
                match stream.read(&mut buffer).await? {
                    0 => break,
                    more => took += u64::try_from(more).unwrap_or(0),
                }
            }
            Ok::<_, io::Error>(())
        };
        if let Ok(ended) = tokio::time::timeout(TRANSFER, all).await {
            ended?;
        }
        // An answer so short is a refusal.
        speed(took, begun.elapsed())
            .filter(|_| took > 4096)
            .ok_or_else(|| io::Error::other("nothing came"))
    }

    async fn up(&self) -> io::Result<u64> {
        let mut stream = within(STEP, self.open()).await?;
        stream
            .write_all(self.head("POST", BYTES_PATH, MAX_TRANSFER).as_bytes())
            .await?;
        let chunk: Vec<u8> = (0..64 * 1024).map(|_| rand::random()).collect();
        let (begun, mut sent) = (Instant::now(), 0_u64);
        let all = async {
            while sent < MAX_TRANSFER {
                let rest = usize::try_from(MAX_TRANSFER - sent).unwrap_or(0);
                let piece = &chunk[..chunk.len().min(rest)];
                stream.write_all(piece).await?;
                sent += u64::try_from(piece.len()).unwrap_or(0);
            }
            stream.flush().await?;
            // What lies in buffers has not arrived: the answer says that it has.
            let mut answer = [0; 1];
            stream.read_exact(&mut answer).await.map(drop)
        };
        if let Ok(ended) = tokio::time::timeout(TRANSFER, all).await {
            ended?;
        }
        speed(sent, begun.elapsed()).ok_or_else(|| io::Error::other("nothing was sent"))
    }
}

fn speed(bytes: u64, took: Duration) -> Option<u64> {
    let micros = u64::try_from(took.as_micros())
        .ok()
        .filter(|micros| *micros > 0)?;
    Some(bytes.saturating_mul(8_000_000) / micros).filter(|bits| *bits > 0)
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// An answer of HTTP/1.1 whose body is as long as it says, or goes on to the end.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    let body = &bytes[end + 4..];
    let body = body.get(..length.unwrap_or(body.len()))?.to_vec();
    Some(Answer { status, body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_answer_is_read_whole_or_not_at_all() {
        let read = |text: &str| parse(text.as_bytes()).map(|a| (a.status, a.body));

        assert_eq!(
            read("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}x"),
            Some((200, b"{}".to_vec()))
        );
        assert_eq!(read("HTTP/1.1 204 \r\n\r\n"), Some((204, Vec::new())));
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"), None);
        assert_eq!(read("HTTP/1.1 200 OK\r\n"), None);
        assert_eq!(read("SSH-2.0\r\n\r\n"), None);
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            parse(&bytes);
            parse(&[b"HTTP/1.1 200 OK\r\ncontent-length:", &bytes[..]].concat());
        }
    }
}
