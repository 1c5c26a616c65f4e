//! Passwords: Argon2id, off the threads that serve requests.

use std::sync::LazyLock;

use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

/// Shortest password that is taken, in characters.
pub const MIN_CHARS: usize = 12;
/// Longest password that is taken, in characters.
pub const MAX_CHARS: usize = 256;

/// 19 MiB, two passes, one lane. Source: OWASP password storage cheat sheet.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;

/// How many are computed at once: more would only take memory from each other.
static PLACES: Semaphore = Semaphore::const_new(2);

/// Verified against when there is no such operator, so that the answer takes as long.
static NOBODY: LazyLock<Option<String>> = LazyLock::new(|| hash_now("nobody").ok());

/// Why a password could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
    /// The hash failed.
    #[error("failed to hash a password: {0}")]
    Hash(String),
    /// The work was not done.
    #[error("hashing a password was interrupted")]
    Interrupted,
}

/// Checks that a new password is worth having.
pub fn check(text: &str) -> Result<(), String> {
    if !(MIN_CHARS..=MAX_CHARS).contains(&text.chars().count()) {
        return Err(format!(
            "a password has {MIN_CHARS} to {MAX_CHARS} characters"
        ));
    }
    Ok(())
}

/// Hashes a password as a PHC string.
pub async fn hash(text: String) -> Result<String, PasswordError> {
    let _place = PLACES.acquire().await;
    tokio::task::spawn_blocking(move || hash_now(&text))
        .await
        .map_err(|_| PasswordError::Interrupted)?
}

/// Whether `text` is the password behind `stored`; takes as long where there is none.
pub async fn verify(text: String, stored: Option<String>) -> Result<bool, PasswordError> {
    if text.chars().count() > MAX_CHARS {
        return Ok(false);
    }
    let _place = PLACES.acquire().await;
    let verified = tokio::task::spawn_blocking(move || {
        let known = stored.is_some();
        let Some(stored) = stored.or_else(|| NOBODY.clone()) else {
            return false;
        };
        let Ok(parsed) = PasswordHash::new(&stored) else {
            return false;
        };
        let fits = Argon2::default().verify_password(text.as_bytes(), &parsed);
        fits.is_ok() && known
    });
    verified.await.map_err(|_| PasswordError::Interrupted)
}

fn hash_now(text: &str) -> Result<String, PasswordError> {
    let failed = |e: &dyn std::fmt::Display| PasswordError::Hash(e.to_string());
    let mut salt = [0; 16];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| PasswordError::Random)?;
    let salt = SaltString::encode_b64(&salt).map_err(|e| failed(&e))?;
    let params = Params::new(MEMORY_KIB, PASSES, 1, None).map_err(|e| failed(&e))?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password(text.as_bytes(), &salt)
        .map(|hash| hash.to_string())
        .map_err(|e| failed(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_password_itself_fits_its_hash() {
        let stored = hash("correct horse".into()).await.expect("hashes");

        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        for (text, fits) in [
            ("correct horse", true),
            ("correct horse ", false),
            ("", false),
        ] {
            let verified = verify(text.into(), Some(stored.clone())).await;
            assert_eq!(verified.expect("verifies"), fits, "{text:?}");
        }
        assert!(!verify("nobody".into(), None).await.expect("verifies"));
        assert!(
            !verify("x".into(), Some("garbage".into()))
                .await
                .expect("verifies")
        );
        assert!(
            !verify("x".repeat(1 << 20), Some(stored))
                .await
                .expect("verifies")
        );
    }
}
