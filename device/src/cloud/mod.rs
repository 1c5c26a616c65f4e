//! The box's way to ask the cloud something: JSON over HTTPS with the identity that the TPM holds.

mod error;

pub use error::CloudError;
pub use longhaul_bringup::text::{chain, parse_date};

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use longhaul_protocol::inventory::CloudEndpoint;
use longhaul_protocol::value::UnixMillis;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::proxy::ProxySetting;

/// The longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A connection that takes longer to make has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How the box presents itself, and where.
struct Session {
    http: reqwest::Client,
    endpoints: Vec<CloudEndpoint>,
    /// The endpoint that answered last.
    preferred: AtomicUsize,
}

/// Asks the cloud, as an enrolled box; clones share one identity, which is replaced at renewal.
#[derive(Clone)]
pub struct CloudClient {
    session: watch::Receiver<Option<Arc<Session>>>,
}

/// Gives the clients an identity; held by the one who enrols.
pub struct CloudIdentity {
    session: watch::Sender<Option<Arc<Session>>>,
    proxy: ProxySetting,
}

/// A client without an identity yet, and the means to give it one. It asks through the proxy that
/// is set at that time.
pub fn channel(proxy: ProxySetting) -> (CloudIdentity, CloudClient) {
    let (sender, receiver) = watch::channel(None);
    (
        CloudIdentity {
            session: sender,
            proxy,
        },
        CloudClient { session: receiver },
    )
}

impl CloudIdentity {
    /// From now on requests go to `endpoints` with this TLS identity.
    pub fn install(
        &self,
        tls: rustls::ClientConfig,
        endpoints: Vec<CloudEndpoint>,
    ) -> Result<(), CloudError> {
        let session = Session::new(tls, endpoints, &self.proxy)?;
        self.session.send_replace(Some(Arc::new(session)));
        Ok(())
    }

    /// The identity is not valid any more: requests fail until there is a new one.
    pub fn remove(&self) {
        self.session.send_replace(None);
    }
}

/// An answer with its sender's clock.
#[derive(Debug)]
pub struct Answer<T> {
    pub body: T,
    /// The `Date` header, whole seconds.
    pub date: Option<UnixMillis>,
}

impl CloudClient {
    /// A client for one purpose with a fixed identity, for first contact.
    pub fn fixed(
        tls: rustls::ClientConfig,
        endpoints: Vec<CloudEndpoint>,
        proxy: ProxySetting,
    ) -> Result<Self, CloudError> {
        let (identity, client) = channel(proxy);
        identity.install(tls, endpoints)?;
        Ok(client)
    }

    /// Whether the box has an identity now.
    pub fn is_enrolled(&self) -> bool {
        self.session.borrow().is_some()
    }

    /// Waits until the box is enrolled; false if it never will be, because the agent stops.
    pub async fn enrolled(&self) -> bool {
        self.session.clone().wait_for(Option::is_some).await.is_ok()
    }

    /// Asks with `POST` and a JSON body. An empty answer reads as `()`.
    pub async fn post<Req, Resp>(&self, path: &str, request: &Req) -> Result<Resp, CloudError>
    where
        Req: Serialize + ?Sized,
        Resp: DeserializeOwned,
    {
        let body = serde_json::to_vec(request).map_err(|source| CloudError::Malformed {
            path: path.to_owned(),
            source,
        })?;
        Ok(self.ask(Method::POST, path, Some(body)).await?.body)
    }

    /// Asks with `GET`.
    pub async fn get<Resp: DeserializeOwned>(&self, path: &str) -> Result<Resp, CloudError> {
        Ok(self.ask(Method::GET, path, None).await?.body)
    }

    /// Asks with `GET` for something long; the caller reads the body as it comes and may ask for
    /// the part from `offset` on.
    pub async fn stream(&self, path: &str, offset: u64) -> Result<reqwest::Response, CloudError> {
        let session = self.session()?;
        let mut last = CloudError::NotEnrolled;
        for attempt in 0..session.endpoints.len() {
            let endpoint = session.endpoint(attempt);
            let mut request = session.http.get(url(endpoint, path));
            if offset > 0 {
                request = request.header(http::header::RANGE, format!("bytes={offset}-"));
            }
            match request.send().await {
                Ok(response) => {
                    session.prefer(attempt);
                    return streamed(response, path).await;
                }
                Err(source) => last = CloudError::unreachable(endpoint, source),
            }
        }
        Err(last)
    }

    async fn ask<Resp: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Answer<Resp>, CloudError> {
        let session = self.session()?;
        let mut last = CloudError::NotEnrolled;
        for attempt in 0..session.endpoints.len() {
            let endpoint = session.endpoint(attempt);
            let mut request = session
                .http
                .request(method.clone(), url(endpoint, path))
                .timeout(TIMEOUT);
            if let Some(body) = &body {
                request = request
                    .header(http::header::CONTENT_TYPE, "application/json")
                    .body(body.clone());
            }
            match request.send().await {
                Ok(response) => {
                    session.prefer(attempt);
                    return read_answer(response, path).await;
                }
                Err(source) => last = CloudError::unreachable(endpoint, source),
            }
        }
        Err(last)
    }

    fn session(&self) -> Result<Arc<Session>, CloudError> {
        self.session.borrow().clone().ok_or(CloudError::NotEnrolled)
    }
}

impl Session {
    fn new(
        tls: rustls::ClientConfig,
        endpoints: Vec<CloudEndpoint>,
        proxy: &ProxySetting,
    ) -> Result<Self, CloudError> {
        if endpoints.is_empty() {
            return Err(CloudError::NoEndpoint);
        }
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            // Nothing that the environment says: only the proxy that was set for this box.
            .proxy(proxy.for_http())
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(TIMEOUT)
            .pool_idle_timeout(Duration::from_mins(1))
            .build()
            .map_err(CloudError::Client)?;
        Ok(Self {
            http,
            endpoints,
            preferred: AtomicUsize::new(0),
        })
    }

    fn endpoint(&self, attempt: usize) -> &CloudEndpoint {
        let index = self.preferred.load(Ordering::Relaxed) + attempt;
        &self.endpoints[index % self.endpoints.len()]
    }

    fn prefer(&self, attempt: usize) {
        if attempt > 0 {
            let index = self.preferred.load(Ordering::Relaxed) + attempt;
            self.preferred
                .store(index % self.endpoints.len(), Ordering::Relaxed);
        }
    }
}

fn url(endpoint: &CloudEndpoint, path: &str) -> String {
    let CloudEndpoint {
        host, https_port, ..
    } = endpoint;
    if host.contains(':') {
        format!("https://[{host}]:{https_port}{path}")
    } else {
        format!("https://{host}:{https_port}{path}")
    }
}

async fn streamed(
    response: reqwest::Response,
    path: &str,
) -> Result<reqwest::Response, CloudError> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status().as_u16();
    let bytes = read_body(response, path).await?;
    Err(CloudError::refused(path, status, &bytes))
}

async fn read_body(mut response: reqwest::Response, path: &str) -> Result<Vec<u8>, CloudError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|source| CloudError::Cut {
        path: path.to_owned(),
        source,
    })? {
        if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(CloudError::TooLong {
                path: path.to_owned(),
            });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn read_answer<Resp: DeserializeOwned>(
    response: reqwest::Response,
    path: &str,
) -> Result<Answer<Resp>, CloudError> {
    let status = response.status();
    let date = response
        .headers()
        .get(http::header::DATE)
        .and_then(|v| v.to_str().ok())
        .and_then(parse_date);
    if let Some(date) = date {
        crate::clock::heard(date);
    }
    let bytes = read_body(response, path).await?;
    if !status.is_success() {
        return Err(CloudError::refused(path, status.as_u16(), &bytes));
    }
    let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
    let body = serde_json::from_slice(text).map_err(|source| CloudError::Malformed {
        path: path.to_owned(),
        source,
    })?;
    Ok(Answer { body, date })
}

#[cfg(test)]
mod tests {
    use super::*;
    use longhaul_protocol::enrol::Problem;

    #[test]
    fn http_dates_are_understood() {
        let date = parse_date("Sun, 06 Nov 1994 08:49:37 GMT");

        assert_eq!(date, Some(UnixMillis(784_111_777_000)));
        assert_eq!(parse_date("yesterday"), None);
    }

    #[test]
    fn addresses_and_names_make_urls() {
        let endpoint = |host: &str| CloudEndpoint {
            host: host.to_owned(),
            https_port: 443,
            mqtt_port: 8883,
        };

        assert_eq!(url(&endpoint("a.example"), "/x"), "https://a.example:443/x");
        assert_eq!(url(&endpoint("::1"), "/x"), "https://[::1]:443/x");
    }

    #[tokio::test]
    async fn a_box_that_is_not_enrolled_asks_nobody() {
        let (_identity, client) = channel(ProxySetting::none());

        let answer = client.get::<()>("/v1/x").await;

        assert!(matches!(answer, Err(CloudError::NotEnrolled)));
    }

    #[test]
    fn refusals_carry_the_problem_or_what_came_instead() {
        let problem = Problem {
            kind: "urn:longhaul:problem:revoked".to_owned(),
            title: "revoked".to_owned(),
            status: 403,
            detail: "box is revoked".to_owned(),
        };
        let json = serde_json::to_vec(&problem).unwrap();

        let told = CloudError::refused("/v1/x", 403, &json);
        let garbage = CloudError::refused("/v1/x", 502, b"\xff<html>");

        assert!(!told.is_retryable());
        assert_eq!(told.problem(), Some("revoked"));
        assert!(garbage.is_retryable());
        assert!(garbage.to_string().contains("502"), "{garbage}");
    }
}
