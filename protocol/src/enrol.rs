//! Enrolment over HTTPS: challenge, evidence, certificate. The box's certificate authenticates
//! the connection: the IDevID at first contact, the LDevID at renewal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::inventory::CloudEndpoint;
use crate::value::{Blob, Digest32, UnixMillis};

/// `POST` here with a [`ChallengeRequest`]; answers [`Challenge`].
pub const CHALLENGE_PATH: &str = "/v1/enrol/challenge";
/// `POST` here with [`Evidence`]; answers [`Issued`].
pub const CERTIFICATE_PATH: &str = "/v1/enrol/certificate";
/// `POST` here with a [`LanCertificateRequest`]; answers [`LanCertificate`].
pub const LAN_CERTIFICATE_PATH: &str = "/v1/box/lan-certificate";
/// `GET` here; answers [`crate::ticket::CredentialSet`].
pub const CREDENTIALS_PATH: &str = "/v1/box/credentials";
/// The TUF repository lies below: `metadata/..` and `targets/..`.
pub const TUF_PATH: &str = "/v1/box/tuf";

/// The box asks to be challenged.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ChallengeRequest {
    /// Version of this format; see [`crate::envelope::VERSION`].
    pub v: u16,
    /// Certificate of the endorsement key (DER), as the TPM's maker issued it.
    pub ek_certificate: Blob,
    /// The attestation key's `TPMT_PUBLIC`.
    pub iak_public: Blob,
}

/// What the box must prove.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Challenge {
    /// Names the challenge; usable once.
    pub id: String,
    /// Goes into the quote and the certification as qualifying data, 32 bytes.
    pub nonce: Blob,
    /// `TPMS_ID_OBJECT` contents for `TPM2_ActivateCredential`.
    pub credential_blob: Blob,
    /// `TPM2B_ENCRYPTED_SECRET` contents for `TPM2_ActivateCredential`.
    pub encrypted_secret: Blob,
    /// PCRs of the SHA-256 bank that the quote must cover, exactly.
    pub pcrs: Vec<u8>,
    /// When the challenge ends.
    pub expires: UnixMillis,
}

/// The box's proof.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Evidence {
    /// Version of this format; see [`crate::envelope::VERSION`].
    pub v: u16,
    /// The challenge that this answers.
    pub challenge: String,
    /// What activation yielded: proof that endorsement key and attestation key share a TPM.
    pub activated: Blob,
    /// The new key's `TPMT_PUBLIC`.
    pub ldevid_public: Blob,
    /// `TPMS_ATTEST` of `TPM2_Certify` over the new key by the attestation key.
    pub certify_attest: Blob,
    /// Its `TPMT_SIGNATURE`.
    pub certify_signature: Blob,
    /// `TPMS_ATTEST` of `TPM2_Quote` by the attestation key.
    pub quote_attest: Blob,
    /// Its `TPMT_SIGNATURE`.
    pub quote_signature: Blob,
    /// The values of the quoted PCRs, by number.
    pub pcr_values: BTreeMap<u8, Digest32>,
    /// Certificate request (PKCS #10, DER) for the new key. Only its key and signature count.
    pub csr: Blob,
}

/// The certificate, and where to go with it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Issued {
    /// The LDevID certificate and its issuers (DER), leaf first, without the root.
    pub certificate_chain: Vec<Blob>,
    /// When the leaf expires.
    pub expires: UnixMillis,
    /// The endpoints in force, first choice first.
    pub endpoints: Vec<CloudEndpoint>,
    /// The server's clock.
    pub server_time: UnixMillis,
}

/// The box asks for a certificate for its LAN endpoint's software key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LanCertificateRequest {
    /// Version of this format; see [`crate::envelope::VERSION`].
    pub v: u16,
    /// Certificate request (PKCS #10, DER). Only its key and signature count.
    pub csr: Blob,
    /// Addresses of the box on the LAN: private, link-local or loopback.
    pub addresses: Vec<std::net::IpAddr>,
}

/// The LAN endpoint's certificate.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LanCertificate {
    /// Certificate and issuers (DER), leaf first, without the root.
    pub certificate_chain: Vec<Blob>,
    /// When the leaf expires.
    pub expires: UnixMillis,
}

/// What a refused request answers: RFC 9457 (`application/problem+json`).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Problem {
    /// `urn:longhaul:problem:{name}`: stable, for programs.
    #[serde(rename = "type")]
    pub kind: String,
    /// A few words.
    pub title: String,
    /// HTTP status code.
    pub status: u16,
    /// What failed, on what, and what to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}
