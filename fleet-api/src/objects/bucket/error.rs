//! Why the object store did not do what was asked.

use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

/// Why the object store did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("object store failed to {what}: {text}")]
pub struct BucketError {
    what: &'static str,
    code: Option<String>,
    text: String,
}

impl BucketError {
    pub(super) fn new(what: &'static str, text: impl Into<String>) -> Self {
        Self {
            what,
            code: None,
            text: text.into(),
        }
    }

    pub(super) fn of<E, R>(what: &'static str) -> impl FnOnce(SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        move |error| {
            let code = error.code().map(str::to_owned);
            let code = code.or_else(|| match &error {
                // A HEAD has no body to name the error in.
                SdkError::ServiceError(_) => None,
                _ => Some("unreachable".to_owned()),
            });
            Self {
                what,
                code,
                text: DisplayErrorContext(&error).to_string(),
            }
        }
    }

    /// Whether the store says that there is no such object, upload or part.
    pub fn is_absent(&self) -> bool {
        matches!(
            self.code.as_deref(),
            Some("NoSuchKey" | "NoSuchUpload" | "NoSuchBucket" | "NotFound")
        )
    }

    /// Whether the store takes nothing of the kind from anybody who asks in our name: access was
    /// withdrawn, or the bucket is not there or not ours.
    pub fn is_denial(&self) -> bool {
        matches!(
            self.code.as_deref(),
            Some(
                "AccessDenied"
                    | "AllAccessDisabled"
                    | "AccountProblem"
                    | "Forbidden"
                    | "InvalidAccessKeyId"
                    | "SignatureDoesNotMatch"
                    | "NoSuchBucket"
                    | "BucketAlreadyExists"
            )
        )
    }

    /// What was tried.
    pub(super) const fn what(&self) -> &'static str {
        self.what
    }

    /// The store's name for the error.
    pub(super) fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    #[cfg(test)]
    pub(super) fn coded(what: &'static str, code: &str) -> Self {
        Self {
            what,
            code: Some(code.to_owned()),
            text: code.to_owned(),
        }
    }

    /// Whether the condition of a write does not hold.
    pub fn is_condition(&self) -> bool {
        matches!(
            self.code.as_deref(),
            Some("PreconditionFailed" | "ConditionalRequestConflict")
        )
    }

    /// Whether the parts are not what completion says they are: they must be sent again.
    pub fn is_bad_part(&self) -> bool {
        matches!(
            self.code.as_deref(),
            Some("InvalidPart" | "InvalidPartOrder" | "EntityTooSmall" | "MalformedXML")
        )
    }
}
