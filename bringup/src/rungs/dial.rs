//! A TCP connection to the cloud: direct, or through the customer's proxy.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use longhaul_protocol::diag::Code;
use longhaul_protocol::inventory::CloudEndpoint;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::observation::Observation;
use crate::proxy::Proxy;

/// Addresses of one name that are tried at the most.
const MAX_ADDRESSES: usize = 4;
/// The longest answer to CONNECT that is read, in bytes.
const MAX_ANSWER: usize = 8 * 1024;
/// Segments of this size pass wherever IPv4 does (RFC 9293 section 3.7.1), in bytes.
pub const SMALL_SEGMENT: u32 = 536;

/// Where the cloud is, and the way there.
pub struct Dial<'a> {
    pub endpoint: &'a CloudEndpoint,
    pub proxy: Option<&'a Proxy>,
    /// Of the proxy, where there is one; else of the cloud.
    pub addresses: &'a [IpAddr],
}

impl Dial<'_> {
    /// Connects; with segments of no more than `segment` bytes in both directions, where given.
    pub async fn open(
        &self,
        limit: Duration,
        segment: Option<u32>,
    ) -> Result<TcpStream, Observation> {
        let port = self.proxy.map_or(self.endpoint.https_port, |p| p.port);
        let connected = connect(self.addresses, port, limit, segment).await;
        let Some(proxy) = self.proxy else {
            return connected;
        };
        let stream = connected.map_err(|o| Observation::failed(Code::PROXY_SILENT, o.evidence))?;
        let asked = tokio::time::timeout(limit, ask(stream, proxy, self.endpoint)).await;
        asked.unwrap_or_else(|_| {
            Err(Observation::failed(
                Code::PROXY_SILENT,
                format!(
                    "{proxy} did not answer CONNECT within {} s",
                    limit.as_secs()
                ),
            ))
        })
    }
}

/// Connects to whichever address answers first; the failure is the first address's.
pub async fn connect(
    addresses: &[IpAddr],
    port: u16,
    limit: Duration,
    segment: Option<u32>,
) -> Result<TcpStream, Observation> {
    let tries = addresses.iter().take(MAX_ADDRESSES).enumerate();
    let mut tries: FuturesUnordered<_> = tries
        .map(|(place, address)| async move {
            let connect = connect_one(SocketAddr::new(*address, port), segment);
            let failure = match tokio::time::timeout(limit, connect).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => {
                    Observation::failed(tcp_code(&error), format!("{address} port {port}: {error}"))
                }
                Err(_) => Observation::failed(
                    Code::TCP_TIMEOUT,
                    format!(
                        "{address} port {port}: nothing within {} s",
                        limit.as_secs()
                    ),
                ),
            };
            Err((place, failure))
        })
        .collect();
    let mut first: Option<(usize, Observation)> = None;
    while let Some(tried) = tries.next().await {
        match tried {
            Ok(stream) => return Ok(stream),
            Err((place, failure)) => {
                if first.as_ref().is_none_or(|(at, _)| place < *at) {
                    first = Some((place, failure));
                }
            }
        }
    }
    Err(first.map_or_else(
        || Observation::failed(Code::DNS_NO_NAME, "no address"),
        |(_, failure)| failure,
    ))
}

async fn connect_one(address: SocketAddr, segment: Option<u32>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(segment) = segment {
        setsockopt(&socket, sockopt::TcpMaxSeg, &segment)?;
    }
    socket.connect(address).await
}

fn tcp_code(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Code::TCP_REFUSED,
        io::ErrorKind::TimedOut => Code::TCP_TIMEOUT,
        _ => Code::TCP_UNREACHABLE,
    }
}

async fn ask(
    mut stream: TcpStream,
    proxy: &Proxy,
    endpoint: &CloudEndpoint,
) -> Result<TcpStream, Observation> {
    let cut = |error: io::Error| {
        Observation::failed(Code::PROXY_SILENT, format!("{proxy} at CONNECT: {error}"))
    };
    let request = proxy.connect_request(&endpoint.host, endpoint.https_port);
    stream.write_all(request.as_bytes()).await.map_err(cut)?;
    let mut head = Vec::new();
    // A byte at a time: what follows the head belongs to the cloud.
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_ANSWER {
        head.push(stream.read_u8().await.map_err(cut)?);
    }
    match status(&head) {
        Some(200..=299) => Ok(stream),
        Some(407) => Err(Observation::failed(
            Code::PROXY_LOGIN,
            format!("{proxy} answers 407"),
        )),
        // The proxy itself finds no way to the cloud.
        Some(status @ 502..=504) => Err(Observation::failed(
            Code::TCP_TIMEOUT,
            format!("{proxy} answers {status} for {}", endpoint.host),
        )),
        Some(status) => Err(Observation::failed(
            Code::PROXY_REFUSED,
            format!("{proxy} answers {status} for {}", endpoint.host),
        )),
        None => Err(Observation::failed(
            Code::PROXY_REFUSED,
            format!("{proxy} answers what is not HTTP"),
        )),
    }
}

/// The status code of an answer (RFC 9112 section 4).
fn status(head: &[u8]) -> Option<u16> {
    let line = head.strip_prefix(b"HTTP/1.")?;
    let digits = std::str::from_utf8(line.get(2..5)?).ok()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn only_http_has_a_status() {
        assert_eq!(
            status(b"HTTP/1.1 200 Connection established\r\n\r\n"),
            Some(200)
        );
        assert_eq!(status(b"HTTP/1.0 407 \r\n"), Some(407));
        for garbage in [&b""[..], b"HTTP/1.", b"HTTP/1.1 xyz", b"SSH-2.0-x", b"\xff"] {
            assert_eq!(status(garbage), None);
        }
    }

    /// A proxy that answers anything with `answer`.
    async fn proxy(answer: &'static str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = [0; 512];
                let _ = stream.read(&mut asked).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        format!("http://127.0.0.1:{port}").parse().unwrap()
    }

    #[tokio::test]
    async fn each_answer_of_a_proxy_has_its_code() {
        let endpoint = CloudEndpoint {
            host: "cloud.example".to_owned(),
            https_port: 443,
            mqtt_port: 8883,
        };
        let loopback = [IpAddr::from([127, 0, 0, 1])];
        let cases = [
            ("HTTP/1.1 200 fine\r\n\r\n", None),
            ("HTTP/1.1 407 who?\r\n\r\n", Some(Code::PROXY_LOGIN)),
            ("HTTP/1.1 403 no\r\n\r\n", Some(Code::PROXY_REFUSED)),
            ("HTTP/1.1 504 nobody\r\n\r\n", Some(Code::TCP_TIMEOUT)),
            ("hello?\r\n\r\n", Some(Code::PROXY_REFUSED)),
            ("", Some(Code::PROXY_SILENT)),
        ];
        for (answer, code) in cases {
            let proxy = proxy(answer).await;
            let dial = Dial {
                endpoint: &endpoint,
                proxy: Some(&proxy),
                addresses: &loopback,
            };

            let opened = dial
                .open(Duration::from_secs(30), Some(SMALL_SEGMENT))
                .await;

            assert_eq!(opened.err().and_then(|o| o.code), code, "{answer}");
        }
    }
}
