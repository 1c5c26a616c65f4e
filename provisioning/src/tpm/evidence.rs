//! What the TPM says about itself: activation, certification, quotes.

use tss_esapi::Context;
use tss_esapi::abstraction::{AsymmetricAlgorithmSelection, ek};
use tss_esapi::constants::SessionType;
use tss_esapi::handles::{AuthHandle, KeyHandle, ObjectHandle, PcrHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{
    Data, Digest, DigestValues, EncryptedSecret, IdObject, Nonce, PcrSelectionList,
    PcrSelectionListBuilder, PcrSlot, SignatureScheme,
};
use tss_esapi::traits::Marshall;

use super::keys::{self, Key};
use super::{Asked, TpmError, flush, nv_read, session};

/// PCRs that a TPM returns in one answer.
const PCRS_PER_READ: usize = 8;

/// A structure that the attestation key signed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attested {
    /// `TPMS_ATTEST`.
    pub attest: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub signature: Vec<u8>,
}

/// A kind of endorsement key (TCG EK Credential Profile 2.5, section 2.2.1.4).
#[derive(Clone, Copy)]
pub(super) enum EkKind {
    /// Template L-1: its use needs a policy session.
    Rsa2048,
    /// Template H-3: its use needs the empty password.
    EccP384,
}

impl EkKind {
    const ALL: [Self; 2] = [Self::EccP384, Self::Rsa2048];

    const fn certificate_index(self) -> u32 {
        match self {
            Self::Rsa2048 => 0x01c0_0002,
            Self::EccP384 => 0x01c0_0016,
        }
    }

    /// Where makers may leave the key itself (TCG EK Credential Profile 2.5, section 2.2.1.5).
    const fn handle(self) -> u32 {
        match self {
            Self::Rsa2048 => 0x8101_0001,
            Self::EccP384 => 0x8101_0016,
        }
    }

    const fn algorithm(self) -> AsymmetricAlgorithmSelection {
        match self {
            Self::Rsa2048 => AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048),
            Self::EccP384 => AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP384),
        }
    }
}

/// The first endorsement key that has a certificate, and that.
pub(super) fn ek(context: &mut Context) -> Result<(Vec<u8>, EkKind), TpmError> {
    for kind in EkKind::ALL {
        if let Some(certificate) = nv_read(context, kind.certificate_index())? {
            return Ok((without_padding(certificate), kind));
        }
    }
    Err(TpmError::NoEkCertificate)
}

/// Some makers fill the index behind the certificate; DER says where that ends.
fn without_padding(mut certificate: Vec<u8>) -> Vec<u8> {
    if let [0x30, 0x82, high, low, ..] = certificate.as_slice() {
        let len = 4 + usize::from(u16::from_be_bytes([*high, *low]));
        certificate.truncate(len);
    }
    certificate
}

pub(super) fn activate(
    context: &mut Context,
    blob: Vec<u8>,
    secret: Vec<u8>,
) -> Result<Vec<u8>, TpmError> {
    let what = "activate a credential";
    let blob = IdObject::try_from(blob).map_err(|_| TpmError::TooLong("credential blob"))?;
    let secret =
        EncryptedSecret::try_from(secret).map_err(|_| TpmError::TooLong("encrypted secret"))?;
    let iak = keys::find(context, Key::Iak)?;
    let (_, kind) = ek(context)?;
    let kept = keys::load(context, kind.handle())?;
    let ek = match kept {
        Some(ek) => ek,
        None => ek::create_ek_object_2(context, kind.algorithm(), None).asked("make its EK")?,
    };
    let activated = session::salted(context, SessionType::Hmac, what, |context, session| {
        match kind {
            EkKind::EccP384 => {
                let password = AuthSession::Password;
                activate_with(context, (iak, session), (ek, password), blob, secret)
            }
            EkKind::Rsa2048 => ek_policy(context).and_then(|policy| {
                let activated = activate_with(context, (iak, session), (ek, policy), blob, secret);
                session::end(context, policy);
                activated
            }),
        }
        .asked(what)
    });
    if kept.is_none() {
        flush(context, ek)?;
    }
    activated
}

/// The session of the attestation key encrypts the secret that comes back.
fn activate_with(
    context: &mut Context,
    (iak, iak_session): (KeyHandle, AuthSession),
    (ek, ek_session): (KeyHandle, AuthSession),
    blob: IdObject,
    secret: EncryptedSecret,
) -> tss_esapi::Result<Vec<u8>> {
    let sessions = (Some(iak_session), Some(ek_session), None);
    let secret = context
        .execute_with_sessions(sessions, |c| c.activate_credential(iak, ek, blob, secret))?;
    Ok(secret.value().to_vec())
}

/// A session that satisfies the policy of the RSA endorsement key: `TPM2_PolicySecret` of the
/// endorsement hierarchy.
fn ek_policy(context: &mut Context) -> tss_esapi::Result<AuthSession> {
    let session = session::start(context, None, SessionType::Policy)?;
    let policy = PolicySession::try_from(session)?;
    context.execute_with_session(Some(AuthSession::Password), |c| {
        c.policy_secret(
            policy,
            AuthHandle::Endorsement,
            Nonce::default(),
            Digest::default(),
            Nonce::default(),
            None,
        )
    })?;
    Ok(session)
}

pub(super) fn certify(
    context: &mut Context,
    key: Key,
    nonce: Vec<u8>,
) -> Result<Attested, TpmError> {
    let what = "certify a key";
    let nonce = Data::try_from(nonce).map_err(|_| TpmError::TooLong("nonce"))?;
    let (key, iak) = (keys::find(context, key)?, keys::find(context, Key::Iak)?);
    let password = Some(AuthSession::Password);
    let (attest, signature) = context
        .execute_with_sessions((password, password, None), |c| {
            c.certify(key.into(), iak, nonce, SignatureScheme::Null)
        })
        .asked(what)?;
    Ok(Attested {
        attest: attest.marshall().asked(what)?,
        signature: signature.marshall().asked(what)?,
    })
}

pub(super) fn quote(
    context: &mut Context,
    nonce: Vec<u8>,
    pcrs: &[u8],
) -> Result<Attested, TpmError> {
    let what = "quote its PCRs";
    let nonce = Data::try_from(nonce).map_err(|_| TpmError::TooLong("nonce"))?;
    let selection = selection(pcrs)?;
    let iak = keys::find(context, Key::Iak)?;
    let (attest, signature) = context
        .execute_with_session(Some(AuthSession::Password), |c| {
            c.quote(iak, nonce, SignatureScheme::Null, selection)
        })
        .asked(what)?;
    Ok(Attested {
        attest: attest.marshall().asked(what)?,
        signature: signature.marshall().asked(what)?,
    })
}

pub(super) fn pcrs(context: &mut Context, pcrs: &[u8]) -> Result<Vec<[u8; 32]>, TpmError> {
    let what = "read its PCRs";
    let mut values = Vec::with_capacity(pcrs.len());
    // The TPM answers in rising order whatever the order asked for, so each chunk is sorted.
    let mut sorted = pcrs.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut by_number = std::collections::BTreeMap::new();
    for chunk in sorted.chunks(PCRS_PER_READ) {
        let selection = selection(chunk)?;
        let (_, _, digests) = context
            .execute_without_session(|c| c.pcr_read(selection))
            .asked(what)?;
        if digests.value().len() != chunk.len() {
            return Err(TpmError::Nonsense(what));
        }
        for (number, digest) in chunk.iter().zip(digests.value()) {
            let digest = digest.value().try_into();
            by_number.insert(*number, digest.map_err(|_| TpmError::Nonsense(what))?);
        }
    }
    for number in pcrs {
        values.push(
            by_number
                .get(number)
                .copied()
                .ok_or(TpmError::Nonsense(what))?,
        );
    }
    Ok(values)
}

pub(super) fn extend(context: &mut Context, pcr: u8, digest: &[u8; 32]) -> Result<(), TpmError> {
    let what = "extend a PCR";
    selection(&[pcr])?;
    let handle = PcrHandle::try_from(ObjectHandle::from(u32::from(pcr))).asked(what)?;
    let mut values = DigestValues::new();
    let digest = Digest::try_from(digest.as_slice()).asked(what)?;
    values.set(HashingAlgorithm::Sha256, digest);
    context
        .execute_with_session(Some(AuthSession::Password), |c| {
            c.pcr_extend(handle, values)
        })
        .asked(what)
}

pub(super) fn selection(pcrs: &[u8]) -> Result<PcrSelectionList, TpmError> {
    let slots: Result<Vec<_>, _> = pcrs
        .iter()
        .map(|number| {
            1_u32
                .checked_shl(u32::from(*number))
                .and_then(|bit| PcrSlot::try_from(bit).ok())
                .ok_or(TpmError::NoPcr(*number))
        })
        .collect();
    PcrSelectionListBuilder::new()
        .with_selection(HashingAlgorithm::Sha256, &slots?)
        .build()
        .asked("select PCRs")
}
