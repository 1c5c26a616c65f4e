//! A simulated box enrols: challenge, evidence, certificate, by HTTPS as a real one does.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use longhaul_protocol::enrol::{CERTIFICATE_PATH, CHALLENGE_PATH, Challenge, Issued};
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::members::Papers;
use super::servers::NAME;

/// How long the cloud may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Gets the next certificate: the box's side of TLS with it, and how long it is valid, in
/// milliseconds. `shown` is the certificate that it shows, its initial one where no other is valid.
///
/// # Errors
///
/// What the system or the cloud says.
pub async fn enrol(
    papers: &Papers,
    shown: &Arc<ClientConfig>,
    to: SocketAddr,
) -> io::Result<(Arc<ClientConfig>, i64)> {
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(ClientConfig::clone(shown))
        .no_proxy()
        .resolve(NAME, to)
        .timeout(TIMEOUT)
        .build()
        .map_err(io::Error::other)?;
    let challenge: Challenge = ask(&http, to, CHALLENGE_PATH, &papers.tpm.request()).await?;
    let (key, evidence) = papers.tpm.answer(&challenge).map_err(io::Error::other)?;
    let issued: Issued = ask(&http, to, CERTIFICATE_PATH, &evidence).await?;
    let chain = issued.certificate_chain.into_iter();
    let chain = chain.map(|der| CertificateDer::from(der.0)).collect();
    let tls = papers.side.config(chain, &key).map_err(io::Error::other)?;
    Ok((tls, issued.expires.millis_since(issued.server_time)))
}

async fn ask<T: DeserializeOwned>(
    http: &reqwest::Client,
    to: SocketAddr,
    path: &str,
    body: &(impl Serialize + ?Sized),
) -> io::Result<T> {
    let url = format!("https://{NAME}:{}{path}", to.port());
    let sent = http.post(url).json(body).send().await;
    let answer = sent.map_err(io::Error::other)?;
    let status = answer.status();
    if !status.is_success() {
        let text = answer.text().await.unwrap_or_default();
        return Err(io::Error::other(format!("{path}: {status}: {text}")));
    }
    answer.json().await.map_err(io::Error::other)
}
