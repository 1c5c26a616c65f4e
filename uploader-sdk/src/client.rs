//! A verified connection to one box.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_smithy_async::time::TimeSource as _;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns};
use futures::stream::{FuturesUnordered, StreamExt as _};
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::lan::{LanStatus, STATUS_PATH};
use longhaul_protocol::ticket::{Ticket, lan_name};

use crate::advice;
use crate::clock::{self, BoxClock};
use crate::discover::{self, DiscoverError};
use crate::progress::Progress;
use crate::reach::{BoxTls, Endpoint, ReachError, Via};
use crate::retry::{Patience, S3Error, persist};

/// Longest status document that is read, in bytes.
const MAX_STATUS_BYTES: usize = 256 * 1024;
/// Longest time for the status, in seconds.
const STATUS_SECS: u64 = 10;

/// How long after its issue a ticket is new: its box may be starting, or about to hear of it.
const NEW_FOR: Duration = Duration::from_mins(10);
/// How long a new ticket is waited for.
const LEARNING: Duration = Duration::from_mins(1);

/// Why there is no connection to the ticket's box.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody on the LAN answers for it.
    #[error(
        "box {box_id} was not found: {tried}; check that it is switched on and on the same network, or give its address with --box https://ADDRESS:PORT"
    )]
    NotFound {
        /// The box that was looked for.
        box_id: BoxId,
        /// What was tried, and what came of it.
        tried: String,
    },
    /// Something else answers at its address.
    #[error(
        "{found}: {why}; nothing was sent. Check the address, and that the ticket is for this box"
    )]
    NotTheBox {
        /// What answered where.
        found: ReachError,
        /// What is wrong with its certificate.
        why: String,
    },
    /// It could not be looked for.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// The ticket's roots or names cannot be used.
    #[error("ticket {ticket} cannot be used: {why}; get it again from whoever sent the box")]
    Ticket {
        /// The ticket's id.
        ticket: String,
        /// What is wrong.
        why: String,
    },
    /// It does not say how it is.
    #[error("box {box_id} does not tell its status: {why}")]
    Status {
        /// The box.
        box_id: BoxId,
        /// What happened.
        why: String,
    },
}

/// A box that has proven its name, and the means to talk to it.
#[derive(Clone, Debug)]
pub struct BoxClient {
    ticket: Ticket,
    endpoint: Endpoint,
    url: String,
    s3: aws_sdk_s3::Client,
    http: reqwest::Client,
    clock: BoxClock,
}

impl BoxClient {
    /// Finds the ticket's box and connects: at `given` where the user says so, else by mDNS or at
    /// the addresses in the ticket.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], which says what was tried.
    pub async fn connect(ticket: &Ticket, given: Option<&str>) -> Result<Self, ConnectError> {
        let unusable = |why| unusable(ticket, why);
        let tls = BoxTls::new(ticket).map_err(unusable)?;
        let mut failures = Vec::new();
        let endpoint = if let Some(given) = given {
            first_that_proves(&tls, discover::given_endpoints(given).await?, &mut failures).await
        } else {
            search(&tls, ticket, &mut failures).await?
        };
        let Some(endpoint) = endpoint else {
            return Err(not_reached(ticket, failures));
        };
        tracing::debug!(addr = %endpoint.addr, via = %endpoint.via, "box found");
        let client = Self::at(ticket, &tls, endpoint).await?;
        client.wait_for_ticket().await;
        Ok(client)
    }

    /// Waits until the box has heard of a ticket that is new, for a minute at the most. What else
    /// may be wrong is for the request that follows to say.
    async fn wait_for_ticket(&self) {
        if !self.is_new() {
            return;
        }
        let patience = Patience {
            total: LEARNING,
            attempt: Duration::from_secs(STATUS_SECS),
        };
        let said = AtomicBool::new(false);
        let answer = persist(patience, &Progress::default(), || async {
            let asked = self.s3.get_bucket_location().bucket(&self.ticket.bucket);
            let Err(error) = asked.send().await.map_err(S3Error::from) else {
                return Ok(());
            };
            let unheard = error.is_unknown_ticket();
            if unheard && !said.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "the box has not heard of this new ticket yet: waiting up to {} s",
                    LEARNING.as_secs()
                );
            }
            Err(error.passing_if(unheard))
        })
        .await;
        if let Err(error) = answer {
            tracing::debug!(%error, "the box was asked for the ticket's bucket");
        }
    }

    /// By the box's clock; this computer's may be wrong.
    fn is_new(&self) -> bool {
        let Some(issued) = self.ticket.issued else {
            return false;
        };
        let Ok(issued) = u64::try_from(issued.0) else {
            return false;
        };
        let issued = std::time::UNIX_EPOCH + Duration::from_millis(issued);
        // A box whose clock is a little behind sees it made in the future.
        let age = match self.clock.now().duration_since(issued) {
            Ok(age) => age,
            Err(ahead) => ahead.duration(),
        };
        age < NEW_FOR
    }

    /// Connects to an address where the box has proven its name.
    pub(crate) async fn at(
        ticket: &Ticket,
        tls: &BoxTls,
        endpoint: Endpoint,
    ) -> Result<Self, ConnectError> {
        let unusable = |why| unusable(ticket, why);
        let name = lan_name(&ticket.box_id);
        let http = http_client(tls, &name, endpoint.addr).map_err(unusable)?;
        let url = format!("https://{name}:{}", endpoint.addr.port());
        let clock = box_clock(&http, &url).await;
        let s3 = s3_client(ticket, &url, endpoint.addr.ip(), clock).map_err(unusable)?;
        Ok(Self {
            ticket: ticket.clone(),
            endpoint,
            url,
            s3,
            http,
            clock,
        })
    }

    /// The ticket.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Where the box is, and how that was learnt.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// `https://{name}:{port}`: the name is the box's own and resolves only inside this client.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The S3 client, for anything that this library has no words for.
    pub fn s3(&self) -> &aws_sdk_s3::Client {
        &self.s3
    }

    /// Whether the box's certificate is also for the address that it is at, so that clients which
    /// cannot be told a name can verify it.
    pub async fn proves_address(&self) -> bool {
        let Ok(tls) = BoxTls::new(&self.ticket) else {
            return false;
        };
        tls.for_address(self.endpoint.addr)
            .reach(self.endpoint.addr)
            .await
            .is_ok()
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// The box at a glance.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Status`].
    pub async fn status(&self) -> Result<LanStatus, ConnectError> {
        let failed = |why: String| ConnectError::Status {
            box_id: self.ticket.box_id.clone(),
            why,
        };
        let answer = self
            .http
            .get(format!("{}{STATUS_PATH}", self.url))
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(|e| failed(advice::chain(&e)))?;
        let bytes = bounded(answer, MAX_STATUS_BYTES).await.map_err(failed)?;
        serde_json::from_slice(&bytes).map_err(|e| failed(e.to_string()))
    }
}

/// Reads an answer of `limit` bytes at the most.
pub(crate) async fn bounded(
    mut answer: reqwest::Response,
    limit: usize,
) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|e| advice::chain(&e))? {
        if bytes.len() + chunk.len() > limit {
            return Err(format!("the answer is longer than {limit} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn unusable(ticket: &Ticket, why: String) -> ConnectError {
    ConnectError::Ticket {
        ticket: ticket.id.to_string(),
        why,
    }
}

/// mDNS has a head start, because it knows where the box is now; the ticket knows where it was.
const HEAD_START: Duration = Duration::from_millis(500);

/// Looks by mDNS and at the addresses in the ticket; the first place where the box proves its name
/// is as good as any other.
async fn search(
    tls: &BoxTls,
    ticket: &Ticket,
    failures: &mut Vec<ReachError>,
) -> Result<Option<Endpoint>, ConnectError> {
    let (mut by_mdns, mut by_ticket) = (Vec::new(), Vec::new());
    let found = {
        let mut announced = std::pin::pin!(announced(tls, ticket, &mut by_mdns));
        let mut remembered = std::pin::pin!(remembered(tls, ticket, &mut by_ticket));
        tokio::select! {
            biased;
            found = &mut announced => match found {
                Ok(Some(endpoint)) => Ok(Some(endpoint)),
                Ok(None) => Ok(remembered.await),
                Err(error) => remembered.await.map(Some).ok_or(error),
            },
            found = &mut remembered => match found {
                Some(endpoint) => Ok(Some(endpoint)),
                None => announced.await,
            },
        }
    };
    failures.append(&mut by_mdns);
    failures.append(&mut by_ticket);
    Ok(found?)
}

async fn announced(
    tls: &BoxTls,
    ticket: &Ticket,
    failures: &mut Vec<ReachError>,
) -> Result<Option<Endpoint>, DiscoverError> {
    let Some(found) = discover::find_one(&ticket.box_id).await? else {
        return Ok(None);
    };
    let endpoint = |addr| Endpoint {
        addr,
        via: Via::Mdns,
    };
    let endpoints = found.addrs.into_iter().map(endpoint).collect();
    Ok(first_that_proves(tls, endpoints, failures).await)
}

async fn remembered(
    tls: &BoxTls,
    ticket: &Ticket,
    failures: &mut Vec<ReachError>,
) -> Option<Endpoint> {
    if ticket.lan_urls.is_empty() {
        return None;
    }
    tokio::time::sleep(HEAD_START).await;
    let endpoints = discover::ticket_endpoints(ticket).await;
    first_that_proves(tls, endpoints, failures).await
}

/// Tries all endpoints at once; the first that proves to be the box wins.
async fn first_that_proves(
    tls: &BoxTls,
    endpoints: Vec<Endpoint>,
    failures: &mut Vec<ReachError>,
) -> Option<Endpoint> {
    let mut tries: FuturesUnordered<_> = endpoints
        .into_iter()
        .map(|endpoint| async move { tls.reach(endpoint.addr).await.map(|()| endpoint) })
        .collect();
    while let Some(result) = tries.next().await {
        match result {
            Ok(endpoint) => return Some(endpoint),
            Err(failure) => failures.push(failure),
        }
    }
    None
}

fn not_reached(ticket: &Ticket, failures: Vec<ReachError>) -> ConnectError {
    let tried: Vec<String> = failures.iter().map(|f| advice::chain(f)).collect();
    for failure in failures {
        if let ReachError::NotTheBox { source, .. } = &failure {
            let why = source.to_string();
            return ConnectError::NotTheBox {
                found: failure,
                why,
            };
        }
    }
    ConnectError::NotFound {
        box_id: ticket.box_id.clone(),
        tried: if tried.is_empty() {
            "nobody answers for it by mDNS, and the ticket has no address".to_owned()
        } else {
            tried.join(", ")
        },
    }
}

fn http_client(tls: &BoxTls, name: &str, addr: SocketAddr) -> Result<reqwest::Client, String> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.config.clone())
        .resolve(name, addr)
        // A proxy would be asked for a name that exists only here.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(STATUS_SECS))
        .build()
        .map_err(|e| advice::chain(&e))
}

/// Signatures carry the box's time; without an answer ours has to do.
async fn box_clock(http: &reqwest::Client, url: &str) -> BoxClock {
    let before = clock::system_now();
    let answer = http.get(format!("{url}{STATUS_PATH}")).send().await.ok();
    answer
        .as_ref()
        .and_then(|answer| answer.headers().get(http::header::DATE)?.to_str().ok())
        .and_then(|date| BoxClock::from_date_header(date, before))
        .unwrap_or_default()
}

/// Answers every question with the box's address.
#[derive(Clone, Debug)]
struct OnlyBox(IpAddr);

impl ResolveDns for OnlyBox {
    fn resolve_dns<'a>(&'a self, _name: &'a str) -> DnsFuture<'a> {
        DnsFuture::ready(Ok(vec![self.0]))
    }
}

fn s3_client(
    ticket: &Ticket,
    url: &str,
    ip: IpAddr,
    clock: BoxClock,
) -> Result<aws_sdk_s3::Client, String> {
    let tls = TlsContext::builder()
        .with_trust_store(TrustStore::empty().with_pem_certificate(ticket.root_pem.as_bytes()))
        .build()
        .map_err(|e| advice::chain(&e))?;
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(tls)
        .build_with_resolver(OnlyBox(ip));
    let credentials = Credentials::new(
        &ticket.access_key,
        &ticket.secret_key.0,
        None,
        None,
        "ticket",
    );
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(ticket.region.clone()))
        .credentials_provider(credentials)
        .endpoint_url(url)
        .force_path_style(true)
        .http_client(http)
        .time_source(clock)
        // Bodies carry checksums that we take while reading; retries are ours, because we keep the bytes.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .retry_config(RetryConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(5))
                .build(),
        )
        .build();
    Ok(aws_sdk_s3::Client::from_conf(config))
}
