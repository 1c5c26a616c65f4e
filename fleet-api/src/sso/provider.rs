//! The provider over HTTP: its description, its keys, its token endpoint.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt as _;
use reqwest::{Client, RequestBuilder, header};
use rustls::ClientConfig;
use serde::{Deserialize, Deserializer};
use tokio::sync::Mutex;
use url::Url;

use super::SsoConfig;
use super::token::Keys;

/// The longest that one request to the provider takes.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 512 * 1024;
/// How long description and keys are taken to be current, in milliseconds.
const FRESH_MS: i64 = 3600 * 1000;
/// How long the description is while the provider cannot be reached.
const STALE_MS: i64 = 24 * FRESH_MS;
/// Between two looks for newer keys, or after one that failed: whoever shows tokens with made-up keys
/// must not make us ask.
const AGAIN_MS: i64 = 10 * 1000;

/// Why the provider could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProviderError {
    /// The request failed.
    #[error("the request to the provider failed")]
    Request(#[from] reqwest::Error),
    /// It was asked a moment ago, and failed.
    #[error("the provider failed a moment ago")]
    Again,
    /// The provider refused.
    #[error("the provider answered {status} {code}")]
    Refused {
        /// The status.
        status: u16,
        /// What it calls the error, where it is one that the standard has.
        code: String,
    },
    /// The answer is too long.
    #[error("the provider's answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
    /// The answer is not what it should be.
    #[error("the provider's {0} is not usable")]
    Malformed(&'static str),
}

/// What is used of a provider's description (OIDC Discovery 1.0, section 3).
#[derive(Clone, Debug, Deserialize)]
pub struct Metadata {
    issuer: String,
    /// Where browsers are sent.
    #[serde(deserialize_with = "endpoint")]
    pub authorization_endpoint: Url,
    #[serde(deserialize_with = "endpoint")]
    token_endpoint: Url,
    #[serde(deserialize_with = "endpoint")]
    jwks_uri: Url,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
    /// Whether the answer names the provider (RFC 9207).
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
}

impl Metadata {
    /// Whether every endpoint has TLS where the issuer has it: a provider elsewhere must not send us, or
    /// browsers, to what listens on this machine.
    fn fits(&self, issuer: &str) -> bool {
        let all = [
            &self.authorization_endpoint,
            &self.token_endpoint,
            &self.jwks_uri,
        ];
        let here = Url::parse(issuer).is_ok_and(|url| url.scheme() == "http");
        here || all.iter().all(|url| url.scheme() == "https")
    }
}

/// A URL that may be asked for.
fn endpoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let url = Url::parse(&String::deserialize(deserializer)?);
    let url = url.ok().filter(is_safe);
    url.ok_or_else(|| serde::de::Error::custom("not a URL with TLS"))
}

#[derive(Default)]
struct Known {
    metadata: Option<(Metadata, i64)>,
    keys: Option<(Keys, i64)>,
    failed: Option<i64>,
}

/// A provider, and what is known of it.
pub struct Provider {
    config: SsoConfig,
    http: Client,
    known: Mutex<Known>,
}

#[derive(Deserialize)]
struct Tokens {
    id_token: String,
}

#[derive(Deserialize)]
struct Trouble {
    error: String,
}

/// Whether a URL leads to this machine.
fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Whether a URL may be asked for: TLS, except on this machine.
pub(super) fn is_safe(url: &Url) -> bool {
    let plain = url.username().is_empty() && url.password().is_none();
    plain
        && match url.scheme() {
            "https" => url.has_host(),
            "http" => is_here(url),
            _ => false,
        }
}

impl Provider {
    /// Asks nothing yet.
    ///
    /// # Errors
    ///
    /// If there can be no client.
    pub fn new(config: SsoConfig, tls: &ClientConfig) -> Result<Self, ProviderError> {
        let mut http = Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .user_agent("longhaul");
        // No proxy leads to this machine, whatever the environment says of others.
        if Url::parse(&config.issuer).is_ok_and(|url| is_here(&url)) {
            http = http.no_proxy();
        }
        Ok(Self {
            config,
            http: http.build()?,
            known: Mutex::default(),
        })
    }

    /// Its description; asked for at most once an hour.
    pub async fn metadata(&self, now: i64) -> Result<Metadata, ProviderError> {
        let mut known = self.known.lock().await;
        self.metadata_in(&mut known, now).await
    }

    async fn metadata_in(&self, known: &mut Known, now: i64) -> Result<Metadata, ProviderError> {
        let age = |at: i64| now.saturating_sub(at);
        if let Some((metadata, at)) = &known.metadata
            && age(*at) < FRESH_MS
        {
            return Ok(metadata.clone());
        }
        let asked = if known.failed.is_some_and(|at| age(at) < AGAIN_MS) {
            Err(ProviderError::Again)
        } else {
            self.describe().await
        };
        match asked {
            Ok(metadata) => {
                known.metadata = Some((metadata.clone(), now));
                known.failed = None;
                Ok(metadata)
            }
            Err(error) => {
                if !matches!(error, ProviderError::Again) {
                    known.failed = Some(now);
                }
                match &known.metadata {
                    Some((metadata, at)) if age(*at) < STALE_MS => Ok(metadata.clone()),
                    _ => Err(error),
                }
            }
        }
    }

    async fn describe(&self) -> Result<Metadata, ProviderError> {
        let issuer = self.config.issuer.as_str();
        let path = "/.well-known/openid-configuration";
        let url = format!("{}{path}", issuer.trim_end_matches('/'));
        let bytes = self.ask(self.http.get(url)).await?;
        let bad = || ProviderError::Malformed("description");
        let metadata: Metadata = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        // Character by character: whoever answers for another issuer must not log anybody in
        // (OIDC Discovery 1.0, section 4.3).
        if metadata.issuer != issuer || !metadata.fits(issuer) {
            return Err(bad());
        }
        Ok(metadata)
    }

    /// Its keys; `newer` where those that are known did not do. `None` if there are none newer to be had
    /// now.
    pub async fn keys(&self, newer: bool, now: i64) -> Result<Option<Keys>, ProviderError> {
        let mut known = self.known.lock().await;
        let metadata = self.metadata_in(&mut known, now).await?;
        if let Some((keys, at)) = &known.keys {
            let age = now.saturating_sub(*at);
            if newer && age < AGAIN_MS {
                return Ok(None);
            }
            if !newer && age < FRESH_MS {
                return Ok(Some(keys.clone()));
            }
        }
        let bytes = self.ask(self.http.get(metadata.jwks_uri)).await?;
        let keys = Keys::parse(&bytes).map_err(|_| ProviderError::Malformed("key set"))?;
        known.keys = Some((keys.clone(), now));
        Ok(Some(keys))
    }

    /// Exchanges a code for an ID token.
    pub async fn exchange(
        &self,
        code: &str,
        verifier: &str,
        redirect: &str,
        now: i64,
    ) -> Result<String, ProviderError> {
        let metadata = self.metadata(now).await?;
        let id = self.config.client_id.as_str();
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect),
            ("code_verifier", verifier),
        ];
        let mut request = self.http.post(metadata.token_endpoint);
        let methods = &metadata.token_endpoint_auth_methods_supported;
        let takes = |method: &str| methods.iter().any(|m| m == method);
        match self.config.client_secret.as_ref().map(|s| s.0.as_str()) {
            // Where nothing is said, it is the header (OIDC Discovery 1.0, section 3).
            Some(secret) if methods.is_empty() || takes("client_secret_basic") => {
                let escape = |text: &str| -> String {
                    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
                };
                let pair = STANDARD.encode(format!("{}:{}", escape(id), escape(secret)));
                request = request.header(header::AUTHORIZATION, format!("Basic {pair}"));
            }
            Some(secret) => form.extend([("client_id", id), ("client_secret", secret)]),
            None => form.push(("client_id", id)),
        }
        let body = serde_urlencoded::to_string(form);
        let body = body.map_err(|_| ProviderError::Malformed("code"))?;
        let request = request
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(body);
        let bytes = self.ask(request).await?;
        let tokens: Tokens =
            serde_json::from_slice(&bytes).map_err(|_| ProviderError::Malformed("token answer"))?;
        Ok(tokens.id_token)
    }

    async fn ask(&self, request: RequestBuilder) -> Result<Vec<u8>, ProviderError> {
        let answer = request.send().await?;
        let status = answer.status();
        let mut body = Vec::new();
        let mut pieces = answer.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            if body.len() + piece.len() > MAX_ANSWER {
                return Err(ProviderError::TooLong);
            }
            body.extend_from_slice(&piece);
        }
        if status.is_success() {
            return Ok(body);
        }
        // A word of the standard's, not whatever else the provider says.
        let trouble = serde_json::from_slice::<Trouble>(&body).ok();
        let code = trouble.map(|t| t.error).filter(|code| {
            code.len() <= 40 && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        });
        Err(ProviderError::Refused {
            status: status.as_u16(),
            code: code.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_elsewhere_leads_to_nothing_on_this_machine() {
        let described = |issuer: &str, jwks: &str| {
            let text = serde_json::json!({
                "issuer": issuer, "authorization_endpoint": format!("{issuer}/a"),
                "token_endpoint": format!("{issuer}/t"), "jwks_uri": jwks,
            });
            serde_json::from_value::<Metadata>(text).is_ok_and(|read| read.fits(issuer))
        };
        assert!(described("https://id.example", "https://keys.example/k"));
        assert!(described(
            "http://127.0.0.1:8080",
            "http://127.0.0.1:8080/k"
        ));
        for bad in [
            "http://127.0.0.1/k",
            "http://localhost/k",
            "http://id.example/k",
            "https://a:b@id.example/k",
            "file:///etc/passwd",
            "/k",
            "",
        ] {
            assert!(!described("https://id.example", bad), "{bad}");
        }
    }
}
