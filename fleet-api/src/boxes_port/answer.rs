//! What the port answers: JSON, files, and refusals as RFC 9457 problems.

use std::io;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use longhaul_protocol::enrol::Problem;
use serde::Serialize;

use crate::fleet::{FleetError, FleetErrorKind};
use crate::store::StoreError;

/// The body of an answer.
pub type AnswerBody = UnsyncBoxBody<Bytes, io::Error>;

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    status: StatusCode,
    kind: &'static str,
    detail: String,
}

impl Refusal {
    /// A refusal of this `kind`, which is stable, for programs.
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            detail: detail.into(),
        }
    }

    /// HTTP status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The stable name.
    pub const fn kind(&self) -> &'static str {
        self.kind
    }

    /// What failed, on what, and what to do.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl From<FleetError> for Refusal {
    fn from(error: FleetError) -> Self {
        let (status, kind) = match error.kind() {
            FleetErrorKind::NotFound => (StatusCode::NOT_FOUND, "not-found"),
            FleetErrorKind::Invalid => (StatusCode::BAD_REQUEST, "invalid"),
            FleetErrorKind::Conflict => (StatusCode::CONFLICT, "conflict"),
            FleetErrorKind::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
            FleetErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            FleetErrorKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        if status.is_server_error() {
            tracing::error!(error = &error as &dyn std::error::Error, "a request failed");
        }
        Self::new(status, kind, error.to_string())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        FleetError::from(error).into()
    }
}

/// `200` with a JSON body.
pub(super) fn json<T: Serialize>(value: &T) -> Result<Response<AnswerBody>, Refusal> {
    let bytes = serde_json::to_vec(value)
        .map_err(|e| FleetError::internal("failed to write an answer", e))?;
    Ok(with(StatusCode::OK, "application/json", bytes))
}

/// A refusal as `application/problem+json`.
pub(super) fn problem(refusal: &Refusal) -> Response<AnswerBody> {
    let problem = Problem {
        kind: format!("urn:longhaul:problem:{}", refusal.kind),
        title: refusal.kind.replace('-', " "),
        status: refusal.status.as_u16(),
        detail: refusal.detail.clone(),
    };
    // Texts and a number always have a JSON form.
    let bytes = serde_json::to_vec(&problem).unwrap_or_default();
    with(refusal.status, "application/problem+json", bytes)
}

/// No body.
pub(super) fn empty(status: StatusCode) -> Response<AnswerBody> {
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn with(status: StatusCode, content_type: &'static str, bytes: Vec<u8>) -> Response<AnswerBody> {
    let body = Full::from(bytes)
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
