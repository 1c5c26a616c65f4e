//! Peers that are slow, silent or too large, and a shutdown.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

/// Short enough to wait for.
const LIMIT: Duration = Duration::from_millis(300);
/// Longer than any test may take.
const TOO_LONG: Duration = Duration::from_secs(30);

/// A port that answers `hello`, and to `/slow` once it was told to.
struct Port {
    address: SocketAddr,
    client: Arc<ClientConfig>,
    stop: CancellationToken,
    go_on: CancellationToken,
    slow: Arc<Semaphore>,
    task: JoinHandle<()>,
}

fn configs() -> (ServerConfig, ClientConfig) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let certificate = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], PrivateKeyDer::from(key))
        .expect("a configuration");
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a root");
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (server, client)
}

impl Port {
    async fn open(max_connections: usize) -> Self {
        let (server, client) = configs();
        let server = Arc::new(server);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, go_on) = (CancellationToken::new(), CancellationToken::new());
        let slow = Arc::new(Semaphore::new(0));
        let (waits, begun) = (go_on.clone(), Arc::clone(&slow));
        let service = service_fn(move |request: Request<Incoming>| {
            let (waits, begun) = (waits.clone(), Arc::clone(&begun));
            async move {
                if request.uri().path() == "/slow" {
                    begun.add_permits(1);
                    waits.cancelled().await;
                }
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello"))))
            }
        });
        let listen = Listen {
            listener,
            tls: Arc::new(move || Arc::clone(&server)),
            max_connections,
            mqtt: None,
            strangers: None,
        };
        let limits = Limits {
            handshake: LIMIT,
            headers: LIMIT,
            idle: LIMIT,
            grace: LIMIT,
        };
        let task = tokio::spawn(listen.serve_within(limits, service, stop.clone()));
        Self {
            address,
            client: Arc::new(client),
            stop,
            go_on,
            slow,
            task,
        }
    }

    /// A connection after its handshake, which offers `alpn`.
    async fn connect(&self, alpn: &[u8]) -> TlsStream<TcpStream> {
        let mut client = ClientConfig::clone(&self.client);
        client.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(self.address).await.expect("connects");
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(client))
            .connect(name, stream)
            .await
            .expect("shakes hands")
    }

    /// Sends one HTTP/1.1 request and reads until the peer ends.
    async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect(b"http/1.1").await;
        stream.write_all(request.as_bytes()).await.expect("sends");
        read_all(&mut stream).await
    }
}

/// What comes until the peer ends, or cuts.
async fn read_all(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    let read = tokio::time::timeout(TOO_LONG, stream.read_to_end(&mut all));
    let _ = read.await.expect("the peer ends");
    String::from_utf8_lossy(&all).into_owned()
}

const HELLO: &str = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn peers_that_say_nothing_are_cut_off_and_disturb_nobody() {
    let port = Port::open(300).await;
    let mut silent = Vec::new();
    for _ in 0..250 {
        silent.push(TcpStream::connect(port.address).await.expect("connects"));
    }
    let began = Instant::now();

    let answer = port.ask(HELLO).await;
    assert!(answer.ends_with("hello"));
    assert!(answer.contains("content-length: 5"), "{answer}");
    for stream in &mut silent {
        assert_eq!(read_all(stream).await, "");
    }
    assert!(began.elapsed() >= LIMIT, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_full_port_serves_again_once_peers_are_cut_off() {
    let port = Port::open(3).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(port.address).await.expect("connects"));
    }

    assert!(port.ask(HELLO).await.ends_with("hello"));
}

#[tokio::test]
async fn bytes_that_are_no_handshake_end_the_connection() {
    let port = Port::open(10).await;
    let mut stream = TcpStream::connect(port.address).await.expect("connects");
    stream.write_all(&[0x5a; 4096]).await.expect("sends");

    read_all(&mut stream).await;
    assert!(port.ask(HELLO).await.ends_with("hello"));
}

#[tokio::test]
async fn a_connection_without_requests_is_ended_in_either_version() {
    let port = Port::open(10).await;
    let mut silent = port.connect(b"http/1.1").await;
    let mut half = port.connect(b"http/1.1").await;
    half.write_all(b"GET / HTTP/1.1\r\nhost: loc")
        .await
        .expect("sends");
    let mut http2 = port.connect(b"h2").await;
    // The preface and an empty SETTINGS frame: all that a silent peer must say (RFC 9113 section 3.4).
    http2
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        .await
        .expect("sends");

    for stream in [&mut silent, &mut half, &mut http2] {
        read_all(stream).await;
    }
}

#[tokio::test]
async fn a_request_under_way_is_not_idle() {
    let port = Port::open(10).await;
    let mut stream = port.connect(b"http/1.1").await;
    let request = HELLO.replace("GET / ", "GET /slow ");
    stream.write_all(request.as_bytes()).await.expect("sends");
    let began = port.slow.acquire().await.expect("open");
    // The one thing to wait for here is time itself.
    tokio::time::sleep(LIMIT * 2).await;

    port.go_on.cancel();

    drop(began);
    assert!(read_all(&mut stream).await.ends_with("hello"));
}

#[tokio::test]
async fn headers_that_are_too_long_are_refused() {
    let port = Port::open(10).await;
    let long = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
        "y".repeat(200_000)
    );
    let many = format!(
        "GET / HTTP/1.1\r\nhost: a\r\n{}\r\n",
        "x: y\r\n".repeat(200)
    );

    for request in [long, many] {
        let mut stream = port.connect(b"http/1.1").await;
        // The port may end before it has read everything.
        let _ = stream.write_all(request.as_bytes()).await;
        let answer = read_all(&mut stream).await;
        assert!(
            answer.starts_with("HTTP/1.1 431") || answer.is_empty(),
            "{answer}"
        );
    }
    assert!(port.ask(HELLO).await.ends_with("hello"));
}

#[tokio::test]
async fn a_shutdown_lets_requests_end_and_cuts_those_that_do_not() {
    for (goes_on, expected) in [(true, "hello"), (false, "")] {
        let port = Port::open(10).await;
        let mut stream = port.connect(b"http/1.1").await;
        let request = HELLO.replace("GET / ", "GET /slow ");
        stream.write_all(request.as_bytes()).await.expect("sends");
        port.slow.acquire().await.expect("open").forget();

        port.stop.cancel();
        if goes_on {
            port.go_on.cancel();
        }

        assert!(read_all(&mut stream).await.ends_with(expected));
        tokio::time::timeout(TOO_LONG, port.task)
            .await
            .expect("ends")
            .expect("ends well");
        assert!(TcpStream::connect(port.address).await.is_err());
    }
}
