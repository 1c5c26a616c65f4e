//! Why the fleet did not do what it was asked.

use std::error::Error;

/// What sort of refusal it is; decides the HTTP status.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FleetErrorKind {
    /// There is no such thing.
    NotFound,
    /// The request itself is wrong.
    Invalid,
    /// The request is right but the state does not allow it.
    Conflict,
    /// This caller may not.
    Forbidden,
    /// Something that is needed is not there right now; worth retrying.
    Unavailable,
    /// Our own fault.
    Internal,
}

/// What failed, on what, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct FleetError {
    kind: FleetErrorKind,
    text: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl FleetError {
    /// A refusal in words.
    pub fn new(kind: FleetErrorKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            source: None,
        }
    }

    /// There is no such thing.
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::new(FleetErrorKind::NotFound, text)
    }

    /// The request itself is wrong.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::new(FleetErrorKind::Invalid, text)
    }

    /// The state does not allow it.
    pub fn conflict(text: impl Into<String>) -> Self {
        Self::new(FleetErrorKind::Conflict, text)
    }

    /// This caller may not.
    pub fn forbidden(text: impl Into<String>) -> Self {
        Self::new(FleetErrorKind::Forbidden, text)
    }

    /// Something that is needed is missing for now.
    pub fn unavailable(text: impl Into<String>) -> Self {
        Self::new(FleetErrorKind::Unavailable, text)
    }

    /// `what` failed because of `source`.
    pub fn internal(
        what: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind: FleetErrorKind::Internal,
            text: what.into(),
            source: Some(source.into()),
        }
    }

    /// Keeps the text and adds where it came from.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What sort of refusal it is.
    pub const fn kind(&self) -> FleetErrorKind {
        self.kind
    }
}
