//! What a box's TPM does for its enrolment, in software: the cloud cannot tell it from a chip, and
//! verifies every step. It protects nothing.

use std::collections::BTreeMap;

use aws_lc_rs::agreement::{self, ECDH_P256};
use aws_lc_rs::cipher::{AES_128, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use longhaul_protocol::enrol::{Challenge, ChallengeRequest, Evidence};
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::inventory::InventoryRecord;
use longhaul_protocol::value::{Blob, Digest32, UnixMillis};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, PublicKeyData as _};

use super::members::{IdentityError, failed};

/// Attributes of a key that signs what it is given, and of one that signs only what the TPM says.
const DEVICE_KEY: u32 = 0x0004_0072;
const ATTESTATION_KEY: u32 = 0x0005_0072;
/// `TPM_GENERATED_VALUE`, and the kinds of what it stands before.
const GENERATED: u32 = 0xff54_4347;
const CERTIFY: u16 = 0x8017;
const QUOTE: u16 = 0x8018;
/// The one PCR that is quoted; nothing was measured into it.
const PCR: u8 = 7;
/// Purpose of endorsement key certificates, tcg-kp-EKCertificate.
const EK_PURPOSE: [u64; 5] = [2, 23, 133, 8, 1];

/// Endorsement key, attestation key and initial identity of one simulated box.
#[derive(Debug)]
pub struct SoftTpm {
    ek: KeyPair,
    ek_certificate: Vec<u8>,
    iak: KeyPair,
    iak_public: Vec<u8>,
    /// The key of its initial identity.
    pub idevid: KeyPair,
}

impl SoftTpm {
    /// A new one.
    ///
    /// # Errors
    ///
    /// [`IdentityError`].
    pub fn new() -> Result<Self, IdentityError> {
        let (ek, iak) = (key()?, key()?);
        let mut of_ek = CertificateParams::new(Vec::new()).map_err(failed)?;
        of_ek.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(EK_PURPOSE.to_vec())];
        let ek_certificate = of_ek.self_signed(&ek).map_err(failed)?.der().to_vec();
        Ok(Self {
            ek,
            ek_certificate,
            iak_public: public(ATTESTATION_KEY, &iak),
            iak,
            idevid: key()?,
        })
    }

    /// SHA-256 of the endorsement key.
    pub fn ek_sha256(&self) -> Digest32 {
        Digest32(sha256(&[&self.ek.subject_public_key_info()]))
    }

    /// The attestation key's name.
    pub fn iak_name(&self) -> Vec<u8> {
        name(&self.iak_public)
    }

    /// The box that it is in.
    pub fn box_id(&self) -> BoxId {
        BoxId::from_ek_sha256(&self.ek_sha256().0)
    }

    /// What the factory writes down of it.
    pub fn record(&self, idevid: &[u8], made_at: UnixMillis) -> InventoryRecord {
        InventoryRecord {
            v: VERSION,
            box_id: self.box_id(),
            ek_sha256: self.ek_sha256(),
            ek_certificate: Blob(self.ek_certificate.clone()),
            iak_name: Blob(self.iak_name()),
            iak_public: Blob(self.iak_public.clone()),
            idevid_certificate: Blob(idevid.to_vec()),
            expected_pcrs: pcrs(),
            claim_code_sha256: Digest32([0; 32]),
            hardware: "simulated".to_owned(),
            order: None,
            made_at,
        }
    }

    /// Asks to be challenged.
    pub fn request(&self) -> ChallengeRequest {
        ChallengeRequest {
            v: VERSION,
            ek_certificate: Blob(self.ek_certificate.clone()),
            iak_public: Blob(self.iak_public.clone()),
        }
    }

    /// Answers a challenge with a new key: the key, and the evidence that it is here.
    ///
    /// # Errors
    ///
    /// [`IdentityError`]; one is that the challenge is for another TPM.
    pub fn answer(&self, challenge: &Challenge) -> Result<(KeyPair, Evidence), IdentityError> {
        let new = key()?;
        let new_public = public(DEVICE_KEY, &new);
        let nonce = &challenge.nonce.0;
        let mut certified = sized(&name(&new_public));
        certified.extend(sized(&name(&new_public)));
        let certify_attest = attest(CERTIFY, nonce, &certified);
        let mut quoted = 1_u32.to_be_bytes().to_vec();
        quoted.extend([0x00, 0x0b, 3, 1 << PCR, 0, 0]);
        quoted.extend(sized(&sha256(&[&[0; 32]])));
        let quote_attest = attest(QUOTE, nonce, &quoted);
        let request = CertificateParams::new(Vec::new()).map_err(failed)?;
        let request = request.serialize_request(&new).map_err(failed)?;
        let evidence = Evidence {
            v: VERSION,
            challenge: challenge.id.clone(),
            activated: Blob(self.activate(challenge)?),
            ldevid_public: Blob(new_public),
            certify_signature: Blob(self.sign(&certify_attest)?),
            certify_attest: Blob(certify_attest),
            quote_signature: Blob(self.sign(&quote_attest)?),
            quote_attest: Blob(quote_attest),
            pcr_values: pcrs(),
            csr: Blob(request.der().to_vec()),
        };
        Ok((new, evidence))
    }

    /// `TPM2_ActivateCredential`: the secret, if it was meant for these two keys.
    fn activate(&self, challenge: &Challenge) -> Result<Vec<u8>, IdentityError> {
        let malformed = || failed("the challenge is malformed");
        let mut point = challenge.encrypted_secret.0.as_slice();
        let (x, y) = (
            take_sized(&mut point).ok_or_else(malformed)?,
            take_sized(&mut point).ok_or_else(malformed)?,
        );
        let peer = [&[4], x, y].concat();
        let own = agreement::PrivateKey::from_private_key_der(&ECDH_P256, self.ek.serialized_der());
        let own = own.map_err(failed)?;
        let own_point = self.ek.der_bytes();
        let own_x = own_point.get(1..33).ok_or_else(malformed)?;
        let peer = agreement::UnparsedPublicKey::new(&ECDH_P256, peer);
        let seed = agreement::agree(&own, peer, failed("no agreement"), |z| {
            Ok(sha256(&[&1_u32.to_be_bytes(), z, b"IDENTITY\0", x, own_x]))
        })?;
        let mut blob = challenge.credential_blob.0.as_slice();
        let mac = take_sized(&mut blob).ok_or_else(malformed)?;
        let iak = self.iak_name();
        let integrity = derive(&seed, "INTEGRITY", &[], 256);
        let integrity = hmac::Key::new(hmac::HMAC_SHA256, &integrity);
        hmac::verify(&integrity, &[blob, &iak].concat(), mac)
            .map_err(|_| failed("the challenge is for another TPM"))?;
        let storage = derive(&seed, "STORAGE", &iak, 128);
        let storage = UnboundCipherKey::new(&AES_128, &storage[..16]).map_err(failed)?;
        let mut secret = blob.to_vec();
        let zeros = DecryptionContext::Iv128(FixedLength::from([0; 16]));
        let plain = DecryptingKey::cfb128(storage)
            .and_then(|key| key.decrypt(&mut secret, zeros))
            .map_err(failed)?;
        let mut plain: &[u8] = plain;
        Ok(take_sized(&mut plain).ok_or_else(malformed)?.to_vec())
    }

    /// `TPMT_SIGNATURE` of the attestation key.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, IdentityError> {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::from_pkcs8(algorithm, self.iak.serialized_der());
        let signature = key
            .map_err(failed)?
            .sign(&SystemRandom::new(), message)
            .map_err(failed)?;
        let (r, s) = signature.as_ref().split_at(32);
        let mut out = vec![0x00, 0x18, 0x00, 0x0b];
        out.extend(sized(r));
        out.extend(sized(s));
        Ok(out)
    }
}

fn key() -> Result<KeyPair, IdentityError> {
    KeyPair::generate().map_err(failed)
}

fn pcrs() -> BTreeMap<u8, Digest32> {
    [(PCR, Digest32([0; 32]))].into()
}

/// `TPMT_PUBLIC` of an ECDSA P-256 key.
fn public(attributes: u32, key: &KeyPair) -> Vec<u8> {
    let mut out = vec![0x00, 0x23, 0x00, 0x0b];
    out.extend(attributes.to_be_bytes());
    out.extend([
        0, 0, 0x00, 0x10, 0x00, 0x18, 0x00, 0x0b, 0x00, 0x03, 0x00, 0x10,
    ]);
    let (x, y) = key.der_bytes()[1..].split_at(32);
    out.extend(sized(x));
    out.extend(sized(y));
    out
}

/// A key's name: how it was hashed, and the hash.
fn name(public: &[u8]) -> Vec<u8> {
    let mut out = vec![0x00, 0x0b];
    out.extend(sha256(&[public]));
    out
}

/// `TPMS_ATTEST`; it is of a TPM that was never reset.
fn attest(kind: u16, nonce: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = GENERATED.to_be_bytes().to_vec();
    out.extend(kind.to_be_bytes());
    out.extend(sized(&[]));
    out.extend(sized(nonce));
    // Clock, resets, restarts; the clock is safe; firmware.
    out.extend([0; 16]);
    out.push(1);
    out.extend([0; 8]);
    out.extend_from_slice(body);
    out
}

/// `KDFa` (Part 1, section 11.4.10.2) for up to 32 bytes.
fn derive(seed: &[u8], label: &str, context: &[u8], bits: u32) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, seed);
    let parts: [&[u8]; 5] = [
        &1_u32.to_be_bytes(),
        label.as_bytes(),
        &[0],
        context,
        &bits.to_be_bytes(),
    ];
    let mut out = [0; 32];
    out.copy_from_slice(hmac::sign(&key, &parts.concat()).as_ref());
    out
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&SHA256, &parts.concat()).as_ref());
    out
}

/// A `TPM2B`; nothing here is longer than a nonce.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let mut out = length.to_be_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}

/// The bytes of a `TPM2B` at the beginning of `from`, which then begins behind it.
fn take_sized<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = from.split_first_chunk::<2>()?;
    let (taken, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    *from = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use longhaul_provisioning::evidence::{Policy, challenge, verify_enrolment};

    use super::*;

    #[test]
    fn the_cloud_believes_it_and_no_other_can_answer_for_it() {
        let now = UnixMillis(1_800_000_000_000);
        let (tpm, other) = (SoftTpm::new().expect("keys"), SoftTpm::new().expect("keys"));
        let record = tpm.record(b"idevid", now);
        let policy = Policy::of(&record);
        let (asked, pending) =
            challenge(&tpm.request(), &record, &policy, now.plus_secs(60)).expect("challenged");

        let (key, evidence) = tpm.answer(&asked).expect("answers");
        let verified = verify_enrolment(&evidence, &record, &policy, &pending, now);

        let verified = verified.expect("believed");
        assert_eq!(verified.box_id, tpm.box_id());
        assert_eq!(verified.ldevid_spki, key.subject_public_key_info());
        assert!(other.answer(&asked).is_err());
    }
}
