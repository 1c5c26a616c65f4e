//! Roots, signed by a box with its device key: JWS (RFC 7515) with ES256 (RFC 7518 section 3.4),
//! because that is what TPMs sign with, and the box's certificate chain inside.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::offline::JournalClaims;
use longhaul_protocol::receipt::RootClaims;
use longhaul_protocol::value::{Jws, UnixMillis};
use rustls_pki_types::CertificateDer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::RootError;
use crate::jws::{MAX_COMPACT, peek};
use crate::trust::Anchors;
use crate::{names, oid};

const ALGORITHM: &str = "ES256";
const TYP: &str = "longhaul-receipt-root";
const JOURNAL_TYP: &str = "longhaul-journal";
/// Bytes of each half of a P-256 signature.
const HALF: usize = 32;

/// Exactly this header is written, and nothing else is read.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    x5c: Vec<String>,
}

/// Signs roots with a box's key.
pub struct RootSigner<'a> {
    /// The box's certificate and its issuers, leaf first.
    pub chain: &'a [CertificateDer<'a>],
    /// Signs with the key of the leaf (ECDSA P-256 with SHA-256) and yields DER.
    pub sign: &'a Sign<'a>,
}

/// Signs bytes, or says in words why not.
pub type Sign<'a> = dyn Fn(&[u8]) -> Result<Vec<u8>, String> + 'a;

impl RootSigner<'_> {
    /// Signs `claims`.
    ///
    /// # Errors
    ///
    /// [`RootError::Sign`] if the key fails.
    pub fn sign(&self, claims: &RootClaims) -> Result<Jws, RootError> {
        self.sign_as(TYP, claims)
    }

    /// Signs what a box states of a file with a part of its journal.
    ///
    /// # Errors
    ///
    /// [`RootError::Sign`] if the key fails.
    pub fn sign_journal(&self, claims: &JournalClaims) -> Result<Jws, RootError> {
        self.sign_as(JOURNAL_TYP, claims)
    }

    fn sign_as<T: Serialize>(&self, typ: &str, claims: &T) -> Result<Jws, RootError> {
        let malformed = |e: serde_json::Error| RootError::Malformed(e.to_string());
        let header = Header {
            alg: ALGORITHM.to_owned(),
            typ: typ.to_owned(),
            x5c: self.chain.iter().map(|c| STANDARD.encode(c)).collect(),
        };
        let mut compact = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header).map_err(malformed)?);
        compact.push('.');
        let payload = serde_json::to_vec(claims).map_err(malformed)?;
        URL_SAFE_NO_PAD.encode_string(payload, &mut compact);
        let der = (self.sign)(compact.as_bytes()).map_err(RootError::Sign)?;
        let raw = halves(&der).ok_or_else(|| {
            RootError::Sign("what it made is not an ECDSA P-256 signature".to_owned())
        })?;
        compact.push('.');
        URL_SAFE_NO_PAD.encode_string(raw, &mut compact);
        Ok(Jws(compact))
    }
}

/// Verifies that a box of the fleet signed this root at the time that it names.
///
/// # Errors
///
/// [`RootError`] says what does not hold.
pub fn verify_root(jws: &Jws, anchors: &Anchors) -> Result<RootClaims, RootError> {
    let (claims, by) = verify_as(jws, TYP, anchors, |claims: &RootClaims| claims.sealed)?;
    if claims.v != VERSION {
        return Err(version(claims.v));
    }
    if by != claims.box_id {
        let claimed = claims.box_id;
        return Err(RootError::OtherBox { claimed, by });
    }
    Ok(claims)
}

/// Verifies that a box of the fleet signed this statement about its journal. Its certificate is judged
/// at `now`: a box without a line may not know the time.
///
/// # Errors
///
/// [`RootError`] says what does not hold.
pub fn verify_journal(
    jws: &Jws,
    anchors: &Anchors,
    now: UnixMillis,
) -> Result<JournalClaims, RootError> {
    let (claims, by) = verify_as(jws, JOURNAL_TYP, anchors, |_: &JournalClaims| now)?;
    if claims.v != VERSION {
        return Err(version(claims.v));
    }
    if by != claims.box_id {
        let claimed = claims.box_id;
        return Err(RootError::OtherBox { claimed, by });
    }
    Ok(claims)
}

fn version(found: u16) -> RootError {
    RootError::Malformed(format!(
        "it has version {found}, this program reads {VERSION}"
    ))
}

/// What was signed, and by which box.
fn verify_as<T: DeserializeOwned>(
    jws: &Jws,
    typ: &str,
    anchors: &Anchors,
    at: impl FnOnce(&T) -> UnixMillis,
) -> Result<(T, BoxId), RootError> {
    let malformed = |what: &str| RootError::Malformed(what.to_owned());
    let Jws(compact) = jws;
    if compact.len() > MAX_COMPACT {
        return Err(malformed("longer than 64 KiB"));
    }
    let (signed, signature) = compact
        .rsplit_once('.')
        .ok_or_else(|| malformed("no signature"))?;
    let (header, _) = signed
        .split_once('.')
        .ok_or_else(|| malformed("no payload"))?;
    let decode = |part| {
        URL_SAFE_NO_PAD
            .decode(part)
            .map_err(|_| malformed("not base64url"))
    };
    let header: Header = serde_json::from_slice(&decode(header)?)
        .map_err(|e| RootError::Malformed(e.to_string()))?;
    if header.alg != ALGORITHM || header.typ != typ || header.x5c.len() > 3 {
        return Err(malformed("the header is not that of such a document"));
    }
    let chain: Result<Vec<_>, _> = header.x5c.iter().map(|c| STANDARD.decode(c)).collect();
    let chain = chain.map_err(|_| malformed("x5c is not base64"))?;
    let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
    let claims: T = peek(jws).ok_or_else(|| malformed("the payload is not what it should be"))?;
    let leaf = anchors
        .verify(&chain, oid::EKU_CLIENT_AUTH, at(&claims))
        .map_err(RootError::Signer)?;
    let raw = decode(signature)?;
    if raw.len() != 2 * HALF {
        return Err(RootError::Signature);
    }
    let der = oid::ecdsa_signature(&raw[..HALF], &raw[HALF..]);
    leaf.verify_signature(
        webpki::aws_lc_rs::ECDSA_P256_SHA256,
        signed.as_bytes(),
        &der,
    )
    .map_err(|_| RootError::Signature)?;
    let by = names::box_id(&chain[0]).map_err(|_| malformed("its signer is no box"))?;
    Ok((claims, by))
}

/// `r || s` of a DER signature.
fn halves(der: &[u8]) -> Option<[u8; 2 * HALF]> {
    fn integer(der: &[u8]) -> Option<(&[u8], &[u8])> {
        let (&[0x02, length], rest) = der.split_first_chunk::<2>()? else {
            return None;
        };
        let (value, rest) = rest.split_at_checked(usize::from(length))?;
        Some((value.strip_prefix(&[0]).unwrap_or(value), rest))
    }
    let (&[0x30, length], rest) = der.split_first_chunk::<2>()? else {
        return None;
    };
    if rest.len() != usize::from(length) {
        return None;
    }
    let (r, rest) = integer(rest)?;
    let (s, rest) = integer(rest)?;
    let mut raw = [0; 2 * HALF];
    raw[HALF.checked_sub(r.len())?..HALF].copy_from_slice(r);
    raw[HALF + HALF.checked_sub(s.len())?..].copy_from_slice(s);
    rest.is_empty().then_some(raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn der_and_raw_signatures_are_the_same(r in any::<[u8; 32]>(), s in any::<[u8; 32]>()) {
            let raw = [r, s].concat();
            let der = oid::ecdsa_signature(&r, &s);
            prop_assert_eq!(halves(&der).map(|h| h.to_vec()), Some(raw));
        }

        #[test]
        fn no_signature_panics(der in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = halves(&der);
        }
    }
}
