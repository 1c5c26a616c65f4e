//! For tests: a signed repository at a real HTTPS server, and a box with two slots.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use longhaul_protocol::enrol::TUF_PATH;
use longhaul_protocol::inventory::CloudEndpoint;
use longhaul_protocol::journal::Fact;
use longhaul_protocol::release::{Assignment, UpdateStatus};
use longhaul_provisioning::ca::{Pki, ServerNames};
use longhaul_provisioning::tuf;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::slots::{Current, Slot, Slots};
use super::updater::{Parts, Updater};
use crate::agent::Event;
use crate::clock;
use crate::cloud::CloudClient;
use crate::journal::{self, JournalHandle};
use crate::update::{AgentHandle, UpdateRequest};

const DAY_MS: i64 = 86_400_000;
/// Bytes of a body that are sent at once.
const PIECE: usize = 64 << 10;

/// How the server behaves, and what it was asked.
#[derive(Default)]
pub struct Manners {
    /// Cut the line after so many bytes of the next targets, one entry for each.
    pub cuts: Vec<usize>,
    /// Every request: path below the repository, and its range.
    pub asked: Vec<(String, Option<String>)>,
}

/// A box, and a cloud that has a repository.
pub struct Bench {
    dir: tempfile::TempDir,
    cloud: CloudClient,
    journal: JournalHandle,
    events: mpsc::Sender<Event>,
    pub inbox: mpsc::Receiver<Event>,
    pub manners: Arc<Mutex<Manners>>,
    pub slots: Slots,
}

impl Bench {
    /// Slot a runs 1.0; the repository, made `days_ago`, is empty.
    pub async fn new(days_ago: i64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = clock::wall().plus_millis(-days_ago * DAY_MS);
        tuf::init(&dir.path().join("keys"), &dir.path().join("repo"), now)
            .await
            .unwrap();
        let root = tuf::trusted_root(&dir.path().join("repo")).unwrap();
        fs::write(dir.path().join("tuf-root.json"), root.unwrap()).unwrap();
        let slots = Slots::in_state(dir.path());
        let factory = dir.path().join("factory");
        fs::write(&factory, "one").unwrap();
        slots.install(Slot::A, &factory, "1.0", None).unwrap();
        slots.set_current(&Current::running(Slot::A)).unwrap();
        let manners = Arc::new(Mutex::new(Manners::default()));
        let pki = Pki::init(&dir.path().join("pki"), clock::wall()).unwrap();
        let address = serve(&pki, dir.path().join("repo"), Arc::clone(&manners)).await;
        let cloud = client(&pki, address);
        let epoch = "bench".parse().unwrap();
        let (journal, _) =
            journal::open(&dir.path().join("journal"), 1 << 20, epoch, clock::wall).unwrap();
        let (events, inbox) = mpsc::channel(256);
        Self {
            dir,
            cloud,
            journal,
            events,
            inbox,
            manners,
            slots,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Signs a release made of `bytes`, as of `days_ago`; yields what assigns it.
    pub async fn sign(&self, version: &str, bytes: &[u8], days_ago: i64) -> UpdateRequest {
        let file = self.path("release");
        fs::write(&file, bytes).unwrap();
        let now = clock::wall().plus_millis(-days_ago * DAY_MS);
        let (keys, repo) = (self.path("keys"), self.path("repo"));
        let target = format!("box-{version}");
        let release = tuf::add(&keys, &repo, &file, &target, version, &[], now)
            .await
            .unwrap();
        UpdateRequest {
            command: format!("c-{}", version.replace('.', "-")).parse().unwrap(),
            assignment: Assignment {
                rollout: "r-1".parse().unwrap(),
                version: version.to_owned(),
                target,
                sha256: release.sha256,
                length: release.length,
            },
        }
    }

    /// An agent's updater, running from `slot` as `version`.
    pub fn updater(&self, slot: Slot, version: &str) -> Updater {
        Updater::new(Parts {
            state: self.dir.path().to_owned(),
            tuf_root: self.path("tuf-root.json"),
            agent_version: version.to_owned(),
            slot,
            cloud: self.cloud.clone(),
            journal: self.journal.clone(),
            agent: AgentHandle::new(self.events.clone()),
        })
    }

    /// Every state that was journalled.
    pub async fn told(&self) -> Vec<UpdateStatus> {
        let batch = self.journal.batch().await.unwrap();
        let entries = batch.into_iter().flat_map(|b| b.entries);
        let told = entries.filter_map(|e| match e.fact {
            Fact::Update(status) => Some(status),
            _ => None,
        });
        told.collect()
    }

    /// The only file in the repository whose name ends like this.
    pub fn in_repository(&self, folder: &str, ending: &str) -> PathBuf {
        let files = fs::read_dir(self.path("repo").join(folder)).unwrap();
        let files = files.map(|f| f.unwrap().path());
        let mut files: Vec<_> = files
            .filter(|f| f.to_str().unwrap().ends_with(ending))
            .collect();
        files.sort();
        files.pop().unwrap()
    }

    /// Ranges that targets were asked for.
    pub fn ranges(&self) -> Vec<Option<String>> {
        let manners = self.manners.lock();
        let targets = manners
            .asked
            .iter()
            .filter(|(p, _)| p.starts_with("/targets/"));
        targets.map(|(_, range)| range.clone()).collect()
    }
}

fn client(pki: &Pki, address: SocketAddr) -> CloudClient {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pki.root().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let endpoint = CloudEndpoint {
        host: "localhost".to_owned(),
        https_port: address.port(),
        mqtt_port: 1,
    };
    CloudClient::fixed(tls, vec![endpoint], crate::proxy::ProxySetting::none()).unwrap()
}

async fn serve(pki: &Pki, repository: PathBuf, manners: Arc<Mutex<Manners>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let names = ServerNames {
        dns: vec!["localhost".to_owned()],
        ips: Vec::new(),
    };
    let identity = pki.issue_server(names, 3600, clock::wall()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(identity.chain().to_vec(), identity.key())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(tls) = acceptor.accept(stream).await else {
                continue;
            };
            let (repository, manners) = (repository.clone(), Arc::clone(&manners));
            let service = service_fn(move |request| {
                let answer = answer(&repository, &manners, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let io = TokioIo::new(tls);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        }
    });
    address
}

type Body = BoxBody<Bytes, io::Error>;

fn answer(dir: &Path, manners: &Mutex<Manners>, request: &Request<Incoming>) -> Response<Body> {
    let below = request
        .uri()
        .path()
        .strip_prefix(TUF_PATH)
        .unwrap_or_default();
    let below = percent_encoding::percent_decode_str(below).decode_utf8_lossy();
    let range = request.headers().get(RANGE).and_then(|v| v.to_str().ok());
    let mut manners = manners.lock();
    manners
        .asked
        .push((below.to_string(), range.map(str::to_owned)));
    let refuse = |status| {
        let mut refusal = Response::new(body(Vec::new(), None));
        *refusal.status_mut() = status;
        refusal
    };
    let Ok(bytes) = fs::read(dir.join(below.trim_start_matches('/'))) else {
        return refuse(StatusCode::NOT_FOUND);
    };
    let from = range.and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let from: usize = from.unwrap_or(0);
    if from > 0 && from >= bytes.len() {
        return refuse(StatusCode::RANGE_NOT_SATISFIABLE);
    }
    let cut = below.starts_with("/targets/") && !manners.cuts.is_empty();
    let cut = cut.then(|| manners.cuts.remove(0));
    let total = bytes.len();
    let part = bytes[from..].to_vec();
    let mut response = Response::new(body(part, cut));
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, (total - from).into());
    if range.is_some() {
        let span = format!("bytes {from}-{}/{total}", total - 1);
        headers.insert(CONTENT_RANGE, span.parse().unwrap());
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

fn body(mut bytes: Vec<u8>, cut: Option<usize>) -> Body {
    let mut frames = Vec::new();
    if let Some(cut) = cut {
        bytes.truncate(cut);
    }
    for piece in bytes.chunks(PIECE) {
        frames.push(Ok(Frame::data(Bytes::copy_from_slice(piece))));
    }
    if cut.is_some() {
        frames.push(Err(io::Error::other("the line was cut")));
    }
    // Yielding between the pieces lets what was sent leave before the line is cut.
    let frames = stream::iter(frames).then(async |frame| {
        tokio::task::yield_now().await;
        frame
    });
    BodyExt::boxed(StreamBody::new(Box::pin(frames)))
}
