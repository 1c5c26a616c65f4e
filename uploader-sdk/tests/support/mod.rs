//! A box for tests: a real S3 server behind TLS with a certificate for the box's LAN name, beside it
//! the status and delivery routes; and a proxy that cuts connections.
#![expect(dead_code, reason = "each test file uses some of it")]

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use longhaul_protocol::diag::{Code, Rung, RungReport, RungStatus};
use longhaul_protocol::ids::{BoxId, ObjectKey};
use longhaul_protocol::lan::{
    DELIVERY_PATH, Deliveries, Delivery, DeliveryQuery, LanStatus, STATUS_PATH,
};
use longhaul_protocol::telemetry::VaultFill;
use longhaul_protocol::ticket::{Secret, Ticket, lan_name};
use longhaul_protocol::value::UnixMillis;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub mod faults;

pub const BUCKET: &str = "haul";

/// A certificate authority of its own, as a fleet has one.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "test root");
        let pem = params.self_signed(&key).expect("a root").pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    fn acceptor(&self, names: Vec<String>) -> TlsAcceptor {
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(names)
            .and_then(|params| params.signed_by(&key, &self.issuer))
            .expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .expect("a configuration");
        TlsAcceptor::from(Arc::new(config))
    }
}

/// The `n`th box of this process: tests that run beside it announce others on the same network.
pub fn box_id(n: u8) -> BoxId {
    let seed = format!("{} {n}", std::process::id());
    BoxId::from_ek_sha256(blake3::hash(seed.as_bytes()).as_bytes())
}

/// What the test box has seen and how it answers.
#[derive(Default)]
pub struct Seen {
    pub requests: Mutex<Vec<String>>,
    /// Body bytes of PUTs, as announced by their length.
    pub put_bytes: AtomicU64,
    /// `None` answers "verified" for everything that is held.
    pub deliveries: Mutex<Option<BTreeMap<ObjectKey, Delivery>>>,
    /// Answers 503 to this many requests.
    pub busy: AtomicU64,
    /// Forgets this many uploads, each at its next part.
    pub lost_uploads: AtomicU64,
    forgotten: Mutex<HashSet<String>>,
    /// How many requests come before it hears of the ticket.
    pub unheard: AtomicU64,
    /// Answers are held back while set.
    pub frozen: AtomicBool,
    pub rungs: Mutex<Vec<RungReport>>,
    /// Requests of this method with this text are answered only this many times, the others wait.
    hold: Mutex<Option<(&'static str, String, u64)>>,
    /// What it says of an object's BLAKE3: nothing, the truth, or a lie.
    pub blake3: AtomicU64,
    objects: std::sync::OnceLock<PathBuf>,
    answered: Mutex<Vec<String>>,
}

impl Seen {
    /// Whether it no longer knows the upload of a request. Once forgotten it stays so: the client
    /// may have heard of it only as a broken connection.
    fn has_forgotten(&self, query: Option<&str>) -> bool {
        let id = query.and_then(|q| q.split('&').find_map(|pair| pair.strip_prefix("uploadId=")));
        let Some(id) = id else {
            return false;
        };
        let mut forgotten = self.forgotten.lock().expect("not poisoned");
        forgotten.contains(id) || (take_one(&self.lost_uploads) && forgotten.insert(id.to_owned()))
    }

    pub fn count(&self, matching: impl Fn(&str) -> bool) -> usize {
        let requests = self.requests.lock().expect("not poisoned");
        requests.iter().filter(|r| matching(r)).count()
    }

    /// Answers `times` PUTs with `text` in their address; more of them wait.
    pub fn hold_puts_with(&self, text: &str, times: u64) {
        *self.hold.lock().expect("not poisoned") = Some(("PUT", text.to_owned(), times));
    }

    /// Answers `times` GETs with `text` in their address; more of them wait.
    pub fn hold_gets_of(&self, text: &str, times: u64) {
        *self.hold.lock().expect("not poisoned") = Some(("GET", text.to_owned(), times));
    }

    fn is_folder(&self, path: &str) -> bool {
        let key = path.trim_start_matches('/');
        let inside = key.contains('/');
        inside && self.objects.get().is_some_and(|o| o.join(key).is_dir())
    }

    /// The header that a box adds to what S3 says about an object.
    fn blake3_of(&self, what: &str) -> Option<String> {
        let key = what.strip_prefix("HEAD /")?.split('?').next()?;
        let bytes = std::fs::read(self.objects.get()?.join(key)).ok()?;
        match self.blake3.load(Ordering::SeqCst) {
            0 => None,
            1 => Some(blake3::hash(&bytes).to_hex().to_string()),
            _ => Some(blake3::hash(b"a lie").to_hex().to_string()),
        }
    }

    /// How many requests with `text` in their address were answered.
    pub fn answered(&self, text: &str) -> usize {
        let answered = self.answered.lock().expect("not poisoned");
        answered.iter().filter(|r| r.contains(text)).count()
    }

    fn may_pass(&self, what: &str) -> bool {
        let mut hold = self.hold.lock().expect("not poisoned");
        match hold.as_mut() {
            Some((method, text, times))
                if what.starts_with(*method) && what.contains(text.as_str()) =>
            {
                let passes = *times > 0;
                *times = times.saturating_sub(1);
                passes
            }
            _ => true,
        }
    }

    pub fn clear(&self) {
        self.requests.lock().expect("not poisoned").clear();
        self.put_bytes.store(0, Ordering::SeqCst);
    }
}

pub struct TestBox {
    pub addr: SocketAddr,
    pub ticket: Ticket,
    pub seen: Arc<Seen>,
    pub dir: tempfile::TempDir,
}

impl TestBox {
    pub async fn start() -> Self {
        let authority = Authority::new();
        Self::start_named(&authority, vec![lan_name(&box_id(1))]).await
    }

    /// A box whose certificate has other names than it should.
    pub async fn start_named(authority: &Authority, names: Vec<String>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(dir.path().join("objects").join(BUCKET)).expect("made");
        let seen = Arc::new(Seen::default());
        let objects = dir.path().join("objects");
        seen.objects.set(objects).expect("set once");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let addr = listener.local_addr().expect("an address");
        let ticket = Ticket {
            v: 1,
            id: "t-1".parse().expect("an id"),
            box_id: box_id(1),
            order: None,
            bucket: BUCKET.to_owned(),
            region: "us-east-1".to_owned(),
            access_key: "AKTEST".to_owned(),
            secret_key: Secret("secret/+key".to_owned()),
            issued: None,
            expires: UnixMillis(4_102_444_800_000),
            root_pem: authority.pem.clone(),
            lan_urls: vec![format!("https://{addr}")],
            cloud_url: None,
        };
        let fs = s3s_fs::FileSystem::new(dir.path().join("objects")).expect("a store");
        let mut builder = S3ServiceBuilder::new(fs);
        builder.set_auth(SimpleAuth::from_single(
            ticket.access_key.clone(),
            ticket.secret_key.0.clone(),
        ));
        let service = builder.build();
        let acceptor = authority.acceptor(names);
        tokio::spawn(serve(listener, acceptor, service, Arc::clone(&seen)));
        std::fs::write(
            dir.path().join("ticket.json"),
            serde_json::to_vec(&ticket).expect("JSON"),
        )
        .expect("written");
        Self {
            addr,
            ticket,
            seen,
            dir,
        }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.addr)
    }

    pub fn ticket_path(&self) -> PathBuf {
        self.dir.path().join("ticket.json")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state/longhaul")
    }

    /// The bytes that the store holds under a key.
    pub fn object(&self, key: &str) -> Option<Vec<u8>> {
        std::fs::read(self.dir.path().join("objects").join(BUCKET).join(key)).ok()
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, s3: S3Service, seen: Arc<Seen>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, s3, seen) = (acceptor.clone(), s3.clone(), Arc::clone(&seen));
        tokio::spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else {
                return;
            };
            let service = service_fn(move |request| answer(request, s3.clone(), Arc::clone(&seen)));
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(tls), service)
                .await;
        });
    }
}

type Body =
    http_body_util::combinators::UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

async fn answer(
    request: Request<Incoming>,
    s3: S3Service,
    seen: Arc<Seen>,
) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
    let what = format!(
        "{} {}",
        request.method(),
        request.uri().path_and_query().map_or("/", |p| p.as_str())
    );
    seen.requests
        .lock()
        .expect("not poisoned")
        .push(what.clone());
    if !seen.may_pass(&what) {
        std::future::pending::<()>().await;
    }
    while seen.frozen.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    match request.uri().path() {
        STATUS_PATH => {
            let status = LanStatus {
                v: 1,
                box_id: box_id(1),
                agent_version: "0.1.0".to_owned(),
                rungs: seen.rungs.lock().expect("not poisoned").clone(),
                vault: VaultFill::default(),
                identifying: false,
                uplink: None,
                capabilities: Vec::new(),
                network: None,
            };
            return Ok(Response::new(full(serde_json::to_vec(&status)?)));
        }
        DELIVERY_PATH => return delivery(request, &seen).await,
        _ => {}
    }
    if take_one(&seen.unheard) {
        return Ok(refusal(StatusCode::FORBIDDEN, "InvalidAccessKeyId"));
    }
    if request.method() != Method::GET && take_one(&seen.busy) {
        return Ok(refusal(StatusCode::SERVICE_UNAVAILABLE, "SlowDown"));
    }
    if what.contains("partNumber") && seen.has_forgotten(request.uri().query()) {
        return Ok(refusal(StatusCode::NOT_FOUND, "NoSuchUpload"));
    }
    if request.method() == Method::PUT {
        let length = request.headers().get("content-length");
        let length = length.and_then(|l| l.to_str().ok()?.parse().ok());
        seen.put_bytes
            .fetch_add(length.unwrap_or(0), Ordering::SeqCst);
    }
    if request.method() == Method::HEAD && seen.is_folder(request.uri().path()) {
        // The file-backed store stumbles over a key that is a folder; a box holds no such object.
        return Ok(refusal(StatusCode::NOT_FOUND, "NoSuchKey"));
    }
    let call: Pin<Box<dyn Future<Output = _> + Send>> =
        Box::pin(hyper::service::Service::call(&s3, request));
    let response = call.await.map_err(|e| format!("{e:?}"))?;
    let mut response = response;
    if let Some(hash) = seen.blake3_of(&what) {
        let name = longhaul_protocol::lan::BLAKE3_HEADER;
        response.headers_mut().insert(name, hash.parse()?);
    }
    seen.answered.lock().expect("not poisoned").push(what);
    Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
}

fn refusal(status: StatusCode, code: &str) -> Response<Body> {
    let mut refusal = Response::new(full(format!(
        "<Error><Code>{code}</Code><Message>by test</Message></Error>"
    )));
    *refusal.status_mut() = status;
    refusal
}

fn take_one(counter: &AtomicU64) -> bool {
    counter
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
        .is_ok()
}

async fn delivery(
    request: Request<Incoming>,
    seen: &Seen,
) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
    // "AKTEST:secret/+key", RFC 7617.
    let expected = "Basic QUtURVNUOnNlY3JldC8ra2V5";
    if request
        .headers()
        .get("authorization")
        .is_none_or(|v| v != expected)
    {
        let mut refused = Response::new(full(""));
        *refused.status_mut() = StatusCode::UNAUTHORIZED;
        return Ok(refused);
    }
    let query: DeliveryQuery =
        serde_json::from_slice(&request.into_body().collect().await?.to_bytes())?;
    let fixed = seen.deliveries.lock().expect("not poisoned").clone();
    let state = |key: &ObjectKey| match &fixed {
        Some(fixed) => fixed.get(key).cloned(),
        None => Some(Delivery::Verified),
    };
    let objects = query
        .keys
        .into_iter()
        .filter_map(|key| state(&key).map(|s| (key, s)))
        .collect();
    Ok(Response::new(full(serde_json::to_vec(&Deliveries {
        objects,
        held: None,
    })?)))
}

/// A box that cannot reach the cloud.
pub fn no_gateway() -> Vec<RungReport> {
    vec![RungReport {
        rung: Rung::Gateway,
        status: RungStatus::Failed,
        code: Some(Code::NO_GATEWAY),
        evidence: "eth0".to_owned(),
        since: UnixMillis(0),
    }]
}

/// Waits until `holds`, at most half a minute.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "waited for: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs a command without blocking the servers of the test.
pub async fn output(mut command: Command) -> std::process::Output {
    tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("not cancelled")
        .expect("it runs")
}

/// Kills the child as a power cut would.
pub fn kill(child: &mut Child) {
    child.kill().expect("killed");
    child.wait().expect("reaped");
}

/// Bytes that no compression and no repetition can hide.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub fn write(path: &Path, bytes: &[u8]) {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).expect("made");
    }
    std::fs::write(path, bytes).expect("written");
}
