//! The upper rungs: TLS to the cloud, and its clock.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use longhaul_protocol::diag::{Code, Rung};
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

use super::dial::{Dial, SMALL_SEGMENT};
use crate::observation::Observation;
use crate::text::parse_date;

/// A clock that differs by more than this is wrong: certificates are backdated by an hour, and
/// commands live for minutes.
const CLOCK_TOLERANCE_MS: i64 = 120_000;
/// How long a full-size connection still has, once one with small segments holds.
const SECOND_CHANCE: Duration = Duration::from_millis(1500);

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

    /// Shakes hands over `stream`; how long that took. Where it stalls beyond `patience`, looks
    /// until `limit` for what stalls it.
    pub(super) async fn prove(
        &self,
        dial: &Dial<'_>,
        stream: TcpStream,
        patience: Duration,
        limit: Duration,
    ) -> Result<Duration, Observation> {
        let begun = Instant::now();
        let host = &dial.endpoint.host;
        let mut first = Box::pin(self.handshake(host, stream));
        if let Ok(shaken) = tokio::time::timeout(patience, &mut first).await {
            return shaken.map(|()| begun.elapsed());
        }
        let rest = limit.saturating_sub(begun.elapsed());
        let again = |segment| async move {
            let stream = dial.open(rest, segment).await?;
            self.handshake(host, stream).await
        };
        let second = again(None);
        let full_size = async move {
            let mut second = std::pin::pin!(second);
            tokio::select! {
                Ok(()) = &mut first => Ok(()),
                Ok(()) = &mut second => Ok(()),
                else => Err(stalled(host, begun.elapsed())),
            }
        };
        let mut full_size = Box::pin(full_size);
        let compared = async {
            let small = tokio::select! {
                shaken = &mut full_size => return shaken.map(|()| begun.elapsed()),
                small = again(Some(SMALL_SEGMENT)) => small,
            };
            let chance = if small.is_ok() { SECOND_CHANCE } else { rest };
            match tokio::time::timeout(chance, &mut full_size).await {
                Ok(shaken) => shaken.map(|()| begun.elapsed()),
                Err(_) if small.is_ok() => Err(Observation::failed(
                    Code::PATH_MTU,
                    format!(
                        "{host}: the handshake stalls, and holds with segments of {SMALL_SEGMENT} bytes"
                    ),
                )),
                Err(_) => Err(stalled(host, begun.elapsed())),
            }
        };
        let compared = tokio::time::timeout(rest, compared).await;
        compared.unwrap_or_else(|_| Err(stalled(host, begun.elapsed())))
    }

    async fn handshake(&self, host: &str, stream: TcpStream) -> Result<(), Observation> {
        let name = server_name(host)?;
        let connector = TlsConnector::from(Arc::clone(&self.strict));
        match connector.connect(name, stream).await {
            Ok(_) => Ok(()),
            Err(error) => Err(Observation::failed(
                tls_code(&error),
                format!("{host}: {error}"),
            )),
        }
    }

    /// Where a server was refused for its certificate's dates: whether it is our clock that is
    /// wrong, by the server's `Date` header.
    pub(super) async fn compare_clocks(
        &self,
        dial: &Dial<'_>,
        failure: &Observation,
        now: UnixMillis,
        limit: Duration,
    ) -> Option<Observation> {
        if failure.code != Some(Code::TLS_EXPIRED) {
            return None;
        }
        let asked = tokio::time::timeout(limit, self.ask_date(dial, limit));
        let date = asked.await.ok()??;
        Some(judge_clock(now, date))
    }

    async fn ask_date(&self, dial: &Dial<'_>, limit: Duration) -> Option<UnixMillis> {
        let endpoint = dial.endpoint;
        let stream = dial.open(limit, None).await.ok()?;
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
        let way = if ahead > 0 { "fast" } else { "slow" };
        let by = span(ahead.abs() / 1000);
        Observation::failed(
            Code::CLOCK_WRONG,
            format!("{by} {way} by the server's date"),
        )
    } else {
        Observation::ok(Rung::Clock, "agrees with the server's date")
    }
}

fn stalled(host: &str, after: Duration) -> Observation {
    Observation::failed(
        Code::TLS_FAILED,
        format!("{host}: handshake stalled for {} s", after.as_secs()),
    )
}

/// A span of time in its largest unit.
fn span(secs: i64) -> String {
    let units = [(31_557_600, "y"), (86_400, "d"), (3_600, "h"), (60, "min")];
    let fits = units.iter().find(|(unit, _)| secs >= *unit);
    fits.map_or_else(
        || format!("{secs} s"),
        |(unit, name)| format!("{} {name}", (secs + unit / 2) / unit),
    )
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
