//! As many small `PUT`s as a server takes: many connections, requests prepared ahead, so that the
//! client costs little beside the server.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// A server.
#[derive(Clone)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// How to speak TLS with it, and the name that it must prove; plain HTTP without.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// How long the server may be silent.
const SILENCE: Duration = Duration::from_mins(1);
/// Longest head of an answer.
const HEAD: usize = 16 << 10;

/// Sends every request, over `connections` at a time, and says how long that took.
///
/// A request is all of it, head and body; its answer must be a success with a `Content-Length`, or
/// without a body.
///
/// # Errors
///
/// The first that any connection had.
pub fn run(server: &Server, requests: &[Vec<u8>], connections: usize) -> io::Result<Duration> {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..connections.min(requests.len()))
            .map(|_| scope.spawn(|| work(server, requests, &next)))
            .collect();
        let mut result = Ok(());
        for worker in workers {
            let ended = worker
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a connection's thread panicked")));
            result = result.and(ended);
        }
        result
    })?;
    Ok(start.elapsed())
}

trait Duplex: Read + Write {}
impl<S: Read + Write> Duplex for S {}

fn work(server: &Server, requests: &[Vec<u8>], next: &AtomicUsize) -> io::Result<()> {
    let mut stream = connect(server)?;
    let mut answer = Vec::with_capacity(HEAD);
    while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
        stream.write_all(request)?;
        stream.flush()?;
        read_answer(&mut *stream, &mut answer)?;
    }
    Ok(())
}

fn connect(server: &Server) -> io::Result<Box<dyn Duplex>> {
    let socket = TcpStream::connect(server.address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(SILENCE))?;
    let Some((config, name)) = &server.tls else {
        return Ok(Box::new(socket));
    };
    let connection =
        ClientConnection::new(Arc::clone(config), name.clone()).map_err(io::Error::other)?;
    Ok(Box::new(StreamOwned::new(connection, socket)))
}

/// Reads one answer; an error unless it is a success.
fn read_answer(stream: &mut dyn Duplex, answer: &mut Vec<u8>) -> io::Result<()> {
    answer.clear();
    let mut piece = [0; 4096];
    let body = loop {
        let read = stream.read(&mut piece)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&piece[..read]);
        if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if answer.len() > HEAD {
            return Err(io::Error::other("the head of an answer has no end"));
        }
    };
    let head = String::from_utf8_lossy(&answer[..body]).into_owned();
    let length = length(&head)?;
    let mut left = length.saturating_sub(answer.len() - body);
    while left > 0 {
        let want = left.min(piece.len());
        let read = stream.read(&mut piece[..want])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&piece[..read]);
        left -= read;
    }
    if head.starts_with("HTTP/1.1 200 ") || head.starts_with("HTTP/1.1 204 ") {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "the server refused: {}",
        String::from_utf8_lossy(answer)
    )))
}

/// Length of the body behind this head.
fn length(head: &str) -> io::Result<usize> {
    let field = |name: &str| {
        head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    if field("transfer-encoding").is_some() {
        return Err(io::Error::other("an answer in pieces was not expected"));
    }
    let length = field("content-length").map_or(Ok(0), str::parse);
    length.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn served(answers: Vec<&'static str>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("a connection");
            for answer in answers {
                let mut request = [0; 4];
                socket.read_exact(&mut request).expect("a request");
                socket.write_all(answer.as_bytes()).expect("answered");
            }
        });
        Server { address, tls: None }
    }

    #[test]
    fn every_request_is_sent_and_answered() {
        let server = served(vec![
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        ]);
        run(&server, &vec![b"PUT ".to_vec(); 3], 1).expect("three successes");
    }

    #[test]
    fn a_refusal_is_an_error_that_says_why() {
        let server = served(vec!["HTTP/1.1 503 no\r\nContent-Length: 4\r\n\r\nbusy"]);
        let error = run(&server, &[b"PUT ".to_vec()], 1).expect_err("refused");
        assert!(error.to_string().contains("busy"), "{error}");
    }

    #[test]
    fn a_server_that_hangs_up_is_an_error() {
        let server = served(Vec::new());
        run(&server, &[b"PUT ".to_vec()], 1).expect_err("no answer");
    }
}
