//! Who may do what: the ticket's key pair opens the ticket's bucket until the ticket ends.

use std::sync::Arc;

use super::listing::OWNER;
use crate::credentials::CredentialStore;
use jiff::Timestamp;
use longhaul_protocol::ticket::Credential;
use longhaul_vault::Clock;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::path::S3Path;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

/// The credential of a request that passed; found in its extensions.
#[derive(Clone)]
pub(super) struct Admitted(pub Arc<Credential>);

/// Checks signatures and rights against the tickets.
#[derive(Clone)]
pub(super) struct Gate {
    pub credentials: CredentialStore,
    pub clock: Clock,
}

impl Gate {
    /// The credential called `access_key`, if it has not ended.
    pub fn valid(&self, access_key: &str) -> S3Result<Credential> {
        let credential = self
            .credentials
            .lookup(access_key)
            .ok_or_else(|| unknown_key(access_key))?;
        if credential.expires.0 <= (self.clock)() {
            let ended = Timestamp::from_millisecond(credential.expires.0).unwrap_or_default();
            return Err(s3_error!(
                AccessDenied,
                "ticket {} expired at {ended}; download a new one from the portal",
                credential.ticket,
            ));
        }
        Ok(credential)
    }
}

fn unknown_key(access_key: &str) -> S3Error {
    let shown: String = access_key.chars().take(32).collect();
    s3_error!(
        InvalidAccessKeyId,
        "this box knows no ticket with access key {shown:?}; a new ticket takes some seconds to arrive, an older one may be for another box",
    )
}

#[async_trait::async_trait]
impl S3Auth for Gate {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let credential = self
            .credentials
            .lookup(access_key)
            .ok_or_else(|| unknown_key(access_key))?;
        Ok(SecretKey::from(credential.secret_key.0))
    }
}

#[async_trait::async_trait]
impl S3Access for Gate {
    /// Runs after the signature was verified, so only the owner learns that a ticket has expired.
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let Some(signed) = cx.credentials() else {
            return Err(s3_error!(
                AccessDenied,
                "the request is not signed; sign it with the ticket's key pair"
            ));
        };
        let credential = self.valid(&signed.access_key)?;
        if let S3Path::Bucket { bucket } | S3Path::Object { bucket, .. } = cx.s3_path()
            && **bucket != *credential.bucket
        {
            let shown = bucket.to_string();
            return Err(S3Error::with_message(
                S3ErrorCode::AccessDenied,
                format!(
                    "ticket {} is for bucket {:?}, not {shown:?}",
                    credential.ticket, credential.bucket
                ),
            ));
        }
        let owner = cx.headers().get("x-amz-expected-bucket-owner");
        if owner.is_some_and(|owner| owner.as_bytes() != OWNER.as_bytes()) {
            return Err(s3_error!(
                AccessDenied,
                "the box cannot vouch for the owner of the destination bucket; leave expected-bucket-owner out"
            ));
        }
        cx.extensions_mut().insert(Admitted(Arc::new(credential)));
        Ok(())
    }
}
