//! A proxy between somebody and an object store that does what lines and stores do at their worst.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::time::Instant;

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection ends while the request is read.
    Cut,
    /// It arrives late.
    Delay(Duration),
    /// It is answered like this and never arrives.
    Answer(StatusCode, &'static str, Vec<(&'static str, &'static str)>),
    /// It is carried out, and the answer's body ends early.
    TruncateAnswer,
    /// It is carried out, and nobody hears of it.
    LoseAnswer,
}

/// Which requests a fault befalls, and how many.
#[derive(Clone, Debug)]
pub struct Rule {
    pub method: Method,
    /// What path and query contain.
    pub contains: &'static str,
    pub times: usize,
    pub fault: Fault,
}

/// A request that came by.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Instant,
    pub method: Method,
    pub uri: String,
}

/// The proxy.
pub struct Faults {
    pub address: SocketAddr,
    target: String,
    http: reqwest::Client,
    pub rules: Mutex<Vec<Rule>>,
    pub seen: Mutex<Vec<Seen>>,
}

type Body = BoxBody<Bytes, io::Error>;

impl Faults {
    /// Stands in front of `target`, a URL without a path; `http` believes its certificate.
    pub async fn before(target: String, http: reqwest::Client) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let faults = Arc::new(Self {
            address: listener.local_addr().expect("an address"),
            target,
            http,
            rules: Mutex::default(),
            seen: Mutex::default(),
        });
        let serving = Arc::clone(&faults);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let faults = Arc::clone(&serving);
                tokio::spawn(async move {
                    let service = service_fn(|request| faults.answer(request));
                    // A service that fails ends its connection: that is a fault, too.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
        faults
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on this befalls the next `times` requests of `method` that contain `contains`.
    pub fn befall(&self, method: Method, contains: &'static str, times: usize, fault: Fault) {
        self.rules.lock().push(Rule {
            method,
            contains,
            times,
            fault,
        });
    }

    /// Requests of `method` that contain `contains`.
    pub fn count(&self, method: &Method, contains: &str) -> usize {
        let seen = self.seen.lock();
        let matching = seen
            .iter()
            .filter(|s| s.method == *method && s.uri.contains(contains));
        matching.count()
    }

    fn fault(&self, method: &Method, uri: &str) -> Option<Fault> {
        let mut rules = self.rules.lock();
        let rule = rules
            .iter_mut()
            .find(|r| r.times > 0 && r.method == *method && uri.contains(r.contains));
        let fault = rule.map(|rule| {
            rule.times -= 1;
            rule.fault.clone()
        });
        self.seen.lock().push(Seen {
            at: Instant::now(),
            method: method.clone(),
            uri: uri.to_owned(),
        });
        fault
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, io::Error> {
        let uri = request.uri().to_string();
        let fault = self.fault(request.method(), &uri);
        match fault {
            None => self.forward(request).await,
            Some(Fault::Cut) => {
                let mut body = request.into_body();
                let _ = body.frame().await;
                Err(io::Error::other("cut"))
            }
            Some(Fault::Delay(by)) => {
                tokio::time::sleep(by).await;
                self.forward(request).await
            }
            Some(Fault::Answer(status, text, headers)) => {
                let _ = request.into_body().collect().await;
                let mut answer = Response::builder().status(status);
                for (name, value) in headers {
                    answer = answer.header(name, value);
                }
                let body = Full::from(Bytes::from_static(text.as_bytes()));
                let body = body.map_err(|never: Infallible| match never {}).boxed();
                Ok(answer.body(body).expect("a response"))
            }
            Some(Fault::TruncateAnswer) => {
                let answer = self.forward(request).await?;
                let (mut parts, _) = answer.into_parts();
                parts.headers.insert("content-length", 100.into());
                let frames = [
                    Ok(Frame::data(Bytes::from_static(b"<?xml"))),
                    Err(io::Error::other("truncated")),
                ];
                let body = StreamBody::new(futures::stream::iter(frames));
                Ok(Response::from_parts(parts, body.boxed()))
            }
            Some(Fault::LoseAnswer) => {
                self.forward(request).await?;
                Err(io::Error::other("lost"))
            }
        }
    }

    async fn forward(&self, request: Request<Incoming>) -> Result<Response<Body>, io::Error> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let url = format!("{}{}", self.target, parts.uri);
        // The host stays as it was signed.
        let mut onward = self.http.request(parts.method, url);
        for (name, value) in &parts.headers {
            if !matches!(name.as_str(), "connection" | "expect") {
                onward = onward.header(name, value);
            }
        }
        let answer = onward.body(bytes).send().await.map_err(io::Error::other)?;
        let mut response = Response::builder().status(answer.status());
        for (name, value) in answer.headers() {
            if !matches!(name.as_str(), "transfer-encoding" | "connection") {
                response = response.header(name, value);
            }
        }
        let bytes = answer.bytes().await.map_err(io::Error::other)?;
        let body = Full::from(bytes).map_err(|never: Infallible| match never {});
        response.body(body.boxed()).map_err(io::Error::other)
    }
}
