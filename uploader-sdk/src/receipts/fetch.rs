//! Fetches receipts from the cloud; each one is verified before it is kept.

use std::io::{self, Write};
use std::time::Duration;

use longhaul_provisioning::receipt::{self, ReceiptError};
use longhaul_provisioning::trust::Anchors;
use reqwest::StatusCode;
use serde::Deserialize;

use crate::ticket_file::check_roots;

/// Longest wait for an answer: the cloud hashes an epoch for each page.
const TIME_LIMIT: Duration = Duration::from_mins(2);
/// Receipts in one answer.
const PAGE: u32 = 500;

/// The cloud, and the right to ask it.
#[derive(Clone)]
pub struct CloudAccess {
    /// Its URL, as people use it.
    pub url: String,
    /// An API token of any role.
    pub token: String,
    /// The fleet's root certificate, PEM: the cloud's TLS and the receipts must lead to it.
    pub root_pem: String,
}

/// Why receipts could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The root certificate is not usable.
    #[error("the fleet's root certificate is not usable: {0}")]
    Root(String),
    /// The cloud's URL is none.
    #[error("not a URL: {0}")]
    Address(String),
    /// The cloud could not be asked.
    #[error("the cloud at {url} could not be asked")]
    Connection {
        /// Its URL.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The cloud said no.
    #[error("the cloud answered {status}: {text}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// What it said.
        text: String,
    },
    /// What came is no receipt that holds.
    #[error("the cloud sent a receipt that does not hold")]
    Receipt(#[from] ReceiptError),
    /// The receipts could not be written.
    #[error("failed to write the receipts")]
    Write(#[from] io::Error),
}

#[derive(Deserialize)]
struct Page {
    items: Vec<String>,
    next: Option<String>,
}

/// Writes the receipts of `bucket`'s objects whose keys start with `prefix` into `sink`, one a line;
/// yields how many there are.
///
/// # Errors
///
/// [`FetchError`].
pub async fn fetch(
    cloud: &CloudAccess,
    bucket: &str,
    prefix: &str,
    sink: &mut (dyn Write + Send),
) -> Result<u64, FetchError> {
    let anchors =
        Anchors::from_pem(&cloud.root_pem).map_err(|e| FetchError::Root(e.to_string()))?;
    let connection = |source| FetchError::Connection {
        url: cloud.url.clone(),
        source,
    };
    let http = client(&cloud.root_pem)?;
    let url = format!("{}/v1/receipts", cloud.url.trim_end_matches('/'));
    let (mut cursor, mut count): (Option<String>, u64) = (None, 0);
    loop {
        let limit = PAGE.to_string();
        let mut query = vec![("bucket", bucket), ("prefix", prefix), ("limit", &limit)];
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let url = url::Url::parse_with_params(&url, &query)
            .map_err(|e| FetchError::Address(format!("{}: {e}", cloud.url)))?;
        let request = http.get(url).bearer_auth(&cloud.token);
        let answer = request.send().await.map_err(connection)?;
        let status = answer.status();
        if !status.is_success() {
            let text = answer.text().await.unwrap_or_default();
            let text = text.chars().take(400).collect();
            return Err(FetchError::Refused { status, text });
        }
        let page: Page = answer.json().await.map_err(connection)?;
        for item in &page.items {
            receipt::verify(item.as_bytes(), &anchors)?;
            sink.write_all(item.as_bytes())?;
            sink.write_all(b"\n")?;
            count += 1;
        }
        match page.next {
            // The same place again would go round for ever.
            Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
            _ => return Ok(count),
        }
    }
}

fn client(root_pem: &str) -> Result<reqwest::Client, FetchError> {
    let roots = check_roots(root_pem).map_err(FetchError::Root)?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let tls = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .map_err(|e| FetchError::Root(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(true)
        .timeout(TIME_LIMIT)
        .build()
        .map_err(|e| FetchError::Root(e.to_string()))
}
