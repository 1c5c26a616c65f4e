//! Trust: certificate authorities, attestation evidence and its verification, TPM access.
