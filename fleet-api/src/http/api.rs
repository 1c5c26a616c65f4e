//! The table of routes, and its description as OpenAPI 3.1.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::{HeaderMap, Method};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use serde::de::value::MapDeserializer;
use serde::de::{DeserializeOwned, IntoDeserializer as _};
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterIn};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, Paths, Ref,
    ResponseBuilder,
};
use utoipa::{IntoParams as _, ToSchema as _};
use warp::reply::Response;

use super::People;
use super::endpoint::{Body as _, Call, Endpoint, Schemas, Scope, reference};
use super::idempotency::{Request, once};
use super::parameters;
use super::problem::{Problem, ProblemSchema};
use super::reply::Reply as _;
use super::tag::Seen;
use crate::auth::{self, Caller, SESSION_COOKIE};
use crate::traces::{CALLED, Called};

/// Longest wait for the next piece of a request's body.
const BODY_STALL: Duration = Duration::from_secs(10);

/// A request without its body.
pub struct Head {
    /// Its method.
    pub method: Method,
    /// Its path, as it came.
    pub path: String,
    /// Its query, as it came, without the question mark.
    pub query: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Where it comes from.
    pub address: Option<IpAddr>,
}

/// What the body still has to say.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send>>;

type Answer = Pin<Box<dyn Future<Output = Result<Response, Problem>> + Send>>;

/// The named parts of a path.
type Parts = Vec<(String, String)>;
type Work = fn(Arc<People>, Caller, Head, Parts, Bytes) -> Answer;

struct Route {
    id: &'static str,
    scope: Scope,
    limit: usize,
    /// Whether a key keeps it from being carried out twice.
    creates: bool,
    call: Work,
}

/// The table of routes.
#[derive(Default)]
pub struct Api {
    /// By place, then by method.
    routes: Vec<BTreeMap<String, Route>>,
    places: BTreeMap<&'static str, usize>,
    table: matchit::Router<usize>,
    paths: Paths,
    ids: Vec<&'static str>,
    schemas: Schemas,
}

impl Api {
    /// Adds a route and its description.
    ///
    /// # Panics
    ///
    /// At start-up, if two routes have the same path and method or the same name, or if a path and
    /// the type of its parts disagree: a mistake in the program that no request can bring about.
    #[must_use]
    pub fn add<E: Endpoint>(mut self) -> Self {
        let parts = E::Path::into_params(|| Some(ParameterIn::Path));
        let of_type: Vec<_> = parts.iter().map(|p| p.name.as_str()).collect();
        let of_path: Vec<_> = names_in(E::PATH).collect();
        assert_eq!(of_path, of_type, "{}: path and its type disagree", E::ID);
        assert!(!self.ids.contains(&E::ID), "two routes are {}", E::ID);
        self.ids.push(E::ID);
        let place = if let Some(&place) = self.places.get(E::PATH) {
            place
        } else {
            let place = self.routes.len();
            let added = self.table.insert(E::PATH, place);
            assert!(added.is_ok(), "{}: {added:?}", E::ID);
            self.places.insert(E::PATH, place);
            self.routes.push(BTreeMap::new());
            place
        };
        let route = Route {
            id: E::ID,
            scope: E::SCOPE,
            limit: E::Body::LIMIT,
            creates: creates::<E>(),
            call: |people, caller, head, path, body| {
                Box::pin(carry_out::<E>(people, caller, head, path, body))
            },
        };
        let before = self.routes[place].insert(E::METHOD.to_string(), route);
        assert!(before.is_none(), "{}: path and method are taken", E::ID);
        self.describe::<E>();
        self
    }

    fn describe<E: Endpoint>(&mut self) {
        let reply = E::Reply::describe(&mut self.schemas);
        reference::<ProblemSchema>(&mut self.schemas);
        let mut operation = OperationBuilder::new()
            .operation_id(Some(E::ID))
            .summary(Some(E::SUMMARY))
            .request_body(E::Body::describe(&mut self.schemas))
            .response(E::STATUS.as_str(), reply)
            .response("default", Ref::from_response_name("Failed"));
        for (status, name) in refusals::<E>() {
            operation = operation.response(status, Ref::from_response_name(name));
        }
        for parameter in E::Path::into_params(|| Some(ParameterIn::Path)) {
            operation = operation.parameter(parameters::precise(parameter));
        }
        for parameter in E::Query::into_params(|| Some(ParameterIn::Query)) {
            let parameter = parameters::filterable(E::ID, parameter);
            operation = operation.parameter(parameters::precise(parameter));
        }
        if creates::<E>() {
            operation = operation.parameter(parameters::idempotency_key());
        }
        if parameters::is_guarded(E::ID) {
            operation = operation
                .parameter(parameters::if_match())
                .response("412", Ref::from_response_name("Changed"));
        }
        if let Scope::Role(role) | Scope::Shared(role) | Scope::RoleOrTicket(role) = E::SCOPE {
            let also = match E::SCOPE {
                Scope::Shared(_) => "; customers, for what is their tenant's.",
                Scope::RoleOrTicket(_) => {
                    "; customers, for what is their tenant's. Or a ticket's key pair, for what is its own."
                }
                _ => ".",
            };
            operation = operation
                .description(Some(format!("Role: {role}{also}")))
                .security(SecurityRequirement::new("session", [role.as_str()]))
                .security(SecurityRequirement::new("token", [role.as_str()]));
            if matches!(E::SCOPE, Scope::RoleOrTicket(_)) {
                let none: [&str; 0] = [];
                operation = operation.security(SecurityRequirement::new("ticket", none));
            }
        }
        let method = match E::METHOD {
            Method::POST => HttpMethod::Post,
            Method::PUT => HttpMethod::Put,
            Method::PATCH => HttpMethod::Patch,
            Method::DELETE => HttpMethod::Delete,
            _ => HttpMethod::Get,
        };
        let item = PathItem::new(method, operation);
        let path = E::PATH.replace("{*", "{");
        if let Some(known) = self.paths.paths.get_mut(&path) {
            known.merge_operations(item);
        } else {
            self.paths.paths.insert(path, item);
        }
    }

    /// The description of every route.
    pub fn openapi(&self) -> OpenApi {
        let mut schemas = self.schemas.clone();
        schemas.sort_by(|a, b| a.0.cmp(&b.0));
        schemas.dedup_by(|a, b| a.0 == b.0);
        let cookie = ApiKeyValue::with_description(
            SESSION_COOKIE,
            "From POST /v1/session. Requests that change something also need X-Longhaul-Csrf: 1.",
        );
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let ticket = HttpBuilder::new()
            .scheme(HttpAuthScheme::Basic)
            .description(Some("A ticket's access key and secret key."))
            .build();
        let components = ComponentsBuilder::new()
            .schemas_from_iter(schemas)
            .responses_from_iter(REFUSALS.map(|(name, text)| {
                let problem = Ref::from_schema_name(ProblemSchema::name());
                let content = ContentBuilder::new().schema(Some(problem)).build();
                let response = ResponseBuilder::new()
                    .description(text)
                    .content("application/problem+json", content)
                    .build();
                (name, response)
            }))
            .security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)))
            .security_scheme("token", SecurityScheme::Http(bearer))
            .security_scheme("ticket", SecurityScheme::Http(ticket));
        let info = InfoBuilder::new()
            .title("Longhaul")
            .version("1")
            .description(Some("The fleet, for operators and programs."));
        OpenApiBuilder::new()
            .info(info)
            .paths(self.paths.clone())
            .components(Some(components.build()))
            .build()
    }

    /// Answers one request.
    pub async fn answer(&self, people: &Arc<People>, head: Head, body: BodyStream) -> Response {
        let begun = Instant::now();
        let route = self.route(&head);
        let id = route.as_ref().map_or("none", |(route, _)| route.id);
        let answered = match route {
            Ok((route, parts)) => dispatch(route, parts, people, head, body).await,
            Err(problem) => Err(problem),
        };
        let response = answered.unwrap_or_else(Problem::into_response);
        let status = response.status().as_u16();
        people.metrics.answered(id, status, begun.elapsed());
        response
    }

    /// The route of a request, and the parts of its path as they came.
    fn route(&self, head: &Head) -> Result<(&Route, Parts), Problem> {
        let found = self
            .table
            .at(&head.path)
            .map_err(|_| Problem::not_found("there is nothing at this path"))?;
        let route = self.routes[*found.value]
            .get(head.method.as_str())
            .ok_or_else(|| {
                let methods: Vec<_> = self.routes[*found.value].keys().cloned().collect();
                Problem::method_not_allowed(methods.join(", "))
            })?;
        let parts = found.params.iter();
        let parts = parts.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok((route, parts.collect()))
    }
}

async fn dispatch(
    route: &Route,
    mut parts: Parts,
    people: &Arc<People>,
    head: Head,
    body: BodyStream,
) -> Result<Response, Problem> {
    let begun = people.clock.now().0;
    // Who calls is settled before anything else is read.
    let caller = match route.scope {
        Scope::Public => Caller::Nobody,
        scope @ Scope::RoleOrTicket(_) => match auth::by_ticket(people, &head).await? {
            Some(customer) => customer,
            None => auth::identify(people, &head, scope).await?,
        },
        scope => auth::identify(people, &head, scope).await?,
    };
    for (name, value) in &mut parts {
        let decoded = percent_encoding::percent_decode_str(value)
            .decode_utf8()
            .map_err(|_| Problem::invalid(format!("{name} is not UTF-8")))?;
        *value = decoded.into_owned();
    }
    let body = collect(body, route.limit).await?;
    let request = if route.creates {
        Request::of(&caller, &head, &body)?
    } else {
        None
    };
    let traceparent = head
        .headers
        .get("traceparent")
        .and_then(|v| v.to_str().ok());
    let trace = Called {
        parent: traceparent.and_then(|text| text.parse().ok()),
        begun,
    };
    let work = (route.call)(Arc::clone(people), caller, head, parts, body);
    let work = CALLED.scope(trace, work);
    match request {
        Some(request) => once(people, request, work).await,
        None => work.await,
    }
}

async fn carry_out<E: Endpoint>(
    people: Arc<People>,
    caller: Caller,
    head: Head,
    path: Parts,
    body: Bytes,
) -> Result<Response, Problem> {
    let query = serde_urlencoded::from_str(&head.query)
        .map_err(|e| Problem::invalid(format!("the query does not fit: {e}")))?;
    let call = Call {
        cookies: cookies(&head.headers),
        seen: Seen::of(&head.headers)?,
        people,
        caller,
        address: head.address,
        path: parse_path(path)?,
        query,
        body: E::Body::parse(&head.headers, &body)?,
    };
    E::call(call).await?.into_response(E::STATUS)
}

fn cookies(headers: &HeaderMap) -> Vec<String> {
    let all = headers.get_all(::http::header::COOKIE).iter();
    all.filter_map(|value| value.to_str().ok().map(str::to_owned))
        .collect()
}

fn parse_path<T: DeserializeOwned>(parts: Parts) -> Result<T, Problem> {
    let pairs = parts
        .into_iter()
        .map(|(name, value)| (name, value.into_deserializer()));
    let parts = MapDeserializer::<_, serde::de::value::Error>::new(pairs);
    T::deserialize(parts).map_err(|e| Problem::invalid(format!("the path does not fit: {e}")))
}

/// What the description says of refusals, by name.
const REFUSALS: [(&str, &str); 8] = [
    (
        "Changed",
        "It is not as `If-Match` says; `current` is how it is now.",
    ),
    (
        "Failed",
        "Refused for another reason, or failed; 503 is worth trying again.",
    ),
    (
        "Invalid",
        "Path, query or body is not as described; `detail` says what.",
    ),
    (
        "Unknown",
        "Nobody is logged in: no session, no token, or one that has ended.",
    ),
    (
        "Forbidden",
        "The caller's role does not suffice, or X-Longhaul-Csrf is missing.",
    ),
    ("Missing", "There is no such thing."),
    ("TooLarge", "The body is longer than this route reads."),
    (
        "NotJson",
        "The body's content type is not application/json.",
    ),
];

/// Whether a route makes something that a second request must not make again.
fn creates<E: Endpoint>() -> bool {
    E::METHOD == Method::POST && E::STATUS == http::StatusCode::CREATED && E::SCOPE != Scope::Public
}

/// With what a route refuses, by status: it follows from what the route takes.
fn refusals<E: Endpoint>() -> Vec<(&'static str, &'static str)> {
    let parts = E::Path::into_params(|| Some(ParameterIn::Path));
    let query = E::Query::into_params(|| Some(ParameterIn::Query));
    let mut found = Vec::new();
    let has_body = E::Body::LIMIT > 0;
    if has_body || !parts.is_empty() || !query.is_empty() {
        found.push(("400", "Invalid"));
    }
    if E::SCOPE != Scope::Public {
        found.extend([("401", "Unknown"), ("403", "Forbidden")]);
    }
    if !parts.is_empty() {
        found.push(("404", "Missing"));
    }
    if has_body {
        found.extend([("413", "TooLarge"), ("415", "NotJson")]);
    }
    found
}

/// Reads a body of at most `limit` bytes whose pieces keep coming.
async fn collect(mut body: BodyStream, limit: usize) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::new();
    loop {
        let piece = tokio::time::timeout(BODY_STALL, body.next())
            .await
            .map_err(|_| Problem::timeout())?;
        let Some(piece) = piece else {
            return Ok(bytes.freeze());
        };
        let piece = piece.map_err(|_| Problem::invalid("the body broke off"))?;
        if bytes.len().saturating_add(piece.len()) > limit {
            return Err(Problem::too_large(limit));
        }
        bytes.extend_from_slice(&piece);
    }
}

/// The names in a path template.
fn names_in(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| {
        let name = segment.strip_prefix('{')?.strip_suffix('}')?;
        Some(name.strip_prefix('*').unwrap_or(name))
    })
}
