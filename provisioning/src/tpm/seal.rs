//! Secrets that only this TPM opens, and only while the machine's PCRs are what they were.

use std::collections::BTreeMap;

use tss_esapi::Context;
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::constants::SessionType;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind;
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::session_handles::PolicySession;
use tss_esapi::structures::{
    Digest, KeyedHashScheme, Private, Public, PublicBuilder, PublicKeyedHashParameters,
    SensitiveData,
};
use tss_esapi::traits::{Marshall, UnMarshall};
use zeroize::Zeroizing;

use super::evidence::{self, selection};
use super::{Asked, TpmError, flush, keys, session};

/// Times that a PCR may be extended between its check and the opening.
const TRIES: usize = 3;

/// A secret under the storage root key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sealed {
    /// What the TPM takes back: `TPM2B_PUBLIC` without its length under two bytes of length, and the
    /// encrypted part.
    pub blob: Vec<u8>,
    /// PCRs of the SHA-256 bank and the values that they must have. Only to say which one differs:
    /// the TPM goes by its own policy. Empty for what earlier versions sealed, without a policy.
    pub pcrs: BTreeMap<u8, [u8; 32]>,
}

/// Seals to this chip, and to the values that these PCRs have now.
pub(super) fn seal(context: &mut Context, data: &[u8], pcrs: &[u8]) -> Result<Sealed, TpmError> {
    let what = "seal a secret";
    if pcrs.is_empty() {
        return Err(TpmError::NoPolicy);
    }
    let secret =
        SensitiveData::try_from(data).map_err(|_| TpmError::TooLong("secret to be sealed"))?;
    let pcrs: BTreeMap<_, _> = pcrs
        .iter()
        .copied()
        .zip(evidence::pcrs(context, pcrs)?)
        .collect();
    // Without `userWithAuth` the empty password does not open it: the policy alone does.
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_no_da(true)
        .with_admin_with_policy(true)
        .build()
        .asked(what)?;
    let template = PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_auth_policy(policy(context, &pcrs)?)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(Digest::default())
        .build()
        .asked(what)?;
    let parent = keys::srk(context)?;
    let made = session::salted(context, SessionType::Hmac, what, |context, session| {
        context
            .execute_with_session(Some(session), |c| {
                c.create(parent, template, None, Some(secret), None, None)
            })
            .asked(what)
    })?;
    let public = made.out_public.marshall().asked(what)?;
    let private = made.out_private.value();
    let len = u16::try_from(public.len()).map_err(|_| TpmError::Nonsense(what))?;
    Ok(Sealed {
        blob: [&len.to_be_bytes(), public.as_slice(), private].concat(),
        pcrs,
    })
}

/// The digest of `TPM2_PolicyPCR` over these values, worked out by the TPM in a trial session.
fn policy(context: &mut Context, pcrs: &BTreeMap<u8, [u8; 32]>) -> Result<Digest, TpmError> {
    let what = "work out a policy";
    let numbers: Vec<_> = pcrs.keys().copied().collect();
    let selection = selection(&numbers)?;
    let values: Vec<_> = pcrs.values().flatten().copied().collect();
    let values = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &values);
    let values = Digest::try_from(values.as_ref()).asked(what)?;
    let trial = session::start(context, None, SessionType::Trial).asked(what)?;
    let digest = PolicySession::try_from(trial).and_then(|policy| {
        context.execute_without_session(|c| {
            c.policy_pcr(policy, values, selection)?;
            c.policy_get_digest(policy)
        })
    });
    session::end(context, trial);
    digest.asked(what)
}

/// Opens what [`seal`] sealed.
pub(super) fn unseal(
    context: &mut Context,
    sealed: &Sealed,
) -> Result<Zeroizing<Vec<u8>>, TpmError> {
    let what = "unseal a secret";
    let nonsense = || TpmError::Nonsense(what);
    let (len, rest) = sealed.blob.split_at_checked(2).ok_or_else(nonsense)?;
    let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
    let (public, private) = rest.split_at_checked(len).ok_or_else(nonsense)?;
    let public = Public::unmarshall(public).asked(what)?;
    let private = Private::try_from(private).map_err(|_| nonsense())?;
    let parent = keys::srk(context)?;
    let object = context
        .execute_with_nullauth_session(|c| c.load(parent, private, public))
        .asked(what)?;
    let opened = open(context, object, &sealed.pcrs);
    flush(context, object)?;
    opened
}

fn open(
    context: &mut Context,
    object: KeyHandle,
    pcrs: &BTreeMap<u8, [u8; 32]>,
) -> Result<Zeroizing<Vec<u8>>, TpmError> {
    let mut opened = open_once(context, object, pcrs);
    for _ in 1..TRIES {
        if !opened
            .as_ref()
            .is_err_and(|e| is(e, Tss2ResponseCodeKind::PcrChanged))
        {
            break;
        }
        opened = open_once(context, object, pcrs);
    }
    match opened {
        Err(error) if is(&error, Tss2ResponseCodeKind::PolicyFail) => {
            let numbers: Vec<_> = pcrs.keys().copied().collect();
            let now = evidence::pcrs(context, &numbers)?;
            let differ = pcrs.iter().zip(now).filter(|((_, was), is)| *was != is);
            let changed: Vec<_> = differ.map(|((number, _), _)| *number).collect();
            // Without a difference it is the list that was altered, not the machine.
            Err(if changed.is_empty() {
                error
            } else {
                TpmError::StateChanged(changed)
            })
        }
        other => other,
    }
}

fn open_once(
    context: &mut Context,
    object: KeyHandle,
    pcrs: &BTreeMap<u8, [u8; 32]>,
) -> Result<Zeroizing<Vec<u8>>, TpmError> {
    let what = "unseal a secret";
    let kind = if pcrs.is_empty() {
        SessionType::Hmac
    } else {
        SessionType::Policy
    };
    let numbers: Vec<_> = pcrs.keys().copied().collect();
    let selection = selection(&numbers)?;
    let opened = session::salted(context, kind, what, |context, session| {
        if kind == SessionType::Policy {
            let policy = PolicySession::try_from(session).asked(what)?;
            context
                .execute_without_session(|c| c.policy_pcr(policy, Digest::default(), selection))
                .asked(what)?;
        }
        context
            .execute_with_session(Some(session), |c| c.unseal(object.into()))
            .asked(what)
    })?;
    Ok(Zeroizing::new(opened.value().to_vec()))
}

fn is(error: &TpmError, kind: Tss2ResponseCodeKind) -> bool {
    matches!(
        error,
        TpmError::Tss { source: tss_esapi::Error::Tss2Error(code), .. } if code.kind() == Some(kind)
    )
}
