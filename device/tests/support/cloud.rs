//! The smallest cloud that can enrol a box: the real verification, over real mutual TLS.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use longhaul_protocol::enrol::{
    CERTIFICATE_PATH, CHALLENGE_PATH, CREDENTIALS_PATH, ChallengeRequest, Evidence, Issued,
    LAN_CERTIFICATE_PATH, LanCertificate, LanCertificateRequest, Problem,
};
use longhaul_protocol::inventory::CloudEndpoint;
use longhaul_protocol::ticket::CredentialSet;
use longhaul_protocol::value::{Blob, UnixMillis};
use longhaul_provisioning::ca::ServerNames;
use longhaul_provisioning::csr;
use longhaul_provisioning::evidence::{self, Pending, Policy};
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{Factory, now};

/// What the cloud remembers and how it behaves.
#[derive(Default)]
pub struct State {
    pending: Option<Pending>,
    /// Every request: its path, and the issuer of the certificate that came with it.
    pub asked: Vec<(String, String)>,
    /// Refuse every enrolment like this.
    pub refuse: Option<(StatusCode, &'static str)>,
    /// How long certificates hold, in seconds.
    pub validity_secs: u64,
}

pub struct Cloud {
    factory: Arc<Factory>,
    endpoint: CloudEndpoint,
    pub state: Mutex<State>,
}

type Answer = Result<Vec<u8>, (StatusCode, &'static str, String)>;

impl Cloud {
    /// Listens on loopback; nobody listens on its MQTT port.
    pub async fn start(factory: &Arc<Factory>) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = CloudEndpoint {
            host: "localhost".to_owned(),
            https_port: listener.local_addr().unwrap().port(),
            mqtt_port: silent.local_addr().unwrap().port(),
        };
        drop(silent);
        let cloud = Arc::new(Self {
            factory: Arc::clone(factory),
            endpoint: endpoint.clone(),
            state: Mutex::new(State {
                validity_secs: 3600,
                ..State::default()
            }),
        });
        factory.configure(endpoint);
        tokio::spawn(Arc::clone(&cloud).accept(listener));
        cloud
    }

    /// How often something was asked with a certificate of this issuer.
    pub fn asked(&self, path: &str, issuer: &str) -> usize {
        let state = self.state.lock();
        let matching = state
            .asked
            .iter()
            .filter(|(p, i)| p == path && i.contains(issuer));
        matching.count()
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let acceptor = TlsAcceptor::from(Arc::new(self.tls()));
        while let Ok((stream, _)) = listener.accept().await {
            let (cloud, acceptor) = (Arc::clone(&self), acceptor.clone());
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(stream).await else {
                    return;
                };
                let leaf = tls.get_ref().1.peer_certificates().unwrap()[0].clone();
                let service = service_fn(|request| {
                    let (cloud, issuer) = (Arc::clone(&cloud), issuer(&leaf));
                    async move { Ok::<_, Infallible>(cloud.answer(request, issuer).await) }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(tls), service)
                    .await;
            });
        }
    }

    fn tls(&self) -> rustls::ServerConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.factory.pki.root().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .unwrap();
        let names = ServerNames {
            dns: vec!["localhost".to_owned()],
            ips: Vec::new(),
        };
        let identity = self.factory.pki.issue_server(names, 3600, now()).unwrap();
        rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(identity.chain().to_vec(), identity.key())
            .unwrap()
    }

    async fn answer(&self, request: Request<Incoming>, issuer: String) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        self.state.lock().asked.push((path.clone(), issuer));
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let (status, bytes) = match self.route(&path, &body) {
            Ok(bytes) => (StatusCode::OK, bytes),
            Err((status, kind, detail)) => {
                let problem = Problem {
                    kind: format!("urn:longhaul:problem:{kind}"),
                    title: kind.to_owned(),
                    status: status.as_u16(),
                    detail,
                };
                (status, serde_json::to_vec(&problem).unwrap())
            }
        };
        let mut response = Response::new(Full::from(bytes));
        *response.status_mut() = status;
        response
    }

    fn route(&self, path: &str, body: &[u8]) -> Answer {
        match path {
            CHALLENGE_PATH => self.challenge(&read(body)?),
            CERTIFICATE_PATH => self.certificate(&read(body)?),
            LAN_CERTIFICATE_PATH => self.lan(&read(body)?),
            CREDENTIALS_PATH => write(&CredentialSet::default()),
            _ => Err((StatusCode::NOT_FOUND, "not-found", path.to_owned())),
        }
    }

    fn challenge(&self, request: &ChallengeRequest) -> Answer {
        let mut state = self.state.lock();
        if let Some((status, kind)) = state.refuse {
            return Err((status, kind, "refused by the test".to_owned()));
        }
        let record = &self.factory.record;
        let expires = now().plus_secs(60);
        let (challenge, pending) =
            evidence::challenge(request, record, &Policy::of(record), expires)
                .map_err(|e| refused(&e))?;
        state.pending = Some(pending);
        write(&challenge)
    }

    fn certificate(&self, evidence: &Evidence) -> Answer {
        let mut state = self.state.lock();
        let pending = state.pending.take().ok_or((
            StatusCode::CONFLICT,
            "challenge-gone",
            "no challenge is open".to_owned(),
        ))?;
        let record = &self.factory.record;
        let verified =
            evidence::verify_enrolment(evidence, record, &Policy::of(record), &pending, now())
                .and_then(evidence::Verified::accepted)
                .map_err(|e| refused(&e))?;
        let pki = &self.factory.pki;
        let chain = pki
            .issue_ldevid(
                &record.box_id,
                &verified.ldevid_spki,
                state.validity_secs,
                now(),
            )
            .unwrap();
        write(&Issued {
            expires: not_after(&chain[0]),
            certificate_chain: chain.iter().map(|c| Blob(c.to_vec())).collect(),
            endpoints: vec![self.endpoint.clone()],
            server_time: now(),
        })
    }

    fn lan(&self, request: &LanCertificateRequest) -> Answer {
        let spki = csr::public_key(&request.csr.0).unwrap();
        let (pki, id) = (&self.factory.pki, self.factory.box_id());
        let chain = pki
            .issue_lan(id, &spki, &request.addresses, 3600, now())
            .unwrap();
        write(&LanCertificate {
            expires: not_after(&chain[0]),
            certificate_chain: chain.iter().map(|c| Blob(c.to_vec())).collect(),
        })
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, (StatusCode, &'static str, String)> {
    serde_json::from_slice(body).map_err(|e| (StatusCode::BAD_REQUEST, "invalid", e.to_string()))
}

fn write<T: Serialize>(value: &T) -> Answer {
    serde_json::to_vec(value)
        .map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, "internal", e.to_string()))
}

fn refused(refusal: &evidence::Refusal) -> (StatusCode, &'static str, String) {
    (StatusCode::FORBIDDEN, "refused", refusal.to_string())
}

fn issuer(leaf: &CertificateDer<'_>) -> String {
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).unwrap();
    parsed.issuer().to_string().to_lowercase()
}

fn not_after(leaf: &CertificateDer<'_>) -> UnixMillis {
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).unwrap();
    UnixMillis(parsed.validity().not_after.timestamp() * 1000)
}
