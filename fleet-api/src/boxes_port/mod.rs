//! The boxes' port: HTTPS with mutual TLS. Who asks is what the certificate says, nothing else.
//!
//! A box comes with its initial identity (IDevID) only to enrol; everything else takes the identity
//! in service (LDevID).

mod answer;
mod enrol;
mod lan;
mod packs;
mod probe;
mod receipts;
mod tuf;
mod uploads;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use longhaul_protocol::enrol as paths;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::receipt::BOX_RECEIPTS_PATH;
use longhaul_protocol::upload;
use longhaul_provisioning::ca::Authority;
use longhaul_provisioning::names;
use serde::de::DeserializeOwned;
use x509_parser::prelude::{FromDer, X509Certificate};

pub use answer::{AnswerBody, Refusal};
use answer::{json, problem};
pub(crate) use uploads::{Compared, compare, settle};

use crate::fleet::Fleet;
use crate::listen::Peer;
use crate::store::boxes::BoxState;

/// How long a request's body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_mins(1);
/// The longest body of a request that carries no list, in bytes.
const SMALL: usize = 128 * 1024;
/// The longest body of a request that carries a list of objects or of ETags, in bytes.
const LARGE: usize = 16 * 1024 * 1024;

/// The port's service; clones are the same port.
#[derive(Clone)]
pub struct BoxesPort {
    fleet: Fleet,
    /// Subject of the authority that issues identities in service (DER).
    service_issuer: Arc<[u8]>,
}

/// Which of its certificates a box came with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Came {
    /// The factory's: first contact, or back from a long sleep.
    WithInitial,
    /// One that this cloud issued.
    InService,
}

impl BoxesPort {
    /// The port for `fleet`.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if the boxes' authority is missing.
    pub fn new(fleet: Fleet) -> Result<Self, Refusal> {
        let internal =
            |text: String| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text);
        let authority = fleet
            .identity()
            .pki()
            .authority(Authority::Boxes)
            .map_err(|e| internal(e.to_string()))?;
        let (_, parsed) = X509Certificate::from_der(authority)
            .map_err(|e| internal(format!("unusable boxes' authority: {e}")))?;
        let service_issuer = parsed.subject().as_raw().into();
        Ok(Self {
            fleet,
            service_issuer,
        })
    }

    async fn handle(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let result = self.route(request).await;
        result.unwrap_or_else(|refusal| {
            tracing::warn!(
                %method,
                path,
                status = refusal.status().as_u16(),
                kind = refusal.kind(),
                detail = refusal.detail(),
                "refused a box's request"
            );
            problem(&refusal)
        })
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Response<AnswerBody>, Refusal> {
        if probe::is_probes(request.uri().path()) {
            return probe::answer(&self.fleet, request).await;
        }
        let (box_id, came) = self.who(request.extensions().get::<Peer>())?;
        match self.fleet.admitted().get(&box_id) {
            None => {
                return Err(Refusal::new(
                    StatusCode::FORBIDDEN,
                    "unknown-box",
                    format!("box {box_id} is not in the inventory: import its record"),
                ));
            }
            Some(BoxState::Revoked) => {
                return Err(Refusal::new(
                    StatusCode::FORBIDDEN,
                    "revoked",
                    format!("box {box_id} is revoked"),
                ));
            }
            Some(_) => {}
        }
        let path = request.uri().path().to_owned();
        let (fleet, post) = (&self.fleet, request.method() == Method::POST);
        let get = request.method() == Method::GET;
        match path.as_str() {
            paths::CHALLENGE_PATH if post => {
                json(&enrol::challenge(fleet, &box_id, body(request, SMALL).await?).await?)
            }
            paths::CERTIFICATE_PATH if post => {
                json(&enrol::certificate(fleet, &box_id, body(request, SMALL).await?).await?)
            }
            _ if came == Came::WithInitial => Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "not-enrolled",
                "the initial identity is good for enrolment only: enrol first",
            )),
            paths::LAN_CERTIFICATE_PATH if post => {
                // Customers trust what has one.
                uploads::may_deliver(fleet, &box_id)?;
                json(&lan::certificate(
                    fleet,
                    &box_id,
                    &body(request, SMALL).await?,
                )?)
            }
            paths::CREDENTIALS_PATH if get => {
                uploads::may_deliver(fleet, &box_id)?;
                json(&fleet.credentials(&box_id).await?)
            }
            upload::START_PATH if post => {
                json(&uploads::start(fleet, &box_id, body(request, LARGE).await?).await?)
            }
            upload::PARTS_PATH if post => {
                json(&uploads::parts(fleet, &box_id, body(request, SMALL).await?).await?)
            }
            upload::COMPLETE_PATH if post => {
                json(&uploads::complete(fleet, &box_id, body(request, LARGE).await?).await?)
            }
            upload::BUCKET_REFUSED_PATH if post => {
                json(&uploads::refused(fleet, &box_id, body(request, SMALL).await?).await?)
            }
            BOX_RECEIPTS_PATH if post => {
                json(&receipts::page(fleet, &box_id, body(request, SMALL).await?).await?)
            }
            upload::PACK_START_PATH if post => {
                json(&packs::start(fleet, &box_id, body(request, LARGE).await?).await?)
            }
            upload::PACK_SENT_PATH if post => {
                json(&packs::sent(fleet, &box_id, body(request, SMALL).await?).await?)
            }
            upload::ABORT_PATH if post => {
                uploads::abort(fleet, &box_id, body(request, SMALL).await?).await?;
                Ok(answer::empty(StatusCode::NO_CONTENT))
            }
            _ => match path.strip_prefix(paths::TUF_PATH) {
                Some(below) if get || request.method() == Method::HEAD => {
                    tuf::file(fleet.tuf_dir(), below, &request).await
                }
                _ => Err(Refusal::new(
                    StatusCode::NOT_FOUND,
                    "not-found",
                    format!("no {} {path}", request.method()),
                )),
            },
        }
    }

    fn who(&self, peer: Option<&Peer>) -> Result<(BoxId, Came), Refusal> {
        let nobody = |text: String| Refusal::new(StatusCode::UNAUTHORIZED, "no-identity", text);
        let leaf = peer
            .and_then(|peer| peer.certificates.first())
            .ok_or_else(|| nobody("a client certificate is needed".to_owned()))?;
        let box_id = names::box_id(leaf).map_err(|e| nobody(e.to_string()))?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|e| nobody(e.to_string()))?;
        let came = if parsed.issuer().as_raw() == &*self.service_issuer {
            Came::InService
        } else {
            Came::WithInitial
        };
        Ok((box_id, came))
    }
}

impl Service<Request<Incoming>> for BoxesPort {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let port = self.clone();
        Box::pin(async move { Ok(port.handle(request).await) })
    }
}

/// Reads a JSON body of at most `limit` bytes.
async fn body<T, B>(request: Request<B>, limit: usize) -> Result<T, Refusal>
where
    T: DeserializeOwned,
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let limited = Limited::new(request.into_body(), limit);
    let collected = tokio::time::timeout(BODY_TIMEOUT, limited.collect())
        .await
        .map_err(|_| {
            let text = "the request's body did not arrive in time";
            Refusal::new(StatusCode::REQUEST_TIMEOUT, "too-slow", text)
        })?
        .map_err(|e| {
            let text = format!("unreadable body, or longer than {limit} bytes: {e}");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "bad-body", text)
        })?;
    serde_json::from_slice(&collected.to_bytes()).map_err(|e| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            "malformed",
            format!("malformed request: {e}"),
        )
    })
}
