//! Secrets that only this TPM opens.

use tss_esapi::Context;
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::structures::{
    Digest, KeyedHashScheme, Private, Public, PublicBuilder, PublicKeyedHashParameters,
    SensitiveData,
};
use tss_esapi::traits::{Marshall, UnMarshall};
use zeroize::Zeroizing;

use super::{Asked, TpmError, flush, keys};

/// Seals under the storage root key, without a policy over PCRs: the secret is bound to the chip,
/// and an update of the system does not lose it.
pub(super) fn seal(context: &mut Context, data: &[u8]) -> Result<Vec<u8>, TpmError> {
    let what = "seal a secret";
    let secret =
        SensitiveData::try_from(data).map_err(|_| TpmError::TooLong("secret to be sealed"))?;
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_no_da(true)
        .with_user_with_auth(true)
        .build()
        .asked(what)?;
    let template = PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(Digest::default())
        .build()
        .asked(what)?;
    let parent = keys::srk(context)?;
    let made = context
        .execute_with_nullauth_session(|c| {
            c.create(parent, template, None, Some(secret), None, None)
        })
        .asked(what)?;
    let public = made.out_public.marshall().asked(what)?;
    let private = made.out_private.value();
    let len = u16::try_from(public.len()).map_err(|_| TpmError::Nonsense(what))?;
    Ok([&len.to_be_bytes(), public.as_slice(), private].concat())
}

pub(super) fn unseal(context: &mut Context, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, TpmError> {
    let what = "unseal a secret";
    let nonsense = || TpmError::Nonsense(what);
    let (len, rest) = sealed.split_at_checked(2).ok_or_else(nonsense)?;
    let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
    let (public, private) = rest.split_at_checked(len).ok_or_else(nonsense)?;
    let public = Public::unmarshall(public).asked(what)?;
    let private = Private::try_from(private).map_err(|_| nonsense())?;
    let parent = keys::srk(context)?;
    let handle = context
        .execute_with_nullauth_session(|c| c.load(parent, private, public))
        .asked(what)?;
    let opened = context.execute_with_nullauth_session(|c| c.unseal(handle.into()));
    flush(context, handle)?;
    Ok(Zeroizing::new(opened.asked(what)?.value().to_vec()))
}
