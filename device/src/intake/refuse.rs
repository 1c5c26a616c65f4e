//! What a request asks for that the box cannot do: refused by name rather than dropped in silence.

use longhaul_protocol::names::{MetadataError, check_metadata};
use longhaul_vault::Metadata;
use s3s::dto::{ObjectCannedACL, ServerSideEncryption, StorageClass};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

/// Encryption keys are the box's business; a client that believes in its own must be told.
pub(super) fn customer_keys(algorithm: Option<&str>) -> S3Result<()> {
    match algorithm {
        None => Ok(()),
        Some(_) => Err(s3_error!(
            NotImplemented,
            "customer-provided encryption keys are not taken; the box encrypts everything at rest by itself"
        )),
    }
}

/// Everything at rest is encrypted; a key management service is out of the box's reach.
pub(super) fn encryption(asked: Option<&ServerSideEncryption>) -> S3Result<()> {
    match asked.map(ServerSideEncryption::as_str) {
        None | Some(ServerSideEncryption::AES256) => Ok(()),
        Some(other) => Err(s3_error!(
            NotImplemented,
            "server-side encryption {other:?} is not taken; the box encrypts everything at rest by itself, and the destination bucket has its own settings"
        )),
    }
}

/// Access is the ticket's: an access list that says anything else cannot be kept.
pub(super) fn access_list(
    acl: Option<&ObjectCannedACL>,
    grants: &[&Option<String>],
) -> S3Result<()> {
    let harmless = matches!(
        acl.map(ObjectCannedACL::as_str),
        None | Some(
            ObjectCannedACL::PRIVATE
                | ObjectCannedACL::BUCKET_OWNER_FULL_CONTROL
                | ObjectCannedACL::BUCKET_OWNER_READ
        )
    );
    if harmless && grants.iter().all(|grant| grant.is_none()) {
        return Ok(());
    }
    Err(S3Error::with_message(
        S3ErrorCode::AccessControlListNotSupported,
        "access lists are not taken: who has the ticket reads and writes, and the destination bucket has its own settings",
    ))
}

/// Storage classes that S3 has (Amazon S3 API reference, `PutObject`).
const STORAGE_CLASSES: [&str; 11] = [
    StorageClass::DEEP_ARCHIVE,
    StorageClass::EXPRESS_ONEZONE,
    StorageClass::GLACIER,
    StorageClass::GLACIER_IR,
    StorageClass::INTELLIGENT_TIERING,
    StorageClass::ONEZONE_IA,
    StorageClass::OUTPOSTS,
    StorageClass::REDUCED_REDUNDANCY,
    StorageClass::SNOW,
    StorageClass::STANDARD,
    StorageClass::STANDARD_IA,
];

/// The class is the order's: one that S3 knows is passed over, with a notice unless it is the usual
/// one; any other is a mistake.
pub(super) fn storage_class(asked: Option<&StorageClass>) -> S3Result<Option<String>> {
    match asked.map(StorageClass::as_str) {
        None | Some(StorageClass::STANDARD) => Ok(None),
        Some(class) if STORAGE_CLASSES.contains(&class) => Ok(Some(format!(
            "storage class {class} is not kept: the destination bucket's settings decide"
        ))),
        Some(class) => Err(S3Error::with_message(
            S3ErrorCode::InvalidStorageClass,
            format!(
                "there is no storage class {class:?}; leave it out, the destination bucket's settings decide"
            ),
        )),
    }
}

/// A feature whose header was sent.
pub(super) fn feature(sent: bool, name: &str) -> S3Result<()> {
    if sent {
        return Err(s3_error!(
            NotImplemented,
            "{name} is not taken by the box; send the object without it"
        ));
    }
    Ok(())
}

/// Metadata that the destination bucket would refuse.
pub(super) fn metadata(metadata: &Metadata) -> S3Result<()> {
    check_metadata(&metadata.user).map_err(|error| match error {
        MetadataError::TooLarge(_) => {
            S3Error::with_message(S3ErrorCode::MetadataTooLarge, error.to_string())
        }
        error => S3Error::with_message(S3ErrorCode::InvalidArgument, error.to_string()),
    })
}

/// Refuses what an input of s3s asks for and the box cannot do: its inputs share field names but no
/// type.
macro_rules! refuse_unsupported {
    ($input:expr) => {{
        let input = &$input;
        $crate::intake::refuse::customer_keys(input.sse_customer_algorithm.as_deref())?;
        $crate::intake::refuse::encryption(input.server_side_encryption.as_ref())?;
        $crate::intake::refuse::access_list(
            input.acl.as_ref(),
            &[
                &input.grant_full_control,
                &input.grant_read,
                &input.grant_read_acp,
                &input.grant_write_acp,
            ],
        )?;
        let tagged = input.tagging.as_ref().is_some_and(|t| !t.is_empty());
        $crate::intake::refuse::feature(tagged, "tagging")?;
        let locked = input.object_lock_mode.is_some()
            || input.object_lock_legal_hold_status.is_some()
            || input.object_lock_retain_until_date.is_some();
        $crate::intake::refuse::feature(locked, "object lock")?;
        let redirects = input.website_redirect_location.is_some();
        $crate::intake::refuse::feature(redirects, "website redirection")?;
    }};
}
pub(super) use refuse_unsupported;
