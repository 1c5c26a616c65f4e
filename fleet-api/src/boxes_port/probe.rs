//! Probes: machines that have no certificate, and a ticket that the cloud signed.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Incoming};
use longhaul_protocol::probe::{
    BYTES_PATH, MAX_REPORT, MAX_TRANSFER, REPORT_PATH, SEEN_PATH, Seen, SignedReport,
};
use longhaul_protocol::value::Jws;
use longhaul_provisioning::probe as tickets;
use tokio::sync::Semaphore;

use super::answer::{AnswerBody, Refusal, json};
use crate::fleet::Fleet;
use crate::listen::Peer;

/// Who the audit says sent a report.
const SENDER: &str = "probe";
/// Transfers towards us at once: they are there to fill a line.
const TRANSFERS: usize = 4;
/// How long one may take.
const TRANSFER: Duration = Duration::from_secs(15);

static PLACES: Semaphore = Semaphore::const_new(TRANSFERS);
/// What is sent: nothing that a box on the way could shorten.
static FILLER: LazyLock<Bytes> = LazyLock::new(|| {
    let mut hash = blake3::Hasher::new();
    hash.update(b"longhaul-probe");
    let mut bytes = vec![0; usize::try_from(MAX_TRANSFER).unwrap_or(0)];
    hash.finalize_xof().fill(&mut bytes);
    bytes.into()
});

/// Whether a request is a probe's.
pub(super) fn is_probes(path: &str) -> bool {
    [SEEN_PATH, BYTES_PATH, REPORT_PATH].contains(&path)
}

/// Answers a probe.
pub(super) async fn answer(
    fleet: &Fleet,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Refusal> {
    let path = request.uri().path().to_owned();
    match (path.as_str(), request.method()) {
        (REPORT_PATH, &Method::POST) => {
            let signed: SignedReport = super::body(request, 2 * MAX_REPORT).await?;
            fleet.probe_report(SENDER, None, &signed).await?;
            Ok(super::answer::empty(StatusCode::NO_CONTENT))
        }
        (SEEN_PATH, &Method::GET) => {
            ticket(fleet, &request)?;
            json(&seen(fleet, &request)?)
        }
        (BYTES_PATH, &Method::GET) => {
            ticket(fleet, &request)?;
            let body = Full::from(FILLER.clone());
            let body = body.map_err(|never| match never {}).boxed_unsync();
            Ok(Response::new(body))
        }
        (BYTES_PATH, &Method::POST) => {
            ticket(fleet, &request)?;
            let _place = place()?;
            swallow(request).await?;
            Ok(super::answer::empty(StatusCode::NO_CONTENT))
        }
        (_, method) => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "not-found",
            format!("no {method} {path}"),
        )),
    }
}

fn ticket(fleet: &Fleet, request: &Request<Incoming>) -> Result<(), Refusal> {
    let refused = |text: String| Refusal::new(StatusCode::FORBIDDEN, "probe-ticket", text);
    let shown = request.headers().get(AUTHORIZATION);
    let shown = shown.and_then(|shown| shown.to_str().ok()?.strip_prefix("Bearer "));
    let jws = Jws(shown.unwrap_or_default().to_owned());
    tickets::verify_ticket(&jws, fleet.identity().anchors(), fleet.now())
        .map(drop)
        .map_err(|e| refused(e.to_string()))
}

fn seen(fleet: &Fleet, request: &Request<Incoming>) -> Result<Seen, Refusal> {
    let peer = request
        .extensions()
        .get::<Peer>()
        .ok_or_else(|| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "no peer"))?;
    let mut address = peer.address;
    address.set_ip(address.ip().to_canonical());
    Ok(Seen {
        address,
        now: fleet.now(),
    })
}

fn place() -> Result<tokio::sync::SemaphorePermit<'static>, Refusal> {
    PLACES.try_acquire().map_err(|_| {
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "too many probes measure at once: try again",
        )
    })
}

/// Takes a body of at most [`MAX_TRANSFER`] bytes and forgets it.
async fn swallow(request: Request<Incoming>) -> Result<(), Refusal> {
    let too_much = || {
        let text = format!("{MAX_TRANSFER} bytes are enough");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", text)
    };
    if request.body().size_hint().lower() > MAX_TRANSFER {
        return Err(too_much());
    }
    let mut body = request.into_body();
    let all = async {
        let mut took = 0_u64;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            took = took.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
            if took > MAX_TRANSFER {
                return Err(too_much());
            }
        }
        Ok(())
    };
    // A line too slow for all of it has said so by then.
    tokio::time::timeout(TRANSFER, all).await.unwrap_or(Ok(()))
}
