//! What a TPM attests (`TPMS_ATTEST`) under the signature of an attestation key.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use longhaul_protocol::value::Digest32;

use super::public::{SigningPublic, Use};
use super::{ALG_ECDSA, ALG_SHA256, Malformed, Reader};
use crate::oid;

/// `TPM_GENERATED_VALUE`: only the TPM puts it in front of what a restricted key signs.
const GENERATED: u32 = 0xff54_4347;
const ST_ATTEST_CERTIFY: u16 = 0x8017;
const ST_ATTEST_QUOTE: u16 = 0x8018;
/// PCRs of a PC client TPM, and the bytes of their selection bitmap.
const PCRS: u8 = 24;
const PCR_BITMAP: usize = 3;

/// Why an attestation is not believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AttestError {
    /// It cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The signing key is no attestation key.
    #[error("signed by a key that is no attestation key")]
    NotAttestationKey,
    /// Altered, or signed by another key.
    #[error("the signature is wrong")]
    Signature,
    /// It answers another challenge.
    #[error("it answers another challenge")]
    Nonce,
    /// It attests something else.
    #[error("it attests something else than asked for")]
    Kind,
    /// It certifies another key.
    #[error("it certifies another key")]
    Name,
    /// It covers other PCRs than asked for.
    #[error("it covers other PCRs than asked for")]
    Selection,
    /// The PCR values sent along are not those that were quoted.
    #[error("the PCR values are not those that were quoted")]
    PcrDigest,
}

/// The TPM's clock and firmware, as a quote states them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TpmState {
    /// Milliseconds that this TPM has been powered since it was last cleared.
    pub clock_millis: u64,
    /// How often the TPM was reset (a power-on or reboot) since it was last cleared.
    pub resets: u32,
    /// How often it was restarted or resumed since its last reset.
    pub restarts: u32,
    /// Whether the clock never ran backwards.
    pub clock_safe: bool,
    /// Firmware version, as its maker counts.
    pub firmware: u64,
}

enum Body<'a> {
    Certify {
        name: &'a [u8],
    },
    Quote {
        selection: &'a [u8],
        digest: &'a [u8],
    },
}

struct Attest<'a> {
    nonce: &'a [u8],
    state: TpmState,
    body: Body<'a>,
}

/// Verifies that `signer` (an attestation key) certified, for this `nonce`, that the key named
/// `certified` is in its TPM.
pub fn verify_certify(
    signer: &SigningPublic,
    attest: &[u8],
    signature: &[u8],
    nonce: &[u8],
    certified: &[u8; 34],
) -> Result<(), AttestError> {
    match verify(signer, attest, signature, nonce)?.body {
        Body::Certify { name } if name == certified => Ok(()),
        Body::Certify { .. } => Err(AttestError::Name),
        Body::Quote { .. } => Err(AttestError::Kind),
    }
}

/// Verifies that `signer` (an attestation key) quoted, for this `nonce`, exactly these PCRs of
/// the SHA-256 bank with these values.
pub fn verify_quote(
    signer: &SigningPublic,
    attest: &[u8],
    signature: &[u8],
    nonce: &[u8],
    pcrs: &BTreeMap<u8, Digest32>,
) -> Result<TpmState, AttestError> {
    let attest = verify(signer, attest, signature, nonce)?;
    let Body::Quote { selection, digest } = attest.body else {
        return Err(AttestError::Kind);
    };
    let mut bitmap = [0_u8; PCR_BITMAP];
    let mut hash = Context::new(&SHA256);
    for (index, value) in pcrs {
        if *index >= PCRS {
            return Err(AttestError::Selection);
        }
        bitmap[usize::from(index / 8)] |= 1 << (index % 8);
        hash.update(&value.0);
    }
    if selection != bitmap {
        return Err(AttestError::Selection);
    }
    if digest != hash.finish().as_ref() {
        return Err(AttestError::PcrDigest);
    }
    Ok(attest.state)
}

fn verify<'a>(
    signer: &SigningPublic,
    attest: &'a [u8],
    signature: &[u8],
    nonce: &[u8],
) -> Result<Attest<'a>, AttestError> {
    if signer.usage() != Use::Attestation {
        return Err(AttestError::NotAttestationKey);
    }
    let signature = parse_signature(signature)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, signer.point())
        .verify(attest, &signature)
        .map_err(|_| AttestError::Signature)?;
    let attest = parse(attest)?;
    if attest.nonce != nonce {
        return Err(AttestError::Nonce);
    }
    Ok(attest)
}

/// Reads a `TPMT_SIGNATURE` into DER.
fn parse_signature(bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut r = Reader::new("TPMT_SIGNATURE", bytes);
    r.expect(ALG_ECDSA, "not ECDSA")?;
    r.expect(ALG_SHA256, "not SHA-256")?;
    let (r_value, s_value) = (r.scalar()?, r.scalar()?);
    r.finish()?;
    Ok(oid::ecdsa_signature(&r_value, &s_value))
}

fn parse(bytes: &[u8]) -> Result<Attest<'_>, Malformed> {
    let mut r = Reader::new("TPMS_ATTEST", bytes);
    if r.u32()? != GENERATED {
        return Err(r.malformed("not made by a TPM"));
    }
    let kind = r.u16()?;
    let _qualified_signer = r.sized()?;
    let nonce = r.sized()?;
    let state = TpmState {
        clock_millis: r.u64()?,
        resets: r.u32()?,
        restarts: r.u32()?,
        clock_safe: match r.u8()? {
            0 => false,
            1 => true,
            _ => return Err(r.malformed("a boolean that is neither 0 nor 1")),
        },
        firmware: r.u64()?,
    };
    let body = match kind {
        ST_ATTEST_CERTIFY => {
            let name = r.sized()?;
            let _qualified_name = r.sized()?;
            Body::Certify { name }
        }
        ST_ATTEST_QUOTE => {
            if r.u32()? != 1 {
                return Err(r.malformed("not exactly one PCR bank"));
            }
            r.expect(ALG_SHA256, "not the SHA-256 bank")?;
            let length = r.u8()?;
            let selection = r.take(usize::from(length))?;
            let digest = r.sized()?;
            Body::Quote { selection, digest }
        }
        _ => return Err(r.malformed("neither a quote nor a certification")),
    };
    r.finish()?;
    Ok(Attest { nonce, state, body })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_signature(&bytes);
            let mut attest = GENERATED.to_be_bytes().to_vec();
            attest.extend(bytes.iter());
            let _ = parse(&attest);
            let _ = parse(&bytes);
            for kind in [ST_ATTEST_CERTIFY, ST_ATTEST_QUOTE] {
                let mut attest = GENERATED.to_be_bytes().to_vec();
                attest.extend(kind.to_be_bytes());
                attest.extend(&bytes);
                let _ = parse(&attest);
            }
        }
    }
}
