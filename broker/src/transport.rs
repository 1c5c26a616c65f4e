//! One connection's bytes: TLS in both directions, bounded buffers, no rules.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

/// Bytes read at once: one TLS record.
const READ_BYTES: usize = 16 * 1024;

/// A TLS stream with what has been read and not parsed, and what is to be written.
///
/// An idle connection holds neither buffer: both are freed when they run empty.
#[derive(Debug)]
pub struct Transport {
    stream: Box<TlsStream<TcpStream>>,
    pub inbox: BytesMut,
    pub outbox: BytesMut,
    unflushed: bool,
    blocked_since: Option<Instant>,
}

impl Transport {
    pub fn new(stream: TlsStream<TcpStream>) -> Self {
        Self {
            stream: Box::new(stream),
            inbox: BytesMut::new(),
            outbox: BytesMut::new(),
            unflushed: false,
            blocked_since: None,
        }
    }

    /// Since when the peer has taken no byte although there are some to take.
    pub fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since
    }

    /// Writes what there is to write and, if `reading`, reads once. Ready when bytes have arrived
    /// or the last byte has gone; an error when the peer has closed.
    pub fn poll(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<io::Result<()>> {
        let drained = self.poll_write(cx)?;
        if reading && self.poll_read(cx)?.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if drained {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// Whether the last of some bytes has just gone out.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let had = !self.outbox.is_empty() || self.unflushed;
        while !self.outbox.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.outbox)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(n) => {
                    self.outbox.advance(n);
                    self.unflushed = true;
                    self.blocked_since = None;
                }
                Poll::Pending => break,
            }
        }
        if self.outbox.is_empty() {
            self.outbox = BytesMut::new();
            if self.unflushed && Pin::new(&mut self.stream).poll_flush(cx)?.is_ready() {
                self.unflushed = false;
            }
        }
        if self.outbox.is_empty() && !self.unflushed {
            self.blocked_since = None;
            return Ok(had);
        }
        self.blocked_since.get_or_insert_with(Instant::now);
        Ok(false)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [MaybeUninit::<u8>::uninit(); READ_BYTES];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
        if read.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.inbox.extend_from_slice(read.filled());
        Poll::Ready(Ok(()))
    }

    /// Forgets the first `len` bytes of the inbox.
    pub fn consume(&mut self, len: usize) {
        self.inbox.advance(len);
        if self.inbox.is_empty() {
            self.inbox = BytesMut::new();
        }
    }

    /// Writes out what is left and closes the sending direction, or gives up after `limit`.
    pub async fn finish(&mut self, limit: Duration) {
        let finish = async {
            while !self.outbox.is_empty() || self.unflushed {
                std::future::poll_fn(|cx| self.poll(cx, false)).await?;
            }
            std::future::poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await
        };
        // Whether the peer heard the goodbye changes nothing: the socket is closed next.
        let _ = tokio::time::timeout(limit, finish).await;
    }

    /// Reads and forgets until the peer closes, at most for `limit`: closing a socket with unread
    /// bytes resets it, and a reset can overtake the goodbye.
    pub async fn linger(mut self, limit: Duration) {
        let linger = async {
            while std::future::poll_fn(|cx| self.poll_read(cx)).await.is_ok() {
                self.inbox.clear();
            }
        };
        let _ = tokio::time::timeout(limit, linger).await;
    }
}
