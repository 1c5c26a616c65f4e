//! The box's own page, `http://<box>/`: where it is on the ladder, what to do next, how far the
//! files are. To be read by everybody on the LAN: it says no more than the status without log-in. Its
//! network settings may be changed by whoever has the claim code that is printed on the box.

mod attempts;
mod desk;
mod form;
mod html;
mod offline;
mod settings;

pub use desk::{Desk, is_claim};
pub use html::{bytes, is_online, main, step, urls};
pub use settings::said;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use longhaul_protocol::network_settings::NetworkSettings;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::console::Status;
use desk::{NotClaimed, names_box, same_origin};
use form::{Form, Wrong};
use settings::Trouble;

/// Connections at once; who comes later waits.
const CONNECTIONS: usize = 64;
/// Connections of one peer at once: nobody takes all of them.
const OF_ONE: usize = 16;
/// From a connection to the end of a request's head, and for the whole of one.
const HEAD: Duration = Duration::from_secs(10);
const CONNECTION: Duration = Duration::from_mins(1);
/// Headers of one request at the most, in bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// The body of one at the most, in bytes: a form.
const BODY_BYTES: usize = 8 * 1024;
/// The same for one with an answer to the box's request: with 200 tickets it has some 100 KB.
const ANSWER_BYTES: usize = 384 * 1024;
/// Pause after the system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Changes that wait for their answers to be away.
const WISHES: usize = 4;
/// Nothing from anywhere else, in no frame, and forms go to the box alone.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Opens the page's port.
///
/// # Errors
///
/// What the system says.
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves the page until told to stop.
pub async fn serve(
    listener: TcpListener,
    status: watch::Receiver<Status>,
    desk: Desk,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let (wishes, mut wanted) = mpsc::channel(WISHES);
    let counter = Arc::new(Counter {
        desk,
        status,
        wishes,
    });
    let peers = Arc::new(parking_lot::Mutex::new(Vec::<IpAddr>::new()));
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
            Some(settings) = wanted.recv() => {
                let counter = Arc::clone(&counter);
                tasks.spawn(async move { counter.desk.set(settings).await });
                continue;
            }
        };
        let Ok((tcp, peer)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let peer = peer.ip().to_canonical();
        let taken = {
            let mut peers = peers.lock();
            let free = peers.iter().filter(|other| **other == peer).count() < OF_ONE;
            free.then(|| peers.push(peer))
        };
        if taken.is_none() {
            continue;
        }
        let (counter, peers) = (Arc::clone(&counter), Arc::clone(&peers));
        tasks.spawn(async move {
            let _place = place;
            let service = service_fn(move |request: Request<Incoming>| {
                let counter = Arc::clone(&counter);
                async move { Ok::<_, Infallible>(counter.answer(request, peer).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(HEAD_BYTES)
                .serve_connection(TokioIo::new(tcp), service);
            // Whoever hangs up, or is too slow, asks again.
            let _ = tokio::time::timeout(CONNECTION, connection).await;
            let mut peers = peers.lock();
            if let Some(at) = peers.iter().position(|other| *other == peer) {
                peers.swap_remove(at);
            }
        });
    }
}

/// What answers requests.
struct Counter {
    desk: Desk,
    status: watch::Receiver<Status>,
    wishes: mpsc::Sender<Option<NetworkSettings>>,
}

impl Counter {
    async fn answer(&self, request: Request<Incoming>, peer: IpAddr) -> Response<Full<Bytes>> {
        if !names_box(request.headers()) {
            return say(
                StatusCode::MISDIRECTED_REQUEST,
                TEXT,
                "Open this box by its address, such as http://192.168.1.40/, or by its name that ends in .local.\n",
            );
        }
        let head = request.method() == Method::HEAD;
        let path = request.uri().path().to_owned();
        let mut response = match (request.method(), path.as_str()) {
            (&Method::GET | &Method::HEAD, path) => self.read(path),
            (&Method::POST, "/network") => self.change(request, peer).await,
            (&Method::POST, "/offline") => self.take_answer(request).await,
            _ => say(
                StatusCode::METHOD_NOT_ALLOWED,
                TEXT,
                "This page is to be read; only /network and /offline take a form.\n",
            ),
        };
        if head {
            *response.body_mut() = Full::default();
        }
        response
    }

    fn read(&self, path: &str) -> Response<Full<Bytes>> {
        let status = self.status.borrow();
        let (code, kind, body) = match path {
            "/" => (StatusCode::OK, HTML, html::page(&status)),
            // What changes of it, for the script.
            "/now" => (StatusCode::OK, HTML, main(&status)),
            "/network" => {
                let form = settings::first(&status);
                let page = settings::page(&status, &self.desk, &form, &Trouble::None);
                (StatusCode::OK, HTML, page)
            }
            "/offline" => {
                let page = offline::page(&status, &self.desk, "");
                (StatusCode::OK, HTML, page)
            }
            "/offline/request.txt" if !status.offline.lines.is_empty() => {
                let mut text = status.offline.lines.join("\n");
                text.push('\n');
                (StatusCode::OK, TEXT, text)
            }
            "/page.css" => (StatusCode::OK, "text/css; charset=utf-8", STYLE.to_owned()),
            "/page.js" => (
                StatusCode::OK,
                "text/javascript; charset=utf-8",
                SCRIPT.to_owned(),
            ),
            _ => (
                StatusCode::NOT_FOUND,
                TEXT,
                "There are these pages: /, /network and /offline\n".to_owned(),
            ),
        };
        say(code, kind, body)
    }

    /// Takes the answer to the box's request. It proves itself, so no claim code is asked for.
    async fn take_answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let body = match form(request, ANSWER_BYTES).await {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        let (mut token, mut answer) = (String::new(), String::new());
        for (name, value) in url::form_urlencoded::parse(&body) {
            match &*name {
                "token" => token = value.into_owned(),
                "answer" => value.trim().clone_into(&mut answer),
                _ => {}
            }
        }
        let status = self.status.borrow();
        let refuse = |code, text| say(code, HTML, offline::page(&status, &self.desk, text));
        if !self.desk.is_own(&token) {
            let text =
                "The box was started again since this page was opened. Paste the answer once more.";
            return refuse(StatusCode::FORBIDDEN, text);
        }
        if answer.is_empty() {
            return refuse(
                StatusCode::UNPROCESSABLE_ENTITY,
                "There is no answer in the form.",
            );
        }
        if self.desk.answer(answer.into_bytes()) {
            say(StatusCode::ACCEPTED, HTML, offline::taken(&status))
        } else {
            let text = "The box is still looking at the answer before this one. Try again in some seconds.";
            refuse(StatusCode::TOO_MANY_REQUESTS, text)
        }
    }

    /// Takes a form: own origin, own token, then what it says, then the claim code.
    async fn change(&self, request: Request<Incoming>, peer: IpAddr) -> Response<Full<Bytes>> {
        let form = match form(request, BODY_BYTES).await {
            Ok(body) => Form::parse(&body),
            Err(refused) => return refused,
        };
        let refuse = |code, trouble: Trouble| {
            let status = self.status.borrow();
            say(
                code,
                HTML,
                settings::page(&status, &self.desk, &form, &trouble),
            )
        };
        if !self.desk.is_own(form.get("token")) {
            return refuse(StatusCode::FORBIDDEN, Trouble::Stale);
        }
        let wanted = match form.settings() {
            Ok(wanted) => wanted,
            Err(wrong) => return refuse(StatusCode::UNPROCESSABLE_ENTITY, Trouble::Fields(wrong)),
        };
        match self.desk.claim(form.get("claim"), peer) {
            Ok(()) => {}
            Err(NotClaimed::Wrong) => {
                let wrong = Wrong {
                    field: "claim",
                    text: "This is not the code that is printed on the box. Nothing was changed."
                        .to_owned(),
                };
                return refuse(StatusCode::FORBIDDEN, Trouble::Fields(vec![wrong]));
            }
            Err(NotClaimed::Wait(secs)) => {
                return refuse(StatusCode::TOO_MANY_REQUESTS, Trouble::Wait(secs));
            }
            Err(NotClaimed::NoCode) => return refuse(StatusCode::FORBIDDEN, Trouble::Stale),
        }
        let page = settings::tried(&self.status.borrow(), &self.desk, wanted.as_ref());
        match self.wishes.try_send(wanted) {
            Ok(()) => say(StatusCode::ACCEPTED, HTML, page),
            Err(_) => refuse(StatusCode::TOO_MANY_REQUESTS, Trouble::Wait(5)),
        }
    }
}

/// The body of a form that a page of the same origin sent.
async fn form(request: Request<Incoming>, limit: usize) -> Result<Bytes, Response<Full<Bytes>>> {
    if !same_origin(request.headers()) {
        let text = "This form is of another page.\n";
        return Err(say(StatusCode::FORBIDDEN, TEXT, text));
    }
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/x-www-form-urlencoded") {
        let text = "This is no form.\n";
        return Err(say(StatusCode::UNSUPPORTED_MEDIA_TYPE, TEXT, text));
    }
    let body = Limited::new(request.into_body(), limit).collect();
    let body = body.await.map_err(|_| {
        let text = "The form did not arrive whole, or is too long.\n";
        say(StatusCode::PAYLOAD_TOO_LARGE, TEXT, text)
    })?;
    Ok(body.to_bytes())
}

fn say(code: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // The form's own origin is needed with it, nothing else.
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
