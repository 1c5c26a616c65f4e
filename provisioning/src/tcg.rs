//! What a TPM says, read strictly and without a TPM: keys, attestations, signatures, and the
//! credential that only the right TPM can open. Formats are from TCG, "TPM 2.0 Library", Part 2.

pub mod attest;
pub mod credential;
mod kdf;
pub mod public;
mod reader;

use reader::Reader;

/// `TPM_ALG_SHA256`.
const ALG_SHA256: u16 = 0x000b;
/// `TPM_ALG_NULL`.
const ALG_NULL: u16 = 0x0010;
/// `TPM_ALG_ECDSA`.
const ALG_ECDSA: u16 = 0x0018;
/// `TPM_ALG_ECC`.
const ALG_ECC: u16 = 0x0023;

/// Why bytes are not the structure that they should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("malformed {structure}: {rule}")]
pub struct Malformed {
    /// The TPM structure that was expected.
    pub structure: &'static str,
    /// What is wrong.
    pub rule: &'static str,
}
