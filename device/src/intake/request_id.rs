//! Request ids: every answer carries one, error documents too, and the box's log, so that a customer
//! can name the request that failed.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response};
use s3s::Body;

/// Where S3 puts a request's id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");
/// Where S3 puts what its engineers need beside; here it says which box answered.
const HOST_ID: HeaderName = HeaderName::from_static("x-amz-id-2");
/// The end of an error document.
const END: &[u8] = b"</Error>";

/// The id of one request: sixteen hexadecimal digits, as S3's are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct RequestId(String);

impl RequestId {
    /// One that no other request has, also not one after a restart.
    pub fn fresh() -> Self {
        static FIRST: LazyLock<u64> = LazyLock::new(|| {
            let mut bytes = [0; 8];
            // Without randomness ids begin at nought again: they name requests, they guard nothing.
            let _ = aws_lc_rs::rand::fill(&mut bytes);
            u64::from_le_bytes(bytes)
        });
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = FIRST.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed));
        Self(format!("{number:016X}"))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Puts it into an answer of the box called `host`.
    pub fn mark(&self, answer: Response<Body>, host: &str) -> Response<Body> {
        let failed = answer.status().as_u16() >= 300;
        let mut answer = if failed {
            answer.map(|body| self.mark_document(body, host))
        } else {
            answer
        };
        let headers = answer.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&self.0) {
            headers.insert(REQUEST_ID, value);
        }
        if let Ok(value) = HeaderValue::from_str(host) {
            headers.insert(HOST_ID, value);
        }
        answer
    }

    fn mark_document(&self, body: Body, host: &str) -> Body {
        let Some(bytes) = body.bytes() else {
            return body;
        };
        let Some(before) = bytes.strip_suffix(END) else {
            return body;
        };
        let ids = format!("<RequestId>{}</RequestId><HostId>{host}</HostId>", self.0);
        Body::from(Bytes::from([before, ids.as_bytes(), END].concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_document_says_the_ids_of_its_headers() {
        let id = RequestId::fresh();
        let mut answer = Response::new(Body::from("<Error><Code>A</Code></Error>".to_owned()));
        *answer.status_mut() = http::StatusCode::NOT_FOUND;

        let marked = id.mark(answer, "0123456789AB");

        assert_eq!(marked.headers()[REQUEST_ID], id.as_str());
        assert_eq!(marked.headers()[HOST_ID], "0123456789AB");
        let body = marked.body().bytes().expect("in memory");
        let text = format!(
            "<Error><Code>A</Code><RequestId>{}</RequestId><HostId>0123456789AB</HostId></Error>",
            id.as_str()
        );
        assert_eq!(body, text.as_bytes());
        assert_ne!(RequestId::fresh(), id);
    }

    #[test]
    fn objects_are_left_as_they_are() {
        let object = Response::new(Body::from("<Error></Error>".to_owned()));

        let marked = RequestId::fresh().mark(object, "0123456789AB");

        assert_eq!(marked.body().bytes().expect("bytes"), "<Error></Error>");
    }
}
