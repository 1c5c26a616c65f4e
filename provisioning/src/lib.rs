//! Trust: certificate authorities, attestation evidence and its verification, TPM access.
//!
//! Nothing here decides when; callers pass `now`. Without the feature `tpm` there is no TPM code:
//! a cloud verifies evidence in pure Rust.

pub mod backbone;
pub mod ca;
pub mod csr;
pub mod evidence;
#[cfg(feature = "tpm")]
pub mod factory;
pub mod files;
pub mod jws;
pub mod makers;
pub mod names;
pub mod offline;
pub mod oid;
pub mod policy;
pub mod probe;
pub mod receipt;
pub mod recovery;
pub mod tcg;
#[cfg(feature = "tpm")]
pub mod tpm;
pub mod trust;
pub mod tuf;
