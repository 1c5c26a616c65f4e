//! The other side: a web server that keeps what it gets, and a mail server that takes mail.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A server on this machine, until it is dropped.
pub struct Peer {
    /// Its port.
    pub port: u16,
    got: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    /// What came so far, whole requests or mails.
    pub fn got(&self) -> Vec<String> {
        self.got.lock().clone()
    }

    /// Answers each request with the next of these status lines, at the end with the last again.
    pub async fn web(answers: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
        let port = listener.local_addr().expect("an address").port();
        let got = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&got);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepts");
                let n = keep.lock().len().min(answers.len() - 1);
                if let Some(request) = answer(stream, answers[n]).await {
                    keep.lock().push(request);
                }
            }
        });
        Self { port, got, task }
    }

    /// Takes mail by SMTP (RFC 5321); the first `refused` are to be sent again.
    pub async fn mail(refused: usize) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
        let port = listener.local_addr().expect("an address").port();
        let got = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&got);
        let task = tokio::spawn(async move {
            let mut left = refused;
            loop {
                let (stream, _) = listener.accept().await.expect("accepts");
                let taken = left == 0;
                left = left.saturating_sub(1);
                let mut stream = BufReader::new(stream);
                stream
                    .write_all(b"220 mail.test ESMTP\r\n")
                    .await
                    .expect("greets");
                if let Some(mail) = converse(stream, taken).await {
                    keep.lock().push(mail);
                }
            }
        });
        Self { port, got, task }
    }

    /// Takes mail after STARTTLS; with what vouches for its certificate.
    pub async fn secure_mail() -> (Self, RootCertStore) {
        let own =
            rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(own.cert.der().clone()).expect("a root");
        let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key.into())
            .expect("a configuration");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("localhost", 0)).await.expect("binds");
        let port = listener.local_addr().expect("an address").port();
        let got = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&got);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepts");
                if let Some(mail) = secure(stream, &acceptor).await {
                    keep.lock().push(mail);
                }
            }
        });
        (Self { port, got, task }, roots)
    }
}

/// Reads one request with its body, then answers.
async fn answer(mut stream: TcpStream, status: &str) -> Option<String> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let n = stream.read(&mut piece).await.ok()?;
        bytes.extend_from_slice(&piece[..n]);
        let text = String::from_utf8_lossy(&bytes);
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head
                .lines()
                .find_map(|l| l.strip_prefix("content-length: "));
            length.and_then(|l| l.parse().ok()) == Some(body.len())
        });
        if whole || n == 0 {
            break;
        }
    }
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Says hello, turns to TLS, and begins anew.
async fn secure(stream: TcpStream, acceptor: &TlsAcceptor) -> Option<String> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    for (reply, verb) in [
        ("220 mail.test ESMTP", "EHLO"),
        ("250-mail.test\r\n250 STARTTLS", "STARTTLS"),
    ] {
        stream
            .write_all(format!("{reply}\r\n").as_bytes())
            .await
            .ok()?;
        line.clear();
        stream.read_line(&mut line).await.ok()?;
        assert!(line.starts_with(verb), "{line}");
    }
    stream.write_all(b"220 2.0.0 ready\r\n").await.ok()?;
    let stream = acceptor.accept(stream.into_inner()).await.ok()?;
    converse(BufReader::new(stream), true).await
}

/// One conversation; yields the envelope's lines and the mail if it was taken.
async fn converse<S>(mut stream: BufReader<S>, taken: bool) -> Option<String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut mail, mut line) = (String::new(), String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let reply = match verb.as_str() {
            "EHLO" => "250-mail.test\r\n250-8BITMIME\r\n250 AUTH LOGIN PLAIN\r\n",
            "AUTH" => {
                mail.push_str(&line);
                "235 2.7.0 come in\r\n"
            }
            "MAIL" if !taken => "451 4.3.0 come again\r\n",
            "MAIL" | "RCPT" => {
                mail.push_str(&line);
                "250 2.1.0 ok\r\n"
            }
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await.ok()?;
                loop {
                    line.clear();
                    stream.read_line(&mut line).await.ok()?;
                    if line == ".\r\n" {
                        break;
                    }
                    mail.push_str(&line);
                }
                stream.write_all(b"250 2.0.0 taken\r\n").await.ok()?;
                return Some(mail);
            }
            "QUIT" => "221 bye\r\n",
            _ => "250 ok\r\n",
        };
        stream.write_all(reply.as_bytes()).await.ok()?;
        if verb == "QUIT" {
            return None;
        }
    }
}
