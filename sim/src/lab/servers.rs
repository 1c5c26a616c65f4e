//! Everybody else on the internet: the status server, somebody's server, a portal, an impostor, a
//! proxy, a slow line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{CLOUD, CLOUD_V4, IMPOSTOR, PORTAL_V4, PROXY_PORT, PROXY_V4, SLOW, STATUS_V4, TARGET};
use crate::system::SystemError;

/// One way over the slow line.
const SLOW_ONE_WAY: Duration = Duration::from_secs(2);
const MAX_HEAD: usize = 8192;

pub struct Servers {
    /// What a proxy that wants a log-in expects, Basic.
    login: Arc<Mutex<Option<&'static str>>>,
    _tasks: JoinSet<()>,
}

/// `ada:lovelace`, as a proxy gets it.
pub const LOGIN: &str = "YWRhOmxvdmVsYWNl";

impl Servers {
    pub async fn serve(beacon: PathBuf) -> Result<Self, SystemError> {
        let login = Arc::new(Mutex::new(None));
        let mut tasks = JoinSet::new();
        let listener = listen(at(STATUS_V4, 80)?).await?;
        tasks.spawn(each(listener, move |tcp| status(tcp, beacon.clone())));
        let listener = listen(parsed(TARGET)?).await?;
        tasks.spawn(each(listener, |_| async {}));
        let listener = listen(at(PORTAL_V4, 80)?).await?;
        tasks.spawn(each(listener, portal));
        let listener = listen(parsed(SLOW)?).await?;
        tasks.spawn(each(listener, slow));
        let tls = impostor_tls()?;
        let listener = listen(parsed(IMPOSTOR)?).await?;
        tasks.spawn(each(listener, move |tcp| impostor(tcp, tls.clone())));
        let listener = listen(at(PROXY_V4, PROXY_PORT)?).await?;
        let wanted = Arc::clone(&login);
        tasks.spawn(each(listener, move |tcp| proxy(tcp, *wanted.lock())));
        Ok(Self {
            login,
            _tasks: tasks,
        })
    }

    /// Whether the proxy wants a log-in.
    pub fn want_login(&self, want: bool) {
        *self.login.lock() = want.then_some(LOGIN);
    }
}

pub fn at(address: &str, port: u16) -> Result<SocketAddr, SystemError> {
    let address: IpAddr = address.parse().map_err(|_| unusable(address))?;
    Ok(SocketAddr::new(address, port))
}

fn parsed(address: &str) -> Result<SocketAddr, SystemError> {
    address.parse().map_err(|_| unusable(address))
}

fn unusable(text: &str) -> SystemError {
    SystemError::Unexpected {
        what: "a server of the lab cannot be had",
        text: text.to_owned(),
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, SystemError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|e| unusable(&format!("{address}: {e}")))
}

async fn each<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> F,
) {
    let mut open = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        while open.try_join_next().is_some() {}
        open.spawn(serve(tcp));
    }
}

/// Reads up to the end of a request's head.
async fn head(tcp: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD {
        head.push(tcp.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

async fn say(mut tcp: TcpStream, status: &str, headers: &str, body: &str) {
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    let _ = tcp.write_all(text.as_bytes()).await;
    let _ = tcp.shutdown().await;
}

async fn status(mut tcp: TcpStream, beacon: PathBuf) {
    if head(&mut tcp).await.is_some() {
        let text = tokio::fs::read_to_string(&beacon).await.unwrap_or_default();
        say(tcp, "200 OK", "", &text).await;
    }
}

async fn portal(mut tcp: TcpStream) {
    if head(&mut tcp).await.is_some() {
        let to = "location: http://portal.hotel.test/login\r\n";
        say(tcp, "302 Found", to, "<html>please log in</html>").await;
    }
}

async fn slow(tcp: TcpStream) {
    if let Ok(cloud) = at(CLOUD_V4, 443)
        && let Ok(far) = TcpStream::connect(cloud).await
    {
        let (near_read, near_write) = tcp.into_split();
        let (far_read, far_write) = far.into_split();
        tokio::join!(crawl(near_read, far_write), crawl(far_read, near_write));
    }
}

/// Carries bytes, each with the line's delay.
async fn crawl(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
) {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(64);
    let read = async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let due = tokio::time::Instant::now() + SLOW_ONE_WAY;
            if sender.send((due, buffer[..length].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let write = async move {
        while let Some((due, bytes)) = receiver.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

/// TLS in the cloud's name, by an authority that nobody at the fleet knows.
fn impostor_tls() -> Result<tokio_rustls::TlsAcceptor, SystemError> {
    let made = rcgen::generate_simple_self_signed(vec![CLOUD.to_owned()]);
    let made = made.map_err(|e| unusable(&e.to_string()))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(rustls::ConfigBuilder::<rustls::ServerConfig, _>::with_no_client_auth)
        .and_then(|builder| builder.with_single_cert(vec![made.cert.der().clone()], key))
        .map_err(|e| unusable(&e.to_string()))?;
    Ok(tokio_rustls::TlsAcceptor::from(Arc::new(config)))
}

async fn impostor(tcp: TcpStream, tls: tokio_rustls::TlsAcceptor) {
    // Whoever believes the certificate would go on.
    if let Ok(mut stream) = tls.accept(tcp).await {
        let _ = stream.read_u8().await;
    }
}

/// A customer's proxy: CONNECT to the cloud, and to nobody else.
async fn proxy(mut tcp: TcpStream, login: Option<&str>) {
    let Some(head) = head(&mut tcp).await else {
        return;
    };
    let wanted = login.map(|login| format!("proxy-authorization: basic {}", login.to_lowercase()));
    if wanted.is_some_and(|wanted| !head.to_lowercase().contains(&wanted)) {
        let how = "proxy-authenticate: Basic realm=\"office\"\r\n";
        return say(tcp, "407 Proxy Authentication Required", how, "").await;
    }
    let target = head
        .strip_prefix("CONNECT ")
        .and_then(|rest| rest.split(' ').next())
        .and_then(|target| target.strip_prefix(CLOUD))
        .and_then(|rest| rest.strip_prefix(':')?.parse().ok());
    let Some(port) = target else {
        return say(tcp, "403 Forbidden", "", "").await;
    };
    let Ok(cloud) = at(CLOUD_V4, port) else {
        return;
    };
    match TcpStream::connect(cloud).await {
        Ok(mut far) => {
            let opened = b"HTTP/1.1 200 Connection established\r\n\r\n";
            if tcp.write_all(opened).await.is_ok() {
                let _ = tokio::io::copy_bidirectional(&mut tcp, &mut far).await;
            }
        }
        Err(_) => say(tcp, "504 Gateway Timeout", "", "").await,
    }
}
