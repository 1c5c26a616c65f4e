//! What routes answer with.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use ::http::{HeaderMap, HeaderValue, StatusCode, header};
use bytes::Bytes;
use futures::Stream;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, Response as Description, ResponseBuilder};
use warp::reply::{Reply as _, Response};

use super::endpoint::{Json, Schemas, reference};
use super::problem::Problem;
use crate::fleet::ObjectBody;

/// What a route answers with.
pub trait Reply: Send {
    /// The response.
    fn into_response(self, status: StatusCode) -> Result<Response, Problem>;
    /// Describes it.
    fn describe(schemas: &mut Schemas) -> Description;
}

impl<T: Serialize + ToSchema + Send, const LIMIT: usize> Reply for Json<T, LIMIT> {
    fn into_response(self, status: StatusCode) -> Result<Response, Problem> {
        let body = serde_json::to_vec(&self.0).map_err(|e| Problem::internal("reply", &e))?;
        let mut response = body.into_response();
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    fn describe(schemas: &mut Schemas) -> Description {
        let schema = reference::<T>(schemas);
        let content = ContentBuilder::new().schema(Some(schema)).build();
        ResponseBuilder::new()
            .description("Done.")
            .content("application/json", content)
            .build()
    }
}

/// Done, with nothing to say.
pub struct Done;

impl Reply for Done {
    fn into_response(self, _: StatusCode) -> Result<Response, Problem> {
        let mut response = Vec::new().into_response();
        *response.status_mut() = StatusCode::NO_CONTENT;
        response.headers_mut().remove(header::CONTENT_TYPE);
        Ok(response)
    }

    fn describe(_: &mut Schemas) -> Description {
        ResponseBuilder::new().description("Done.").build()
    }
}

/// An answer with headers of its own.
pub struct WithHeaders<R>(pub R, pub HeaderMap);

impl<R: Reply> Reply for WithHeaders<R> {
    fn into_response(self, status: StatusCode) -> Result<Response, Problem> {
        let mut response = self.0.into_response(status)?;
        response.headers_mut().extend(self.1);
        Ok(response)
    }

    fn describe(schemas: &mut Schemas) -> Description {
        R::describe(schemas)
    }
}

/// Elsewhere, with headers of its own.
pub struct Redirect(pub String, pub HeaderMap);

impl Reply for Redirect {
    fn into_response(self, status: StatusCode) -> Result<Response, Problem> {
        let to = HeaderValue::from_str(&self.0).map_err(|e| Problem::internal("redirect", &e))?;
        let mut response = Vec::new().into_response();
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_TYPE);
        headers.extend(self.1);
        headers.insert(header::LOCATION, to);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    fn describe(_: &mut Schemas) -> Description {
        let mut described = ResponseBuilder::new()
            .description("Go on at `Location`.")
            .build();
        let location = utoipa::openapi::header::Header::default();
        described
            .headers
            .insert("Location".to_owned(), location.into());
        described
    }
}

/// A file to be saved.
pub struct File {
    /// Its name, as it is suggested to whoever saves it.
    pub name: String,
    /// Its type.
    pub content_type: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its bytes as they arrive.
    pub body: ObjectBody,
}

impl Reply for File {
    fn into_response(self, status: StatusCode) -> Result<Response, Problem> {
        let mut response = warp::reply::stream(Exclusive::new(self.body)).into_response();
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let content_type = HeaderValue::from_str(&self.content_type)
            .unwrap_or(HeaderValue::from_static("application/octet-stream"));
        headers.insert(header::CONTENT_TYPE, content_type);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.bytes));
        headers.insert(header::CONTENT_DISPOSITION, disposition(&self.name));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // The type is whatever the customer said: a browser must never run it from this origin.
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; sandbox"),
        );
        Ok(response)
    }

    fn describe(_: &mut Schemas) -> Description {
        ResponseBuilder::new()
            .description("The file.")
            .content("*/*", ContentBuilder::new().build())
            .build()
    }
}

/// `attachment` with the name as RFC 6266 wants it, whatever characters it has.
fn disposition(name: &str) -> HeaderValue {
    let last = name.rsplit('/').find(|s| !s.is_empty()).unwrap_or("file");
    let encoded = percent_encoding::utf8_percent_encode(last, percent_encoding::NON_ALPHANUMERIC);
    HeaderValue::from_str(&format!("attachment; filename*=UTF-8''{encoded}"))
        .unwrap_or(HeaderValue::from_static("attachment"))
}

/// Server-sent events; the stream ends them.
pub struct Events(pub Pin<Box<dyn Stream<Item = Bytes> + Send>>);

impl Reply for Events {
    fn into_response(self, status: StatusCode) -> Result<Response, Problem> {
        let stream = futures::StreamExt::map(self.0, Ok::<_, Infallible>);
        let mut response = warp::reply::stream(Exclusive::new(stream)).into_response();
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    fn describe(_: &mut Schemas) -> Description {
        let text = ObjectBuilder::new().schema_type(Type::String).build();
        let content = ContentBuilder::new().schema(Some(text)).build();
        ResponseBuilder::new()
            .description("Events until the connection ends.")
            .content("text/event-stream", content)
            .build()
    }
}

/// JSON that was written before.
pub struct Document(pub Bytes);

impl Reply for Document {
    fn into_response(self, status: StatusCode) -> Result<Response, Problem> {
        let mut response = self.0.to_vec().into_response();
        *response.status_mut() = status;
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        Ok(response)
    }

    fn describe(_: &mut Schemas) -> Description {
        ResponseBuilder::new()
            .description("The document.")
            .content("application/json", ContentBuilder::new().build())
            .build()
    }
}

/// Figures for Prometheus.
pub struct Figures(pub String);

impl Reply for Figures {
    fn into_response(self, status: StatusCode) -> Result<Response, Problem> {
        let mut response = self.0.into_bytes().into_response();
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(crate::metrics::CONTENT_TYPE),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    fn describe(_: &mut Schemas) -> Description {
        let text = ObjectBuilder::new().schema_type(Type::String).build();
        let content = ContentBuilder::new().schema(Some(text)).build();
        ResponseBuilder::new()
            .description("The figures.")
            .content(crate::metrics::CONTENT_TYPE, content)
            .build()
    }
}

/// A stream that only one task polls at a time, which is all there ever is; warp asks for `Sync`.
struct Exclusive<S>(Mutex<S>);

impl<S> Exclusive<S> {
    fn new(stream: S) -> Self {
        Self(Mutex::new(stream))
    }
}

impl<S: Stream + Unpin> Stream for Exclusive<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        match self.get_mut().0.get_mut() {
            Ok(stream) => Pin::new(stream).poll_next(cx),
            Err(_) => Poll::Ready(None),
        }
    }
}
