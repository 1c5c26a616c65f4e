//! The upper rungs: TCP and TLS to the cloud, and its clock.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use longhaul_protocol::diag::{Code, Rung};
use longhaul_protocol::inventory::CloudEndpoint;
use longhaul_protocol::value::UnixMillis;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::agent::ladder::Observation;
use crate::cloud::parse_date;

/// A clock that differs by more than this is wrong: certificates are backdated by an hour, and
/// commands live for minutes.
const CLOCK_TOLERANCE_MS: i64 = 120_000;
/// Addresses of one name that are tried at the most.
const MAX_ADDRESSES: usize = 4;

/// Connects to the first address that answers; the failure is the first address's.
pub async fn connect(
    addresses: &[IpAddr],
    port: u16,
    limit: Duration,
) -> Result<TcpStream, Observation> {
    let tries = addresses
        .iter()
        .take(MAX_ADDRESSES)
        .map(|address| async move {
            let connect = TcpStream::connect((*address, port));
            match tokio::time::timeout(limit, connect).await {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(error)) => Err(Observation::failed(
                    tcp_code(&error),
                    format!("{address} port {port}: {error}"),
                )),
                Err(_) => Err(Observation::failed(
                    Code::TCP_TIMEOUT,
                    format!(
                        "{address} port {port}: nothing within {} s",
                        limit.as_secs()
                    ),
                )),
            }
        });
    let mut failure = None;
    for tried in futures::future::join_all(tries).await {
        match tried {
            Ok(stream) => return Ok(stream),
            Err(observation) => failure = failure.or(Some(observation)),
        }
    }
    Err(failure.unwrap_or_else(|| Observation::failed(Code::DNS_NO_NAME, "no address")))
}

fn tcp_code(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Code::TCP_REFUSED,
        io::ErrorKind::TimedOut => Code::TCP_TIMEOUT,
        _ => Code::TCP_UNREACHABLE,
    }
}

/// Shakes hands with the cloud as a stranger: only the server has to prove itself.
pub struct TlsProbe {
    strict: Arc<ClientConfig>,
    /// Like `strict`, but a certificate's dates do not matter, and the box shows its own.
    dateless: Arc<ClientConfig>,
}

impl TlsProbe {
    /// A probe that trusts `roots`. `identity` is shown only to ask a server for its clock, when
    /// its certificate does not hold by ours.
    pub fn new(
        roots: RootCertStore,
        identity: Arc<dyn rustls::client::ResolvesClientCert>,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = Arc::new(roots);
        let builder = || {
            ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&rustls::version::TLS13])
        };
        let inner =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|e| rustls::Error::General(e.to_string()))?;
        let dateless = builder()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Dateless(inner)))
            .with_client_cert_resolver(identity);
        Ok(Self {
            strict: Arc::new(
                builder()?
                    .with_root_certificates(roots)
                    .with_no_client_auth(),
            ),
            dateless: Arc::new(dateless),
        })
    }

    pub(super) async fn handshake(
        &self,
        host: &str,
        stream: TcpStream,
        limit: Duration,
    ) -> Result<(), Observation> {
        let name = server_name(host)?;
        let connector = TlsConnector::from(Arc::clone(&self.strict));
        match tokio::time::timeout(limit, connector.connect(name, stream)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Observation::failed(
                tls_code(&error),
                format!("{host}: {error}"),
            )),
            Err(_) => Err(Observation::failed(
                Code::TLS_FAILED,
                format!("{host}: handshake stalled for {} s", limit.as_secs()),
            )),
        }
    }

    /// Where a server was refused for its certificate's dates: whether it is our clock that is
    /// wrong, by the server's `Date` header.
    pub(super) async fn compare_clocks(
        &self,
        endpoint: &CloudEndpoint,
        addresses: &[IpAddr],
        failure: &Observation,
        now: UnixMillis,
        limit: Duration,
    ) -> Option<Observation> {
        if failure.code != Some(Code::TLS_EXPIRED) {
            return None;
        }
        let asked = tokio::time::timeout(limit, self.ask_date(endpoint, addresses, limit));
        let date = asked.await.ok()??;
        Some(judge_clock(now, date))
    }

    async fn ask_date(
        &self,
        endpoint: &CloudEndpoint,
        addresses: &[IpAddr],
        limit: Duration,
    ) -> Option<UnixMillis> {
        let stream = connect(addresses, endpoint.https_port, limit).await.ok()?;
        let connector = TlsConnector::from(Arc::clone(&self.dateless));
        let name = server_name(&endpoint.host).ok()?;
        let mut tls = connector.connect(name, stream).await.ok()?;
        let request = format!(
            "GET / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            endpoint.host
        );
        tls.write_all(request.as_bytes()).await.ok()?;
        let mut head = Vec::new();
        tls.take(8192).read_to_end(&mut head).await.ok()?;
        let head = String::from_utf8_lossy(&head);
        head.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("date"))
            .and_then(|(_, value)| parse_date(value.trim()))
    }
}

fn judge_clock(now: UnixMillis, server: UnixMillis) -> Observation {
    let ahead = now.millis_since(server);
    if ahead.abs() > CLOCK_TOLERANCE_MS {
        let (by, way) = (ahead.abs() / 1000, if ahead > 0 { "fast" } else { "slow" });
        Observation::failed(
            Code::CLOCK_WRONG,
            format!("{by} s {way} by the server's date"),
        )
    } else {
        Observation::ok(Rung::Clock, "agrees with the server's date")
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, Observation> {
    ServerName::try_from(host.to_owned()).map_err(|_| {
        Observation::failed(Code::TLS_NAME, format!("{host:?} is not a server's name"))
    })
}

fn tls_code(error: &io::Error) -> Code {
    let inner = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(reason)) = inner else {
        return Code::TLS_FAILED;
    };
    match reason {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => Code::TLS_EXPIRED,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Code::TLS_NAME
        }
        _ => Code::TLS_UNTRUSTED,
    }
}

/// Verifies everything but the dates: a box whose clock lies far off can still ask what time it is.
#[derive(Debug)]
struct Dateless(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Dateless {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use x509_parser::prelude::{FromDer, X509Certificate};
        let (_, parsed) = X509Certificate::from_der(end_entity)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let start = parsed.validity().not_before.timestamp();
        let then = Duration::from_secs(u64::try_from(start).unwrap_or(0));
        self.0.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            UnixTime::since_unix_epoch(then),
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
