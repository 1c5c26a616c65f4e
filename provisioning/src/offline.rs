//! Enrolment without a line between box and cloud: what a box's evidence proves that nobody asked for,
//! and an answer that only this box's TPM opens. Pure: no TPM, no clock, no IO.
//!
//! The request is certified and quoted by the attestation key over a hash of what the box states, so
//! that key, LAN key and PCRs are this TPM's. That attestation key and endorsement key share that TPM
//! is proven by the answer: its key comes out of `TPM2_ActivateCredential` and nowhere else.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{Context, SHA256, digest};
use aws_lc_rs::rand;
use longhaul_protocol::inventory::InventoryRecord;
use longhaul_protocol::offline::Request;
use longhaul_protocol::value::{Blob, Digest32};
use zeroize::Zeroizing;

use crate::evidence::{Policy, Refusal, Verified, recorded_iak};
use crate::tcg::attest::{self, AttestError};
use crate::tcg::credential::EndorsementKey;
use crate::tcg::public::{SigningPublic, Use};

/// What stands before a statement when it is hashed: no other hash of ours is one.
const STATEMENT: &[u8] = b"longhaul offline enrolment\0";

/// What goes into certification and quote as qualifying data.
pub fn nonce(request: &Request) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    hash.update(STATEMENT);
    hash.update(&request.statement());
    bytes(hash.finish().as_ref())
}

/// Names a request.
pub fn name(request: &Request) -> Digest32 {
    sha256(&request.encode())
}

/// SHA-256, as files of offline enrolment use it.
pub fn sha256(data: &[u8]) -> Digest32 {
    Digest32(bytes(digest(&SHA256, data).as_ref()))
}

fn bytes(digest: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest);
    out
}

/// Verifies a request: that the attestation key of `record` certified the new key and quoted the state
/// of its machine, both over this very statement. When that was, it does not prove; see
/// [`Verified::tpm`]. A state that `policy` does not accept is no error here: [`Verified::differs`] names
/// it.
///
/// # Errors
///
/// [`Refusal`] says what does not hold.
pub fn verify(
    request: &Request,
    record: &InventoryRecord,
    policy: &Policy,
) -> Result<Verified, Refusal> {
    if request.box_id != record.box_id {
        return Err(Refusal::AnotherTpm(record.box_id.clone()));
    }
    endorsement_key(request, record)?;
    let iak = recorded_iak(record)?;
    let key = SigningPublic::parse(&request.ldevid_public.0).map_err(|source| Refusal::Key {
        key: "new key",
        source,
    })?;
    if key.usage() != Use::Device {
        return Err(Refusal::KeyUse);
    }
    let nonce = nonce(request);
    attest::verify_certify(
        &iak,
        &request.certify_attest.0,
        &request.certify_signature.0,
        &nonce,
        key.name(),
    )
    .map_err(Refusal::Certify)?;
    let tpm = attest::verify_quote(
        &iak,
        &request.quote_attest.0,
        &request.quote_signature.0,
        &nonce,
        &request.pcr_values,
    )
    .map_err(Refusal::Quote)?;
    let differs = policy.differences(&request.pcr_values);
    let differs = differs.ok_or(Refusal::Quote(AttestError::Selection))?;
    Ok(Verified {
        box_id: record.box_id.clone(),
        ldevid_spki: key.spki(),
        tpm,
        pcrs: request.pcr_values.clone(),
        differs,
    })
}

fn endorsement_key(request: &Request, record: &InventoryRecord) -> Result<EndorsementKey, Refusal> {
    let ek = EndorsementKey::from_spki(&request.ek_public.0).map_err(Refusal::EkKey)?;
    if ek.sha256() != record.ek_sha256 || ek.box_id() != record.box_id {
        return Err(Refusal::AnotherTpm(record.box_id.clone()));
    }
    Ok(ek)
}

/// A grant that only one TPM opens.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// `TPMS_ID_OBJECT` contents.
    pub credential_blob: Blob,
    /// `TPM2B_ENCRYPTED_SECRET` contents.
    pub encrypted_secret: Blob,
    /// The grant, under the key that the TPM yields.
    pub sealed: Blob,
}

/// Seals `grant` to the TPM of `record`, as the answer to `request`, which was verified.
///
/// # Errors
///
/// [`Refusal`] if the endorsement key cannot be encrypted to.
pub fn seal(grant: &[u8], request: &Request, record: &InventoryRecord) -> Result<Sealed, Refusal> {
    let ek = endorsement_key(request, record)?;
    let iak = recorded_iak(record)?;
    let mut key = Zeroizing::new([0; 32]);
    rand::fill(key.as_mut_slice()).map_err(|_| Refusal::Randomness)?;
    let made = ek.make_credential(iak.name(), &key);
    let made = made.map_err(Refusal::EkKey)?;
    let mut sealed = grant.to_vec();
    let cipher = cipher(key.as_slice()).ok_or(Refusal::Randomness)?;
    let name = name(request);
    cipher
        .seal_in_place_append_tag(once(), Aad::from(name.0), &mut sealed)
        .map_err(|_| Refusal::Randomness)?;
    Ok(Sealed {
        credential_blob: Blob(made.blob),
        encrypted_secret: Blob(made.encrypted_secret),
        sealed: Blob(sealed),
    })
}

/// Opens a grant with what the TPM yielded; `None` if it is another's, or altered.
pub fn open(sealed: &Blob, key: &[u8], request: Digest32) -> Option<Zeroizing<Vec<u8>>> {
    let mut clear = Zeroizing::new(sealed.0.clone());
    let cipher = cipher(key)?;
    let opened = cipher.open_in_place(once(), Aad::from(request.0), clear.as_mut_slice());
    let length = opened.ok()?.len();
    clear.truncate(length);
    Some(clear)
}

fn cipher(key: &[u8]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key)
        .ok()
        .map(LessSafeKey::new)
}

/// Each key is drawn for one grant and never seals another.
fn once() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}
