//! What the port answers beside S3: the box's status, packs, receipts, and how far objects have come.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use longhaul_protocol::lan::{
    DELIVERY_PATH, Deliveries, Delivery, DeliveryQuery, LanStatus, MAX_KEYS, PACKS, RECEIPTS_PATH,
    STATUS_PATH,
};
use longhaul_protocol::pack::PACKS_PATH;
use longhaul_protocol::receipt::ReceiptAsk;
use longhaul_protocol::telemetry::VaultFill;
use longhaul_protocol::ticket::Credential;
use longhaul_vault::{Delivery as Held, Vault};
use s3s::Body;
use serde::Serialize;

use super::Proofs;
use super::access::Gate;
use super::limits::TimedBody;
use super::names;
use crate::packs::PackIntake;
use crate::status::StatusSource;
use crate::uplink::Holds;

/// Longest query: [`MAX_KEYS`] keys of 1,024 bytes, escaped.
const MAX_QUERY_BYTES: usize = 4 << 20;

/// Longest question for receipts.
const MAX_ASK_BYTES: usize = 16 << 10;

/// The routes beside S3.
#[derive(Clone)]
pub(super) struct Routes {
    pub vault: Vault,
    pub gate: Gate,
    pub status: StatusSource,
    pub packs: PackIntake,
    pub proofs: Option<Arc<dyn Proofs>>,
    pub holds: Holds,
}

impl Routes {
    /// Whether the request is for a route beside S3. A signed S3 request never is, so that a
    /// bucket may have any name.
    pub fn wants<B>(request: &Request<B>) -> bool {
        let path = request.uri().path();
        let signed = request
            .headers()
            .get(header::AUTHORIZATION)
            .is_some_and(|value| value.as_bytes().starts_with(b"AWS"));
        let presigned = request.uri().query().is_some_and(|q| q.contains("X-Amz-"));
        let ours = [STATUS_PATH, DELIVERY_PATH, RECEIPTS_PATH].contains(&path)
            || pack_bucket(path).is_some();
        ours && !signed && !presigned
    }

    pub async fn answer(&self, request: Request<TimedBody>) -> Response<Body> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, STATUS_PATH) => json(&self.status()),
            (&Method::POST, DELIVERY_PATH) => self.deliveries(request).await,
            (&Method::POST, RECEIPTS_PATH) => self.receipts(request).await,
            (&Method::POST, path) if pack_bucket(path).is_some() => self.pack(request),
            _ => problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "GET the status, POST a delivery query, a question for receipts or a pack",
            ),
        }
    }

    fn status(&self) -> LanStatus {
        LanStatus {
            vault: fill(&self.vault),
            capabilities: vec![PACKS.to_owned()],
            ..self.status.current()
        }
    }

    async fn deliveries(&self, request: Request<TimedBody>) -> Response<Body> {
        let credential = match self.basic(request.headers()) {
            Ok(credential) => credential,
            Err(why) => return log_in(&why),
        };
        let Ok(body) = Limited::new(request.into_body(), MAX_QUERY_BYTES)
            .collect()
            .await
        else {
            return problem(
                StatusCode::BAD_REQUEST,
                "the query did not arrive whole, or is longer than 4 MiB",
            );
        };
        let query: DeliveryQuery = match serde_json::from_slice(&body.to_bytes()) {
            Ok(query) => query,
            Err(error) => {
                return problem(
                    StatusCode::BAD_REQUEST,
                    &format!("malformed delivery query: {error}"),
                );
            }
        };
        if query.bucket != credential.bucket {
            return another_bucket(&credential);
        }
        if query.keys.is_empty() || query.keys.len() > MAX_KEYS {
            return problem(
                StatusCode::BAD_REQUEST,
                &format!("{} keys; 1 to {MAX_KEYS} are possible", query.keys.len()),
            );
        }
        let Ok(job) = names::job(&query.bucket) else {
            return json(&Deliveries::default());
        };
        let mut answer = Deliveries {
            held: self.holds.reason(&query.bucket),
            ..Deliveries::default()
        };
        for key in query.keys {
            if let Ok(info) = self.vault.head(&job, key.as_str()) {
                answer.objects.insert(key, told(info.delivery));
            }
        }
        json(&answer)
    }

    /// The cloud alone has leaves, roots and comparisons together: it is asked.
    async fn receipts(&self, request: Request<TimedBody>) -> Response<Body> {
        let credential = match self.basic(request.headers()) {
            Ok(credential) => credential,
            Err(why) => return log_in(&why),
        };
        let body = Limited::new(request.into_body(), MAX_ASK_BYTES).collect();
        let Ok(body) = body.await else {
            let why = "the question did not arrive whole, or is longer than 16 KiB";
            return problem(StatusCode::BAD_REQUEST, why);
        };
        let ask: ReceiptAsk = match serde_json::from_slice(&body.to_bytes()) {
            Ok(ask) => ask,
            Err(error) => {
                let why = format!("malformed question for receipts: {error}");
                return problem(StatusCode::BAD_REQUEST, &why);
            }
        };
        if ask.bucket != credential.bucket {
            return another_bucket(&credential);
        }
        let page = match &self.proofs {
            Some(proofs) => proofs.page(ask).await,
            None => Err("nobody can be asked".to_owned()),
        };
        match page {
            Ok(page) => json(&page),
            Err(why) => problem(
                StatusCode::SERVICE_UNAVAILABLE,
                &format!("the box cannot ask the cloud for receipts now: {why}"),
            ),
        }
    }

    fn pack(&self, request: Request<TimedBody>) -> Response<Body> {
        let credential = match self.basic(request.headers()) {
            Ok(credential) => credential,
            Err(why) => return log_in(&why),
        };
        // Escapes need no reading: no bucket of a ticket has any.
        if pack_bucket(request.uri().path()) != Some(&credential.bucket) {
            return another_bucket(&credential);
        }
        let Ok(job) = names::job(&credential.bucket) else {
            return another_bucket(&credential);
        };
        let ticket = credential.ticket.to_string();
        self.packs.answer(job, ticket, request.into_body())
    }

    /// The ticket whose key pair is given as user and password.
    fn basic(&self, headers: &HeaderMap) -> Result<Credential, String> {
        const HOW: &str = "log in with the ticket's key pair as user and password (HTTP Basic)";
        let pair = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.as_bytes().strip_prefix(b"Basic "))
            .and_then(|text| STANDARD.decode(text).ok())
            .and_then(|pair| String::from_utf8(pair).ok())
            .ok_or(HOW)?;
        let (access_key, secret) = pair.split_once(':').ok_or(HOW)?;
        let credential = self.gate.credentials.lookup(access_key).ok_or(HOW)?;
        verify_slices_are_equal(credential.secret_key.0.as_bytes(), secret.as_bytes())
            .map_err(|_| HOW)?;
        self.gate.valid(access_key).map_err(|error| {
            error
                .message()
                .unwrap_or("the ticket is not valid any more")
                .to_owned()
        })
    }
}

/// The bucket that a pack is for, where the path is that of packs.
fn pack_bucket(path: &str) -> Option<&str> {
    path.strip_prefix(PACKS_PATH)?.strip_prefix('/')
}

fn log_in(why: &str) -> Response<Body> {
    let mut response = problem(StatusCode::UNAUTHORIZED, why);
    response.headers_mut().insert(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static("Basic realm=\"longhaul ticket\""),
    );
    response
}

fn another_bucket(credential: &Credential) -> Response<Body> {
    problem(
        StatusCode::FORBIDDEN,
        &format!(
            "ticket {} is for bucket {:?} only",
            credential.ticket, credential.bucket
        ),
    )
}

fn told(held: Held) -> Delivery {
    match held {
        Held::OnBox => Delivery::OnBox,
        Held::InFlight { .. } => Delivery::InFlight,
        Held::InCloud => Delivery::InCloud,
        Held::Verified => Delivery::Verified,
        Held::Failed { reason } => Delivery::Failed { reason },
    }
}

fn fill(vault: &Vault) -> VaultFill {
    let stats = vault.stats();
    VaultFill {
        capacity_bytes: stats.capacity_bytes,
        used_bytes: stats.used_bytes,
        objects: stats.objects,
        pending_objects: stats.pending,
        pending_bytes: stats.pending_bytes,
    }
}

fn json<T: Serialize>(value: &T) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => respond(StatusCode::OK, "application/json", bytes),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// A problem document (RFC 9457).
fn problem(status: StatusCode, detail: &str) -> Response<Body> {
    let document = serde_json::json!({
        "title": status.canonical_reason().unwrap_or("error"),
        "status": status.as_u16(),
        "detail": detail,
    });
    respond(
        status,
        "application/problem+json",
        document.to_string().into_bytes(),
    )
}

fn respond(status: StatusCode, kind: &'static str, bytes: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
