//! ID tokens: signatures by aws-lc-rs, claims as OIDC Core 1.0 wants them checked (section
//! 3.1.3.7). Pure: it is given the keys and told the time.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Longest token that is read, in bytes.
const MAX_BYTES: usize = 64 * 1024;
/// Keys that are looked at.
const MAX_KEYS: usize = 64;
/// How far the provider's clock and ours may be apart, in seconds.
pub const SKEW_SECS: i64 = 60;

/// Why a token proves nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It is no token.
    #[error("the ID token is malformed: {0}")]
    Malformed(&'static str),
    /// Signed in a way that is not taken.
    #[error("the ID token is signed in a way that is not taken")]
    Algorithm,
    /// Signed by a key that is not among the provider's: it may have new ones.
    #[error("the ID token is signed by a key that the provider does not show")]
    UnknownKey,
    /// Not signed by that key.
    #[error("the ID token's signature does not fit")]
    Signature,
    /// A claim is not as it has to be.
    #[error("the ID token is not for this log-in: {0}")]
    Claim(&'static str),
}

/// A provider's keys, those that can be used.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<Key>);

#[derive(Clone, Debug)]
struct Key {
    id: Option<String>,
    alg: Option<String>,
    material: Material,
}

#[derive(Clone, Debug)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// One key as RFC 7517 writes it.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Keys {
    /// Reads a JWK set; what cannot be used here is passed over.
    ///
    /// # Errors
    ///
    /// If it is no set.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let set: Set = serde_json::from_slice(bytes)?;
        let keys = set.keys.into_iter().take(MAX_KEYS);
        Ok(Self(keys.filter_map(key).collect()))
    }
}

fn key(value: Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    if jwk.r#use.as_deref().is_some_and(|u| u != "sig") {
        return None;
    }
    let bytes = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
    let point = |size: usize| {
        let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
        (x.len() == size && y.len() == size).then(|| [&[4], x.as_slice(), y.as_slice()].concat())
    };
    let material = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => {
            let whole = |b: Vec<u8>| b.into_iter().skip_while(|b| *b == 0).collect();
            Material::Rsa {
                n: whole(bytes(&jwk.n)?),
                e: whole(bytes(&jwk.e)?),
            }
        }
        ("EC", Some("P-256")) => Material::P256(point(32)?),
        ("EC", Some("P-384")) => Material::P384(point(48)?),
        ("OKP", Some("Ed25519")) => Material::Ed25519(bytes(&jwk.x)?),
        _ => return None,
    };
    Some(Key {
        id: jwk.kid,
        alg: jwk.alg,
        material,
    })
}

impl Material {
    /// Whether this key made the signature; `None` if it makes none of that kind. The key decides
    /// what an algorithm's name can mean, so that a token cannot turn one into another.
    fn verify(&self, alg: &str, message: &[u8], given: &[u8]) -> Option<bool> {
        let rsa = |n: &[u8], e: &[u8], how: &RsaParameters| {
            let key = RsaPublicKeyComponents { n, e };
            key.verify(how, message, given).is_ok()
        };
        let other = |how: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(how, key)
                .verify(message, given)
                .is_ok()
        };
        Some(match (self, alg) {
            (Self::Rsa { n, e }, "RS256") => rsa(n, e, &RSA_PKCS1_2048_8192_SHA256),
            (Self::Rsa { n, e }, "RS384") => rsa(n, e, &RSA_PKCS1_2048_8192_SHA384),
            (Self::Rsa { n, e }, "RS512") => rsa(n, e, &RSA_PKCS1_2048_8192_SHA512),
            (Self::Rsa { n, e }, "PS256") => rsa(n, e, &RSA_PSS_2048_8192_SHA256),
            (Self::P256(point), "ES256") => other(&ECDSA_P256_SHA256_FIXED, point),
            (Self::P384(point), "ES384") => other(&ECDSA_P384_SHA384_FIXED, point),
            (Self::Ed25519(key), "EdDSA" | "Ed25519") => other(&ED25519, key),
            _ => return None,
        })
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// Whom a token has to be from, for and about.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The provider.
    pub issuer: &'a str,
    /// Ourselves.
    pub client_id: &'a str,
    /// What this log-in was begun with.
    pub nonce: &'a str,
    /// The time, in seconds.
    pub now: i64,
}

/// What a token says that was checked.
#[derive(Clone, Debug)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// Who it is, at the provider.
    pub fn subject(&self) -> &str {
        self.text("sub").unwrap_or_default()
    }

    /// A claim that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A claim by its path: `groups`, or `realm_access.roles`. A name with dots in it wins.
    pub fn at(&self, path: &str) -> Option<&Value> {
        if let Some(value) = self.0.get(path) {
            return Some(value);
        }
        let mut parts = path.split('.');
        let first = self.0.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    }
}

fn part<T: serde::de::DeserializeOwned>(text: &str, what: &'static str) -> Result<T, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(text);
    let bytes = bytes.map_err(|_| TokenError::Malformed(what))?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed(what))
}

/// Checks a token.
///
/// # Errors
///
/// [`TokenError`] says what is wrong with it; [`TokenError::UnknownKey`] may be cured by newer keys.
pub fn verify(token: &str, keys: &Keys, expected: Expected<'_>) -> Result<Claims, TokenError> {
    if token.len() > MAX_BYTES {
        return Err(TokenError::Malformed("it is too long"));
    }
    let parts: Vec<&str> = token.split('.').collect();
    let [head, body, given] = parts.as_slice() else {
        return Err(TokenError::Malformed("it has three parts"));
    };
    let header: Header = part(head, "its header")?;
    // An extension that must be understood is not (RFC 7515, section 4.1.11).
    if header.crit.is_some() {
        return Err(TokenError::Algorithm);
    }
    let given = URL_SAFE_NO_PAD.decode(given);
    let given = given.map_err(|_| TokenError::Malformed("its signature"))?;
    let message = &token.as_bytes()[..head.len() + 1 + body.len()];
    signed(keys, &header, message, &given)?;
    let claims = Claims(part(body, "its claims")?);
    check(&claims, expected)?;
    Ok(claims)
}

fn signed(keys: &Keys, header: &Header, message: &[u8], given: &[u8]) -> Result<(), TokenError> {
    let named = |key: &&Key| match (&header.kid, &key.id) {
        (Some(wanted), Some(id)) => wanted == id,
        (Some(_), None) => false,
        // A provider with one key need not name it.
        (None, _) => true,
    };
    let (mut seen, mut tried) = (false, false);
    for key in keys.0.iter().filter(named) {
        seen = true;
        if key.alg.as_ref().is_some_and(|alg| *alg != header.alg) {
            continue;
        }
        match key.material.verify(&header.alg, message, given) {
            Some(true) => return Ok(()),
            Some(false) => tried = true,
            None => {}
        }
    }
    Err(match (seen, tried) {
        (_, true) => TokenError::Signature,
        (true, false) => TokenError::Algorithm,
        (false, false) => TokenError::UnknownKey,
    })
}

fn check(claims: &Claims, expected: Expected<'_>) -> Result<(), TokenError> {
    let refuse = |what| Err(TokenError::Claim(what));
    if claims.text("iss") != Some(expected.issuer) {
        return refuse("another issuer");
    }
    let audience: Vec<&str> = match claims.at("aud") {
        Some(Value::String(one)) => vec![one],
        // What is no text counts as somebody else.
        Some(Value::Array(all)) => all.iter().map(|v| v.as_str().unwrap_or_default()).collect(),
        _ => Vec::new(),
    };
    if !audience.contains(&expected.client_id) {
        return refuse("another audience");
    }
    let party = claims.0.get("azp").map(Value::as_str);
    if audience.len() > 1 && party.is_none() {
        return refuse("several audiences, and none that it was issued to");
    }
    if party.is_some_and(|party| party != Some(expected.client_id)) {
        return refuse("issued to another party");
    }
    if claims.text("nonce") != Some(expected.nonce) {
        return refuse("another nonce");
    }
    if !(1..=255).contains(&claims.subject().len()) {
        return refuse("nobody is its subject");
    }
    // Seconds, perhaps with a fraction (RFC 7519, section 2).
    let seconds = |name: &str| claims.0.get(name).and_then(Value::as_f64);
    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds of this age fit a double"
    )]
    let (now, skew) = (expected.now as f64, SKEW_SECS as f64);
    if !seconds("exp").is_some_and(|end| now < end + skew) {
        return refuse("it has expired");
    }
    if !seconds("iat").is_some_and(|made| made <= now + skew) {
        return refuse("it is from the future");
    }
    if claims.0.contains_key("nbf") && !seconds("nbf").is_some_and(|from| from <= now + skew) {
        return refuse("it is not valid yet");
    }
    Ok(())
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
