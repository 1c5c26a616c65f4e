//! Fetches receipts from the cloud, or through the box where the cloud cannot be reached from here; each
//! one is verified before it is kept.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use longhaul_protocol::lan::RECEIPTS_PATH;
use longhaul_protocol::receipt::{ReceiptAsk, ReceiptTexts};
use longhaul_protocol::ticket::{Secret, Ticket};
use longhaul_provisioning::receipt::{self, ReceiptError};
use longhaul_provisioning::trust::Anchors;
use reqwest::StatusCode;

use crate::advice;
use crate::client::{BoxClient, bounded};
use crate::ticket_file::check_roots;

/// Longest wait for an answer: the cloud hashes an epoch for each page.
const TIME_LIMIT: Duration = Duration::from_mins(2);
/// Receipts in one answer.
const PAGE: u32 = 500;

/// Longest answer of a box, in bytes.
const MAX_PAGE_BYTES: usize = 8 << 20;

/// What lets one ask the cloud for receipts.
#[derive(Clone)]
#[non_exhaustive]
pub enum Right {
    /// An API token of any role: every bucket.
    Token(String),
    /// A ticket's key pair, also for a year after the ticket's end: its own box and bucket.
    Ticket {
        /// Access key.
        access_key: String,
        /// Secret key.
        secret_key: Secret,
    },
}

/// The cloud, and the right to ask it.
#[derive(Clone)]
pub struct CloudAccess {
    /// Its URL, as people use it.
    pub url: String,
    /// The right.
    pub right: Right,
    /// The fleet's root certificate, PEM: the cloud's TLS and the receipts must lead to it.
    pub root_pem: String,
}

impl CloudAccess {
    /// Puts together what is said outright and what a ticket knows; the former counts more.
    ///
    /// # Errors
    ///
    /// [`FetchError::Unsaid`] names what neither says.
    pub fn new(
        ticket: Option<&Ticket>,
        token: Option<String>,
        url: Option<String>,
        root_pem: Option<String>,
    ) -> Result<Self, FetchError> {
        let unsaid = |what| FetchError::Unsaid { what };
        let of_ticket = ticket.map(|ticket| Right::Ticket {
            access_key: ticket.access_key.clone(),
            secret_key: ticket.secret_key.clone(),
        });
        Ok(Self {
            right: (token.map(Right::Token).or(of_ticket)).ok_or(unsaid("ticket or token"))?,
            url: url
                .or_else(|| ticket?.cloud_url.clone())
                .ok_or(unsaid("cloud, https://HOST:PORT"))?,
            root_pem: root_pem
                .or_else(|| Some(ticket?.root_pem.clone()))
                .ok_or(unsaid("root certificate"))?,
        })
    }
}

/// Why receipts could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Something must be known and is not.
    #[error("say which {what}")]
    Unsaid {
        /// What.
        what: &'static str,
    },
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
    /// The box could not ask the cloud for us.
    #[error("the box did not pass the receipts on: {0}")]
    ByBox(String),
    /// What came is no receipt that holds.
    #[error("the cloud sent a receipt that does not hold")]
    Receipt(#[from] ReceiptError),
    /// The receipts could not be written.
    #[error("failed to write the receipts")]
    Write(#[from] io::Error),
}

impl FetchError {
    /// Whether the cloud was not reached: the box may reach it.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Connection { source, .. } => source.is_connect() || source.is_timeout(),
            Self::Unsaid { what } => what.starts_with("cloud"),
            _ => false,
        }
    }
}

/// Who is asked for receipts.
enum Source<'a> {
    Cloud {
        cloud: &'a CloudAccess,
        bucket: &'a str,
        http: reqwest::Client,
    },
    Box(&'a BoxClient),
}

/// Keeps the receipts of `bucket`'s objects whose keys start with `prefix` in the file `output`, and says
/// how many there are. The file appears when all are there: half of them look like all of them.
///
/// # Errors
///
/// [`FetchError`].
pub async fn fetch_to(
    cloud: &CloudAccess,
    bucket: &str,
    prefix: &str,
    output: &Path,
) -> Result<u64, FetchError> {
    let http = client(&cloud.root_pem)?;
    let source = Source::Cloud {
        cloud,
        bucket,
        http,
    };
    keep(&source, &cloud.root_pem, prefix, output).await
}

/// The same through the box, which asks the cloud for us: for networks that let nobody else out. The
/// ticket must not have ended.
///
/// # Errors
///
/// [`FetchError`].
pub async fn fetch_by_box_to(
    client: &BoxClient,
    prefix: &str,
    output: &Path,
) -> Result<u64, FetchError> {
    let root_pem = &client.ticket().root_pem;
    keep(&Source::Box(client), root_pem, prefix, output).await
}

async fn keep(
    source: &Source<'_>,
    root_pem: &str,
    prefix: &str,
    output: &Path,
) -> Result<u64, FetchError> {
    let mut partial = output.to_owned().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let mut file = std::fs::File::create(&partial)?;
    let fetched = async {
        let count = write(source, root_pem, prefix, &mut file).await?;
        file.flush()?;
        file.sync_all()?;
        std::fs::rename(&partial, output)?;
        Ok(count)
    };
    let fetched = fetched.await;
    if fetched.is_err() {
        // It may never have been there.
        let _ = std::fs::remove_file(&partial);
    }
    fetched
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
    let http = client(&cloud.root_pem)?;
    let source = Source::Cloud {
        cloud,
        bucket,
        http,
    };
    write(&source, &cloud.root_pem, prefix, sink).await
}

async fn write(
    source: &Source<'_>,
    root_pem: &str,
    prefix: &str,
    sink: &mut (dyn Write + Send),
) -> Result<u64, FetchError> {
    let anchors = Anchors::from_pem(root_pem).map_err(|e| FetchError::Root(e.to_string()))?;
    let (mut cursor, mut count): (Option<String>, u64) = (None, 0);
    loop {
        let page = source.page(prefix, cursor.as_deref()).await?;
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

impl Source<'_> {
    async fn page(&self, prefix: &str, cursor: Option<&str>) -> Result<ReceiptTexts, FetchError> {
        match self {
            Self::Cloud {
                cloud,
                bucket,
                http,
            } => of_cloud(http, cloud, bucket, prefix, cursor).await,
            Self::Box(client) => of_box(client, prefix, cursor).await,
        }
    }
}

async fn of_cloud(
    http: &reqwest::Client,
    cloud: &CloudAccess,
    bucket: &str,
    prefix: &str,
    cursor: Option<&str>,
) -> Result<ReceiptTexts, FetchError> {
    let connection = |source| FetchError::Connection {
        url: cloud.url.clone(),
        source,
    };
    let limit = PAGE.to_string();
    let mut query = vec![("bucket", bucket), ("prefix", prefix), ("limit", &limit)];
    query.extend(cursor.map(|cursor| ("cursor", cursor)));
    let url = format!("{}/v1/receipts", cloud.url.trim_end_matches('/'));
    let url = url::Url::parse_with_params(&url, &query)
        .map_err(|e| FetchError::Address(format!("{}: {e}", cloud.url)))?;
    let request = match &cloud.right {
        Right::Token(token) => http.get(url).bearer_auth(token),
        Right::Ticket {
            access_key,
            secret_key,
        } => http.get(url).basic_auth(access_key, Some(&secret_key.0)),
    };
    let answer = request.send().await.map_err(connection)?;
    let status = answer.status();
    if !status.is_success() {
        let text = answer.text().await.unwrap_or_default();
        let text = text.chars().take(400).collect();
        return Err(FetchError::Refused { status, text });
    }
    answer.json().await.map_err(connection)
}

async fn of_box(
    client: &BoxClient,
    prefix: &str,
    cursor: Option<&str>,
) -> Result<ReceiptTexts, FetchError> {
    let ticket = client.ticket();
    let ask = ReceiptAsk {
        bucket: ticket.bucket.clone(),
        prefix: prefix.to_owned(),
        cursor: cursor.map(str::to_owned),
    };
    let answer = client
        .http()
        .post(format!("{}{RECEIPTS_PATH}", client.url()))
        .basic_auth(&ticket.access_key, Some(&ticket.secret_key.0))
        .timeout(TIME_LIMIT)
        .json(&ask)
        .send()
        .await
        .map_err(|e| FetchError::ByBox(advice::chain(&e)))?;
    let status = answer.status();
    let bytes = bounded(answer, MAX_PAGE_BYTES)
        .await
        .map_err(FetchError::ByBox)?;
    if !status.is_success() {
        let text = String::from_utf8_lossy(&bytes);
        let text: String = text.chars().take(400).collect();
        return Err(FetchError::ByBox(format!("{status}: {text}")));
    }
    serde_json::from_slice(&bytes).map_err(|e| FetchError::ByBox(e.to_string()))
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
