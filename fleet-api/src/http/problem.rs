//! What a refused request answers: RFC 9457 problem documents.

use std::error::Error;

use ::http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};
use warp::reply::{Reply as _, Response};

use crate::fleet::{FleetError, FleetErrorKind};
use crate::store::StoreError;

/// A refusal on its way to the caller.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    name: &'static str,
    detail: String,
    /// What few refusals have: kept apart so that a result stays small.
    extra: Option<Box<Extra>>,
}

#[derive(Debug, Default)]
struct Extra {
    retry_after_secs: Option<u64>,
    allow: Option<String>,
    etag: Option<String>,
    faults: Vec<Fault>,
    more: Map<String, Value>,
}

/// Where in a request something is wrong (RFC 9457, section 3's example).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Fault {
    /// What is wrong there.
    detail: String,
    /// JSON Pointer into the body, as a URI fragment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
    /// Name of the query's or path's parameter, or of the header.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<String>,
    /// Where in that parameter, in characters from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<usize>,
}

impl Fault {
    /// A field of the body.
    pub fn at(field: &str, detail: impl Into<String>) -> Self {
        let field = field.replace('~', "~0").replace('/', "~1");
        Self::pointing(format!("#/{field}"), detail)
    }

    /// A place in the body.
    pub fn pointing(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            detail: detail.into(),
            pointer: Some(pointer.into()),
            parameter: None,
            position: None,
        }
    }

    /// The same, with a place in the field's text.
    #[must_use]
    pub fn position(mut self, position: usize) -> Self {
        self.position = Some(position);
        self
    }

    /// A parameter, and a place in it where one is known.
    pub fn parameter(name: &str, position: Option<usize>, detail: impl Into<String>) -> Self {
        Self {
            detail: detail.into(),
            pointer: None,
            parameter: Some(name.to_owned()),
            position,
        }
    }
}

/// What is written.
#[derive(Serialize)]
struct Document {
    r#type: String,
    title: String,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Fault>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// The document, for the API's description.
#[derive(utoipa::ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "describes what is written")]
pub struct ProblemSchema {
    /// `urn:longhaul:problem:{name}`: stable, for programs.
    r#type: String,
    /// A few words.
    title: String,
    /// HTTP status code.
    status: u16,
    /// What failed, on what, and what to do.
    detail: Option<String>,
    /// Where in the request, if that is known.
    errors: Option<Vec<Fault>>,
}

impl Problem {
    fn new(status: StatusCode, name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            name,
            detail: detail.into(),
            extra: None,
        }
    }

    fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// The request itself is wrong.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-request", detail)
    }

    /// The request is wrong at these places, of which there is at least one.
    pub fn faults(faults: Vec<Fault>) -> Self {
        let said: Vec<_> = faults
            .iter()
            .map(|f| {
                let at = f.pointer.as_deref().or(f.parameter.as_deref());
                format!("{}: {}", at.unwrap_or_default(), f.detail)
            })
            .collect();
        let mut problem = Self::invalid(said.join("; "));
        problem.extra().faults = faults;
        problem
    }

    /// The same with every place below `prefix`, a JSON Pointer.
    #[must_use]
    pub fn below(mut self, prefix: &str) -> Self {
        let faults = self.extra.as_mut().map(|extra| &mut extra.faults);
        for fault in faults.into_iter().flatten() {
            if let Some(pointer) = &mut fault.pointer {
                pointer.insert_str(1, prefix);
            }
        }
        self
    }

    /// The same with a member of its own.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).unwrap_or_default();
        self.extra().more.insert(name.to_owned(), value);
        self
    }

    /// Nobody is logged in.
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "not-logged-in", detail)
    }

    /// This caller may not.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// There is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// There is such a thing, but not with this method.
    pub fn method_not_allowed(allowed: String) -> Self {
        let mut problem = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            format!("this path takes {allowed}"),
        );
        problem.extra().allow = Some(allowed);
        problem
    }

    /// The state does not allow it.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", detail)
    }

    /// The key belongs to another request.
    pub fn key_reused() -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency-key-reused",
            "this Idempotency-Key came with another request before: use a fresh one",
        )
    }

    /// It is not as the caller saw it; `tag` is what it is now.
    pub fn changed(tag: &str) -> Self {
        let mut problem = Self::new(
            StatusCode::PRECONDITION_FAILED,
            "changed",
            "somebody has changed it since you read it: `current` is how it is now",
        );
        problem.extra().etag = Some(tag.to_owned());
        problem
    }

    /// The body took too long to come.
    pub fn timeout() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "request-timeout",
            "the request's body did not come in time",
        )
    }

    /// The body is longer than this route takes.
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            format!("the request's body is longer than the {limit} bytes that this path takes"),
        )
    }

    /// The body is not what this route reads.
    pub fn unsupported_media() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "send the body as application/json",
        )
    }

    /// Too often; try again after `secs` seconds.
    pub fn too_many(secs: u64) -> Self {
        let mut problem = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-attempts",
            format!("too many failed attempts; try again in {secs} s"),
        );
        problem.extra().retry_after_secs = Some(secs);
        problem
    }

    /// Something that is needed is not there right now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
        problem.extra().retry_after_secs = Some(5);
        problem
    }

    /// Our own fault: the cause goes to the log, not to the caller.
    pub fn internal(what: &str, cause: &(dyn Error + 'static)) -> Self {
        tracing::error!(what, error = cause, "request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the cloud failed to do it; the operators' log says why",
        )
    }

    /// The status that it answers.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The response.
    pub fn into_response(self) -> Response {
        let extra = self.extra.map_or_else(Extra::default, |extra| *extra);
        let document = Document {
            r#type: format!("urn:longhaul:problem:{}", self.name),
            title: self.name.replace('-', " "),
            status: self.status.as_u16(),
            detail: self.detail,
            errors: extra.faults,
            more: extra.more,
        };
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = body.into_response();
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(secs) = extra.retry_after_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if let Some(allow) = extra
            .allow
            .and_then(|text| HeaderValue::from_str(&text).ok())
        {
            headers.insert(header::ALLOW, allow);
        }
        if let Some(etag) = extra
            .etag
            .and_then(|text| HeaderValue::from_str(&text).ok())
        {
            headers.insert(header::ETAG, etag);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"longhaul\""),
            );
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Database(sqlx::Error::PoolTimedOut) => {
                tracing::warn!(error = &error as &dyn Error, "database is busy");
                Self::unavailable("the database is busy")
            }
            StoreError::KeyTaken => Self::conflict(error.to_string()),
            StoreError::TooLarge { .. } => Self::invalid(error.to_string()),
            _ => Self::internal("database", &error),
        }
    }
}

impl From<FleetError> for Problem {
    fn from(error: FleetError) -> Self {
        let text = error.to_string();
        match error.kind() {
            FleetErrorKind::NotFound => Self::not_found(text),
            FleetErrorKind::Invalid => Self::invalid(text),
            FleetErrorKind::Conflict => Self::conflict(text),
            FleetErrorKind::Forbidden => Self::forbidden(text),
            FleetErrorKind::Unavailable => {
                tracing::warn!(error = &error as &dyn Error, "request cannot be served now");
                Self::unavailable(text)
            }
            FleetErrorKind::Internal => Self::internal("fleet", &error),
        }
    }
}
