//! Sessions under which secrets travel between this program and the TPM.
//!
//! A session of the library's own is salted with nothing: whoever listens on the bus works out its
//! key. Here the salt is encrypted to the storage root key, so that only the chip can. Against
//! somebody who *alters* what passes on the bus it does not help: they could show another key.

use tss_esapi::Context;
use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::{KeyHandle, SessionHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::SymmetricDefinition;

use super::{Asked, TpmError, keys};

/// Starts a session; without a key its parameters are not secret.
pub(super) fn start(
    context: &mut Context,
    salted_to: Option<KeyHandle>,
    kind: SessionType,
) -> tss_esapi::Result<AuthSession> {
    context
        .execute_without_session(|c| {
            c.start_auth_session(
                salted_to,
                None,
                None,
                kind,
                SymmetricDefinition::AES_128_CFB,
                HashingAlgorithm::Sha256,
            )
        })?
        .ok_or(tss_esapi::Error::WrapperError(
            tss_esapi::WrapperErrorKind::InvalidHandleState,
        ))
}

/// Ends a session. One that the TPM has ended already is no matter.
pub(super) fn end(context: &mut Context, session: AuthSession) {
    let _ = context.flush_context(SessionHandle::from(session).into());
}

/// Does `work` under a session whose first parameter, in both directions, only the chip can read.
pub(super) fn salted<T>(
    context: &mut Context,
    kind: SessionType,
    what: &'static str,
    work: impl FnOnce(&mut Context, AuthSession) -> Result<T, TpmError>,
) -> Result<T, TpmError> {
    let srk = keys::srk(context)?;
    let session = start(context, Some(srk), kind).asked(what)?;
    let (attributes, mask) = SessionAttributesBuilder::new()
        .with_decrypt(true)
        .with_encrypt(true)
        .build();
    let done = context
        .tr_sess_set_attributes(session, attributes, mask)
        .asked(what)
        .and_then(|()| work(context, session));
    end(context, session);
    done
}
