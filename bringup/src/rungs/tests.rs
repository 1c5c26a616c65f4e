use longhaul_protocol::diag::{Code, Rung};
use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use std::sync::Arc;

use super::*;

const NOW_SECS: i64 = 1_790_000_000;

#[derive(Debug)]
struct Nobody;

impl rustls::client::ResolvesClientCert for Nobody {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
    fn has_certs(&self) -> bool {
        false
    }
}

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn probe(&self) -> Climber {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let tls = TlsProbe::new(roots, Arc::new(Nobody)).unwrap();
        Climber::new(tls, None, ProxySetting::none())
    }

    fn issue(&self, name: &str, years: std::ops::Range<i32>) -> (CertificateDer<'static>, KeyPair) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().der().clone(), key)
    }
}

/// A server that shakes hands and answers everything with a date.
async fn serve(certificate: CertificateDer<'static>, key: &KeyPair, date: &str) -> CloudEndpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let answer = format!("HTTP/1.1 404 Not Found\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut tls) = acceptor.accept(stream).await {
                let mut buffer = [0; 512];
                let _ = tls.read(&mut buffer).await;
                let _ = tls.write_all(answer.as_bytes()).await;
                let _ = tls.shutdown().await;
            }
        }
    });
    endpoint("localhost", port)
}

fn endpoint(host: &str, https_port: u16) -> CloudEndpoint {
    CloudEndpoint {
        host: host.to_owned(),
        https_port,
        mqtt_port: 1,
    }
}

async fn first_failing(endpoint: CloudEndpoint, probe: &Climber) -> Option<Code> {
    let now = UnixMillis(NOW_SECS * 1000);
    let seen = probe.climb(&[endpoint], now).await;
    let failing: Vec<_> = seen.iter().filter_map(|o| o.code).collect();
    assert!(failing.len() <= 1, "{seen:?}");
    let rungs: Vec<_> = seen.iter().map(|o| o.rung).collect();
    assert_eq!(rungs, Rung::ALL[..rungs.len()], "no rung is skipped");
    assert!(seen.iter().all(|o| !o.evidence.is_empty()), "{seen:?}");
    failing.first().copied()
}

/// 2026-09-21T14:13:20Z.
const DATE_NOW: &str = "Mon, 21 Sep 2026 14:13:20 GMT";

#[tokio::test]
async fn a_cloud_that_answers_proves_every_rung_below() {
    let ca = Ca::new("root");
    let (certificate, key) = ca.issue("localhost", 2020..2090);
    let endpoint = serve(certificate, &key, DATE_NOW).await;

    assert_eq!(first_failing(endpoint, &ca.probe()).await, None);
}

#[tokio::test]
async fn each_fault_of_a_server_has_its_code() {
    let (ca, other) = (Ca::new("root"), Ca::new("other"));
    let cases = [
        (other.issue("localhost", 2020..2090), Code::TLS_UNTRUSTED),
        (ca.issue("elsewhere.example", 2020..2090), Code::TLS_NAME),
    ];
    for ((certificate, key), code) in cases {
        let endpoint = serve(certificate, &key, DATE_NOW).await;
        assert_eq!(first_failing(endpoint, &ca.probe()).await, Some(code));
    }
}

#[tokio::test]
async fn an_expired_certificate_is_told_from_a_wrong_clock() {
    let ca = Ca::new("root");
    let (certificate, key) = ca.issue("localhost", 2020..2021);
    let expired = serve(certificate.clone(), &key, DATE_NOW).await;
    let we_are_wrong = serve(certificate, &key, "Mon, 01 Jun 2020 00:00:00 GMT").await;

    assert_eq!(
        first_failing(expired, &ca.probe()).await,
        Some(Code::TLS_EXPIRED)
    );
    assert_eq!(
        first_failing(we_are_wrong, &ca.probe()).await,
        Some(Code::CLOCK_WRONG)
    );
}

#[tokio::test]
async fn a_closed_port_is_refused_and_a_mute_one_stalls_the_handshake() {
    let ca = Ca::new("root");
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed_port = closed.local_addr().unwrap().port();
    drop(closed);
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute_port = mute.local_addr().unwrap().port();

    let refused = first_failing(endpoint("127.0.0.1", closed_port), &ca.probe()).await;
    assert_eq!(refused, Some(Code::TCP_REFUSED));
    let stalled = first_failing(endpoint("localhost", mute_port), &ca.probe()).await;
    assert_eq!(stalled, Some(Code::TLS_FAILED));
}

#[tokio::test]
async fn a_second_endpoint_that_works_is_enough() {
    let ca = Ca::new("root");
    let (certificate, key) = ca.issue("localhost", 2020..2090);
    let works = serve(certificate, &key, DATE_NOW).await;
    let endpoints = [endpoint("127.0.0.1", 1), works];

    let seen = ca
        .probe()
        .climb(&endpoints, UnixMillis(NOW_SECS * 1000))
        .await;

    assert!(seen.iter().all(|o| o.code.is_none()), "{seen:?}");
}
