//! One route: what it is called, who may call it, what goes in, what comes out.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use ::http::{HeaderMap, Method, StatusCode};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::{ContentBuilder, Ref, Required};
use utoipa::{IntoParams, ToSchema};

use super::People;
use super::problem::Problem;
use super::reply::Reply;
use super::tag::Seen;
use crate::auth::Caller;
use crate::store::operators::Role;

/// Who may call a route.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// Anybody.
    Public,
    /// Whoever has at least this role.
    Role(Role),
    /// As [`Scope::Shared`]; and a customer by their ticket's key pair, who sees what is theirs.
    RoleOrTicket(Role),
    /// Whoever has at least this role, and customers for what is their tenant's: the route binds
    /// itself to [`Caller::tenant`].
    Shared(Role),
}

impl Scope {
    /// Whether someone with this role may call.
    pub fn admits(self, role: Role) -> bool {
        match self {
            Self::Public => true,
            Self::Role(needed) => role.includes(needed),
            Self::Shared(needed) | Self::RoleOrTicket(needed) => {
                role == Role::Customer || role.includes(needed)
            }
        }
    }
}

/// One route. [`super::api::Api::add`] makes the route and its description from the same constants,
/// so that the description cannot drift.
pub trait Endpoint: Send + Sync + Sized + 'static {
    /// Its name in the description.
    const ID: &'static str;
    /// What it does, in a sentence.
    const SUMMARY: &'static str;
    /// Its method.
    const METHOD: Method;
    /// Its path; `{name}` stands for one segment, `{*name}` for the rest.
    const PATH: &'static str;
    /// Who may call it.
    const SCOPE: Scope;
    /// Status of its success.
    const STATUS: StatusCode = StatusCode::OK;

    /// The parts of its path.
    type Path: DeserializeOwned + IntoParams + Send;
    /// Its query.
    type Query: DeserializeOwned + IntoParams + Send;
    /// Its body.
    type Body: Body;
    /// Its answer.
    type Reply: Reply;

    /// Carries it out.
    fn call(call: Call<Self>) -> impl Future<Output = Result<Self::Reply, Problem>> + Send;
}

/// One call of a route, checked: the caller may, and everything has parsed.
pub struct Call<E: Endpoint> {
    /// What the routes work on.
    pub people: Arc<People>,
    /// Who calls.
    pub caller: Caller,
    /// Where from.
    pub address: Option<IpAddr>,
    /// What cookies came along.
    pub cookies: Vec<String>,
    /// What the caller saw of what they want to change.
    pub seen: Seen,
    /// The parts of the path.
    pub path: E::Path,
    /// The query.
    pub query: E::Query,
    /// The body.
    pub body: E::Body,
}

/// No parts in the path, or no query.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

impl IntoParams for Nothing {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        Vec::new()
    }
}

/// Named schemas of the description.
pub type Schemas = Vec<(
    String,
    utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>,
)>;

/// What a route reads from the request's body.
pub trait Body: Send + Sized {
    /// Longest body, in bytes; 0 where none is read.
    const LIMIT: usize;
    /// Reads it.
    fn parse(headers: &HeaderMap, bytes: &Bytes) -> Result<Self, Problem>;
    /// Describes it.
    fn describe(schemas: &mut Schemas) -> Option<RequestBody>;
}

/// No body is read; one that comes is refused.
pub struct NoBody;

impl Body for NoBody {
    const LIMIT: usize = 0;

    fn parse(_: &HeaderMap, _: &Bytes) -> Result<Self, Problem> {
        Ok(Self)
    }

    fn describe(_: &mut Schemas) -> Option<RequestBody> {
        None
    }
}

/// A JSON document of at most `LIMIT` bytes.
pub struct Json<T, const LIMIT: usize = { 16 * 1024 }>(pub T);

impl<T: DeserializeOwned + ToSchema + Send, const LIMIT: usize> Body for Json<T, LIMIT> {
    const LIMIT: usize = LIMIT;

    fn parse(headers: &HeaderMap, bytes: &Bytes) -> Result<Self, Problem> {
        // A browser's own forms cannot send this type; what they send must not get through.
        let is_json = headers
            .get(http::header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.split(';').next())
            .is_some_and(|v| v.trim().eq_ignore_ascii_case("application/json"));
        if !is_json {
            return Err(Problem::unsupported_media());
        }
        // A list of its fields in their order would be read as well.
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Err(Problem::invalid("the body is no JSON object"));
        }
        let refused = match serde_json::from_slice(bytes) {
            Ok(body) => return Ok(Self(body)),
            Err(error) => Problem::invalid(format!("the body does not fit: {error}")),
        };
        let Ok(mut value) = serde_json::from_slice(bytes) else {
            return Err(refused);
        };
        if !make_whole(&mut value) {
            return Err(refused);
        }
        T::deserialize(value).map(Self).map_err(|_| refused)
    }

    fn describe(schemas: &mut Schemas) -> Option<RequestBody> {
        let content = ContentBuilder::new()
            .schema(Some(reference::<T>(schemas)))
            .build();
        let body = RequestBodyBuilder::new()
            .content("application/json", content)
            .required(Some(Required::True));
        Some(body.build())
    }
}

/// Writes numbers such as `3.0` as whole ones, which they are to JSON Schema; whether there were any.
pub fn make_whole(value: &mut Value) -> bool {
    /// Up to here a double holds every whole number.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => {
            let Some(whole) = number
                .as_f64()
                .filter(|n| number.is_f64() && n.fract() == 0.0 && n.abs() <= EXACT)
            else {
                return false;
            };
            #[expect(clippy::cast_possible_truncation, reason = "whole, and within bounds")]
            let whole = whole as i64;
            *value = whole.into();
            true
        }
        Value::Array(items) => items
            .iter_mut()
            .fold(false, |any, item| make_whole(item) | any),
        Value::Object(map) => map
            .values_mut()
            .fold(false, |any, item| make_whole(item) | any),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

/// Refers to a type's schema, which goes among the named ones with all that it needs.
pub fn reference<T: ToSchema>(schemas: &mut Schemas) -> Ref {
    let name = T::name().into_owned();
    if !schemas.iter().any(|(known, _)| *known == name) {
        schemas.push((name.clone(), T::schema()));
        T::schemas(schemas);
    }
    Ref::from_schema_name(name)
}
