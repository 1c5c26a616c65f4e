//! The vault's errors as S3 clients understand them: what failed, on what, what to do.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use longhaul_vault::Error as VaultError;
use s3s::{S3Error, S3ErrorCode, s3_error};

/// Seconds after which a client that was told to slow down should try again.
const RETRY_AFTER_SECS: &str = "30";

/// What the vault said about `what`, as an S3 error.
pub(super) fn from_vault(error: &VaultError, what: &str) -> S3Error {
    let message = format!("{what}: {error}");
    let code = match error {
        VaultError::NoSuchObject(_) | VaultError::NoSuchVersion(_) => S3ErrorCode::NoSuchKey,
        VaultError::NoSuchJob(_) => S3ErrorCode::NoSuchBucket,
        VaultError::NoSuchUpload(_) => S3ErrorCode::NoSuchUpload,
        VaultError::InvalidPart(_) => S3ErrorCode::InvalidPart,
        VaultError::NoParts => S3ErrorCode::MalformedXML,
        VaultError::TooLong { .. } | VaultError::EmptyKey => S3ErrorCode::InvalidArgument,
        VaultError::InvalidRange { .. } => S3ErrorCode::InvalidRange,
        VaultError::PreconditionFailed(_) => S3ErrorCode::PreconditionFailed,
        VaultError::Released(_) => {
            return S3Error::with_message(
                S3ErrorCode::InvalidObjectState,
                format!("{message}; read it from the bucket"),
            );
        }
        VaultError::SlowDown => return slow_down(&message),
        VaultError::DiskFull => return disk_full(&message),
        VaultError::Damaged(_) | VaultError::Io { .. } | VaultError::InvalidTransition(_) => {
            tracing::error!(%error, what, "the vault failed");
            S3ErrorCode::InternalError
        }
        VaultError::Closed => S3ErrorCode::ServiceUnavailable,
        _ => S3ErrorCode::InternalError,
    };
    S3Error::with_message(code, message)
}

/// `503 SlowDown` with `Retry-After`: S3 clients wait and try again by themselves.
fn slow_down(message: &str) -> S3Error {
    let mut error = S3Error::with_message(
        S3ErrorCode::SlowDown,
        format!("{message}; space returns as objects reach the bucket, so wait and try again"),
    );
    let mut headers = HeaderMap::new();
    headers.insert(
        header::RETRY_AFTER,
        HeaderValue::from_static(RETRY_AFTER_SECS),
    );
    error.set_headers(headers);
    error
}

/// `507 InsufficientStorage`, a code of our own: S3 has none, and trying again at once is useless.
fn disk_full(message: &str) -> S3Error {
    let mut error = S3Error::with_message(
        S3ErrorCode::Custom("InsufficientStorage".into()),
        format!(
            "{message}; nothing was stored: wait until objects have reached the bucket, or delete some"
        ),
    );
    error.set_status_code(StatusCode::INSUFFICIENT_STORAGE);
    error
}

/// A task that the runtime could not finish: only at shutdown.
pub(super) fn interrupted(error: &tokio::task::JoinError) -> S3Error {
    s3_error!(
        ServiceUnavailable,
        "the box is stopping ({error}); try again in a minute"
    )
}
