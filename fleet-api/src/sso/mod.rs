//! Log-in by somebody else's word: OIDC (which is `OpenID` Connect), authorization code with PKCE.
//!
//! The browser goes to the provider with what [`attempt`] makes and comes back with a code;
//! [`provider`] exchanges it for a token, [`token`] checks that, [`grants`] says what the claims are
//! worth here. Accounts that come this way are known by issuer and subject, never by their name.

pub mod attempt;
pub mod grants;
pub mod provider;
pub mod token;

use longhaul_protocol::ticket::Secret;
use rustls::ClientConfig;
use url::Url;

use attempt::Attempt;
use grants::{Grant, Rule, granted};
use provider::{Provider, ProviderError, is_safe};
use token::{Claims, Expected, TokenError, verify};

/// A provider, and what its word is worth.
#[derive(Clone, Debug)]
pub struct SsoConfig {
    /// Who vouches, character by character as it stands in tokens.
    pub issuer: String,
    /// What the provider knows us by.
    pub client_id: String,
    /// What the provider knows us for; absent where we are a public client.
    pub client_secret: Option<Secret>,
    /// What the button says.
    pub name: String,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// Where the groups stand in the token.
    pub claim: String,
    /// What groups may do, the most important first.
    pub rules: Vec<Rule>,
}

impl SsoConfig {
    /// Whether the issuer can be one: `https`, or this machine; no query, no fragment (OIDC
    /// Core 1.0, section 2).
    pub fn is_issuer(text: &str) -> bool {
        Url::parse(text)
            .is_ok_and(|url| is_safe(&url) && url.query().is_none() && url.fragment().is_none())
    }
}

/// Why somebody is not logged in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SsoError {
    /// The answer is to no log-in that this browser began.
    #[error("the answer is to no log-in that this browser began, or it took too long")]
    Stray,
    /// The provider, or the person there, said no.
    #[error("the provider said no")]
    Denied,
    /// The provider failed.
    #[error("the provider could not be asked")]
    Provider(#[from] ProviderError),
    /// The token proves nothing.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Nobody here gives them anything to do.
    #[error("none of their groups may do anything here")]
    Unknown,
    /// There is no name that they could have here.
    #[error("no name in the token can be an account's")]
    Name,
}

/// What the provider's answer brings, as it stands in the address.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// What the attempt was begun with.
    pub state: Option<String>,
    /// What is exchanged.
    pub code: Option<String>,
    /// The provider (RFC 9207).
    pub iss: Option<String>,
}

/// Somebody for whom the provider vouches.
#[derive(Clone, Debug, PartialEq)]
pub struct Person {
    /// Who they are there: never given to anybody else.
    pub subject: String,
    /// What they want to be called.
    pub name: Option<String>,
    /// What they may do; `None` for nothing.
    pub grant: Option<Grant>,
}

/// Log-in by a provider.
pub struct Sso {
    config: SsoConfig,
    provider: Provider,
}

impl Sso {
    /// Asks the provider nothing yet: it may be down while we start.
    ///
    /// # Errors
    ///
    /// If there can be no client.
    pub fn new(config: SsoConfig, tls: &ClientConfig) -> Result<Self, ProviderError> {
        let provider = Provider::new(config.clone(), tls)?;
        Ok(Self { config, provider })
    }

    /// What the button says.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Who vouches.
    pub fn issuer(&self) -> &str {
        &self.config.issuer
    }

    /// Where to send a browser that begins `attempt` and shall come back to `redirect`.
    pub async fn begin(
        &self,
        attempt: &Attempt,
        redirect: &str,
        now: i64,
    ) -> Result<Url, SsoError> {
        let mut url = self.provider.metadata(now).await?.authorization_endpoint;
        let mut scopes = vec!["openid"];
        scopes.extend(self.config.scopes.iter().map(String::as_str));
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.config.client_id)
            .append_pair("redirect_uri", redirect)
            .append_pair("scope", &scopes.join(" "))
            .append_pair("state", &attempt.state)
            .append_pair("nonce", &attempt.nonce)
            .append_pair("code_challenge", &attempt.challenge())
            .append_pair("code_challenge_method", "S256");
        Ok(url)
    }

    /// Whom the provider's answer to `attempt` names.
    pub async fn finish(
        &self,
        attempt: &Attempt,
        answer: &Answer,
        redirect: &str,
        now: i64,
    ) -> Result<Person, SsoError> {
        if answer.state.as_deref() != Some(attempt.state.as_str()) {
            return Err(SsoError::Stray);
        }
        let metadata = self.provider.metadata(now).await?;
        match &answer.iss {
            Some(iss) if *iss != self.config.issuer => return Err(SsoError::Stray),
            None if metadata.authorization_response_iss_parameter_supported => {
                return Err(SsoError::Stray);
            }
            _ => {}
        }
        let code = answer.code.as_deref().ok_or(SsoError::Denied)?;
        let exchanged = self
            .provider
            .exchange(code, &attempt.verifier, redirect, now);
        let token = exchanged.await?;
        let claims = self.claims(&token, &attempt.nonce, now).await?;
        Ok(Person {
            subject: claims.subject().to_owned(),
            name: name(&claims),
            grant: granted(&self.config.rules, claims.at(&self.config.claim)).cloned(),
        })
    }

    async fn claims(&self, token: &str, nonce: &str, now: i64) -> Result<Claims, SsoError> {
        let expected = Expected {
            issuer: &self.config.issuer,
            client_id: &self.config.client_id,
            nonce,
            now: now.div_euclid(1000),
        };
        let keys = self.provider.keys(false, now).await?.unwrap_or_default();
        match verify(token, &keys, expected) {
            // The provider may sign with a new key since.
            Err(TokenError::UnknownKey) => {
                let newer = self.provider.keys(true, now).await?;
                let newer = newer.ok_or(TokenError::UnknownKey)?;
                Ok(verify(token, &newer, expected)?)
            }
            checked => Ok(checked?),
        }
    }
}

/// What somebody wants to be called, by the rule for accounts' names.
fn name(claims: &Claims) -> Option<String> {
    let fits = |text: &&str| {
        (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-_@".contains(&b))
    };
    let wishes = ["preferred_username", "email", "sub"];
    let mut found = wishes.iter().filter_map(|claim| claims.text(claim));
    found.find(fits).map(str::to_owned)
}
