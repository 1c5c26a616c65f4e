//! Two places of 32 bytes each in the TPM's own memory: what is forgotten there is gone, which no
//! disk can promise. They are secret only together with what is sealed: any user of the TPM reads
//! them.

use tss_esapi::Context;
use tss_esapi::attributes::NvIndexAttributesBuilder;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::structures::{MaxNvBuffer, NvPublicBuilder};
use zeroize::Zeroizing;

use super::{Asked, TpmError, nv_defined, session};

/// Bytes of a secret.
const LEN: u16 = 32;

/// A place for a secret in the TPM's own memory.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum NvSlot {
    /// The one.
    First,
    /// The other: a new secret is written beside the old one, never over it.
    Second,
}

impl NvSlot {
    /// Both.
    pub const ALL: [Self; 2] = [Self::First, Self::Second];

    /// Its index, in the range for the owner (TCG Registry of Reserved TPM 2.0 Handles).
    const fn index(self) -> u32 {
        match self {
            Self::First => 0x0180_4c48,
            Self::Second => 0x0180_4c49,
        }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// What a slot holds; `None` where it holds nothing.
pub(super) fn read(
    context: &mut Context,
    slot: NvSlot,
) -> Result<Option<Zeroizing<[u8; 32]>>, TpmError> {
    let what = "read a secret from its memory";
    let Some(handle) = find(context, slot)? else {
        return Ok(None);
    };
    let read = session::salted(context, SessionType::Hmac, what, |context, session| {
        context
            .execute_with_session(Some(session), |c| c.nv_read(NvAuth::Owner, handle, LEN, 0))
            .asked(what)
    });
    let bytes = match read {
        Ok(bytes) => bytes,
        // Power failed between its making and its writing: it never held anything.
        Err(error) if is_unwritten(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let secret = bytes
        .value()
        .try_into()
        .map_err(|_| TpmError::Nonsense(what))?;
    Ok(Some(Zeroizing::new(secret)))
}

/// Puts a secret into a slot that holds nothing, and reads it back.
pub(super) fn write(
    context: &mut Context,
    slot: NvSlot,
    secret: &[u8; 32],
) -> Result<(), TpmError> {
    let what = "keep a secret in its memory";
    // What may lie there, half made, is in the way.
    forget(context, slot)?;
    let attributes = NvIndexAttributesBuilder::new()
        .with_owner_write(true)
        .with_owner_read(true)
        .with_no_da(true)
        .build()
        .asked(what)?;
    let public = NvPublicBuilder::new()
        .with_nv_index(index(slot)?)
        .with_index_name_algorithm(HashingAlgorithm::Sha256)
        .with_index_attributes(attributes)
        .with_data_area_size(usize::from(LEN))
        .build()
        .asked(what)?;
    let handle = context
        .execute_with_nullauth_session(|c| c.nv_define_space(Provision::Owner, None, public))
        .asked(what)?;
    let data = MaxNvBuffer::try_from(secret.as_slice()).map_err(|_| TpmError::Nonsense(what))?;
    session::salted(context, SessionType::Hmac, what, |context, session| {
        context
            .execute_with_session(Some(session), |c| {
                c.nv_write(NvAuth::Owner, handle, data, 0)
            })
            .asked(what)
    })?;
    let kept = read(context, slot)?;
    if kept.is_none_or(|kept| *kept != *secret) {
        return Err(TpmError::Nonsense(what));
    }
    Ok(())
}

/// Destroys what a slot holds.
pub(super) fn forget(context: &mut Context, slot: NvSlot) -> Result<(), TpmError> {
    let Some(handle) = find(context, slot)? else {
        return Ok(());
    };
    context
        .execute_with_nullauth_session(|c| c.nv_undefine_space(Provision::Owner, handle))
        .asked("destroy a secret in its memory")
}

fn index(slot: NvSlot) -> Result<NvIndexTpmHandle, TpmError> {
    NvIndexTpmHandle::new(slot.index()).asked("name an NV index")
}

fn find(context: &mut Context, slot: NvSlot) -> Result<Option<NvIndexHandle>, TpmError> {
    let index = index(slot)?;
    if !nv_defined(context, index)? {
        return Ok(None);
    }
    let handle = context
        .execute_without_session(|c| c.tr_from_tpm_public(TpmHandle::NvIndex(index)))
        .asked("find an NV index")?;
    Ok(Some(handle.into()))
}

fn is_unwritten(error: &TpmError) -> bool {
    use tss_esapi::constants::response_code::Tss2ResponseCodeKind;
    matches!(
        error,
        TpmError::Tss { source: tss_esapi::Error::Tss2Error(code), .. }
            if code.kind() == Some(Tss2ResponseCodeKind::NvUninitialized)
    )
}
