//! The box's keys: where they lie, what they may do.

use tss_esapi::Context;
use tss_esapi::attributes::{ObjectAttributes, ObjectAttributesBuilder};
use tss_esapi::constants::CapabilityType;
use tss_esapi::handles::{KeyHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::dynamic_handles::Persistent;
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::resource_handles::{Hierarchy, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    CapabilityData, Digest, EccPoint, EccScheme, HashScheme, HashcheckTicket,
    KeyDerivationFunctionScheme, Public, PublicBuilder, PublicEccParametersBuilder, Signature,
    SignatureScheme, SymmetricDefinitionObject,
};
use tss_esapi::traits::Marshall;

use super::{Asked, TpmError, flush};

/// The storage root key's usual place (TCG provisioning guidance).
const SRK: u32 = 0x8100_0001;

/// A signing key of the box.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Key {
    /// The initial attestation key: restricted, signs only what the TPM itself says.
    Iak,
    /// The factory's identity.
    Idevid,
    /// The cloud's identity, in one of two places: a renewal makes the other one.
    Ldevid {
        /// The second place.
        second: bool,
    },
}

impl Key {
    /// The persistent handle at which it lies.
    const fn handle(self) -> u32 {
        match self {
            Self::Idevid => 0x8102_0000,
            Self::Iak => 0x8102_0001,
            Self::Ldevid { second: false } => 0x8102_0002,
            Self::Ldevid { second: true } => 0x8102_0003,
        }
    }
}

/// The handle of a key that must be there.
pub(super) fn find(context: &mut Context, key: Key) -> Result<KeyHandle, TpmError> {
    load(context, key.handle())?.ok_or(TpmError::NoKey(key))
}

/// Makes a key in its place, which is emptied first.
pub(super) fn create(context: &mut Context, key: Key) -> Result<KeyHandle, TpmError> {
    if let Some(old) = load(context, key.handle())? {
        let place = persistent(key.handle())?;
        context
            .execute_with_nullauth_session(|c| {
                c.evict_control(Provision::Owner, old.into(), Persistent::Persistent(place))
            })
            .asked("remove a persistent key")?;
    }
    let fresh = match key {
        // A key of the endorsement hierarchy: it survives TPM2_Clear, and quotes under it show
        // the true reset counts.
        Key::Iak => {
            let template = signing_template(true)?;
            context
                .execute_with_nullauth_session(|c| {
                    c.create_primary(Hierarchy::Endorsement, template, None, None, None, None)
                })
                .asked("make the attestation key")?
                .key_handle
        }
        Key::Idevid | Key::Ldevid { .. } => {
            let parent = srk(context)?;
            let template = signing_template(false)?;
            context
                .execute_with_nullauth_session(|c| {
                    let made = c.create(parent, template, None, None, None, None)?;
                    c.load(parent, made.out_private, made.out_public)
                })
                .asked("make a device key")?
        }
    };
    persist(context, fresh, key.handle())
}

/// The storage root key, made where it is missing.
pub(super) fn srk(context: &mut Context) -> Result<KeyHandle, TpmError> {
    if let Some(handle) = load(context, SRK)? {
        return Ok(handle);
    }
    let attributes = attributes(|b| b.with_no_da(true).with_decrypt(true).with_restricted(true))?;
    let parameters = PublicEccParametersBuilder::new_restricted_decryption_key(
        SymmetricDefinitionObject::AES_128_CFB,
        EccCurve::NistP256,
    );
    let template = ecc_template(attributes, parameters)?;
    let made = context
        .execute_with_nullauth_session(|c| {
            c.create_primary(Hierarchy::Owner, template, None, None, None, None)
        })
        .asked("make the storage root key")?;
    persist(context, made.key_handle, SRK)
}

/// The `TPMT_PUBLIC` of a key.
pub(super) fn public(context: &mut Context, key: KeyHandle) -> Result<Vec<u8>, TpmError> {
    let (public, ..) = context
        .execute_without_session(|c| c.read_public(key))
        .asked("read a public key")?;
    public.marshall().asked("marshal a public key")
}

/// An ECDSA signature of a SHA-256 digest: `r` and `s`, 32 bytes each.
pub(super) fn sign(
    context: &mut Context,
    key: Key,
    digest: &[u8; 32],
) -> Result<([u8; 32], [u8; 32]), TpmError> {
    let what = "sign";
    let handle = find(context, key)?;
    let digest = Digest::try_from(digest.as_slice()).asked(what)?;
    // An unrestricted key signs any digest; the ticket says that nothing vouches for this one.
    let ticket = HashcheckTicket::try_from(tss_esapi::tss2_esys::TPMT_TK_HASHCHECK {
        tag: tss_esapi::constants::tss::TPM2_ST_HASHCHECK,
        hierarchy: tss_esapi::constants::tss::TPM2_RH_NULL,
        digest: tss_esapi::tss2_esys::TPM2B_DIGEST::default(),
    })
    .asked(what)?;
    let signature = context
        .execute_with_session(Some(AuthSession::Password), |c| {
            c.sign(handle, digest, SignatureScheme::Null, ticket)
        })
        .asked(what)?;
    let Signature::EcDsa(signature) = signature else {
        return Err(TpmError::Nonsense(what));
    };
    let r = padded(signature.signature_r().value()).ok_or(TpmError::Nonsense(what))?;
    let s = padded(signature.signature_s().value()).ok_or(TpmError::Nonsense(what))?;
    Ok((r, s))
}

/// A TPM leaves out leading zeros.
fn padded(scalar: &[u8]) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    let start = out.len().checked_sub(scalar.len())?;
    out[start..].copy_from_slice(scalar);
    Some(out)
}

fn persistent(handle: u32) -> Result<PersistentTpmHandle, TpmError> {
    PersistentTpmHandle::new(handle).asked("name a persistent handle")
}

/// The key at a persistent handle, where there is one. Asked beforehand, because the C library
/// logs an error for a handle that is not there.
pub(super) fn load(context: &mut Context, handle: u32) -> Result<Option<KeyHandle>, TpmError> {
    let what = "look at its persistent handles";
    let (data, _) = context
        .execute_without_session(|c| c.get_capability(CapabilityType::Handles, handle, 1))
        .asked(what)?;
    let CapabilityData::Handles(handles) = data else {
        return Err(TpmError::Nonsense(what));
    };
    let wanted = TpmHandle::Persistent(persistent(handle)?);
    if handles.first() != Some(&wanted) {
        return Ok(None);
    }
    context
        .execute_without_session(|c| c.tr_from_tpm_public(wanted))
        .asked("open a persistent key")
        .map(|object| Some(object.into()))
}

fn persist(context: &mut Context, key: KeyHandle, handle: u32) -> Result<KeyHandle, TpmError> {
    let place = persistent(handle)?;
    let kept = context
        .execute_with_nullauth_session(|c| {
            c.evict_control(Provision::Owner, key.into(), Persistent::Persistent(place))
        })
        .asked("keep a key");
    flush(context, key)?;
    Ok(kept?.into())
}

fn attributes(
    change: impl FnOnce(ObjectAttributesBuilder) -> ObjectAttributesBuilder,
) -> Result<ObjectAttributes, TpmError> {
    let builder = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true);
    change(builder).build().asked("describe a key")
}

fn ecc_template(
    attributes: ObjectAttributes,
    parameters: PublicEccParametersBuilder,
) -> Result<Public, TpmError> {
    let what = "describe a key";
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters.build().asked(what)?)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
        .asked(what)
}

/// ECDSA P-256 with SHA-256. Built by hand: the library's own template for signing keys cannot
/// be restricted.
fn signing_template(restricted: bool) -> Result<Public, TpmError> {
    // Their password is empty, so there is nothing to guess; without this, the TPM counts power cuts
    // as wrong guesses (Part 1, section 19.8.6) and after a few of them signs nothing for a while.
    let attributes = attributes(|b| {
        b.with_sign_encrypt(true)
            .with_restricted(restricted)
            .with_no_da(true)
    })?;
    let parameters = PublicEccParametersBuilder::new()
        .with_ecc_scheme(EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256)))
        .with_curve(EccCurve::NistP256)
        .with_is_signing_key(true)
        .with_is_decryption_key(false)
        .with_restricted(restricted)
        .with_symmetric(SymmetricDefinitionObject::Null)
        .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null);
    ecc_template(attributes, parameters)
}
