//! Whether a box is the one that the factory made, in a state that we accept: the challenge, and
//! the verification of its answer. Pure: no TPM, no clock, no IO.

use std::collections::BTreeMap;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand;
use longhaul_protocol::enrol::{Challenge, ChallengeRequest, Evidence};
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::inventory::InventoryRecord;
use longhaul_protocol::value::{Blob, Digest32, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::csr::{self, CsrError};
use crate::makers::{self, MakerError};
pub use crate::policy::{Difference, Policy};
use crate::tcg::Malformed;
use crate::tcg::attest::{self, AttestError, TpmState};
use crate::tcg::credential::{Credential, CredentialError};
use crate::tcg::public::{SigningPublic, Use};

/// The longest single piece of evidence, in bytes.
const MAX_PIECE: usize = 4096;

/// A challenge as the cloud remembers it until it is answered or has expired. Whoever stores one
/// removes it before the answer is looked at: a challenge is good for one attempt.
#[derive(Clone, Deserialize, Serialize)]
pub struct Pending {
    /// Names the challenge.
    pub id: String,
    /// The box that was challenged.
    pub box_id: BoxId,
    nonce: Blob,
    secret: Blob,
    /// When the challenge ends.
    pub expires: UnixMillis,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending")
            .field("id", &self.id)
            .field("box_id", &self.box_id)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// What verified evidence proves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verified {
    /// The box.
    pub box_id: BoxId,
    /// The new key (SubjectPublicKeyInfo, DER): it is in the box's TPM and stays there.
    pub ldevid_spki: Vec<u8>,
    /// The TPM's own counters.
    pub tpm: TpmState,
    /// The quoted PCR values.
    pub pcrs: BTreeMap<u8, Digest32>,
    /// How they differ from the nearest state that is accepted; empty where it is one.
    pub differs: Vec<Difference>,
}

impl Verified {
    /// The same, where the state is accepted.
    ///
    /// # Errors
    ///
    /// [`Refusal::Pcr`] names the first PCR that differs.
    pub fn accepted(self) -> Result<Self, Refusal> {
        match self.differs.first() {
            None => Ok(self),
            Some(first) => Err(Refusal::Pcr {
                pcr: first.pcr,
                found: first.found,
            }),
        }
    }
}

/// Why a box is refused. [`Refusal::code`] is stable; the text is for people.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Written by a newer or foreign program.
    #[error("version {0} of the evidence is not known here: update the cloud or the box")]
    Version(u16),
    /// A piece of evidence longer than any honest one.
    #[error("{0} is longer than 4 KiB")]
    TooLong(&'static str),
    /// The endorsement key is not the one that the factory recorded.
    #[error("this TPM is not the one that the factory recorded for box {0}")]
    AnotherTpm(BoxId),
    /// The attestation key is not the one that the factory recorded.
    #[error("the attestation key is not the one that the factory recorded for box {0}")]
    AnotherIak(BoxId),
    /// The factory's record contradicts itself.
    #[error("the factory's record is unusable: {0}")]
    Record(&'static str),
    /// The endorsement key certificate is unusable.
    #[error("unusable endorsement key certificate")]
    EkCertificate(#[source] MakerError),
    /// The endorsement key cannot be encrypted to.
    #[error("unusable endorsement key")]
    EkKey(#[source] CredentialError),
    /// There is no randomness.
    #[error("the system has no randomness")]
    Randomness,
    /// The answer belongs to another challenge or box.
    #[error("the evidence answers another challenge")]
    AnotherChallenge,
    /// The answer came too late.
    #[error("the challenge has expired: ask for another")]
    Expired,
    /// The credential was not activated: attestation key and endorsement key share no TPM.
    #[error("the credential was not activated by this box's TPM")]
    Activation,
    /// A key's public part is not that of one of our keys.
    #[error("unusable public part of the {key}")]
    Key {
        /// Which key.
        key: &'static str,
        /// What is wrong with it.
        source: Malformed,
    },
    /// The new key is of the wrong kind.
    #[error("the new key is an attestation key, not a device key")]
    KeyUse,
    /// The new key is not certified by the attestation key.
    #[error("the new key is not certified by the attestation key")]
    Certify(#[source] AttestError),
    /// The quote is not believed.
    #[error("the quote is not believed")]
    Quote(#[source] AttestError),
    /// The box is in a state that we do not accept.
    #[error("PCR {pcr} is {found}, which no accepted state has")]
    Pcr {
        /// The first PCR that differs.
        pcr: u8,
        /// Its value.
        found: Digest32,
    },
    /// The certificate request is unusable.
    #[error("unusable certificate request")]
    Csr(#[source] CsrError),
    /// The certificate request is for another key than was certified.
    #[error("the certificate request is for another key than the TPM certified")]
    CsrKey,
}

impl Refusal {
    /// A stable name for programs, in the form of a problem type's last part.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Version(_) => "unknown-version",
            Self::TooLong(_) => "evidence-too-long",
            Self::AnotherTpm(_) => "another-tpm",
            Self::AnotherIak(_) => "another-attestation-key",
            Self::Record(_) => "bad-record",
            Self::EkCertificate(_) | Self::EkKey(_) => "bad-endorsement-key",
            Self::Randomness => "no-randomness",
            Self::AnotherChallenge => "another-challenge",
            Self::Expired => "challenge-expired",
            Self::Activation => "not-activated",
            Self::Key { .. } | Self::KeyUse => "bad-key",
            Self::Certify(_) => "not-certified",
            Self::Quote(_) => "bad-quote",
            Self::Pcr { .. } => "state-not-accepted",
            Self::Csr(_) => "bad-csr",
            Self::CsrKey => "csr-for-another-key",
        }
    }
}

/// Challenges the box of `record` to prove itself until `expires`: what to send, and what to
/// remember.
pub fn challenge(
    request: &ChallengeRequest,
    record: &InventoryRecord,
    policy: &Policy,
    expires: UnixMillis,
) -> Result<(Challenge, Pending), Refusal> {
    if request.v != VERSION {
        return Err(Refusal::Version(request.v));
    }
    let ek = makers::endorsement_key(&request.ek_certificate.0).map_err(Refusal::EkCertificate)?;
    if ek.sha256() != record.ek_sha256 || ek.box_id() != record.box_id {
        return Err(Refusal::AnotherTpm(record.box_id.clone()));
    }
    if request.iak_public != record.iak_public {
        return Err(Refusal::AnotherIak(record.box_id.clone()));
    }
    let iak = recorded_iak(record)?;

    let mut random = [0; 80];
    rand::fill(&mut random).map_err(|_| Refusal::Randomness)?;
    let mut secret = [0; 32];
    secret.copy_from_slice(&random[..32]);
    let pending = Pending {
        id: hex::encode(&random[64..]),
        box_id: record.box_id.clone(),
        nonce: Blob(random[32..64].to_vec()),
        secret: Blob(secret.to_vec()),
        expires,
    };
    let Credential {
        blob,
        encrypted_secret,
    } = ek
        .make_credential(iak.name(), &secret)
        .map_err(Refusal::EkKey)?;
    let challenge = Challenge {
        id: pending.id.clone(),
        nonce: pending.nonce.clone(),
        credential_blob: Blob(blob),
        encrypted_secret: Blob(encrypted_secret),
        pcrs: policy.pcrs(),
        expires,
    };
    Ok((challenge, pending))
}

/// Verifies a box's answer to a challenge: that the TPM of `record` holds both the attestation
/// key and the new key, in which state it is now, and that the request is for that key. A state that
/// `policy` does not accept is no error here: [`Verified::differs`] names it.
pub fn verify_enrolment(
    evidence: &Evidence,
    record: &InventoryRecord,
    policy: &Policy,
    pending: &Pending,
    now: UnixMillis,
) -> Result<Verified, Refusal> {
    if evidence.v != VERSION {
        return Err(Refusal::Version(evidence.v));
    }
    check_sizes(evidence)?;
    if evidence.challenge != pending.id || pending.box_id != record.box_id {
        return Err(Refusal::AnotherChallenge);
    }
    if now >= pending.expires {
        return Err(Refusal::Expired);
    }
    verify_slices_are_equal(&evidence.activated.0, &pending.secret.0)
        .map_err(|_| Refusal::Activation)?;

    let iak = recorded_iak(record)?;
    let key = SigningPublic::parse(&evidence.ldevid_public.0).map_err(|source| Refusal::Key {
        key: "new key",
        source,
    })?;
    if key.usage() != Use::Device {
        return Err(Refusal::KeyUse);
    }
    attest::verify_certify(
        &iak,
        &evidence.certify_attest.0,
        &evidence.certify_signature.0,
        &pending.nonce.0,
        key.name(),
    )
    .map_err(Refusal::Certify)?;
    let tpm = attest::verify_quote(
        &iak,
        &evidence.quote_attest.0,
        &evidence.quote_signature.0,
        &pending.nonce.0,
        &evidence.pcr_values,
    )
    .map_err(Refusal::Quote)?;
    let differs = policy.differences(&evidence.pcr_values);
    let differs = differs.ok_or(Refusal::Quote(AttestError::Selection))?;

    let ldevid_spki = csr::public_key(&evidence.csr.0).map_err(Refusal::Csr)?;
    if ldevid_spki != key.spki() {
        return Err(Refusal::CsrKey);
    }
    Ok(Verified {
        box_id: record.box_id.clone(),
        ldevid_spki,
        tpm,
        pcrs: evidence.pcr_values.clone(),
        differs,
    })
}

pub(crate) fn recorded_iak(record: &InventoryRecord) -> Result<SigningPublic, Refusal> {
    if BoxId::from_ek_sha256(&record.ek_sha256.0) != record.box_id {
        return Err(Refusal::Record(
            "its box is not that of its endorsement key",
        ));
    }
    if record.expected_pcrs.is_empty() {
        return Err(Refusal::Record("it expects no PCRs"));
    }
    let iak = SigningPublic::parse(&record.iak_public.0).map_err(|source| Refusal::Key {
        key: "recorded attestation key",
        source,
    })?;
    if iak.usage() != Use::Attestation {
        return Err(Refusal::Record("its attestation key is none"));
    }
    if iak.name()[..] != record.iak_name.0 {
        return Err(Refusal::Record("its attestation key has another name"));
    }
    Ok(iak)
}

fn check_sizes(evidence: &Evidence) -> Result<(), Refusal> {
    let pieces = [
        ("the activated secret", &evidence.activated),
        ("the new key", &evidence.ldevid_public),
        ("the certification", &evidence.certify_attest),
        ("the certification's signature", &evidence.certify_signature),
        ("the quote", &evidence.quote_attest),
        ("the quote's signature", &evidence.quote_signature),
        ("the certificate request", &evidence.csr),
    ];
    match pieces.iter().find(|(_, piece)| piece.0.len() > MAX_PIECE) {
        Some((name, _)) => Err(Refusal::TooLong(name)),
        None => Ok(()),
    }
}
