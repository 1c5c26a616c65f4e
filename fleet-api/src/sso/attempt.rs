//! A log-in under way. It lies with the browser that began it, sealed: nobody can begin one for
//! somebody else, and a flood of beginnings fills nothing here.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::auth::password::PasswordError;
use crate::auth::secret;
use crate::store::seal::SealKey;

/// The cookie that carries it. It comes along when the provider sends the browser back, so it cannot
/// be as strict as a session's.
pub const COOKIE: &str = "__Host-longhaul-log-in";
/// How long somebody may take at the provider, in seconds.
pub const VALID_SECS: i64 = 600;
/// Longest cookie that is opened, in bytes.
const MAX_BYTES: usize = 2048;
/// What it is sealed for.
const OWNER: &str = "log-in by a provider";

/// What the answer has to fit.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// Comes back in the address.
    pub state: String,
    /// Comes back in the token.
    pub nonce: String,
    /// Proves to the provider that the code is ours (RFC 7636).
    pub verifier: String,
    /// When it ends, in milliseconds.
    pub expires: i64,
}

impl Attempt {
    /// A new one.
    ///
    /// # Errors
    ///
    /// If the system gives no random bytes.
    pub fn new(now: i64) -> Result<Self, PasswordError> {
        Ok(Self {
            state: secret::new_secret("")?,
            nonce: secret::new_secret("")?,
            verifier: secret::new_secret("")?,
            expires: now.saturating_add(VALID_SECS * 1000),
        })
    }

    /// What the provider is shown of the verifier: its SHA-256.
    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, self.verifier.as_bytes()))
    }

    /// As the cookie carries it; `None` if it cannot be sealed.
    pub fn seal(&self, key: &SealKey) -> Option<String> {
        let text = serde_json::to_vec(self).ok()?;
        let sealed = key.seal(OWNER, &text).ok()?;
        Some(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// The one that a cookie carries, unless it has ended or is not ours.
    pub fn open(key: &SealKey, cookie: &str, now: i64) -> Option<Self> {
        if cookie.len() > MAX_BYTES {
            return None;
        }
        let sealed = URL_SAFE_NO_PAD.decode(cookie).ok()?;
        let text = key.open(OWNER, &sealed).ok()?;
        let attempt: Self = serde_json::from_slice(&text).ok()?;
        (now < attempt.expires).then_some(attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_opens_where_it_was_sealed_and_in_time() {
        let dir = tempfile::tempdir().expect("a folder");
        let key = |name: &str| SealKey::load_or_create(&dir.path().join(name)).expect("a key");
        let (ours, other) = (key("a"), key("b"));
        let attempt = Attempt::new(1000).expect("random");
        let cookie = attempt.seal(&ours).expect("sealed");

        assert_eq!(Attempt::open(&ours, &cookie, 600_999), Some(attempt));
        assert_eq!(Attempt::open(&ours, &cookie, 601_000), None);
        assert_eq!(Attempt::open(&other, &cookie, 1000), None);
        for at in 0..cookie.len() {
            let mut altered = cookie.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).expect("ASCII");
            assert_eq!(Attempt::open(&ours, &altered, 1000), None, "character {at}");
        }
        for garbage in ["", "A", "=", "\u{e4}", &"A".repeat(5000)] {
            assert_eq!(Attempt::open(&ours, garbage, 1000), None);
        }
    }

    /// The example of RFC 7636, appendix B.
    #[test]
    fn the_challenge_is_the_standards() {
        let attempt = Attempt {
            state: String::new(),
            nonce: String::new(),
            verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned(),
            expires: 0,
        };
        assert_eq!(
            attempt.challenge(),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
    }
}
