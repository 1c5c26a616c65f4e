//! The box's own page, `http://<box>/`: where it is on the ladder, what to do next, how far the
//! files are. Read only, for everybody on the LAN; it says no more than the status without log-in.

mod html;

pub use html::{bytes, is_online, knows, urls};

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::console::Status;

/// Connections at once; who comes later waits.
const CONNECTIONS: usize = 64;
/// From a connection to the end of a request's head, and for the whole of one.
const HEAD: Duration = Duration::from_secs(10);
const CONNECTION: Duration = Duration::from_mins(1);
/// Headers of one request at the most, in bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// Pause after the system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Nothing from anywhere else, and in no frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

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
    shutdown: CancellationToken,
) {
    let places = Semaphore::new(CONNECTIONS);
    let places = std::sync::Arc::new(places);
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(place) = std::sync::Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((tcp, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let status = status.clone();
        tasks.spawn(async move {
            let _place = place;
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(request.method(), request.uri().path(), &status.borrow());
                std::future::ready(Ok::<_, Infallible>(answer))
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(HEAD_BYTES)
                .serve_connection(TokioIo::new(tcp), service);
            // Whoever hangs up, or is too slow, asks again.
            let _ = tokio::time::timeout(CONNECTION, connection).await;
        });
    }
}

fn answer(method: &Method, path: &str, status: &Status) -> Response<Full<Bytes>> {
    let (code, kind, body) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/") => (
            StatusCode::OK,
            "text/html; charset=utf-8",
            html::page(status).into_bytes(),
        ),
        // What changes of it, for the script.
        (&Method::GET | &Method::HEAD, "/now") => (
            StatusCode::OK,
            "text/html; charset=utf-8",
            html::main(status).into_bytes(),
        ),
        (&Method::GET | &Method::HEAD, "/page.css") => {
            (StatusCode::OK, "text/css; charset=utf-8", STYLE.into())
        }
        (&Method::GET | &Method::HEAD, "/page.js") => (
            StatusCode::OK,
            "text/javascript; charset=utf-8",
            SCRIPT.into(),
        ),
        (&Method::GET | &Method::HEAD, _) => (
            StatusCode::NOT_FOUND,
            "text/plain; charset=utf-8",
            b"There is one page: /\n".to_vec(),
        ),
        _ => (
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain; charset=utf-8",
            b"This page is to be read.\n".to_vec(),
        ),
    };
    let body = if method == Method::HEAD {
        Vec::new()
    } else {
        body
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::tests::status;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_page_says_the_code_and_what_to_do_and_takes_nothing() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_sender, receiver) = watch::channel(status());
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, receiver, stop.clone()));
        let get =
            |path: &str| format!("GET {path} HTTP/1.1\r\nhost: box\r\nconnection: close\r\n\r\n");

        let page = ask(address, &get("/")).await;
        let elsewhere = ask(address, &get("/../../etc/passwd")).await;
        let post = ask(
            address,
            "POST / HTTP/1.1\r\nhost: box\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        )
        .await;
        let garbage = ask(address, "\x16\x03\x01\r\n\r\n").await;

        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        for expected in ["LH-101", "Plug a network cable", "aria-current=\"step\""] {
            assert!(page.contains(expected), "{expected}: {page}");
        }
        assert!(!page.contains("https://") || page.contains("https://192.0.2.1:8420"));
        assert!(elsewhere.starts_with("HTTP/1.1 404"), "{elsewhere}");
        assert!(post.starts_with("HTTP/1.1 405"), "{post}");
        assert!(garbage.starts_with("HTTP/1.1 400"), "{garbage}");
        stop.cancel();
        server.await.unwrap();
    }
}
