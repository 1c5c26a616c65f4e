//! Webhooks, signed as <https://www.standardwebhooks.com> says, so that its libraries verify them.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::redirect::Policy;
use rustls::ClientConfig;

use super::address::{AddressError, Reach, parse, resolve};
use crate::auth::password::PasswordError;

/// The longest that one attempt takes.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What a secret begins with, by the standard.
const SECRET_PREFIX: &str = "whsec_";

/// Why a webhook was not delivered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebhookError {
    /// It may not go there.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Its secret is damaged.
    #[error("the channel's secret is damaged")]
    Secret,
    /// The request could not be made.
    #[error("the request failed")]
    Request(#[from] reqwest::Error),
    /// The other side did not take it.
    #[error("the other side answered {0}")]
    Refused(u16),
}

/// Sends webhooks.
#[derive(Clone, Debug)]
pub struct Webhooks {
    tls: Arc<ClientConfig>,
    reach: Reach,
}

impl Webhooks {
    /// To where `reach` allows; TLS trusts what `tls` trusts.
    pub const fn new(reach: Reach, tls: Arc<ClientConfig>) -> Self {
        Self { tls, reach }
    }

    /// Where webhooks may go.
    pub const fn reach(&self) -> Reach {
        self.reach
    }

    /// Makes one attempt: no redirect is followed, nothing of the answer but its status is read.
    ///
    /// # Errors
    ///
    /// [`WebhookError`] says why it was not taken.
    pub async fn send(
        &self,
        target: &str,
        secret: &str,
        (id, body): (&str, &str),
        now: i64,
    ) -> Result<(), WebhookError> {
        let url = parse(target, self.reach)?;
        let addresses = resolve(&url, self.reach).await?;
        let secs = now.div_euclid(1000);
        let signature = sign(secret, id, secs, body).ok_or(WebhookError::Secret)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(ClientConfig::clone(&self.tls))
            .resolve_to_addrs(&host, &addresses)
            .redirect(Policy::none())
            .no_proxy()
            .timeout(TIMEOUT)
            .user_agent("longhaul")
            .build()?;
        let answer = client
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", secs.to_string())
            .header("webhook-signature", signature)
            .body(body.to_owned())
            .send()
            .await
            // The URL may hold a secret of its own.
            .map_err(reqwest::Error::without_url)?;
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(WebhookError::Refused(answer.status().as_u16()))
        }
    }
}

/// A new secret, as the standard writes it.
///
/// # Errors
///
/// [`PasswordError::Random`] if there is no randomness.
pub fn new_secret() -> Result<String, PasswordError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| PasswordError::Random)?;
    Ok(format!("{SECRET_PREFIX}{}", STANDARD.encode(bytes)))
}

/// The signature's header; `None` if the secret is none.
fn sign(secret: &str, id: &str, secs: i64, body: &str) -> Option<String> {
    let key = STANDARD.decode(secret.strip_prefix(SECRET_PREFIX)?).ok()?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let tag = hmac::sign(&key, format!("{id}.{secs}.{body}").as_bytes());
    Some(format!("v1,{}", STANDARD.encode(tag.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the standard's reference implementations.
    #[test]
    fn signatures_are_the_standards() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let body = r#"{"test": 2432232314}"#;
        assert_eq!(
            sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body).as_deref(),
            Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
        );
        assert_eq!(sign("MfKQ", "a", 0, ""), None);
    }
}
