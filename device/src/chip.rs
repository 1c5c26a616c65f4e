//! What the box needs of its TPM. Every call blocks for as long as the chip takes, which on real
//! ones is up to a second: call from a thread that may wait.

use std::collections::BTreeMap;
use std::sync::Arc;

use longhaul_protocol::value::Digest32;
pub use longhaul_provisioning::tpm::{NvSlot, Sealed};
use rustls::sign::SigningKey;
use zeroize::Zeroizing;

/// Why the chip did not do as it was asked.
#[derive(Debug, thiserror::Error)]
#[error("TPM failed to {what}")]
pub struct ChipError {
    /// What it was asked to do.
    pub what: &'static str,
    /// What it said.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Why the chip did not open a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnsealError {
    /// The machine is in another state than when the secret was sealed.
    #[error("{}", changed(.0))]
    StateChanged(Vec<u8>),
    /// Anything else.
    #[error(transparent)]
    Chip(#[from] ChipError),
}

fn changed(pcrs: &[u8]) -> String {
    let names: Vec<_> = pcrs.iter().map(|pcr| format!("PCR {pcr}")).collect();
    format!(
        "this machine is not in the state that its key is sealed to: changed since then: {}",
        names.join(", ")
    )
}

/// A signing key in the chip.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyRole {
    /// The factory's, for first contact.
    Idevid,
    /// The cloud's, in one of two places: a renewal makes the other one.
    Ldevid(u8),
}

/// A structure that the attestation key signed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attested {
    /// `TPMS_ATTEST`.
    pub attest: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub signature: Vec<u8>,
}

/// The box's TPM.
pub trait Chip: Send + Sync {
    /// The endorsement key's certificate (DER).
    fn ek_certificate(&self) -> Result<Vec<u8>, ChipError>;
    /// The attestation key's `TPMT_PUBLIC`.
    fn iak_public(&self) -> Result<Vec<u8>, ChipError>;
    /// `TPM2_ActivateCredential` for the attestation key.
    fn activate(&self, blob: &[u8], secret: &[u8]) -> Result<Vec<u8>, ChipError>;
    /// Makes a new LDevID key in this place, replacing what is there; its `TPMT_PUBLIC`.
    fn create_ldevid(&self, slot: u8) -> Result<Vec<u8>, ChipError>;
    /// `TPM2_Certify` of the LDevID key by the attestation key.
    fn certify_ldevid(&self, slot: u8, nonce: &[u8]) -> Result<Attested, ChipError>;
    /// `TPM2_Quote` by the attestation key, and the values that it covers.
    fn quote(
        &self,
        nonce: &[u8],
        pcrs: &[u8],
    ) -> Result<(Attested, BTreeMap<u8, Digest32>), ChipError>;
    /// A certificate request (PKCS #10, DER) signed by a key.
    fn request(&self, key: KeyRole) -> Result<Vec<u8>, ChipError>;
    /// A key for TLS.
    fn tls_key(&self, key: KeyRole) -> Result<Arc<dyn SigningKey>, ChipError>;
    /// Seals at most 128 bytes to this chip and to the values that these PCRs have now.
    fn seal(&self, secret: &[u8], pcrs: &[u8]) -> Result<Sealed, ChipError>;
    /// Opens what [`Chip::seal`] sealed.
    fn unseal(&self, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, UnsealError>;
    /// What a slot of the chip's own memory holds.
    fn slot(&self, slot: NvSlot) -> Result<Option<Zeroizing<[u8; 32]>>, ChipError>;
    /// Puts a secret into a slot of the chip's own memory.
    fn fill_slot(&self, slot: NvSlot, secret: &[u8; 32]) -> Result<(), ChipError>;
    /// Destroys what a slot of the chip's own memory holds.
    fn empty_slot(&self, slot: NvSlot) -> Result<(), ChipError>;
}
