//! Peers that stop in the middle: a body that stops arriving, a socket that stops taking bytes.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How the text of a stalled body begins; told apart by it, because s3s hides the type.
pub(super) const STALLED: &str = "body stalled";

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("body stalled for {} s", .0.as_secs())]
    Stalled(Duration),
    #[error("connection failed")]
    Connection(#[from] hyper::Error),
}

/// How long a connection is read on after an answer that came before the request's end.
const LINGER: Duration = Duration::from_secs(10);

/// Notes that a request of a connection was answered before all of its body was read.
///
/// The client is still sending then. Closing the socket under it would make the system reset the
/// connection, and the client would report a broken pipe rather than the answer that says why.
#[derive(Clone, Debug, Default)]
pub(super) struct CutShort(Arc<AtomicBool>);

/// A request body that may not be silent for longer than a limit.
pub(super) struct TimedBody {
    inner: Incoming,
    limit: Duration,
    silence: Pin<Box<Sleep>>,
    ended: bool,
    cut_short: CutShort,
}

impl Drop for TimedBody {
    fn drop(&mut self) {
        if !self.ended && !self.inner.is_end_stream() {
            self.cut_short.0.store(true, Ordering::Relaxed);
        }
    }
}

impl TimedBody {
    pub fn new(inner: Incoming, limit: Duration, cut_short: CutShort) -> Self {
        Self {
            inner,
            limit,
            silence: Box::pin(sleep(limit)),
            ended: false,
            cut_short,
        }
    }
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            this.silence.as_mut().reset(Instant::now() + this.limit);
            this.ended = frame.is_none();
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)));
        }
        ready!(this.silence.as_mut().poll(cx));
        Poll::Ready(Some(Err(BodyError::Stalled(this.limit))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A socket that fails when the peer takes no bytes for longer than a limit.
pub(super) struct TimedWrites<S> {
    inner: S,
    limit: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    lingering: Option<Pin<Box<Sleep>>>,
    cut_short: CutShort,
}

impl<S> TimedWrites<S> {
    pub fn new(inner: S, limit: Duration, cut_short: CutShort) -> Self {
        Self {
            inner,
            limit,
            waiting: None,
            lingering: None,
            cut_short,
        }
    }

    fn bounded<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.waiting = None;
            return poll;
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedWrites<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + Unpin> TimedWrites<S> {
    /// Reads what the client still sends, until it has seen the end and closes too.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut unwanted = [0; 8 << 10];
        let end = self
            .lingering
            .get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        loop {
            let mut buf = ReadBuf::new(&mut unwanted);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TimedWrites<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.bounded(cx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(cx);
        self.bounded(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            let poll = Pin::new(&mut self.inner).poll_shutdown(cx);
            ready!(self.bounded(cx, poll))?;
        }
        if self.cut_short.0.load(Ordering::Relaxed) {
            ready!(self.linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
