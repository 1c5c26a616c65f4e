//! Random secrets and how they are stored.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::password::PasswordError;

/// Crockford's base32 in lower case: nothing in it is mistaken for another.
const READABLE: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A new secret of 256 bits, after `prefix`.
pub fn new_secret(prefix: &str) -> Result<String, PasswordError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| PasswordError::Random)?;
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// A new password of 100 bits that can be read out, as `xxxxx-xxxxx-xxxxx-xxxxx`.
pub fn new_password() -> Result<String, PasswordError> {
    let mut bytes = [0; 20];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| PasswordError::Random)?;
    let letters = bytes.map(|b| char::from(READABLE[usize::from(b & 31)]));
    let groups: Vec<String> = letters.chunks(5).map(|c| c.iter().collect()).collect();
    Ok(groups.join("-"))
}

/// How a secret of [`new_secret`] is stored. One round of a fast hash is enough: nobody guesses
/// 256 random bits.
pub fn hash(secret: &str) -> String {
    hex::encode(digest(&SHA256, secret.as_bytes()))
}
